"""A campaign: every scenario under every revision, with every fault on every processor that could suffer it.

A :class:`Case` is one exploration, named by what is in it; :func:`run_case` gives its :class:`Outcome`, whatever
happens.  Cases share nothing, so they run in any order, in any process, on any machine.  A :class:`Ledger` keeps the
outcomes in one file, a line each, so that a campaign that was killed goes on where it was.
"""

from __future__ import annotations

import ast
import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from enum import Enum
from hashlib import sha256
from pathlib import Path
from typing import Any

from seamref.arch.revision import SILICON, get_revision
from seamref.errors import SeamrefError
from seamref.explore.engine import Result, explore
from seamref.explore.scenarios import Scenario, get_scenario
from seamref.explore.world import World

FORMAT = "seamref-campaign/1"


class Verdict(Enum):
    """What came of a case; only the first two speak of all runs."""

    HOLDS = "holds"
    BREAKS = "breaks"
    VACUOUS = "vacuous"
    TIMEOUT = "timeout"
    MEMORY = "memory"
    STATES = "states"
    LIVELOCK = "livelock"
    REFUSED = "refused"
    ERROR = "error"
    LOST = "lost"

    @property
    def is_answer(self) -> bool:
        """Whether every run of the case was looked at, or one that breaks something was found."""
        return self in (Verdict.HOLDS, Verdict.BREAKS, Verdict.VACUOUS)


_CUT = (Verdict.TIMEOUT, Verdict.MEMORY, Verdict.STATES, Verdict.LOST)
SAYS = {
    Verdict.HOLDS: "every run was looked at, no property is broken",
    Verdict.BREAKS: "a run breaks a property",
    Verdict.VACUOUS: "the fault can never strike there, so that the case says nothing about it",
    Verdict.TIMEOUT: "stopped at its bound of time",
    Verdict.MEMORY: "stopped at its bound of memory",
    Verdict.STATES: "stopped at its bound of states",
    Verdict.LIVELOCK: "runs without end",
    Verdict.REFUSED: "there is no such world (the message says why)",
    Verdict.ERROR: "a mistake in seamref, with its message",
    Verdict.LOST: "the process that worked on it died, more than once",
}


