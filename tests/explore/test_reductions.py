"""The reductions change how many states there are, and nothing else."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

from seamref.explore import races
from seamref.explore.access import EVERYTHING, NOTHING, touch
from seamref.explore.audit import audit
from seamref.explore.engine import Result, explore
from seamref.explore.faults import FAULTS
from seamref.explore.observe import RESERVED, Recorder, Seen
from seamref.explore.races import Chain, Event, Race, Waits
from seamref.explore.scenarios import SCENARIOS, get_scenario
from seamref.explore.seeding import Change, Handler, Replaced, seeded
from seamref.explore.world import World
from seamref.host.abi import Errno
from seamref.host.kernel import Host
from seamref.host.records import Task, UpdateState
from seamref.host.tasks import Next
from seamref.host.update import control


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


@pytest.mark.parametrize(("name", "cpus", "faults", "every"), [
    ("update", 2, (), 3), ("info-callers", 3, (), 1), ("info-callers", 3, ("mc",), 1), ("info-callers-v3", 3, (), 1),
    ("uefi-together", 3, (), 1), ("loader-reload", 3, (), 1), ("uefi-together", 2, ("rdrand",), 1),
])
def test_audit__steps_seen_to_be_independent_commute(
    name: str, cpus: int, faults: tuple[str, ...], every: int
) -> None:
    done = audit(get_scenario(name).roots(cpus, faults), every=every)
    assert done.complaints == ()
    assert done.states and done.pairs


@pytest.mark.thorough
@pytest.mark.parametrize("fault", [*FAULTS, ""])
@pytest.mark.parametrize("name", SCENARIOS)
def test_audit__on_every_scenario_with_every_fault(name: str, fault: str) -> None:
    """All states are walked; pairs are tried at every fifth, and at every 40th where a fault multiplies the states."""
    done = audit(get_scenario(name).roots(2, (fault,) if fault else ()), every=40 if fault else 5)
    assert done.complaints == ()


def test_audit__an_access_that_is_not_noted_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A deaf recorder: the kernel's record is written without a note, so taking the lock looks harmless."""
    from seamref.explore import observe
    from seamref.host.kernel import Host

    monkeypatch.setattr(observe.SeenHost, "set", Host.set)
    monkeypatch.setattr(observe.SeenPlatform, "P_SEAMLDR_MUTEX", observe.Platform.__dict__["P_SEAMLDR_MUTEX"])
    assert any("one disables the other" in text for text in audit(get_scenario("info-callers").roots(3)).complaints)


def test_audit__a_wrong_symmetry_is_found() -> None:
    complaints = audit([wrongly_symmetric()]).complaints
    assert any("stands for" in text for text in complaints)


def wrongly_symmetric() -> World:
    """CPU 0 reads nothing: it is not like the others."""
    world = get_scenario("info-callers").make(3)
    world.setting = replace(world.setting, same=((0, 1, 2),))
    return world


# --- nothing is reduced away on a wrong guess


def explore_with(changes: tuple[Change, ...], **knobs: Any) -> Result:
    get_scenario("update").make(2)
    with seeded(*changes):
        return explore("update", 2, **knobs)


def _barrier_off_by_one(host: Host, cpu: int, task: Task) -> Next:
    shared = control(host)
    acks, state, workers = shared.acks + 1, shared.state, len(shared.cpus)
    if acks == (workers - 1 if state is UpdateState.CPU_INSTALL else workers):
        acks, state = 0, UpdateState(state + 1)
    host.set_control(acks=acks, state=state, failures=shared.failures + (task.ret is not Errno.OK))
    return Next("acknowledges", replace(task, pc="update.check"))


def _arrives_for_one_less(host: Host, cpu: int, task: Task) -> Next:
    shared = control(host)
    workers = len(shared.cpus)
    if host.arrive(workers - 1 if shared.state is UpdateState.CPU_INSTALL else workers):
        host.set_control(acks=0, state=UpdateState(control(host).state + 1))
    return Next("acknowledges", replace(task, pc="update.check"))


def _runs_ahead(host: Host, cpu: int, task: Task) -> Next:
    return Next("does not wait", replace(task, cur=task.cur + 1, ret=Errno.OK, pc="update.work"))


def _exclusive_for_LP_INIT(old: Any) -> Any:
    def lock(call: Any, kind: str, address: int, *, linear: bool = True) -> Any:
        return old(call, "x" if kind == "s" and call.leaf == 35 else kind, address, linear=linear)

    return lock


UNDECLARED = {
    "the barrier is off by one": (Handler("update.ack", lambda old: _barrier_off_by_one),),
    "the barrier waits for one worker less": (Handler("update.ack", lambda old: _arrives_for_one_less),),
    "TDH.SYS.LP.INIT takes GLOBAL_LOCK exclusively": (Replaced("tdxmodule.core:Call.lock", _exclusive_for_LP_INIT),),
}


