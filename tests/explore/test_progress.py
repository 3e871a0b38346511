"""Liveness under weak fairness: the whole graph of states, waiting CPUs' turns, and circles."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from seamref.errors import SeamrefError
from seamref.explore import progress as module
from seamref.explore.bugs import BUGS, hunt
from seamref.explore.engine import explore
from seamref.explore.progress import Progress, progress
from seamref.explore.seeding import Handler, seeded
from seamref.host.tasks import Next


@pytest.mark.parametrize("name", ["info-callers", "update-bad-signature", "uefi-cold", "loader-reload"])
def test_progress__every_run_ends_and_nobody_waits(name: str) -> None:
    found = progress(name, 2)
    assert found.holds and found.circles == 0 and not found.waits
    reduced = explore(name, 2, stop_first=False, shortest=False)
    levels = [width for width in reduced.widths if width]
    assert found.longest == len(levels) - 1, "the longest run is as long in the reduced exploration"


@pytest.mark.thorough
def test_progress__of_the_merged_update() -> None:
    found = progress("update", 2)
    assert found.holds and found.spins > 100
    assert found.longest == sum(width > 0 for width in explore("update", 2).widths) - 1


def test_progress__a_processor_in_shutdown_leaves_others_waiting() -> None:
    found = progress("info-callers", 2, ["mc"])
    assert not found.holds and found.waits and "waiting" in found.says


def test_progress__endless_retries_are_a_fair_circle() -> None:
    bug = BUGS["kernel: tries a failed state again for ever"]
    assert hunt(bug) == ("liveness",)
    with seeded(*bug.changes):
        found = progress(bug.scenario)
    assert found.longest is None and found.fair and "for ever" in found.says


def test_progress__a_circle_that_keeps_somebody_out_for_ever_is_not_fair() -> None:
    """CPU 0 could go round: not if CPU 1, who could get on all the time and would end it, gets a turn."""
    part, after = {0, 1}, [[(0, 1), (1, 2)], [(0, 0), (1, 2)], []]
    assert not module._is_fair(part, after, [frozenset({0, 1}), frozenset({0, 1}), frozenset()])
    assert module._is_fair(part, after, [frozenset({0, 1}), frozenset({0}), frozenset()])
    assert sorted(map(sorted, module._components(after))) == [[0, 1], [2]]
    assert module._longest([[(0, 1), (1, 2)], [(0, 2)], []]) == 2


def test_progress__a_turn_of_a_waiting_CPU_that_changes_something_is_refused() -> None:
    """Then "not enabled" would not mean "waits", and the argument would not hold."""
    def moves(old: Any) -> Any:
        def lock(host: Any, cpu: int, task: Any) -> Any:
            if host.state.seamldr_lock is None:
                return old(host, cpu, task)
            return Next("moves while it waits", replace(task, data=task.data + 1))
        return lock

    with seeded(Handler("seamldr.lock", moves)), pytest.raises(SeamrefError, match="its turn changed the world"):
        progress("info-callers", 2)


def test_progress__stops_at_its_bound_without_an_answer() -> None:
    found = progress("update", 2, max_states=20)
    assert not found.holds and "no answer" in found.says
    assert Progress(1, 1, 0, None, 1, (), (), True).holds
