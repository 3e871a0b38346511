"""VMX operation to the depth that SEAM needs (SDM vol. 3C).

VMXON/VMXOFF, the current-VMCS pointer, VMPTRLD/VMPTRST/VMCLEAR/VMREAD/VMWRITE, launch state, VM entry and exit.
A VMCS that was made current is *active*: its data live in the processor's ``vmcs_cache`` and its region in memory
may be stale until VMCLEAR writes it back.  That is why a loader that writes VMCSs with plain stores must know
where copies are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias, assert_never

from seamref.arch.areas import IA32E_GUEST, load_guest, load_host, save_guest
from seamref.arch.entry_checks import ACTIVITIES, GUEST_STATE, HOST_STATE, entry_of, refuses
from seamref.arch.lp import CR4_VMXE, EFER_LMA, Activity, Lp
from seamref.arch.memory import Agent
from seamref.arch.msr import VMX_BASIC
from seamref.arch.outcome import (
    Done,
    EntryFailed,
    ExitReason,
    Fault,
    Guest,
    Vector,
    VmEntryOutcome,
    VmExit,
    VmFailInvalid,
    VmFailValid,
    VmxError,
    VmxOutcome,
)
from seamref.arch.trace import InstructionEnded, VmcsFlushed
from seamref.arch.vmcs import NONE, VMCS_SIZE, CachedVmcs, field_of, get, put
from seamref.errors import NotModelled
from seamref.spec import CHOSEN, Check, CheckTable, clause, implements

if TYPE_CHECKING:
    from seamref.arch.platform import Platform

UD = Fault(Vector.UD, None, "")
GP0 = Fault(Vector.GP, 0, "")


@dataclass(frozen=True, slots=True)
class VmxOperand:
    """What the checks of VMX instructions look at: the processor and the 64-bit pointer operand, if any."""

    platform: Platform
    lp: Lp
    pointer: int = NONE

    def region_revision(self) -> int:
        """First dword of the region (as the processor reads it)."""
        held = self.lp.vmcs_cache.get(self.pointer)
        if held is not None:
            return get(held.data, "revision_id")
        data = self.platform.bytes_at(Agent.CPU, self.pointer, 4, lp=self.lp)
        return int.from_bytes(data, "little")


class _Exit:
    """Result of a row that exits to the VMM."""

    __slots__ = ("reason",)

    def __init__(self, reason: ExitReason) -> None:
        self.reason = reason


_Result: TypeAlias = Fault | _Exit | VmxError | None
"""``None`` is VMfailInvalid; a :class:`VmxError` is VMfail (valid when there is a current VMCS)."""


def _bad_pointer(c: VmxOperand) -> bool:
    """Not 4 KiB aligned, or beyond the width of this mode (private KeyIDs are such bits outside SEAM)."""
    width = c.platform.config.maxpa if c.lp.inSEAM else c.platform.legacy_width
    return bool(c.pointer & 0xFFF) or c.pointer >> width != 0


def _bad_revision(c: VmxOperand) -> bool:
    return c.region_revision() != c.platform.msr_value(c.lp, VMX_BASIC) & 0x7FFFFFFF


def _not_vmx(c: VmxOperand) -> bool:
    return not c.lp.vmx_on


def _not_64bit(c: VmxOperand) -> bool:
    return not c.lp.is_64bit()


def _user(c: VmxOperand) -> bool:
    return c.lp.cpl > 0


def _guest(c: VmxOperand) -> bool:
    return c.lp.non_root


def _rows(name: str, *more: Check[VmxOperand, _Result]) -> CheckTable[VmxOperand, _Result]:
    """A VMX instruction's list: the rows all of them share, then its own."""
    basic = ExitReason.VMCALL  # VMX instructions in non-root exit; the reason number is not looked at here
    section = f"SDM vol. 3C {name}"
    return CheckTable(name, (
        Check(f"{name}.vmx", "not in VMX operation, or not in 64-bit mode", lambda c: _not_vmx(c) or _not_64bit(c),
              UD, section),
        Check(f"{name}.non_root", "in VMX non-root operation", _guest, _Exit(basic), section),
        Check(f"{name}.cpl", "CPL > 0", _user, GP0, section),
        *more,
    ))


