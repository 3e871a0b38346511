"""Recordings changed by one value are named, differ, or say the same: nothing trips, nothing is masked."""

from __future__ import annotations

import mutate_vectors
import pytest

from seamref.conformance.frame import replay_document
from seamref.conformance.reading import read_document
from seamref.conformance.registry import replayed

COUNT = 150
"""Mutants of each format here; tools/mutate_vectors.py runs as many as one likes."""


@pytest.mark.parametrize("room", [row.module for row in replayed()])
def test_mutants__every_one_is_judged_and_none_is_masked(room: str) -> None:
    verdicts, findings = mutate_vectors.run([room], COUNT, 7)
    assert findings == []
    assert verdicts[f"{room}: malformed"] > COUNT // 10 and verdicts[f"{room}: differs"] > COUNT // 20
    assert sum(verdicts.values()) == COUNT


@pytest.mark.parametrize(("lp", "named"), [(0, False), (1, False), (2, True), (17, True)])
def test_prefix__a_processor_that_the_case_has_not_is_named_by_its_path(lp: int, named: bool) -> None:
    """A prefix is shared by cases on platforms of different sizes; each is judged on its own."""
    document = read_document(mutate_vectors.VECTORS / "tdxmodule" / "sample.json.gz")
    case = next(c for c in document["cases"] if c["prefix"] == "init2" and c["sockets"] * c["lps_per_socket"] == 2)
    steps = [{**document["prefixes"]["init2"][0], "lp": lp}, *document["prefixes"]["init2"][1:]]
    report = replay_document({"platform": document["platform"], "prefixes": {"init2": steps}, "cases": [case]})
    if named:
        (bad,) = report.malformed
        assert bad.path.endswith("init2.0.lp") or bad.path.endswith("init2[0].lp"), bad
    else:
        assert not report.malformed


def test_msr__one_that_is_not_modelled_is_said_to_be_that() -> None:
    document = read_document(mutate_vectors.VECTORS / "tdxmodule" / "sample.json.gz")
    case = next(c for c in document["cases"] if any(s["op"] == "msr_xor" for s in c["steps"]))
    steps = [{**s, "msr": 0x80FE} if s["op"] == "msr_xor" else s for s in case["steps"]]
    report = replay_document({**document, "cases": [{**case, "steps": steps}]})
    assert report.code == 2 and "MSR 0x80FE is not modelled" in report.malformed[0].problem
    platform = {**document["platform"], "msrs": {"0x80fe": 0}}
    report = replay_document({**document, "platform": platform, "cases": [case]})
    assert report.code == 2 and "0x80FE" in report.malformed[0].problem


def spelled(value: object) -> object:
    """Every number of a step in the format's other spelling, "0x...", where that is allowed."""
    if isinstance(value, dict):
        return {name: inner if name == "size" and "nonzero" in value else spelled(inner)
                for name, inner in value.items()}
    if isinstance(value, list):
        return [spelled(inner) for inner in value]
    return hex(value) if isinstance(value, int) and not isinstance(value, bool) else value


def test_numbers__of_the_modules_recordings_in_either_spelling_say_the_same() -> None:
    document = read_document(mutate_vectors.VECTORS / "tdxmodule" / "sample.json.gz")
    ops: set[str] = set()
    cases = []
    for case in document["cases"]:
        new = {step["op"] for step in case["steps"]} - ops
        if new and case["prefix"] in (None, "init2", "up2"):
            ops |= new
            cases.append({**case, "sockets": hex(case["sockets"]), "steps": spelled(case["steps"])})
    report = replay_document({**document, "prefixes": spelled(document["prefixes"]), "cases": cases})
    assert len(ops) > 3 and report.code == 0, (report.malformed[:2], report.disagreements[:2])
