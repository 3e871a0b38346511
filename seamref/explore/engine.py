"""The explorer: every interleaving of every actor's steps, level by level, to the shortest way to break something.

A state is a :class:`~seamref.explore.world.World` and the number of steps taken to it; a transition is one step of one
actor on a fork of it.  So a state can only be met again within its level, two levels in memory are all of the search,
and the graph has no cycles: software that went round in circles would show as a run without end (``MAX_DEPTH``).  What
is kept of the levels before is, for each state, which state and which actor it came from; a counterexample is
replayed from there.

Three reductions, each of which can be switched off: *symmetry* (worlds that differ in which interchangeable CPU is in
which situation are one state), *partial order* (a step that cannot matter to anybody before it is taken is taken
alone, see :mod:`seamref.explore.independence`), *memo* (hashing, signatures and layout of the same bytes are computed
once).
"""

from __future__ import annotations

import sys
import time
from array import array
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from seamref.errors import SeamrefError
from seamref.explore.canonical import Canon, Print
from seamref.explore.independence import CAUTIOUS, Assume, persistent
from seamref.explore.memo import remembering
from seamref.explore.parallel import in_processes
from seamref.explore.properties import Property, get_property
from seamref.explore.world import STRIKE, Did, World

if TYPE_CHECKING:
    from seamref.explore.scenarios import Scenario

MAX_STATES = 2_000_000
MAX_DEPTH = 20_000
"""Steps in one run: more is taken for a livelock."""
MAX_MEMORY = 2_000
"""MiB of resident memory at which an exploration stops."""


