"""Into a TD and out of it: TDH.VP.ENTER, TD exits, and the functions a TD calls (TDXM td_transitions, td_dispatcher).

The first entry behind an update is where the module's replacement is noticed: LAST_SEAMDB_INDEX of the vCPU differs
from the module's, so all host state in the TD VMCS is written anew before the TD is entered.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha384
from typing import TYPE_CHECKING

from seamref.arch.lp import GPRS, Lp
from seamref.arch.outcome import Done, ExitReason, Guest
from seamref.arch.seam import seam_cvp
from seamref.arch.seamops import SeamopsLeaf, SeamopsStatus, seamops
from seamref.arch.software import Running, StepOutcome, Ud2
from seamref.arch.structures import REPORTMACSTRUCT
from seamref.arch.trace import Step
from seamref.arch.vmcs import BY_NAME
from seamref.arch.vmx import vmlaunch, vmresume, vmwrite
from seamref.spec import Check, CheckTable, implements
from seamref.tdxmodule.core import Answer, At, Call, Lock, View, finish, leaf, vmcs_field
from seamref.tdxmodule.status import SUCCESS, Operand, Result, Status
from seamref.tdxmodule.structures import (
    HOST_FIELDS,
    NOT_ASSOCIATED,
    TDINFO,
    TDREPORT,
    TDVPS_PAGES,
    LastExit,
    OpState,
    PageType,
    VcpuState,
)
from seamref.tdxmodule.system.common import msr_of
from seamref.tdxmodule.td.checks import SEPT_PRESENT, owner, owner_of, page, td_state, tdr_behind, tsc_adjust_differs
from seamref.tdxmodule.td.sept import TDR_MASK, sept_walk
from seamref.tdxmodule.td.vp_init import associate, load_vmcs, td_vmcs

if TYPE_CHECKING:
    from seamref.arch.platform import Platform

S = Status
_E = "TDXM src/td_transitions/tdh_vp_enter.c"
_OWNER = tdr_behind("rcx", TDR_MASK)
MODULE_FIELDS = tuple(n for n in HOST_FIELDS if n not in ("host_rsp", "host_ssp", "host_gs_base"))
"""Host-state fields that depend on the module; the other three depend on the processor."""


def write_field(c: Call, name: str, value: int) -> None:
    """VMWRITE into the current VMCS."""
    outcome = vmwrite(c.platform, c.lp.id, BY_NAME[name].encoding, value)
    if not isinstance(outcome, Done):
        raise Ud2(f"VMWRITE {name}: {outcome}")


# --- TDH.VP.ENTER (0) -------------------------------------------------------------------------------------------


def _tdvps(c: Call) -> View:
    return c.tdvps(c.rcx & TDR_MASK, _OWNER(c))


ENTER_FIRST: CheckTable[Call, Answer] = CheckTable("TDH.VP.ENTER operands", (
    Check("VP.ENTER.limit_cpuid", "IA32_MISC_ENABLE limits CPUID", lambda c: bool(msr_of(c, 0x1A0) >> 22 & 1),
          Answer(S.TDX_LIMIT_CPUID_MAXVAL_SET), _E),
    Check("VP.ENTER.rcx", "reserved bits of RCX are not 0 (all but 51:12, 52, 53)",
          lambda c: bool(c.rcx & (0xFFF | ~((1 << 54) - 1))), Answer(S.TDX_OPERAND_INVALID, Operand.RCX), _E),
), "TDH.VP.ENTER (leaf 0): the first conditions; then TDVPR, TDR, TD state.")
ENTER: CheckTable[Call, Answer] = CheckTable("TDH.VP.ENTER", (
    Check("VP.ENTER.pages", "pages of the vCPU are missing", lambda c: _tdvps(c).num("num_tdcx") < TDVPS_PAGES - 1,
          Answer(S.TDX_TDCX_NUM_INCORRECT), _E),
    Check("VP.ENTER.state", "the vCPU is not READY", lambda c: _tdvps(c).num("state") != VcpuState.READY,
          Answer(S.TDX_VCPU_STATE_INCORRECT), _E),
    Check("VP.ENTER.associated", "the vCPU is associated with another processor",
          lambda c: _tdvps(c).num("assoc_lpid") not in (NOT_ASSOCIATED, c.local.num("lp_id")),
          Answer(S.TDX_VCPU_ASSOCIATED), _E),
    Check("VP.ENTER.flags", "flags 52 or 53 where nothing of that kind is pending", lambda c: bool(c.rcx >> 52),
          Answer(S.TDX_OPERAND_INVALID, Operand.RCX), _E),
    Check("VP.ENTER.tsc_adjust", "IA32_TSC_ADJUST is not what TDH.SYS.INIT saw", tsc_adjust_differs,
          Answer(S.TDX_INCONSISTENT_MSR, found=True), _E),
    Check("VP.ENTER.epoch", "another processor holds TD_EPOCH",
          lambda c: not c.lock("s", c.tdcs(_OWNER(c)).address("epoch_lock"), linear=False),
          Answer(S.TDX_OPERAND_BUSY, Operand.TD_EPOCH), _E),
), "TDH.VP.ENTER: conditions in order, behind TDVPR, TDR and TD state.")


@implements("VP.ENTER.replaced", "LAST_SEAMDB_INDEX differs from the module's: all host state is to be set anew", _E)
def _notice_update(c: Call, tdvps: View) -> None:
    """VP.ENTER.replaced: two loads with an equal index would not be noticed."""
    if tdvps.num("last_seamdb_index") != c.glob.num("seamdb_index"):
        tdvps.set("module_state_valid", 0)
        tdvps.set("lp_state_valid", 0)
        tdvps.set("last_seamdb_index", c.glob.num("seamdb_index"))
        if c.platform.listeners:
            c.platform.emit(Step(c.lp.id, "TDX module", "VP.ENTER", "module was replaced: host state set anew"))


@implements("VP.ENTER.host_state",
            "host RIP, CR3, bases, selectors of this module; RSP, SSP, GS base of this processor", _E)
def _host_state(c: Call, tdvps: View) -> None:
    """VP.ENTER.host_state."""
    sampled = dict(zip(HOST_FIELDS, c.local.get("host_state"), strict=True))
    if not tdvps.num("module_state_valid"):
        for name in MODULE_FIELDS:
            write_field(c, name, sampled[name])
        tdvps.set("module_state_valid", 1)
    if not tdvps.num("lp_state_valid"):
        for name in HOST_FIELDS:
            if name not in MODULE_FIELDS:
                write_field(c, name, sampled[name])
        tdvps.set("lp_state_valid", 1)


@implements("VP.ENTER.effect",
            "associated, ACTIVE, registers loaded; the TD runs while TDVPR and TDR stay locked shared", _E)
def _enter(c: Call) -> Result | Guest:
    """VP.ENTER.effect."""
    tdvpr, tdr_pa = c.rcx & TDR_MASK, owner_of(c, c.rcx & TDR_MASK)
    tdr = c.tdr(tdr_pa)
    tdcs, tdvps = c.tdcs(tdr), c.tdvps(tdvpr, tdr)
    if tdvps.num("assoc_lpid") == NOT_ASSOCIATED:
        associate(c, tdcs, tdvps)
    _notice_update(c, tdvps)
    if c.local.num("last_tdvpr") != tdvpr:
        if c.platform.listeners:
            c.platform.emit(Step(c.lp.id, "TDX module", "IBPB", "another vCPU ran here last"))
        c.local.set("last_tdvpr", tdvpr)
    load_vmcs(c, td_vmcs(c, tdvps, tdr))
    _host_state(c, tdvps)
    write_field(c, "shared_eptp", tdvps.num("shared_eptp"))
    if tdvps.num("last_exit") == LastExit.TDVMCALL:
        _answer_vmcall(c, tdvps)
    epoch = tdcs.num("td_epoch")
    tdvps.set("vcpu_epoch", epoch)
    tdcs.set(f"refcount[{epoch & 1}]", tdcs.num(f"refcount[{epoch & 1}]") + 1)
    tdvps.set("state", VcpuState.ACTIVE)
    c.local.set("tdvpr", tdvpr)
    c.local.set("tdr", tdr_pa)
    stay = page_locks(c, tdvpr, tdr_pa)
    for lock in stay:
        c.held.remove(lock)
    c.unlock()  # OP_STATE and TD_EPOCH are released, the two pages stay locked
    return enter_guest(c, tdvps)


def page_locks(c: Call, tdvpr: int, tdr_pa: int) -> list[Lock]:
    """The two shared page locks that are held while a TD runs."""
    return [Lock("S", False, c.pamt(pa).address("lock")) for pa in (tdvpr, tdr_pa)]


def _answer_vmcall(c: Call, tdvps: View) -> None:
    """The host's registers of the mask go to the guest, RAX = 0; RIP was moved at the exit."""
    mask = tdvps.num("vmcall_mask")
    for number, name in enumerate(GPRS):
        if mask >> number & 1 and name not in ("rax", "rcx", "rsp"):
            tdvps.set(f"gprs[{number}]", c.reg(name))
    tdvps.set("gprs[0]", 0)


