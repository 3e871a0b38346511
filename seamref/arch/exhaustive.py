"""Every state that SEAMCALL can tell apart, and what it does in each.

SEAMCALL's checks look at twelve yes/no facts.  This module puts a real platform into each of the 4096 combinations,
executes SEAMCALL, and writes down outcome and deciding clause, per revision.  The table can be compared with another
implementation: see :func:`export` for the format.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from seamref.arch import lab
from seamref.arch.lp import EFER_LMA, Lp
from seamref.arch.msr import SEAMRR_MASK
from seamref.arch.outcome import Entered, Fault, SeamcallOutcome, VmExit, VmFailInvalid
from seamref.arch.platform import Platform
from seamref.arch.revision import REVISIONS, Revision
from seamref.arch.seam import seamcall
from seamref.errors import SeamrefError

FORMAT = "seamref-seamcall/1"


@dataclass(frozen=True, slots=True)
class Input:
    """One fact SEAMCALL looks at: its bit in a state number, what 1 means, and how a platform is put into it."""

    bit: int
    name: str
    meaning: str
    put: Callable[[Platform, Lp, bool], None]


def _vmx(platform: Platform, lp: Lp, on: bool) -> None:
    lp.vmx_on = on


def _long_mode(platform: Platform, lp: Lp, on: bool) -> None:
    lp.cs_l = on
    lp.efer = lp.efer | EFER_LMA if on else lp.efer & ~EFER_LMA


def _seamrr(platform: Platform, lp: Lp, on: bool) -> None:
    mask = lp.msrs[SEAMRR_MASK]
    lp.msrs[SEAMRR_MASK] = mask | 1 << 11 if on else mask & ~(1 << 11)


def _attribute(name: str, true: Any = True, false: Any = False) -> Callable[[Platform, Lp, bool], None]:
    def put(platform: Platform, lp: Lp, on: bool) -> None:
        setattr(lp, name, true if on else false)

    return put


def _seam_ready(platform: Platform, lp: Lp, on: bool) -> None:
    lab.set_ready(platform, seam=on)


def _p_seamldr_ready(platform: Platform, lp: Lp, on: bool) -> None:
    lab.set_ready(platform, p_seamldr=on)


def _mutex(platform: Platform, lp: Lp, on: bool) -> None:
    platform.P_SEAMLDR_MUTEX = platform.lps[-1] if on else None


INPUTS: tuple[Input, ...] = tuple(
    Input(bit, *row)
    for bit, row in enumerate((
        ("vmx", "in VMX operation", _vmx),
        ("smm", "in SMM", _attribute("in_smm")),
        ("inSEAM", "inSEAM = 1", _attribute("inSEAM")),
        ("non_root", "in VMX non-root operation", _attribute("non_root")),
        ("64bit", "EFER.LMA = 1 and CS.L = 1", _long_mode),
        ("user", "CPL = 3 (0: CPL = 0)", _attribute("cpl", 3, 0)),
        ("seamrr", "IA32_SEAMRR_PHYS_MASK.VALID = 1 (LOCK and CONFIGURED are 1)", _seamrr),
        ("mov_ss", "blocking by MOV-SS", _attribute("mov_ss_blocking")),
        ("rax63", "RAX[63] = 1: P-SEAMLDR is called", _attribute("rax", 1 << 63, 0)),
        ("seam_ready", "the TDX module is loaded", _seam_ready),
        ("p_ready", "P-SEAMLDR is loaded", _p_seamldr_ready),
        ("mutex", "another processor holds P_SEAMLDR_MUTEX", _mutex),
    ))
)
BITS = {given.name: given.bit for given in INPUTS}
STATES = 1 << len(INPUTS)


@dataclass(frozen=True, slots=True)
class Answer:
    """What SEAMCALL did in one state."""

    outcome: str
    clause: str


def name_of(outcome: SeamcallOutcome) -> str:
    """The outcome as the table spells it."""
    match outcome:
        case Fault():
            return str(outcome)
        case VmExit():
            return "VM exit 76"
        case VmFailInvalid():
            return "VMfailInvalid"
        case Entered():
            return str(outcome)


def is_reachable(state: int) -> bool:
    """Whether a processor can be in a state: SEAM and non-root need VMX, non-root in SMM and V86 details aside."""
    vmx, in_smm, in_seam, non_root = (bool(state >> BITS[n] & 1) for n in ("vmx", "smm", "inSEAM", "non_root"))
    if (in_seam or non_root) and not vmx:
        return False
    if in_seam and in_smm:
        return False  # SMIs are inhibited in SEAM root and exit in SEAM non-root
    root_in_seam = in_seam and not non_root
    return not (root_in_seam and (state >> BITS["user"] & 1 or not state >> BITS["64bit"] & 1))


def state_of(**facts: bool) -> int:
    """A state number from named facts; those not named are 0."""
    unknown = set(facts) - set(BITS) - {"b64"}
    if unknown:
        raise SeamrefError(f"SEAMCALL looks at no {sorted(unknown)}; it looks at {', '.join(BITS)}")
    return sum(int(on) << BITS["64bit" if name == "b64" else name] for name, on in facts.items())


def facts_of(state: int) -> dict[str, bool]:
    """The named facts of a state number."""
    return {given.name: bool(state >> given.bit & 1) for given in INPUTS}


def put_state(platform: Platform, state: int) -> Platform:
    """Put the first processor of a platform (a fork, usually) into a state."""
    lp = platform.lp(platform.lps[0])
    for given in INPUTS:
        given.put(platform, lp, bool(state >> given.bit & 1))
    return platform


def answer(base: Platform, state: int) -> Answer:
    """Execute SEAMCALL in one state, on a fork of ``base``."""
    platform = put_state(base.fork(), state)
    outcome = seamcall(platform, platform.lps[0])
    return Answer(name_of(outcome), outcome.clause)


def seamcall_table(revision: Revision) -> list[Answer]:
    """The answers to all states of one revision, indexed by state number."""
    base = lab.platform(revision=revision)
    return [answer(base, state) for state in range(STATES)]


def differences(a: Revision, b: Revision) -> Iterator[tuple[int, Answer, Answer]]:
    """The states in which two revisions give different outcomes, with both answers."""
    for state, (one, other) in enumerate(zip(seamcall_table(a), seamcall_table(b), strict=True)):
        if one.outcome != other.outcome:
            yield state, one, other


def export(names: list[str] | None = None) -> dict[str, Any]:
    """The whole table as plain data.

    ``inputs``    name, bit and meaning of each fact; a state number has the fact's bit set when it is true
    ``outcomes``  the outcomes that occur, in words
    ``revisions`` name -> list of 4096 entries, each ``[index into outcomes, deciding clause]``, by state number
    ``reachable`` the state numbers that a processor can be in; the others are listed for completeness
    """
    chosen = names or list(REVISIONS)
    tables = {name: seamcall_table(REVISIONS[name]) for name in chosen}
    outcomes = sorted({entry.outcome for table in tables.values() for entry in table})
    return {
        "format": FORMAT,
        "inputs": [{"bit": i.bit, "name": i.name, "meaning": i.meaning} for i in INPUTS],
        "outcomes": outcomes,
        "reachable": [state for state in range(STATES) if is_reachable(state)],
        "revisions": {
            name: [[outcomes.index(entry.outcome), entry.clause] for entry in table] for name, table in tables.items()
        },
    }


def _c_name(text: str) -> str:
    """A C identifier: what is no letter or digit becomes one underscore."""
    words = "".join(c if c.isalnum() else " " for c in text).split()
    return "_".join(words).upper()


def c_header(revision: Revision, name: str = "seamcall") -> str:
    """The table of one revision as a C header: bit masks of the inputs, an outcome per state, the clause per state.

    ``name`` begins every name in it, so that the tables of two revisions can be included in one file.
    """
    table = seamcall_table(revision)
    outcomes = sorted({entry.outcome for entry in table})
    clauses = sorted({entry.clause for entry in table})
    big = name.upper()
    guard = f"{'' if big.startswith('SEAMREF') else 'SEAMREF_'}{big}_H"
    lines = [
        f"/* {FORMAT}, revision {revision.name}: what SEAMCALL does in each state. */",
        f"#ifndef {guard}",
        f"#define {guard}",
        "",
        *(f"#define {big}_IN_{_c_name(given.name)} {1 << given.bit:#05x} /* {given.meaning} */" for given in INPUTS),
        f"#define {big}_STATES {STATES}",
        "",
        f"enum {name}_outcome {{",
        *(f"\t{big}_{_c_name(outcome)}, /* {outcome} */" for outcome in outcomes),
        "};",
        "",
        f"static const char *const {name}_clauses[] = {{",
        *(f'\t"{clause}",' for clause in clauses),
        "};",
        "",
        f"/* [state][0]: enum {name}_outcome; [state][1]: index into {name}_clauses */",
        f"static const unsigned char {name}_table[{big}_STATES][2] = {{",
    ]
    for first in range(0, STATES, 16):
        row = (f"{{{outcomes.index(e.outcome)},{clauses.index(e.clause)}}}" for e in table[first : first + 16])
        lines.append("\t" + ",".join(row) + ",")
    return "\n".join([*lines, "};", "", "#endif", ""])