@dataclass(frozen=True, slots=True)
class Counterexample:
    """A run that breaks a property (``broken``): how it began, every step, and what is wrong in the end.

    ``shortest``: no shorter run breaks it, of any interleaving (found or confirmed without partial order).
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
    progress: Progress | None = None
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

    def __post_init__(self) -> None:
        first = self.roots[0]
        apicids = tuple(cpu.apicid for cpu in first.host.state.cpus)
        self._canon = Canon(first.setting, apicids, self.symmetry)
        self._steps = [p for p in self.properties if p.step is not None]
        self._finals = [p for p in self.properties if p.final is not None]
        self._began = time.perf_counter()
        self._told = self._began

    _canon: Canon = field(init=False)
    _steps: list[Property] = field(init=False)
    _finals: list[Property] = field(init=False)
    _began: float = field(init=False)
    _told: float = field(init=False)

    # --- the search

    def run(self) -> None:
        """Level by level until nothing is left, something breaks, or a bound is met."""
        frontier = self._first_level()
        try:
            while frontier and not self.why:
                if len(self.widths) > self.max_depth:
                    self.why = f"runs of more than {self.max_depth:,} steps"
                    return
                used = _resident()
                if used > self.max_memory:
                    self.why = f"{used:,.0f} MiB in use: the bound of {self.max_memory:,} MiB is met (max_memory)"
                    return
                frontier = self._next_level(frontier)
                if self.stop_first and self.broken:
                    self.why = "stopped at the first counterexample"
        except KeyboardInterrupt:
            self.why = "interrupted"

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
        self.widths.append(len(frontier))
        return frontier

    def _stored(self, key: Print) -> None:
        self.states += 1
        self.worlds += key.worlds

    def _next_level(self, frontier: list[World]) -> list[World]:
        depth = len(self.widths)
        seen: set[bytes] = set()
        following: list[World] = []
        parents, actors = array("q"), array("h")
        self.parents.append(parents)
        self.actors.append(actors)
        for index, world in enumerate(frontier):
            frontier[index] = None  # type: ignore[call-overload]  # let go of it as soon as it is expanded
            if self._bound():
                break
            for choice in self._choices(world, depth - 1, index):
                actor = choice % STRIKE
                child = world.fork()
                did = child.take(choice)
                if did.pointless:
                    continue
                self.transitions += 1
                if self.por:
                    self._contradiction(world, child, actor)
                wrong = self._check_step(world, child, did)
                key = self._canon(child)
                if wrong is not None and wrong[0] not in self.broken:
                    # The state itself may be known already: what breaks is the step.
                    parents.append(index)
                    actors.append(choice)
                    following.append(child)
                    if key.key not in seen:
                        seen.add(key.key)
                        self._stored(key)
                    self.broken[wrong[0]] = wrong[1], depth, len(parents) - 1
                    if self.stop_first:
                        self.widths.append(len(following))
                        return following
                elif key.key not in seen:
                    seen.add(key.key)
                    self._stored(key)
                    parents.append(index)
                    actors.append(choice)
                    following.append(child)
            if self.contradicted is not None or (self.stop_first and self.broken):
                break
        self.widths.append(len(following))
        return following if self.contradicted is None else []

    def _choices(self, world: World, depth: int, index: int) -> list[int]:
        """The steps to take: of whom, and for whom a fault may strike also with it."""
        chosen = self._choose(world, depth, index)
        return chosen + [actor + STRIKE for actor in chosen if world.is_armed(actor)]

    def _choose(self, world: World, depth: int, index: int) -> list[int]:
        enabled = world.enabled()
        if not enabled:
            self._check_final(world, depth, index)
            return enabled
        chosen = persistent(world, enabled, self.assume) if self.por else enabled
        if self.watch is not None:
            self.watch(world, enabled, chosen)
        return chosen

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

    def _check_final(self, world: World, depth: int, index: int) -> None:
        self.ends += 1
        name = _outcome(world)
        self.outcomes[name] = self.outcomes.get(name, 0) + 1
        for checked in self._finals:
            assert checked.final is not None
            if checked.name not in self.broken:
                wrong = checked.final(world)
                if wrong is not None:
                    self.broken[checked.name] = wrong, depth, index

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
    """Explore; again without an assumption of the reduction that a step contradicted."""
    properties = [get_property(name) for name in names]
    assume = knobs.pop("assume", Assume())
    while True:
        found = Search([root.fork() for root in roots], properties, assume=assume, **knobs)
        found.run()
        if found.contradicted is None:
            return found
        assume = found.contradicted


def explore(
    scenario: Scenario | str, cpus: int | None = None, *, faults: Sequence[str] = (),
    properties: Sequence[str] | None = None, symmetry: bool = True, por: bool = True, memo: bool = True,
    shortest: bool = True, stop_first: bool = True, jobs: int = 1, max_states: int = MAX_STATES,
    max_memory: int = MAX_MEMORY, progress: Progress | None = None, **more: Any,
) -> Result:
    """Explore a scenario under every interleaving, and with every placement of the named faults.

    ``cpus``      how many CPUs (default: the scenario's)
    ``faults``    kinds from :data:`seamref.explore.faults.FAULTS`; each strikes once, before any step of any actor that
                  could suffer it (of interchangeable CPUs, one)
    ``properties`` names from :data:`seamref.explore.properties.PROPERTIES` (default: the scenario's)
    ``shortest``  confirm that a counterexample is the shortest of all interleavings, by a search without partial
                  order down to its depth
    ``jobs``      processes that share the roots (fault and actor); 1 stays in this one
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
            "stop_first": stop_first, "progress": progress,
        }
        if jobs > 1 and len(roots) >= 2:
            return search_parallel(chosen.name, n, roots, names, jobs, began, shortest, knobs)
        found = search(roots, names, **knobs)
        return conclude(chosen.name, n, roots, names, found, began, shortest, knobs)


def _portable(found: Search) -> dict[str, Any]:
    schedules = {
        name: (wrong, *found.schedule_to(depth, index)) for name, (wrong, depth, index) in found.broken.items()
    }
    return {
        "states": found.states, "worlds": found.worlds, "transitions": found.transitions, "ends": found.ends,
        "depth": len(found.widths) - 1, "why": found.why, "broken": schedules, "outcomes": dict(found.outcomes),
        "assume": found.assume,
    }


def search_parallel(
    scenario: str, cpus: int, roots: Sequence[World], names: Sequence[str], jobs: int, began: float, shortest: bool,
    knobs: dict[str, Any],
) -> Result:
    """Explore roots (placements of faults) in several processes; counts are sums over the roots' explorations.

    Every actor that a fault may strike, and every kind of fault, is a root of its own.  A scenario without faults has
    one root, and with its reductions few states: it is explored in one process whatever was asked for.
    """
    quiet = {**knobs, "progress": None}
    parts, interrupted = in_processes(lambda numbers: _portable(search([roots[i] for i in numbers], names, **quiet)),
                                      len(roots), jobs)
    why = "interrupted" if interrupted else ""
    total = {key: sum(part[key] for _, part in parts) for key in ("states", "worlds", "transitions", "ends")}
    outcomes: dict[str, int] = {}
    first: dict[str, tuple[int, tuple[int, ...]]] = {}
    for indices, part in parts:
        why = why or part["why"]
        for name, count in part["outcomes"].items():
            outcomes[name] = outcomes.get(name, 0) + count
        for name, (_, root, schedule) in part["broken"].items():
            if name not in first or len(schedule) < len(first[name][1]):
                first[name] = indices[root], schedule
    broken = tuple(
        _counterexample(name, roots, root, schedule, shortest, knobs)
        for name, (root, schedule) in sorted(first.items())
    )
    assume = Assume(all(p["assume"].nobody_fails for _, p in parts), all(p["assume"].nobody_dies for _, p in parts))
    reductions = tuple(w for w, on in (("symmetry", knobs["symmetry"]), ("partial order", knobs["por"])) if on)
    return Result(
        scenario, cpus, len(roots), total["states"], total["worlds"], total["transitions"],
        max((part["depth"] for _, part in parts), default=0), total["ends"], time.perf_counter() - began, why == "",
        why, broken, tuple(names), (), reductions, assume, tuple(sorted(outcomes.items())),
    )


def conclude(
    scenario: str, cpus: int, roots: Sequence[World], names: Sequence[str], found: Search, began: float,
    shortest: bool, knobs: dict[str, Any],
) -> Result:
    """Counterexamples replayed and shortened, counts collected."""
    broken = []
    for name, (_, depth, index) in found.broken.items():
        root, schedule = found.schedule_to(depth, index)
        broken.append(_counterexample(name, roots, root, schedule, shortest, knobs))
    reductions = tuple(
        word for word, on in (("symmetry", found.symmetry), ("partial order", found.por)) if on
    )
    complete = found.why == ""
    return Result(
        scenario, cpus, len(roots), found.states, found.worlds, found.transitions, len(found.widths) - 1, found.ends,
        time.perf_counter() - began, complete, found.why, tuple(broken), tuple(names), tuple(found.widths), reductions,
        found.assume, tuple(sorted(found.outcomes.items())),
    )


def _counterexample(
    name: str, roots: Sequence[World], root: int, schedule: tuple[int, ...], shortest: bool, knobs: dict[str, Any]
) -> Counterexample:
    proven = not knobs["por"]
    if shortest and not proven:
        quick = {**knobs, "por": False, "stop_first": True, "max_depth": len(schedule),
                 "max_states": min(knobs["max_states"], SHORTEST_STATES)}
        # A final property breaks in a state one level above the one in which the search notices.
        again = search([roots[root]], [name], **quick)
        if again.broken:
            _, depth, index = again.broken[name]
            _, schedule = again.schedule_to(depth, index)
            proven = True
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
    fault = roots[root].rest.fault
    return Counterexample(name, wrong, "" if fault is None else str(fault), tuple(steps), schedule, root, proven)


SHORTEST_STATES = 60_000
"""States that confirming a shortest counterexample may store."""
