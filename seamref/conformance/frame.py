"""The run over files of recorded vectors: reading, ``--only``, counting, going on after a bad case.

What a set is, and how a format is added, stands in :mod:`~seamref.conformance.vectorset`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from seamref.conformance.reading import FormatError, array, read_document, shown, vector_files
from seamref.conformance.registry import Format, foreign, recognise
from seamref.conformance.vectorset import Case, Difference, S, VectorSet
from seamref.errors import SeamrefError


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
    "Disagreement", "Malformed", "Report", "SetReport", "cases_of", "chosen",
    "replay_case", "replay_document", "replay_files",
]
