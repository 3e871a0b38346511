"""kexec: the module is disabled or left over, and what the next kernel makes of it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from seamref.explore.engine import explore, search
from seamref.explore.probe import module_state
from seamref.explore.scenarios import ABLE, OLD, booted, get_scenario
from seamref.explore.world import World
from seamref.host import tasks
from seamref.host.abi import TDX_SYS_BUSY, Errno
from seamref.host.kernel import Host
from seamref.host.records import Task
from seamref.host.tdx import KEXEC_JUMP, boot_again, kexec
from seamref.tdxmodule.structures import SysState


def until(world: World, actor: int, reached: Callable[[World], bool]) -> World:
    """Let one actor go on alone until ``reached``."""
    for _ in range(200):
        if reached(world):
            return world
        world.step(actor)
        world = world.fork()
    raise AssertionError("never reached")


def in_effect(world: World) -> bool:
    """Whether CPU 0 is behind the checks of the leaf that it called."""
    lp = world.host.platform.peek_lp(world.host.state.cpus[0].apicid)
    return getattr(lp.program_state, "phase", "") == "effect"


def stepped(host: Host) -> Host:
    """kexec, step by step, up to the jump."""
    copy = host.fork()
    tasks.start(copy, 0, Task("kexec.start"))
    while copy.state.cpus[0].tasks[-1].pc != KEXEC_JUMP:
        assert not tasks.step(copy, 0).blocked
    return copy


@pytest.mark.parametrize("module", [OLD, ABLE])
def test_LNX_sys_disable__the_steps_do_what_the_function_does(module: str) -> None:
    at_once = booted(2, module=module)
    one, two = at_once.fork(), stepped(at_once)
    kexec(one)
    assert one.platform.fingerprint() == two.platform.fingerprint()
    assert one.state.dmesg == two.state.dmesg and one.state.module == two.state.module
    assert ("failed: 0xc000010000000000" in two.state.dmesg[-1]) is (module == OLD)


@pytest.mark.parametrize(("module", "ret"), [(OLD, Errno.EIO), (ABLE, Errno.OK)])
def test_LNX_kexec_boot__a_module_that_was_disabled_can_be_initialised_again(module: str, ret: Errno) -> None:
    host = stepped(booted(2, module=module))
    assert boot_again(host) is ret
    assert host.state.module.initialized is (ret is Errno.OK)
    assert (host.state.dmesg[-1] == "virt/tdx: TDX-Module initialized") is (ret is Errno.OK)


def test_SYS_DISABLE_state__nobody_is_let_in_behind_the_look_at_who_is_inside() -> None:
    """A TD that is entered between the check and the reclaim would run on memory that is taken away under it."""
    world = until(get_scenario("kexec-under-td").make(2), 0, in_effect)
    assert module_state(world.host.platform) == SysState.SYSINIT_PENDING
    world = until(world, 1, lambda w: bool(w.rest.results[1]))
    assert world.rest.results[1] == (("td.run", Errno.EIO),)
    world = until(world, 0, lambda w: not w.is_enabled(0))
    assert world.enabled() == [3], "the next kernel"
    world.step(3)
    assert world.remembered("next_kernel") is Errno.OK


def test_SYS_DISABLE_busy__kexec_calls_again_until_the_TD_is_out() -> None:
    spun: list[World] = []

    def watch(world: World, movable: list[int], chosen: list[int]) -> None:
        task = world.task(0)
        if task is not None and task.pc == "kexec.again" and not world.is_enabled(0):
            spun.append(world.fork())

    found = search(get_scenario("kexec-under-td").roots(2), ["tdx-behind-kexec", "no-deadlock"], watch=watch)
    assert found.why == "" and not found.broken
    assert spun
    lp = spun[0].host.platform.peek_lp(spun[0].host.state.cpus[1].apicid)
    returned = spun[0].host.state.cpus[0].tasks[-1].returned
    assert lp.inSEAM and returned is not None and returned.rax == TDX_SYS_BUSY


def test_kexec__stop_machine_and_the_syscore_shutdown_keep_each_other_out() -> None:
    """CPU 0 reboots only before the update begins, or when its own worker has returned."""
    during = 0

    def watch(world: World, movable: list[int], chosen: list[int]) -> None:
        nonlocal during
        task, update = world.task(0), world.host.state.update
        if task is not None and task.pc.startswith("kexec.") and update is not None:
            during += 1
            assert 0 in [cpu for cpu, _ in update.rets]

    found = search(get_scenario("kexec-left-over").roots(2), ["no-deadlock"], watch=watch)
    assert found.why == "" and not found.broken and during


def test_kexec__the_next_kernel_finds_TDX_wherever_the_update_was() -> None:
    assert explore("kexec-around-update", 2).holds
    left = explore("kexec-left-over", 2, properties=["tdx-behind-kexec"])
    assert left.counterexample().wrong == "the next kernel has no TDX: tdx_enable gives -EIO"
