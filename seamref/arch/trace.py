"""Watch without touching: typed events and no tracer.

Steps tell a platform's listeners what they did.  Sequence diagrams, ``explain``, coverage and the explorer
listen; nothing in the machine depends on whether anybody does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias


@dataclass(frozen=True, slots=True)
class InstructionEnded:
    """An instruction ended: its mnemonic, the processor and the outcome in words."""

    lp: int
    instruction: str
    outcome: str
    clause: str


@dataclass(frozen=True, slots=True)
class ModeChanged:
    """A logical processor changed its mode (see ``Lp.mode``)."""

    lp: int
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class MutexChanged:
    """P_SEAMLDR_MUTEX was taken (``held``) or released by a processor."""

    lp: int
    held: bool


@dataclass(frozen=True, slots=True)
class MsrWritten:
    """A WRMSR took effect."""

    lp: int
    address: int
    value: int


@dataclass(frozen=True, slots=True)
class SeamextendWritten:
    """The SEAMEXTEND register was replaced."""

    lp: int
    value: bytes


@dataclass(frozen=True, slots=True)
class AccessDenied:
    """A physical access was not let through: the agent, the address, the deciding clause."""

    agent: str
    address: int
    size: int
    write: bool
    clause: str


@dataclass(frozen=True, slots=True)
class VmcsFlushed:
    """A cached VMCS was written back to memory and dropped."""

    lp: int
    address: int
    why: str


@dataclass(frozen=True, slots=True)
class WentDown:
    """A logical processor entered shutdown."""

    lp: int
    in_SEAM: bool
    cause: str


@dataclass(frozen=True, slots=True)
class Step:
    """A step of software or firmware, named by the component that took it."""

    lp: int
    component: str
    name: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Computed:
    """Software or firmware came to a value that documents name but nothing in memory holds (an address given to
    VMCLEAR, the plan of the module range)."""

    lp: int
    component: str
    name: str
    value: Any


Event: TypeAlias = (
    InstructionEnded
    | ModeChanged
    | MutexChanged
    | MsrWritten
    | SeamextendWritten
    | AccessDenied
    | VmcsFlushed
    | WentDown
    | Step
    | Computed
)
