"""What an instruction ends in, as the kit spells it: an object for each outcome of :mod:`seamref.arch.outcome`."""

from __future__ import annotations

from typing import Any, assert_never

from seamref.arch.lp import Lp
from seamref.arch.outcome import (
    Done,
    Entered,
    EntryFailed,
    Fault,
    Guest,
    Left,
    Outcome,
    Shutdown,
    Target,
    TxtShutdown,
    Vector,
    VmExit,
    VmFailInvalid,
    VmFailValid,
)
from seamref.export.form import Count, Flag, Group, Hex, Item, Maybe, OneOf, Text, hexed

KINDS = {
    "fault": "an exception at the instruction: vector and error code",
    "vm_exit": "a VM exit to the monitor of this level: reason, exit_reason and qualification",
    "vmfail_invalid": "VMfailInvalid: CF = 1, the other five arithmetic flags 0",
    "vmfail_valid": "VMfailValid: ZF = 1, the error number is in the current VMCS",
    "entered": "SEAM VMX root operation was entered: target",
    "left": "SEAM was left: target says which software, vmcs_lost whether the VMM's current VMCS is no longer current",
    "entry_failure": "a VM-entry failure: exit_reason with bit 31; execution goes on at the host RIP",
    "guest": "VMX non-root operation was entered",
    "done": "the instruction completed",
    "shutdown": "the processor is in the shutdown state",
    "txt_shutdown": "TXT shutdown: the platform resets, code is left in TXT.ERRORCODE",
}


def outcome_type(*kinds: str) -> Group:
    """The object, with the fields that these kinds have."""
    wanted = set(kinds)

    def of(*owners: str) -> bool:
        return bool(wanted & set(owners))

    items = [Item("kind", OneOf(tuple(kinds)), "; ".join(f"{kind}: {KINDS[kind]}" for kind in kinds))]
    if of("fault", "txt_shutdown"):
        items.append(Item("vector", Count(0, 255), "exception vector", True))
        items.append(Item("mnemonic", OneOf(tuple(v.mnemonic for v in Vector)), "the vector's short name", True))
    if of("fault"):
        items.append(Item("error_code", Maybe(Count(0, 0xFFFF)), "error code pushed; null where none is", True))
    if of("vm_exit", "entry_failure"):
        items.append(Item("reason", Count(0, 0xFFFF), "basic exit reason", True))
        items.append(Item("exit_reason", Hex(32), "the whole exit-reason field", True))
    if of("vm_exit"):
        items.append(Item("qualification", Hex(), "exit qualification", True))
    if of("vmfail_valid"):
        items.append(Item("error", Count(0, 0xFFFF), "VM-instruction error number", True))
    if of("entered", "left"):
        items.append(Item("target", OneOf(tuple(t.value for t in Target)), "the software in SEAM", True))
    if of("left"):
        items.append(Item("vmcs_lost", Flag(), "whether the VMM has no current VMCS any more", True))
    if of("shutdown", "txt_shutdown"):
        items.append(Item("cause", Text(), "why", True))
    if of("shutdown"):
        items.append(Item("in_SEAM", Flag(), "it happened in SEAM: both modules are marked not loaded first", True))
    if of("txt_shutdown"):
        items.append(Item("code", Hex(32), "TXT.ERRORCODE", True))
    return Group(tuple(items))


def outcome_json(outcome: Outcome) -> dict[str, Any]:
    """An outcome as the object."""
    match outcome:
        case Fault(vector=vector, code=code):
            return {"kind": "fault", "vector": int(vector), "mnemonic": vector.mnemonic, "error_code": code}
        case VmExit(reason=reason, qualification=qualification):
            return {"kind": "vm_exit", "reason": int(reason), "exit_reason": hexed(outcome.word),
                    "qualification": hexed(qualification)}
        case VmFailInvalid():
            return {"kind": "vmfail_invalid"}
        case VmFailValid(error=error):
            return {"kind": "vmfail_valid", "error": int(error)}
        case Entered(target=target):
            return {"kind": "entered", "target": target.value}
        case Left(target=target, vmcs_lost=lost):
            return {"kind": "left", "target": target.value, "vmcs_lost": lost}
        case EntryFailed(reason=reason):
            return {"kind": "entry_failure", "reason": int(reason), "exit_reason": hexed(outcome.word)}
        case Guest():
            return {"kind": "guest"}
        case Done():
            return {"kind": "done"}
        case Shutdown(cause=cause, in_SEAM=in_SEAM):
            return {"kind": "shutdown", "cause": cause, "in_SEAM": in_SEAM}
        case TxtShutdown(cause=cause, code=code, vector=vector):
            made: dict[str, Any] = {"kind": "txt_shutdown", "cause": cause, "code": hexed(code)}
            return made if vector is None else {**made, "vector": int(vector), "mnemonic": vector.mnemonic}
        case _ as never:
            assert_never(never)


STATE: tuple[Item, ...] = (
    Item("rax", Hex(), "RAX"),
    Item("rflags", Hex(), "RFLAGS"),
    Item("inSEAM", Flag(), "inSEAM"),
    Item("inP_SEAMLDR", Flag(), "inP_SEAMLDR"),
    Item("non_root", Flag(), "VMX non-root operation"),
    Item("smi_inhibit", Flag(), "SMIs are inhibited"),
    Item("nmi_inhibit", Flag(), "NMIs are inhibited"),
    Item("current_vmcs", Hex(), "current-VMCS pointer; all ones: none"),
)
"""A processor's state as instructions of SEAM change it."""


def state_json(lp: Lp) -> dict[str, Any]:
    """The values of STATE."""
    return {
        "rax": hexed(lp.rax), "rflags": hexed(lp.rflags), "inSEAM": lp.inSEAM, "inP_SEAMLDR": lp.inP_SEAMLDR,
        "non_root": lp.non_root, "smi_inhibit": lp.smi_inhibit, "nmi_inhibit": lp.nmi_inhibit,
        "current_vmcs": hexed(lp.current_vmcs),
    }
