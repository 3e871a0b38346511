"""SEAMCALL, SEAMRET and TDCALL (343754-002, SDM; checks in the order of the chosen revision).

Each instruction has the same beats: inputs, checks, effect, result.  Entering SEAM, the software that then runs and
SEAMRET are separate steps, so that another processor can act in between; :mod:`seamref.arch.software` runs all three.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias, assert_never

from seamref.arch.lp import Lp
from seamref.arch.msr import SEAMRR_BASE, SEAMRR_MASK, VMX_BASIC
from seamref.arch.outcome import (
    Entered,
    EntryFailed,
    ExitReason,
    Fault,
    Left,
    SeamcallOutcome,
    SeamretOutcome,
    Target,
    TdcallOutcome,
    Vector,
    VmExit,
    VmFailInvalid,
    VmxError,
)
from seamref.arch.revision import SeamretVmcs
from seamref.arch.trace import InstructionEnded, ModeChanged, MutexChanged
from seamref.arch.vmcs import NONE, get, put
from seamref.arch.vmx import (
    activate,
    bad_controls,
    bad_guest_state,
    bad_host_state,
    current,
    fail_invalid,
    fail_valid,
    flush,
    load_guest_state,
    load_host_state,
    save_guest_state,
    vm_exit,
)
from seamref.errors import NotModelled
from seamref.spec import CHOSEN, MEASURED, Check, CheckTable, clause, implements

if TYPE_CHECKING:
    from seamref.arch.platform import Platform

BIT63 = 1 << 63
"""RAX[63] of SEAMCALL: 0 selects the TDX module, 1 selects P-SEAMLDR."""

SEAMCALL_OPCODE = bytes.fromhex("660f01cf")
SEAMOPS_OPCODE = bytes.fromhex("660f01ce")
SEAMRET_OPCODE = bytes.fromhex("660f01cd")
TDCALL_OPCODE = bytes.fromhex("660f01cc")
INSTRUCTION_LENGTH = 4

UD = Fault(Vector.UD, None, "")
GP0 = Fault(Vector.GP, 0, "")


@dataclass(frozen=True, slots=True)
class SeamcallState:
    """Everything SEAMCALL's checks look at."""

    platform: Platform
    lp: Lp

    @property
    def to_P_SEAMLDR(self) -> bool:
        return bool(self.lp.rax & BIT63)


def _seamrr_off(c: SeamcallState) -> bool:
    mask = c.lp.msrs.get(SEAMRR_MASK, 0)
    if c.platform.revision.seamrr_needs_all:
        return mask & 0xC00 != 0xC00 or not c.lp.msrs.get(SEAMRR_BASE, 0) & 8
    return not mask & 1 << 11


_NON_ROOT_EXIT = VmExit(ExitReason.SEAMCALL, 0, False, "")

