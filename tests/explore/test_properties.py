"""Properties: each is declared whole, and what it takes for granted is checked."""

from __future__ import annotations

from dataclasses import replace

import pytest

import seamref.pseamldr.program
import seamref.tdxmodule.program  # noqa: F401  all clauses
from seamref.arch.memory import Agent
from seamref.errors import SeamrefError
from seamref.explore import boundary
from seamref.explore.engine import Search, explore
from seamref.explore.identity import uploads
from seamref.explore.probe import canaries, handoff_valid, module_state, remaining_updates
from seamref.explore.properties import PROPERTIES, STANDARD, get_property
from seamref.explore.property import declare
from seamref.explore.scenarios import SCENARIOS, get_scenario
from seamref.explore.world import World
from seamref.host.records import Call, Stub
from seamref.pseamldr.data import P_SEAMLDR_DATA
from seamref.spec import CLAUSES
from seamref.tdxmodule.structures import SysState


def test_property__has_clause_source_and_one_check() -> None:
    for prop in PROPERTIES.values():
        assert prop.clause in CLAUSES, prop.name
        assert prop.says and prop.source
        assert (prop.step is None) != (prop.final is None)
    assert set(STANDARD) <= set(PROPERTIES)


def test_property__twice_or_without_check_is_refused() -> None:
    with pytest.raises(SeamrefError, match="declared twice"):
        declare("no-deadlock", "", "", "", final=lambda world: None)
    with pytest.raises(SeamrefError, match="one of the two"):
        declare("x", "", "", "")
    with pytest.raises(SeamrefError, match="no property 'x'"):
        get_property("x")


def test_MEMORY__is_closed_in_every_state_of_an_update_asked_without_memory() -> None:
    """seam-memory-closed remembers what it found for one setting; here nothing is remembered."""
    asked = 0

    def ask(world: World, enabled: list[int], chosen: list[int]) -> None:
        nonlocal asked
        asked += 1
        for cpu in range(world.cpus):
            assert boundary.open_memory(world.host.platform, boundary.lp_of(world, cpu)) is None

    search = Search(get_scenario("update").roots(2), [], watch=ask)
    search.run()
    assert asked > 100


def test_MEMORY__agents_that_may_are_not_among_the_outsiders() -> None:
    assert set(Agent) - set(boundary.OUTSIDE) == {Agent.CPU, Agent.P_SEAMLDR, Agent.MODULE, Agent.ACM}


def test_outputs__are_those_that_the_leaf_declares() -> None:
    assert boundary.outputs(Call(1 << 63 | 1)) == ("rdx",)
    assert boundary.outputs(Call(1 << 63)) == ()
    assert boundary.outputs(Call(52)) == ()
    assert "r8" in boundary.outputs(Call(34))
    assert boundary.outputs(Call(0, stub=Stub.SAVED_RET)) == ("rcx", "rdx", "r8", "r9", "r10", "r11")


def test_note__belongs_to_its_CPU_and_not_to_another_world() -> None:
    world = get_scenario("update").make(2)
    other = world.fork()
    other.note(1, (1, 2))
    assert other.noted(1) == (1, 2) and other.noted(0) == () and world.noted(1) == ()


def test_probe__looks_at_the_installed_module() -> None:
    world = get_scenario("update").make(2)
    platform = world.host.platform
    assert module_state(platform) == SysState.SYS_READY
    assert not handoff_valid(platform)
    assert remaining_updates(platform) == platform.config.seamdb_size - len(platform.seamdb)
    assert "P-SEAMLDR's stack canary" in canaries(platform, platform.lps[0]).values()
    assert P_SEAMLDR_DATA.offset_of("canary")
    assert len(uploads(world)) == 1


def test_kernel_balanced__says_what_is_left() -> None:
    world = get_scenario("info-callers").make(2)
    world.set(scripts=((), ()))
    check = get_property("kernel-balanced").final
    assert check is not None and check(world) is None
    host = world.host
    for change, says in (({"hotplug_readers": 1}, "hotplug"), ({"seamldr_lock": 0}, "seamldr_lock"),
                         ({"sysinit_lock": 1}, "sysinit_lock"), ({"heap": ((0x7000, 4096),)}, "never freed"),
                         ({"cpus": (replace(host.state.cpus[0], irqs_off=True), host.state.cpus[1])}, "interrupts")):
        copy = world.fork()
        copy.host.set(**change)
        assert says in (check(copy) or ""), change


def test_version_true__v1_shows_the_version_of_the_module_that_is_gone() -> None:
    """UPDATE.run_update: only the merged kernel and v9, v10 read it inside; v1 never does."""
    result = explore("update-v1", 2, properties=["version-true"], shortest=False)
    assert "the module 1.5.06" in result.counterexample("version-true").wrong


def test_STANDARD__is_checked_in_every_scenario_of_an_update() -> None:
    for name, scenario in SCENARIOS.items():
        if name.startswith("update"):
            assert set(STANDARD) <= set(scenario.properties), name
