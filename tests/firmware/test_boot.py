"""The whole chain: every step, every way to break it, reload of P-SEAMLDR, late and malicious launches."""

from __future__ import annotations

import pytest

from seamref import boot as exported_boot
from seamref.arch import msr
from seamref.arch.lp import Activity
from seamref.arch.memory import Agent
from seamref.arch.outcome import Fault, Left, TxtShutdown, VmFailInvalid
from seamref.arch.platform import Platform, PlatformConfig, Topology
from seamref.arch.smx import EnteredAc, enteraccs
from seamref.arch.structures import P_SYS_INFO_TABLE
from seamref.arch.trace import Step
from seamref.bootchain import (
    BREAKS,
    SHUTDOWN,
    STEP_NAMES,
    STEPS,
    BootStopped,
    Called,
    boot,
    default_acm,
    did_stop,
    failed,
    install,
    make_boot,
    read_info,
    relaunch,
    run_boot,
    seamldr_call,
    seamldr_info,
    shut_down_loader,
    update_loader,
)
from seamref.errors import SeamrefError
from seamref.firmware.launcher import ACM_ADDRESS
from seamref.firmware.np_seamldr import NpStatus, Returned

EBADCALL = 0x8000000000000003

STOPS = {
    "p-above-k": ("tme", "WRMSR.tme_value"),
    "no-private-keyids": (None, None),
    "base-misaligned": ("seamrr", "WRMSR.reserved"),
    "base-not-natural": ("mcheck", "MCHECK.base"),
    "mask-hole": ("mcheck", "MCHECK.mask"),
    "unlocked": ("mcheck", "MCHECK.lock"),
    "not-configured": ("mcheck", "MCHECK.configured"),
    "package-differs": ("mcheck", "MCHECK.same_base"),
    "core-differs": ("mcheck", "MCHECK.same_base"),
    "no-mcheck": ("np-seamldr", "NP_SEAMLDR.valid"),
    "two-gib": ("np-seamldr", "NP_SEAMLDR.size"),
    "range-too-small": ("np-seamldr", "NP_SEAMLDR.range_size"),
    "no-bios-done": ("np-seamldr", "SMX.fatal"),
    "no-txt": ("enteraccs", "GETSEC.leaf"),
    "no-smxe": ("enteraccs", "GETSEC.smxe"),
    "vmx-on": ("enteraccs", "ENTERACCS.vmx"),
    "others-running": ("enteraccs", "ENTERACCS.sibling_idle"),
    "other-signer": ("enteraccs", "ENTERACCS.authenticate"),
    "bit-flipped": ("enteraccs", "ENTERACCS.authenticate"),
    "other-processor": ("place", "ACM_MATCH"),
    "bad-entry": ("enteraccs", "ENTERACCS.entry"),
    "header-version": ("enteraccs", "ENTERACCS.version"),
    "txt-closed": ("np-seamldr", "SMX.fatal"),
    "no-cookie": ("np-seamldr", "SMX.fatal"),
    "resume-rip": ("np-seamldr", "SMX.fatal"),
    "no-sockets": ("np-seamldr", "NP_SEAMLDR.sockets"),
    "mixed-sockets": ("np-seamldr", "NP_SEAMLDR.same_model"),
    "table-version": ("np-seamldr", "NP_SEAMLDR.version"),
    "mutex-taken": ("np-seamldr", "NP_SEAMLDR.mutex"),
    "another-lp": ("np-seamldr", "NP_SEAMLDR.same_lp"),
    "no-aslr": ("np-seamldr", "NP_SEAMLDR.aslr"),
    "image-too-large": ("np-seamldr", "NP_SEAMLDR.image_size"),
    "relocation": ("np-seamldr", "NP_SEAMLDR.relocation"),
    "no-vmxon": ("info", "SEAMCALL.vmx"),
}


def test_BREAKS__every_one_is_expected_to_stop_somewhere() -> None:
    assert set(STOPS) == set(BREAKS)
    assert all(one.before in STEP_NAMES for one in BREAKS.values())


@pytest.mark.parametrize("name", STOPS)
def test_BREAKS__the_chain_stops_where_the_architecture_says(name: str) -> None:
    result = run_boot(make_boot(Topology(2, 2)), breaks=[name])
    step, clause = STOPS[name]
    if step is None:
        assert result.stopped_at is None
        return
    assert result.stopped_at is not None
    assert (result.stopped_at.step.name, result.stopped_at.answer.clause) == (step, clause)
    assert result.is_callable is (step == "info")
    if isinstance(result.stopped_at.answer, TxtShutdown):
        assert result.platform.txt["ERRORCODE"] >> 31 == 1 and result.platform.seamrr() is None


