"""Experiments with the explorer."""