SEAMCALL: CheckTable[SeamcallState, Fault | VmExit | VmFailInvalid] = CheckTable("SEAMCALL", (
    Check("SEAMCALL.no_SEAM", "processor without SEAM", lambda c: not c.platform.config.has_SEAM, UD,
          "SEAMREF errata", CHOSEN),
    Check("SEAMCALL.vmx", "not in VMX operation", lambda c: not c.lp.vmx_on, UD, "X2 SEAMCALL"),
    Check("SEAMCALL.smm", "in SMM", lambda c: c.lp.in_smm, UD, "X2 SEAMCALL"),
    Check("SEAMCALL.inSEAM", "inSEAM, in either SEAM mode", lambda c: c.lp.inSEAM, UD, "X2 SEAMCALL",
          applies=lambda r: not r.inSEAM_means_root),
    Check("SEAMCALL.inSEAM_root", "in SEAM VMX root operation", lambda c: c.lp.is_SEAM_root(), UD, "SC2", MEASURED,
          applies=lambda r: r.inSEAM_means_root),
    Check("SEAMCALL.64bit", "not in 64-bit mode (EFER.LMA and CS.L)", lambda c: not c.lp.is_64bit(), UD, "X2 SEAMCALL"),
    Check("SEAMCALL.cpl", "CPL > 0 (before the VM exit)", lambda c: c.lp.cpl > 0, GP0, "SC1", MEASURED,
          applies=lambda r: r.cpl_before_exit),
    Check("SEAMCALL.non_root", "in VMX non-root operation", lambda c: c.lp.non_root, _NON_ROOT_EXIT, "X2 SEAMCALL"),
    Check("SEAMCALL.cpl_late", "CPL > 0 (after the VM exit)", lambda c: c.lp.cpl > 0, GP0, "X2 SEAMCALL",
          applies=lambda r: not r.cpl_before_exit),
    Check("SEAMCALL.seamrr", "IA32_SEAMRR_PHYS_MASK.VALID = 0", _seamrr_off, GP0, "X2 SEAMCALL"),
    Check("SEAMCALL.mov_ss", "blocking by MOV-SS", lambda c: c.lp.mov_ss_blocking, GP0, "X2 SEAMCALL"),
    Check("SEAMCALL.module_not_ready", "RAX[63] = 0 and the TDX module is not loaded or disabled",
          lambda c: not c.to_P_SEAMLDR and not c.platform.SEAM_READY, VmFailInvalid(""), "X2 SEAMCALL"),
    Check("SEAMCALL.p_seamldr_busy", "RAX[63] = 1 and P_SEAMLDR_MUTEX is not acquired",
          lambda c: c.to_P_SEAMLDR and c.platform.P_SEAMLDR_MUTEX is not None, VmFailInvalid(""), "X2 SEAMCALL"),
    Check("SEAMCALL.p_seamldr_not_ready",
          "RAX[63] = 1, mutex acquired, P-SEAMLDR not loaded or disabled (mutex released)",
          lambda c: c.to_P_SEAMLDR and not c.platform.P_SEAMLDR_READY, VmFailInvalid(""), "X2 SEAMCALL"),
), "SEAMCALL: conditions in order; silent means that SEAM is entered.")

clause("SEAM_CVP", "transfer VMCS of a processor: SEAMRR.BASE + 4096 + x2APIC id * 4096", "X2 SEAMCALL")
clause("P_SEAMLDR_CVP", "P-SEAMLDR's one transfer VMCS: P_SEAMLDR_RANGE.base + 4096", "NPS vmcs64.c", MEASURED)
clause("SEAMCALL.enter", "save the VMM's state, link its current VMCS, load SEAM's state, inhibit SMI and NMI",
       "X2 SEAMCALL")
clause("SEAMCALL.mutex_leak", "a revision whose text forgets to release the mutex on the failure path", "SR1", MEASURED)
clause("SEAMRET.leave", "load the VMM's whole guest-state area, take its VMCS back from the link pointer; RIP was "
       "moved by software", "X2 SEAMRET")
clause("SEAMRET.vmcs", "return from P-SEAMLDR flushes and clears the VMM's current VMCS", "X2 SEAMRET")
clause("SEAMRET.evict", "return from P-SEAMLDR evicts its transfer VMCS: the next processor reads it from memory",
       "SR3", MEASURED)


@implements("SEAM_CVP")
def seam_cvp(platform: Platform, lp: Lp) -> int:
    """SEAM_CVP: physical address of this processor's transfer VMCS for the TDX module."""
    seamrr = platform.seamrr(lp)
    assert seamrr is not None
    return seamrr.base + 0x1000 + lp.id * 0x1000


@implements("P_SEAMLDR_CVP")
def p_seamldr_cvp(platform: Platform) -> int:
    """P_SEAMLDR_CVP: physical address of P-SEAMLDR's transfer VMCS."""
    held = platform.p_seamldr_range
    if held is None:
        raise NotModelled("P_SEAMLDR_READY on a platform where MCHECK never told P_SEAMLDR_RANGE", "P_SEAMLDR_CVP")
    return held.base + 0x1000