@dataclass(frozen=True, slots=True)
class Case:
    """One exploration.

    ``faults``  kinds that strike, each once in a run (none: "")
    ``target``  where they strike, as the scenario names the placement; "": every placement in one exploration
    """

    scenario: str
    revision: str = SILICON.name
    faults: tuple[str, ...] = ()
    target: str = ""
    cpus: int = 2

    @property
    def key(self) -> str:
        """Its name: no two cases of a campaign have one name."""
        fault = "+".join(self.faults) or "no fault"
        return f"{self.scenario}/{self.revision}/{fault}/{self.target or 'everywhere'}/{self.cpus}"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a case.

    ``broken``   (property, steps of the counterexample, what is wrong), by property
    ``why``      what stopped the search, or the message of a refusal or mistake
    ``outcomes`` how runs ended, and how many ends are like that
    ``seconds``  CPU seconds
    """

    case: Case
    verdict: Verdict
    broken: tuple[tuple[str, int, str], ...] = ()
    why: str = ""
    states: int = 0
    transitions: int = 0
    depth: int = 0
    ends: int = 0
    outcomes: tuple[tuple[str, int], ...] = ()
    seconds: float = 0.0

    @property
    def breaks(self) -> tuple[str, ...]:
        """Names of the broken properties."""
        return tuple(name for name, _, _ in self.broken)

    @property
    def is_cut(self) -> bool:
        """Whether a bound or a lost process ended it before every run was looked at: more room could say more.

        Something may have been found broken all the same; what else breaks is not known then.
        """
        return self.verdict in _CUT or (self.verdict is Verdict.BREAKS and self.why != "")

    def to_json(self) -> dict[str, Any]:
        """As the ledger and reports hold it."""
        return {**asdict(self), "verdict": self.verdict.value}

    @staticmethod
    def from_json(data: dict[str, Any]) -> Outcome:
        """The inverse of :meth:`to_json`; a KeyError, TypeError or ValueError where it is none."""
        case = data["case"]
        return Outcome(
            Case(str(case["scenario"]), str(case["revision"]), tuple(map(str, case["faults"])), str(case["target"]),
                 int(case["cpus"])),
            Verdict(data["verdict"]), tuple((str(n), int(d), str(w)) for n, d, w in data["broken"]), str(data["why"]),
            int(data["states"]), int(data["transitions"]), int(data["depth"]), int(data["ends"]),
            tuple((str(n), int(c)) for n, c in data["outcomes"]), float(data["seconds"]),
        )


@dataclass(frozen=True, slots=True)
class Bounds:
    """What one case may use: seconds of wall time, MiB of resident memory, states stored."""

    seconds: float = 600.0
    memory: int = 1024
    states: int = 500_000


# --- cases --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Placed(Scenario):
    """A scenario with one placement of its faults, under one revision of the processor."""

    target: str = ""
    revision: str = SILICON.name

    def roots(self, cpus: int, faults: Sequence[str] = (), **more: Any) -> list[World]:
        """The roots of the scenario that this placement names."""
        found = get_scenario(self.name).roots(cpus, faults, **more)
        if self.target:
            found = [root for root in found if placement(root) == self.target]
            if not found:
                raise SeamrefError(f"{self.name}: nothing is placed on {self.target!r}")
        for root in found:
            root.host.platform.revision = get_revision(self.revision)
        return found


def placement(root: World) -> str:
    """Where the faults of a root strike: "actor 1"."""
    rest: Any = root.rest
    armed = rest.faults if hasattr(rest, "faults") else [fault for fault in (rest.fault,) if fault is not None]
    return ", ".join(f"actor {fault.actor}" for fault in armed)


def cases(
    scenarios: Iterable[str], *, revisions: Sequence[str] = (SILICON.name,), faults: Sequence[tuple[str, ...]] = ((),),
    cpus: Sequence[int] = (2,), targets: str = "each",
) -> Iterator[Case]:
    """The cases of a campaign: scenario x revision x fault x target x number of CPUs.

    ``targets``  "each": a case for each placement of the faults; "together": all placements in one case; else the
                 numbers of actors, separated by commas
    The processor's revision counts from the scenario's beginning: machines boot as silicon does.
    """
    wanted = {f"actor {number}" for number in targets.split(",")} if targets not in ("each", "together") else set()
    for name in scenarios:
        scenario = get_scenario(name)
        for n in cpus:
            placed = {fault: _placements(scenario, n, fault, targets, wanted) for fault in faults}
            for revision in revisions:
                for fault in faults:
                    for target in placed[fault]:
                        yield Case(name, revision, fault, target, n)


def _placements(
    scenario: Scenario, cpus: int, faults: tuple[str, ...], targets: str, wanted: set[str]
) -> tuple[str, ...]:
    if not faults or targets == "together":
        return ("",)
    try:
        found = tuple(dict.fromkeys(placement(root) for root in scenario.roots(cpus, faults)))
    except SeamrefError:
        return ("",)  # the case itself says why there is no such world
    return tuple(target for target in found if not wanted or set(target.split(", ")) <= wanted)


# --- one case -----------------------------------------------------------------------------------------------------


class OutOfBounds(Exception):
    """A case used more than it may."""

    def __init__(self, verdict: Verdict, why: str) -> None:
        self.verdict = verdict
        super().__init__(why)


def run_case(case: Case, bounds: Bounds = Bounds()) -> Outcome:
    """Explore a case within its bounds, to the first property that breaks; never raises but for an interrupt."""
    began, wall = time.process_time(), time.monotonic()

    def watch(line: str) -> None:
        if time.monotonic() - wall > bounds.seconds:
            raise OutOfBounds(Verdict.TIMEOUT, f"{bounds.seconds:g} s")
        if (used := resident(os.getpid())) > bounds.memory:
            raise OutOfBounds(Verdict.MEMORY, f"{used} MiB in use, {bounds.memory} may be")

    try:
        plain = get_scenario(case.scenario)
        placed = _Placed(plain.name, plain.says, plain.make, plain.properties, plain.expected, plain.cpus, plain.why,
                         target=case.target, revision=case.revision)
        result = explore(
            placed, case.cpus, faults=case.faults, shortest=False, max_states=bounds.states, max_memory=1 << 30,
            stop_first=False, progress=watch,
        )
    except OutOfBounds as out:
        found = Outcome(case, out.verdict, why=str(out))
    except MemoryError:
        found = Outcome(case, Verdict.MEMORY, why="no memory is left")
    except SeamrefError as error:
        vacuous = type(error).__name__ == "Vacuous"
        found = Outcome(case, Verdict.VACUOUS if vacuous else Verdict.REFUSED, why=str(error))
    except Exception as error:  # a mistake in the machine must not end the campaign
        found = Outcome(case, Verdict.ERROR, why=f"{type(error).__name__}: {error}")
    else:
        found = _outcome(case, result)
    return replace(found, seconds=round(time.process_time() - began, 3))


def _outcome(case: Case, result: Result) -> Outcome:
    if result.broken:
        verdict = Verdict.BREAKS
    elif result.complete:
        verdict = Verdict.HOLDS
    elif result.why.startswith("runs of more than"):
        verdict = Verdict.LIVELOCK
    else:
        verdict = Verdict.MEMORY if "max_memory" in result.why else Verdict.STATES
    broken = tuple(sorted((found.broken, found.depth, found.wrong) for found in result.broken))
    return Outcome(case, verdict, broken, result.why, result.states, result.transitions, result.depth, result.ends,
                   result.outcomes)


def resident(pid: int) -> int:
    """MiB of a process that are in memory now; 0 where nobody says."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096 >> 20
    except (OSError, IndexError, ValueError):
        return 0


