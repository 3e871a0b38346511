"""Recordings changed by one value are named, differ, or say the same: nothing trips, nothing is masked."""

from __future__ import annotations

import mutate_vectors
import pytest

from seamref.conformance.registry import replayed

COUNT = 150
"""Mutants of each format here; tools/mutate_vectors.py runs as many as one likes."""


@pytest.mark.parametrize("room", [row.module for row in replayed()])
def test_mutants__every_one_is_judged_and_none_is_masked(room: str) -> None:
    verdicts, findings = mutate_vectors.run([room], COUNT, 7)
    assert findings == []
    assert verdicts[f"{room}: malformed"] > COUNT // 10 and verdicts[f"{room}: differs"] > COUNT // 20
    assert sum(verdicts.values()) == COUNT