def enter_guest(c: Call, tdvps: View) -> Guest:
    """Load the guest's registers; VMLAUNCH or, once launched, VMRESUME."""
    for name, value in zip(GPRS, tdvps.get("gprs"), strict=True):
        if name != "rsp":
            setattr(c.lp, name, value)
    launched = tdvps.num("launched")
    tdvps.set("launched", 1)
    c.lp.program_state = None
    outcome = (vmresume if launched else vmlaunch)(c.platform, c.lp.id)
    if not isinstance(outcome, Guest):
        raise Ud2(f"VM entry: {outcome}")
    return outcome


leaf(0, "TDH.VP.ENTER", "run a vCPU", stages=(
    ENTER_FIRST, page("rcx", PageType.TDVPR, "s", TDR_MASK), owner("rcx", TDR_MASK), td_state(_OWNER, OpState.RUNNABLE),
    ENTER), effects=(_enter,), inputs="RCX TDVPR and flags")

# --- TD exits ---------------------------------------------------------------------------------------------------

_X = "TDXM src/td_transitions/td_exit.c"


def running(c: Call) -> tuple[View, View, View]:
    """(TDR, TDCS, TDVPS) of the vCPU that runs on this processor."""
    tdr = c.tdr(c.local.num("tdr"))
    return tdr, c.tdcs(tdr), c.tdvps(c.local.num("tdvpr"), tdr)


