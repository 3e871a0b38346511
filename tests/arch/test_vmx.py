"""VMX instructions: every row, launch state, the VMCS cache, entries and exits."""

from __future__ import annotations

import pytest

from seamref.arch import areas, lab
from seamref.arch.lp import CF, CR4_VMXE, ZF, Mode
from seamref.arch.memory import Agent
from seamref.arch.outcome import (
    Done,
    EntryFailed,
    ExitReason,
    Fault,
    Guest,
    Vector,
    VmExit,
    VmFailInvalid,
    VmFailValid,
    VmxError,
)
from seamref.arch.platform import Platform
from seamref.arch.seam import seamcall
from seamref.arch.vmcs import BY_ENCODING, FIELDS, NONE, VMCS_SIZE, get, put
from seamref.arch.vmx import (
    current,
    vmcall,
    vmclear,
    vmlaunch,
    vmptrld,
    vmptrst,
    vmread,
    vmresume,
    vmwrite,
    vmxoff,
    vmxon,
)
from seamref.errors import NotModelled
from seamref.spec import TABLES

REVISION = 0x13
HOST_VMCS = lab.VMXON_REGION + 0x1000
OTHER = 0x20000


@pytest.fixture
def platform() -> Platform:
    made = lab.platform()
    made.store(Agent.HOST, OTHER, lab.vmm_vmcs(made, made.lp(0)))
    return made


def guest(platform: Platform) -> Platform:
    assert isinstance(vmlaunch(platform, 0), Guest)
    return platform


def test_vmcs__fields_do_not_overlap_and_encodings_are_unique() -> None:
    used: set[int] = set()
    for field in FIELDS:
        span = set(range(field.offset, field.offset + field.size))
        assert not used & span and max(span) < VMCS_SIZE, field.name
        used |= span
    assert len(BY_ENCODING) == sum(field.encoding != 0xFFFFFFFF for field in FIELDS)


COMMON = [
    ("vmx", lambda p: setattr(p.lp(0), "vmx_on", False), Fault(Vector.UD, None, "")),
    ("vmx", lambda p: setattr(p.lp(0), "cs_l", False), Fault(Vector.UD, None, "")),
    ("non_root", guest, VmExit(ExitReason.VMCALL, 0, False, "")),
    ("cpl", lambda p: setattr(p.lp(0), "cpl", 1), Fault(Vector.GP, 0, "")),
]
INSTRUCTIONS = {
    "VMXOFF": lambda p: vmxoff(p, 0),
    "VMPTRLD": lambda p: vmptrld(p, 0, OTHER),
    "VMCLEAR": lambda p: vmclear(p, 0, OTHER),
    "VMPTRST": lambda p: vmptrst(p, 0), "VMREAD": lambda p: vmread(p, 0, 0x681E),
    "VMWRITE": lambda p: vmwrite(p, 0, 0x681E, 1), "VMLAUNCH": lambda p: vmlaunch(p, 0),
    "VMRESUME": lambda p: vmresume(p, 0),
}


@pytest.mark.parametrize("name", INSTRUCTIONS)
@pytest.mark.parametrize(("row", "spoil", "expected"), COMMON)
def test_VMX__rows_that_all_instructions_share(
    platform: Platform, name: str, row: str, spoil: object, expected: Fault | VmExit
) -> None:
    spoil(platform)  # type: ignore[operator]
    outcome = INSTRUCTIONS[name](platform)
    assert type(outcome) is type(expected) and outcome.clause == f"{name}.{row}"
    if isinstance(outcome, Fault) and isinstance(expected, Fault):
        assert (outcome.vector, outcome.code) == (expected.vector, expected.code)


def test_VMXON__rows() -> None:
    platform = lab.platform(vmx=False)
    region = 0x40000

    def outcome(at: int = region) -> str:
        return vmxon(platform.fork(), 0, at).clause

    assert outcome() == "VMXON.cr4"
    platform.lp(0).cr4 |= CR4_VMXE
    assert outcome() == "VMXON.revision"
    platform.store(Agent.HOST, region, REVISION.to_bytes(4, "little"))
    assert outcome(region + 8) == "VMXON.address"
    assert outcome(platform.with_keyid(region, 32)) == "VMXON.address"  # a private KeyID is too wide outside SEAM
    for name, value in (("cpl", 3), ("in_smm", True)):
        setattr(platform.lp(0), name, value)
        assert outcome() == "VMXON.gp"
        setattr(platform.lp(0), name, False)
    platform.set_msr(platform.lp(0), 0x3A, 1)
    assert outcome() == "VMXON.gp"
    lp = platform.lp(0)
    platform.set_msr(lp, 0x3A, 5)
    assert vmxon(platform, 0, region) == Done("VMXON.effect")
    assert (lp.mode, lp.current_vmcs) == (Mode.VMX_ROOT, NONE)
    assert vmxon(platform, 0, region) == VmFailInvalid("VMXON.root") and lp.rflags & CF
    lp.cpl = 3
    assert vmxon(platform, 0, region).clause == "VMXON.root_cpl"
    lp.cpl = 0
    lab.start_vmx(platform, 1)
    vmlaunch(platform, 1)
    assert vmxon(platform, 1, region).clause == "VMXON.non_root"


