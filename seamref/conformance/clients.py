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


# --- the same for tests of the kit

INSTRUCTIONS = {"seamcall": "SEAMCALL", "seamret": "SEAMRET", "seamops": "SEAMOPS", "tdcall": "TDCALL"}
"""Sets whose inputs are facts -> the instruction."""

CLIENTS: dict[str, str] = {
    "msr": "{operation} by {mode}",
    "memory-access": "an access by {agent}",
    "enteraccs": "whoever launches the module: BIOS or OS loader",
    "events": "software in mode {mode}, at {event}",
    "pseamldr": "the host kernel behind a P-SEAMLDR call",
    "npseamldr": "the BIOS or OS loader that reads NP-SEAMLDR's answer",
    "memory-plans": "the host kernel whose INSTALL needs the memory",
    "sigstruct": "the host kernel whose INSTALL is judged",
    "rsa": "the host kernel whose INSTALL is judged",
    "blob": "user space that writes the image",
    "update": "the administrator who updates the module",
}
"""Set -> who uses what it asks about; names in braces are fields of the input."""


def words_of(outcome: Mapping[str, object]) -> str:
    """An outcome object of the kit as tables spell outcomes."""
    match outcome:
        case {"kind": "fault", "mnemonic": str(name)}:
            code = outcome.get("error_code")
            return name if code is None else f"{name}({code})"
        case {"kind": "vm_exit", "reason": reason}:
            return f"VM exit {reason}"
        case {"kind": "vmfail_invalid"}:
            return "VMfailInvalid"
        case {"kind": "vmfail_valid", "error": error}:
            return f"VMfailValid({error})"
        case {"kind": "entry_failure", "reason": reason}:
            return f"VM-entry failure {reason}"
        case {"kind": "entered", "target": target}:
            return f"entered {target}"
        case {"kind": "left", "target": target}:
            return f"left {target}" + (f", {LOST}" if outcome.get("vmcs_lost") else "")
        case {"kind": kind}:
            return str(kind)
    return "something that is no outcome"


def noticed_in(
    set_name: str, given: Mapping[str, object], came: Mapping[str, object], must: Mapping[str, object], path: str,
    field_came: object, field_must: object,
) -> list[Noticed]:
    """Who would notice that a test of the kit is answered otherwise: ``came`` is the answer, ``must`` what must come.

    Where the outcome differs, what each client sees of it; else the field itself, for the software that executes.
    """
    facts = {name: on for name, on in given.items() if isinstance(on, bool)}
    instruction = INSTRUCTIONS.get(set_name)
    one, other = came.get("outcome"), must.get("outcome")
    if instruction and path.partition(".")[0] == "outcome" and isinstance(one, dict) and isinstance(other, dict):
        said, ours = words_of(one), words_of(other)
        if said != ours and _is_known(said):
            return noticed_by(instruction, facts, said, ours)
    who = executing(facts) if instruction else CLIENTS.get(set_name, "whoever relies on it").format_map(_Named(given))
    if path.partition(".")[0] == "outcome" and isinstance(one, dict) and isinstance(other, dict):
        said, ours = words_of(one), words_of(other)
        if said != ours:
            return [Noticed(who, said, ours)]
    return [Noticed(who, f"{path} {_short(field_came)}", f"{path} {_short(field_must)}")]


def _is_known(words: str) -> bool:
    """Whether an exit that somebody claims has a reason that is a number KVM is asked about."""
    return not words.startswith("VM exit") or words in ("VM exit 76", "VM exit 77")


class _Named(dict[str, object]):
    """Fields of an input by name; one that is not there is said to be unknown."""

    def __missing__(self, name: str) -> str:
        return f"unknown {name}"


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 60 else text[:57] + "..."
