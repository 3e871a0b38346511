"""P-SEAMLDR as software in SEAM: dispatcher entry, leaf, exit, SEAMRET, as separable steps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from seamref.arch.lp import Lp
from seamref.arch.msr import PRED_CMD, SPEC_CTRL
from seamref.arch.outcome import ExitReason, VmFailInvalid, VmFailValid
from seamref.arch.seam import seamret
from seamref.arch.software import P_SEAMLDR_PROGRAM, Port, Running, StepOutcome, Ud2, register_program
from seamref.pseamldr.api import COMPONENT, Leaf, Status, get_leaf
from seamref.pseamldr.build import BUILD_OFFSET, P_SEAMLDR_BUILD, R10, Build, decode_build
from seamref.pseamldr.data import Call
from seamref.pseamldr.info import seamldr_info
from seamref.pseamldr.install import Installing, go_on, seamldr_install
from seamref.pseamldr.seaminfo import seamldr_seaminfo
from seamref.pseamldr.shutdown import seamldr_shutdown
from seamref.pseamldr.sysvalues import SystemValues, get_system_values
from seamref.spec import MEASURED, Check, CheckTable, implements

if TYPE_CHECKING:
    from seamref.arch.platform import Platform

_SRC = "PSL src/pseamldr_dispatcher/pseamldr_dispatcher.c"
_EXIT = "PSL src/pseamldr_dispatcher/pseamldr_dispatcher.c"

SSBD = 4
DEBUGCTL_MSR = 0x1D9
UNCORE_PMI = 1 << 13
STI_OR_MOV_SS = 3
BTF, TF, BS = 1 << 1, 1 << 8, 1 << 14

EXIT_REASON, INSTRUCTION_LENGTH = 0x4402, 0x440C
GUEST_RIP, GUEST_RFLAGS, GUEST_DEBUGCTL = 0x681E, 0x6820, 0x2802
GUEST_INTERRUPTIBILITY, GUEST_PENDING_DEBUG = 0x4824, 0x6822
HOST_FS_BASE = 0x6C06


class Stage(Enum):
    """Where in P-SEAMLDR a processor is, between two steps; ``None`` in program_state is the entry point."""

    LEAF = "registers saved, dispatcher entered"
    EXIT = "result known"
    LEAVE = "registers reloaded, SEAMRET comes next"


@dataclass(frozen=True, slots=True)
class EntryState:
    """What the dispatcher looks at: the exit reason, and the stack canary drawn on the first call."""

    exit_reason: int
    carry: int = 1
    canary: int = 1


@dataclass(frozen=True, slots=True)
class Fatal:
    """UD2: no status is returned, the processor shuts down."""

    cause: str


DISPATCH_REASON: CheckTable[EntryState, Fatal] = CheckTable("DISPATCH.reason", (
    Check("DISPATCH.exit_reason", "the basic exit reason of the transfer VMCS is not 76 (SEAMCALL)",
          lambda c: c.exit_reason & 0xFFFF != ExitReason.SEAMCALL, Fatal("exit reason is not SEAMCALL (F008H, 2)"),
              _SRC,
          MEASURED, lambda r: r != R10),
), "The dispatcher's own check; what stops is fatal.")

DISPATCH_CANARY: CheckTable[EntryState, Status] = CheckTable("DISPATCH.canary", (
    Check("DISPATCH.canary.entropy", "no stack canary yet, and RDRAND fails or gives 0; the next call tries again",
          lambda c: not c.carry or c.canary == 0, Status.EUNSPECERR, _SRC, MEASURED),
), "On the first call, before the leaf is looked at: RDX is not changed, whatever the leaf.")

DISPATCH_LEAF: CheckTable[int, Status] = CheckTable("DISPATCH.leaf", (
    Check("DISPATCH.leaf.unknown", "RAX names no leaf; RDX is not changed", lambda rax: get_leaf(rax) is None,
          Status.EBADPARAM, _SRC, MEASURED),
), "RAX, all 64 bits.")

_LEAVES: dict[Leaf, Callable[[Call, SystemValues], Status | Installing]] = {
    Leaf.INFO: seamldr_info,
    Leaf.INSTALL: seamldr_install,
    Leaf.SHUTDOWN: seamldr_shutdown,
    Leaf.SEAMINFO: seamldr_seaminfo,
}


@implements("DISPATCH.entry", "save the caller's registers and SPEC_CTRL, IBPB, SSBD only; first call: remember the "
            "data pointers, draw the canary, point HOST_FS_BASE at the data", _SRC, MEASURED)
def enter(call: Call) -> Stage:
    """DISPATCH.entry: everything before the leaf."""
    lp, revision = call.lp, call.build.revision
    call.save_gprs()
    if call.get("data_pointer") == 0:
        call.put("data_pointer", lp.gs_base)
        call.put("sysinfo_pointer", lp.fs_base)
    reason = call.vmread(EXIT_REASON)
    wrong = DISPATCH_REASON.decide(EntryState(reason), revision)
    if wrong is not None:
        raise Ud2(wrong.result.cause)
    if revision == R10:
        _copy_uncore_pmi(call)
    call.wrmsr(PRED_CMD, 1)
    call.put("spec_ctrl", call.rdmsr(SPEC_CTRL))
    call.wrmsr(SPEC_CTRL, SSBD)
    if call.get("canary") == 0:
        carry, value = call.platform.rdrand()
        row = DISPATCH_CANARY.decide(EntryState(reason, carry, value), revision)
        if row is not None:
            call.give("rax", row.result)
            return Stage.EXIT
        call.put("canary", value)
        call.vmwrite(HOST_FS_BASE, lp.gs_base)
    return Stage.LEAF


@implements("DISPATCH.debugctl", "1.0: IA32_DEBUGCTL bit 13 takes the guest's value at entry",
            "PSL10 src/pseamldr_dispatcher/pseamldr_dispatcher.c", MEASURED)
def _copy_uncore_pmi(call: Call) -> None:
    """DISPATCH.debugctl: the performance-monitoring interrupt stays as the VMM had it."""
    guest = call.vmread(GUEST_DEBUGCTL) & UNCORE_PMI
    call.wrmsr(DEBUGCTL_MSR, call.rdmsr(DEBUGCTL_MSR) & ~UNCORE_PMI | guest)


@implements("DISPATCH.dispatch", "the leaf's status becomes the caller's RAX", _SRC, MEASURED)
def dispatch(call: Call) -> Leaf | None:
    """DISPATCH.dispatch: run the leaf that the saved RAX names; which one it was."""
    values = get_system_values(call)
    rax = call.saved("rax")
    unknown = DISPATCH_LEAF.decide(rax, call.build.revision)
    if unknown is not None:
        call.give("rax", unknown.result)
        call.lp.program_state = Stage.EXIT
        return None
    leaf = Leaf(rax)
    _go_on(call, _LEAVES[leaf](call, values))
    return leaf


def _go_on(call: Call, outcome: Status | Installing) -> None:
    """A leaf that is done has a status; INSTALL may have phases to go."""
    if isinstance(outcome, Installing):
        call.lp.program_state = outcome
    else:
        call.give("rax", outcome)
        call.lp.program_state = Stage.EXIT


@implements("DISPATCH.exit", "RIP past SEAMCALL; STI and MOV-SS blocking cleared; BS of the pending debug exceptions "
            "from TF and BTF; SPEC_CTRL and all registers back", _EXIT, MEASURED)
def leave(call: Call) -> None:
    """DISPATCH.exit: everything before SEAMRET.  1.0 moves RIP only."""
    call.vmwrite(GUEST_RIP, (call.vmread(GUEST_RIP) + call.vmread(INSTRUCTION_LENGTH)) & (1 << 64) - 1)
    if call.build.revision != R10:
        blocking = call.vmread(GUEST_INTERRUPTIBILITY)
        if blocking & STI_OR_MOV_SS:
            call.vmwrite(GUEST_INTERRUPTIBILITY, blocking & ~STI_OR_MOV_SS)
        stepping = call.vmread(GUEST_RFLAGS) & TF and not call.vmread(GUEST_DEBUGCTL) & BTF
        pending = call.vmread(GUEST_PENDING_DEBUG)
        call.vmwrite(GUEST_PENDING_DEBUG, pending | BS if stepping else pending & ~BS)
    call.wrmsr(SPEC_CTRL, call.get("spec_ctrl"))
    call.load_gprs()


def advance(platform: Platform, lp: Lp, build: Build) -> StepOutcome:
    """One step of P-SEAMLDR from ``lp.program_state``: entry, leaf, exit, SEAMRET."""
    call = Call(platform, lp, build)
    stage: Stage | Installing | None = lp.program_state
    match stage:
        case None:
            lp.program_state = enter(call)
            did = "entry"
        case Stage.LEAF:
            leaf = dispatch(call)
            did = "unknown leaf" if leaf is None else f"SEAMLDR.{leaf.name}"
        case Installing():
            _go_on(call, go_on(call, get_system_values(call), stage))
            did = f"SEAMLDR.INSTALL, {stage.phase.value}"
        case Stage.EXIT:
            leave(call)
            lp.program_state = Stage.LEAVE
            did = "exit"
        case Stage.LEAVE:
            outcome = seamret(platform, lp.id)
            if isinstance(outcome, VmFailInvalid | VmFailValid):
                raise Ud2(f"SEAMRET came back: {outcome} (F008H, 0)")
            return outcome
    call.did(did)
    return Running(did)


class PSeamldr:
    """The program that a P-SEAMLDR image's stub stands for; its constants lie behind the stub."""

    id = P_SEAMLDR_PROGRAM
    name = COMPONENT

    def step(self, platform: Platform, lp: Lp, parameters: bytes) -> StepOutcome:
        """Take one step on ``lp``."""
        port = Port(platform, lp)
        block = port.read(port.physical(lp.rip + BUILD_OFFSET), P_SEAMLDR_BUILD.size)
        return advance(platform, lp, decode_build(block))


P_SEAMLDR = register_program(PSeamldr())
