"""Whether an order that was left out could have mattered, from what steps really did.

Where partial-order reduction takes one actor's step t alone, it claims: whatever the others do before t, nothing of it
conflicts with t.  The claim is checked on everything that is explored below.  Each such t is followed along every
path, with the actors that have learnt of it (directly, or from a step that touched what t, or a step behind t,
touched).  A step u of an actor that has not learnt of t, and that conflicts with t, could have come first.  Then the
state as it would be without t is looked at: if u's actor is blocked in it, t had to come first; if not, it is a race,
and the search begins again without taking such steps alone.

Why that is enough.  Suppose no race is left, and there is a run from a state s, without t's actor, whose first step
that conflicts with t is u.  The steps before u commute with t, so after t they can be taken as well, and then u's actor
runs the same code up to the first read of what t wrote: the conflict shows there too, and nobody between has learnt of
t.  Below s·t the exploration meets every run up to commuting steps (induction over the height of s; the graph has no
cycles, because worlds count steps), so it meets that one, and would have called it a race.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from seamref.explore.observe import (
    BIT,
    CPU_PARTS,
    HOST,
    PART_OF,
    PARTS,
    PROCESSOR,
    RESULTS,
    SAW,
    Seen,
    raw_cpus,
    raw_state,
)
from seamref.explore.world import World
from seamref.host.records import having

_CONTROL = {"update.state": "state", "update.failures": "failures"}
_SAVED_HOST = sum(BIT[name] for name in HOST)
_SAVED_UPDATE = sum(BIT[name] for name in (*_CONTROL, "update"))
_MUTEX, _RETURNED = BIT["P_SEAMLDR_MUTEX"], BIT["update.results"]


class Followed(NamedTuple):
    """A step that was taken alone: where, whose, what it touched; who has learnt of it, and what they touched since.

    ``saved``   what its actor and they overwrote, of what decides whether somebody is blocked: place and value before
    """

    site: str
    actor: int
    seen: Seen
    learnt: int
    since: Seen
    saved: tuple[tuple[int, Any], ...]


Pending = list[Followed]


class Race(NamedTuple):
    """``site``: where a step was taken alone that could have come second; ``text``: of what, with whom."""

    site: str
    text: str


def _key(item: Followed) -> tuple[Any, ...]:
    return item.site, item.actor, item.seen, item.learnt, item.since


def save(
    world: World, actor: int, places: int, known: tuple[tuple[int, Any], ...]
) -> tuple[tuple[int, Any], ...]:
    """What stands in these places now, of those that decide whether somebody is blocked, behind what is known.

    Results are added to, so of them it is said who added one.
    """
    more: list[tuple[int, Any]] = []
    if places & _RETURNED:
        more.append((_RETURNED, actor))
    places &= _SAVED_HOST | _SAVED_UPDATE | _MUTEX | SAW.saved
    for place, _ in known:
        places &= ~place
    if places:
        more += _values(world, places)
    return (*known, *more) if more else known


def _values(world: World, places: int) -> list[tuple[int, Any]]:
    host = world.host
    found: list[tuple[int, Any]] = []
    if places & _SAVED_HOST:
        found += [(BIT[name], raw_state(host, name)) for name in HOST if places & BIT[name]]
    if places & _SAVED_UPDATE:
        update = raw_state(host, "update")
        if places & BIT["update"]:
            found.append((BIT["update"], update))
        found += [(BIT[name], None if update is None else getattr(update, field)) for name, field in _CONTROL.items()
                  if places & BIT[name]]
    if places & _MUTEX:
        found.append((_MUTEX, host.platform.P_SEAMLDR_MUTEX))
    if places & SAW.tied:
        for number, (id, bits) in enumerate(SAW.cpu.items()):
            for part, bit in enumerate(bits):
                if not places & bit:
                    continue
                if part == PROCESSOR:
                    found.append((bit, host.platform.peek_lp(id)))
                elif part == RESULTS:
                    rest = world.rest
                    found.append((bit, (rest.scripts[number], rest.running[number], rest.results[number])))
                else:
                    record = raw_cpus(host)[number]
                    found.append((bit, tuple(getattr(record, name) for name in CPU_PARTS[PARTS[part]])))
    return found


def without(world: World, saved: tuple[tuple[int, Any], ...]) -> World:
    """The world as it would be without those who overwrote these values, as far as somebody's being blocked goes."""
    copy = world.fork()
    host = copy.host
    for place, value in saved:
        number = place.bit_length() - 1
        kind, cpu = SAW.memory_of[number]
        if kind == "cpu":
            id = tuple(SAW.cpu)[cpu]
            part = SAW.cpu[id].index(place)
            if part == PROCESSOR:
                host.platform._lps[id] = value
            elif part == RESULTS:
                _restore(copy, cpu, *value)
            else:
                cpus = raw_cpus(host)
                fields = dict(zip(CPU_PARTS[PARTS[part]], value, strict=True))
                host.state = having(host.state, cpus=(*cpus[:cpu], having(cpus[cpu], **fields), *cpus[cpu + 1 :]))
        elif place == _MUTEX:
            host.platform.P_SEAMLDR_MUTEX = value
        elif place == _RETURNED:
            now = raw_state(host, "update")
            if now is not None:
                rets = tuple(ret for ret in now.rets if ret[0] != value)
                host.state = having(host.state, update=having(now, rets=rets))
        elif place & _SAVED_HOST:
            host.state = having(host.state, **{_NAME[place]: value})
        elif _NAME[place] == "update":
            host.state = having(host.state, update=value)
        else:
            now = raw_state(host, "update")
            if now is not None and value is not None:
                host.state = having(host.state, update=having(now, **{_CONTROL[_NAME[place]]: value}))
    return copy