@implements("TD.EXIT.save", "the guest's registers are saved in the TDVPS; an exit reason with bit 29 is fatal", _X)
def td_exit(platform: Platform, lp: Lp) -> StepOutcome:
    """TD.EXIT.save: entered from a TD, the TD VMCS is current."""
    call = Call(platform, lp)
    _, _, tdvps = running(call)
    rsp = GPRS.index("rsp")
    values = [getattr(lp, name) for name in GPRS]
    values[rsp] = vmcs_field(platform, lp, "guest_rsp")
    tdvps.set("gprs", b"".join(value.to_bytes(8, "little") for value in values))
    for name in GPRS:
        if name != "rsp":
            setattr(lp, name, 0)
    word = vmcs_field(platform, lp, "exit_reason")
    if word >> 29 & 1:
        raise Ud2("a TD exit with bit 29 set")
    reason = word & 0xFFFF
    lp.program_state = At("tdcall" if reason == ExitReason.TDCALL else "exit_td")
    return Running(f"TD exit {reason}")


def back_to_seam_vmcs(c: Call) -> None:
    """VMPTRLD of this processor's transfer VMCS."""
    load_vmcs(c, seam_cvp(c.platform, c.lp))


@implements("TD.EXIT.host", "vCPU READY, locks released, RAX = status with the exit reason, back to the host", _X)
def exit_td(c: Call) -> StepOutcome:
    """TD.EXIT.host: asynchronous exits.  RCX qualification, R8 guest physical address, R9 interruption information."""
    reason = vmcs_field(c.platform, c.lp, "exit_reason") & 0xFFFF
    status = SUCCESS.status
    if reason in (ExitReason.TRIPLE_FAULT, ExitReason.SEAMCALL):
        reason, status = ExitReason.TRIPLE_FAULT, S.TDX_NON_RECOVERABLE_VCPU  # an injected #UD finds no IDT in a guest
    c.out(rcx=vmcs_field(c.platform, c.lp, "exit_qualification"), rdx=0,
          r8=vmcs_field(c.platform, c.lp, "guest_physical_address"),
          r9=vmcs_field(c.platform, c.lp, "exit_interruption_info"), r10=0, r11=0)
    _, _, tdvps = running(c)
    tdvps.set("last_exit", LastExit.ASYNC_FAULT)
    state = VcpuState.READY if status is S.TDX_SUCCESS else VcpuState.DISABLED
    return _leave_td(c, tdvps, state, Result(status, reason))


