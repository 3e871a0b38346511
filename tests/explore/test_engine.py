"""The search itself: shortest, deterministic, bounded, interruptible; what is printed."""

from __future__ import annotations

import pytest

from seamref import cli
from seamref.explore.engine import Search, explore, replay
from seamref.explore.properties import get_property
from seamref.explore.scenarios import get_scenario
from seamref.explore.text import condensed, report, space_time


def test_counterexample__is_the_shortest_and_replays() -> None:
    result = explore("update-without-lock", 2, properties=["nobody-collides"], shortest=True)
    found = result.counterexample()
    plain = explore("update-without-lock", 2, properties=["nobody-collides"], por=False, symmetry=False)
    assert found.shortest and found.depth == plain.counterexample().depth
    world, steps = replay(get_scenario("update-without-lock").make(2), found.schedule)
    assert steps == found.steps
    assert world.host.platform.P_SEAMLDR_MUTEX is not None


def test_explore__twice_gives_the_same() -> None:
    one, two = (explore("info-callers-v3", 3, stop_first=False) for _ in range(2))
    assert one.broken == two.broken and one.widths == two.widths and one.outcomes == two.outcomes


def test_explore__stops_at_its_bounds_and_says_so() -> None:
    result = explore("update", 2, max_states=50)
    assert not result.complete and not result.holds and "max_states" in result.why
    assert result.states >= 50 and "no counterexample so far" in result.verdict
    assert "max_memory" in explore("update", 2, max_memory=1).why


def test_explore__interrupted_keeps_its_counts() -> None:
    calls = 0

    def interrupt(world: object, enabled: object, chosen: object) -> None:
        nonlocal calls
        calls += 1
        if calls == 60:
            raise KeyboardInterrupt

    search = Search(get_scenario("update").roots(2), [get_property("no-deadlock")], watch=interrupt)
    search.run()
    assert search.why == "interrupted" and search.states >= 20


def test_explore__a_livelock_is_a_run_without_end() -> None:
    search = Search(get_scenario("update").roots(2), [], max_depth=10)
    search.run()
    assert "more than 10 steps" in search.why


def test_explore__says_what_breaks_as_soon_as_it_is_found(capsys: pytest.CaptureFixture[str]) -> None:
    told: list[tuple[str, str, int]] = []
    result = explore("info-callers-v3", 2, stop_first=False, told=lambda *found: told.append(found))
    assert {name for name, _, _ in told} == {found.broken for found in result.broken}
    assert all(depth >= result.counterexample(name).depth for name, _, depth in told), "shortened behind that"
    assert cli.main(["explore", "info-callers-v3", "--cpus", "2", "--all"]) == 1
    said = capsys.readouterr().err.splitlines()
    assert sorted(line.split()[1] for line in said) == ["callers-succeed", "nobody-collides"]
    assert all(line.startswith("breaks ") and " steps: " in line for line in said)


def test_progress__is_told_on_long_runs() -> None:
    told: list[str] = []
    search = Search(get_scenario("update").roots(2), [], progress=told.append, quiet_seconds=0.0)
    search._told -= 10
    search.run()
    assert told and "states/s" in told[0]


def test_text__columns_and_the_sentence() -> None:
    found = explore("info-callers-v3", 2, properties=["callers-succeed"]).counterexample()
    text = space_time(found, width=90)
    assert "CPU 0" in text and "CPU 1" in text and "=> callers-succeed: info on CPU" in text
    assert all(len(row) <= 90 for row in text.splitlines())
    assert len(condensed(found.steps)) < len(found.steps)
    assert len(space_time(found, whole=True).splitlines()) > len(text.splitlines())


def test_report__no_timing_when_not_wanted() -> None:
    text = report(explore("info-callers", 2), timing=False)
    assert "holds" in text and " s\n" not in text


def test_cli__verdict_is_the_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["explore", "info-callers", "--cpus", "2"]) == 0
    assert "every reachable state was looked at" in capsys.readouterr().out
    assert cli.main(["explore", "info-callers-v3", "--property", "callers-succeed"]) == 1
    assert "info on CPU" in capsys.readouterr().out
    assert cli.main(["explore"]) == 0
    out = capsys.readouterr().out
    assert "update-without-lock" in out and "one-in-p-seamldr" in out and "seamdb-dry" in out
    assert cli.main(["explore", "update", "--cpus", "0"]) == 2
