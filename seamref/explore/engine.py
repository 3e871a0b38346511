"""The explorer: every interleaving of every actor's steps, level by level, to the shortest way to break something.

A state is a :class:`~seamref.explore.world.World` and the number of steps taken to it; a transition is one step of one
actor on a fork of it.  So a state can only be met again within its level, two levels in memory are all of the search,
and the graph has no cycles: software that went round in circles would show as a run without end (``MAX_DEPTH``).  What
is kept of the levels before is, for each state, which state and which actor it came from; a counterexample is
replayed from there.

Three reductions, each of which can be switched off: *symmetry* (worlds that differ in which interchangeable CPU is in
which situation are one state), *partial order* (a step that cannot matter to anybody before it is taken is taken
alone), *memo* (hashing, signatures and layout of the same bytes are computed once).

Which steps to take alone is guessed from a table (:mod:`seamref.explore.independence`); whether the guess was right is
decided by what steps are seen to read and write (:mod:`seamref.explore.observe`, :mod:`seamref.explore.races`).  Where
it was wrong the search begins again, and takes no step alone there.  Whether CPUs that are called interchangeable
behave alike is looked at too, once for each place where two are exchanged.
"""

from __future__ import annotations

import sys
import time
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from seamref.errors import SeamrefError
from seamref.explore.canonical import Canon, Print
from seamref.explore.independence import CAUTIOUS, Assume, persistent
from seamref.explore.memo import remembering
from seamref.explore.observe import SAW, Seen, observed
from seamref.explore.parallel import in_processes
from seamref.explore.properties import Property, get_property
from seamref.explore.races import Pending, Race, follow, merge, renamed
from seamref.explore.world import FAULTS, STRIKE, Did, World

if TYPE_CHECKING:
    from seamref.explore.scenarios import Scenario

MAX_STATES = 2_000_000
MAX_DEPTH = 20_000
"""Steps in one run: more is taken for a livelock."""
MAX_MEMORY = 1_000
"""MiB of resident memory at which an exploration stops."""
SHORTEN_SECONDS = 2.0
"""Time to shorten one counterexample by replaying it without some of its steps."""


@dataclass(frozen=True, slots=True)
class Counterexample:
    """A run that breaks a property (``broken``): how it began, every step, and what is wrong in the end.

    ``shortest``: no shorter run breaks it, of any interleaving (found by a search without partial order).  Else it is
    the first of the reduced search, which takes fewer orders, shortened by leaving steps out.
    """

    broken: str
    wrong: str
    began: str
    steps: tuple[Did, ...]
    schedule: tuple[int, ...]
    root: int
    shortest: bool

    @property
    def depth(self) -> int:
        """Steps taken."""
        return len(self.steps)


@dataclass(frozen=True, slots=True)
class Result:
    """What an exploration found.

    ``states``       stored; with symmetry each stands for several, ``worlds`` is how many in all
    ``transitions``  steps taken, ``depth`` of the longest run
    ``ends``         final states
    ``complete``     every reachable state was looked at (up to the reductions); else ``why`` says what stopped it
    ``assumed``      what partial-order reduction took for granted and never saw contradicted
    ``widened``      where steps were not taken alone after all, and why: what was touched, and by whom
    ``notes``        what else there is to say, a sentence each
    """

    scenario: str
    cpus: int
    roots: int
    states: int
    worlds: int
    transitions: int
    depth: int
    ends: int
    seconds: float
    complete: bool
    why: str
    broken: tuple[Counterexample, ...]
    checked: tuple[str, ...]
    widths: tuple[int, ...] = ()
    reductions: tuple[str, ...] = ()
    assumed: Assume = CAUTIOUS
    outcomes: tuple[tuple[str, int], ...] = ()
    widened: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def holds(self) -> bool:
        """Every property that was checked holds over all reachable states."""
        return self.complete and not self.broken

    @property
    def verdict(self) -> str:
        """In words."""
        if self.broken:
            return "breaks " + ", ".join(sorted({c.broken for c in self.broken}))
        return "holds" if self.complete else f"no counterexample so far ({self.why})"

    def counterexample(self, name: str = "") -> Counterexample:
        """The counterexample to a property (by default the first)."""
        for found in self.broken:
            if not name or found.broken == name:
                return found
        raise SeamrefError(f"{self.scenario}: no counterexample" + (f" to {name}" if name else ""))