VMXON: CheckTable[VmxOperand, _Result] = CheckTable("VMXON", (
    Check("VMXON.cr4", "CR4.VMXE = 0 or not in 64-bit mode", lambda c: not c.lp.cr4 & CR4_VMXE or _not_64bit(c), UD,
          "SDM vol. 3C VMXON"),
    Check("VMXON.non_root", "in VMX non-root operation", lambda c: c.lp.vmx_on and c.lp.non_root,
          _Exit(ExitReason.VMCALL), "SDM vol. 3C VMXON"),
    Check("VMXON.root_cpl", "in VMX root operation with CPL > 0", lambda c: c.lp.vmx_on and c.lp.cpl > 0, GP0,
          "SDM vol. 3C VMXON"),
    Check("VMXON.root", "already in VMX root operation", lambda c: c.lp.vmx_on, VmxError.VMXON_IN_VMX_ROOT,
          "SDM vol. 3C VMXON"),
    Check("VMXON.gp", "CPL > 0, in SMM, or IA32_FEATURE_CONTROL does not enable VMX",
          lambda c: c.lp.cpl > 0 or c.lp.in_smm or c.platform.msr_value(c.lp, 0x3A) & 5 != 5, GP0,
          "SDM vol. 3C VMXON"),
    Check("VMXON.address", "pointer not aligned, or too wide", _bad_pointer, None, "SDM vol. 3C VMXON; HWL"),
    Check("VMXON.revision", "revision identifier wrong", _bad_revision, None, "SDM vol. 3C VMXON"),
))

VMXOFF = _rows(
    "VMXOFF",
    Check("VMXOFF.seam", "in SEAM VMX root operation", lambda c: c.lp.inSEAM, GP0, "X2 other instructions"),
)
VMPTRLD = _rows(
    "VMPTRLD",
    Check("VMPTRLD.address", "pointer not aligned, or too wide", _bad_pointer, VmxError.VMPTRLD_INVALID_ADDRESS,
          "SDM vol. 3C VMPTRLD; HWL"),
    Check("VMPTRLD.vmxon", "pointer is the VMXON pointer", lambda c: c.pointer == c.lp.vmxon_ptr,
          VmxError.VMPTRLD_VMXON_POINTER, "SDM vol. 3C VMPTRLD"),
    Check("VMPTRLD.revision", "revision identifier wrong", _bad_revision, VmxError.VMPTRLD_INCORRECT_REVISION,
          "SDM vol. 3C VMPTRLD"),
)
VMCLEAR = _rows(
    "VMCLEAR",
    Check("VMCLEAR.address", "pointer not aligned, or too wide", _bad_pointer, VmxError.VMCLEAR_INVALID_ADDRESS,
          "SDM vol. 3C VMCLEAR; HWL"),
    Check("VMCLEAR.vmxon", "pointer is the VMXON pointer", lambda c: c.pointer == c.lp.vmxon_ptr,
          VmxError.VMCLEAR_VMXON_POINTER, "SDM vol. 3C VMCLEAR"),
)
VMPTRST = _rows("VMPTRST")
_CURRENT = "no current VMCS"
VMREAD = _rows(
    "VMREAD",
    Check("VMREAD.current", _CURRENT, lambda c: c.lp.current_vmcs == NONE, None, "SDM vol. 3C VMREAD"),
)
VMWRITE = _rows(
    "VMWRITE",
    Check("VMWRITE.current", _CURRENT, lambda c: c.lp.current_vmcs == NONE, None, "SDM vol. 3C VMWRITE"),
)


def _launched(c: VmxOperand) -> bool:
    held = c.lp.vmcs_cache.get(c.lp.current_vmcs)
    return held is not None and held.launched