def seamcall(platform: Platform, lp_id: int) -> SeamcallOutcome:
    """SEAMCALL on one processor.  Input: RAX (bit 63 selects the target); nothing else is looked at.

    Walks the SEAMCALL table; silent rows lead to :func:`_enter_SEAM`.  Outcomes: #UD, #GP(0), VM exit 76,
    VMfailInvalid (CF=1, RAX unchanged), or entered.
    """
    lp = platform.lp(lp_id)
    row = SEAMCALL.decide(SeamcallState(platform, lp), platform.revision)
    outcome: SeamcallOutcome
    if row is None:
        outcome = _enter_SEAM(platform, lp)
    else:
        match row.result:
            case Fault(vector=vector, code=code):
                outcome = Fault(vector, code, row.id)
            case VmExit(reason=reason):
                outcome = vm_exit(platform, lp, VmExit(reason, 0, False, row.id), INSTRUCTION_LENGTH)
            case VmFailInvalid():
                if row.id == "SEAMCALL.p_seamldr_not_ready" and not platform.revision.mutex_released:
                    _mutex_leaks(platform, lp)
                outcome = fail_invalid(lp, row.id)
            case _ as never:
                assert_never(never)
    if platform.listeners:
        platform.emit(InstructionEnded(lp_id, "SEAMCALL", str(outcome), outcome.clause))
    return outcome


@implements("SEAMCALL.mutex_leak")
def _mutex_leaks(platform: Platform, lp: Lp) -> None:
    platform.P_SEAMLDR_MUTEX = lp.id


@implements("SEAMCALL.enter")
def _enter_SEAM(platform: Platform, lp: Lp) -> Entered:
    """SEAMCALL.enter: the effect of a SEAMCALL that no check stops."""
    if lp.rax & BIT63:
        platform.P_SEAMLDR_MUTEX = lp.id
        lp.inP_SEAMLDR = True
        cvp, target = p_seamldr_cvp(platform), Target.P_SEAMLDR
        if platform.listeners:
            platform.emit(MutexChanged(lp.id, True))
    else:
        cvp, target = seam_cvp(platform, lp), Target.MODULE
    before = lp.mode
    lp.flags()  # before the state is saved: the saved RFLAGS tells "not VMfailInvalid"
    lp.inSEAM = True
    transfer = activate(platform, lp, cvp).data
    put(transfer, "vmcs_link_pointer", lp.current_vmcs)
    lp.current_vmcs = cvp
    sti = lp.sti_blocking
    save_guest_state(lp, transfer)  # RIP is that of SEAMCALL itself; software in SEAM moves past it
    put(transfer, "guest_interruptibility", sti | lp.smi_inhibit << 2 | lp.nmi_inhibit << 3)
    load_host_state(lp, transfer)
    lp.smi_inhibit = lp.nmi_inhibit = True
    lp.ibrs_barriers += 1  # X2: predictions trained before cannot steer SEAM
    put(transfer, "exit_reason", ExitReason.SEAMCALL | (1 << 29 if platform.revision.exit_bit29 else 0))
    put(transfer, "exit_qualification", 0)
    put(transfer, "exit_instruction_length", INSTRUCTION_LENGTH)
    lp.program = lp.program_state = None
    if platform.listeners:
        platform.emit(ModeChanged(lp.id, before.value, lp.mode.value))
    return Entered(target, cvp, "SEAMCALL.enter")


# --- SEAMRET


@dataclass(frozen=True, slots=True)
class SeamretState:
    """Everything SEAMRET's checks look at."""

    platform: Platform
    lp: Lp


class _GuestState:
    """Result of the row for guest state: VM-entry failure 33."""


class _MsrLoad:
    """Result of the row for the MSR-load list: VM-entry failure 34."""


_SeamretResult: TypeAlias = Fault | VmFailInvalid | VmxError | _GuestState | _MsrLoad