def _leave_td(c: Call, tdvps: View, state: VcpuState, result: Result) -> StepOutcome:
    _, tdcs, _ = running(c)
    slot = f"refcount[{tdvps.num('vcpu_epoch') & 1}]"
    tdcs.set(slot, tdcs.num(slot) - 1)
    tdvps.set("state", state)
    c.held = page_locks(c, c.local.num("tdvpr"), c.local.num("tdr"))
    c.local.set("tdvpr", 0)
    c.local.set("tdr", 0)
    back_to_seam_vmcs(c)
    return finish(c, result)


@implements("TD.RESUME", "the guest goes on behind its TDCALL", _X)
def resume(c: Call) -> StepOutcome:
    """TD.RESUME."""
    _, _, tdvps = running(c)
    return enter_guest(c, tdvps)


# --- what a TD calls --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ExitTd:
    """A guest-side function that ends in the host: a status, and whether the guest's RIP moves."""

    result: Result
    kind: LastExit


@dataclass(frozen=True, slots=True)
class GuestCall:
    """A TDCALL: the call and the TD's structures."""

    c: Call
    tdr: View
    tdcs: View
    tdvps: View

    def reg(self, name: str) -> int:
        """A register of the guest."""
        return self.tdvps.num(f"gprs[{GPRS.index(name)}]")

    def out(self, **values: int) -> None:
        """Set registers of the guest."""
        for name, value in values.items():
            self.tdvps.set(f"gprs[{GPRS.index(name)}]", value & (1 << 64) - 1)

    def private(self, gpa: int) -> int | None:
        """Physical address (with KeyID) of a private GPA, ``None`` where nothing is mapped."""
        walk = sept_walk(self.c, self.tdr, gpa, 0)
        if walk.level != 0 or not walk.entry & SEPT_PRESENT:
            return None
        return self.c.with_hkid(walk.entry & 0x000FFFFFFFFFF000 | gpa & 0xFFF, self.tdr.num("hkid"))


@dataclass(frozen=True, slots=True)
class GuestLeaf:
    """A guest-side function."""

    number: int
    name: str
    says: str
    checks: CheckTable[GuestCall, Answer] | None
    effect: Callable[[GuestCall], Result | ExitTd]


GUEST_LEAVES: dict[int, GuestLeaf] = {}


def guest_leaf(number: int, name: str, says: str, effect: Callable[[GuestCall], Result | ExitTd],
               checks: CheckTable[GuestCall, Answer] | None = None) -> None:
    """Declare a guest-side function."""
    GUEST_LEAVES[number] = GuestLeaf(number, name, says, checks, effect)


_D = "TDXM src/td_dispatcher/tdx_td_dispatcher.c"
TDCALL_DISPATCH: CheckTable[GuestCall, Answer] = CheckTable("TDCALL dispatcher", (
    Check("TDG.reserved", "RAX[63:24] is not 0", lambda g: g.reg("rax") >> 24 != 0,
          Answer(S.TDX_OPERAND_INVALID, Operand.RAX), _D),
    Check("TDG.version", "RAX[23:16] is not 0", lambda g: g.reg("rax") >> 16 & 0xFF != 0,
          Answer(S.TDX_OPERAND_INVALID, Operand.RAX), _D),
    Check("TDG.leaf", "no such leaf", lambda g: g.reg("rax") & 0xFFFF not in GUEST_LEAVES,
          Answer(S.TDX_OPERAND_INVALID, Operand.RAX), _D),
), "What the module looks at when a TD executes TDCALL.")


