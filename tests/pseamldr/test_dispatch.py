"""The dispatcher: entry, leaf, exit, registers, and what survives between calls."""

from __future__ import annotations

from typing import Any

import pytest
from pseamldr.scene import BUILD, OUT

from seamref import mint
from seamref.arch import msr, software
from seamref.arch.lp import GPRS
from seamref.arch.outcome import Entered, Left, Shutdown, VmFailInvalid
from seamref.arch.platform import Platform, Topology
from seamref.arch.seam import seamcall
from seamref.arch.vmcs import put
from seamref.arch.vmx import current
from seamref.errors import SeamrefError
from seamref.pseamldr import lab
from seamref.pseamldr.api import ErrorClass, Leaf, Status
from seamref.pseamldr.build import P_SEAMLDR_BUILD, Build, decode_build
from seamref.pseamldr.data import P_SEAMLDR_DATA
from seamref.pseamldr.lab import Returned
from seamref.pseamldr.program import Stage


@pytest.fixture
def platform() -> Platform:
    return lab.platform(topology=Topology(1, 2), build=BUILD)


def test_P_SEAMLDR_DATA_has_the_offsets_of_the_published_source() -> None:
    printed = {
        "canary": 40, "gprs": 48, "spec_ctrl": 176, "system_info": 184, "seam_sigstruct_snapshot": 2048,
        "seamextend_snapshot": 4096, "seamextend_buffer": 4352, "update_bitmap": 4488, "lps_in_update": 4616,
        "shutdown_bitmap": 4620, "lps_in_shutdown": 4748, "module_range_initialized": 4760,
        "num_remaining_updates": 4764,
        "keyhole_state": 4768, "data_pointer": 14504, "sysinfo_pointer": 14512, "rsa_scratch": 14520,
    }
    assert {name: P_SEAMLDR_DATA.offset_of(name) for name in printed} == printed
    assert P_SEAMLDR_DATA.size == 24576


def test_P_SEAMLDR_BUILD_is_read_from_behind_the_entry_stub() -> None:
    build = Build("1.0", 7, 1 << 31, 0x8087, 20200101, 3, 2, 1, bytes(48))
    assert decode_build(build.encode()) == build and len(build.encode()) == P_SEAMLDR_BUILD.size
    with pytest.raises(SeamrefError, match=r"P_SEAMLDR_BUILD.revision.*'2\.0'"):
        Build("2.0")
    image = mint.pseamldr_image(build)
    assert build.encode() in image


def test_Status_classes() -> None:
    assert Status.SUCCESS.error_class is None
    assert Status.EUNSUPCPU.error_class is ErrorClass.EPLAT
    assert Status.EBADHASH.error_class is ErrorClass.MODULE and "image" in ErrorClass.MODULE.meaning
    assert all(status >> 63 == (status is not Status.SUCCESS) for status in Status)


def test_DISPATCH_entry__steps_are_separable_and_the_mutex_keeps_others_out(platform: Platform) -> None:
    lp = platform.lp(0)
    lp.rax, lp.rcx = int(Leaf.INFO), OUT
    assert isinstance(seamcall(platform, 0), Entered)
    stages = []
    while True:
        other = platform.lp(1)
        other.rax = int(Leaf.INFO)
        refused = seamcall(platform, 1)
        assert isinstance(refused, VmFailInvalid) and refused.clause == "SEAMCALL.p_seamldr_busy"
        outcome = software.step(platform, 0)
        if isinstance(outcome, Left):
            break
        stages.append(platform.lp(0).program_state)
    assert stages == [Stage.LEAF, Stage.EXIT, Stage.LEAVE]
    assert lab.ask(platform, 1, Leaf.INFO, OUT) == Returned(Status.SUCCESS, 0)


@pytest.mark.parametrize("leaf", [*Leaf, 1 << 63 | 4, 1 << 63 | 0xFE, (1 << 64) - 1, 1 << 63 | 1 << 32])
def test_DISPATCH_exit__only_RAX_and_INSTALL_s_RDX_change(platform: Platform, leaf: int) -> None:
    lp = platform.lp(0)
    before = {name: 0x0101010101010101 * (i + 1) for i, name in enumerate(GPRS)}
    before["rcx"] = OUT
    msr.wrmsr(platform, 0, 0x48, 1)
    outcome = software.call(platform, 0, **{**before, "rax": int(leaf)})
    assert isinstance(outcome, Left)
    lp = platform.lp(0)
    changed = {name for name in GPRS if getattr(lp, name) != before[name]}
    assert changed - {"rax"} == ({"rdx"} if leaf == Leaf.INSTALL else set())
    assert platform.msr_value(lp, 0x48) == 1, "IA32_SPEC_CTRL comes back"
    assert Status(lp.rax) is (Status.SUCCESS if leaf in list(Leaf) else Status.EBADPARAM)


def test_DISPATCH_canary__RDRAND_without_entropy_stops_every_leaf_and_is_tried_again(platform: Platform) -> None:
    for answer in ((0, 7), (1, 0)):
        platform.inject("rdrand", answer)
        assert lab.ask(platform, 0, Leaf.INSTALL, OUT, 0x77) == Returned(Status.EUNSPECERR, 0x77)
    assert lab.data_field(platform, "canary") == 0
    platform.inject("rdrand", (1, 0xABCD))
    assert lab.ask(platform, 0, Leaf.INFO, OUT) == Returned(Status.SUCCESS, 0)
    assert lab.data_field(platform, "canary") == 0xABCD
    assert "rdrand" not in platform.injected
    lab.ask(platform, 0, Leaf.INFO, OUT)
    assert lab.data_field(platform, "data_pointer") == lab.LINEAR["data"]
    assert lab.data_field(platform, "sysinfo_pointer") == lab.LINEAR["sysinfo"]


