"""The persistent SEAM loader: what SEAMCALL with RAX[63]=1 reaches, executed on the platform's memory."""