def test_VMXOFF_seam__general_protection_in_SEAM_root(platform: Platform) -> None:
    seamcall(platform, 0)
    assert vmxoff(platform, 0) == Fault(Vector.GP, 0, "VMXOFF.seam")
    assert vmcall(platform, 0) == Fault(Vector.GP, 0, "VMCALL.seam")


def test_VMXOFF__writes_active_vmcss_back(platform: Platform) -> None:
    vmwrite(platform, 0, 0x681E, 0x1234)
    assert get(bytes(platform.bytes_at(Agent.HOST, HOST_VMCS, VMCS_SIZE)), "guest_rip") != 0x1234
    assert vmxoff(platform, 0) == Done("VMXOFF.effect")
    assert get(platform.bytes_at(Agent.HOST, HOST_VMCS, VMCS_SIZE), "guest_rip") == 0x1234
    assert platform.lp(0).mode is Mode.OUTSIDE_VMX


@pytest.mark.parametrize(
    ("instruction", "pointer", "clause", "error"),
    [
        (vmptrld, OTHER + 8, "VMPTRLD.address", VmxError.VMPTRLD_INVALID_ADDRESS),
        (vmptrld, 1 << 51, "VMPTRLD.address", VmxError.VMPTRLD_INVALID_ADDRESS),
        (vmptrld, lab.VMXON_REGION, "VMPTRLD.vmxon", VmxError.VMPTRLD_VMXON_POINTER),
        (vmptrld, 0x50000, "VMPTRLD.revision", VmxError.VMPTRLD_INCORRECT_REVISION),
        (vmclear, OTHER + 8, "VMCLEAR.address", VmxError.VMCLEAR_INVALID_ADDRESS),
        (vmclear, lab.VMXON_REGION, "VMCLEAR.vmxon", VmxError.VMCLEAR_VMXON_POINTER),
    ],
)
def test_VMPTRLD_VMCLEAR__bad_pointers_are_VMfail(
    platform: Platform, instruction: object, pointer: int, clause: str, error: VmxError
) -> None:
    assert instruction(platform, 0, pointer) == VmFailValid(error, clause)  # type: ignore[operator]
    assert platform.lp(0).rflags & ZF
    assert vmread(platform, 0, 0x4400) == error
    vmclear(platform, 0, HOST_VMCS)
    assert instruction(platform, 0, pointer) == VmFailInvalid(clause)  # type: ignore[operator]


def test_VMPTRLD__in_SEAM_the_full_width_is_allowed(platform: Platform) -> None:
    seamcall(platform, 0)
    at = platform.with_keyid(0x60000, 33)
    platform.store(Agent.MODULE, at, lab.vmm_vmcs(platform, platform.lp(0)))
    assert vmptrld(platform, 0, at) == Done("VMPTRLD.effect")


def test_VMREAD_VMWRITE__without_a_current_vmcs_and_unknown_fields(platform: Platform) -> None:
    assert vmptrst(platform, 0) == HOST_VMCS
    assert vmwrite(platform, 0, 0x4402, 1) == VmFailValid(VmxError.VMWRITE_READ_ONLY_COMPONENT, "VMWRITE.effect")
    assert vmwrite(platform, 0, 0x2802, 2) == Done("VMWRITE.effect")
    assert vmread(platform, 0, 0x2802) == 2 == vmread(platform, 0, 0x2803)
    with pytest.raises(NotModelled, match=r"VMCS field with encoding 0x280A \(clause VMX.vmcs_fields\)"):
        vmread(platform, 0, 0x280A)
    vmclear(platform, 0, HOST_VMCS)
    assert vmread(platform, 0, 0x681E) == VmFailInvalid("VMREAD.current")
    assert vmwrite(platform, 0, 0x681E, 0) == VmFailInvalid("VMWRITE.current")
    assert vmptrst(platform, 0) == NONE
    assert vmlaunch(platform, 0) == VmFailInvalid("VMLAUNCH.current")
    assert vmresume(platform, 0) == VmFailInvalid("VMRESUME.current")