def _entry_rows(name: str, wants_launched: bool, error: VmxError) -> CheckTable[VmxOperand, _Result]:
    section = f"SDM vol. 3C {name}"
    return _rows(
        name,
        Check(f"{name}.current", _CURRENT, lambda c: c.lp.current_vmcs == NONE, None, section),
        Check(f"{name}.mov_ss", "blocking by MOV-SS", lambda c: c.lp.mov_ss_blocking,
              VmxError.ENTRY_EVENTS_BLOCKED_BY_MOV_SS, section),
        Check(f"{name}.launch_state", "launch state is " + ("clear" if wants_launched else "not clear"),
              lambda c: _launched(c) is not wants_launched, error, section),
        Check(f"{name}.controls", "VM-execution controls not allowed, or a PAE/EPT combination that cannot be",
              lambda c: bad_controls(c.platform, c.lp), VmxError.ENTRY_INVALID_CONTROL_FIELDS, section),
        Check(f"{name}.seam_ept", "in SEAM root: \"enable EPT\" = 0, or Shared-EPTP reserved bits",
              lambda c: c.lp.inSEAM and bad_td_controls(c.platform, c.lp), VmxError.ENTRY_INVALID_CONTROL_FIELDS,
              "X2 VM entry"),
        Check(f"{name}.host", "host-state area not valid", lambda c: bad_host_state(c.platform, c.lp),
              VmxError.ENTRY_INVALID_HOST_STATE, section),
    )


def current(lp: Lp) -> CachedVmcs:
    """The current VMCS's data; the caller knows that there is one."""
    return lp.vmcs_cache[lp.current_vmcs]


def bad_controls(platform: Platform, lp: Lp) -> bool:
    """Whether pin-based, processor-based, exit or entry controls of the current VMCS break the capability MSRs."""
    data = current(lp).data
    for name, address in (("pin_based", 0x48D), ("proc_based", 0x48E), ("exit_ctls", 0x48F), ("entry_ctls", 0x490)):
        allowed = platform.msr_value(lp, address)
        value = get(data, name)
        if name == "entry_ctls":
            value &= ~(1 << 9)  # "IA-32e mode guest" is stored by VM exits, not preset
        if value & (allowed & 0xFFFFFFFF) != allowed & 0xFFFFFFFF or value & ~(allowed >> 32) & 0xFFFFFFFF:
            return True
    return False


def bad_td_controls(platform: Platform, lp: Lp) -> bool:
    """SEAM root's additional entry checks (X2): EPT must be on, Shared-EPTP bits 11:0 and above MAXPA are reserved."""
    data = current(lp).data
    shared = get(data, "shared_eptp")
    ept_on = bool(get(data, "proc_based") >> 31 & 1 and get(data, "secondary_proc_based") & 2)
    return not ept_on or bool(shared & 0xFFF) or shared >> platform.config.maxpa != 0


def bad_host_state(platform: Platform, lp: Lp) -> bool:
    """The host-state checks of the current VMCS (SDM vol. 3C sections 27.2.2 to 27.2.4)."""
    return refuses(HOST_STATE, entry_of(platform, lp, current(lp).data)) is not None


def bad_guest_state(platform: Platform, lp: Lp) -> bool:
    """The guest-state checks of the current VMCS (SDM vol. 3C section 27.3.1)."""
    return refuses(GUEST_STATE, entry_of(platform, lp, current(lp).data)) is not None


VMLAUNCH = _entry_rows("VMLAUNCH", False, VmxError.VMLAUNCH_NON_CLEAR_VMCS)
VMRESUME = _entry_rows("VMRESUME", True, VmxError.VMRESUME_NON_LAUNCHED_VMCS)

clause("VMX.succeed", "VMsucceed: the six arithmetic flags are 0", "SDM vol. 3C conventions")
clause("VMX.fail_invalid", "VMfailInvalid: CF = 1, the other five 0", "SDM vol. 3C conventions")
clause("VMX.fail_valid", "VMfailValid: ZF = 1, the other five 0, error number in the current VMCS",
       "SDM vol. 3C conventions")
