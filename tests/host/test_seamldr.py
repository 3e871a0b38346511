"""seamldr_call: serialised, raw, once per version of the series."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
import lab

from seamref.arch import lab as arch_lab
from seamref.arch.vmcs import NONE
from seamref.host import log, tasks
from seamref.host.abi import SEAMLDR_PARAMS, Errno, Leaf
from seamref.host.kernel import Host, kvm_load, kvm_lost_vmcs
from seamref.host.seamldr import seamldr_call, seamldr_get_info, seamldr_task
from seamref.host.series import MERGED, SERIES, V1, V3, V4, V10, Lock, Vmcs
from seamref.host.tasks import Stuck, interrupt, is_blocked, run, start, step

INFO = Leaf.SEAMLDR_INFO


def until(host: Host, cpu: int, words: str) -> None:
    """Step one CPU until a step says ``words``."""
    while words not in step(host, cpu).did:
        pass


def finish(host: Host, cpu: int) -> Errno:
    """Step one CPU until its task returned."""
    while host.cpu(cpu).tasks:
        assert not step(host, cpu).blocked
    ret = host.cpu(cpu).finished
    assert ret is not None
    return ret


def test_LNX_seamldr_call_lock__without_it_the_second_caller_gets_ENODEV() -> None:
    host = lab.host(series=replace(MERGED, lock=Lock.NONE))
    for cpu in (0, 1):
        start(host, cpu, seamldr_task(INFO, 0x1000))
    until(host, 0, "entered P-SEAMLDR")
    assert finish(host, 1) is Errno.ENODEV
    assert finish(host, 0) is Errno.OK
    assert not any("SEAMCALL" in line for line in host.state.dmesg)  # and nothing is printed


def test_LNX_seamldr_call_lock__with_it_the_second_caller_waits_and_succeeds() -> None:
    host = lab.host()
    for cpu in (0, 1):
        start(host, cpu, seamldr_task(INFO, 0x1000))
    until(host, 0, "entered P-SEAMLDR")
    step(host, 1)
    waiting = step(host, 1)
    assert waiting.blocked and waiting.did == "spins on seamldr_lock, held by CPU 0" and is_blocked(host, 1)
    assert finish(host, 0) is Errno.OK
    assert not is_blocked(host, 1)
    assert finish(host, 1) is Errno.OK


@pytest.mark.parametrize("name", SERIES)
def test_SERIES__which_versions_let_a_second_INFO_fail(name: str) -> None:
    host = lab.host(series=SERIES[name])
    for cpu in (0, 1):
        start(host, cpu, seamldr_task(INFO, 0x1000))
    until(host, 0, "entered P-SEAMLDR")
    step(host, 1)
    while not is_blocked(host, 1) and host.cpu(1).tasks:
        step(host, 1)
    failed = host.cpu(1).finished is Errno.ENODEV
    assert failed == (name in ("v1", "v2", "v3"))


def test_LNX_seamldr_call_lock__a_sleeping_lock_is_a_bug_with_interrupts_off_on_PREEMPT_RT() -> None:
    for lock, rt, bug in ((Lock.SPINLOCK, True, True), (Lock.SPINLOCK, False, False), (Lock.RAW, True, False)):
        host = lab.host(series=replace(MERGED, lock=lock), preempt_rt=rt)
        host.set_cpu(0, irqs_off=True)  # as in stop_machine
        run(host, 0, seamldr_task(INFO, 0x1000))
        assert (log.SLEEPING_BUG.text in host.state.dmesg) == bug


def test_LNX_interrupt__a_caller_in_an_interrupt_handler_would_deadlock_without_irqsave() -> None:
    host = lab.host()
    start(host, 0, seamldr_task(INFO, 0x1000))
    until(host, 0, "takes seamldr_lock")
    assert interrupt(host, 0, seamldr_task(INFO, 0x2000))
    with pytest.raises(Stuck) as stuck:
        while host.cpu(0).tasks:
            stepped = step(host, 0)
            if stepped.blocked:
                raise Stuck((stepped,))
    assert "seamldr_lock, held by CPU 0" in str(stuck.value)


def test_LNX_interrupt__v4s_irqsave_keeps_the_handler_out() -> None:
    host = lab.host(series=V4)
    start(host, 0, seamldr_task(INFO, 0x1000))
    until(host, 0, "takes seamldr_lock")
    assert not interrupt(host, 0, seamldr_task(INFO, 0x2000))
    assert finish(host, 0) is Errno.OK
    assert not host.cpu(0).irqs_off and interrupt(host, 0, seamldr_task(INFO, 0x2000))
    assert finish(host, 0) is Errno.OK


@pytest.mark.parametrize("keeps_vmcs", [False, True])
@pytest.mark.parametrize("name", SERIES)
def test_LNX_seamldr_call_vmcs__what_KVM_finds_afterwards(name: str, keeps_vmcs: bool) -> None:
    series = SERIES[name]
    host = lab.host(series=series, keeps_vmcs=keeps_vmcs)
    kvm_load(host, 0)
    ret = seamldr_call(host, 0, INFO, 0x1000)
    if series.vmcs is Vmcs.HIDDEN_WARN and not keeps_vmcs:
        assert ret is Errno.EINVAL and "WARNING: seamldr_call: this CPU has seamret_invd_vmcs" in host.state.dmesg
        assert not kvm_lost_vmcs(host, 0)  # the call was not made
    else:
        assert ret is Errno.OK
        assert kvm_lost_vmcs(host, 0) == (not keeps_vmcs and series.vmcs is not Vmcs.SAVE_RESTORE)


def test_LNX_seamldr_call_vmcs__between_call_and_VMPTRLD_a_handler_finds_no_VMCS() -> None:
    host = lab.host(series=V1, keeps_vmcs=False)
    kvm_load(host, 0)
    start(host, 0, seamldr_task(INFO, 0x1000))
    seen = False
    while host.cpu(0).tasks:
        step(host, 0)
        lp = host.lp(0)
        seen |= not lp.inSEAM and lp.current_vmcs == NONE
    assert not kvm_lost_vmcs(host, 0)
    assert seen


def test_LNX_seamldr_call_vmcs__a_VMPTRLD_that_fails_is_EIO_with_a_warning() -> None:
    host = lab.host(series=V1, keeps_vmcs=False)
    kvm_load(host, 0)
    start(host, 0, seamldr_task(INFO, 0x1000))
    until(host, 0, "SEAMRET")
    host.write(host.cpu(0).vmcs, bytes(4))  # somebody scribbled over the revision identifier
    assert finish(host, 0) is Errno.EIO
    assert "WARNING: seamldr_call: VMPTRLD of the saved VMCS failed" in host.state.dmesg


def test_LNX_seamldr_call__v3_locks_INSTALL_only() -> None:
    host = lab.host(series=V3)
    start(host, 0, seamldr_task(Leaf.SEAMLDR_INSTALL, 0x1000))
    until(host, 0, "takes seamldr_lock")
    start(host, 1, seamldr_task(INFO, 0x1000))
    assert finish(host, 1) is Errno.OK
    assert finish(host, 0) is Errno.OK


def test_LNX_seamldr_call__errno_and_messages() -> None:
    host = lab.host()
    lab.answer(host, INFO, 0x8000000000010003)
    assert seamldr_call(host, 0, INFO, 0x1000) is Errno.EIO
    assert host.state.dmesg[-1] == "seamldr: SEAMCALL (0x8000000000000000) failed: 0x8000000000010003"
    arch_lab.set_ready(host.platform, p_seamldr=False)
    assert seamldr_call(host, 0, INFO, 0x1000) is Errno.ENODEV
    ret, info = seamldr_get_info(host)
    assert ret is Errno.ENODEV and info is None and host.state.seamldr_lock is None


def test_LNX_layouts__Linux_and_P_SEAMLDR_mean_the_same_bytes() -> None:
    from seamref.host.abi import SEAMLDR_INFO
    from seamref.pseamldr import api

    theirs, ours = api.SEAMLDR_PARAMS, SEAMLDR_PARAMS
    assert theirs.size == ours.size
    pairs = (("version", "version"), ("scenario", "scenario"), ("sigstruct_paddr", "sigstruct_pa"),
             ("num_module_pages", "num_module_pages"), ("module_pages_pa_list", "mod_pages_pa_list"))
    for a, b in pairs:
        assert ours.offset_of(a) == theirs.offset_of(b)
    theirs, ours = api.SEAMLDR_INFO, SEAMLDR_INFO
    pairs = (("minor_version", "minor"), ("major_version", "major"), ("acm_x2apicid", "acm_x2apic"),
             ("num_remaining_updates", "num_remaining_updates"), ("seam_info", "seamextend"),
             ("seam_ready", "seamextend.seam_ready"), ("p_seam_ready", "seamextend.p_seamldr_ready"))
    for a, b in pairs:
        assert ours.offset_of(a) == theirs.offset_of(b), a
    for leaf in api.Leaf:
        assert Leaf[f"SEAMLDR_{leaf.name}"] == leaf


def test_tasks__misuse_is_named() -> None:
    from seamref.errors import SeamrefError

    host = lab.host()
    with pytest.raises(SeamrefError, match="nothing to do"):
        step(host, 0)
    start(host, 0, seamldr_task(INFO, 0x1000))
    with pytest.raises(SeamrefError, match="already runs"):
        start(host, 0, seamldr_task(INFO, 0x1000))
    with pytest.raises(SeamrefError, match="already runs"):
        run(host, 0, seamldr_task(INFO, 0x1000))
    host.set_cpu(1, online=False)
    with pytest.raises(SeamrefError, match="offline"):
        start(host, 1, seamldr_task(INFO, 0x1000))
    assert not interrupt(host, 1, seamldr_task(INFO, 0x1000))
    with pytest.raises(SeamrefError, match="two handlers"):
        tasks.handler("seamldr.lock")(lambda h, c, t: "")
    assert V10.name == "v10"
