"""What a set of recorded vectors is, and the run over files of them.

A format's module subclasses :class:`VectorSet` and says five things: where a document's cases are, what a case is
called, what all cases share (checked once), whether one case is of the format (checked whole, before anything runs),
and how it is replayed.  Everything else stands here: reading files, ``--only``, counting, going on after a bad case.

Two errors are kept apart.  A :class:`~seamref.conformance.reading.FormatError` says that the *recording* is not one:
the case is counted as malformed, by the path of the bad value.  A :class:`Difference` says that *we* differ: which
step, which field, what came out here and what was recorded.  A question about something that is not modelled
(any other :class:`~seamref.errors.SeamrefError`) is a difference in the field ``modelled``.

To add a format: a module with a subclass, ``VECTORS = TheSubclass()``, and its row in ``registry``.  Skeleton::

    class Recorded(VectorSet[Shared]):
        cases_key = "cases"
        def label(self, value, path): return text(value["id"], f"{path}.id"), text(value["group"], f"{path}.group")
        def prepare(self, document, sparse): mapping(document, "", {"format", "cases"}); return Shared(...)
        def check(self, case, shared): c = mapping(case.value, case.path, {...}); u32(c["lp"], f"{case.path}.lp"); ...
        def replay(self, case, shared): return [Difference(case.id, 0, "rax", ours, recorded), ...]   # [] agrees

``check`` raises for the first value that is not of the format, and must leave nothing for ``replay`` to trip over:
``replay`` may raise a FormatError only for what needs work to find (a digest of a recipe), never a KeyError.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

from seamref.conformance.reading import FormatError, array, read_document, shown, vector_files
from seamref.conformance.registry import Format, foreign, recognise
from seamref.errors import SeamrefError

S = TypeVar("S")


@dataclass(frozen=True, slots=True)
class Difference:
    """One field that differs: case id, step (``None``: the case has none), the field's path, our value, theirs."""

    case: str
    step: int | None
    field: str
    ours: Any
    recorded: Any

    def __str__(self) -> str:
        where = "" if self.step is None else f"step {self.step}: "
        return f"{where}{self.field}: recorded {plain(self.recorded)}, ours {plain(self.ours)}"


def plain(value: Any) -> str:
    """A value of a difference in at most 100 characters."""
    if isinstance(value, str):
        made = value if value.isprintable() else repr(value)
        return made if len(made) <= 100 else made[:100] + "..."
    if isinstance(value, list | tuple | dict):
        made = repr(value)
        return made if len(made) <= 100 else made[:100] + "..."
    return shown(value, 100)


@dataclass(frozen=True, slots=True)
class Case:
    """One case of a document: its path (``cases[3]``), id, group, and what stands there."""

    path: str
    id: str
    group: str
    value: dict[str, Any]


class VectorSet(ABC, Generic[S]):
    """A format.  ``S`` is what the cases of one document share, made by ``prepare``."""

    cases_key: ClassVar[str] = "cases"

    @abstractmethod
    def prepare(self, document: dict[str, Any], sparse: bool) -> S:
        """Check everything of a document but its cases; what they share.  A FormatError here is about the whole file.
        ``sparse``: leave out hashes of every byte of large ranges where another digest decides the same."""

    @abstractmethod
    def label(self, value: dict[str, Any], path: str) -> tuple[str, str]:
        """Id (no two cases have the same) and group of the case that stands at ``path``."""

    @abstractmethod
    def check(self, case: Case, shared: S) -> None:
        """Whether every value of a case is of the format: a :class:`FormatError` with the path of the first that is
        not.  Also bounds what a case may ask for (processors, pages, bytes) before ``replay`` takes memory."""

    @abstractmethod
    def replay(self, case: Case, shared: S) -> list[Difference]:
        """Run a checked case on our machine: every difference found, or the first; none: it agrees."""

    def calls(self, case: Case) -> int:
        """How many calls of the recorded code a case makes, for the figures."""
        steps = case.value.get("steps")
        return len(steps) if isinstance(steps, list) else 1


# --- a run over files


@dataclass(slots=True)
class SetReport:
    """Counts of one format: cases and agreements by group, calls."""

    title: str
    cases: Counter[str] = field(default_factory=Counter)
    agreed: Counter[str] = field(default_factory=Counter)
    malformed: int = 0
    calls: int = 0


@dataclass(frozen=True, slots=True)
class Malformed:
    """Something that is not of its format: the file, the case (empty: the whole file), path of the value, problem."""

    file: str
    case: str
    path: str
    problem: str

    def __str__(self) -> str:
        return ": ".join(part for part in (self.file, self.path, self.problem) if part)


@dataclass(frozen=True, slots=True)
class Disagreement:
    """A difference, and of which set and file it is."""

    set: str
    file: str
    difference: Difference


