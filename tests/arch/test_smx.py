"""GETSEC: every row both ways, the order of every pair, what is left behind."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import combinations
from typing import Any

import pytest

from seamref import mint
from seamref.arch import smx
from seamref.arch.acm import ACM_HEADER
from seamref.arch.events import EventKind, Pending, raise_event
from seamref.arch.lp import CR0_CD, CR0_NE, CR0_NW, CR0_PE, CR4_SMXE, Activity, Lp
from seamref.arch.memory import Agent
from seamref.arch.outcome import Fault, TxtShutdown, Vector, VmExit
from seamref.arch.platform import Platform, Topology
from seamref.arch.revision import SILICON
from seamref.arch.trace import InstructionEnded
from seamref.bootchain import default_acm, make_boot, run_boot
from seamref.errors import NotModelled, SeamrefError
from seamref.firmware.launcher import ACM_ADDRESS

IMAGE = mint.pseamldr_image()


def placed(acm: bytes | None = None, **knobs: Any) -> Platform:
    """Two packages of two processors, booted up to the launch, a module in memory."""
    b = make_boot(Topology(2, 2), acm=acm, **knobs)
    made = run_boot(b, until="bios-done").platform
    made.store(Agent.HOST, ACM_ADDRESS, b.acm)
    made.lp(0).cr4 |= CR4_SMXE
    return made


def enter(platform: Platform, acm: bytes | None = None) -> smx.EnteraccsOutcome:
    return smx.enteraccs(platform, 0, ACM_ADDRESS, len(acm or default_acm()))


# --- every leaf


def test_GETSEC_smxe__no_SMXE_is_UD_for_every_leaf() -> None:
    platform = placed()
    platform.lp(0).cr4 &= ~CR4_SMXE
    for outcome in (enter(platform), smx.exitac(platform, 0), smx.getsec_capabilities(platform, 0),
                    smx.getsec_parameters(platform, 0, 0)):
        assert outcome == Fault(Vector.UD, None, "GETSEC.smxe")


def test_GETSEC_non_root__a_guest_exits_with_reason_11() -> None:
    from seamref.arch import lab

    platform = lab.platform()
    from seamref.arch.vmx import vmlaunch

    platform.lp(0).cr4 |= CR4_SMXE
    vmlaunch(platform, 0)
    platform.lp(0).cr4 |= CR4_SMXE
    outcome = smx.enteraccs(platform, 0)
    assert isinstance(outcome, VmExit) and (int(outcome.reason), outcome.clause) == (11, "GETSEC.non_root")


def test_GETSEC_leaf__without_a_TXT_chipset_ENTERACCS_is_UD_and_CAPABILITIES_says_so() -> None:
    platform = placed()
    platform.txt["CHIPSET"] = 0
    assert enter(platform) == Fault(Vector.UD, None, "GETSEC.leaf")
    capabilities = smx.getsec_capabilities(platform, 0)
    assert isinstance(capabilities, smx.Registers) and not capabilities.eax & 1 and not capabilities.eax & 1 << 2


def test_GETSEC_capabilities__chipset_ENTERACCS_EXITAC_PARAMETERS() -> None:
    platform = placed()
    assert smx.getsec_capabilities(platform, 0) == smx.Registers(0b1001101, 0, 0, "GETSEC.capabilities")
    assert platform.lp(0).rax == 0b1001101


def test_GETSEC_parameters__list_ends_with_the_null_type() -> None:
    platform = placed()
    seen = {}
    for index in range(10):
        registers = smx.getsec_parameters(platform, 0, index)
        assert isinstance(registers, smx.Registers)
        seen.setdefault(registers.eax & 0x1F, registers)
        if not registers.eax & 0x1F:
            break
    assert list(seen) == [1, 2, 3, 5, 0]
    assert (seen[2].eax >> 5) * 32 == smx.ACRAM_CAPACITY
    assert seen[1].ecx == smx.SUPPORTED_VERSION


# --- ENTERACCS: faults


def _lp(**values: Any) -> Callable[[Platform], None]:
    def act(platform: Platform) -> None:
        for name, value in values.items():
            setattr(platform.lp(0), name, value)

    return act


def _cr0(clear: int = 0, set_: int = 0) -> Callable[[Platform], None]:
    def act(platform: Platform) -> None:
        lp = platform.lp(0)
        lp.cr0 = lp.cr0 & ~clear | set_

    return act


def _sibling(**values: Any) -> Callable[[Platform], None]:
    def act(platform: Platform) -> None:
        for name, value in values.items():
            setattr(platform.lp(1), name, value)

    return act


FAULTS: dict[str, Callable[[Platform], None]] = {
    "ENTERACCS.vmx": _lp(vmx_on=True),
    "ENTERACCS.cr0_pe": _cr0(clear=CR0_PE),
    "ENTERACCS.cr0_cd": _cr0(set_=CR0_CD),
    "ENTERACCS.cr0_nw": _cr0(set_=CR0_NW),
    "ENTERACCS.cr0_ne": _cr0(clear=CR0_NE),
    "ENTERACCS.cpl": _lp(cpl=3),
    "ENTERACCS.vm86": _lp(rflags=1 << 17 | 2),
    "ENTERACCS.bsp": _lp(is_bsp=False),
    "ENTERACCS.acmode": _lp(ACMODEFLAG=True),
    "ENTERACCS.smm": _lp(in_smm=True),
    "ENTERACCS.mci_status": lambda p: p.set_msr(p.lp(0), 0x401, 1 << 63 | 1 << 61),
    "ENTERACCS.mcip": lambda p: p.set_msr(p.lp(0), 0x17A, 4),
    "ENTERACCS.base_aligned": _lp(rbx=ACM_ADDRESS + 64),
    "ENTERACCS.size_aligned": _lp(rcx=len(default_acm()) + 4),
    "ENTERACCS.size_least": _lp(rcx=smx.SMALLEST - 64),
    "ENTERACCS.size_most": _lp(rcx=smx.ACRAM_CAPACITY + 64),
    "ENTERACCS.below_4g": _lp(rbx=0xFFFFF000),
    "ENTERACCS.sibling_cd": lambda p: setattr(p.lp(1), "cr0", p.lp(1).cr0 | CR0_CD),
    "ENTERACCS.sibling_idle": _sibling(activity=Activity.ACTIVE),
}
SAME_REGISTER = {frozenset(pair) for pair in (
    ("ENTERACCS.base_aligned", "ENTERACCS.below_4g"), ("ENTERACCS.size_aligned", "ENTERACCS.size_least"),
    ("ENTERACCS.size_aligned", "ENTERACCS.size_most"), ("ENTERACCS.size_least", "ENTERACCS.size_most"),
)}


def ask(platform: Platform) -> smx.EnteraccsOutcome:
    lp = platform.lp(0)
    lp.rbx = lp.rbx or ACM_ADDRESS
    lp.rcx = lp.rcx or len(default_acm())
    return smx.enteraccs(platform, 0)


def test_ENTERACCS_faults__every_row_has_a_case() -> None:
    assert set(FAULTS) == {row.id for row in smx.ENTERACCS_FAULTS} - {"ENTERACCS.seamrr"}


@pytest.mark.parametrize("clause", FAULTS)
def test_ENTERACCS_faults__each_row_alone_is_GP0_and_changes_nothing(clause: str) -> None:
    platform = placed()
    lp = platform.lp(0)
    lp.rbx, lp.rcx, lp.rax = ACM_ADDRESS, len(default_acm()), 2
    FAULTS[clause](platform)
    before = platform.fingerprint()
    assert smx.enteraccs(platform, 0) == Fault(Vector.GP, 0, clause)
    assert platform.fingerprint() == before
    assert "ERRORCODE" not in platform.txt


@pytest.mark.parametrize("pair", [p for p in combinations(FAULTS, 2) if frozenset(p) not in SAME_REGISTER],
                         ids=lambda pair: "-".join(name.split(".")[1] for name in pair))
def test_ENTERACCS_faults__the_earlier_of_two_rows_decides(pair: tuple[str, str]) -> None:
    platform = placed()
    for clause in pair:
        FAULTS[clause](platform)
    outcome = ask(platform)
    assert isinstance(outcome, Fault) and outcome.clause == pair[0]


def test_ENTERACCS_seamrr__only_a_revision_of_an_emulator_asks_for_it() -> None:
    for asks in (False, True):
        revision = replace(SILICON, name="test", enteraccs_needs_seamrr=asks)
        platform = placed(revision=revision)
        assert isinstance(enter(platform), smx.EnteredAc)
        platform = placed(revision=revision)
        platform.set_msr(platform.lp(0), 0x1401, 0)
        outcome = enter(platform)
        assert isinstance(outcome, Fault) is asks
        if isinstance(outcome, Fault):
            assert outcome.clause == "ENTERACCS.seamrr"


def test_ENTERACCS_mci_status__a_corrected_error_or_a_module_that_handles_them_is_let_through() -> None:
    platform = placed()
    platform.set_msr(platform.lp(0), 0x401, 1 << 63)
    assert isinstance(enter(platform), smx.EnteredAc)
    platform = placed()
    platform.txt["MC_HANDLED"] = 1
    platform.set_msr(platform.lp(0), 0x401, 1 << 63 | 1 << 61)
    assert isinstance(enter(platform), smx.EnteredAc)


def test_ENTERACCS_mcip__IERR_too() -> None:
    platform = placed()
    platform.txt["IERR"] = 1
    assert enter(platform) == Fault(Vector.GP, 0, "ENTERACCS.mcip")


def test_ENTERACCS_sibling_idle__other_packages_may_run() -> None:
    platform = placed()
    platform.lp(2).activity = Activity.ACTIVE
    assert isinstance(enter(platform), smx.EnteredAc)
    platform = placed()
    platform.lp(1).activity = Activity.SENTER_SLEEP
    assert isinstance(enter(platform), smx.EnteredAc)


# --- ENTERACCS: the module


def lock_svn(platform: Platform, svn: int) -> None:
    platform.svn_locked, platform.bios_se_svn = True, svn << 56


HEADER: dict[str, dict[str, Any]] = {
    "ENTERACCS.version": {"HeaderVersion": 0},
    "ENTERACCS.type": {"ModuleType": 3},
    "ENTERACCS.authenticate": {},
    "ENTERACCS.svn": {"SeSvn": 3},
    "ENTERACCS.hitm": {"CodeControl": 2},
    "ENTERACCS.code_control": {"CodeControl": 4},
    "ENTERACCS.gdt_base": {"GDTBasePtr": 1700},
    "ENTERACCS.gdt_end": {"GDTBasePtr": 0x7FFF0},
    "ENTERACCS.entry": {"EntryPoint": 1700},
    "ENTERACCS.gdt_limit": {"GDTLimit": 0x10000},
    "ENTERACCS.segsel": {"SegSel": 9},
}
ON_PLATFORM: dict[str, Callable[[Platform], None]] = {
    "ENTERACCS.memory_type": lambda p: p.board.update(not_write_back=((ACM_ADDRESS + 0x1000, 0x1000),)),
    "ENTERACCS.authenticate": lambda p: p.txt.update(PUBLIC_KEY=smx.key_hash(mint.OTHER_KEY.modulus_le)),
    "ENTERACCS.svn": lambda p: lock_svn(p, 4),
    "ENTERACCS.hitm": lambda p: p.txt.update(SNOOP_HIT=1),
}
CODES = {
    "ENTERACCS.memory_type": 5, "ENTERACCS.version": 6, "ENTERACCS.type": 6, "ENTERACCS.authenticate": 7,
    "ENTERACCS.svn": 6, "ENTERACCS.hitm": 9,
}
MODULE_ROWS = [row.id for row in smx.ENTERACCS_MODULE]


def with_module(*clauses: str) -> tuple[Platform, bytes]:
    header: dict[str, Any] = {}
    for clause in clauses:
        for name, value in HEADER.get(clause, {}).items():
            header[name] = header.get(name, 0) | value if name == "CodeControl" else value
    acm = mint.acm(IMAGE, **header)
    platform = placed(acm)
    for clause in clauses:
        if clause in ON_PLATFORM:
            ON_PLATFORM[clause](platform)
    return platform, acm


@pytest.mark.parametrize("clause", MODULE_ROWS)
def test_ENTERACCS_module__each_row_alone_resets_the_platform_and_keeps_the_cause(clause: str) -> None:
    platform, acm = with_module(clause)
    outcome = enter(platform, acm)
    assert isinstance(outcome, TxtShutdown) and outcome.clause == clause
    assert outcome.code == CODES.get(clause, 8)
    assert platform.txt["ERRORCODE"] == 1 << 31 | outcome.code
    assert platform.seamrr() is None and not platform.P_SEAMLDR_READY and not platform.lp(0).ACMODEFLAG


CLASH = {("ENTERACCS.gdt_base", "ENTERACCS.gdt_end")}


@pytest.mark.parametrize("pair", [p for p in combinations(MODULE_ROWS, 2) if p not in CLASH],
                         ids=lambda pair: "-".join(name.split(".")[1] for name in pair))
def test_ENTERACCS_module__the_earlier_of_two_rows_decides(pair: tuple[str, str]) -> None:
    platform, acm = with_module(*pair)
    outcome = enter(platform, acm)
    assert isinstance(outcome, TxtShutdown) and outcome.clause == pair[0]


@pytest.mark.parametrize("offset", [0x1A, 0x30, 0x7A0, 0x900, 0x5000, -1])
def test_ENTERACCS_authenticate__every_signed_byte_counts(offset: int) -> None:
    acm = bytearray(default_acm())
    acm[offset] ^= 1
    platform = placed()
    platform.store(Agent.HOST, ACM_ADDRESS, acm)
    outcome = enter(platform)
    assert isinstance(outcome, TxtShutdown) and outcome.clause == "ENTERACCS.authenticate"


def test_ENTERACCS_authenticate__scratch_is_not_signed() -> None:
    acm = bytearray(default_acm())
    acm[ACM_HEADER.offset_of("Scratch")] ^= 1
    platform = placed()
    platform.store(Agent.HOST, ACM_ADDRESS, acm)
    assert isinstance(enter(platform), smx.EnteredAc)


def test_ENTERACCS_authenticate__a_size_field_that_cannot_be_hashed_fails_like_a_bad_signature() -> None:
    acm = mint.acm(IMAGE, resign=False, Size=0x7FFFFFFF)
    platform = placed(acm)
    outcome = enter(platform, acm)
    assert isinstance(outcome, TxtShutdown) and outcome.clause == "ENTERACCS.authenticate"


def test_ENTERACCS_module__in_SEAM_memory_reads_all_ones_and_is_refused() -> None:
    platform = placed()
    outcome = smx.enteraccs(platform, 0, 0x7C000000, len(default_acm()))
    assert isinstance(outcome, TxtShutdown) and outcome.clause == "ENTERACCS.version"


@pytest.mark.parametrize(("svn", "equal", "enters"), [(3, True, False), (4, True, True), (4, False, False),
                                                      (5, False, True)])
def test_ENTERACCS_svn__below_never_equal_by_revision_above_always(svn: int, equal: bool, enters: bool) -> None:
    acm = default_acm(svn)
    platform = placed(acm, revision=replace(SILICON, name="test", svn_equal_allowed=equal))
    lock_svn(platform, 4)
    assert isinstance(enter(platform, acm), smx.EnteredAc) is enters


def test_ENTERACCS_svn__before_the_lock_any_signed_module_may_launch() -> None:
    acm = default_acm(0)
    platform = placed(acm)
    platform.bios_se_svn = 4 << 56
    assert isinstance(enter(platform, acm), smx.EnteredAc)


def test_ENTERACCS_error_entry__snoop_hit_with_code_control_3() -> None:
    acm = mint.acm(IMAGE, CodeControl=3, ErrorEntryPoint=0x900)
    for hit in (False, True):
        platform = placed(acm)
        if hit:
            platform.txt["SNOOP_HIT"] = 1
        outcome = enter(platform, acm)
        assert isinstance(outcome, smx.EnteredAc)
        assert (outcome.entry == ACM_ADDRESS + 0x900) is hit


def test_ENTERACCS_effect__what_the_module_finds() -> None:
    platform = placed()
    lp = platform.lp(0)
    lp.gdtr_base, lp.gdtr_limit, lp.cs_selector, lp.rip = 0x123456000, 0x7F, 0x10, 0xFFFFFFFF81000000
    acm = default_acm()
    outcome = enter(platform)
    header = ACM_HEADER.decode(acm)
    assert outcome == smx.EnteredAc(ACM_ADDRESS + header.EntryPoint, "ENTERACCS.effect")
    assert lp.ACMODEFLAG and lp.acram == acm and lp.acram_base == ACM_ADDRESS
    assert (lp.rax, lp.rbx, lp.rcx, lp.rdx, lp.rbp) == (2, 0x81000002, 0x7F0010, 0x23456000, ACM_ADDRESS)
    assert lp.rflags == 2 and lp.efer == 0 and not lp.is_64bit() and lp.dr7 == 0x400
    assert (lp.cs_selector, lp.ds_selector) == (header.SegSel, header.SegSel + 8)
    assert (lp.gdtr_base, lp.gdtr_limit) == (ACM_ADDRESS + header.GDTBasePtr, header.GDTLimit)
    assert not lp.cr0 >> 31 and lp.smi_inhibit and lp.nmi_inhibit
    assert isinstance(raise_event(platform, 0, EventKind.INIT), Pending)


def test_SMX_fetch__the_module_in_ACRAM_runs_whatever_becomes_of_the_copy_in_memory() -> None:
    platform = placed()
    enter(platform)
    platform.store(Agent.DMA, ACM_ADDRESS, bytes(len(default_acm())))
    outcome = smx.run_acm(platform, 0)
    assert isinstance(outcome, smx.ExitedAc) and platform.P_SEAMLDR_READY


def test_SMX_fetch__code_that_is_not_minted_is_named_as_not_modelled() -> None:
    acm = bytearray(default_acm())
    at = ACM_HEADER.peek(acm, "EntryPoint")
    acm[at : at + 8] = b"\x90" * 8
    changed = bytes(acm)
    from seamref.arch.acm import signed_bytes

    resigned = changed[:512] + mint.KEY.sign(signed_bytes(changed)) + changed[896:]
    platform = placed(resigned)
    assert isinstance(enter(platform, resigned), smx.EnteredAc)
    with pytest.raises(NotModelled, match="9090909090909090"):
        smx.step_acm(platform, 0)


def test_step_acm__outside_authenticated_code_mode_is_a_mistake_of_the_caller() -> None:
    with pytest.raises(SeamrefError, match="not in authenticated code mode"):
        smx.step_acm(placed(), 0)


def test_register_ac_program__an_id_has_16_bytes() -> None:
    class Short:
        id = b"short"
        name = "short"

        def step(self, platform: Platform, lp: Lp) -> smx.AcStep:
            raise AssertionError

    with pytest.raises(SeamrefError, match="must be 16"):
        smx.register_ac_program(Short())


# --- EXITAC


def in_ac() -> Platform:
    platform = placed()
    enter(platform)
    lp = platform.lp(0)
    lp.cr0 |= 1 << 31
    lp.efer, lp.cs_l, lp.rdx, lp.rbx, lp.r8 = 0xD00, True, 0, 0xFFFFFFFF81000100, 0x5000
    return platform


EXITS: dict[str, Callable[[Platform], None]] = {
    "EXITAC.vmx": _lp(vmx_on=True),
    "EXITAC.canonical": _lp(rbx=0x8000_0000_0000_0000),
    "EXITAC.cr0_pe": _cr0(clear=CR0_PE),
    "EXITAC.cpl": _lp(cpl=3),
    "EXITAC.vm86": _lp(rflags=1 << 17 | 2),
    "EXITAC.acmode": _lp(ACMODEFLAG=False),
    "EXITAC.smm": _lp(in_smm=True),
    "EXITAC.edx": _lp(rdx=1),
    "EXITAC.cs_limit": _lp(rbx=1 << 33, efer=0, cs_l=False),
}


@pytest.mark.parametrize("clause", EXITS)
def test_EXITAC__each_row_alone(clause: str) -> None:
    platform = in_ac()
    EXITS[clause](platform)
    assert smx.exitac(platform, 0) == Fault(Vector.GP, 0, clause)


@pytest.mark.parametrize("pair", [p for p in combinations(EXITS, 2) if p != ("EXITAC.canonical", "EXITAC.cs_limit")])
def test_EXITAC__the_earlier_of_two_rows_decides(pair: tuple[str, str]) -> None:
    platform = in_ac()
    for clause in pair:
        EXITS[clause](platform)
    outcome = smx.exitac(platform, 0)
    assert isinstance(outcome, Fault) and outcome.clause == pair[0]


def test_EXITAC_effect__ACRAM_gone_events_unmasked_CR3_from_R8() -> None:
    assert {row.id for row in smx.EXITAC_FAULTS} == set(EXITS)
    platform = in_ac()
    seen: list[str] = []
    platform.listeners.append(lambda e: seen.append(e.instruction) if isinstance(e, InstructionEnded) else None)
    assert smx.exitac(platform, 0) == smx.ExitedAc(0xFFFFFFFF81000100, "EXITAC.effect")
    lp = platform.lp(0)
    assert (lp.cr3, lp.rip, lp.acram, lp.ACMODEFLAG) == (0x5000, 0xFFFFFFFF81000100, None, False)
    assert not lp.smi_inhibit and not lp.nmi_inhibit and seen == ["GETSEC[EXITAC]"]


def test_EXITAC_effect__after_SENTER_events_stay_masked_and_without_LMA_CR3_stays() -> None:
    platform = in_ac()
    lp = platform.lp(0)
    lp.SENTERFLAG, lp.efer, lp.cs_l, lp.rbx, lp.cr3 = True, 0, False, 0x100000, 0x7000
    assert isinstance(smx.exitac(platform, 0), smx.ExitedAc)
    assert lp.smi_inhibit and lp.nmi_inhibit and lp.cr3 == 0x7000


# --- reset, INIT, SIPI


def test_PLATFORM_reset__locks_range_identity_and_memory_go_fuses_and_ERRORCODE_stay() -> None:
    from seamref.bootchain import boot

    platform = boot(Topology(2, 2), module=True)
    platform.lp(1).is_bsp = True
    platform.txt["ERRORCODE"] = 0x80000007
    key = platform.txt["PUBLIC_KEY"]
    smx.reset(platform)
    assert platform.seamrr() is None and platform.p_seamldr_range is None
    assert not any(platform.SEAMEXTEND) and platform.seamdb == () and not platform.svn_locked
    assert platform.keyid_bits == 0 and platform.txt == {"PUBLIC_KEY": key, "ERRORCODE": 0x80000007}
    assert not any(platform.store_.read(0x7C000000, 4096))
    assert [lp.is_bsp for lp in platform.every_lp()] == [True, False, False, False]


def test_park_others__processors_in_VMX_operation_do_not_obey_INIT() -> None:
    platform = placed()
    platform.lp(2).vmx_on, platform.lp(2).activity = True, Activity.ACTIVE
    assert smx.park_others(platform, 0) == (2,)


def test_SMX_sipi__starts_only_who_waits() -> None:
    platform = placed()
    assert str(smx.send_sipi(platform, 1)) == "INIT delivered" and platform.lp(1).activity is Activity.ACTIVE
    assert str(smx.send_sipi(platform, 1)) == "INIT discarded"


def test_IA32_APIC_BASE__ring_0_moves_the_BSP_flag() -> None:
    from seamref.arch.msr import rdmsr, wrmsr

    platform = placed()
    assert rdmsr(platform, 0, 0x1B) == 0xFEE00D00
    wrmsr(platform, 0, 0x1B, 0xFEE00C00)
    assert not platform.lp(0).is_bsp and enter(platform) == Fault(Vector.GP, 0, "ENTERACCS.bsp")