clause("VMX.exit", "a VM exit stores guest state, loads host state and enters VMX root operation", "SDM vol. 3C ch. 28")
clause("VMX.entry", "a VM entry loads guest state and enters VMX non-root operation", "SDM vol. 3C ch. 27")
clause("VMX.flush", "VMCLEAR writes the cached VMCS back and makes its launch state clear", "SDM vol. 3C VMCLEAR")
clause("VMX.vmcs_fields", "the VMCS fields this machine knows", "SDM vol. 3D app. B", CHOSEN)


@implements("VMX.succeed")
def succeed(lp: Lp) -> None:
    """VMX.succeed."""
    lp.flags()


@implements("VMX.fail_invalid")
def fail_invalid(lp: Lp, clause: str) -> VmFailInvalid:
    """VMX.fail_invalid."""
    lp.flags(cf=1)
    return VmFailInvalid(clause)


@implements("VMX.fail_valid")
def fail_valid(lp: Lp, error: VmxError, clause: str) -> VmFailValid:
    """VMX.fail_valid."""
    lp.flags(zf=1)
    put(current(lp).data, "vm_instruction_error", error)
    return VmFailValid(error, clause)


def fail(lp: Lp, error: VmxError, clause: str) -> VmFailInvalid | VmFailValid:
    """VMfail: valid when there is a current VMCS, else invalid."""
    return fail_invalid(lp, clause) if lp.current_vmcs == NONE else fail_valid(lp, error, clause)


def activate(platform: Platform, lp: Lp, pointer: int) -> CachedVmcs:
    """Make a VMCS active: load its region into the cache unless it is there already."""
    held = lp.vmcs_cache.get(pointer)
    if held is None:
        data = bytearray(platform.bytes_at(Agent.CPU, pointer, VMCS_SIZE, lp=lp))
        held = lp.vmcs_cache[pointer] = CachedVmcs(data, False, lp.inSEAM)
    return held


@implements("VMX.flush")
def flush(platform: Platform, lp: Lp, pointer: int, why: str) -> None:
    """VMX.flush: write a cached VMCS back to memory and drop it.  Not cached: nothing to write."""
    held = lp.vmcs_cache.pop(pointer, None)
    if held is not None:
        platform.store(Agent.CPU, pointer, held.data, lp=lp)
        if platform.listeners:
            platform.emit(VmcsFlushed(lp.id, pointer, why))


# --- VM exit and VM entry


def save_guest_state(lp: Lp, data: bytearray, *, by_instruction: bool = True) -> None:
    """Store the interrupted context: the guest-state area's rows, activity, and "IA-32e mode guest" := EFER.LMA.

    ``by_instruction``: pending debug exceptions are saved as clear (section 28.3.4).
    """
    save_guest(lp, data)
    if by_instruction:
        put(data, "guest_pending_debug", 0)
    put(data, "guest_activity_state", ACTIVITIES.index(lp.activity))
    entry = get(data, "entry_ctls")
    put(data, "entry_ctls", entry | 1 << IA32E_GUEST if lp.efer & EFER_LMA else entry & ~(1 << IA32E_GUEST))


def load_guest_state(lp: Lp, data: bytearray) -> None:
    """Load the guest-state area's rows, the activity state, and blocking by STI and MOV-SS."""
    load_guest(lp, data)
    lp.activity = ACTIVITIES[get(data, "guest_activity_state")]
    blocking = get(data, "guest_interruptibility")
    lp.sti_blocking, lp.mov_ss_blocking = bool(blocking & 1), bool(blocking & 2)
    lp.monitor_armed = False


def load_host_state(lp: Lp, data: bytearray) -> None:
    """Load the host-state area and what an exit sets whatever it says; the processor is active."""
    load_host(lp, data)
    lp.activity = Activity.ACTIVE


@implements("VMX.exit")
def vm_exit(platform: Platform, lp: Lp, exit: VmExit, length: int = 0, interruption: int = 0) -> VmExit:
    """VMX.exit: leave VMX non-root operation through the current VMCS.

    ``length`` is the instruction length in bytes; hardware does not advance RIP.  ``interruption`` is the VM-exit
    interruption information of an exit that an NMI, a machine check or an interrupt caused.  ``inSEAM`` is not
    changed: a TD's exit arrives in SEAM root (SC2).
    """
    data = current(lp).data
    put(data, "exit_reason", exit.word)
    put(data, "exit_qualification", exit.qualification)
    put(data, "exit_instruction_length", length)
    put(data, "exit_interruption_info", interruption)
    put(data, "guest_interruptibility", lp.sti_blocking | lp.mov_ss_blocking << 1 | lp.nmi_inhibit << 3)
    save_guest_state(lp, data, by_instruction=length > 0)
    load_host_state(lp, data)
    lp.non_root = False
    return exit


