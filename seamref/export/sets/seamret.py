"""SEAMRET: every combination of what its checks look at, and each field of the state areas that VM entry judges."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

from seamref.arch import lab
from seamref.arch.areas import GUEST, HOST, GuestRow, HostRow
from seamref.arch.outcome import EntryFailed, Left, VmFailValid
from seamref.arch.platform import Platform
from seamref.arch.seam import BIT63, seamcall, seamret
from seamref.arch.vmcs import BY_NAME, NONE, get
from seamref.export.form import Answer, Case, Flag, Group, Hex, Item, OneOf, VectorSet, hexed, number
from seamref.export.outcomes import STATE, outcome_json, outcome_type, state_json
from seamref.export.sets.machine import INSTRUCTION_SET, VMCS, base, every, said, state_number, vmcs_bytes, vmcs_json

FACTS: tuple[tuple[str, str], ...] = (
    ("inSEAM", "inSEAM = 1"),
    ("64bit", "EFER.LMA = 1 and CS.L = 1"),
    ("non_root", "in VMX non-root operation: a TD"),
    ("user", "CPL = 3 (0: CPL = 0)"),
    ("current", "the current-VMCS pointer is valid and names the transfer VMCS"),
    ("p_seamldr", "inP_SEAMLDR = 1: P-SEAMLDR returns (0: the TDX module does)"),
    ("linked", "the VMCS link pointer names a VMCS that the VMM had as its current one"),
    ("keeps", "IA32_VMX_BASIC[60] = 1"),
)
BAD: dict[str, tuple[str, int]] = {
    "controls": ("pin_based", 0),
    "host": ("host_cs_selector", 0),
    "guest": ("guest_activity_state", 9),
    "msr_load": ("entry_msr_load_count", 1),
}
"""One field that spoils each of the four parts that VM entry judges."""
_BAD_ADDRESS = {"msr_load": {"entry_msr_load_address": hexed(8)}}
VALUES = {
    "canonical": 1 << 60,
    "low 16 bits": 1 << 16,
    "low 32 bits": 1 << 32,
    "memory types": 2,
    "rflags": 0,
    "selector": 1,
}
"""For each demand of VM entry on a value, one that breaks it."""


@lru_cache(maxsize=64)
def _entered(revision: str, keeps: bool, p_seamldr: bool, linked: bool) -> Platform:
    """SEAM was just entered, and software moved the saved RIP behind SEAMCALL."""
    platform = base(revision, keeps).fork()
    lp = platform.lp(0)
    lp.rax = BIT63 if p_seamldr else 0
    if not linked:
        lp.current_vmcs = NONE
    seamcall(platform, 0)
    lab.advance_rip(platform.lp(0))
    return platform


def _transfer(platform: Platform) -> dict[str, str]:
    lp = platform.peek_lp(0)
    return vmcs_json(lp.vmcs_cache[lp.current_vmcs].data)


def _common() -> dict[str, Any]:
    module, loader = (_entered("silicon", False, p, True) for p in (False, True))
    return {
        "transfer_vmcs": {"module": _transfer(module), "p_seamldr": _transfer(loader)},
        "rflags": hexed(module.peek_lp(0).rflags),
    }


def _case(id: str, comment: str, facts: Mapping[str, bool], changes: Mapping[str, str]) -> Case:
    link = {} if facts["linked"] else {"vmcs_link_pointer": hexed(NONE)}
    return Case(id, comment, {**facts, "vmcs_changes": {**link, **changes}})


def _spoil(name: str) -> dict[str, str]:
    field, value = BAD[name]
    return {field: hexed(value), **_BAD_ADDRESS.get(name, {})}


def _cases() -> Iterator[Case]:
    for facts in every(*(name for name, _ in FACTS)):
        yield _case(f"seamret-{state_number(facts):02x}", said(facts), facts, {})
    good = {"inSEAM": True, "64bit": True, "non_root": False, "user": False, "current": True}
    for rest in every("p_seamldr", "linked", "keeps"):
        facts = {**good, **rest}
        for spoilt in every(*BAD):
            if any(spoilt.values()):
                changes: dict[str, str] = {}
                for name, on in spoilt.items():
                    changes |= _spoil(name) if on else {}
                yield _case(
                    f"seamret-{state_number(facts):02x}-bad-{'-'.join(n for n, on in spoilt.items() if on)}",
                    f"{said(facts)}; not valid: {said(spoilt)}",
                    facts,
                    changes,
                )
    facts = {**good, "p_seamldr": True, "linked": True, "keeps": False}
    rows: tuple[HostRow | GuestRow, ...] = (*HOST, *GUEST)
    for row in rows:
        if row.field and row.check:
            value = VALUES[row.check] & (1 << 8 * BY_NAME[row.field].size) - 1
            if value or row.check == "rflags":
                yield _case(
                    f"seamret-field-{row.field}",
                    f"{row.field} = {hexed(value)}, demanded: {row.check}",
                    facts,
                    {row.field: hexed(value)},
                )


def _answer(given: Mapping[str, Any], revision: str) -> Answer:
    platform = _entered(revision, given["keeps"], given["p_seamldr"], given["linked"]).fork()
    lp = platform.lp(0)
    cvp = lp.current_vmcs
    held = vmcs_bytes(given["transfer_vmcs"]["p_seamldr" if given["p_seamldr"] else "module"], given["vmcs_changes"])
    lp.vmcs_cache[cvp].data[:] = held
    lp.inSEAM, lp.cs_l, lp.non_root = given["inSEAM"], given["64bit"], given["non_root"]
    lp.cpl = 3 if given["user"] else 0
    lp.rflags = number(given["rflags"])
    if not given["current"]:
        lp.current_vmcs = NONE
    outcome = seamret(platform, 0)
    lp = platform.lp(0)
    output: dict[str, Any] = {
        "outcome": outcome_json(outcome),
        **state_json(lp),
        "rip": hexed(lp.rip),
        "mutex": "free" if platform.P_SEAMLDR_MUTEX is None else "this processor",
    }
    if isinstance(outcome, VmFailValid):
        output["transfer_vmcs"] = {
            "vm_instruction_error": hexed(get(lp.vmcs_cache[cvp].data, "vm_instruction_error"))
        }
    if isinstance(outcome, EntryFailed):
        output["transfer_vmcs"] = {"exit_reason": hexed(get(lp.vmcs_cache[cvp].data, "exit_reason"))}
    if isinstance(outcome, Left):
        output["transfer_vmcs_active"] = cvp in lp.vmcs_cache
    loader = isinstance(outcome, Left) and given["p_seamldr"]
    return Answer(output, (outcome.clause, *(("SEAMRET.evict", "SEAMRET.vmcs") if loader else ())))


SET = VectorSet(
    "seamret",
    "SEAMRET",
    (
        "A processor has entered SEAM; the software there has moved the saved RIP behind SEAMCALL and executes "
        "SEAMRET.  "
        "The tests are every combination of eight facts, every combination of the four parts of the transfer VMCS "
        "that VM "
        "entry judges, and each field that it judges alone.",
        "Whether the VMM loses its current VMCS shows in `current_vmcs`: all ones means that it has none any more.  "
        "`transfer_vmcs_active` says whether the transfer VMCS is still held by this processor: P-SEAMLDR's one VMCS "
        "must "
        "be in memory for the next caller.",
    ),
    (
        *(Item(name, Flag(), says) for name, says in FACTS),
        Item("vmcs_changes", VMCS, "fields of the transfer VMCS that differ from `transfer_vmcs`"),
        Item(
            "transfer_vmcs",
            Group((Item("module", VMCS, "the TDX module's"), Item("p_seamldr", VMCS, "P-SEAMLDR's"))),
            "fields of the transfer VMCS that are not 0, by who returns",
        ),
        Item("rflags", Hex(), "RFLAGS before"),
    ),
    (
        Item(
            "outcome",
            outcome_type("fault", "vmfail_invalid", "vmfail_valid", "entry_failure", "left"),
            "what SEAMRET ended in",
        ),
        *STATE,
        Item("rip", Hex(), "RIP"),
        Item("mutex", OneOf(("free", "this processor")), "who holds P_SEAMLDR_MUTEX afterwards"),
        Item("transfer_vmcs", VMCS, "what was written to the transfer VMCS; only where SEAMRET failed in it", True),
        Item(
            "transfer_vmcs_active",
            Flag(),
            "whether the transfer VMCS is still active here; only where SEAM was left",
            True,
        ),
    ),
    INSTRUCTION_SET,
    _cases,
    _answer,
    _common,
    small=6,
)
