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

Steps of one actor of which the same actors have learnt are followed together (:class:`Chain`): whoever learns of one
of them has learnt of those before it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, NamedTuple

from seamref.arch.platform import Platform
from seamref.explore.canonical import Canon
from seamref.explore.observe import (
    BIT,
    CPU_PARTS,
    HOST,
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


class Kept(NamedTuple):
    """What stood in a place before a step overwrote it: ``key`` tells two such values apart, whichever of
    interchangeable CPUs they belong to.

    Results are added to, so of them it is kept who added one.
    """

    place: int
    value: Any
    key: Any

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Kept) and self.place == other.place and bool(self.key == other.key)

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:
        return hash(self.place)


class Race(NamedTuple):
    """``site``: where a step was taken alone that could have come second; ``text``: of what, with whom."""

    site: str
    text: str


class Event:
    """A step: where its actor stood, what it touched, and what it overwrote of that which decides who is blocked."""

    __slots__ = ("actor", "kept", "names", "seen", "site")

    def __init__(self, site: str, actor: int, seen: Seen, kept: tuple[Kept, ...]) -> None:
        self.site, self.actor, self.seen, self.kept = site, actor, seen, kept
        self.names: dict[tuple[int, ...], Event] = {}

    def same(self, other: Event) -> bool:
        """Whether two paths took the same step."""
        return self is other or (self.site == other.site and self.seen == other.seen and self.kept == other.kept)

    def renamed(self, order: tuple[int, ...]) -> Event:
        """The same when CPU n is called ``order[n]``."""
        found = self.names.get(order)
        if found is None:
            found = self.names[order] = Event(self.site, _name(self.actor, order), _permuted(self.seen, order),
                                              _moved(self.kept, order))
        return found


class Chain:
    """Steps that one actor took alone, one after the other: who has learnt of them, what those touched since
    (``since``) and overwrote (``kept``).

    ``marks`` which of the steps are still looked after (the others stay for what they tell of those before them)
    ``all``   what the steps, and those who learnt of them, touched
    """

    __slots__ = ("all", "events", "hash", "kept", "learnt", "marks", "names", "since")

    def __init__(self, events: tuple[Event, ...], marks: int, learnt: int, since: Seen, kept: tuple[Kept, ...],
                 all: Seen) -> None:
        self.events, self.marks, self.learnt, self.since, self.kept, self.all = events, marks, learnt, since, kept, all
        self.hash = hash((len(events), marks, learnt, since, all))
        self.names: dict[tuple[int, ...], Chain] = {}

    def __hash__(self) -> int:
        return self.hash

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        return (
            isinstance(other, Chain) and self.hash == other.hash and self.marks == other.marks
            and self.learnt == other.learnt and self.events[0].actor == other.events[0].actor
            and self.since == other.since and self.all == other.all and self.kept == other.kept
            and len(self.events) == len(other.events)
            and all(a.same(b) for a, b in zip(self.events, other.events, strict=True))
        )

    def renamed(self, order: tuple[int, ...]) -> Chain:
        """The same when CPU n is called ``order[n]``."""
        found = self.names.get(order)
        if found is None:
            learnt, left = 0, self.learnt
            while left:
                low = left & -left
                left ^= low
                learnt |= 1 << _name(low.bit_length() - 1, order)
            found = self.names[order] = Chain(
                tuple(event.renamed(order) for event in self.events), self.marks, learnt,
                _permuted(self.since, order), _moved(self.kept, order), _permuted(self.all, order))
        return found

    def values(self, index: int) -> list[Kept]:
        """What stood, before step ``index``, in the places that it and those who learnt of it overwrote."""
        known = 0
        found: list[Kept] = []
        for kept in (*(event.kept for event in self.events[index:]), self.kept):
            for item in kept:
                if item.place == _RETURNED or not item.place & known:
                    known |= item.place
                    found.append(item)
        return found


Pending = list[Chain]


# --- values of places