@implements("VMX.entry")
def _enter(platform: Platform, lp: Lp, name: str) -> VmEntryOutcome:
    data = current(lp).data
    if bad_guest_state(platform, lp):
        failed = EntryFailed(ExitReason.ENTRY_FAILURE_GUEST_STATE, "VMX.entry")
        put(data, "exit_reason", failed.word)
        load_host_state(lp, data)
        return failed
    load_guest_state(lp, data)
    lp.non_root = True
    current(lp).launched = True
    return Guest(f"{name}.host")


# --- the instructions


def _decide(
    table: CheckTable[VmxOperand, _Result], platform: Platform, lp: Lp, pointer: int = NONE
) -> Fault | VmExit | VmFailInvalid | VmFailValid | None:
    """Walk an instruction's list and give its outcome the form the flags and the VMCS need."""
    row = table.decide(VmxOperand(platform, lp, pointer), platform.revision)
    if row is None:
        return None
    match row.result:
        case None:
            return fail_invalid(lp, row.id)
        case Fault(vector=vector, code=code):
            return Fault(vector, code, row.id)
        case _Exit(reason=reason):
            return vm_exit(platform, lp, VmExit(reason, 0, False, row.id), 3)
        case VmxError() as error:
            return fail(lp, error, row.id)
        case _ as never:
            assert_never(never)


def _simple(
    name: str, table: CheckTable[VmxOperand, _Result], effect: Callable[[Platform, Lp, int], None]
) -> Callable[[Platform, int, int], VmxOutcome]:
    clause(f"{name}.effect", f"{name}: effect, then VMsucceed", f"SDM vol. 3C {name}")

    @implements(f"{name}.effect")
    def instruction(platform: Platform, lp_id: int, pointer: int = NONE) -> VmxOutcome:
        lp = platform.lp(lp_id)
        outcome: VmxOutcome | None = _decide(table, platform, lp, pointer)
        if outcome is None:
            effect(platform, lp, pointer)
            succeed(lp)
            outcome = Done(f"{name}.effect")
        if platform.listeners:
            platform.emit(InstructionEnded(lp_id, name, str(outcome), outcome.clause))
        return outcome

    instruction.__name__ = name.lower()
    instruction.__doc__ = f"{name}: walk the {name} table, then its effect (SDM vol. 3C)."
    return instruction


def _vmxon(platform: Platform, lp: Lp, pointer: int) -> None:
    lp.vmx_on = True
    lp.vmxon_ptr = pointer
    lp.non_root = False
    lp.current_vmcs = NONE


def _vmxoff(platform: Platform, lp: Lp, pointer: int) -> None:
    for at in list(lp.vmcs_cache):
        flush(platform, lp, at, "VMXOFF")
    lp.vmx_on = False
    lp.vmxon_ptr = lp.current_vmcs = NONE


def _vmptrld(platform: Platform, lp: Lp, pointer: int) -> None:
    activate(platform, lp, pointer)
    lp.current_vmcs = pointer


def _vmclear(platform: Platform, lp: Lp, pointer: int) -> None:
    flush(platform, lp, pointer, "VMCLEAR")
    if lp.current_vmcs == pointer:
        lp.current_vmcs = NONE


vmxon = _simple("VMXON", VMXON, _vmxon)
_vmxoff_instruction = _simple("VMXOFF", VMXOFF, _vmxoff)
vmptrld = _simple("VMPTRLD", VMPTRLD, _vmptrld)
vmclear = _simple("VMCLEAR", VMCLEAR, _vmclear)