@implements("TDG.call", "checks, effect, RAX = status, RIP behind TDCALL; some functions end in the host", _D)
def tdcall(c: Call) -> StepOutcome:
    """TDG.call."""
    tdr, tdcs, tdvps = running(c)
    g = GuestCall(c, tdr, tdcs, tdvps)
    row = TDCALL_DISPATCH.decide(g)
    outcome: Result | ExitTd
    if row is not None:
        outcome = row.result.result(c)
    else:
        found = GUEST_LEAVES[g.reg("rax") & 0xFFFF]
        row = found.checks.decide(g) if found.checks is not None else None
        outcome = found.effect(g) if row is None else row.result.result(c)
        if c.platform.listeners:
            said = outcome.result if isinstance(outcome, ExitTd) else outcome
            c.platform.emit(Step(c.lp.id, "TDX module", found.name, str(said)))
    c.unlock()
    if isinstance(outcome, ExitTd) and outcome.kind is LastExit.ASYNC_FAULT:
        if outcome.result.status is not S.TDX_SUCCESS:
            tdr.set("fatal", 1)
        tdvps.set("last_exit", LastExit.ASYNC_FAULT)
        state = VcpuState.READY if outcome.result.status is S.TDX_SUCCESS else VcpuState.DISABLED
        return _leave_td(c, tdvps, state, outcome.result)
    rip = vmcs_field(c.platform, c.lp, "guest_rip") + vmcs_field(c.platform, c.lp, "exit_instruction_length")
    write_field(c, "guest_rip", rip & (1 << 64) - 1)
    if isinstance(outcome, ExitTd):
        tdvps.set("last_exit", outcome.kind)
        return _leave_td(c, tdvps, VcpuState.READY, outcome.result)
    g.out(rax=outcome.rax)
    tdvps.set("last_exit", LastExit.ASYNC_TRAP)
    c.lp.program_state = At("resume")
    return Running(str(outcome))


VMCALL_REGISTERS = 0xFFEC
"""Registers that TDG.VP.VMCALL may pass: RDX, RBX, RBP, RSI, RDI, R8..R15 (bits of RCX in encoding order)."""
_VC = "TDXM src/td_dispatcher/vm_exits/tdg_vp_vmcall.c"
VMCALL: CheckTable[GuestCall, Answer] = CheckTable("TDG.VP.VMCALL", (
    Check("TDG.VP.VMCALL.rcx", "RCX names a register that cannot be passed",
          lambda g: bool(g.reg("rcx") & ~VMCALL_REGISTERS), Answer(S.TDX_OPERAND_INVALID, Operand.RCX), _VC),
), "TDG.VP.VMCALL (leaf 0): conditions in order.")


@implements("TDG.VP.VMCALL.effect", "exit to the host with the registers of the mask; the others read 0", _VC)
def _vmcall(g: GuestCall) -> ExitTd:
    """TDG.VP.VMCALL.effect."""
    mask = g.reg("rcx")
    g.tdvps.set("vmcall_mask", mask)
    for number, name in enumerate(GPRS):
        if name not in ("rax", "rsp"):
            g.c.out(**{name: g.reg(name) if mask >> number & 1 else 0})
    g.c.out(rcx=mask)
    return ExitTd(Result(S.TDX_SUCCESS, int(ExitReason.TDCALL)), LastExit.TDVMCALL)


guest_leaf(0, "TDG.VP.VMCALL", "ask the host", _vmcall, VMCALL)


@implements("TDG.VP.INFO.effect", "RCX GPA width, RDX ATTRIBUTES, R8 vCPUs, R9 vCPU index",
            "TDXM src/td_dispatcher/vm_exits/tdg_vp_info.c")
def _info(g: GuestCall) -> Result:
    """TDG.VP.INFO.effect."""
    g.out(rcx=48, rdx=g.tdcs.num("attributes"), r8=g.tdcs.num("num_vcpus") | g.tdcs.num("max_vcpus") << 32,
          r9=g.tdvps.num("index"), r10=0, r11=0)
    return SUCCESS


guest_leaf(1, "TDG.VP.INFO", "what the vCPU is", _info)


def _rtmr_locked(g: GuestCall) -> bool:
    return not g.c.lock("x", g.tdcs.address("rtmr_lock"), linear=False)


def violation(g: GuestCall, gpa: int) -> ExitTd:
    """An operand's page is not mapped: EPT-violation exit; the TDCALL is executed again when the host has mapped it."""
    g.c.out(rcx=1, rdx=0, r8=gpa, r9=0, r10=0, r11=0)
    return ExitTd(Result(S.TDX_SUCCESS, int(ExitReason.EPT_VIOLATION)), LastExit.ASYNC_FAULT)


