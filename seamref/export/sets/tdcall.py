"""TDCALL: every combination of what decides it, in both kinds of guest."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from seamref.arch.outcome import VmExit
from seamref.arch.seam import seamcall, tdcall
from seamref.arch.vmcs import get
from seamref.export.form import Answer, Case, Flag, Group, Hex, Item, VectorSet, hexed
from seamref.export.outcomes import STATE, outcome_json, outcome_type, state_json
from seamref.export.sets.machine import INSTRUCTION_SET, base, every, said, state_number

FACTS: tuple[tuple[str, str], ...] = (
    ("inSEAM", "inSEAM = 1: with non_root, a TD"),
    ("non_root", "in VMX non-root operation"),
    ("user", "CPL = 3 (0: CPL = 0)"),
    ("64bit", "EFER.LMA = 1 and CS.L = 1"),
    ("mov_ss", "blocking by MOV-SS"),
)
SAVED = ("exit_reason", "exit_qualification", "exit_instruction_length", "guest_rip")


def _common() -> dict[str, Any]:
    return {"rip": hexed(0x401000)}


def _cases() -> Iterator[Case]:
    for facts in every(*(name for name, _ in FACTS)):
        yield Case(f"tdcall-{state_number(facts):02x}", said(facts), facts)


def _answer(given: Mapping[str, Any], revision: str) -> Answer:
    platform = base(revision).fork()
    if given["inSEAM"]:
        seamcall(platform, 0)
    lp = platform.lp(0)
    lp.non_root, lp.cpl, lp.cs_l = given["non_root"], 3 if given["user"] else 0, given["64bit"]
    lp.mov_ss_blocking = given["mov_ss"]
    lp.rip = int(given["rip"], 16)
    outcome = tdcall(platform, 0)
    lp = platform.lp(0)
    output: dict[str, Any] = {"outcome": outcome_json(outcome), **state_json(lp)}
    if isinstance(outcome, VmExit):
        data = lp.vmcs_cache[lp.current_vmcs].data
        output["vmcs"] = {name: hexed(get(data, name)) for name in SAVED}
    return Answer(output, (outcome.clause,))


SET = VectorSet(
    "tdcall",
    "TDCALL",
    (
        "TDCALL is a VM exit to whoever entered the guest: the TDX module where a TD runs, the VMM where a legacy "
        "guest "
        "does.  RIP is not moved: software adds the instruction length.",
    ),
    (*(Item(name, Flag(), says) for name, says in FACTS), Item("rip", Hex(), "RIP of TDCALL")),
    (
        Item("outcome", outcome_type("fault", "vm_exit"), "what TDCALL ended in"),
        *STATE,
        Item(
            "vmcs",
            Group(tuple(Item(name, Hex(), "field of the current VMCS") for name in SAVED)),
            "what the exit wrote; only where there is one",
            True,
        ),
    ),
    INSTRUCTION_SET,
    _cases,
    _answer,
    _common,
)
