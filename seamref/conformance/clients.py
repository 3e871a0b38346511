"""Which client would notice that an instruction answers differently, and what it sees.

A client is whoever executes the instruction, or the monitor above it that gets the exit.  What each sees is what
:mod:`seamref.host` does with the outcome: the SEAMCALL stub's fix-ups, KVM's answer to exits 76 and 77.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from seamref.arch.outcome import ExitReason, Vector
from seamref.host.abi import TDX_SEAMCALL_VMFAILINVALID, TDX_SW_ERROR
from seamref.host.kvm import Guest, GuestExit, Injected, handle_exit

SIGNALS = {"#UD": "SIGILL", "#GP(0)": "SIGSEGV"}
"""What a Linux process gets for an exception that it does not handle."""


LOST = "current VMCS lost"
"""What a SEAMRET from P-SEAMLDR says where it costs the VMM its current VMCS (errata 3)."""


@dataclass(frozen=True, slots=True)
class Noticed:
    """One client, and what it sees of either answer; ``differs`` only where the two are not the same."""

    who: str
    one: str
    other: str

    @property
    def differs(self) -> bool:
        """Whether this client can tell the two answers apart."""
        return self.one != self.other

    def __str__(self) -> str:
        return f"{self.who}: {self.one}, not {self.other}" if self.differs else f"{self.who}: {self.one} either way"


def executing(facts: Mapping[str, bool]) -> str:
    """Who executes the instruction in a state, in words.  Facts that an instruction does not look at are taken as 0."""
    mode = "user process" if facts.get("user") else "kernel"
    if facts.get("smm"):
        return "SMM handler"
    if facts.get("non_root"):
        return f"TD's {mode}" if facts.get("inSEAM") else f"guest's {mode}"
    if facts.get("inSEAM"):
        return "software in SEAM root"
    return f"host {mode}"


def noticed_by(instruction: str, facts: Mapping[str, bool], one: str, other: str) -> list[Noticed]:
    """What each client of an instruction sees in a state, of one answer and of another.

    ``one`` and ``other`` are outcomes as tables spell them (:func:`seamref.arch.spaces.in_words`).  The first client is
    the software that executes the instruction; the second, where one of the answers is an exit, is the monitor above.
    """
    who = executing(facts)
    seen = [Noticed(who, _seen(instruction, facts, one), _seen(instruction, facts, other))]
    if "VM exit" in (one + other) and facts.get("non_root"):
        monitor = "TDX module" if facts.get("inSEAM") else "hypervisor"
        seen.append(Noticed(monitor, *(said if said.startswith("VM exit") else "nothing" for said in (one, other))))
    if LOST in one + other:
        seen.append(Noticed("VMM behind the call", *(
            "its VMRESUME is VMfailInvalid" if LOST in said else "its VMRESUME works" for said in (one, other))))
    return seen


def _seen(instruction: str, facts: Mapping[str, bool], outcome: str) -> str:
    """What the software that executes the instruction sees of an outcome."""
    fault = outcome
    if outcome.startswith("VM exit"):
        fault = _after_exit(facts, ExitReason(int(outcome.split()[2])))
    if fault in SIGNALS and facts.get("user"):
        return SIGNALS[fault]
    if instruction == "SEAMCALL" and executing(facts) == "host kernel":
        if fault in SIGNALS:
            return f"RAX = 0x{TDX_SW_ERROR | int(Vector.UD if fault == '#UD' else Vector.GP):X}"
        if fault == "VMfailInvalid":
            return f"RAX = 0x{TDX_SEAMCALL_VMFAILINVALID:X}"
    return fault


def _after_exit(facts: Mapping[str, bool], reason: ExitReason) -> str:
    """What a guest gets from its monitor: KVM injects #UD, and the TDX module does for SEAMCALL; TDCALL is served."""
    if facts.get("inSEAM"):
        return "#UD" if reason is ExitReason.SEAMCALL else "a call of the TDX module"
    did = handle_exit(GuestExit(reason, Guest.VM))
    return did.vector.mnemonic if isinstance(did, Injected) else str(did)