@pytest.mark.parametrize(("sockets", "lps"), [(1, 1), (1, 2), (2, 3), (8, 2), (8, 56)])
def test_BOOT_chain__end_to_end_boot_INFO_INSTALL_SHUTDOWN_relaunch_INFO_INSTALL(sockets: int, lps: int) -> None:
    platform = exported_boot(sockets=sockets, lps=lps)
    assert len(platform.lps) == sockets * lps
    info = read_info(platform)
    assert (info.acm_x2apic, info.seamextend.p_seamldr_ready, info.seamextend.seam_ready) == (0, 1, 0)
    install(platform)
    assert platform.SEAM_READY and read_info(platform).seamextend.valid == 0x1FF
    remaining = read_info(platform).num_remaining_updates
    records = update_loader(platform, default_acm(5))
    assert [r for r in records if did_stop(r.answer)] == []
    assert records[-1].answer == Returned(NpStatus.SUCCESS, "NP_SEAMLDR.run")
    assert platform.P_SEAMLDR_READY and not platform.SEAM_READY
    info = read_info(platform)
    assert info.seamextend.valid == 0 and info.num_remaining_updates == remaining
    install(platform)
    assert platform.SEAM_READY


def test_boot__is_the_same_every_time_and_of_another_seed_another() -> None:
    one, other = boot(sockets=2, lps=2), boot(sockets=2, lps=2)
    assert one.fingerprint() == other.fingerprint()
    assert boot(config=PlatformConfig(topology=Topology(2, 2), seed=1)).fingerprint() != one.fingerprint()


def test_boot__stopped_says_where_who_and_why() -> None:
    said = r"boot stopped at mcheck \(MCHECK\): not approved.*\(MCHECK.lock\)"
    with pytest.raises(BootStopped, match=said) as caught:
        boot(Topology(1, 2), lock=False)
    assert caught.value.result.records[-1].step.name == "mcheck"


def test_boot__without_vmx_a_SEAMCALL_is_UD() -> None:
    platform = boot(Topology(1, 2), vmx=False)
    assert all(not lp.vmx_on and lp.activity is Activity.ACTIVE for lp in platform.every_lp())
    called = seamldr_info(platform, 0)
    assert isinstance(called.run, Fault) and called.clause == "SEAMCALL.vmx" and failed(called)


def test_boot__a_module_given_as_bytes_and_none_at_all() -> None:
    from seamref import mint

    image = mint.module_image()
    assert boot(Topology(1, 2), module=image).SEAM_READY
    assert not boot(Topology(1, 2), module=False).SEAM_READY


def test_run_boot__steps_one_by_one_are_the_same_as_all_at_once() -> None:
    b = make_boot(Topology(2, 2))
    for step in STEPS:
        result = run_boot(b, start=step.name, until=step.name)
        assert [r.step.name for r in result.records] == [step.name] and result.stopped_at is None
    assert b.platform.fingerprint() == run_boot(make_boot(Topology(2, 2))).platform.fingerprint()


def test_run_boot__a_trace_holds_what_each_step_did() -> None:
    result = run_boot(make_boot(Topology(1, 2)), trace=True)
    events = {r.step.name: r.events for r in result.records}
    names = [e.name for e in events["np-seamldr"] if isinstance(e, Step)]
    assert names[0] == "save the IDT" and names[-1] == "EXITAC"
    assert events["seamrr"] and events["mcheck"] and not result.platform.listeners


@pytest.mark.parametrize("arguments", [{"until": "lunch"}, {"start": "lunch"}, {"breaks": ["lunch"]}])
def test_run_boot__unknown_names_are_errors_that_list_the_known_ones(arguments: dict[str, str]) -> None:
    with pytest.raises(SeamrefError, match="lunch"):
        run_boot(make_boot(), **arguments)  # type: ignore[arg-type]


def test_boot__the_processor_is_repaired_after_the_launch() -> None:
    b = make_boot(Topology(1, 2), vmx=False)
    run_boot(b, until="place")
    lp = b.lp
    lp.rsp, lp.rbx, lp.fs_base, lp.cr3 = 0xFFFF_8880_0000_8000, 0x1234, 0x77, 0x5000
    before = {name: getattr(lp, name) for name in ("rsp", "rbx", "cr0", "cr3", "cr4", "efer", "pat", "cs_l", "rip")}
    run_boot(b, start="enteraccs", until="resume")
    assert {name: getattr(b.lp, name) for name in before} == before


