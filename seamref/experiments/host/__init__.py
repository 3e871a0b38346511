"""Experiments with the kernel: an update recorded step by step."""
