"""KVM and a guest that executes SEAMCALL or TDCALL: exits 76 and 77.

Nothing but VMXON enables the two instructions, so a guest kernel that executes one leaves its VM, whether the host
has TDX or not.  KVM answers with the exception that the guest would have got on a processor without them.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TypeAlias, assert_never

from seamref.arch.outcome import ExitReason, Fault, Vector, VmExit
from seamref.arch.platform import Platform
from seamref.arch.seam import seamcall, tdcall
from seamref.errors import SeamrefError
from seamref.spec import Check, CheckTable, implements

HARDWARE_EXCEPTION = 3
"""Type in VM-entry interruption information."""


class Guest(Enum):
    """Whose instruction it was."""

    VM = "a VM"
    L2 = "a VM inside a VM"
    TD = "a TD"


@dataclass(frozen=True, slots=True)
class Injected:
    """The guest goes on at the handler of ``vector``; the saved RIP is that of the instruction."""

    vector: Vector

    @property
    def info(self) -> int:
        """VM-entry interruption information: valid, hardware exception, no error code."""
        return 1 << 31 | HARDWARE_EXCEPTION << 8 | self.vector

    def __str__(self) -> str:
        return f"{self.vector.mnemonic} for the guest"


@dataclass(frozen=True, slots=True)
class ToUser:
    """KVM gives up: user space is told, and usually ends the VM."""

    reason: int

    def __str__(self) -> str:
        return f"KVM_EXIT_INTERNAL_ERROR: unexpected exit reason 0x{self.reason:x}"


@dataclass(frozen=True, slots=True)
class NotKvms:
    """KVM never sees it."""

    why: str

    def __str__(self) -> str:
        return self.why


KvmDid: TypeAlias = Injected | ToUser | NotKvms


@dataclass(frozen=True, slots=True)
class GuestExit:
    """An exit with reason 76 or 77; ``patched``: this KVM has handlers for them."""

    reason: ExitReason
    guest: Guest
    patched: bool = True


_MODULE = NotKvms("the exit goes to the TDX module: #UD for SEAMCALL, TDCALL is how a TD calls it")

KVM_EXIT: CheckTable[GuestExit, KvmDid] = CheckTable("KVM_EXIT", (
    Check("KVM.td", "a TD: its exits arrive in SEAM root operation, and KVM cannot inject exceptions into a TD",
          lambda e: e.guest is Guest.TD, _MODULE, "SC2"),
    Check("KVM.unexpected", "a KVM without handlers for 76 and 77", lambda e: not e.patched, ToUser(0), "SC1"),
    Check("KVM.l2", "a VM inside a VM: the outermost KVM answers, the exit is not reflected to the one between",
          lambda e: e.guest is Guest.L2, Injected(Vector.UD), "SC1"),
), "What KVM does with an exit for SEAMCALL or TDCALL; silent: #UD for the guest.")


@implements("KVM.ud", "a guest that is no TD gets #UD for SEAMCALL and TDCALL; RIP is not advanced", "SC1")
def handle_exit(exit: GuestExit) -> KvmDid:
    """KVM.ud: only exits 76 and 77 are asked about here."""
    if exit.reason not in (ExitReason.SEAMCALL, ExitReason.TDCALL):
        raise SeamrefError(f"exit reason {int(exit.reason)}: this handler is for 76 and 77")
    row = KVM_EXIT.decide(exit)
    did: KvmDid = Injected(Vector.UD) if row is None else row.result
    match did:
        case ToUser():
            return ToUser(int(exit.reason))
        case Injected() | NotKvms():
            return did
        case _ as never:
            assert_never(never)


def guest_executes(
    platform: Platform, lp_id: int, instruction: str, guest: Guest = Guest.VM, *, patched: bool = True
) -> Fault | KvmDid:
    """A guest on this processor executes ``SEAMCALL`` or ``TDCALL``: the processor's own fault, or KVM's answer.

    The processor must be in VMX non-root operation.
    """
    if not platform.peek_lp(lp_id).non_root:
        raise SeamrefError(f"processor {lp_id} runs no guest")
    outcome = {"SEAMCALL": seamcall, "TDCALL": tdcall}[instruction](platform, lp_id)
    match outcome:
        case VmExit(reason=reason):
            return handle_exit(GuestExit(reason, guest, patched))
        case Fault():
            return outcome
        case _:
            raise SeamrefError(f"{instruction} in a guest: {outcome}")


__all__ = ["KVM_EXIT", "Guest", "GuestExit", "Injected", "KvmDid", "NotKvms", "ToUser", "guest_executes", "handle_exit"]
