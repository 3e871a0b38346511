"""Faults strike at any step, and what comes of it."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import pytest

from seamref.errors import SeamrefError
from seamref.explore.engine import Result, explore, search
from seamref.explore.faults import FAULTS
from seamref.explore.property import lp_of
from seamref.explore.scenarios import SCENARIOS, get_scenario
from seamref.explore.world import STRIKE, Did, World
from seamref.host.tasks import is_blocked

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


@cache
def found(kind: str) -> Result:
    """The merged update with one fault, explored to its end."""
    return explore("update", 2, faults=[kind], properties=PROPERTIES, stop_first=False, shortest=False)


@pytest.mark.parametrize("kind", EXPECTED)
def test_fault__at_any_step_of_the_merged_update(kind: str) -> None:
    result = found(kind)
    assert result.why == ""
    assert {c.broken for c in result.broken} == EXPECTED[kind]


def test_fault__an_NMI_in_v3s_window_finds_no_current_VMCS() -> None:
    result = explore("update-erratum-v3", 2, faults=["nmi"], properties=["vmcs-window"], shortest=True)
    assert result.counterexample("vmcs-window").shortest
    assert "finds no current VMCS" in result.counterexample().wrong


def test_fault__machine_check_inside_SEAM_hangs_the_machine() -> None:
    result = explore("update", 2, faults=["mc"], properties=["no-deadlock"])
    assert "CPUs [0] are in shutdown" in result.counterexample().wrong


# --- events come by themselves: also to a processor that waits, or that runs a TD


def struck(
    name: str, kind: str, stands: Callable[[World, int], bool], por: bool = True
) -> tuple[World, World, Did]:
    """The first state of a search in which a fault strikes a CPU that ``stands`` so, and the state behind it."""
    found: list[tuple[World, int]] = []

    def watch(world: World, movable: list[int], chosen: list[int]) -> None:
        for actor in chosen:
            if actor < world.cpus and stands(world, actor):
                found.extend((world.fork(), choice) for choice in world.choices(actor) if choice >= STRIKE)
        if found:
            raise KeyboardInterrupt

    search(get_scenario(name).roots(2, [kind]), [], watch=watch, por=por)
    assert found, "no strike there"
    before, choice = found[0]
    after = before.fork()
    return before, after, after.take(choice)


def runs_td(world: World, cpu: int) -> bool:
    """SEAM non-root."""
    return lp_of(world, cpu).is_SEAM_non_root()


def waits(world: World, cpu: int) -> bool:
    """A worker of the update that spins on what the others have to do."""
    task = world.task(cpu)
    return task is not None and task.pc.startswith("update.") and is_blocked(world.host, cpu)


@pytest.mark.parametrize("kind", ["nmi", "smi", "mc"])
def test_fault__an_event_while_a_TD_runs_takes_its_processor_out_of_the_TD(kind: str) -> None:
    """The CPU cannot take a step of its own there; the event gives it one, and the module's TD exit comes next."""
    before, after, did = struck("kexec-under-td", kind, runs_td)
    assert not before.is_enabled(did.actor) and "VM exit" in did.fault
    assert not runs_td(after, did.actor) and lp_of(after, did.actor).inSEAM
    assert after.is_enabled(did.actor) and not after.host.state.cpus[did.actor].dead


def test_EVENT_shutdown_in_SEAM__while_a_TD_runs_closes_both_modules() -> None:
    before, after, did = struck("kexec-under-td", "shutdown", runs_td)
    assert before.host.platform.SEAM_READY and before.host.platform.P_SEAMLDR_READY
    assert not after.host.platform.SEAM_READY and not after.host.platform.P_SEAMLDR_READY
    assert after.host.state.cpus[did.actor].dead and lp_of(after, did.actor).inSEAM


@pytest.mark.parametrize("kind", ["nmi", "smi", "mc", "shutdown"])
def test_fault__an_event_strikes_a_worker_that_waits(kind: str) -> None:
    """Partial order may take it earlier, where it does the same; without it, it is taken there."""
    before, after, did = struck("update", kind, waits, por=False)
    assert not before.is_enabled(did.actor) and did.fault
    assert after.host.state.cpus[did.actor].dead is (kind == "shutdown")
    assert after.host.state.cpus[did.actor].tasks == before.host.state.cpus[did.actor].tasks
    assert lp_of(after, did.actor).inSEAM is False and after.host.platform.SEAM_READY


@pytest.mark.thorough
def test_fault__a_shutdown_while_a_TD_runs_leaves_nobody_a_module() -> None:
    """Every run of a small scenario: the TD's processor dies, its caller never gets on, kexec finds nothing to call."""
    found = explore("kexec-under-td", 2, faults=["shutdown"], stop_first=False)
    assert found.complete
    assert {"tdx-behind-kexec", "no-deadlock"} <= {c.broken for c in found.broken}


def test_fault__unknown_names_are_refused_with_the_known_ones() -> None:
    with pytest.raises(SeamrefError, match="no fault 'x'; there are rdrand"):
        explore("update", 2, faults=["x"])
    with pytest.raises(SeamrefError, match="no scenario 'x'"):
        explore("x")
    with pytest.raises(SeamrefError, match="no property 'x'"):
        explore("update", properties=["x"])


def test_fault__processes_find_what_one_finds() -> None:
    one = found("rdrand")
    two = explore("update", 2, faults=["rdrand"], properties=PROPERTIES, stop_first=False, shortest=False, jobs=2)
    assert {c.broken: c.depth for c in one.broken} == {c.broken: c.depth for c in two.broken}
    assert set(one.outcomes) <= set(two.outcomes) or {n for n, _ in one.outcomes} == {n for n, _ in two.outcomes}


def test_faults__all_are_described() -> None:
    assert len(FAULTS) >= 12 and all(f.says and f.name == name for name, f in FAULTS.items())
