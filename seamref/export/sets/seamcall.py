"""SEAMCALL in every state that it can tell apart."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from seamref.arch import lab
from seamref.arch.exhaustive import INPUTS, STATES, facts_of, is_reachable, put_state
from seamref.arch.lp import ARITHMETIC, RFLAGS_RESET
from seamref.arch.outcome import Entered
from seamref.arch.seam import seamcall
from seamref.arch.vmcs import get
from seamref.export.form import Answer, Case, Flag, Group, Hex, Item, OneOf, VectorSet, hexed, number
from seamref.export.outcomes import STATE, outcome_json, outcome_type, state_json
from seamref.export.sets.machine import INSTRUCTION_SET, base

SAVED = (
    "exit_reason",
    "exit_qualification",
    "exit_instruction_length",
    "vmcs_link_pointer",
    "guest_rip",
    "guest_rflags",
    "guest_interruptibility",
)


def _common() -> dict[str, Any]:
    lp = base("silicon").lps[0]
    held = base("silicon").lp(lp)
    return {
        "x2apic_id": hexed(lp),
        "rip": hexed(held.rip),
        "rflags": hexed(RFLAGS_RESET | ARITHMETIC),
        "current_vmcs": hexed(held.current_vmcs),
        "seamrr_base": hexed(lab.SEAMRR.base),
        "seamrr_size": hexed(lab.SEAMRR.size),
        "p_seamldr_range_base": hexed(lab.P_SEAMLDR_RANGE.base),
        "p_seamldr_range_size": hexed(lab.P_SEAMLDR_RANGE.size),
    }


def _cases() -> Iterator[Case]:
    for state in range(STATES):
        facts = facts_of(state)
        said = " ".join(name for name, on in facts.items() if on) or "none of the facts holds"
        yield Case(
            f"seamcall-{state:03x}",
            said,
            {**facts, "rax": hexed(int(facts["rax63"]) << 63), "reachable": is_reachable(state)},
        )


def _answer(given: Mapping[str, Any], revision: str) -> Answer:
    platform = put_state(base(revision).fork(), sum(given[i.name] << i.bit for i in INPUTS))
    id = number(given["x2apic_id"])
    lp = platform.lp(id)
    lp.rax, lp.rip, lp.rflags = (number(given[name]) for name in ("rax", "rip", "rflags"))
    lp.current_vmcs = number(given["current_vmcs"])
    outcome = seamcall(platform, id)
    lp = platform.lp(id)
    held = platform.P_SEAMLDR_MUTEX
    output: dict[str, Any] = {
        "outcome": outcome_json(outcome),
        **state_json(lp),
        "mutex": "free" if held is None else "this processor" if held == id else "another processor",
    }
    if isinstance(outcome, Entered):
        data = lp.vmcs_cache[outcome.vmcs].data
        output["transfer_vmcs"] = {name: hexed(get(data, name)) for name in SAVED}
    return Answer(output, (outcome.clause,))


SET = VectorSet(
    "seamcall",
    "SEAMCALL in every state",
    (
        "SEAMCALL looks at twelve facts, each yes or no.  Every combination is one test: the facts, and what the "
        "instruction does.  `reachable` is false where no processor can be in that state; such tests are there because "
        "the order of checks shows in them too.",
        "The facts are what a processor is put into by hand; how it came there is another matter.  After SEAM is "
        "entered, "
        "the output is the state of the processor before the first instruction of the software in SEAM.",
    ),
    (
        *(Item(i.name, Flag(), i.meaning) for i in INPUTS),
        Item("rax", Hex(), "RAX before; bit 63 is the fact rax63"),
        Item("reachable", Flag(), "whether a processor can be in this state"),
        Item("x2apic_id", Hex(32), "of the processor that executes SEAMCALL"),
        Item("rip", Hex(), "RIP of SEAMCALL"),
        Item("rflags", Hex(), "RFLAGS before: the six arithmetic flags are 1, so that clearing them shows"),
        Item("current_vmcs", Hex(), "the VMM's current VMCS"),
        Item("seamrr_base", Hex(), "SEAMRR: base"),
        Item("seamrr_size", Hex(), "SEAMRR: size in bytes"),
        Item("p_seamldr_range_base", Hex(), "P_SEAMLDR_RANGE: base"),
        Item("p_seamldr_range_size", Hex(), "P_SEAMLDR_RANGE: size in bytes"),
    ),
    (
        Item("outcome", outcome_type("fault", "vm_exit", "vmfail_invalid", "entered"), "what SEAMCALL ended in"),
        *STATE,
        Item("mutex", OneOf(("free", "this processor", "another processor")), "who holds P_SEAMLDR_MUTEX afterwards"),
        Item(
            "transfer_vmcs",
            Group(tuple(Item(name, Hex(), "field of the transfer VMCS") for name in SAVED)),
            "what was written to the transfer VMCS; only where SEAM was entered",
            True,
        ),
    ),
    INSTRUCTION_SET,
    _cases,
    _answer,
    _common,
    small=12,
)
