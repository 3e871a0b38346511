"""The recordings as rows: room, group, case and calls of each, to be counted and filtered."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from seamref.conformance.frame import cases_of
from seamref.conformance.reading import read_document, vector_files
from seamref.conformance.registry import recognise
from seamref.conformance.vectorset import Case


class RecordedCase(NamedTuple):
    """One case of a recording; ``calls`` into the code that was recorded."""

    room: str
    group: str
    case: str
    calls: int


def recorded_cases(folder: Path) -> Iterator[RecordedCase]:
    """Every case of the recordings under ``folder``, in their order; nothing is replayed."""
    for file in vector_files(folder):
        document = read_document(file)
        row = recognise(document)
        vectors = row.vectors()
        for case in cases_of(document, vectors):
            if isinstance(case, Case):
                yield RecordedCase(row.title, case.group, case.id, vectors.calls(case))
