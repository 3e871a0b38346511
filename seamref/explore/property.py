"""What a property is: a sentence with its clause and source, and the check of a step or of an end.

A *step* property looks at one step: the world before it, the world after it, and what was done.  Everything that it
looks at is among the things that the step touches, so that it does not matter to it what independent steps were taken
in between (that is what makes it safe under partial-order reduction).  A *final* property looks at a world in which no
actor can take a step.  Each answers with ``None`` or with a sentence that says what is wrong.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from seamref.arch.lp import Lp
from seamref.errors import SeamrefError
from seamref.explore.world import Did, World

StepCheck: TypeAlias = Callable[[World, World, Did], "str | None"]
FinalCheck: TypeAlias = Callable[[World], "str | None"]


@dataclass(frozen=True, slots=True)
class Property:
    """A named property: what it says, the clause it guards, where that comes from, and the check."""

    name: str
    says: str
    clause: str
    source: str
    step: StepCheck | None = None
    final: FinalCheck | None = None


PROPERTIES: dict[str, Property] = {}


def declare(
    name: str, says: str, clause: str, source: str, *, step: StepCheck | None = None, final: FinalCheck | None = None
) -> None:
    """Register a property; names are unique, and each has exactly one check."""
    if name in PROPERTIES:
        raise SeamrefError(f"property {name!r} is declared twice")
    if (step is None) == (final is None):
        raise SeamrefError(f"property {name!r}: a check of steps or a check of ends, one of the two")
    PROPERTIES[name] = Property(name, says, clause, source, step, final)


def get_property(name: str) -> Property:
    """A property by name; an unknown name is an error that lists the known ones."""
    try:
        return PROPERTIES[name]
    except KeyError:
        raise SeamrefError(f"no property {name!r}; there are {', '.join(PROPERTIES)}") from None


def lp_of(world: World, cpu: int) -> Lp:
    """A CPU's processor, for reading."""
    return world.host.platform.peek_lp(world.host.state.cpus[cpu].apicid)


__all__ = ["PROPERTIES", "FinalCheck", "Property", "StepCheck", "declare", "get_property", "lp_of"]