def keep(world: World, actor: int, places: int, canon: Canon) -> tuple[Kept, ...]:
    """What stands in these places now, of those that decide whether somebody is blocked."""
    found: list[Kept] = []
    if places & _RETURNED:
        found.append(Kept(_RETURNED, actor, actor))
    places &= _SAVED_HOST | _SAVED_UPDATE | _MUTEX | SAW.saved
    if not places:
        return tuple(found)
    host = world.host
    if places & _SAVED_HOST:
        found += [_plain(BIT[name], raw_state(host, name)) for name in HOST if places & BIT[name]]
    if places & _SAVED_UPDATE:
        update = raw_state(host, "update")
        if places & BIT["update"]:
            found.append(_plain(BIT["update"], update))
        found += [_plain(BIT[name], None if update is None else getattr(update, field))
                  for name, field in _CONTROL.items() if places & BIT[name]]
    if places & _MUTEX:
        found.append(_plain(_MUTEX, host.platform.P_SEAMLDR_MUTEX))
    places &= SAW.saved
    while places:
        place = places & -places
        places ^= place
        cpu, part = SAW.part(place)
        record = raw_cpus(host)[cpu]
        if part == PROCESSOR:
            lp = host.platform._lps[record.apicid]
            found.append(Kept(place, lp, canon.lp_part(cpu, lp)))
        elif part == RESULTS:
            rest = world.rest
            found.append(_plain(place, (rest.scripts[cpu], rest.running[cpu], rest.results[cpu])))
        else:
            names = CPU_PARTS[PARTS[part]]
            found.append(Kept(place, tuple(getattr(record, name) for name in names), canon.record_part(cpu, record)))
    found.sort(key=_place)
    return tuple(found)


def _plain(place: int, value: Any) -> Kept:
    return Kept(place, value, value)


def without(world: World, kept: Collection[Kept]) -> World:
    """The world as it would be without those who overwrote these values, as far as somebody's being blocked goes."""
    copy = _light(world, kept)
    host = copy.host
    cpus = list(raw_cpus(host))
    fields: dict[str, Any] = {}
    control: dict[str, Any] = {}
    returned: set[int] = set()
    for place, value, _ in kept:
        cpu, part = SAW.part(place)
        if cpu >= 0:
            if part == PROCESSOR:
                host.platform._lps[cpus[cpu].apicid] = value
            elif part == RESULTS:
                _restore(copy, cpu, *value)
            else:
                cpus[cpu] = having(cpus[cpu], **dict(zip(CPU_PARTS[PARTS[part]], value, strict=True)))
        elif place == _MUTEX:
            host.platform.P_SEAMLDR_MUTEX = value
        elif place == _RETURNED:
            returned.add(value)
        elif _NAME[place] in _CONTROL:
            control[_CONTROL[_NAME[place]]] = value
        else:
            fields[_NAME[place]] = value
    update = fields.get("update", raw_state(host, "update"))
    if update is not None and "update" not in fields and (control or returned):
        changes = {name: value for name, value in control.items() if value is not None}
        if returned:
            changes["rets"] = tuple(ret for ret in update.rets if ret[0] not in returned)
        fields["update"] = having(update, **changes)
    host.state = having(host.state, cpus=tuple(cpus), **fields)
    return copy


def _light(world: World, kept: Collection[Kept]) -> World:
    """A copy to be asked who is blocked, and for nothing else: what is not put back is shared."""
    copy = object.__new__(World)
    copy.setting, copy.rest = world.setting, world.rest
    host = copy.host = object.__new__(type(world.host))
    host.state, host.platform = world.host.state, world.host.platform
    if any(item.place == _MUTEX or SAW.part(item.place)[1] == PROCESSOR for item in kept):
        platform = host.platform = object.__new__(type(world.host.platform))
        for get, put in _SLOTS:
            put(platform, get(world.host.platform))
        platform._lps = dict(platform._lps)
    return copy


_SLOTS = [(slot.__get__, slot.__set__) for slot in (Platform.__dict__[name] for name in Platform.__slots__)]
_NAME = {bit: name for name, bit in BIT.items()}


def _restore(world: World, cpu: int, scripts: Any, running: Any, results: Any) -> None:
    rest = world.rest
    world.set(
        scripts=(*rest.scripts[:cpu], scripts, *rest.scripts[cpu + 1 :]),
        running=(*rest.running[:cpu], running, *rest.running[cpu + 1 :]),
        results=(*rest.results[:cpu], results, *rest.results[cpu + 1 :]),
    )


