"""Errata: each knob has an experiment that tells both readings apart; the differences of SEAMCALL are exact."""

from __future__ import annotations

import pytest

from seamref.arch.errata import ERRATA
from seamref.arch.exhaustive import STATES, is_reachable, seamcall_table
from seamref.arch.revision import REV_343754_001, REV_343754_002, SILICON
from seamref.experiments.processor.errata import DEMONSTRATIONS, Demonstration
from seamref.show.errata import (
    difference_rows,
    errata_table,
    every_difference,
    grid,
    knob_table,
)


def test_the_experiments_are_exactly_those_of_the_errata_with_a_knob() -> None:
    assert [demo.number for demo in DEMONSTRATIONS] == [row.number for row in ERRATA if row.knob]


@pytest.mark.parametrize("demo", DEMONSTRATIONS, ids=lambda demo: f"erratum-{demo.number}")
def test_an_experiment_tells_both_readings_apart(demo: Demonstration) -> None:
    ours, theirs = demo.answers()
    assert ours != theirs


def test_every_erratum_is_in_the_table_with_a_knob_or_a_reason() -> None:
    shown = errata_table()
    assert len(shown.text.splitlines()) == len(ERRATA) >= 33
    for row in ERRATA:
        assert f'id="erratum-{row.number}"' in shown.html
        assert row.knob or row.reason


def test_the_difference_of_print_and_silicon_is_three_kinds_of_state() -> None:
    rows = {row[0]: row[1:] for row in difference_rows(SILICON, REV_343754_002, reachable=False).rows}
    common = "vmx = 1, smm = 0, inSEAM = {}, non_root = 1, 64bit = 1, user = {}"
    assert rows == {
        common.format(0, 1): (64, "#GP(0)", "VM exit 76"),
        common.format(1, 1): (64, "#GP(0)", "#UD"),
        common.format(1, 0): (64, "VM exit 76", "#UD"),
    }


def test_the_single_states_are_those_that_the_tables_say() -> None:
    one, other = seamcall_table(SILICON), seamcall_table(REV_343754_002)
    differing = [s for s in range(STATES) if is_reachable(s) and one[s].outcome != other[s].outcome]
    assert [row[0] for row in every_difference(SILICON, REV_343754_002).rows] == differing


def test_the_two_editions_agree_about_SEAMCALL() -> None:
    assert len(difference_rows(REV_343754_001, REV_343754_002, reachable=False)) == 0
    assert grid(REV_343754_001, REV_343754_002).text.endswith("nowhere")


def test_a_knob_table_has_the_errata_asked_for() -> None:
    assert [row[0] for row in knob_table([3, 1]).rows] == [1, 3]
