"""Events that no instruction asks for: shutdown, SMI, NMI, machine check, INIT."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, TypeAlias, assert_never

from seamref.arch.lp import CR4_MCE, Activity, Lp
from seamref.arch.msr import MCG_STATUS
from seamref.arch.outcome import ExitReason, Fault, Shutdown, Vector, VmExit
from seamref.arch.structures import SEAMEXTEND
from seamref.arch.trace import WentDown
from seamref.arch.vmx import vm_exit
from seamref.spec import CHOSEN, clause, implements

if TYPE_CHECKING:
    from seamref.arch.platform import Platform


class EventKind(Enum):
    """Asynchronous events."""

    SMI = "SMI"
    NMI = "NMI"
    INTR = "external interrupt"
    MC = "machine check"
    INIT = "INIT"
    SIPI = "SIPI"
    TRIPLE_FAULT = "triple fault"


@dataclass(frozen=True, slots=True)
class Delivered:
    """The event was taken: the processor runs the handler of its mode."""

    kind: EventKind
    clause: str

    def __str__(self) -> str:
        return f"{self.kind.value} delivered"


@dataclass(frozen=True, slots=True)
class Pending:
    """The event waits: it is visible in MSR_INTR_PENDING and delivered when nothing inhibits it any more."""

    kind: EventKind
    clause: str

    def __str__(self) -> str:
        return f"{self.kind.value} pending"


@dataclass(frozen=True, slots=True)
class Discarded:
    """The event has no effect in this state."""

    kind: EventKind
    clause: str

    def __str__(self) -> str:
        return f"{self.kind.value} discarded"


NMI_INFO, MC_INFO = 1 << 31 | 2 << 8 | 2, 1 << 31 | 3 << 8 | int(Vector.MC)
"""VM-exit interruption information: valid, type (2 NMI, 3 hardware exception), vector."""

MCIP, SEAM_NR = 1 << 2, 1 << 12
"""MCG_STATUS: machine check in progress; the saved RIP is not where it occurred, since SEAM was left before."""

EventOutcome: TypeAlias = Delivered | Pending | Discarded | VmExit | Shutdown | Fault

clause("EVENT.shutdown_in_SEAM", "shutdown in SEAM, root or non-root: both modules are marked not loaded, on every LP",
       "X2 events")
clause("EVENT.smi", "SMI: inhibited in SEAM root since SEAMCALL; VM exit in SEAM non-root, where it stays pending",
       "X2 events; SMI")
clause("EVENT.nmi", "NMI: inhibited at SEAM entry; VM exit from a guest consumes it", "X2 events; NMI")
clause("EVENT.intr", "external interrupt: by RFLAGS.IF in root, VM exit from a guest", "X2 events")
clause("EVENT.mc", "machine check: with CR4.MCE = 0 (SEAM root) the processor shuts down", "X2 events; MCE")
clause("EVENT.init", "INIT: blocked in VMX root, VM exit from a guest", "SDM vol. 3C ch. 26", CHOSEN)
clause("EVENT.sipi", "SIPI: starts a processor that waits for it, VM exit from a guest, else discarded",
       "SDM vol. 3C ch. 26", CHOSEN)
clause("EVENT.triple_fault", "triple fault: VM exit 2 from a guest, else shutdown", "SDM vol. 3C ch. 26")


@implements("EVENT.shutdown_in_SEAM")
def shutdown(platform: Platform, lp_id: int, cause: str) -> Shutdown:
    """EVENT.shutdown_in_SEAM: a processor enters the shutdown state; ``inSEAM`` stays as it was.

    In SEAM, root or non-root, SEAM_READY and P_SEAMLDR_READY are cleared first, so that every later SEAMCALL on any
    processor is VMfailInvalid.  Recovery: platform reset, or NP-SEAMLDR again.
    """
    lp = platform.lp(lp_id)
    if lp.inSEAM:
        register = bytearray(platform.SEAMEXTEND)
        SEAMEXTEND.poke(register, "seam_ready", 0)
        SEAMEXTEND.poke(register, "p_seamldr_ready", 0)
        platform.set_SEAMEXTEND(lp, bytes(register))
    lp.activity = Activity.SHUTDOWN
    lp.program = lp.program_state = None
    platform.emit(WentDown(lp_id, lp.inSEAM, cause))
    return Shutdown(cause, lp.inSEAM, "EVENT.shutdown_in_SEAM")


def raise_event(platform: Platform, lp_id: int, kind: EventKind) -> EventOutcome:
    """Let an event arrive at a processor: delivered, pending, discarded, a VM exit, or shutdown."""
    lp = platform.lp(lp_id)
    if lp.activity is Activity.SHUTDOWN:
        return Discarded(kind, "EVENT.shutdown_in_SEAM")
    match kind:
        case EventKind.SMI:
            return _smi(platform, lp)
        case EventKind.NMI:
            return _nmi(platform, lp)
        case EventKind.INTR:
            return _intr(platform, lp)
        case EventKind.MC:
            return _mc(platform, lp)
        case EventKind.INIT:
            return _init(platform, lp)
        case EventKind.SIPI:
            return _sipi(platform, lp)
        case EventKind.TRIPLE_FAULT:
            return _triple_fault(platform, lp)
        case _ as never:
            assert_never(never)


@implements("EVENT.smi")
def _smi(platform: Platform, lp: Lp) -> EventOutcome:
    """EVENT.smi."""
    if lp.is_SEAM_non_root():
        lp.smi_pending = True  # the exit does not consume it: the module SEAMRETs, then the host takes it
        return vm_exit(platform, lp, VmExit(ExitReason.OTHER_SMI, 0, False, "EVENT.smi"))
    if lp.smi_inhibit or lp.senter_smi_inhibit or lp.in_smm or lp.is_SEAM_root():
        lp.smi_pending = True
        return Pending(EventKind.SMI, "EVENT.smi")
    lp.smi_pending = False
    return Delivered(EventKind.SMI, "EVENT.smi")


@implements("EVENT.nmi")
def _nmi(platform: Platform, lp: Lp) -> EventOutcome:
    """EVENT.nmi."""
    if lp.non_root:
        lp.nmi_inhibit = platform.revision.nmi_blocked_after_td and lp.inSEAM
        exit = VmExit(ExitReason.EXCEPTION_OR_NMI, 0, False, "EVENT.nmi")
        return vm_exit(platform, lp, exit, interruption=NMI_INFO)
    if lp.nmi_inhibit or (lp.is_SEAM_root() and platform.revision.events_blocked):
        lp.nmi_pending = True
        return Pending(EventKind.NMI, "EVENT.nmi")
    if lp.is_SEAM_root() and lp.idtr_base == 0:
        return shutdown(platform, lp.id, "NMI in SEAM root without an IDT")
    lp.nmi_pending = False
    return Delivered(EventKind.NMI, "EVENT.nmi")


@implements("EVENT.intr")
def _intr(platform: Platform, lp: Lp) -> EventOutcome:
    """EVENT.intr."""
    if lp.non_root:
        lp.intr_pending = True
        return vm_exit(platform, lp, VmExit(ExitReason.EXTERNAL_INTERRUPT, 0, False, "EVENT.intr"))
    blocked = not lp.rflags & 1 << 9 or lp.sti_blocking or lp.mov_ss_blocking
    if blocked or (lp.is_SEAM_root() and platform.revision.events_blocked):
        lp.intr_pending = True
        return Pending(EventKind.INTR, "EVENT.intr")
    lp.intr_pending = False
    return Delivered(EventKind.INTR, "EVENT.intr")


@implements("EVENT.mc")
def _mc(platform: Platform, lp: Lp) -> EventOutcome:
    """EVENT.mc."""
    if lp.non_root:
        status = MCIP | SEAM_NR if lp.inSEAM else MCIP  # the host that handles it runs after SEAMCALL (MCE)
        platform.set_msr(lp, MCG_STATUS, platform.msr_value(lp, MCG_STATUS) | status)
        exit = VmExit(ExitReason.EXCEPTION_OR_NMI, 0, False, "EVENT.mc")
        return vm_exit(platform, lp, exit, interruption=MC_INFO)
    if not lp.cr4 & CR4_MCE:
        return shutdown(platform, lp.id, "machine check with CR4.MCE = 0")
    platform.set_msr(lp, MCG_STATUS, platform.msr_value(lp, MCG_STATUS) | MCIP)
    return Delivered(EventKind.MC, "EVENT.mc")


@implements("EVENT.init")
def _init(platform: Platform, lp: Lp) -> EventOutcome:
    """EVENT.init."""
    if lp.non_root:
        return vm_exit(platform, lp, VmExit(ExitReason.INIT, 0, False, "EVENT.init"))
    if lp.vmx_on or lp.ACMODEFLAG:
        lp.init_pending = True
        return Pending(EventKind.INIT, "EVENT.init")
    lp.activity = Activity.WAIT_FOR_SIPI
    return Delivered(EventKind.INIT, "EVENT.init")


@implements("EVENT.sipi")
def _sipi(platform: Platform, lp: Lp) -> EventOutcome:
    """EVENT.sipi."""
    if lp.non_root:
        return vm_exit(platform, lp, VmExit(ExitReason.SIPI, 0, False, "EVENT.sipi"))
    if lp.activity is not Activity.WAIT_FOR_SIPI:
        return Discarded(EventKind.SIPI, "EVENT.sipi")
    lp.activity = Activity.ACTIVE
    return Delivered(EventKind.SIPI, "EVENT.sipi")


@implements("EVENT.triple_fault")
def _triple_fault(platform: Platform, lp: Lp) -> EventOutcome:
    """EVENT.triple_fault."""
    if lp.non_root:
        return vm_exit(platform, lp, VmExit(ExitReason.TRIPLE_FAULT, 0, False, "EVENT.triple_fault"))
    return shutdown(platform, lp.id, "triple fault")


def deliver_pending(platform: Platform, lp_id: int) -> tuple[EventOutcome, ...]:
    """What a processor takes once nothing inhibits it any more, in priority order: SMI, NMI, INTR."""
    lp = platform.lp(lp_id)
    taken: list[EventOutcome] = []
    if lp.smi_pending and not lp.smi_inhibit:
        taken.append(_smi(platform, lp))
    if lp.nmi_pending and not lp.nmi_inhibit:
        taken.append(_nmi(platform, lp))
    if lp.intr_pending:
        outcome = _intr(platform, lp)
        if not isinstance(outcome, Pending):
            taken.append(outcome)
    return tuple(taken)