# --- following


def follow(
    pending: Pending, before: World, then: World, actor: int, choice: int, seen: Seen, everybody: int, canon: Canon,
    told: Callable[[Race], None], single: bool = False,
) -> Pending:
    """What is followed behind a step; races that the step shows are ``told``.

    ``single``: the step was taken alone, where others could have come first.
    """
    after: Pending = []
    if not pending and not single:
        return after
    mine = 1 << actor
    reads, writes, adds, joins = seen
    touched = reads | adds
    event = Event(before.site(actor), actor, Seen(reads, writes, adds), keep(before, actor, writes | adds, canon))
    owned = learnt = False
    waits = Waits(then)
    for chain in pending:
        if chain.learnt & mine:
            if single and chain.learnt == mine and not any(chain.since):
                after.append(_longer(chain, event))
                owned = True
            else:
                after.append(_later(chain, event))
            continue
        r, w, a, _ = chain.all
        if joins & a or writes & (r | w | a) or w & touched or adds & r or a & reads:
            after += _learn(chain, event, joins, before, waits, choice, everybody, told)
            learnt = True
        else:
            after.append(chain)
    if single and not owned:
        after.append(Chain((event,), 1, mine, Seen(), (), event.seen))
    return list(dict.fromkeys(after)) if learnt else after


def _both(one: Seen, other: Seen) -> Seen:
    return Seen(one[0] | other[0], one[1] | other[1], one[2] | other[2])


def _longer(chain: Chain, event: Event) -> Chain:
    """Another step that the chain's own actor took alone, of which nobody else knows."""
    return Chain((*chain.events, event), chain.marks | 1 << len(chain.events), chain.learnt, chain.since, chain.kept,
                 _both(chain.all, event.seen))


def _later(chain: Chain, event: Event) -> Chain:
    """A step of somebody who knows."""
    return Chain(chain.events, chain.marks, chain.learnt, _both(chain.since, event.seen),
                 _more(chain.events[-1].kept, chain.kept, event.kept), _both(chain.all, event.seen))


def _more(last: tuple[Kept, ...], kept: tuple[Kept, ...], more: tuple[Kept, ...]) -> tuple[Kept, ...]:
    """``kept`` and what is new in ``more``, in an order of its own; what the ``last`` step kept is known anyway."""
    known = 0
    for item in (*last, *kept):
        known |= item.place
    new = [item for item in more if not item.place & known or (
        item.place == _RETURNED and all(item != other for other in (*last, *kept)))]
    return tuple(sorted((*kept, *new), key=_place)) if new else kept


def _place(item: Kept) -> tuple[int, int]:
    return item.place, item.value if item.place == _RETURNED else 0


def _learn(
    chain: Chain, event: Event, joins: int, before: World, waits: Waits, choice: int, everybody: int,
    told: Callable[[Race], None],
) -> Pending:
    """Somebody who did not know of a chain touches what it touched: he now knows of its steps, up to one."""
    events, since, seen = chain.events, chain.since, event.seen
    last = len(events) - 1
    joined = last if joins & since.adds else next(
        (index for index in range(last, -1, -1) if joins & events[index].seen.adds), -1)
    upto = joined  # the last arrival: in whatever order they come, all come before what follows
    if upto < last and seen.conflicts(since):
        upto = last
    for index in range(last, joined, -1):
        if seen.conflicts(events[index].seen):
            upto = max(upto, index)
            if chain.marks >> index & 1 and choice in without(before, chain.values(index)).choices(event.actor):
                first, where = events[index], SAW.words_of(seen.places(events[index].seen))
                told(Race(first.site, f"{before.name(first.actor)} at {first.site} and {before.name(event.actor)} at "
                                      f"{event.site} both touch {where}"))
    if upto < 0:
        return [chain]
    after: Pending = []
    know, rest = events[: upto + 1], events[upto + 1 :]
    marks = chain.marks & (1 << upto + 1) - 1
    if marks:
        kept = chain.kept
        later = since
        if rest:
            kept = ()
            for other in rest:
                kept = _more(know[-1].kept, kept, other.kept)
                later = _both(later, other.seen)
            kept = _more(know[-1].kept, kept, chain.kept)
        kept = _more(know[-1].kept, kept, event.kept)
        learned = Chain(know, marks, chain.learnt | 1 << event.actor, _both(later, seen), kept, _both(chain.all, seen))
        found = _unless_over(learned, waits, everybody)
        if found is not None:
            after.append(found)
    if chain.marks >> upto + 1:
        everything = since
        for other in rest:
            everything = _both(everything, other.seen)
        after.append(Chain(rest, chain.marks >> upto + 1, chain.learnt, since, chain.kept, everything))
    return after