@dataclass(slots=True)
class Report:
    """What a run found.  ``files`` counts the files that were replayed, ``skipped`` names others' with the reason."""

    sets: dict[str, SetReport] = field(default_factory=dict)
    disagreements: list[Disagreement] = field(default_factory=list)
    malformed: list[Malformed] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    files: int = 0

    @property
    def cases(self) -> int:
        """Cases that were replayed."""
        return sum(sum(one.cases.values()) for one in self.sets.values())

    @property
    def agreed(self) -> int:
        """Cases that agree."""
        return sum(sum(one.agreed.values()) for one in self.sets.values())

    @property
    def code(self) -> int:
        """0: everything agrees; 1: something differs; 2: something is not of the format, or there was no case."""
        if self.malformed or not self.cases:
            return 2
        return 1 if self.disagreements else 0


def cases_of(document: dict[str, Any], vectors: VectorSet[Any]) -> Iterator[Case | FormatError]:
    """The cases of a document in order; in the place of one without an id of its own, what is wrong with it."""
    seen: dict[str, str] = {}
    for index, value in enumerate(array(document.get(vectors.cases_key), vectors.cases_key)):
        path = f"{vectors.cases_key}[{index}]"
        try:
            if not isinstance(value, dict):
                raise FormatError(path, f"{shown(value)}, must be an object")
            try:
                id, group = vectors.label(value, path)
            except KeyError as error:
                raise FormatError(path, f"{error.args[0]} is missing") from None
            if id in seen:
                raise FormatError(path, f"the id {shown(id)} is that of {seen[id]} too")
            seen[id] = path
            yield Case(path, id, group, value)
        except FormatError as error:
            yield error


def replay_case(case: Case, vectors: VectorSet[S], shared: S) -> list[Difference]:
    """Check and replay one case.  Raises :class:`FormatError` if it is none."""
    vectors.check(case, shared)
    try:
        return vectors.replay(case, shared)
    except FormatError:
        raise
    except SeamrefError as error:  # a platform that cannot be made here, or something that is not modelled
        return [Difference(case.id, None, "modelled", str(error), "a behaviour")]


def chosen(case: Case, only: str) -> bool:
    """``--only``: a shell pattern for the id or the group of a case; empty: every case."""
    return not only or fnmatchcase(case.id, only) or fnmatchcase(case.group, only)


def replay_document(
    document: dict[str, Any], report: Report | None = None, *, file: str = "", only: str = "", sparse: bool = False,
    progress: Callable[[str, int, int], None] | None = None,
) -> Report:
    """Replay a document of any format into ``report``; nothing that is wrong with one case stops another."""
    report = report if report is not None else Report()
    try:
        row = recognise(document)
        if not row.is_replayed:
            raise FormatError("", f"vectors of {row.title} cannot be replayed here")
        vectors = row.vectors()
        shared = vectors.prepare(document, sparse)
        cases = list(cases_of(document, vectors))
    except FormatError as error:
        report.malformed.append(Malformed(file, "", error.path, error.problem))
        return report
    counts = report.sets.setdefault(row.title, SetReport(row.title))
    report.files += 1
    for done, case in enumerate(cases):
        if progress is not None:
            progress(row.title, done, len(cases))
        if isinstance(case, FormatError):
            counts.malformed += 1
            report.malformed.append(Malformed(file, "", case.path, case.problem))
        elif chosen(case, only):
            _count(case, row, vectors, shared, counts, report, file)
    return report


def _count(case: Case, row: Format, vectors: VectorSet[Any], shared: Any, counts: SetReport, report: Report,
           file: str) -> None:
    try:
        differences = replay_case(case, vectors, shared)
    except FormatError as error:
        counts.malformed += 1
        report.malformed.append(Malformed(file, case.id, error.path, error.problem))
        return
    counts.cases[case.group] += 1
    counts.calls += vectors.calls(case)
    if not differences:
        counts.agreed[case.group] += 1
    report.disagreements.extend(Disagreement(row.title, file, difference) for difference in differences)


def replay_files(
    paths: Iterable[Path], *, only: str = "", sparse: bool = False,
    progress: Callable[[str, int, int], None] | None = None,
) -> Report:
    """Replay files and folders, ``-`` for the standard input, in one report.

    A folder may hold others' vectors that are known by name: they are skipped with a word.  A file that is named
    itself must be a recording.
    """
    report = Report()
    for path in paths:
        for file in vector_files(path):
            name = "standard input" if str(file) == "-" else str(file)
            try:
                document = read_document(file)
            except FormatError as error:
                report.malformed.append(Malformed(name, "", error.path, error.problem))
                continue
            if file != path and (other := foreign(document)) is not None:
                report.skipped.append(f"{name}: {other.title}: {other.why}")
                continue
            replay_document(document, report, file=name, only=only, sparse=sparse, progress=progress)
    return report


__all__ = [
    "Case", "Difference", "Disagreement", "Malformed", "Report", "SetReport", "VectorSet", "cases_of", "chosen",
    "plain", "replay_case", "replay_document", "replay_files",
]
