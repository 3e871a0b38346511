"""The update's state machine, every version of it, on scripted software in SEAM."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
import lab

from seamref.arch import lab as arch_lab
from seamref.errors import SeamrefError
from seamref.host import log
from seamref.host.abi import TDX_UPDATE_COMPAT_SENSITIVE, Errno, Leaf
from seamref.host.kernel import Host
from seamref.host.records import ModuleState, UpdateState
from seamref.host.series import (
    MERGED,
    SERIES,
    V1,
    V5,
    V7,
    V8,
    V10,
    AfterShutdown,
    Compat,
    Failure,
    Lead,
    Refresh,
)
from seamref.host.tasks import is_blocked, step
from seamref.host.update import (
    Finish,
    Schedule,
    begin,
    control,
    finish,
    in_order,
    is_finished,
    round_robin,
    run_update,
    steps,
)

BAD = 0x8000000000020000
PARAMS = 0x1000
NAMES = tuple(SERIES)


def update(host: Host, schedule: Schedule = in_order) -> Errno | Finish:
    return run_update(host, PARAMS, schedule)


def calls(host: Host, schedule: Schedule = in_order) -> list[tuple[int, str]]:
    """Which CPU made which SEAMCALL, in order."""
    begin(host, PARAMS)
    made = [(s.cpu, s.did.split(":")[0]) for s in steps(host, schedule) if ": entered" in s.did]
    finish(host)
    return made


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("schedule", [in_order, round_robin()])
def test_UPDATE_work__who_calls_what(name: str, schedule: Schedule) -> None:
    made = calls(lab.host(3, SERIES[name]), schedule)
    leaves = [leaf for _, leaf in made]
    assert [leaf for cpu, leaf in made if leaf == "TDH.SYS.SHUTDOWN"] == ["TDH.SYS.SHUTDOWN"]
    assert sorted(cpu for cpu, leaf in made if leaf == "SEAMLDR.INSTALL") == [0, 1, 2]
    assert leaves.count("TDH.SYS.INIT") == 1
    assert sorted(cpu for cpu, leaf in made if leaf == "TDH.SYS.LP.INIT") == [0, 1, 2]
    order = ["TDH.SYS.SHUTDOWN", "SEAMLDR.INSTALL", "TDH.SYS.INIT", "TDH.SYS.LP.INIT", "TDH.SYS.UPDATE"]
    firsts = [leaves.index(leaf) for leaf in order]
    assert firsts == sorted(firsts)
    assert [cpu for cpu, leaf in made if leaf in ("TDH.SYS.SHUTDOWN", "TDH.SYS.UPDATE")] == [0, 0]
    assert not set(leaves) & {"TDH.SYS.CONFIG", "TDH.SYS.KEY.CONFIG", "TDH.SYS.TDMR.INIT"}


def test_UPDATE_states__the_shared_state_visits_them_in_order() -> None:
    host = lab.host(2)
    begin(host, PARAMS)
    seen = [control(host).state]
    for _ in steps(host, round_robin()):
        if control(host).state is not seen[-1]:
            seen.append(control(host).state)
    assert seen == [s for s in UpdateState if s is not UpdateState.START]
    assert finish(host) is Errno.OK and host.state.module.initialized


def test_UPDATE_begin__interrupts_off_on_every_online_CPU_hotplug_held() -> None:
    from seamref.host.tdx import cpu_offline, cpu_online

    host = lab.host(3)
    assert cpu_offline(host, 2) is Errno.OK
    begin(host, PARAMS)
    assert control(host).cpus == (0, 1)
    assert all(host.cpu(n).irqs_off for n in (0, 1)) and not host.cpu(2).irqs_off
    assert cpu_online(host, 2) is Errno.EBUSY and cpu_offline(host, 1) is Errno.EBUSY
    with pytest.raises(SeamrefError, match="under way"):
        begin(host, PARAMS)
    with pytest.raises(SeamrefError, match="before every worker"):
        finish(host)
    for _ in steps(host):
        pass
    assert is_finished(host) and finish(host) is Errno.OK
    assert not any(host.cpu(n).irqs_off for n in (0, 1)) and host.state.hotplug_readers == 0
    with pytest.raises(SeamrefError, match="no update"):
        control(host)


@pytest.mark.parametrize("name", NAMES)
def test_UPDATE_begin__lead_CPU(name: str) -> None:
    series = SERIES[name]
    host = lab.host(3, series)
    host.set_cpu(0, online=False)  # impossible on x86; shows who would lead
    begin(host, PARAMS)
    assert control(host).lead == (0 if series.lead is Lead.CPU0 else 1)
    assert (series.lead is Lead.CPU0) == (name in ("v9", "v10", "merged"))


FAILING = {
    UpdateState.SHUTDOWN: (Leaf.TDH_SYS_SHUTDOWN, 0xC000010000000001),
    UpdateState.CPU_INSTALL: (Leaf.SEAMLDR_INSTALL, BAD),
    UpdateState.CPU_INIT: (Leaf.TDH_SYS_LP_INIT, 0xC000092000000000),
    UpdateState.RUN_UPDATE: (Leaf.TDH_SYS_UPDATE, 0xC000050900000000),
}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("state", FAILING)
def test_UPDATE_ack__a_failure_in_each_state(name: str, state: UpdateState) -> None:
    series = SERIES[name]
    host = lab.host(3, series)
    leaf, status = FAILING[state]
    lab.answers(host, leaf, status, 0)  # one CPU fails, the others succeed
    begin(host, PARAMS)
    seen = {control(host).state}
    for _ in steps(host, round_robin()):
        seen.add(control(host).state)
    shared = control(host)
    assert finish(host) is Errno.EIO
    later = {s for s in UpdateState if s > state}
    expected = {UpdateState.DONE} if series.failure is Failure.JUMP_DONE else set()
    assert seen & later == expected
    assert shared.failures == 1
    assert len(shared.rets) == 3 and sorted(r.name for _, r in shared.rets) == ["EIO", "OK", "OK"]
    assert host.state.module.initialized == (state is UpdateState.SHUTDOWN)
    assert any(f"failed: 0x{status:016x}" in line for line in host.state.dmesg)
    warned = any(log.UPDATE_FAILED.text in line for line in host.state.dmesg)
    assert warned == (series.failure_message and state is not UpdateState.SHUTDOWN)


def test_UPDATE_ack__every_CPU_acknowledges_failed_or_not_and_finishes_what_it_began() -> None:
    host = lab.host(3)
    lab.answers(host, Leaf.SEAMLDR_INSTALL, BAD, 0)
    begin(host, PARAMS)
    made = [s for s in steps(host, round_robin())]
    assert sum("SEAMLDR.INSTALL: entered" in s.did for s in made) == 3
    assert control(host).acks == 3 and control(host).state is UpdateState.CPU_INSTALL


def test_UPDATE_observe__a_late_CPU_sees_the_failure_and_does_no_work() -> None:
    host = lab.host(3)
    lab.answers(host, Leaf.TDH_SYS_SHUTDOWN, 0xC000010000000001)
    begin(host, PARAMS)
    while host.cpu(0).tasks:
        step(host, 0)
    while host.cpu(1).tasks:
        step(host, 1)
    assert "returns" in [step(host, 2).did for _ in range(4)][-1] or not host.cpu(2).tasks


def test_UPDATE_observe__waiting_changes_nothing() -> None:
    host = lab.host(2)
    begin(host, PARAMS)
    while not is_blocked(host, 1):
        step(host, 1)
    before = host.fingerprint()
    waits = step(host, 1)
    assert waits.blocked and waits.did == "waits for the others in SHUTDOWN" and host.fingerprint() == before


def test_UPDATE_result__the_last_nonzero_result_recorded() -> None:
    host = lab.host(2, V1)
    lab.answers(host, Leaf.SEAMLDR_INSTALL, 0, BAD)
    assert update(host) is Errno.EIO
    host = lab.host(2)
    lab.answer(host, Leaf.SEAMLDR_INSTALL, 0)
    arch_lab.set_ready(host.platform, p_seamldr=False)
    assert update(host) is Errno.ENODEV


@pytest.mark.parametrize("name", NAMES)
def test_UPDATE_handoff_version__read_or_cached_and_what_a_failure_does(name: str) -> None:
    host = lab.host(2, SERIES[name])
    lab.answer(host, Leaf.TDH_SYS_RD, 0xC000050600000000)
    ret = update(host)
    if name in ("v1", "v2", "v3", "v4", "v5", "v6", "v7"):
        assert ret is Errno.OK  # cached at boot, nothing to read
    elif name in ("v9", "v10"):
        assert ret is Errno.OK and "WARNING: tdx_module_shutdown: reading MODULE_HV failed" in host.state.dmesg
    else:
        assert ret is Errno.EIO
        assert host.state.module.initialized  # nothing was changed
    assert SERIES[name].handoff.value


def test_UPDATE_handoff_version__cached_by_nobody_is_an_error() -> None:
    host = lab.host(2, V7)
    host.set(sysinfo=None)
    assert update(host) is Errno.EIO


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("bit47", [False, True])
def test_UPDATE_compat_flag__who_sets_bit_16(name: str, bit47: bool) -> None:
    host = lab.host(2, SERIES[name])
    assert host.state.sysinfo is not None
    if bit47:
        host.set(sysinfo=replace(host.state.sysinfo, features0=host.state.sysinfo.features0 | 1 << 47))
    begin(host, PARAMS)
    asked = [s.did for s in steps(host) if "TDH.SYS.SHUTDOWN(" in s.did]
    always = SERIES[name].compat is Compat.ALWAYS
    flag = always or (SERIES[name].compat is Compat.IF_SUPPORTED and bit47)
    assert asked[0].endswith(f"TDH.SYS.SHUTDOWN(0x{0x10001 if flag else 1:X})")
    assert always == (name in ("v8", "v9", "v10"))


@pytest.mark.parametrize("name", NAMES)
def test_UPDATE_compat_flag__a_refusal_is_EBUSY_or_EIO(name: str) -> None:
    host = lab.host(2, SERIES[name])
    lab.answer(host, Leaf.TDH_SYS_SHUTDOWN, TDX_UPDATE_COMPAT_SENSITIVE)
    absent = SERIES[name].compat is Compat.ABSENT
    assert update(host) is (Errno.EIO if absent else Errno.EBUSY)
    assert host.state.module.initialized
    assert any("failed" in line for line in host.state.dmesg) == absent


@pytest.mark.parametrize("name", NAMES)
def test_UPDATE_forget__status_and_flags_after_SHUTDOWN(name: str) -> None:
    series = SERIES[name]
    host = lab.host(3, series)
    host.set_cpu(2, online=False)
    lab.answer(host, Leaf.SEAMLDR_INSTALL, BAD)
    assert update(host) is Errno.EIO
    expected = "ERROR" if series.after_shutdown is AfterShutdown.ERROR else "UNINITIALIZED"
    assert host.state.module == ModuleState(status=expected)
    assert [c.lp_initialized for c in host.state.cpus] == [False, False, not series.clears_possible]
    assert series.clears_possible == (name not in ("v1", "v2", "v3", "v4", "v5"))


@pytest.mark.parametrize("name", NAMES)
def test_UPDATE_refresh__what_is_read_again(name: str) -> None:
    series = SERIES[name]
    host = lab.host(2, series)
    lab.answer(host, Leaf.TDH_SYS_RD, 0, r8=9)
    assert update(host) is Errno.OK
    info = host.state.sysinfo
    assert info is not None
    expected = {
        Refresh.NOTHING: (1, 5, 5, 1),
        Refresh.VERSION_AND_HANDOFF: (9, 9, 9, 9),
        Refresh.UPDATE_VERSION: (1, 5, 9, 1),
        Refresh.UPDATE_VERSION_QUIET: (1, 5, 9, 1),
        Refresh.VERSION_INSIDE: (9, 9, 9, 1),
    }[series.refresh]
    assert (info.major, info.minor, info.update, info.module_hv) == expected
    printed = [line for line in host.state.dmesg if "module updated" in line]
    assert bool(printed) == (name in ("v2", "v3", "v4", "v5", "v6", "v7", "v8"))
    warned = any("TDX_FEATURES0 changed" in line for line in host.state.dmesg)
    assert warned == (name in ("v2", "v3", "v4", "v5", "v6", "v7"))


def test_UPDATE_run_update__an_unreadable_version_warns_once_and_counts_as_done() -> None:
    host = lab.host(2)
    host.platform.board[34] = ((0, (("r8", 1),)), (0xC0000C0000000000, ()))
    assert update(host) is Errno.OK
    assert host.state.module.initialized and host.state.sysinfo is not None and host.state.sysinfo.version == "1.5.05"
    assert sum("WARNING: tdx_module_run_update" in line for line in host.state.dmesg) == 1


def test_LNX_sysinit_once__the_result_is_cached_and_ENODEV_is_explained() -> None:
    host = lab.host(3)
    begin(host, PARAMS)
    for s in steps(host):
        if "CPU_INIT" in s.did and control(host).state is UpdateState.CPU_INIT:
            arch_lab.set_ready(host.platform, seam=False)  # as if P-SEAMLDR's session were still open
    assert finish(host) is Errno.ENODEV
    assert host.state.dmesg.count("virt/tdx: module not loaded") == 1
    assert host.state.module == ModuleState(False, True, Errno.ENODEV)


def test_LNX_sysinit_once__two_CPUs_meet_at_the_lock() -> None:
    host = lab.host(2)
    begin(host, PARAMS)
    blocked = set()
    for _ in steps(host, round_robin()):
        if host.state.sysinit_lock is not None:
            other = 1 - host.state.sysinit_lock
            if host.cpu(other).tasks and host.cpu(other).tasks[-1].pc == "enable.lock":
                blocked.add(step(host, other).did)
    assert len(blocked) == 1 and "spins on sysinit_lock, held by CPU" in blocked.pop()


def test_UPDATE_stop_machine__a_processor_that_dies_in_SEAM_hangs_it() -> None:
    host = lab.host(2)
    host.platform.store(arch_lab.Agent.CPU, arch_lab.P_SEAMLDR_RANGE.base + 0x2000, bytes(4096))
    assert update(host) is Finish.HUNG
    assert sum(c.dead for c in host.state.cpus) == 1
    assert V5.name == "v5" and V8.name == "v8" and V10.name == "v10" and MERGED.name == "merged"
