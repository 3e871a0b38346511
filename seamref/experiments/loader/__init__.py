"""Experiments with P-SEAMLDR: its leaves, its refusals, its memory plan, its updates."""
