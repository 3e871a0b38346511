"""Experiments with the processor: SEAMCALL in a state, who may touch what, both sides of each erratum."""