_RT = "TDXM src/td_dispatcher/vm_exits/tdg_mr_rtmr_extend.c"
RTMR_EXTEND: CheckTable[GuestCall, Answer] = CheckTable("TDG.MR.RTMR.EXTEND", (
    Check("TDG.MR.RTMR.EXTEND.rcx", "GPA not 64-byte aligned, or not private",
          lambda g: g.reg("rcx") % 64 != 0 or g.reg("rcx") >> 47 != 0, Answer(S.TDX_OPERAND_INVALID, Operand.RCX), _RT),
    Check("TDG.MR.RTMR.EXTEND.rdx", "there are four RTMRs", lambda g: g.reg("rdx") > 3,
          Answer(S.TDX_OPERAND_INVALID, Operand.RDX), _RT),
    Check("TDG.MR.RTMR.EXTEND.lock", "another vCPU uses the RTMRs", _rtmr_locked,
          Answer(S.TDX_OPERAND_BUSY, Operand.RTMR), _RT),
), "TDG.MR.RTMR.EXTEND (leaf 2): conditions in order.")


@implements("TDG.MR.RTMR.EXTEND.effect", "RTMR = SHA-384(RTMR, 48 bytes)", _RT)
def _rtmr_extend(g: GuestCall) -> Result | ExitTd:
    """TDG.MR.RTMR.EXTEND.effect."""
    at = g.private(g.reg("rcx"))
    if at is None:
        return violation(g, g.reg("rcx"))
    name = f"rtmr[{g.reg('rdx')}]"
    g.tdcs.set(name, sha384(g.tdcs.raw(name) + g.c.port.read(at, 48)).digest())
    return SUCCESS


guest_leaf(2, "TDG.MR.RTMR.EXTEND", "extend a run-time measurement", _rtmr_extend, RTMR_EXTEND)

_MR = "TDXM src/td_dispatcher/vm_exits/tdg_mr_report.c"
REPORT: CheckTable[GuestCall, Answer] = CheckTable("TDG.MR.REPORT", (
    Check("TDG.MR.REPORT.rcx", "report GPA not 1024-byte aligned, or not private",
          lambda g: g.reg("rcx") % 1024 != 0 or g.reg("rcx") >> 47 != 0, Answer(S.TDX_OPERAND_INVALID, Operand.RCX),
          _MR),
    Check("TDG.MR.REPORT.rdx", "REPORTDATA GPA not 64-byte aligned, or not private",
          lambda g: g.reg("rdx") % 64 != 0 or g.reg("rdx") >> 47 != 0, Answer(S.TDX_OPERAND_INVALID, Operand.RDX), _MR),
    Check("TDG.MR.REPORT.r8", "subtype is not 0", lambda g: g.reg("r8") != 0, Answer(S.TDX_OPERAND_INVALID,
          Operand.R8), _MR),
    Check("TDG.MR.REPORT.lock", "another vCPU uses the RTMRs", _rtmr_locked, Answer(S.TDX_OPERAND_BUSY, Operand.RTMR),
          _MR),
), "TDG.MR.REPORT (leaf 4): conditions in order.")


def tdinfo(tdcs: View) -> bytes:
    """TDINFO from the TDCS."""
    names = ("attributes", "xfam", "mrtd", "mrconfigid", "mrowner", "mrownerconfig", "servtd_hash")
    values = {name: tdcs.get(name) for name in names}
    return TDINFO.encode({**values, "rtmr": [tdcs.raw(f"rtmr[{i}]") for i in range(4)]})


@implements("TDG.MR.REPORT.effect",
            "SEAMOPS[SEAMDB_REPORT] with the TDR's index and nonce: the module that created the TD",
            _MR)
