"""States of SEAMCALL in words and as few lines as describe them, SEAMCALL in one of them, who may touch what."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeAlias

from seamref.arch import lab
from seamref.arch.exhaustive import INPUTS, facts_of, is_reachable, put_state, seamcall_table
from seamref.arch.memory import Agent, Verdict
from seamref.arch.outcome import Fault, SeamcallOutcome, VmExit, VmFailInvalid
from seamref.arch.platform import Platform
from seamref.arch.revision import Revision
from seamref.arch.seam import SEAMCALL, SeamcallState, seamcall
from seamref.spec import Check

WHERE: Mapping[str, Mapping[str, bool]] = {
    "host (VMX root)": {"vmx": True, "b64": True},
    "outside VMX": {"b64": True},
    "legacy VM": {"vmx": True, "non_root": True, "b64": True},
    "TDX module or P-SEAMLDR": {"vmx": True, "inSEAM": True, "b64": True},
    "TD": {"vmx": True, "inSEAM": True, "non_root": True, "b64": True},
    "SMM": {"vmx": True, "smm": True, "b64": True},
}
"""Where SEAMCALL is executed, as facts that SEAMCALL looks at."""


def fact_words(state: int) -> str:
    """A state number in words."""
    facts = facts_of(state)
    place = next(
        (name for name, given in WHERE.items()
         if all(facts["64bit" if k == "b64" else k] == v for k, v in given.items() if k != "b64")
         and all(given.get(k, False) == facts[k] for k in ("vmx", "smm", "inSEAM", "non_root"))),
        "an unreachable mode",
    )
    return f"{place}, CPL {3 if facts['user'] else 0}"


def compressed(states: Sequence[int], over: Iterable[int]) -> list[dict[str, bool | None]]:
    """States as a short list of cubes: each fact true, false, or ``None`` where it does not matter.

    ``over`` is the set of states that may be given any answer to make cubes larger (none: exactly ``states``).
    Neighbouring cubes are merged until no two can be (Quine-McCluskey without the choice of a cover, then a greedy
    cover in a fixed order), so that the result is exact and deterministic.
    """
    wanted, free = set(states), set(over)
    bits = len(INPUTS)
    cubes = {(state, 0) for state in wanted | free}
    prime: set[tuple[int, int]] = set()
    while cubes:
        merged: set[tuple[int, int]] = set()
        used: set[tuple[int, int]] = set()
        for value, mask in cubes:
            for bit in range(bits):
                flag = 1 << bit
                if mask & flag or value & flag:
                    continue
                other = (value | flag, mask)
                if other in cubes:
                    merged.add((value, mask | flag))
                    used |= {(value, mask), other}
        prime |= cubes - used
        cubes = merged
    chosen: list[dict[str, bool | None]] = []
    left = set(wanted)
    while left:
        best = max(sorted(prime), key=lambda cube: len(left & _members(cube, bits)))
        left -= _members(best, bits)
        value, mask = best
        chosen.append({i.name: None if mask >> i.bit & 1 else bool(value >> i.bit & 1) for i in INPUTS})
    return chosen


def _members(cube: tuple[int, int], bits: int) -> set[int]:
    value, mask = cube
    free = [1 << bit for bit in range(bits) if mask >> bit & 1]
    found = {value}
    for flag in free:
        found |= {member | flag for member in found}
    return found


@lru_cache(maxsize=8)
def _base(revision: Revision) -> Platform:
    return lab.platform(revision=revision)


Walk: TypeAlias = list[tuple[Check[SeamcallState, Fault | VmExit | VmFailInvalid], bool]]


def seamcall_in(state: int, revision: Revision) -> tuple[Walk, SeamcallOutcome]:
    """SEAMCALL in one of the 4096 states: every row that was asked with its answer, and the outcome."""
    platform = put_state(_base(revision).fork(), state)
    lp = platform.lp(platform.lps[0])
    walk = SEAMCALL.walk(SeamcallState(platform, lp), revision)
    return walk, seamcall(platform, lp.id)


def refused_by(
    platform: Platform, places: Mapping[str, int], agents: Iterable[Agent] = tuple(Agent), size: int = 8,
    write: bool = False,
) -> dict[Agent, dict[str, str]]:
    """Agent -> place -> the clause that refuses the access, "" where it is allowed.  The platform judges each."""
    out: dict[Agent, dict[str, str]] = {}
    for agent in agents:
        judged = {name: platform.judge(agent, address, size, write) for name, address in places.items()}
        out[agent] = {name: "" if verdict is Verdict.ALLOWED else clause for name, (verdict, clause) in judged.items()}
    return out


@dataclass(frozen=True, slots=True)
class Differing:
    """States in which two revisions answer differently, in the same two ways, that one line describes.

    ``facts``: a fact's value, or ``None`` where it does not matter; ``states``: how many.
    """

    facts: dict[str, bool | None]
    states: int
    one: str
    other: str


def differing(a: Revision, b: Revision, reachable: bool = True) -> list[Differing]:
    """The states in which two revisions answer SEAMCALL differently, as few lines as describe them exactly.

    With ``reachable``, states that no processor can be in are left out, and used only to shorten the description.
    """
    one, other = seamcall_table(a), seamcall_table(b)
    free = [s for s in range(len(one)) if reachable and not is_reachable(s)]
    groups: dict[tuple[str, str], list[int]] = {}
    for state, (x, y) in enumerate(zip(one, other, strict=True)):
        if x.outcome != y.outcome and (is_reachable(state) or not reachable):
            groups.setdefault((x.outcome, y.outcome), []).append(state)
    found = []
    for (x_said, y_said), states in sorted(groups.items()):
        for cube in compressed(states, free):
            count = sum(all(v is None or facts_of(s)[n] == v for n, v in cube.items()) for s in states)
            found.append(Differing(cube, count, x_said, y_said))
    return found
