"""The reductions change how many states there are, and nothing else."""

from __future__ import annotations

from itertools import pairwise

import pytest

from seamref.explore.access import EVERYTHING, NOTHING, touch
from seamref.explore.audit import audit
from seamref.explore.engine import Result, explore
from seamref.explore.independence import CAUTIOUS, Assume
from seamref.explore.scenarios import get_scenario


def verdict(result: Result) -> tuple[frozenset[str], frozenset[str]]:
    """What must not depend on reductions: what is broken, and which outcomes there are."""
    return frozenset(c.broken for c in result.broken), frozenset(name for name, _ in result.outcomes)


@pytest.mark.parametrize(("name", "cpus"), [
    ("update", 2), ("update-without-lock", 2), ("update-downgrade", 2), ("info-callers-v3", 3), ("uefi-together", 3),
    ("loader-reload-any-order", 3),
])
def test_reductions__agree_with_no_reduction(name: str, cpus: int) -> None:
    knobs = {"stop_first": False, "shortest": False}
    plain = explore(name, cpus, symmetry=False, por=False, memo=False, **knobs)
    for symmetry in (False, True):
        for por in (False, True):
            reduced = explore(name, cpus, symmetry=symmetry, por=por, **knobs)
            assert verdict(reduced) == verdict(plain)
            assert reduced.states <= plain.states
            if not por:
                assert reduced.worlds == plain.states, "the classes of symmetry stand for exactly the plain states"


def test_symmetry__three_CPUs_the_classes_stand_for_the_plain_states() -> None:
    one = explore("uefi-together", 4, por=False, stop_first=False, shortest=False)
    two = explore("uefi-together", 4, por=False, symmetry=False, stop_first=False, shortest=False)
    assert one.states < two.states == one.worlds


@pytest.mark.parametrize("assume", [Assume(), CAUTIOUS], ids=["optimistic", "cautious"])
@pytest.mark.parametrize(("name", "cpus", "every"), [
    ("update", 2, 1), ("update-v3", 2, 3), ("update-without-lock", 2, 4), ("update-bad-signature", 2, 3),
    ("info-callers", 3, 1), ("info-callers-v3", 3, 1), ("uefi-together", 3, 1), ("loader-reload", 3, 1),
])
def test_audit__declarations_hold_at_every_reachable_state(name: str, cpus: int, every: int, assume: Assume) -> None:
    done = audit(get_scenario(name).roots(cpus), assume, every=every)
    assert done.complaints == ()
    assert done.states and done.declarations


@pytest.mark.thorough
@pytest.mark.parametrize("assume", [Assume(), CAUTIOUS], ids=["optimistic", "cautious"])
@pytest.mark.parametrize("name", ["update-v3", "update-without-lock", "update-bad-signature"])
def test_audit__declarations_hold_at_every_reachable_state_of_the_long_ones(name: str, assume: Assume) -> None:
    """What the test above samples: every state, not every third or fourth."""
    test_audit__declarations_hold_at_every_reachable_state(name, 2, 1, assume)


def test_audit__a_wrong_declaration_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    from seamref.explore import independence

    monkeypatch.setattr(independence, "_wants_lock", lambda world, task: False)
    monkeypatch.setattr(independence, "_SEAMLDR_ENTER", NOTHING)
    assert audit(get_scenario("info-callers").roots(3), CAUTIOUS).complaints


def test_audit__a_wrong_symmetry_is_found() -> None:
    from dataclasses import replace

    world = get_scenario("info-callers").make(3)
    world.setting = replace(world.setting, same=((0, 1, 2),))  # CPU 0 reads nothing: it is not like the others
    complaints = audit([world], CAUTIOUS).complaints
    assert any("stands for" in text for text in complaints)


def test_access__conflicts_and_covers() -> None:
    read, write, add = touch(reads="ready"), touch(writes="ready"), touch(adds="ready")
    assert not read.conflicts(read) and not add.conflicts(add)
    assert write.conflicts(write) and write.conflicts(read) and write.conflicts(add) and add.conflicts(read)
    assert EVERYTHING.covers(write | add) and write.covers(read) and not read.covers(add) and not add.covers(read)
    assert not NOTHING.conflicts(EVERYTHING) and NOTHING.words() == "nothing shared"


def test_growth__the_reduced_update_grows_by_the_same_number_of_states_per_CPU() -> None:
    states = [explore("update", n).states for n in (2, 3, 4, 5)]
    steps = [b - a for a, b in pairwise(states)]
    assert max(steps) - min(steps) <= 20, (states, "linear, give or take the lead's place among the others")