# --- the ledger ---------------------------------------------------------------------------------------------------


def code_digest() -> str:
    """Which state of the code verdicts belong to: a digest of every module that a case can import, and of no other.

    What draws, prints, diagnoses or exports is not among them: a change there leaves stored verdicts as they are.
    """
    root = Path(__file__).resolve().parents[1]
    digest = sha256()
    for name, path in sorted(imported(__name__, root).items()):
        digest.update(name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def imported(name: str, root: Path) -> dict[str, Path]:
    """Modules of the package that a module imports, directly or not, at its top or anywhere inside; by name.

    ``root``  the package's folder.  A package counts with each of its modules that is named, and every module with
    the packages around it.  Read off the sources, so it does not matter what this process has imported by now.
    """
    found: dict[str, Path] = {}
    waiting = [name]
    while waiting:
        path = _source(name := waiting.pop(), root)
        if name in found or path is None:
            continue
        found[name] = path
        waiting += [name.rpartition(".")[0], *_imports(path)]
    return found


def _source(name: str, root: Path) -> Path | None:
    """The file of a module of the package; ``None``: it is no module, or none of this package."""
    package, *parts = name.split(".")
    if package != root.name:
        return None
    at = root.joinpath(*parts)
    candidates = (at / "__init__.py", at.with_suffix(".py") if parts else at)
    return next((path for path in candidates if path.is_file()), None)


def _imports(path: Path) -> list[str]:
    """Names that a module's import statements may mean: modules, and what is taken from them (which may be modules)."""
    names: list[str] = []
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            if node.level or node.module is None:
                raise SeamrefError(f"{path}, line {node.lineno}: a relative import, which the digest does not follow")
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return names


class Ledger:
    """The outcomes of a campaign in one file: a header, and a line of JSON for each case, in the order they came.

    A line is written at once and reaches the disk before the next case counts as done; a last line that was cut
    short (the machine went down, the process was killed) is dropped when the file is opened again.  A case that a
    bound cut short may be run again with more room: its later line counts.
    Errors: a file that is no ledger, one of another state of the code, one that another campaign has open.
    """

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        self.path = path
        self.outcomes: dict[str, Outcome] = {}
        self._file: Any = None
        found = path.exists() and path.stat().st_size > 0
        if found:
            self._read(strict=not read_only)
        elif read_only:
            raise SeamrefError(f"{path}: no campaign was stored there")
        if read_only:
            return
        self._file = path.open("r+b" if found else "w+b", buffering=0)
        _lock(self._file, path)
        if hasattr(os, "register_at_fork"):  # a worker must not hold the lock when this process is gone
            os.register_at_fork(after_in_child=self.close)
        if found:
            self._file.truncate(self._good)
            self._file.seek(self._good)
        else:
            self._write({"format": FORMAT, "code": code_digest()})

    _good = 0

    def _read(self, strict: bool) -> None:
        data = self.path.read_bytes()
        for number, line in enumerate(data.splitlines(keepends=True), 1):
            if not line.endswith(b"\n"):
                break  # cut short
            try:
                held = json.loads(line)
                if number == 1:
                    self._check_header(held, strict)
                else:
                    outcome = Outcome.from_json(held)
                    before = self.outcomes.get(outcome.case.key)
                    if before is not None and not before.is_cut:
                        raise SeamrefError(f"{self.path}, line {number}: {outcome.case.key} has a verdict already")
                    self.outcomes[outcome.case.key] = outcome
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise SeamrefError(f"{self.path}, line {number}: no line of a campaign ({error})") from None
            self._good += len(line)
        if not self._good:
            raise SeamrefError(f"{self.path}, line 1: no header of a campaign")

    def _check_header(self, held: Any, strict: bool) -> None:
        if held.get("format") != FORMAT:
            raise SeamrefError(f"{self.path}, line 1: format {held.get('format')!r}, must be {FORMAT!r}")
        if strict and held.get("code") != (code := code_digest()):
            raise SeamrefError(f"{self.path}: verdicts of another state of the code (it says {held.get('code')!r}, "
                               f"this is {code!r}); take another file")

    def _write(self, line: dict[str, Any]) -> None:
        self._file.write(json.dumps(line).encode() + b"\n")
        os.fsync(self._file.fileno())

    def add(self, outcome: Outcome) -> bool:
        """Keep an outcome; ``False``: the case has one already that no bound cut short, and that one stays."""
        before = self.outcomes.get(outcome.case.key)
        if before is not None and not before.is_cut:
            return False
        self.outcomes[outcome.case.key] = outcome
        if self._file is not None:
            self._write(outcome.to_json())
        return True

    def left(self, wanted: Iterable[Case], *, again: bool = False) -> list[Case]:
        """Those of the cases that have no outcome yet, each once; ``again``: and those that a bound cut short."""
        return list({
            case.key: case for case in wanted
            if (held := self.outcomes.get(case.key)) is None or (again and held.is_cut)
        }.values())

    def close(self) -> None:
        """Let the file go."""
        if self._file is not None:
            self._file.close()
            self._file = None


def _lock(file: Any, path: Path) -> None:
    try:
        import fcntl
    except ImportError:
        return  # Windows: nothing keeps a second campaign away
    try:
        fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        raise SeamrefError(f"{path}: another campaign has it open") from None


Told = Callable[[Outcome], None]
"""Called with each outcome as it comes."""


def to_stderr(line: str) -> None:
    """A line of progress: rewritten on a terminal, one after another elsewhere."""
    end = "" if sys.stderr.isatty() else "\n"
    print(f"\r\x1b[K{line}" if end == "" else line, end=end, file=sys.stderr, flush=True)


__all__ = ["FORMAT", "SAYS", "Bounds", "Case", "Ledger", "Outcome", "Verdict", "cases", "code_digest", "run_case"]
