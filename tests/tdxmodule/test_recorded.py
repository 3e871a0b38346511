"""Every recorded case of the TDX module (1.5.01, 1.5.05) agrees; what is not of the format is said by its path."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest

from seamref.conformance.frame import cases_of, replay_case
from seamref.conformance.reading import FormatError, read_document
from seamref.conformance.tdxmodule import VECTORS
from seamref.conformance.vectorset import Case

SAMPLE = Path(__file__).resolve().parents[1] / "conformance/vectors/tdxmodule/sample.json.gz"
SLICE = 64


@lru_cache(maxsize=1)
def opened() -> tuple[Any, list[Case]]:
    document = read_document(SAMPLE)
    cases = [case for case in cases_of(document, VECTORS) if isinstance(case, Case)]
    return VECTORS.prepare(document, False), cases


@pytest.mark.parametrize("first", range(0, 1792, SLICE))
def test_recorded__the_real_module_and_ours_cannot_be_told_apart(first: int) -> None:
    shared, cases = opened()
    chosen = cases[first : first + SLICE]
    found = [f"{case.id} {difference}" for case in chosen for difference in replay_case(case, VECTORS, shared)]
    assert chosen and found == []


def test_recorded__a_wrong_answer_is_a_difference_that_names_the_field() -> None:
    shared, cases = opened()
    case = next(c for c in cases if c.id == "leaf3-state0@1.5.01")
    first = case.value["steps"][0]
    wrong = {**first, "expect": {**first["expect"], "rax": "0x0"}}
    changed = Case(case.path, case.id, case.group, {**case.value, "steps": [wrong]})
    (difference,) = replay_case(changed, VECTORS, shared)
    assert (difference.step, difference.field, difference.recorded) == (0, "rax", 0)


@pytest.mark.parametrize(("change", "path"), [
    ({"op": "jump"}, "steps[0].op"), ({"lp": 2}, "steps[0].lp"), ({"extra": 1}, "steps[0]"),
    ({"regs": {"rax": "33"}}, "steps[0].regs.rax"), ({"regs": {"rax": 1, "rip": 2}}, "steps[0].regs"),
    ({"with": {"entropy": "some"}}, "steps[0].with.entropy"), ({"expect": {"fatal": 1}}, "steps[0].expect.fatal"),
])
def test_recorded__what_is_not_of_the_format_is_an_error_with_its_path(change: dict[str, Any], path: str) -> None:
    shared, cases = opened()
    case = next(c for c in cases if c.id == "leaf3-state0@1.5.01")
    step = {**case.value["steps"][0], **change}
    with pytest.raises(FormatError) as error:
        VECTORS.check(Case(case.path, case.id, case.group, {**case.value, "steps": [step]}), shared)
    assert error.value.path == f"{case.path}.{path}"
