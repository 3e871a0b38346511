"""A scripted SEAM side: what SEAMCALL does on one processor, for one leaf, at one call.

Rules sit where the kernel executes SEAMCALL, so every wrapper, retry and message above them is the real one.  The
first rule that fits decides; without one the instruction is executed, and whatever is in SEAM answers.  A rule for
anything at the end of the list (:data:`COMPLETES`) leaves nothing for software in SEAM to say.

The form is that of the recorded Linux vectors, so a recording, a command line and an experiment say the same thing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from difflib import get_close_matches
from enum import Enum
from typing import Any

from seamref.errors import SeamrefError
from seamref.host.abi import (
    ARGS,
    SEAMLDR_RND_NO_ENTROPY,
    TDX_INTERRUPTED_RESUMABLE,
    TDX_RND_NO_ENTROPY,
    TDX_SUCCESS,
    TDX_SYS_BUSY,
    TDX_UPDATE_COMPAT_SENSITIVE,
    Errno,
    Leaf,
    leaf_title,
)
from seamref.spec import CHOSEN, implements

M64 = (1 << 64) - 1
_COUNTED = 1 << 63 | 0xFF


class Ends(Enum):
    """How a scripted SEAMCALL ends."""

    COMPLETED = "completed"
    VMFAILINVALID = "vmfailinvalid"
    FAULT = "fault"
    ZF = "zf"

    @property
    def says(self) -> str:
        """In words."""
        return _SAYS[self]


_SAYS = {
    Ends.COMPLETED: "SEAM was entered and left; RAX is the status, other registers change as the rule says",
    Ends.VMFAILINVALID: "CF = 1, RAX and everything else unchanged",
    Ends.FAULT: "an exception at the instruction; nothing changes",
    Ends.ZF: "ZF = 1, CF = 0, registers unchanged (VMfailValid, which the stub does not look for)",
}


@dataclass(frozen=True, slots=True)
class Rule:
    """SCRIPT.rule: which SEAMCALLs it fits, and what they do.

    ``cpu``     CPU number; ``None``: any
    ``leaf``    RAX at the instruction; ``None``: any
    ``rdx``     RDX at the instruction; ``None``: any
    ``nth``     first call it fits, ``nth_to`` the last one (``None``: no end); SCRIPT.nth
    ``outcome`` how the call ends
    ``rax``     status of a completed call
    ``vector``  exception vector of a fault
    ``out``     (register, value) pairs that a completed call changes
    ``store``   bytes that a completed call with RAX = 0 stores at the physical address in RCX
    """

    leaf: int | None = None
    cpu: int | None = None
    rdx: int | None = None
    nth: int = 0
    nth_to: int | None = None
    outcome: Ends = Ends.COMPLETED
    rax: int = TDX_SUCCESS
    vector: int | None = None
    out: tuple[tuple[str, int], ...] = ()
    store: bytes = b""

    def __post_init__(self) -> None:
        for name in ("leaf", "rdx", "rax"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= M64:
                raise SeamrefError(f"rule: {name}: {value:#x}, must be 0 to 2^64 - 1")
        for name in ("cpu", "nth", "nth_to"):
            value = getattr(self, name)
            if value is not None and value < 0:
                raise SeamrefError(f"rule: {name}: {value}, must not be negative")
        if self.nth_to is not None and self.nth_to < self.nth:
            raise SeamrefError(f"rule: nth_to: {self.nth_to}, is before nth = {self.nth}")
        if (self.outcome is Ends.FAULT) != (self.vector is not None):
            raise SeamrefError("rule: vector: belongs to outcome = fault, and a fault needs one")
        if self.vector is not None and not 0 <= self.vector <= 255:
            raise SeamrefError(f"rule: vector: {self.vector}, must be 0 to 255")
        for register, value in self.out:
            if register not in ARGS:
                raise SeamrefError(f"rule: out: no register {register!r}; there are {', '.join(ARGS)}")
            if not 0 <= value <= M64:
                raise SeamrefError(f"rule: out.{register}: {value:#x}, must be 0 to 2^64 - 1")

    @implements("SCRIPT.rule", "the first rule that fits the CPU, the leaf (RAX), RDX and the number of the call "
                "decides what SEAMCALL does", "SEAMREF recorded Linux vectors", CHOSEN)
    def fits(self, cpu: int, leaf: int, rdx: int, nth: int) -> bool:
        """SCRIPT.rule."""
        return (
            (self.cpu is None or self.cpu == cpu)
            and (self.leaf is None or self.leaf == leaf)
            and (self.rdx is None or self.rdx == rdx)
            and self.nth <= nth and (self.nth_to is None or nth <= self.nth_to)
        )

    def __str__(self) -> str:
        said = [] if self.cpu is None else [f"cpu={self.cpu}"]
        if self.leaf is not None:
            known = self.leaf in Leaf._value2member_map_
            said.append(f"leaf={leaf_title(self.leaf) if known else f'0x{self.leaf:X}'}")
        said += [] if self.rdx is None else [f"rdx=0x{self.rdx:X}"]
        said += [] if not self.nth else [f"nth={self.nth}"]
        said += [] if self.nth_to is None else [f"nth_to={self.nth_to}"]
        match self.outcome:
            case Ends.COMPLETED:
                said.append(f"rax={_NAME_OF.get(self.rax, f'0x{self.rax:X}')}")
            case Ends.FAULT:
                said.append(f"outcome=fault,vector={self.vector}")
            case _:
                said.append(f"outcome={self.outcome.value}")
        return ",".join((*said, *(f"out.{name}=0x{value:X}" for name, value in self.out)))


COMPLETES = Rule()
"""Fits everything: completes with RAX = 0 and leaves the other registers as they are."""


@dataclass(frozen=True, slots=True)
class Asked:
    """One SEAMCALL that the scripted side saw: CPU, leaf, the registers that the stub loaded, and what it did."""

    cpu: int
    leaf: int
    registers: tuple[tuple[str, int], ...]
    rule: Rule | None

    def __getitem__(self, register: str) -> int:
        return dict(self.registers)[register]


@dataclass(frozen=True, slots=True)
class Script:
    """Rules in order, and every SEAMCALL made since they were given (which is also how calls are counted).

    ``vmxon``: what VMXON on a CPU that has no VMX user yet ends in; ``None``: the instruction is executed.
    """

    rules: tuple[Rule, ...] = ()
    asked: tuple[Asked, ...] = ()
    vmxon: Errno | None = None

    @implements("SCRIPT.nth", "calls are counted from 0 for each CPU and each (leaf bits 7:0, leaf bit 63), whichever "
                "rule decides", "SEAMREF recorded Linux vectors", CHOSEN)
    def nth(self, cpu: int, leaf: int) -> int:
        """SCRIPT.nth: the number of the next call."""
        key = leaf & _COUNTED
        return sum(one.cpu == cpu and one.leaf & _COUNTED == key for one in self.asked)

    def ask(self, cpu: int, leaf: int, registers: tuple[tuple[str, int], ...]) -> tuple[Script, Rule | None]:
        """The rule that decides this call (``None``: execute the instruction), and the script as it goes on."""
        nth, rdx = self.nth(cpu, leaf), dict(registers)["rdx"]
        rule = next((rule for rule in self.rules if rule.fits(cpu, leaf, rdx, nth)), None)
        return replace(self, asked=(*self.asked, Asked(cpu, leaf, registers, rule))), rule


# --- rules as text ------------------------------------------------------------------------------------------

STATUSES: dict[str, int] = {
    "TDX_SUCCESS": TDX_SUCCESS, "TDX_RND_NO_ENTROPY": TDX_RND_NO_ENTROPY, "TDX_SYS_BUSY": TDX_SYS_BUSY,
    "TDX_INTERRUPTED_RESUMABLE": TDX_INTERRUPTED_RESUMABLE,
    "TDX_UPDATE_COMPAT_SENSITIVE": TDX_UPDATE_COMPAT_SENSITIVE, "SEAMLDR_RND_NO_ENTROPY": SEAMLDR_RND_NO_ENTROPY,
}
"""Status codes by the names that Linux uses; :func:`status_of` knows the module's and P-SEAMLDR's as well."""
_NAME_OF = {value: name for name, value in STATUSES.items()}
VECTORS = {"#UD": 6, "#GP": 13, "#PF": 14}
_KEYS = tuple(field.name for field in fields(Rule) if field.name not in ("out", "store"))


def status_of(text: str) -> int:
    """A status by number or by name (Linux's, the module's TDX_..., P-SEAMLDR's)."""
    from seamref.pseamldr.api import Status as LoaderStatus
    from seamref.tdxmodule.status import Status as ModuleStatus

    known = {**{s.name: int(s) for s in LoaderStatus}, **{s.name: int(s) for s in ModuleStatus}, **STATUSES}
    return _named("rax", text, known)


def leaf_of(text: str) -> int:
    """A leaf by number or by name: TDH.SYS.LP.INIT, SEAMLDR.INSTALL, also with underscores."""
    return _named("leaf", text.replace("_", "."), {leaf.title: int(leaf) for leaf in Leaf})


def _named(key: str, text: str, known: Mapping[str, int]) -> int:
    upper = {name.upper(): value for name, value in known.items()}
    if text.upper() in upper:
        return upper[text.upper()]
    if text[:1].isdigit():
        return _number(key, text)
    near = get_close_matches(text.upper(), upper, 1)
    raise SeamrefError(f"rule: {key}: no {text!r}" + (f"; did you mean {near[0]}?" if near else ""))


def _number(key: str, text: str) -> int:
    try:
        return int(text, 0)
    except ValueError:
        raise SeamrefError(f"rule: {key}: {text!r} is no number") from None


def parse_rule(text: str) -> Rule:
    """``cpu=3,leaf=TDH.SYS.LP.INIT,rax=TDX_RND_NO_ENTROPY``: the fields of :class:`Rule`, registers as ``out.r8=5``.

    An unknown key, a key given twice or a value out of range is an error that names it.
    """
    given: dict[str, Any] = {}
    out: dict[str, int] = {}
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        key, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals or not value:
            raise SeamrefError(f"rule: {part!r}: must be KEY=VALUE")
        if key in given or (key.removeprefix("out.") in out and key.startswith("out.")):
            raise SeamrefError(f"rule: {key}: given twice")
        if key.startswith("out."):
            out[key.removeprefix("out.")] = _number(key, value)
            continue
        match key:
            case "leaf":
                given[key] = leaf_of(value)
            case "rax":
                given[key] = status_of(value)
            case "vector":
                given[key] = _named(key, value, VECTORS)
            case "outcome":
                try:
                    given[key] = Ends(value.lower())
                except ValueError:
                    known = ", ".join(e.value for e in Ends)
                    raise SeamrefError(f"rule: outcome: no {value!r}; there are {known}") from None
            case _ if key in _KEYS:
                given[key] = _number(key, value)
            case _:
                raise SeamrefError(f"rule: no key {key!r}; there are {', '.join(_KEYS)}, out.REGISTER")
    if not given and not out:
        raise SeamrefError("rule: empty; it would fit every SEAMCALL")
    if "vector" in given:
        given.setdefault("outcome", Ends.FAULT)
    return Rule(**given, out=tuple(out.items()))


def parse_rules(texts: Iterable[str]) -> tuple[Rule, ...]:
    """Several rules, in order; a text may hold several, separated by semicolons."""
    return tuple(parse_rule(piece) for text in texts for piece in text.split(";") if piece.strip())


__all__ = ["COMPLETES", "STATUSES", "Asked", "Ends", "Rule", "Script", "leaf_of", "parse_rule", "parse_rules",
           "status_of"]