def vmxoff(platform: Platform, lp_id: int) -> VmxOutcome:
    """VMXOFF: every active VMCS is written back, VMX operation ends; #GP(0) in SEAM root (X2)."""
    return _vmxoff_instruction(platform, lp_id, NONE)


@implements("VMPTRST.effect", "the current-VMCS pointer is stored", "SDM vol. 3C VMPTRST")
def vmptrst(platform: Platform, lp_id: int) -> int | Fault | VmExit | VmFailInvalid | VmFailValid:
    """VMPTRST.effect: the current-VMCS pointer (all ones when there is none)."""
    lp = platform.lp(lp_id)
    outcome = _decide(VMPTRST, platform, lp)
    if outcome is not None:
        return outcome
    succeed(lp)
    return lp.current_vmcs


@implements("VMREAD.effect", "the field's value is read from the current VMCS", "SDM vol. 3C VMREAD")
def vmread(platform: Platform, lp_id: int, encoding: int) -> int | Fault | VmExit | VmFailInvalid | VmFailValid:
    """VMREAD.effect: a field of the current VMCS by encoding; unknown ones raise :class:`NotModelled`."""
    lp = platform.lp(lp_id)
    outcome = _decide(VMREAD, platform, lp)
    if outcome is not None:
        return outcome
    field = field_of(encoding)
    succeed(lp)
    return get(current(lp).data, field.name)


@implements("VMWRITE.effect", "the field of the current VMCS takes the value", "SDM vol. 3C VMWRITE")
def vmwrite(platform: Platform, lp_id: int, encoding: int, value: int) -> VmxOutcome:
    """VMWRITE.effect: write a field of the current VMCS by encoding; exit-information fields cannot be written."""
    lp = platform.lp(lp_id)
    outcome = _decide(VMWRITE, platform, lp)
    if outcome is not None:
        return outcome
    field = field_of(encoding)
    if field.read_only:
        return fail_valid(lp, VmxError.VMWRITE_READ_ONLY_COMPONENT, "VMWRITE.effect")
    put(current(lp).data, field.name, value)
    succeed(lp)
    return Done("VMWRITE.effect")


def _vm_entry(name: str, table: CheckTable[VmxOperand, _Result]) -> Callable[[Platform, int], VmEntryOutcome]:
    def instruction(platform: Platform, lp_id: int) -> VmEntryOutcome:
        lp = platform.lp(lp_id)
        outcome: VmEntryOutcome | None = _decide(table, platform, lp)
        if outcome is None:
            outcome = _enter(platform, lp, name)
        if platform.listeners:
            platform.emit(InstructionEnded(lp_id, name, str(outcome), outcome.clause))
        return outcome

    instruction.__name__ = name.lower()
    instruction.__doc__ = f"{name}: walk the {name} table, then enter VMX non-root operation (SDM vol. 3C; X2)."
    return instruction


vmlaunch = _vm_entry("VMLAUNCH", VMLAUNCH)
vmresume = _vm_entry("VMRESUME", VMRESUME)


def vmcall(platform: Platform, lp_id: int) -> Fault | VmExit:
    """VMCALL: #GP(0) in SEAM root (X2), VM exit 18 in VMX non-root operation; the SMM monitor is not modelled."""
    lp = platform.lp(lp_id)
    if not lp.vmx_on:
        return Fault(Vector.UD, None, "VMCALL.vmx")
    if lp.non_root:
        return vm_exit(platform, lp, VmExit(ExitReason.VMCALL, 0, False, "VMCALL.non_root"), 3)
    if lp.inSEAM:
        return Fault(Vector.GP, 0, "VMCALL.seam")
    raise NotModelled("VMCALL to an SMM-transfer monitor", "VMCALL.smm")


clause("VMCALL.vmx", "not in VMX operation", "SDM vol. 3C VMCALL")
clause("VMCALL.non_root", "in VMX non-root operation: VM exit", "SDM vol. 3C VMCALL")
clause("VMCALL.seam", "in SEAM VMX root operation", "X2 other instructions")
clause("VMCALL.smm", "VMCALL to an SMM-transfer monitor", "SDM vol. 3C VMCALL")
