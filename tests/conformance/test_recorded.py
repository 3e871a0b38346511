"""Every recording that travels with the project agrees, group by group."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest

from seamref.conformance.frame import cases_of, replay_case
from seamref.conformance.reading import read_document
from seamref.conformance.registry import FORMATS, Format, recognise
from seamref.conformance.vectorset import Case, VectorSet

VECTORS = Path(__file__).resolve().parent / "vectors"
SLICE = 60
"""Cases of one test: a large group is many tests, so that they can run beside each other."""
ROOMS = ("pseamldr", "npseamldr", "linux")
"""The sets replayed here; each other set has its own test file."""


@lru_cache(maxsize=1)
def opened(room: str) -> tuple[VectorSet[Any], Any, list[Case]]:
    document = read_document(VECTORS / room / "sample.json.gz")
    vectors = recognise(document).vectors()
    cases = list(cases_of(document, vectors))
    assert all(isinstance(case, Case) for case in cases)
    return vectors, vectors.prepare(document, False), [case for case in cases if isinstance(case, Case)]


def slices() -> list[tuple[str, str, int]]:
    found = []
    for room in ROOMS:
        groups: dict[str, int] = {}
        for case in opened(room)[2]:
            groups[case.group] = groups.get(case.group, 0) + 1
        found += [(room, group, first) for group in sorted(groups) for first in range(0, groups[group], SLICE)]
    return found


@pytest.mark.parametrize(("room", "group", "first"), slices())
def test_recorded__the_real_code_and_ours_cannot_be_told_apart(room: str, group: str, first: int) -> None:
    vectors, shared, cases = opened(room)
    chosen = [case for case in cases if case.group == group][first : first + SLICE]
    found = [str(difference) for case in chosen for difference in replay_case(case, vectors, shared)]
    assert chosen and found == []


@pytest.mark.parametrize("row", FORMATS, ids=lambda row: row.module)
def test_recorded__nothing_was_lost_of_the_samples(row: Format) -> None:
    document = read_document(VECTORS / row.module / "sample.json.gz")
    assert recognise(document) is row
    assert len(document[row.keys[-1]]) == row.cases
    assert (VECTORS / row.module / "README.md").stat().st_size > 3000
