"""Events that no instruction asks for, in every mode: who takes them, and what SEAM loses."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache
from itertools import product
from typing import Any

from seamref.arch import lab
from seamref.arch.events import (
    Delivered,
    Discarded,
    EventKind,
    EventOutcome,
    Pending,
    deliver_pending,
    raise_event,
    shutdown,
)
from seamref.arch.lp import CR4_MCE, IF, Activity
from seamref.arch.msr import MCG_STATUS
from seamref.arch.outcome import VmExit
from seamref.arch.platform import Platform
from seamref.arch.seam import BIT63, seamcall
from seamref.arch.vmcs import get
from seamref.export.form import Answer, Case, Flag, Group, Hex, Item, ListOf, OneOf, VectorSet, hexed, number
from seamref.export.outcomes import outcome_json, outcome_type
from seamref.export.sets.machine import revision_of, revisions

MODES = {
    "no vmx": "outside VMX operation",
    "host": "legacy VMX root",
    "guest": "legacy VMX non-root",
    "module": "SEAM root, the TDX module",
    "p-seamldr": "SEAM root, P-SEAMLDR",
    "td": "SEAM non-root",
}
KINDS = {
    **{kind.name: kind.value for kind in EventKind},
    "SHUTDOWN": "software or a fault makes the processor shut down",
}
TAKEN = {
    "delivered": "the handler of this mode runs",
    "pending": "the event waits until nothing inhibits it",
    "discarded": "the event has no effect",
}
EXIT_FIELDS = ("exit_reason", "exit_qualification", "exit_interruption_info", "guest_interruptibility")
INFO = Group(
    (
        Item(
            "kind",
            OneOf((*TAKEN, "vm_exit", "shutdown")),
            "; ".join(f"{name}: {says}" for name, says in TAKEN.items())
            + "; otherwise as in `outcome` of an instruction",
        ),
        *(item for item in outcome_type("vm_exit", "shutdown").items if item.name != "kind"),
    )
)


@lru_cache(maxsize=8)
def _base(revision: str, vmx: bool) -> Platform:
    return lab.platform(revision=revision_of(revision), vmx=vmx)


def _cases() -> Iterator[Case]:
    for mode, kind in product(MODES, KINDS):
        for interrupts, inhibited, mce, idt in product((True, False), repeat=4):
            if not _matters(mode, kind, interrupts, inhibited, mce, idt):
                continue
            turned = {"if0": not interrupts, "open": not inhibited, "mce0": not mce, "noidt": not idt}
            name = "".join(f"-{word}" for word, on in turned.items() if on)
            yield Case(
                f"event-{mode.replace(' ', '-')}-{kind.lower().replace('_', '-')}{name}",
                f"{KINDS[kind]} in {MODES[mode]}" + (f" ({name.strip('-').replace('-', ', ')})" if name else ""),
                {
                    "mode": mode,
                    "event": kind,
                    "rflags_if": interrupts,
                    "seam_inhibits": inhibited,
                    "cr4_mce": mce,
                    "idt": idt,
                },
            )


def _matters(mode: str, kind: str, interrupts: bool, inhibited: bool, mce: bool, idt: bool) -> bool:
    """A fact is turned only where it can matter, so that each test says something new."""
    seam = mode in ("module", "p-seamldr")
    return (
        (interrupts or kind == "INTR")
        and (inhibited or (seam and kind in ("SMI", "NMI")))
        and (mce or kind == "MC")
        and (idt or (seam and kind == "NMI" and not inhibited))
    )


def _put(platform: Platform, given: Mapping[str, Any]) -> None:
    mode = given["mode"]
    lp = platform.lp(0)
    if mode in ("module", "p-seamldr", "td"):
        lp.rax = BIT63 if mode == "p-seamldr" else 0
        seamcall(platform, 0)
    lp = platform.lp(0)
    if mode == "td":
        lp.smi_inhibit = lp.nmi_inhibit = False
    if mode in ("guest", "td"):
        lp.non_root = True
    if not given["seam_inhibits"]:
        lp.smi_inhibit = lp.nmi_inhibit = False
    lp.rflags = lp.rflags | IF if given["rflags_if"] else lp.rflags & ~IF
    lp.cr4 = lp.cr4 | CR4_MCE if given["cr4_mce"] else lp.cr4 & ~CR4_MCE
    lp.idtr_base = number("0xFFFF800000002000") if given["idt"] else 0


def _answer(given: Mapping[str, Any], revision: str) -> Answer:
    platform = _base(revision, given["mode"] != "no vmx").fork()
    _put(platform, given)
    kind = given["event"]
    vmcs = platform.lp(0).current_vmcs
    outcome: EventOutcome = (
        shutdown(platform, 0, "asked for") if kind == "SHUTDOWN" else raise_event(platform, 0, EventKind[kind])
    )
    lp = platform.lp(0)
    output: dict[str, Any] = {
        "outcome": _json(outcome),
        "inSEAM": lp.inSEAM,
        "non_root": lp.non_root,
        "smi_pending": lp.smi_pending,
        "nmi_pending": lp.nmi_pending,
        "intr_pending": lp.intr_pending,
        "init_pending": lp.init_pending,
        "smi_inhibit": lp.smi_inhibit,
        "nmi_inhibit": lp.nmi_inhibit,
        "activity": lp.activity.value,
        "mcg_status": hexed(platform.msr_value(lp, MCG_STATUS)),
        "seam_ready": platform.SEAM_READY,
        "p_seamldr_ready": platform.P_SEAMLDR_READY,
    }
    if isinstance(outcome, VmExit):
        data = lp.vmcs_cache[vmcs].data
        output["vmcs"] = {name: hexed(get(data, name)) for name in EXIT_FIELDS}
    clauses = [outcome.clause]
    other = platform.lps[1]
    platform.lp(other).rax = 0
    elsewhere = seamcall(platform, other) if given["mode"] != "no vmx" else None
    output["seamcall_elsewhere"] = [] if elsewhere is None else [outcome_json(elsewhere)]
    if lp.activity is not Activity.SHUTDOWN:
        lp = platform.lp(0)
        lp.smi_inhibit = lp.nmi_inhibit = False
        output["taken_when_open"] = [_json(taken) for taken in deliver_pending(platform, 0)]
    return Answer(output, tuple(clauses))


def _json(outcome: EventOutcome) -> dict[str, Any]:
    match outcome:
        case Delivered() | Pending() | Discarded():
            return {"kind": type(outcome).__name__.lower()}
        case _:
            return outcome_json(outcome)


SET = VectorSet(
    "events",
    "Events in SEAM and outside",
    (
        "SMI, NMI, interrupt, machine check, INIT, SIPI, triple fault and shutdown arrive in each mode.  The outputs "
        "say who "
        "takes the event, what waits, and what a SEAMCALL on another processor finds afterwards: a shutdown in SEAM "
        "makes "
        "both modules not loaded for everybody.",
        "`taken_when_open` is what this processor takes next once SMI and NMI are no longer inhibited.",
    ),
    (
        Item("mode", OneOf(tuple(MODES)), "; ".join(f"{name}: {says}" for name, says in MODES.items())),
        Item("event", OneOf(tuple(KINDS)), "; ".join(f"{name}: {says}" for name, says in KINDS.items())),
        Item("rflags_if", Flag(), "RFLAGS.IF"),
        Item(
            "seam_inhibits",
            Flag(),
            "the SMI and NMI inhibits are as SEAMCALL left them (false: software has ended them)",
        ),
        Item("cr4_mce", Flag(), "CR4.MCE"),
        Item("idt", Flag(), "there is an IDT (false: IDTR.base = 0)"),
    ),
    (
        Item("outcome", INFO, "what became of the event"),
        Item("inSEAM", Flag(), "inSEAM"),
        Item("non_root", Flag(), "VMX non-root operation"),
        Item("smi_pending", Flag(), "an SMI waits"),
        Item("nmi_pending", Flag(), "an NMI waits"),
        Item("intr_pending", Flag(), "an interrupt waits"),
        Item("init_pending", Flag(), "an INIT waits"),
        Item("smi_inhibit", Flag(), "SMIs are inhibited"),
        Item("nmi_inhibit", Flag(), "NMIs are inhibited"),
        Item("activity", OneOf(tuple(a.value for a in Activity)), "what the processor does"),
        Item("mcg_status", Hex(), "IA32_MCG_STATUS; bit 12: SEAM_NR"),
        Item("seam_ready", Flag(), "SEAMEXTEND.seam_ready"),
        Item("p_seamldr_ready", Flag(), "SEAMEXTEND.p_seamldr_ready"),
        Item(
            "vmcs",
            Group(tuple(Item(name, Hex(), "field of the VMCS") for name in EXIT_FIELDS)),
            "what the exit wrote; only where there is one",
            True,
        ),
        Item(
            "seamcall_elsewhere",
            ListOf(outcome_type("fault", "vm_exit", "vmfail_invalid", "entered")),
            "what SEAMCALL to the TDX module then does on another processor; empty outside VMX operation",
        ),
        Item(
            "taken_when_open",
            ListOf(INFO),
            "events that the processor takes once it can; not of one that is shut down",
            True,
        ),
    ),
    revisions("events-blocked", "nmi-blocked-after-td"),
    _cases,
    _answer,
    small=8,
)