def test_VMCLEAR_flush__another_processor_sees_stale_memory_until_the_flush(platform: Platform) -> None:
    vmptrld(platform, 0, OTHER)
    vmwrite(platform, 0, 0x681E, 0x77)
    vmptrld(platform, 1, OTHER)
    assert vmread(platform, 1, 0x681E) != 0x77
    vmclear(platform, 1, OTHER)
    vmclear(platform, 0, OTHER)
    vmptrld(platform, 1, OTHER)
    assert vmread(platform, 1, 0x681E) == 0x77


@pytest.mark.parametrize("name", ["VMLAUNCH", "VMRESUME"])
@pytest.mark.parametrize(
    ("row", "spoil", "error"),
    [
        ("mov_ss", lambda lp: setattr(lp, "mov_ss_blocking", True), VmxError.ENTRY_EVENTS_BLOCKED_BY_MOV_SS),
        ("controls", lambda lp: put(current(lp).data, "exit_ctls", 0), VmxError.ENTRY_INVALID_CONTROL_FIELDS),
        ("host", lambda lp: put(current(lp).data, "host_cr4", 0), VmxError.ENTRY_INVALID_HOST_STATE),
        ("host", lambda lp: put(current(lp).data, "host_tr_selector", 0), VmxError.ENTRY_INVALID_HOST_STATE),
        ("host", lambda lp: put(current(lp).data, "host_fs_selector", 3), VmxError.ENTRY_INVALID_HOST_STATE),
    ],
)
def test_VM_entry__rows(platform: Platform, name: str, row: str, spoil: object, error: VmxError) -> None:
    lp = platform.lp(0)
    current(lp).launched = name == "VMRESUME"
    spoil(lp)  # type: ignore[operator]
    outcome = (vmresume if name == "VMRESUME" else vmlaunch)(platform, 0)
    assert outcome == VmFailValid(error, f"{name}.{row}")


def test_VM_entry__launch_state_and_bad_guest_state(platform: Platform) -> None:
    assert vmresume(platform, 0) == VmFailValid(VmxError.VMRESUME_NON_LAUNCHED_VMCS, "VMRESUME.launch_state")
    put(current(platform.lp(0)).data, "guest_rflags", 0)
    assert vmlaunch(platform, 0) == EntryFailed(ExitReason.ENTRY_FAILURE_GUEST_STATE, "VMX.entry")
    assert get(current(platform.lp(0)).data, "exit_reason") == 33 | 1 << 31
    put(current(platform.lp(0)).data, "guest_rflags", 2)
    guest(platform)
    vmcall(platform, 0)
    assert vmlaunch(platform, 0) == VmFailValid(VmxError.VMLAUNCH_NON_CLEAR_VMCS, "VMLAUNCH.launch_state")


@pytest.mark.parametrize("name", ["VMLAUNCH", "VMRESUME"])
def test_VM_entry_seam_ept__a_TD_needs_EPT_and_a_clean_shared_EPTP(platform: Platform, name: str) -> None:
    seamcall(platform, 0)
    at = 0x60000
    platform.store(Agent.MODULE, at, lab.vmm_vmcs(platform, platform.lp(0)))
    vmptrld(platform, 0, at)
    enter = vmresume if name == "VMRESUME" else vmlaunch
    data = current(platform.lp(0)).data
    current(platform.lp(0)).launched = name == "VMRESUME"
    assert enter(platform, 0).clause == f"{name}.seam_ept"
    put(data, "proc_based", get(data, "proc_based") | 1 << 31)
    put(data, "secondary_proc_based", 2)
    put(data, "shared_eptp", 1)
    assert enter(platform, 0).clause == f"{name}.seam_ept"
    put(data, "shared_eptp", 0x1000)
    assert isinstance(enter(platform, 0), Guest)
    assert platform.lp(0).mode is Mode.SEAM_NON_ROOT


def test_VMCALL__where_it_goes(platform: Platform) -> None:
    with pytest.raises(NotModelled, match="SMM-transfer monitor"):
        vmcall(platform, 0)
    assert vmcall(guest(platform), 0) == VmExit(ExitReason.VMCALL, 0, False, "VMCALL.non_root")
    platform.lp(0).vmx_on = False
    assert vmcall(platform, 0) == Fault(Vector.UD, None, "VMCALL.vmx")


def test_VMX__canonical_addresses() -> None:
    assert all(areas.is_canonical(a) for a in (0, (1 << 47) - 1, 0xFFFF800000000000, NONE))
    assert not any(areas.is_canonical(a) for a in (1 << 47, 1 << 60, 0xFFFF000000000000))


def test_VMX__every_instruction_has_its_table() -> None:
    assert {"VMXON", *INSTRUCTIONS} <= set(TABLES)
