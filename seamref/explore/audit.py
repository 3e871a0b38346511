"""Checking the reductions themselves, on every reachable state of a small configuration.

Partial order: at each state, any two steps (and strikes of faults) that are not seen to touch the same place are taken
in both orders and must lead to one state: an access that :mod:`seamref.explore.observe` did not note would show.
Symmetry: states with one canonical fingerprint must have successors with the same canonical fingerprints, and there
must be exactly as many of them as the fingerprint says.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from seamref.explore.canonical import Canon
from seamref.explore.observe import SAW, Seen, observed
from seamref.explore.world import STRIKE, World


@dataclass(frozen=True, slots=True)
class Audit:
    """What was looked at, and every complaint (at most ``LIMIT``)."""

    states: int
    classes: int
    pairs: int
    complaints: tuple[str, ...]


LIMIT = 20


def _canon(world: World, symmetry: bool) -> Canon:
    return Canon(world.setting, tuple(cpu.apicid for cpu in world.host.state.cpus), symmetry)


def audit(roots: Sequence[World], *, max_states: int = 100_000, every: int = 1) -> Audit:
    """Walk everything reachable, unreduced, and check pairs of steps at every ``every``-th state."""
    from seamref.explore.engine import Search

    plain, classes = _canon(roots[0], False), _canon(roots[0], True)
    complaints: list[str] = []
    members: dict[tuple[int, bytes], tuple[int, frozenset[bytes]]] = {}
    sizes: dict[tuple[int, bytes], int] = {}
    seen = pairs = 0

    def complain(text: str) -> None:
        if len(complaints) < LIMIT:
            complaints.append(text)

    def look(world: World, movable: list[int], chosen: list[int]) -> None:
        nonlocal seen, pairs
        seen += 1
        after: dict[int, World] = {}
        touched: dict[int, Seen] = {}
        for actor in movable:
            for choice in world.choices(actor):
                SAW.reset()
                child = world.fork()
                if not child.take(choice).pointless:
                    touched[choice] = SAW.taken(actor if actor < world.cpus else -1)
                    after[choice] = child
        level = sum(world.rest.counts)
        key = (level, classes(world).key)
        successors = frozenset(classes(child).key for child in after.values())
        if key in members and members[key][1] != successors:
            complain(f"level {level}: two states of one class have different successors")
        members.setdefault(key, (classes(world).worlds, successors))
        sizes[key] = sizes.get(key, 0) + 1
        if seen % every:
            return
        for one in after:
            for other in after:
                if one % STRIKE < other % STRIKE and not touched[one].conflicts(touched[other]):
                    pairs += 1
                    _commute(world, one, other, after, plain, complain)

    first = roots[0]
    own = first.setting.own or {}
    SAW.begin([cpu.apicid for cpu in first.host.state.cpus], own, {slot for _, slot in own.values()}, 4096)
    starts = []
    for root in roots:
        start = root.fork()
        start.host = observed(start.host)
        starts.append(start)
    search = Search(starts, (), symmetry=False, por=False, max_states=max_states, watch=look)
    search.run()
    if search.why:
        complain(f"not everything was walked: {search.why}")
    for key, count in () if any(root.rest.faults for root in roots) else sizes.items():  # a fault tells CPUs apart
        if members[key][0] != count:
            complain(f"level {key[0]}: a class says it stands for {members[key][0]} states, {count} were met")
    return Audit(seen, len(sizes), pairs, tuple(complaints))


def _taken(world: World, choice: int) -> World | None:
    if choice not in world.choices(choice % STRIKE):
        return None
    child = world.fork()
    child.take(choice)
    return child


def _commute(
    world: World, one: int, other: int, after: dict[int, World], plain: Canon, complain: Callable[[str], None]
) -> None:
    what = [f"{world.site(choice % STRIKE)}{' (a fault)' if choice >= STRIKE else ''} of {world.name(choice % STRIKE)}"
            for choice in (one, other)]
    first, second = _taken(after[one], other), _taken(after[other], one)
    if first is None or second is None:
        complain(f"{what[0]} and {what[1]} touch nothing in common, but one disables the other")
    elif plain(first).key != plain(second).key:
        complain(f"{what[0]} and {what[1]} touch nothing in common, and do not commute")
