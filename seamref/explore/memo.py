"""Pure work remembered while exploring: hashes, signatures, relocation, layout of the same bytes.

The functions themselves stay plain; a cache is put around them for the time of an exploration.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from importlib import import_module
from typing import Any

PURE = (
    ("seamref.pseamldr.manifest", "verify"),
    ("seamref.pseamldr.install", "compute_memory_constants"),
)
"""Module and name of functions whose result depends on their (hashable) arguments alone."""


@contextmanager
def remembering(on: bool = True) -> Iterator[None]:
    """Caches around the pure functions while the block runs."""
    plain: list[tuple[Any, str, Callable[..., Any]]] = []
    if on:
        for module_name, name in PURE:
            module = import_module(module_name)
            function = getattr(module, name, None)
            if function is not None and not hasattr(function, "cache_info"):
                plain.append((module, name, function))
                setattr(module, name, lru_cache(maxsize=1024)(function))
    try:
        yield
    finally:
        for module, name, function in plain:
            setattr(module, name, function)