# --- BOOT: what P-SEAMLDR starts from


def test_boot__P_SEAMLDR_runs_from_what_NP_SEAMLDR_left() -> None:
    """Break one byte of NP-SEAMLDR's work and the first call feels it."""
    for at, size in ((0x2000, 8), (0x1000 + 0x308, 8)):
        platform = boot(Topology(1, 2))
        held = platform.p_seamldr_range
        assert held is not None
        linear_root = held.base + at
        platform.store(Agent.CPU, held.base + 0x2000 + 256 * 8, bytes(2048)) if at == 0x2000 else platform.store(
            Agent.CPU, linear_root, bytes(size))
        called = seamldr_info(platform, 0)
        assert failed(called) and not platform.P_SEAMLDR_READY
        other = seamldr_info(platform, 1)
        assert isinstance(other.run, VmFailInvalid)


def test_SEAMINFO__returns_MCHECKs_half() -> None:
    platform = boot(sockets=2, lps=2)
    called = seamldr_call(platform, 1, 0x8000000000000003, 0x3000800)
    assert not did_stop(called)
    record = P_SYS_INFO_TABLE.decode(platform.bytes_at(Agent.HOST, 0x3000800, 2048).ljust(4096, b"\0"))
    assert (record.tot_num_lps, record.tot_num_sockets) == (4, 2)


# --- reloading P-SEAMLDR


def test_update__the_wrong_last_processor_is_told_so_and_the_right_one_finishes() -> None:
    platform = boot(sockets=2, lps=2, module=True)
    records = shut_down_loader(platform, order=[0, 1, 2, 3])
    answers = [r.answer for r in records]
    assert [a.rax for a in answers if isinstance(a, Called)] == [0, 0, 0, EBADCALL]
    assert platform.P_SEAMLDR_READY and not platform.SEAM_READY
    assert seamldr_call(platform, 0, SHUTDOWN).rax == 0
    assert not platform.P_SEAMLDR_READY
    assert failed(seamldr_call(platform, 0, SHUTDOWN))


def test_update__relaunch_on_another_processor_is_EMODBUSY_and_on_the_right_one_still_works() -> None:
    platform = boot(sockets=2, lps=2, module=True)
    shut_down_loader(platform)
    records = relaunch(platform, default_acm(5), lp_id=2)
    assert records[-1].answer == Returned(NpStatus.EMODBUSY, "NP_SEAMLDR.same_lp")
    assert relaunch(platform, default_acm(5))[-1].answer == Returned(NpStatus.SUCCESS, "NP_SEAMLDR.run")


def test_update__without_shutdown_P_SEAMLDR_is_still_ready() -> None:
    platform = boot(sockets=1, lps=2, module=True)
    assert relaunch(platform, default_acm(5))[-1].answer == Returned(NpStatus.EMODBUSY, "NP_SEAMLDR.p_seamldr_ready")
    assert platform.P_SEAMLDR_READY and platform.SEAM_READY
    assert read_info(platform).seamextend.valid == 0x1FF


def test_update__half_a_shutdown_has_already_stopped_the_module() -> None:
    platform = boot(sockets=1, lps=2, module=True)
    shut_down_loader(platform, order=[1])
    assert not platform.SEAM_READY and platform.P_SEAMLDR_READY
    assert relaunch(platform, default_acm(5))[-1].answer == Returned(NpStatus.EMODBUSY, "NP_SEAMLDR.p_seamldr_ready")
    with pytest.raises(SeamrefError, match=r"0x8000000000000003"):
        install(platform)


def test_update__a_stale_module_is_a_reset_once_the_SVN_is_locked_and_fine_before() -> None:
    platform = boot(sockets=1, lps=2)
    assert not platform.svn_locked
    shut_down_loader(platform)
    assert relaunch(platform, default_acm(3))[-1].answer == Returned(NpStatus.SUCCESS, "NP_SEAMLDR.run")
    assert platform.bios_se_svn >> 56 == 3
    read_info(platform)  # SEAMOPS: the lock
    assert platform.svn_locked
    shut_down_loader(platform)
    outcome = relaunch(platform, default_acm(2))[-1].answer
    assert isinstance(outcome, TxtShutdown) and outcome.clause == "ENTERACCS.svn"
    assert platform.seamrr() is None