_NAME = {bit: name for name, bit in BIT.items()}
assert set(PART_OF.values()) < set(range(len(PARTS)))


def _restore(world: World, cpu: int, scripts: Any, running: Any, results: Any) -> None:
    rest = world.rest
    world.set(
        scripts=(*rest.scripts[:cpu], scripts, *rest.scripts[cpu + 1 :]),
        running=(*rest.running[:cpu], running, *rest.running[cpu + 1 :]),
        results=(*rest.results[:cpu], results, *rest.results[cpu + 1 :]),
    )


def is_over(item: Followed, world: World, movable: int, everybody: int) -> bool:
    """Whether nobody is left who could still come before the step.

    All others have learnt of it, or cannot move where it did not happen: and they stay so, because whoever might free
    them has learnt of it.  ``movable``: actors that can move now, as a set; looked at first, because it is cheap.
    """
    left = everybody & ~item.learnt
    if not left:
        return True
    if left & movable:
        return False
    other = without(world, item.saved)
    return not any(left >> actor & 1 and other.choices(actor) for actor in world.actors)


def follow(
    pending: Pending, before: World, then: World, actor: int, choice: int, seen: Seen, everybody: int,
    told: Callable[[Race], None],
) -> Pending:
    """What is followed behind a step; races that the step shows are ``told``."""
    after: Pending = []
    if not pending:
        return after
    movable = -1
    mine = 1 << actor
    changed = seen.writes | seen.adds
    for item in pending:
        learns = bool(item.learnt & mine)
        if not learns:
            if seen.joins & (item.seen.adds | item.since.adds):
                learns = True  # the last arrival: in whatever order they come, all come before what follows
            elif seen.conflicts(item.seen):
                learns = True
                if choice in without(before, item.saved).choices(actor):
                    where = SAW.words_of(seen.places(item.seen))
                    told(Race(item.site, f"{before.name(item.actor)} at {item.site} and {before.name(actor)} at "
                                         f"{before.site(actor)} both touch {where}"))
            elif seen.conflicts(item.since):
                learns = True
        if learns:
            since, more = item.since, not item.learnt & mine
            item = Followed(
                item.site, item.actor, item.seen, item.learnt | mine,
                Seen(since.reads | seen.reads, since.writes | seen.writes, since.adds | seen.adds),
                save(before, actor, changed, item.saved),
            )
            if more:
                if movable < 0:
                    movable = sum(1 << other for other in then.movable())
                if is_over(item, then, movable, everybody):
                    continue
        after.append(item)
    return after


def alone(into: Pending, before: World, actor: int, seen: Seen) -> None:
    """Follow a step that was taken alone (and not because nobody else could move)."""
    into.append(Followed(before.site(actor), actor, seen, 1 << actor, Seen(),
                         save(before, actor, seen.writes | seen.adds, ())))


def renamed(pending: Pending, order: tuple[int, ...]) -> Pending:
    """The same when CPU n is called ``order[n]`` (an exchange of interchangeable CPUs)."""
    after: Pending = []

    def permute(seen: Seen) -> Seen:
        return Seen(*(SAW.permute(places, order) for places in seen[:3]))

    def name(actor: int) -> int:
        return order[actor] if actor < len(order) else actor

    for item in pending:
        learnt = 0
        left = item.learnt
        while left:
            low = left & -left
            left ^= low
            learnt |= 1 << name(low.bit_length() - 1)
        saved = tuple((SAW.permute(place, order), _renamed(place, value, order)) for place, value in item.saved)
        after.append(Followed(item.site, name(item.actor), permute(item.seen), learnt, permute(item.since), saved))
    return after


_LOCKS = BIT["seamldr_lock"] | BIT["sysinit_lock"]


def _renamed(place: int, value: Any, order: tuple[int, ...]) -> Any:
    if place & _LOCKS and value is not None:
        return order[value]
    if place == _RETURNED and value < len(order):
        return order[value]
    if place == _MUTEX and value is not None:
        ids = tuple(SAW.cpu)
        return ids[order[ids.index(value)]]
    return value


def merge(into: Pending, more: Pending) -> None:
    """Two ways to one state: what is followed on either."""
    known: dict[tuple[Any, ...], list[tuple[tuple[int, Any], ...]]] = {}
    for item in into:
        known.setdefault(_key(item), []).append(item.saved)
    for item in more:
        held = known.setdefault(_key(item), [])
        if not any(saved is item.saved or saved == item.saved for saved in held):
            held.append(item.saved)
            into.append(item)


__all__ = ["Followed", "Pending", "Race", "alone", "follow", "merge", "renamed", "save", "without"]
