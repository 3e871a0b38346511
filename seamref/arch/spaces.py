"""Every state that SEAMCALL, SEAMRET, SEAMOPS and TDCALL can tell apart, and what each does there.

A :class:`Space` lists the yes/no facts one instruction looks at and knows how to put a real platform into each
combination.  The answers are the machine's: it executes the instruction on a fork.  SEAMCALL's twelve facts are those
of :mod:`seamref.arch.exhaustive`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache

from seamref.arch import exhaustive, lab
from seamref.arch.exhaustive import Answer, Input
from seamref.arch.lp import EFER_LMA, Lp
from seamref.arch.memory import Agent
from seamref.arch.outcome import Done, Outcome, VmExit
from seamref.arch.platform import Platform
from seamref.arch.revision import Revision
from seamref.arch.seam import BIT63, p_seamldr_cvp, seam_cvp, seamcall, seamret, tdcall
from seamref.arch.seamops import seamops
from seamref.arch.vmcs import NONE, put
from seamref.errors import SeamrefError


@dataclass(frozen=True, slots=True)
class Space:
    """The states of one instruction.

    ``name``       the instruction, and the check table that decides it
    ``inputs``     its facts, each with its bit in a state number
    ``base``       a platform from which every state is made, by the facts that only an earlier SEAMCALL can set
    ``put``        puts a fork of it into a state
    ``execute``    the instruction on the first processor
    ``reachable``  whether a processor can be in a state
    ``usual``      the facts that are true where the instruction is ordinarily executed
    """

    name: str
    inputs: tuple[Input, ...]
    base: Callable[[Revision, Mapping[str, bool]], Platform]
    execute: Callable[[Platform, Mapping[str, bool]], Outcome]
    reachable: Callable[[Mapping[str, bool]], bool]
    usual: frozenset[str]

    @property
    def states(self) -> int:
        """How many there are."""
        return 1 << len(self.inputs)

    def facts(self, state: int) -> dict[str, bool]:
        """The named facts of a state number."""
        return {given.name: bool(state >> given.bit & 1) for given in self.inputs}

    def state(self, facts: Mapping[str, bool]) -> int:
        """The number of a state; facts that are not named are 0."""
        bits = {given.name: given.bit for given in self.inputs}
        unknown = sorted(set(facts) - set(bits))
        if unknown:
            raise SeamrefError(f"{self.name} looks at no {unknown[0]!r}; it looks at {', '.join(bits)}")
        return sum(int(on) << bits[name] for name, on in facts.items())

    def is_reachable(self, state: int) -> bool:
        """Whether a processor can be in a state."""
        return self.reachable(self.facts(state))

    def answer(self, revision: Revision, state: int) -> Answer:
        """Execute the instruction in one state."""
        facts = self.facts(state)
        platform = self.base(revision, facts).fork()
        lp = platform.lp(platform.lps[0])
        for given in self.inputs:
            given.put(platform, lp, facts[given.name])
        outcome = self.execute(platform, facts)
        return Answer(in_words(outcome, lp), outcome.clause)

    def table(self, revision: Revision) -> list[Answer]:
        """The answers to all states, by state number."""
        return [self.answer(revision, state) for state in range(self.states)]


def in_words(outcome: Outcome, lp: Lp) -> str:
    """An outcome as tables spell it; an instruction that completed also says RAX."""
    match outcome:
        case VmExit():
            return f"VM exit {int(outcome.reason)}"
        case Done():
            return f"done, RAX = 0x{lp.rax:X}"
        case _:
            return str(outcome)


def _flag(name: str, true: object = True, false: object = False) -> Callable[[Platform, Lp, bool], None]:
    def put_flag(platform: Platform, lp: Lp, on: bool) -> None:
        setattr(lp, name, true if on else false)

    return put_flag


def _long_mode(platform: Platform, lp: Lp, on: bool) -> None:
    lp.cs_l = on
    lp.efer = lp.efer | EFER_LMA if on else lp.efer & ~EFER_LMA


def _told_before(platform: Platform, lp: Lp, on: bool) -> None:
    """The base has this fact already."""


def _told_to_execute(platform: Platform, lp: Lp, on: bool) -> None:
    """The fact is an operand of the instruction."""


def _inputs(*rows: tuple[str, str, Callable[[Platform, Lp, bool], None]]) -> tuple[Input, ...]:
    return tuple(Input(bit, *row) for bit, row in enumerate(rows))


def _in_SEAM_is_possible(facts: Mapping[str, bool]) -> bool:
    """SEAM root runs 64-bit code at CPL 0, and nothing else."""
    return not facts["inSEAM"] or facts["non_root"] or (facts["64bit"] and not facts["user"])


# --- SEAMCALL


@lru_cache(maxsize=16)
def _seamcall_base(revision: Revision) -> Platform:
    return lab.platform(revision=revision)


SEAMCALL = Space(
    "SEAMCALL", exhaustive.INPUTS, lambda revision, facts: _seamcall_base(revision),
    lambda platform, facts: seamcall(platform, platform.lps[0]),
    lambda facts: exhaustive.is_reachable(exhaustive.state_of(**{
        "b64" if name == "64bit" else name: on for name, on in facts.items()})),
    frozenset({"vmx", "64bit", "seamrr", "seam_ready", "p_ready"}),
)


# --- SEAMRET


@lru_cache(maxsize=64)
def _in_SEAM(revision: Revision, to_P_SEAMLDR: bool, vmm_current: bool) -> Platform:
    """Processor 0 is in SEAM root, entered from a VMM that had a current VMCS or none; a page can be written there."""
    platform = lab.platform(revision=revision)
    lp = platform.lp(platform.lps[0])
    for tables in (lab.P_SEAMLDR_RANGE.base - 0x10000, lab.P_SEAMLDR_RANGE.base + 0x2000):
        entry = tables + 0x3000 + ((lab.CODE >> 12 & 0x1FF) + 1) * 8
        platform.store(Agent.CPU, entry, (lab.P_SEAMLDR_RANGE.base - 0x4000 | 0x63 | 1 << 63).to_bytes(8, "little"))
    if not vmm_current:
        lp.current_vmcs = NONE
    lp.rax = BIT63 if to_P_SEAMLDR else 0
    entered = seamcall(platform, lp.id)
    assert entered.clause == "SEAMCALL.enter", entered
    return platform


def _spoil(**fields: int) -> Callable[[Platform, Lp, bool], None]:
    """Write fields of the transfer VMCS where the fact is false."""

    def put_fields(platform: Platform, lp: Lp, on: bool) -> None:
        data = lp.vmcs_cache[p_seamldr_cvp(platform) if lp.inP_SEAMLDR else seam_cvp(platform, lp)].data
        if not on:
            for name, value in fields.items():
                put(data, name, value)

    return put_fields


def _current(platform: Platform, lp: Lp, on: bool) -> None:
    if not on:
        lp.current_vmcs = NONE


SEAMRET = Space(
    "SEAMRET",
    _inputs(
        ("inSEAM", "inSEAM = 1", _flag("inSEAM")),
        ("64bit", "EFER.LMA = 1 and CS.L = 1", _long_mode),
        ("non_root", "in VMX non-root operation", _flag("non_root")),
        ("user", "CPL = 3 (0: CPL = 0)", _flag("cpl", 3, 0)),
        ("current", "the current-VMCS pointer is valid", _current),
        ("controls", "the VMX controls are valid", _spoil(pin_based=0)),
        ("host", "the host-state area is valid", _spoil(host_tr_selector=0)),
        ("guest", "the guest-state area is valid (GDTR's base is canonical)", _spoil(guest_gdtr_base=1 << 63)),
        ("msr_load", "the VM-entry MSR-load list can be read",
         _spoil(entry_msr_load_count=1, entry_msr_load_address=8)),
        ("p_seamldr", "P-SEAMLDR returns (0: the TDX module)", _told_before),
        ("vmm_current", "the VMM had a current VMCS at its SEAMCALL", _told_before),
    ),
    lambda revision, facts: _in_SEAM(revision, facts["p_seamldr"], facts["vmm_current"]),
    lambda platform, facts: seamret(platform, platform.lps[0]),
    _in_SEAM_is_possible,
    frozenset({"inSEAM", "64bit", "current", "controls", "host", "guest", "msr_load", "vmm_current"}),
)


# --- SEAMOPS


def _seamops(platform: Platform, facts: Mapping[str, bool]) -> Outcome:
    """The leaf in RAX; every pointer names a page that SEAM may write, RDX is a report of type 81H."""
    lp = platform.lp(platform.lps[0])
    lp.rax = facts["leaf0"] | facts["leaf1"] << 1 | facts["leaf2"] << 2 | facts["rax32"] << 32
    lp.rcx = page = lab.CODE + 0x1000
    lp.rbx = lp.r8 = lp.r9 = page + 0x400
    lp.rdx, lp.r10 = 0x81, 0
    return seamops(platform, lp.id, lock_prefix=facts["lock"])


SEAMOPS = Space(
    "SEAMOPS",
    _inputs(
        ("inSEAM", "inSEAM = 1", _flag("inSEAM")),
        ("64bit", "EFER.LMA = 1 and CS.L = 1", _long_mode),
        ("non_root", "in VMX non-root operation", _flag("non_root")),
        ("lock", "a LOCK prefix", _told_to_execute),
        ("user", "CPL = 3 (0: CPL = 0)", _flag("cpl", 3, 0)),
        ("leaf0", "RAX[0] = 1", _told_to_execute),
        ("leaf1", "RAX[1] = 1", _told_to_execute),
        ("leaf2", "RAX[2] = 1", _told_to_execute),
        ("rax32", "RAX[32] = 1: no leaf, where 64 bits are looked at", _told_to_execute),
    ),
    lambda revision, facts: _in_SEAM(revision, False, True), _seamops, _in_SEAM_is_possible,
    frozenset({"inSEAM", "64bit"}),
)


# --- TDCALL

TDCALL = Space(
    "TDCALL",
    _inputs(
        ("inSEAM", "inSEAM = 1: with non-root, a TD", _flag("inSEAM")),
        ("64bit", "EFER.LMA = 1 and CS.L = 1", _long_mode),
        ("non_root", "in VMX non-root operation", _flag("non_root")),
        ("user", "CPL = 3 (0: CPL = 0)", _flag("cpl", 3, 0)),
    ),
    lambda revision, facts: _in_SEAM(revision, False, True),
    lambda platform, facts: tdcall(platform, platform.lps[0]), _in_SEAM_is_possible,
    frozenset({"inSEAM", "64bit", "non_root"}),
)

SPACES: dict[str, Space] = {space.name: space for space in (SEAMCALL, SEAMRET, SEAMOPS, TDCALL)}
"""Instruction -> its states."""


def get_space(name: str) -> Space:
    """The states of an instruction by its name; an unknown name is an error that lists the known ones."""
    try:
        return SPACES[name.upper()]
    except KeyError:
        raise SeamrefError(f"no states of {name!r} are listed; there are those of {', '.join(SPACES)}") from None