SEAMRET: CheckTable[SeamretState, _SeamretResult] = CheckTable("SEAMRET", (
    Check("SEAMRET.inSEAM", "inSEAM = 0", lambda c: not c.lp.inSEAM, UD, "X2 SEAMRET"),
    Check("SEAMRET.64bit", "not in 64-bit mode", lambda c: not c.lp.is_64bit(), UD, "X2 SEAMRET"),
    Check("SEAMRET.non_root", "in VMX non-root operation (a TD): #UD, not an exit", lambda c: c.lp.non_root, UD,
          "X2 SEAMRET; SC3"),
    Check("SEAMRET.cpl", "CPL > 0", lambda c: c.lp.cpl > 0, GP0, "X2 SEAMRET"),
    Check("SEAMRET.current", "current-VMCS pointer not valid", lambda c: c.lp.current_vmcs == NONE, VmFailInvalid(""),
          "X2 SEAMRET"),
    Check("SEAMRET.controls", "VMX controls not valid", lambda c: bad_controls(c.platform, c.lp),
          VmxError.ENTRY_INVALID_CONTROL_FIELDS, "X2 SEAMRET"),
    Check("SEAMRET.host", "host-state area not valid", lambda c: bad_host_state(c.platform, c.lp),
          VmxError.ENTRY_INVALID_HOST_STATE, "X2 SEAMRET"),
    # the SDM's link-pointer rules cannot apply: it names the VMM's active VMCS
    Check("SEAMRET.guest", "guest state not valid", lambda c: bad_guest_state(c.platform, c.lp), _GuestState(),
          "X2 SEAMRET"),
    Check("SEAMRET.msr_load", "VM-entry MSR-load list fails",
          lambda c: get(current(c.lp).data, "entry_msr_load_count") != 0
          and get(current(c.lp).data, "entry_msr_load_address") & 0xF != 0, _MsrLoad(), "X2 SEAMRET"),
), "SEAMRET: conditions in order; silent means that SEAM is left.  No launch-state test, no MOV-SS test.")


def seamret(platform: Platform, lp_id: int) -> SeamretOutcome:
    """SEAMRET on one processor.  Input: the current VMCS, which software must have made the transfer VMCS.

    A failed SEAMRET leaves inSEAM, inP_SEAMLDR and the mutex as they were.
    """
    lp = platform.lp(lp_id)
    if lp.inSEAM and not platform.revision.seamret_needs_current:
        lp.current_vmcs = p_seamldr_cvp(platform) if lp.inP_SEAMLDR else seam_cvp(platform, lp)
        activate(platform, lp, lp.current_vmcs)
    row = SEAMRET.decide(SeamretState(platform, lp), platform.revision)
    outcome: SeamretOutcome
    if row is None:
        outcome = _leave_SEAM(platform, lp)
    else:
        match row.result:
            case Fault(vector=vector, code=code):
                outcome = Fault(vector, code, row.id)
            case VmFailInvalid():
                outcome = fail_invalid(lp, row.id)
            case VmxError() as error:
                outcome = fail_valid(lp, error, row.id)
            case _GuestState():
                outcome = _entry_failure(lp, ExitReason.ENTRY_FAILURE_GUEST_STATE, row.id)
            case _MsrLoad():
                outcome = _entry_failure(lp, ExitReason.ENTRY_FAILURE_MSR_LOAD, row.id)
            case _ as never:
                assert_never(never)
    if platform.listeners:
        platform.emit(InstructionEnded(lp_id, "SEAMRET", str(outcome), outcome.clause))
    return outcome


def _entry_failure(lp: Lp, reason: ExitReason, clause: str) -> EntryFailed:
    """Exit-reason bit 31, and execution continues at the host RIP in SEAM root."""
    data = current(lp).data
    failed = EntryFailed(reason, clause)
    put(data, "exit_reason", failed.word)
    load_host_state(lp, data)
    return failed


