"""The persistent SEAM loader: what SEAMCALL with RAX[63]=1 reaches, executed on the platform's memory.

Importing :mod:`seamref.pseamldr.program` makes its images runnable.
"""