class Waits:
    """Who can move in a world, and what was read to tell that somebody cannot; each is asked once."""

    __slots__ = ("_free", "_read", "world")

    def __init__(self, world: World) -> None:
        self.world = world
        self._free = -1
        self._read: dict[int, int] = {}

    @property
    def free(self) -> int:
        """Actors that can move, as a set."""
        if self._free < 0:
            self._free = sum(1 << actor for actor in self.world.movable())
        return self._free

    def read(self, actor: int) -> int:
        """Places whose values say that an actor waits."""
        found = self._read.get(actor)
        if found is None:
            SAW.reset()
            self.world.choices(actor)
            found = self._read[actor] = SAW.looked()
        return found


def _unless_over(chain: Chain, waits: Waits, everybody: int) -> Chain | None:
    """The chain without the steps that nobody is left who could still come before.

    All others have learnt of such a step, or cannot move where it did not happen: and they stay so, because whoever
    might free them has learnt of it.  Whoever waits, and looked at nothing for it that was overwritten since the step,
    would wait where it did not happen.
    """
    left = everybody & ~chain.learnt
    if not left:
        return None
    if left & waits.free:
        return chain
    world = waits.world
    who = [actor for actor in world.actors if left >> actor & 1]
    for index in range(len(chain.events) - 1, -1, -1):
        if chain.marks >> index & 1:
            kept = chain.values(index)
            places = 0
            for item in kept:
                places |= item.place
            asked = [actor for actor in who if waits.read(actor) & places]
            if asked:
                other = without(world, kept)
                if any(other.choices(actor) for actor in asked):
                    marks = chain.marks & (2 << index) - 1  # those before it are kept unasked
                    return chain if marks == chain.marks else Chain(
                        chain.events, marks, chain.learnt, chain.since, chain.kept, chain.all)
    return None


# --- exchanges, and other ways to the same state


def renamed(pending: Pending, order: tuple[int, ...]) -> Pending:
    """The same when CPU n is called ``order[n]`` (an exchange of interchangeable CPUs)."""
    return [chain.renamed(order) for chain in pending]


def _name(actor: int, order: tuple[int, ...]) -> int:
    return order[actor] if actor < len(order) else actor


def _permuted(seen: Seen, order: tuple[int, ...]) -> Seen:
    return Seen(SAW.permute(seen[0], order), SAW.permute(seen[1], order), SAW.permute(seen[2], order))


def _moved(kept: tuple[Kept, ...], order: tuple[int, ...]) -> tuple[Kept, ...]:
    found = []
    for item in kept:
        place, value, _ = item
        if place & _WHO:
            if value is not None:
                value = _renamed(place, value, order)
                item = Kept(place, value, value)
        else:
            cpu, _ = SAW.part(place)
            if cpu >= 0 and order[cpu] != cpu:
                item = Kept(SAW.permute(place, order), value, item.key)
        found.append(item)
    found.sort(key=_place)
    return tuple(found)


_LOCKS = BIT["seamldr_lock"] | BIT["sysinit_lock"]
_WHO = _LOCKS | _RETURNED | _MUTEX


def _renamed(place: int, value: Any, order: tuple[int, ...]) -> Any:
    if place == _MUTEX:
        ids = tuple(SAW.cpu)
        return ids[order[ids.index(value)]]
    return _name(value, order)


def merge(into: Pending, more: Pending) -> None:
    """Two ways to one state: what is followed on either."""
    held = set(into)
    into += [chain for chain in more if chain not in held]


__all__ = ["Chain", "Event", "Pending", "Race", "follow", "merge", "renamed", "without"]