def test_DISPATCH_entry__HOST_FS_BASE_points_at_the_data_from_the_second_call_on(platform: Platform) -> None:
    seen = []
    for _ in range(2):
        lp = platform.lp(0)
        lp.rax, lp.rcx = int(Leaf.INFO), OUT
        seamcall(platform, 0)
        seen.append(lp.fs_base)
        software.run(platform, 0)
    assert seen == [lab.LINEAR["sysinfo"], lab.LINEAR["data"]]


def _guest(platform: Platform, **fields: int) -> Any:
    """One INFO with the guest state of the transfer VMCS replaced after entry."""
    lp = platform.lp(0)
    lp.rax, lp.rcx = int(Leaf.INFO), OUT
    seamcall(platform, 0)
    for name, value in fields.items():
        put(current(lp).data, name, value)
    return software.run(platform, 0)


def test_DISPATCH_exit__RIP_moves_by_the_instruction_length(platform: Platform) -> None:
    rip = platform.lp(0).rip
    _guest(platform)
    assert platform.lp(0).rip == rip + 4


@pytest.mark.parametrize(("rflags", "debugctl", "before", "after"), [
    (0x102, 0, 0, 1 << 14), (0x102, 2, 1 << 14, 0), (2, 0, 1 << 14 | 1, 1), (0x102, 0, 8, 1 << 14 | 8)])
def test_DISPATCH_exit__pending_single_step(
    platform: Platform, rflags: int, debugctl: int, before: int, after: int
) -> None:
    lp = platform.lp(0)
    lp.rax, lp.rcx = int(Leaf.INFO), OUT
    seamcall(platform, 0)
    data = current(lp).data
    for name, value in (("guest_rflags", rflags), ("guest_debugctl", debugctl), ("guest_pending_debug", before)):
        put(data, name, value)
    while lp.program_state is not Stage.LEAVE:
        software.step(platform, 0)
    from seamref.arch.vmcs import get

    assert get(data, "guest_pending_debug") == after


def test_DISPATCH_exit__STI_and_MOV_SS_blocking_end_the_rest_stays(platform: Platform) -> None:
    _guest(platform, guest_interruptibility=0b1011)
    lp = platform.lp(0)
    assert not lp.sti_blocking and not lp.mov_ss_blocking and lp.nmi_inhibit


def test_DISPATCH_exit_reason__anything_but_SEAMCALL_is_fatal(platform: Platform) -> None:
    outcome = _guest(platform, exit_reason=77)
    assert isinstance(outcome, Shutdown) and "UD2" in outcome.cause
    assert not platform.P_SEAMLDR_READY


def test_revision_1_0__no_exit_reason_check_and_no_care_for_blocking() -> None:
    platform = lab.platform(build=Build("1.0", signer_key_hash=mint.KEY.key_hash))
    assert isinstance(_guest(platform, exit_reason=77, guest_interruptibility=1, guest_rflags=0x202), Left)
    assert platform.lp(0).sti_blocking


def test_revision_1_0__DEBUGCTL_bit_13_is_the_guest_s(platform: Platform) -> None:
    for revision, expected in (("1.0", 1 << 13), ("1.5", 0)):
        one = lab.platform(build=Build(revision))
        lp = one.lp(0)
        lp.debugctl = 1 << 13
        lp.rax = int(Leaf.INFO)
        seamcall(one, 0)
        software.step(one, 0)
        assert one.lp(0).debugctl == expected


def test_SYSVALUES__computed_once_and_kept_in_memory(platform: Platform) -> None:
    lab.ask(platform, 0, Leaf.INFO, OUT)
    values = lab.data_field(platform, "system_info")
    assert (values.initialized, values.max_pa, values.seamrr_base, values.seamrr_size) == (
        1, 46, lab.SEAMRR.base, lab.SEAMRR.size)
    assert values.hkid_mask == 0x3F << 40 and values.private_hkid_min == 8


def test_SYSVALUES_cpuid__limited_CPUID_is_lifted_and_put_back(platform: Platform) -> None:
    msr.wrmsr(platform, 0, 0x1A0, 1 << 22)
    assert lab.ask(platform, 0, Leaf.INFO, OUT) == Returned(Status.SUCCESS, 0)
    assert platform.msr_value(platform.lp(0), 0x1A0) == 1 << 22


def test_revision_1_0__KeyID_limit_from_TME() -> None:
    platform = lab.platform(build=Build("1.0"), tdx_keyid_bits=2)
    lab.ask(platform, 0, Leaf.INFO, OUT)
    assert lab.data_field(platform, "system_info").private_hkid_min == 16


def test_state_lives_in_memory_so_that_a_fork_takes_its_own_way(platform: Platform) -> None:
    lab.ask(platform, 0, Leaf.INSTALL, OUT)
    other = platform.fork()
    assert lab.ask(other, 0, Leaf.INSTALL, OUT) == Returned(Status.EBADCALL, 0)
    assert other.fingerprint() != platform.fingerprint()
    assert lab.data_field(platform, "lps_in_update") == 1
