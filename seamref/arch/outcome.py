"""Every outcome of an instruction has a name.

Closed unions of small frozen types (design, principle 4): match them exhaustively and end with
``assert_never``.  ``clause`` is the id of the check row or clause that decided.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, IntEnum
from typing import TypeAlias


class Vector(IntEnum):
    """Exception vectors that occur here (SDM vol. 3A, table 7-1)."""

    DE = 0
    DB = 1
    NMI = 2
    UD = 6
    DF = 8
    GP = 13
    PF = 14
    MC = 18

    @property
    def mnemonic(self) -> str:
        return f"#{self.name}"


class ExitReason(IntEnum):
    """Basic VM-exit reasons that occur here (SDM vol. 3D, appendix C; 76 and 77 from X2)."""

    EXCEPTION_OR_NMI = 0
    EXTERNAL_INTERRUPT = 1
    TRIPLE_FAULT = 2
    INIT = 3
    SIPI = 4
    IO_SMI = 5
    OTHER_SMI = 6
    GETSEC = 11
    VMCALL = 18
    MSR_READ = 31
    MSR_WRITE = 32
    ENTRY_FAILURE_GUEST_STATE = 33
    ENTRY_FAILURE_MSR_LOAD = 34
    ENTRY_FAILURE_MACHINE_CHECK = 41
    EPT_VIOLATION = 48
    EPT_MISCONFIGURATION = 49
    SEAMCALL = 76
    TDCALL = 77


class VmxError(IntEnum):
    """VM-instruction error numbers that occur here (SDM vol. 3C, table 31-1)."""

    VMCLEAR_INVALID_ADDRESS = 2
    VMCLEAR_VMXON_POINTER = 3
    VMLAUNCH_NON_CLEAR_VMCS = 4
    VMRESUME_NON_LAUNCHED_VMCS = 5
    ENTRY_INVALID_CONTROL_FIELDS = 7
    ENTRY_INVALID_HOST_STATE = 8
    VMPTRLD_INVALID_ADDRESS = 9
    VMPTRLD_VMXON_POINTER = 10
    VMPTRLD_INCORRECT_REVISION = 11
    UNSUPPORTED_VMCS_COMPONENT = 12
    VMWRITE_READ_ONLY_COMPONENT = 13
    VMXON_IN_VMX_ROOT = 15
    ENTRY_EVENTS_BLOCKED_BY_MOV_SS = 26


class Target(Enum):
    """What SEAMCALL enters."""

    MODULE = "TDX module"
    P_SEAMLDR = "P-SEAMLDR"


@dataclass(frozen=True, slots=True)
class Fault:
    """An exception at the instruction; nothing else changed.  ``code`` is ``None`` when the vector pushes none."""

    vector: Vector
    code: int | None
    clause: str

    def __str__(self) -> str:
        return self.vector.mnemonic + ("" if self.code is None else f"({self.code})")


@dataclass(frozen=True, slots=True)
class VmExit:
    """A VM exit to the VMM of this level.  ``from_root`` is bit 29 of the exit-reason word."""

    reason: ExitReason
    qualification: int
    from_root: bool
    clause: str

    @property
    def word(self) -> int:
        """The exit-reason field: basic reason, bit 29 when the exit came from VMX root."""
        return self.reason | (1 << 29 if self.from_root else 0)

    def __str__(self) -> str:
        return f"VM exit {int(self.reason)} ({self.reason.name})"


@dataclass(frozen=True, slots=True)
class VmFailInvalid:
    """VMfailInvalid: CF=1, the other arithmetic flags 0; RAX and everything else unchanged."""

    clause: str

    def __str__(self) -> str:
        return "VMfailInvalid"


@dataclass(frozen=True, slots=True)
class VmFailValid:
    """VMfailValid: ZF=1 and an error number in the current VMCS."""

    error: VmxError
    clause: str

    def __str__(self) -> str:
        return f"VMfailValid({int(self.error)})"


@dataclass(frozen=True, slots=True)
class Entered:
    """SEAMCALL entered SEAM VMX root operation.  ``vmcs`` is the physical address of the transfer VMCS used."""

    target: Target
    vmcs: int
    clause: str

    def __str__(self) -> str:
        return f"entered {self.target.value}"


@dataclass(frozen=True, slots=True)
class Left:
    """SEAMRET left SEAM.  ``vmcs_lost``: the VMM's current VMCS was flushed, cleared and is no longer current."""

    target: Target
    vmcs_lost: bool
    clause: str

    def __str__(self) -> str:
        return f"left {self.target.value}" + (", current VMCS lost" if self.vmcs_lost else "")


@dataclass(frozen=True, slots=True)
class EntryFailed:
    """A VM-entry failure: exit-reason bit 31 set, execution continues in the monitor that tried."""

    reason: ExitReason
    clause: str

    @property
    def word(self) -> int:
        """The exit-reason field."""
        return self.reason | 1 << 31

    def __str__(self) -> str:
        return f"VM-entry failure {int(self.reason)}"


@dataclass(frozen=True, slots=True)
class Guest:
    """VMLAUNCH or VMRESUME entered VMX non-root operation."""

    clause: str

    def __str__(self) -> str:
        return "entered guest"


@dataclass(frozen=True, slots=True)
class Done:
    """The instruction completed and execution continues behind it."""

    clause: str

    def __str__(self) -> str:
        return "done"


@dataclass(frozen=True, slots=True)
class Shutdown:
    """The logical processor entered the shutdown state (in SEAM: both modules are marked not loaded first)."""

    cause: str
    in_SEAM: bool
    clause: str

    def __str__(self) -> str:
        return f"shutdown{' in SEAM' if self.in_SEAM else ''}: {self.cause}"


@dataclass(frozen=True, slots=True)
class TxtShutdown:
    """A TXT shutdown ("LT-shutdown"): the platform resets, the cause is kept in TXT.ERRORCODE.

    ``vector``: the exception of authenticated code that found no IDT (UD2 is #UD), if that was the reason.
    """

    cause: str
    code: int
    clause: str
    vector: Vector | None = None

    def __str__(self) -> str:
        return f"TXT shutdown: {self.cause}"


VmFail: TypeAlias = VmFailInvalid | VmFailValid
SeamcallOutcome: TypeAlias = Fault | VmExit | VmFailInvalid | Entered
SeamretOutcome: TypeAlias = Fault | VmFailInvalid | VmFailValid | EntryFailed | Left
TdcallOutcome: TypeAlias = Fault | VmExit
VmxOutcome: TypeAlias = Fault | VmExit | VmFailInvalid | VmFailValid | Done
VmEntryOutcome: TypeAlias = Fault | VmExit | VmFailInvalid | VmFailValid | EntryFailed | Guest
Outcome: TypeAlias = (
    Fault | VmExit | VmFailInvalid | VmFailValid | Entered | Left | EntryFailed | Guest | Done | Shutdown | TxtShutdown
)
