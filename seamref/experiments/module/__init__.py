"""Experiments with the TDX module: its states, its memory, updates that were tried, what a verifier concludes."""
