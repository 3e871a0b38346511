"""Faults strike at any step, and what comes of it."""

from __future__ import annotations

import pytest

from seamref.errors import SeamrefError
from seamref.explore.engine import explore
from seamref.explore.faults import FAULTS
from seamref.explore.scenarios import SCENARIOS

PROPERTIES = (*SCENARIOS["update"].properties, "old-module-survives", "vmcs-window")
EXPECTED = {
    "rdrand": {"update-succeeds", "old-module-survives"},
    "seamdb-entropy": set(),
    "seamdb-dry": {"update-succeeds", "old-module-survives"},
    "seamdb-full": {"no-deadlock"},
    "nmi": set(),
    "smi": set(),
    "mc": {"no-deadlock"},
    "sigstruct": {"update-succeeds", "old-module-survives"},
    "skip-lock": {"nobody-collides", "session-ends", "update-succeeds", "old-module-survives"},
}


@pytest.mark.parametrize("kind", EXPECTED)
def test_fault__at_any_step_of_the_merged_update(kind: str) -> None:
    result = explore("update", 2, faults=[kind], properties=PROPERTIES, stop_first=False, shortest=False)
    assert result.why == ""
    assert {c.broken for c in result.broken} == EXPECTED[kind]


def test_fault__an_NMI_in_v3s_window_finds_no_current_VMCS() -> None:
    result = explore("update-erratum-v3", 2, faults=["nmi"], properties=["vmcs-window"], shortest=True)
    assert result.counterexample("vmcs-window").shortest
    assert "finds no current VMCS" in result.counterexample().wrong


def test_fault__machine_check_inside_SEAM_hangs_the_machine() -> None:
    result = explore("update", 2, faults=["mc"], properties=["no-deadlock"])
    assert "CPUs [0] are in shutdown" in result.counterexample().wrong


def test_fault__unknown_names_are_refused_with_the_known_ones() -> None:
    with pytest.raises(SeamrefError, match="no fault 'x'; there are rdrand"):
        explore("update", 2, faults=["x"])
    with pytest.raises(SeamrefError, match="no scenario 'x'"):
        explore("x")
    with pytest.raises(SeamrefError, match="no property 'x'"):
        explore("update", properties=["x"])


def test_fault__processes_find_what_one_finds() -> None:
    one = explore("update", 2, faults=["rdrand"], stop_first=False, shortest=False)
    two = explore("update", 2, faults=["rdrand"], stop_first=False, shortest=False, jobs=2)
    assert {c.broken: c.depth for c in one.broken} == {c.broken: c.depth for c in two.broken}
    assert set(one.outcomes) <= set(two.outcomes) or {n for n, _ in one.outcomes} == {n for n, _ in two.outcomes}


def test_faults__all_are_described() -> None:
    assert len(FAULTS) >= 12 and all(f.says and f.name == name for name, f in FAULTS.items())
