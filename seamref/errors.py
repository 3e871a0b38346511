"""Errors for people.

Nothing that the architecture defines is raised as an exception: faults, exits, VMfail and status codes are
values (:mod:`seamref.arch.outcome`).  What is raised is a mistake of the *caller of this package*, or a
question about something that is not modelled, and the message says which structure, field, offset and value.
"""

from __future__ import annotations


class SeamrefError(ValueError):
    """Base of every error this package raises on purpose."""


class LayoutError(SeamrefError):
    """Bytes that do not fit a declared layout, or a value that does not fit a field.

    The message reads ``STRUCTURE.field at 0xOFFSET: what is wrong (value)``.
    """

    def __init__(self, structure: str, field: str, offset: int, problem: str) -> None:
        self.structure = structure
        self.field = field
        self.offset = offset
        self.problem = problem
        super().__init__(f"{structure}.{field} at 0x{offset:X}: {problem}")


class TopologyError(SeamrefError):
    """A platform description that no platform can have."""


class NotModelled(SeamrefError):
    """A question about something this specification does not cover; it names the gap (design, principle 8)."""

    def __init__(self, what: str, clause: str = "") -> None:
        self.what = what
        self.clause = clause
        super().__init__(f"not modelled: {what}" + (f" (clause {clause})" if clause else ""))
