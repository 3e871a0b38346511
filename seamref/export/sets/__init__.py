"""The sets of the kit, one module each: what is asked, and how the machine answers."""

from __future__ import annotations

from importlib import import_module

from seamref.errors import SeamrefError
from seamref.export.form import VectorSet
from seamref.export.recording import RecordedSet

NAMES: tuple[str, ...] = (
    "seamcall", "seamret", "seamops", "tdcall", "msr", "memory-access", "enteraccs", "events", "pseamldr", "npseamldr",
    "memory-plans", "sigstruct", "rsa", "blob", "update",
)
"""The sets in their order; each is the object ``SET`` of the module of its name."""


def load(name: str) -> VectorSet | RecordedSet:
    """A set by its name."""
    if name not in NAMES:
        raise SeamrefError(f"no set {name!r}; there are {', '.join(NAMES)}")
    found: VectorSet | RecordedSet = import_module(f"seamref.export.sets.{name.replace('-', '_')}").SET
    return found


def vectors() -> tuple[VectorSet, ...]:
    """The sets in the kit's own form."""
    return tuple(held for held in map(load, NAMES) if isinstance(held, VectorSet))
