"""The state that is explored: a machine, the kernel on it, what each CPU still has to do, and who else acts.

A :class:`World` holds nothing of its own semantics.  Its CPUs take :func:`seamref.host.tasks.step`, that is the
processor's, P-SEAMLDR's, the TDX module's and the kernel's own functions; other actors (the thread that starts an
update, hotplug, whoever changes memory) are small step machines over the same host functions.  Whatever several runs
have to tell apart is in here: two worlds with one fingerprint have the same future.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, TypeAlias

from seamref.errors import SeamrefError
from seamref.explore.access import Accesses
from seamref.explore.observe import NOTES, RESULTS, SAW
from seamref.host.abi import Errno
from seamref.host.kernel import Host
from seamref.host.records import Task
from seamref.host.tasks import is_blocked, start
from seamref.host.tasks import step as step_cpu

Ghost: TypeAlias = tuple[tuple[str, Any], ...]


@dataclass(frozen=True, slots=True, order=True)
class Armed:
    """A fault that may strike once: before any one step of this actor, or (some kinds) while it waits."""

    kind: str
    actor: int

    def __str__(self) -> str:
        return f"{self.kind} on actor {self.actor}"


@dataclass(frozen=True, slots=True)
class Did:
    """One transition: which actor, what it did, and the fault that struck just before it.

    ``pointless``: a fault was placed here, and changed nothing.
    """

    actor: int
    name: str
    pc: str
    text: str
    fault: str = ""
    pointless: bool = False


@dataclass(frozen=True, slots=True)
class Fault:
    """One kind of fault: what it is, what it touches, how it strikes (and what it says it did; nothing: it cannot).

    ``waiting``  it strikes a processor by itself, between any two steps, also one that spins or runs a TD; others
                 strike just before a step of their actor, as part of it
    """

    name: str
    says: str
    accesses: Accesses
    strike: Callable[[World, int], str]
    waiting: bool = False


FAULTS: dict[str, Fault] = {}
"""Kinds of fault by name; :mod:`seamref.explore.faults` puts them here."""


class Extra(Protocol):
    """An actor that is not a CPU.  Its state is one frozen value in ``World.extras``."""

    @property
    def name(self) -> str:
        """What it is called."""
        ...

    def enabled(self, world: World, state: Any) -> bool:
        """Whether it can take a step now."""
        ...

    def done(self, world: World, state: Any) -> bool:
        """Whether it has nothing left to do."""
        ...

    def step(self, world: World, state: Any) -> tuple[Any, str]:
        """Take a step: its next state, and what it did."""
        ...

    def accesses(self, world: World, state: Any) -> Accesses:
        """What its next step may touch."""
        ...

    def ahead(self, world: World, state: Any, frozen: int) -> Accesses:
        """What it may touch, now or later, before actor ``frozen`` takes its next step."""
        ...


Job: TypeAlias = Callable[["World", int, str], Task]
"""Makes the task of a job for an idle CPU: the world, the CPU, the rest of the job's name."""
JOBS: dict[str, Job] = {}
GATES: dict[str, Callable[[World, int], bool]] = {}
"""Jobs that may only start when this says so (whoever gives them out waits for something)."""


def job(name: str) -> Callable[[Job], Job]:
    """Register a job under the name that scripts use; what a script puts behind a colon is the job's own."""

    def tie(function: Job) -> Job:
        if name in JOBS:
            raise SeamrefError(f"two jobs are called {name!r}")
        JOBS[name] = function
        return function

    return tie


@dataclass(frozen=True, slots=True)
class Setting:
    """What does not change during one exploration.

    ``extras``    the actors that are not CPUs, behind the CPUs in numbering
    ``same``      groups of CPU numbers that are interchangeable
    ``own``       physical pages that belong to one CPU each: page number -> (CPU number, which of its pages)
    ``moves``     linear ranges that belong to one CPU each: (base, size, CPU number, name)
    ``bitmaps``   physical address and bytes of bitmaps by x2APIC id
    ``pointers``  physical addresses of 64-bit words that may hold an address of some CPU's own range
    ``stale``     the same, and SEAMCALL overwrites them before anybody reads them
    ``ids``       32-bit words in own pages that hold the CPU's own x2APIC id: (which page, offset)
    ``data``      what jobs and properties of the scenario want to know
    """

    extras: tuple[Extra, ...] = ()
    same: tuple[tuple[int, ...], ...] = ()
    own: Mapping[int, tuple[int, int]] | None = None
    moves: tuple[tuple[int, int, int, str], ...] = ()
    bitmaps: tuple[tuple[int, int], ...] = ()
    pointers: tuple[int, ...] = ()
    stale: frozenset[int] = frozenset()
    ids: tuple[tuple[int, int], ...] = ()
    data: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Rest:
    """What a world holds beside platform and kernel: frozen, replaced as a whole.

    ``scripts``   names of the jobs each CPU still has to start
    ``extras``    states of the other actors
    ``counts``    steps each actor took
    ``faults``    the faults that are armed and did not strike yet
    ``running``   the job each CPU is at
    ``results``   what each CPU's jobs returned
    ``ghost``     what properties remember
    ``notes``     what properties note on one CPU each, as part of that CPU's state
    """

    scripts: tuple[tuple[str, ...], ...]
    extras: tuple[Any, ...]
    counts: tuple[int, ...]
    running: tuple[str, ...]
    faults: tuple[Armed, ...] = ()
    results: tuple[tuple[tuple[str, Errno], ...], ...] = ()
    ghost: Ghost = ()
    notes: tuple[tuple[Any, ...], ...] = ()


