"""Every scenario breaks what it is known to break, and nothing else; counts are recorded beside.

How far a counterexample is shortened depends on the time that there is, so its length is not recorded.

``python tests/explore/test_scenarios.py`` writes the record anew.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import pytest

from seamref.explore.engine import Result, explore
from seamref.explore.properties import PROPERTIES
from seamref.explore.scenarios import SCENARIOS

RECORD = Path(__file__).with_name("recorded.json")
RECORDED = json.loads(RECORD.read_text(encoding="utf-8"))
SAMPLE = 500
LARGE = {name for name in SCENARIOS if RECORDED.get(name, {"states": 0})["states"] > 6 * SAMPLE}
"""Every run of the tests sees their first states, `make thorough` all; the campaign that the book shows has their
verdicts."""
EVERY = [pytest.param(name, marks=pytest.mark.thorough) if name in LARGE else name for name in SCENARIOS]


@cache
def found(name: str) -> Result:
    """A scenario explored to its end, with every counterexample."""
    return explore(name, stop_first=False, shortest=False)


def line(result: Result) -> dict[str, object]:
    """What is recorded of a result."""
    return {
        "cpus": result.cpus, "verdict": result.verdict, "states": result.states, "worlds": result.worlds,
        "transitions": result.transitions, "depth": result.depth, "ends": result.ends,
        "broken": sorted(c.broken for c in result.broken),
        "outcomes": dict(result.outcomes),
    }


@pytest.mark.parametrize("name", EVERY)
def test_scenario__breaks_exactly_what_is_expected(name: str) -> None:
    result = found(name)
    assert result.why == ""
    assert {c.broken for c in result.broken} == set(SCENARIOS[name].expected)
    assert all(p in PROPERTIES for p in SCENARIOS[name].properties)


@pytest.mark.parametrize("name", EVERY)
def test_scenario__verdict_states_and_depth_as_recorded(name: str) -> None:
    assert line(found(name)) == RECORDED[name]


@pytest.mark.parametrize("name", sorted(LARGE))
def test_scenario__the_first_states_of_a_large_one_break_nothing_else(name: str) -> None:
    result = explore(name, stop_first=False, shortest=False, max_states=SAMPLE)
    assert result.states >= SAMPLE
    assert {c.broken for c in result.broken} <= set(SCENARIOS[name].expected)


def test_scenario__every_known_bad_one_has_a_reason() -> None:
    assert not [s.name for s in SCENARIOS.values() if s.expected and not s.why]
    assert sum(bool(s.expected) for s in SCENARIOS.values()) >= 10


def test_property__every_one_is_checked_somewhere_and_broken_somewhere() -> None:
    """A property that nothing can break proves nothing: scenarios, faults or seeded bugs break every one."""
    checked = {p for s in SCENARIOS.values() for p in s.properties}
    assert set(PROPERTIES) - checked == {"vmcs-window"}, "checked with a fault only, see test_faults"
    assert all(p.says and p.source and (p.step or p.final) for p in PROPERTIES.values())


if __name__ == "__main__":
    RECORD.write_text(json.dumps({name: line(found(name)) for name in SCENARIOS}, indent=1) + "\n")