def _report(g: GuestCall) -> Result | ExitTd:
    """TDG.MR.REPORT.effect: a mismatch with the database ends the TD: TDX_NON_RECOVERABLE_TD_CORRUPTED_MD."""
    c, lp = g.c, g.c.lp
    out, data = g.private(g.reg("rcx")), g.private(g.reg("rdx"))
    if out is None or data is None:
        return violation(g, g.reg("rcx") if out is None else g.reg("rdx"))
    info = tdinfo(g.tdcs)
    c.local.set("reportdata", c.port.read(data, 64))
    c.local.set("tdinfo_hash", sha384(info).digest().ljust(64, b"\0"))
    nonce = g.tdr.raw("seamdb_nonce")
    lp.rax, lp.rcx, lp.rdx = SeamopsLeaf.SEAMDB_REPORT, c.local.address("report"), 0x81
    lp.r8, lp.r9, lp.r10 = c.local.address("reportdata"), c.local.address("tdinfo_hash"), g.tdr.num("seamdb_index")
    lp.r11, lp.r12, lp.r13, lp.r14 = (int.from_bytes(nonce[i : i + 8], "little") for i in range(0, 32, 8))
    answer = seamops(c.platform, lp.id)
    if not isinstance(answer, Done):
        raise Ud2(f"SEAMOPS[SEAMDB_REPORT]: {answer}")
    if lp.rax != int(SeamopsStatus.SUCCESS):
        c.out(rcx=0, rdx=0, r8=0, r9=0, r10=0, r11=0)
        return ExitTd(Result(S.TDX_NON_RECOVERABLE_TD_CORRUPTED_MD, int(ExitReason.TDCALL)), LastExit.ASYNC_FAULT)
    made = bytearray(c.local.raw("report")[: TDREPORT.offset_of("reserved")].ljust(TDREPORT.offset_of("tdinfo"), b"\0"))
    c.port.write(out, bytes(made) + info)
    return SUCCESS


guest_leaf(4, "TDG.MR.REPORT", "a report of the TD for a verifier on this platform", _report, REPORT)

_VR = "TDXM src/td_dispatcher/vm_exits/tdg_mr_verifyreport.c"
VERIFYREPORT: CheckTable[GuestCall, Answer] = CheckTable("TDG.MR.VERIFYREPORT", (
    Check("TDG.MR.VERIFYREPORT.capability", "SEAMOPS has no SEAMVERIFYREPORT",
          lambda g: not g.c.glob.num("seam_capabilities") >> SeamopsLeaf.SEAMVERIFYREPORT & 1,
          Answer(S.TDX_OPERAND_INVALID, Operand.RAX), _VR),
    Check("TDG.MR.VERIFYREPORT.rcx", "GPA not 256-byte aligned, or not private",
          lambda g: g.reg("rcx") % 256 != 0 or g.reg("rcx") >> 47 != 0, Answer(S.TDX_OPERAND_INVALID, Operand.RCX),
          _VR),
), "TDG.MR.VERIFYREPORT (leaf 22): conditions in order.")
VERIFIED: CheckTable[Call, Answer] = CheckTable("SEAMVERIFYREPORT result", (
    Check("TDG.MR.VERIFYREPORT.cpusvn", "CPUSVN not supported", lambda c: c.lp.rax == SeamopsStatus.INVALID_CPUSVN,
          Answer(S.TDX_INVALID_CPUSVN), _VR),
    Check("TDG.MR.VERIFYREPORT.mac", "not a report of this platform",
          lambda c: c.lp.rax == SeamopsStatus.INVALID_REPORTMACSTRUCT, Answer(S.TDX_INVALID_REPORTMACSTRUCT), _VR),
), "What SEAMOPS[SEAMVERIFYREPORT] answered.")


@implements("TDG.MR.VERIFYREPORT.effect", "SEAMOPS[SEAMVERIFYREPORT] over the TD's copy", _VR)
def _verifyreport(g: GuestCall) -> Result | ExitTd:
    """TDG.MR.VERIFYREPORT.effect."""
    c, lp = g.c, g.c.lp
    at = g.private(g.reg("rcx"))
    if at is None:
        return violation(g, g.reg("rcx"))
    c.local.set("report", c.port.read(at, REPORTMACSTRUCT.size).ljust(1024, b"\0"))
    lp.rax, lp.rbx = SeamopsLeaf.SEAMVERIFYREPORT, c.local.address("report")
    seamops(c.platform, lp.id)
    row = VERIFIED.decide(c)
    return SUCCESS if row is None else row.result.result(c)


guest_leaf(22, "TDG.MR.VERIFYREPORT", "verify another TD's report", _verifyreport, VERIFYREPORT)

__all__ = ["ENTER", "GUEST_LEAVES", "REPORT", "td_exit", "tdcall"]