def test_update__a_newer_module_after_the_lock_launches_but_the_reported_SVN_stays() -> None:
    platform = boot(sockets=1, lps=2, module=True)
    assert update_loader(platform, default_acm(9))[-1].answer == Returned(NpStatus.SUCCESS, "NP_SEAMLDR.run")
    assert msr.rdmsr(platform, 0, 0x500) == 4 << 56 | 1


def test_update__SEAMDB_survives_but_the_count_is_0_until_somebody_asks() -> None:
    platform = boot(sockets=1, lps=2, module=True)
    entries = platform.seamdb
    assert len(entries) == 1
    update_loader(platform, default_acm(5))
    assert platform.seamdb == entries
    assert read_info(platform).num_remaining_updates == platform.config.seamdb_size - 1


def test_update__a_failed_relaunch_leaves_nothing_callable_and_can_be_repeated() -> None:
    platform = boot(sockets=1, lps=2, module=True)
    shut_down_loader(platform)
    platform.inject("rdseed", (1, 1), (1, 1), (0, 0))
    assert relaunch(platform, default_acm(5))[-1].answer == Returned(NpStatus.EUNSPECERR, "NP_SEAMLDR.aslr")
    assert failed(seamldr_info(platform, 0))
    assert relaunch(platform, default_acm(5))[-1].answer == Returned(NpStatus.SUCCESS, "NP_SEAMLDR.run")


# --- an operating system that tries it at run time


def test_NP_SEAMLDR_not_callable__no_SEAMCALL_reaches_it() -> None:
    platform = boot(sockets=1, lps=2, module=True)
    held = platform.p_seamldr_range
    for i in range(2, 63):
        called = seamldr_call(platform, 0, 1 << 63 | 1 << i, 0x3000000)
        assert isinstance(called.run, Left) and called.rax == 0x8000000000000000
        assert not platform.lp(0).ACMODEFLAG and platform.p_seamldr_range == held
    assert platform.P_SEAMLDR_READY and platform.SEAM_READY


def late(platform: Platform) -> object:
    return enteraccs(platform, 0, ACM_ADDRESS, len(default_acm()))


def test_late_ENTERACCS__each_hurdle_in_turn() -> None:
    platform = boot(sockets=1, lps=2, module=True)
    fault = late(platform)
    assert isinstance(fault, Fault) and fault.clause == "GETSEC.smxe"
    platform.lp(0).cr4 |= 1 << 14
    fault = late(platform)
    assert isinstance(fault, Fault) and fault.clause == "ENTERACCS.vmx"
    from seamref.arch.vmx import vmxoff

    vmxoff(platform, 0)
    fault = late(platform)
    assert isinstance(fault, Fault) and fault.clause == "ENTERACCS.sibling_idle"
    vmxoff(platform, 1)
    platform.lp(1).activity = Activity.WAIT_FOR_SIPI
    assert isinstance(late(platform), EnteredAc)


def test_late_ENTERACCS__SEAM_memory_of_a_running_module_is_untouched() -> None:
    platform = boot(sockets=1, lps=2, module=True)
    module = platform.load(Agent.CPU, 0x7C000000, 0x3C00000)
    relaunch(platform, default_acm(5))
    assert platform.load(Agent.CPU, 0x7C000000, 0x3C00000) == module


def test_relaunch__a_fault_at_ENTERACCS_leaves_the_system_running() -> None:
    platform = boot(sockets=1, lps=2, module=True)
    platform.txt["IERR"] = 1
    records = relaunch(platform, default_acm(5))
    assert [type(r.answer) for r in records] == [Fault]
    del platform.txt["IERR"]
    assert read_info(platform).seamextend.seam_ready == 1


def test_P_SEAMLDR_CVP__VALID_forged_by_BIOS_without_MCHECK_is_said_to_be_not_modelled() -> None:
    from seamref.errors import NotModelled

    b = make_boot(Topology(1, 2), valid=True)
    b.skip_mcheck = True
    run_boot(b, until="bios-done")
    b.platform.SEAMEXTEND = bytes(130) + b"\x01" + bytes(5)
    run_boot(b, start="vmxon", until="vmxon")
    with pytest.raises(NotModelled, match="P_SEAMLDR_CVP"):
        seamldr_info(b.platform, 0)