STRIKE = 1000
"""Added to an actor's number in a schedule where the first of the armed faults strikes before its step; twice that
where the second does."""


class World:
    """A host, and everything that is going to happen on it."""

    __slots__ = ("host", "rest", "setting")

    def __init__(self, host: Host, setting: Setting | None = None, *,
                 scripts: Mapping[int, tuple[str, ...]] | None = None, extras: tuple[Any, ...] = (),
                 faults: tuple[Armed, ...] = ()) -> None:
        self.host = host
        self.setting = setting or Setting()
        n = len(host.state.cpus)
        given = scripts or {}
        self.rest = Rest(
            tuple(given.get(i, ()) for i in range(n)), extras, (0,) * (n + len(self.setting.extras)), ("",) * n, faults,
            ((),) * n,
        )

    def fork(self) -> World:
        """An independent copy."""
        other = object.__new__(World)
        other.host = self.host.fork()
        other.setting = self.setting
        other.rest = self.rest
        return other

    def set(self, **changes: Any) -> None:
        """Replace fields of the rest."""
        self.rest = replace(self.rest, **changes)

    def remembered(self, name: str, default: Any = None) -> Any:
        """A property's own note."""
        SAW.reads |= SAW.note(name)
        for key, value in self.rest.ghost:
            if key == name:
                return value
        return default

    def remember(self, **notes: Any) -> None:
        """Keep a property's note."""
        for name in notes:
            SAW.writes |= SAW.note(name)
        self.set(ghost=tuple(sorted({**dict(self.rest.ghost), **notes}.items())))

    def noted(self, cpu: int) -> tuple[Any, ...]:
        """A property's note on one CPU."""
        SAW.reads |= SAW.cpu[self.host.state.cpus[cpu].apicid][NOTES]
        notes = self.rest.notes
        return notes[cpu] if notes else ()

    def note(self, cpu: int, note: tuple[Any, ...]) -> None:
        """Keep a property's note on one CPU: it moves with the CPU where CPUs are exchanged."""
        SAW.writes |= SAW.cpu[self.host.state.cpus[cpu].apicid][NOTES]
        notes = self.rest.notes or ((),) * self.cpus
        if notes[cpu] != note:
            self.set(notes=(*notes[:cpu], note, *notes[cpu + 1 :]))

    # --- actors

    @property
    def cpus(self) -> int:
        """How many CPUs there are; they are actors 0 to cpus - 1."""
        return len(self.rest.scripts)

    @property
    def actors(self) -> range:
        """Numbers of all actors: CPUs, then the others."""
        return range(self.cpus + len(self.setting.extras))

    def name(self, actor: int) -> str:
        """What an actor is called."""
        if actor < self.cpus:
            return f"CPU {actor}"
        return self.setting.extras[actor - self.cpus].name

    def task(self, cpu: int) -> Task | None:
        """What a CPU runs now."""
        tasks = self.host.state.cpus[cpu].tasks
        return tasks[-1] if tasks else None

    def is_done(self, actor: int) -> bool:
        """Whether an actor has nothing left to do."""
        if actor < self.cpus:
            record = self.host.state.cpus[actor]
            return not record.tasks and (not self.rest.scripts[actor] or not record.online)
        index = actor - self.cpus
        return self.setting.extras[index].done(self, self.rest.extras[index])

    def is_enabled(self, actor: int) -> bool:
        """Whether a step of this actor would get on (a CPU that spins would not)."""
        if actor < self.cpus:
            record = self.host.state.cpus[actor]
            if record.dead:
                return False
            if record.tasks:
                return not is_blocked(self.host, actor)
            return bool(self.rest.scripts[actor]) and record.online and self._may_start(actor)
        index = actor - self.cpus
        return self.setting.extras[index].enabled(self, self.rest.extras[index])

    def _may_start(self, cpu: int) -> bool:
        gate = GATES.get(self.rest.scripts[cpu][0].partition(":")[0])
        if gate is None:
            return True
        for number in range(self.cpus):
            self.read_results(number)
        return gate(self, cpu)

    def read_results(self, number: int) -> None:
        """Note that what a CPU's jobs returned, and which are left, is looked at."""
        SAW.reads |= SAW.cpu[self.host.state.cpus[number].apicid][RESULTS]

    def enabled(self) -> list[int]:
        """The actors that would get on."""
        return [actor for actor in self.actors if self.is_enabled(actor)]

    def choices(self, actor: int) -> list[int]:
        """What may happen to this actor now, by numbers in a schedule: faults that strike, and its step."""
        moves = self.is_enabled(actor)
        found = [
            actor + STRIKE * number for number, armed in enumerate(self.rest.faults, 1)
            if armed.actor == actor and (self._waits(actor) if FAULTS[armed.kind].waiting else moves)
        ]
        return [*found, actor] if moves else found

    def _waits(self, actor: int) -> bool:
        if actor >= self.cpus:
            return False
        record = self.host.state.cpus[actor]
        return bool(record.tasks) and not record.dead

    def movable(self) -> list[int]:
        """The actors that something can happen to: those enabled, and those that a fault may strike as they wait."""
        if not self.rest.faults:
            return self.enabled()
        return [actor for actor in self.actors if self.choices(actor)]

    def site(self, actor: int) -> str:
        """Where an actor stands: the program counter, and in a SEAMCALL which one, and where in it."""
        if actor >= self.cpus:
            return self.name(actor)
        task = self.task(actor)
        if task is None:
            return (self.rest.scripts[actor][:1] or ("idle",))[0]
        if task.call is None:
            return task.pc
        state = self.host.platform.peek_lp(self.host.state.cpus[actor].apicid).program_state
        where = getattr(state, "phase", None) or getattr(state, "name", "entry") if task.call.inside else "SEAMCALL"
        where = getattr(where, "name", where)
        return f"{task.pc} {task.call.fn & 0xFFFF:#x} {where}"

    def take(self, choice: int) -> Did:
        """A step by its number in a schedule: the actor, plus a multiple of STRIKE where a fault strikes first."""
        return self.step(choice % STRIKE, strike=choice // STRIKE)

    def step(self, actor: int, *, strike: int = 0) -> Did:
        """One step of one actor, preceded by a fault that is armed for it if one is to ``strike`` (1: the first)."""
        struck, pointless = "", False
        fault = self.rest.faults[strike - 1] if strike else None
        if fault is not None:
            faults = self.rest.faults
            self.set(faults=(*faults[: strike - 1], *faults[strike:]))
            struck = FAULTS[fault.kind].strike(self, actor)
            pointless = not struck
            if pointless or FAULTS[fault.kind].waiting or (actor < self.cpus and self.host.cpu(actor).dead):
                self._count(actor)
                gone = actor < self.cpus and self.host.cpu(actor).dead
                return Did(actor, self.name(actor), "fault", "is gone" if gone else "", struck, pointless)
        if actor < self.cpus:
            pc, text = self._step_cpu(actor)
        else:
            index = actor - self.cpus
            extra = self.setting.extras[index]
            extra.enabled(self, self.rest.extras[index])  # what it waits for is read, too
            state, text = extra.step(self, self.rest.extras[index])
            extras = self.rest.extras
            self.set(extras=(*extras[:index], state, *extras[index + 1 :]))
            pc = extra.name
        self._count(actor)
        if fault is not None and fault.kind == "rdrand" and "rdrand" in self.host.platform.injected:
            pointless = True  # nobody drew
        return Did(actor, self.name(actor), pc, text, struck, pointless)

    def _count(self, actor: int) -> None:
        counts = self.rest.counts
        self.set(counts=(*counts[:actor], counts[actor] + 1, *counts[actor + 1 :]))

    def _step_cpu(self, cpu: int) -> tuple[str, str]:
        began = ""
        if not self.host.state.cpus[cpu].tasks:
            name, *later = self.rest.scripts[cpu]
            self._may_start(cpu)  # what its gate looks at is read
            base, _, more = name.partition(":")
            start(self.host, cpu, JOBS[base](self, cpu, more))
            scripts, running = self.rest.scripts, self.rest.running
            self.set(scripts=(*scripts[:cpu], tuple(later), *scripts[cpu + 1 :]),
                     running=(*running[:cpu], name, *running[cpu + 1 :]))
            began = f"{name}: "
        done = step_cpu(self.host, cpu)
        record = self.host.state.cpus[cpu]
        name = self.rest.running[cpu]
        if name and not record.tasks:
            results, running = self.rest.results, self.rest.running
            SAW.writes |= SAW.cpu[record.apicid][RESULTS]
            mine = (*results[cpu], (name, record.finished or Errno.OK))
            self.set(results=(*results[:cpu], mine, *results[cpu + 1 :]),
                     running=(*running[:cpu], "", *running[cpu + 1 :]))
        return done.pc, began + done.did