Progress = Callable[[str], None]
Told = Callable[[str, str, int], None]
"""Called as soon as a property is found broken: its name, what is wrong, after how many steps (not shortened yet)."""


def to_stderr(line: str) -> None:
    """Progress for people: one line, rewritten."""
    print(f"\r{line}", end="", file=sys.stderr, flush=True)


@dataclass(slots=True)
class Search:
    """One exploration on its way."""

    roots: Sequence[World]
    properties: Sequence[Property]
    symmetry: bool = True
    por: bool = True
    assume: Assume = field(default_factory=Assume)
    max_states: int = MAX_STATES
    max_memory: int = MAX_MEMORY
    max_depth: int = MAX_DEPTH
    stop_first: bool = True
    stop_all: bool = False
    widened: frozenset[str] = frozenset()
    progress: Progress | None = None
    told: Told | None = None
    quiet_seconds: float = 3.0
    states: int = 0
    worlds: int = 0
    transitions: int = 0
    ends: int = 0
    why: str = ""
    broken: dict[str, tuple[str, int, int]] = field(default_factory=dict)
    widths: list[int] = field(default_factory=list)
    contradicted: Assume | None = None
    outcomes: dict[str, int] = field(default_factory=dict)
    parents: list[array[int]] = field(default_factory=list)
    actors: list[array[int]] = field(default_factory=list)
    watch: Callable[[World, list[int], list[int]], None] | None = None
    races: dict[str, str] = field(default_factory=dict)
    unlike: str = ""
    opened: frozenset[int] = frozenset()
    struck: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        first = self.roots[0]
        apicids = tuple(cpu.apicid for cpu in first.host.state.cpus)
        self._canon = Canon(first.setting, apicids, self.symmetry)
        self._everybody = (1 << len(first.actors)) - 1
        self._apicids = apicids
        self._compared: set[tuple[str, int, int]] = set()
        self._pending: list[Pending] = []
        self._place: tuple[int, int] = (0, 0)
        self._closed = self.opened
        if self.por:
            SAW.begin(apicids, first.setting.own, self.opened)
            for root in self.roots:
                root.host = observed(root.host)
        self._steps = [p for p in self.properties if p.step is not None]
        self._finals = [p for p in self.properties if p.final is not None]
        self._began = time.perf_counter()
        self._told = self._began

    _canon: Canon = field(init=False)
    _everybody: int = field(init=False)
    _apicids: tuple[int, ...] = field(init=False)
    _compared: set[tuple[str, int, int]] = field(init=False)
    _pending: list[Pending] = field(init=False)
    _place: tuple[int, int] = field(init=False)
    _closed: frozenset[int] = field(init=False)
    _steps: list[Property] = field(init=False)
    _finals: list[Property] = field(init=False)
    _began: float = field(init=False)
    _told: float = field(init=False)

    # --- the search

    def run(self) -> None:
        """Level by level until nothing is left, something breaks, or a bound is met."""
        try:
            self._run()
            while self.opened is not self._closed and not (self.why or self.contradicted or self.unlike or (
                    self.broken and self._enough())):
                self._begin_again()
                self._run()
        except KeyboardInterrupt:
            self.why = "interrupted"

    def _begin_again(self) -> None:
        """As new, with words told apart that others touched."""
        self._closed = self.opened
        SAW.begin(self._apicids, self.roots[0].setting.own, self.opened)
        self.states = self.worlds = self.transitions = self.ends = 0
        for held in (self.broken, self.outcomes, self.races, self.struck, self._compared):
            held.clear()
        for listed in (self.widths, self.parents, self.actors, self._pending):
            listed.clear()

    def _run(self) -> None:
        frontier = self._first_level()
        while frontier and not self.why:
            if len(self.widths) > self.max_depth:
                self.why = f"runs of more than {self.max_depth:,} steps"
                return
            used = _resident()
            if used > self.max_memory:
                self.why = f"{used:,.0f} MiB in use: the bound of {self.max_memory:,} MiB is met (max_memory)"
                return
            frontier = self._next_level(frontier)
            if self.broken and self._enough():
                self.why = "stopped at the first counterexample"

    def _first_level(self) -> list[World]:
        seen: dict[bytes, int] = {}
        frontier: list[World] = []
        self.parents.append(array("q"))
        self.actors.append(array("h"))
        for index, root in enumerate(self.roots):
            key = self._canon(root)
            if key.key not in seen:
                seen[key.key] = len(frontier)
                frontier.append(root)
                self.parents[0].append(index)
                self.actors[0].append(-1)
                self._stored(key)
                self._pending.append([])
        self.widths.append(len(frontier))
        return frontier

    def _stored(self, key: Print) -> None:
        self.states += 1
        self.worlds += key.worlds

    def _next_level(self, frontier: list[World]) -> list[World]:
        depth = len(self.widths)
        known: dict[bytes, tuple[int, tuple[bytes, ...]]] = {}
        following: list[World] = []
        pendings: list[Pending] = []
        parents, actors = array("q"), array("h")
        self.parents.append(parents)
        self.actors.append(actors)

        def keep(child: World, pending: Pending, index: int, choice: int) -> None:
            parents.append(index)
            actors.append(choice)
            following.append(child)
            pendings.append(pending)

        for index, world in enumerate(frontier):
            frontier[index] = None  # type: ignore[call-overload]  # let go of it as soon as it is expanded
            if self._bound():
                break
            self._place = depth - 1, index
            for choice, child, did, behind in self._children(world, index):
                wrong = self._check_step(world, child, did)
                pending = behind(wrong is not None)
                key = self._canon(child)
                if wrong is not None and wrong[0] not in self.broken:
                    # The state itself may be known already: what breaks is the step.
                    keep(child, pending, index, choice)
                    if key.key not in known:
                        known[key.key] = len(following) - 1, key.parts
                        self._stored(key)
                    self._found(*wrong, depth, len(parents) - 1)
                    if self._enough():
                        self.widths.append(len(following))
                        return following
                elif key.key not in known:
                    known[key.key] = len(following), key.parts
                    self._stored(key)
                    keep(child, pending, index, choice)
                else:
                    self._met_again(child, pending, key, following, pendings, known[key.key])
            if self._again() or self._enough():
                break
        self.widths.append(len(following))
        self._pending = pendings
        return [] if self._again() else following

    def _again(self) -> bool:
        """Whether something that was taken for granted is not so, and the search has to begin again."""
        return self.contradicted is not None or self.unlike != "" or self.opened is not self._closed

    def _found(self, name: str, wrong: str, depth: int, index: int) -> None:
        self.broken[name] = wrong, depth, index
        if self.told is not None:
            self.told(name, wrong, depth)

    def _enough(self) -> bool:
        if self.stop_all:
            return len(self.broken) == len(self.properties)
        return self.stop_first and bool(self.broken)

    def _children(
        self, world: World, index: int
    ) -> Iterator[tuple[int, World, Did, Callable[[bool], Pending]]]:
        """Every choice, the world behind it, and what is followed there (to be asked when properties were checked)."""
        chosen, single = self._choose(world, index)
        followed = self._pending[index] if self.por else []
        for actor in chosen:
            looked = 0  # what strikes looked at that could not strike
            for choice in world.choices(actor):
                child = world.fork()
                if not self.por:
                    did = child.take(choice)
                    if not self._pointless(world, did, choice):
                        self.transitions += 1
                        yield choice, child, did, _nothing
                    continue
                SAW.reset()
                did = child.take(choice)
                seen = SAW.taken(actor if actor < world.cpus else -1)
                if self._pointless(world, did, choice):
                    looked |= SAW.looked()
                    continue
                self.transitions += 1
                self._contradiction(world, child, actor)
                SAW.reset()
                yield choice, child, did, partial(
                    self._behind, followed, world, child, choice, seen, looked, single)

    def _pointless(self, world: World, did: Did, choice: int) -> bool:
        if not did.pointless and choice >= STRIKE:
            kind = world.rest.faults[choice // STRIKE - 1].kind
            self.struck[kind] = self.struck.get(kind, 0) + 1
        return did.pointless

    def _behind(
        self, followed: Pending, world: World, child: World, choice: int, seen: Seen, looked: int, single: bool,
        wrong: bool,
    ) -> Pending:
        """What is followed behind a step whose check has just been made; what it looked at counts where it could see
        the step."""
        actor = choice % STRIKE
        notes, checked = SAW.noted(), SAW.looked()
        cpu = actor if actor < world.cpus else -1
        own = SAW.mine[cpu] if cpu >= 0 else 0
        if wrong or checked & (seen.writes | seen.adds) & ~own or _mode(world, actor) != _mode(
                child, actor):
            looked |= checked & ~notes
        if looked | notes:
            seen = Seen(seen.reads | looked, seen.writes | notes, seen.adds, seen.joins)
        self._foreign(cpu, seen.reads | seen.writes | seen.adds)
        return follow(followed, world, child, actor, choice, seen, self._everybody, self._canon, self._raced, single)

    def _foreign(self, cpu: int, places: int) -> None:
        """Whether a step touched another CPU's own pages: from then on their words are told apart."""
        if places & SAW.rests[cpu]:
            self.opened |= SAW.foreign(cpu, places)

    def _raced(self, race: Race) -> None:
        self.races.setdefault(race.site, race.text)

    def _met_again(
        self, child: World, pending: Pending, key: Print, following: list[World], pendings: list[Pending],
        held: tuple[int, tuple[bytes, ...]],
    ) -> None:
        """Another way to a state that is known, perhaps with CPUs exchanged."""
        at, parts = held
        order = self._canon.order(key.parts, parts) if self.symmetry else None
        if order is not None:
            self._compare(child, following[at], order)
        if pending:
            merge(pendings[at], pending if order is None else renamed(pending, order))

    def _compare(self, one: World, other: World, order: tuple[int, ...]) -> None:
        """Whether exchanged CPUs go on alike: once for each place where two stand."""
        for cpu, of in enumerate(order):
            if cpu == of:
                continue
            site = one.site(cpu)
            if (site, cpu, of) in self._compared:
                continue
            self._compared.add((site, cpu, of))
            moves = one.is_enabled(cpu)
            if moves != other.is_enabled(of):
                self.unlike = f"CPUs {cpu} and {of} are called interchangeable; at {site} only one of them can go on"
            elif moves:
                ours, theirs = one.fork(), other.fork()
                ours.step(cpu)
                theirs.step(of)
                if self._canon(ours).key != self._canon(theirs).key:
                    self.unlike = f"CPUs {cpu} and {of} are called interchangeable, and do not do the same at {site}"

    def _choose(self, world: World, index: int) -> tuple[list[int], bool]:
        """The actors whose steps to take; whether that is one, where others could have come first."""
        enabled = world.enabled()
        movable = world.movable() if world.rest.faults else enabled
        if not enabled:
            self._check_final(world, index)
        if not self.por or len(movable) < 2 or not enabled:
            chosen, single = movable, False
        else:
            chosen = persistent(world, enabled, self.assume, self.widened)
            single = len(chosen) == 1
            if not single:
                chosen = movable
        if self.watch is not None:
            self.watch(world, movable, chosen)
        return chosen, single

    def _contradiction(self, before: World, after: World, actor: int) -> None:
        """Whether a step did what the reduction took for granted that nobody does."""
        assume = self.assume
        if assume.nobody_fails:
            old, new = before.host.state.update, after.host.state.update
            if old is not None and new is not None and new.failures > old.failures:
                self.contradicted = replace(assume, nobody_fails=False)
        if assume.nobody_dies and actor < after.cpus and after.host.state.cpus[actor].dead:
            self.contradicted = replace(self.contradicted or assume, nobody_dies=False)

    def _check_step(self, before: World, after: World, did: Did) -> tuple[str, str] | None:
        found = None
        for checked in self._steps:
            assert checked.step is not None
            wrong = checked.step(before, after, did)
            if wrong is not None and found is None and checked.name not in self.broken:
                found = checked.name, wrong
        return found

    def _check_final(self, world: World, index: int) -> None:
        depth = len(self.widths) - 1
        self.ends += 1
        name = _outcome(world)
        self.outcomes[name] = self.outcomes.get(name, 0) + 1
        for checked in self._finals:
            assert checked.final is not None
            if checked.name not in self.broken:
                wrong = checked.final(world)
                if wrong is not None:
                    self._found(checked.name, wrong, depth, index)
        if self.por and self._pending[index]:
            for actor in world.actors:
                if not world.is_done(actor):  # it waits for ever: for what somebody did too early?
                    SAW.reset()
                    world.is_enabled(actor)
                    waits = Seen(SAW.looked())
                    self._foreign(actor if actor < world.cpus else -1, waits.reads)
                    follow(self._pending[index], world, world, actor, actor, waits, self._everybody, self._canon,
                           self._raced)

    def _bound(self) -> bool:
        if self.states >= self.max_states:
            self.why = f"{self.states:,} states stored: the bound of {self.max_states:,} is met (max_states)"
        now = time.perf_counter()
        if self.progress is not None and now - self._told > 1 and now - self._began > self.quiet_seconds:
            self._told = now
            rate = self.states / (now - self._began)
            self.progress(f"{self.states:,} states, {self.transitions:,} transitions, depth {len(self.widths)}, "
                          f"{rate:,.0f} states/s ")
        return bool(self.why)

    # --- afterwards

    def schedule_to(self, depth: int, index: int) -> tuple[int, tuple[int, ...]]:
        """The root a state came from, and the actors that stepped."""
        actors: list[int] = []
        while depth > 0:
            actors.append(self.actors[depth][index])
            index = self.parents[depth][index]
            depth -= 1
        return self.parents[0][index], tuple(reversed(actors))


def _nothing(wrong: bool) -> Pending:
    return []


def _mode(world: World, actor: int) -> tuple[object, ...]:
    """What others may ask about a CPU that is not in shared memory: its processor's mode, whether it lives."""
    if actor >= world.cpus:
        return ()
    record = world.host.state.cpus[actor]
    lp = world.host.platform.peek_lp(record.apicid)
    return lp.inSEAM, lp.inP_SEAMLDR, lp.non_root, lp.vmx_on, record.dead, record.online


def _resident() -> float:
    """MiB of resident memory at its peak; 0 where nobody says (Windows, a browser's Python)."""
    try:
        import resource
    except ImportError:
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _outcome(world: World) -> str:
    """How a run ended, in a few words, for counting."""
    parts = []
    update = world.remembered("update")
    if update is not None:
        parts.append(f"update {update}")
    dead = sum(cpu.dead for cpu in world.host.state.cpus)
    if dead:
        parts.append(f"{dead} processor{'s' if dead > 1 else ''} in shutdown")
    if any(not world.is_done(actor) for actor in world.actors):
        parts.append("somebody waits for ever")
    for cpu in range(world.cpus):
        parts += [f"{name} {ret}" for name, ret in world.rest.results[cpu] if ret]
    return ", ".join(parts) or "everybody done"


def replay(root: World, schedule: Iterable[int]) -> tuple[World, tuple[Did, ...]]:
    """Take the steps of a schedule on a copy of a world."""
    world = root.fork()
    steps = []
    for actor in schedule:
        steps.append(world.take(actor))
        world = world.fork()
    return world, tuple(steps)


def search(roots: Sequence[World], names: Sequence[str], **knobs: Any) -> Search:
    """Explore; again without what a step contradicted: an assumption, a step taken alone, a symmetry.

    A property that is found broken is broken, whatever was left out.
    """
    properties = [get_property(name) for name in names]
    assume = knobs.pop("assume", Assume())
    widened: dict[str, str] = {}
    unlike = ""
    opened: frozenset[int] = frozenset()
    while True:
        found = Search([root.fork() for root in roots], properties, assume=assume, widened=frozenset(widened),
                       opened=opened, **knobs)
        found.run()
        enough = bool(found.broken) and found._enough()
        more = {site: text for site, text in found.races.items() if site not in widened}
        if enough or found.why or not (found.contradicted or found.unlike or more):
            found.races = widened
            found.unlike = unlike
            return found
        opened = found.opened
        if found.contradicted is not None:
            assume = found.contradicted  # what else it saw, it saw on a wrong assumption
            continue
        if found.unlike:
            unlike = found.unlike
            knobs["symmetry"] = False
        widened.update(more)
        if len(widened) > MAX_WIDENED:
            knobs["por"] = False


MAX_WIDENED = 40
"""Places where a step was wrongly taken alone; with more of them, no step is."""


class Vacuous(SeamrefError):
    """A fault that cannot strike in a scenario: an exploration with it would prove nothing about it."""


def explore(
    scenario: Scenario | str, cpus: int | None = None, *, faults: Sequence[str] = (),
    properties: Sequence[str] | None = None, symmetry: bool = True, por: bool = True, memo: bool = True,
    shortest: bool = False, stop_first: bool = True, jobs: int = 1, max_states: int = MAX_STATES,
    max_memory: int = MAX_MEMORY, progress: Progress | None = None, told: Told | None = None,
    **more: Any,
) -> Result:
    """Explore a scenario under every interleaving, and with every placement of the named faults.

    ``cpus``      how many CPUs (default: the scenario's)
    ``faults``    kinds from :data:`seamref.explore.faults.FAULTS`; each strikes once in a run, before any step (some
                  also while it waits) of any CPU (of interchangeable ones, one); :class:`Vacuous` when one never can
    ``properties`` names from :data:`seamref.explore.properties.PROPERTIES` (default: the scenario's)
    ``shortest``  prove that no interleaving breaks a property in fewer steps, by a search without partial order down
                  to the depth of the counterexample; else it is shortened by leaving steps out
    ``told``      called as soon as a property is found broken, before its run is shortened
    ``jobs``      processes that share the roots (placements of faults); without faults there is one, and one works
    """
    from seamref.explore.scenarios import get_scenario

    chosen = get_scenario(scenario) if isinstance(scenario, str) else scenario
    n = cpus or chosen.cpus
    names = tuple(properties if properties is not None else chosen.properties)
    for name in names:
        get_property(name)
    began = time.perf_counter()
    with remembering(memo):
        roots = chosen.roots(n, faults, **more)
        knobs: dict[str, Any] = {
            "symmetry": symmetry, "por": por, "max_states": max_states, "max_memory": max_memory,
            "stop_first": stop_first, "progress": progress, "told": told,
        }
        if jobs > 1 and len(roots) >= 2:
            result, struck = search_parallel(chosen.name, n, roots, names, jobs, began, shortest, knobs)
        else:
            found = search(roots, names, **knobs)
            struck = found.struck
            result = conclude(chosen.name, n, roots, names, found, began, shortest, knobs)
            if jobs > 1:
                result = replace(result, notes=(*result.notes, f"{jobs} processes were asked for: they share placements"
                                                " of faults, there is one, and one process works"))
    if result.complete:
        for name in faults:
            if not struck.get(name):
                raise Vacuous(f"{chosen.name}, {n} CPUs: the fault {name!r} ({FAULTS[name].says}) can never strike")
    return result


def _portable(found: Search) -> dict[str, Any]:
    schedules = {
        name: (wrong, *found.schedule_to(depth, index)) for name, (wrong, depth, index) in found.broken.items()
    }
    return {
        "states": found.states, "worlds": found.worlds, "transitions": found.transitions, "ends": found.ends,
        "depth": len(found.widths) - 1, "why": found.why, "broken": schedules, "outcomes": dict(found.outcomes),
        "assume": found.assume, "widened": dict(found.races), "unlike": found.unlike, "struck": dict(found.struck),
    }


def search_parallel(
    scenario: str, cpus: int, roots: Sequence[World], names: Sequence[str], jobs: int, began: float, shortest: bool,
    knobs: dict[str, Any],
) -> tuple[Result, dict[str, int]]:
    """Explore roots (placements of faults) in several processes; counts are sums over the roots' explorations.

    Every actor that a fault may strike, and every kind of fault, is a root of its own.  A scenario without faults has
    one root, and with its reductions few states: it is explored in one process whatever was asked for.
    """
    quiet = {**knobs, "progress": None, "told": None}
    parts, interrupted = in_processes(lambda numbers: _portable(search([roots[i] for i in numbers], names, **quiet)),
                                      len(roots), jobs)
    why = "interrupted" if interrupted else ""
    total = {key: sum(part[key] for _, part in parts) for key in ("states", "worlds", "transitions", "ends")}
    outcomes: dict[str, int] = {}
    first: dict[str, tuple[int, tuple[int, ...]]] = {}
    widened: dict[str, str] = {}
    struck: dict[str, int] = {}
    for indices, part in parts:
        why = why or part["why"]
        widened.update(part["widened"])
        for kind, count in part["struck"].items():
            struck[kind] = struck.get(kind, 0) + count
        for name, count in part["outcomes"].items():
            outcomes[name] = outcomes.get(name, 0) + count
        for name, (_, root, schedule) in part["broken"].items():
            if name not in first or len(schedule) < len(first[name][1]):
                first[name] = indices[root], schedule
    broken = _counterexamples(dict(sorted(first.items())), roots, shortest, knobs)
    assume = Assume(all(p["assume"].nobody_fails for _, p in parts), all(p["assume"].nobody_dies for _, p in parts))
    reductions = tuple(w for w, on in (("symmetry", knobs["symmetry"]), ("partial order", knobs["por"])) if on)
    return Result(
        scenario, cpus, len(roots), total["states"], total["worlds"], total["transitions"],
        max((part["depth"] for _, part in parts), default=0), total["ends"], time.perf_counter() - began, why == "",
        why, broken, tuple(names), (), reductions, assume, tuple(sorted(outcomes.items())),
        tuple(sorted(widened.values())), tuple(dict.fromkeys(part["unlike"] for _, part in parts if part["unlike"])),
    ), struck


def conclude(
    scenario: str, cpus: int, roots: Sequence[World], names: Sequence[str], found: Search, began: float,
    shortest: bool, knobs: dict[str, Any],
) -> Result:
    """Counterexamples replayed and shortened, counts collected."""
    first = {name: found.schedule_to(depth, index) for name, (_, depth, index) in found.broken.items()}
    broken = _counterexamples(first, roots, shortest, knobs)
    reductions = tuple(
        word for word, on in (("symmetry", found.symmetry), ("partial order", found.por)) if on
    )
    complete = found.why == ""
    return Result(
        scenario, cpus, len(roots), found.states, found.worlds, found.transitions, len(found.widths) - 1, found.ends,
        time.perf_counter() - began, complete, found.why, broken, tuple(names), tuple(found.widths), reductions,
        found.assume, tuple(sorted(found.outcomes.items())), tuple(sorted(found.races.values())),
        (found.unlike,) if found.unlike else (),
    )


def _counterexamples(
    first: dict[str, tuple[int, tuple[int, ...]]], roots: Sequence[World], shortest: bool, knobs: dict[str, Any]
) -> tuple[Counterexample, ...]:
    """Runs that break properties: proven to be shortest if that is wanted, else shortened by replay."""
    proven = dict.fromkeys(first, not knobs["por"])
    if knobs["por"] and first and shortest:
        first = {**first, **_prove(first, roots, knobs, proven)}
    found = []
    for name, (root, schedule) in first.items():
        if not proven[name]:
            schedule = shorten(roots[root], schedule, name)
        found.append(_counterexample(name, roots, root, schedule, proven[name]))
    return tuple(found)


def _prove(
    first: dict[str, tuple[int, tuple[int, ...]]], roots: Sequence[World], knobs: dict[str, Any],
    proven: dict[str, bool],
) -> dict[str, tuple[int, tuple[int, ...]]]:
    """One search without partial order for all properties, as deep as the longest counterexample.

    A final property breaks in a state that the search looks at one level later.
    """
    depth = max(len(schedule) + (get_property(name).final is not None) for name, (_, schedule) in first.items())
    again = search(roots, list(first), **{
        **knobs, "por": False, "stop_first": False, "stop_all": True, "max_depth": depth, "told": None,
        "max_states": min(knobs["max_states"], SHORTEST_STATES),
    })
    found = {}
    for name, (_, at, index) in again.broken.items():
        found[name] = again.schedule_to(at, index)
        proven[name] = True
    return found


def _breaks(root: World, schedule: Sequence[int], name: str) -> tuple[int, ...] | None:
    """The part of a schedule that can be taken, up to where it breaks the property; ``None``: it does not."""
    check = get_property(name)
    world = root.fork()
    taken: list[int] = []
    for choice in schedule:
        if choice not in world.choices(choice % STRIKE):
            continue
        before = world.fork()
        if world.take(choice).pointless:
            return None
        taken.append(choice)
        if check.step is not None and check.step(before, world, Did(choice % STRIKE, "", "", "")) is not None:
            return tuple(taken)
        world = world.fork()
    if check.final is not None and not world.enabled() and check.final(world) is not None:
        return tuple(taken)
    return None


def shorten(root: World, schedule: tuple[int, ...], name: str, seconds: float = SHORTEN_SECONDS) -> tuple[int, ...]:
    """Leave steps out, the last ones first, as long as the run still breaks the property."""
    until = time.perf_counter() + seconds
    size = max(1, len(schedule) // 4)
    while size:
        at = len(schedule) - size
        while at >= 0:
            if time.perf_counter() > until:
                return schedule
            shorter = _breaks(root, schedule[:at] + schedule[at + size :], name)
            if shorter is not None and len(shorter) < len(schedule):
                schedule = shorter
                at = min(at, len(schedule) - size)
            else:
                at -= size
        size //= 2
    return schedule


def _counterexample(
    name: str, roots: Sequence[World], root: int, schedule: tuple[int, ...], proven: bool
) -> Counterexample:
    check = get_property(name)
    world = roots[root].fork()
    steps: list[Did] = []
    wrong: str | None = None
    for actor in schedule:
        before = world.fork()
        did = world.take(actor)
        steps.append(did)
        if check.step is not None:
            wrong = check.step(before, world, did) or wrong
        world = world.fork()
    if check.final is not None:
        wrong = check.final(world)
    if wrong is None:
        raise SeamrefError(f"the counterexample to {name} does not replay: the machine is not deterministic")
    began = ", ".join(str(fault) for fault in roots[root].rest.faults)
    return Counterexample(name, wrong, began, tuple(steps), schedule, root, proven)


SHORTEST_STATES = 60_000
"""States that proving a shortest counterexample may store."""
