"""Checking the reductions themselves, on every reachable state of a small configuration.

Partial order: at each state, any two steps declared independent are taken in both orders and must lead to one state;
whatever an actor does must have been in what :func:`~seamref.explore.independence.ahead` said of it, and that must
not grow along anybody else's step.  Symmetry: states with one canonical fingerprint must have successors with the same
canonical fingerprints, and there must be exactly as many of them as the fingerprint says.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from seamref.explore.canonical import Canon
from seamref.explore.independence import Assume, ahead, next_accesses
from seamref.explore.world import World


@dataclass(frozen=True, slots=True)
class Audit:
    """What was looked at, and every complaint (at most ``LIMIT``)."""

    states: int
    classes: int
    pairs: int
    declarations: int
    complaints: tuple[str, ...]


LIMIT = 20


def _canon(world: World, symmetry: bool) -> Canon:
    return Canon(world.setting, tuple(cpu.apicid for cpu in world.host.state.cpus), symmetry)


def audit(roots: Sequence[World], assume: Assume | None = None, *, max_states: int = 100_000,
          every: int = 1) -> Audit:
    """Walk everything reachable, unreduced, and check the declarations at every ``every``-th state."""
    from seamref.explore.engine import Search

    assume = assume if assume is not None else Assume()
    plain, classes = _canon(roots[0], False), _canon(roots[0], True)
    complaints: list[str] = []
    members: dict[tuple[int, bytes], tuple[int, frozenset[bytes]]] = {}
    sizes: dict[tuple[int, bytes], int] = {}
    seen = pairs = declared = 0

    def complain(text: str) -> None:
        if len(complaints) < LIMIT:
            complaints.append(text)

    def look(world: World, enabled: list[int], chosen: list[int]) -> None:
        nonlocal seen, pairs, declared
        seen += 1
        after = {actor: _step(world, actor) for actor in enabled}
        level = sum(world.rest.counts)
        key = (level, classes(world).key)
        successors = frozenset(classes(child).key for child in after.values())
        if key in members and members[key][1] != successors:
            complain(f"level {level}: two states of one class have different successors")
        members.setdefault(key, (classes(world).worlds, successors))
        sizes[key] = sizes.get(key, 0) + 1
        if seen % every or _is_contradicted(world, assume):
            return
        live = {actor: child for actor, child in after.items() if not _contradicts(world, child, actor, assume)}
        for actor in enabled:
            mine = next_accesses(world, actor, assume)
            for other in world.actors:
                if other == actor:
                    continue
                if other > actor and other in live and actor in live and not mine.conflicts(
                        next_accesses(world, other, assume)):
                    pairs += 1
                    _commute(world, actor, other, after, plain, complain)
                if world.is_done(other):
                    continue
                said = ahead(world, other, actor, assume)
                declared += 1
                if other in live and not said.covers(next_accesses(world, other, assume)):
                    complain(f"level {level}: {world.name(other)} may touch what ahead() does not say: "
                             f"{next_accesses(world, other, assume).words()} / {said.words()} (frozen {actor})")
                for third in live:
                    if third != actor:
                        later = ahead(live[third], other, actor, assume)
                        if not said.covers(later):
                            complain(
                                f"level {level}: ahead() of {world.name(other)} with {world.name(actor)} frozen grows "
                                f"when {world.name(third)} steps: {said.words()} -> {later.words()}")

    search = Search([root.fork() for root in roots], (), symmetry=False, por=False, max_states=max_states, watch=look,
                    assume=assume)
    search.run()
    if search.why:
        complain(f"not everything was walked: {search.why}")
    for key, count in sizes.items():
        if members[key][0] != count:
            complain(f"level {key[0]}: a class says it stands for {members[key][0]} states, {count} were met")
    return Audit(seen, len(sizes), pairs, declared, tuple(complaints))


def _step(world: World, actor: int) -> World:
    child = world.fork()
    child.step(actor)
    return child


def _is_contradicted(world: World, assume: Assume) -> bool:
    """Whether something happened on the way here that the reduction takes for granted that it does not."""
    shared, ended = world.host.state.update, world.remembered("update")
    fails = (shared is not None and shared.failures > 0) or bool(ended)
    return (assume.nobody_fails and fails) or (assume.nobody_dies and any(c.dead for c in world.host.state.cpus))


def _contradicts(before: World, after: World, actor: int, assume: Assume) -> bool:
    old, new = before.host.state.update, after.host.state.update
    fails = old is not None and new is not None and new.failures > old.failures
    dies = actor < after.cpus and after.host.state.cpus[actor].dead and not before.host.state.cpus[actor].dead
    return (assume.nobody_fails and fails) or (assume.nobody_dies and dies)


def _commute(  # type: ignore[no-untyped-def]
    world: World, one: int, other: int, after: dict[int, World], plain: Canon, complain
) -> None:
    if not after[one].is_enabled(other) or not after[other].is_enabled(one):
        complain(f"{world.name(one)} and {world.name(other)} are called independent, but one disables the other")
        return
    if plain(_step(after[one], other)).key != plain(_step(after[other], one)).key:
        what = [world.task(actor).pc if actor < world.cpus and world.task(actor) else world.name(actor)  # type: ignore[union-attr]
                for actor in (one, other)]
        complain(f"{what[0]} of {world.name(one)} and {what[1]} of {world.name(other)} do not commute")