@pytest.mark.parametrize("name", UNDECLARED)
def test_races__code_that_touches_what_no_table_says_is_not_reduced_away(name: str) -> None:
    """The default search breaks what the unreduced search breaks, and names the access."""
    reduced = explore_with(UNDECLARED[name])
    plain = explore_with(UNDECLARED[name], por=False, symmetry=False)
    assert {c.broken for c in reduced.broken} == {c.broken for c in plain.broken} != set()
    assert reduced.widened and all("both touch" in text for text in reduced.widened)


def test_races__shipped_code_is_never_widened() -> None:
    assert explore("update", 2).widened == explore("info-callers", 3).widened == ()


def test_races__a_lock_left_out_of_the_table_widens_the_search(monkeypatch: pytest.MonkeyPatch) -> None:
    from seamref.explore import independence

    expected = verdict(explore("info-callers-v3", 2, stop_first=False))
    monkeypatch.setattr(independence, "_SEAMLDR_ENTER", NOTHING)
    monkeypatch.setattr(independence, "_whole_call", lambda leaf: NOTHING)
    monkeypatch.setitem(independence.JOB_ACCESSES, "info", NOTHING)
    wrong = explore("info-callers-v3", 2, stop_first=False)
    assert verdict(wrong) == expected
    assert any("P_SEAMLDR_MUTEX" in text for text in wrong.widened)


def test_symmetry__CPUs_that_are_not_alike_are_told_apart() -> None:
    """A worker that has a way of its own is seen where it is exchanged with another."""
    def forgetful(old: Any) -> Any:
        def ack(host: Host, cpu: int, task: Task) -> Any:
            if cpu == 2 and task.cur == UpdateState.RUN_UPDATE:
                return Next("forgets to acknowledge", replace(task, pc="update.check"))
            return old(host, cpu, task)
        return ack

    get_scenario("update").make(3)
    with seeded(Handler("update.ack", forgetful)):
        found = explore("update", 3)
    assert "no-deadlock" in found.verdict


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


# --- places: what belongs to a CPU has a block of its own


def recorder(opened: tuple[int, ...] = ()) -> Recorder:
    """Three CPUs with two pages each: 10 and 11, 20 and 21, 30 and 31."""
    made = Recorder()
    made.begin((5, 6, 7), {10 * (cpu + 1) + slot: (cpu, slot) for cpu in range(3) for slot in range(2)}, opened)
    return made


@pytest.mark.parametrize("opened", [(), (1,)])
def test_places__an_exchange_of_CPUs_moves_what_belongs_to_them(opened: tuple[int, ...]) -> None:
    saw = recorder(opened)
    order = (1, 2, 0)
    shared = saw.places(0x5000, 8)[0]
    assert saw.permute(shared, order) == shared
    for cpu, other in enumerate(order):
        for slot, offset, size in ((0, 8, 8), (1, 64, 2), (1, 0, 2048)):
            ours, theirs = (saw.places((10 * (n + 1) + slot << 12) + offset, size) for n in (cpu, other))
            assert [saw.permute(places, order) for places in ours] == list(theirs)
        ids = 5 + cpu, 5 + other
        assert saw.permute(sum(saw.cpu[ids[0]]), order) == sum(saw.cpu[ids[1]])


def test_places__words_of_an_own_page_are_told_apart_once_others_touched_it() -> None:
    closed, opened = recorder(), recorder((1,))
    for slot, apart in ((0, False), (1, True)):
        at = 20 + slot << 12
        for saw, differ in ((closed, False), (opened, apart)):
            one, other = (Seen(0, saw.places(at + offset, 2)[1]) for offset in (0, 16))
            assert one.conflicts(other) is not differ
    touched = closed.places(21 << 12, 2)[0]
    assert closed.foreign(1, touched) == frozenset(), "its own CPU may"
    assert closed.foreign(0, touched) == closed.foreign(-1, touched) == {1}
    assert opened.foreign(0, opened.places(21 << 12, 2)[0]) == frozenset()


def test_places__more_words_than_are_reserved_are_one_place() -> None:
    saw = recorder((0,))
    words = [saw.places((10 << 12) + 2 * word, 2)[1] for word in range(2 * RESERVED)]
    assert len(set(words)) == RESERVED + 1
    assert "memory in the page at 0xA000" in saw.words_of(words[-1]) and "0xA002" in saw.words_of(words[1])


def test_chains__who_learns_of_a_step_learns_of_those_before_it() -> None:
    """Of three steps somebody touches the second one's place: of the third he knows nothing."""
    steps = [Event(f"step {n}", 0, Seen(0, 1 << n), ()) for n in range(3)]
    chain = Chain(tuple(steps), 0b111, 1, Seen(), (), Seen(0, 0b111))
    world = get_scenario("info-callers").make(3)
    told: list[Race] = []
    before, after = races._learn(chain, Event("reader", 2, Seen(0b010), ()), 0, world, Waits(world), 2, 0b111,
                                 told.append)
    assert [event.site for event in before.events] == ["step 0", "step 1"] and before.learnt == 0b101
    assert [event.site for event in after.events] == ["step 2"] and after.learnt == 0b001
    assert before.since == Seen(0b010, 0b100) and [race.site for race in told] == ["step 1"]