@implements("SEAMRET.leave")
def _leave_SEAM(platform: Platform, lp: Lp) -> Left:
    """SEAMRET.leave: the effect of a SEAMRET that no check stops."""
    before = lp.mode
    cvp = lp.current_vmcs
    transfer = current(lp).data
    load_guest_state(lp, transfer)
    blocking = get(transfer, "guest_interruptibility")
    lp.smi_inhibit, lp.nmi_inhibit = bool(blocking & 4), bool(blocking & 8)
    lp.current_vmcs = get(transfer, "vmcs_link_pointer")
    lost = False
    target = Target.P_SEAMLDR if lp.inP_SEAMLDR else Target.MODULE
    if lp.inP_SEAMLDR:
        _evict_transfer(platform, lp, cvp)
        lost = _invalidate_current(platform, lp)
        lp.inP_SEAMLDR = False
        if platform.revision.mutex_released:
            platform.P_SEAMLDR_MUTEX = None
            if platform.listeners:
                platform.emit(MutexChanged(lp.id, False))
    elif platform.revision.seamret_clears_transfer:
        flush(platform, lp, cvp, "SEAMRET")
    lp.inSEAM = False
    lp.program = lp.program_state = None
    if platform.listeners:
        platform.emit(ModeChanged(lp.id, before.value, lp.mode.value))
    return Left(target, lost, "SEAMRET.leave")


@implements("SEAMRET.evict")
def _evict_transfer(platform: Platform, lp: Lp, cvp: int) -> None:
    """SEAMRET.evict: one transfer VMCS serves every processor, so it must be in memory for the next one."""
    flush(platform, lp, cvp, "SEAMRET")


@implements("SEAMRET.vmcs")
def _invalidate_current(platform: Platform, lp: Lp) -> bool:
    """SEAMRET.vmcs: whether the VMM lost its current VMCS (it must VMPTRLD again; the launch state is clear)."""
    from seamref.arch.platform import NO_SEAMRET_INVD_VMCS

    if platform.msr_value(lp, VMX_BASIC) & NO_SEAMRET_INVD_VMCS:
        return False
    if platform.revision.seamret_vmcs is SeamretVmcs.NEVER or lp.current_vmcs == NONE:
        return False
    flush(platform, lp, lp.current_vmcs, "SEAMRET from P-SEAMLDR")
    lp.current_vmcs = NONE
    return True


# --- TDCALL


@dataclass(frozen=True, slots=True)
class TdcallState:
    """Everything TDCALL's checks look at."""

    platform: Platform
    lp: Lp


TDCALL: CheckTable[TdcallState, Fault] = CheckTable("TDCALL", (
    Check("TDCALL.non_root", "not in VMX non-root operation", lambda c: not c.lp.non_root, UD, "X2 TDCALL"),
    Check("TDCALL.cpl", "CPL > 0 (before the exit)", lambda c: c.lp.cpl > 0, GP0, "X2 TDCALL; SC1"),
), "TDCALL: conditions in order; silent means VM exit 77.")

clause("TDCALL.exit", "VM exit 77, qualification 0; in a legacy guest too", "X2 TDCALL")


@implements("TDCALL.exit")
def tdcall(platform: Platform, lp_id: int) -> TdcallOutcome:
    """TDCALL.exit: TDCALL on one processor; the exit goes to whoever entered the guest."""
    lp = platform.lp(lp_id)
    row = TDCALL.decide(TdcallState(platform, lp), platform.revision)
    outcome: TdcallOutcome
    if row is not None:
        outcome = Fault(row.result.vector, row.result.code, row.id)
    else:
        outcome = vm_exit(platform, lp, VmExit(ExitReason.TDCALL, 0, False, "TDCALL.exit"), INSTRUCTION_LENGTH)
    if platform.listeners:
        platform.emit(InstructionEnded(lp_id, "TDCALL", str(outcome), outcome.clause))
    return outcome
