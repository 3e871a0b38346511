"""TDH.MEM.SEPT.ADD (leaf 3): a page of the secure EPT (TDXM tdh_mem_sept_add.c)."""

from __future__ import annotations

from seamref.spec import Check, CheckTable, implements
from seamref.tdxmodule.core import Answer, Call, leaf
from seamref.tdxmodule.status import SUCCESS, Operand, Result
from seamref.tdxmodule.structures import OpState, PageType
from seamref.tdxmodule.system.common import first, ref
from seamref.tdxmodule.td.checks import SEPT_FREE, SEPT_PRESENT, S, add_child, page, td_state
from seamref.tdxmodule.td.sept import (
    FLAG_TDR,
    LEVEL,
    TDR_MASK,
    Walk,
    free_entries,
    gpa_of,
    gpa_wrong,
    sept_locked,
    sept_walk,
    shows,
)

ALLOW_EXISTING = 1
NO_PAGE = (1 << 64) - 1
"""An operand that names no page."""
NOT_USED = 1 << 63
"""On return: the page was not needed.  On entry the bit says nothing."""
PAGES = ("r8", "r9", "r10", "r11")
"""The page for the secure EPT, and in version 1 those for the L2 VMs."""


def _page(c: Call, register: str = "r8") -> int:
    """What a register names, without the bit that a former call may have set in it."""
    named = c.reg(register)
    return named if named == NO_PAGE else named & ~NOT_USED


def pages_back(c: Call) -> None:
    """Version 1 gives the pages back in their registers, behind the check of the version."""
    if c.version:
        c.out(**{name: _page(c, name) for name in PAGES})


def _handle_wrong(c: Call) -> bool:
    """Bits of RDX that are neither the TDR's address nor ALLOW_EXISTING."""
    return bool(c.rdx & ~TDR_MASK & ~ALLOW_EXISTING & (1 << 64) - 1)


def _add_walk(c: Call) -> Walk:
    return sept_walk(c, FLAG_TDR(c), gpa_of(c), c.rcx & LEVEL)


def _add_entry(c: Call) -> bool:
    """A page where the entry is in use (unless ALLOW_EXISTING), or none (version 1) where no table is."""
    walk = _add_walk(c)
    free = walk.entry == SEPT_FREE
    if c.r8 == NO_PAGE:
        return bool(c.version) and shows(c, walk, free)
    return shows(c, walk, not free and not c.rdx & ALLOW_EXISTING)


def _l2_page(c: Call) -> int | None:
    """Details of the first L2 page (R9 to R11): its operand id.  No TD here has L2 VMs."""
    if not c.version:
        return None
    return next((int(Operand[name.upper()]) for name in PAGES[1:] if c.reg(name) != NO_PAGE), None)


def _is_used(c: Call) -> bool:
    """Whether the page in R8 is needed."""
    return _add_walk(c).entry == SEPT_FREE if c.r8 != NO_PAGE else not c.version


_NEW = page("r8", PageType.NDA, "x", NOT_USED - 1)
_NONE = page("r8", PageType.NDA, "x")


def sept_add_page(c: Call) -> Result | None:
    """The new page, where one is used; version 1 says in bit 63 of R8 where none is."""
    if not _is_used(c):
        if c.version and c.r8 != NO_PAGE:
            c.out(r8=_page(c) | NOT_USED)
        return None
    return (_NONE if c.r8 == NO_PAGE else _NEW)(c)  # type: ignore[operator]


_A = ref("tdh_mem_sept_add.c")
SEPT_ADD_VERSION: CheckTable[Call, Answer] = CheckTable("TDH.MEM.SEPT.ADD version", (
    Check("MEM.SEPT.ADD.version", "RAX[23:16] above 1", lambda c: c.version > 1,
          Answer(S.TDX_OPERAND_INVALID, Operand.RAX), _A),
), "TDH.MEM.SEPT.ADD (leaf 3): the version, before any operand.")
SEPT_ADD_FIRST: CheckTable[Call, Answer] = CheckTable("TDH.MEM.SEPT.ADD handle", (
    Check("MEM.SEPT.ADD.handle", "reserved bits of RDX (all but 51:12, and bit 0, ALLOW_EXISTING)", _handle_wrong,
          Answer(S.TDX_OPERAND_INVALID, Operand.RDX), _A),
), "TDH.MEM.SEPT.ADD (leaf 3): conditions in order before the TDR is looked at.")
SEPT_ADD: CheckTable[Call, Answer] = CheckTable("TDH.MEM.SEPT.ADD", (
    Check("MEM.SEPT.ADD.rcx", "level not 1..3, or GPA not private or not aligned to it", lambda c: gpa_wrong(c,
          range(1, 4)),
          Answer(S.TDX_OPERAND_INVALID, Operand.RCX), _A),
    Check("MEM.SEPT.ADD.lock", "another processor holds the secure EPT", sept_locked("rdx", TDR_MASK),
          Answer(S.TDX_OPERAND_BUSY, Operand.SEPT_TREE), _A),
    Check("MEM.SEPT.ADD.walk", "the entry's table is not there",
          lambda c: shows(c, _add_walk(c), _add_walk(c).level != c.rcx & LEVEL),
          Answer(S.TDX_EPT_WALK_FAILED, Operand.RCX), _A),
    Check("MEM.SEPT.ADD.entry", "the entry is not free, without ALLOW_EXISTING; version 1 without a page: it is free",
          _add_entry,
          Answer(S.TDX_EPT_ENTRY_STATE_INCORRECT, Operand.RCX), _A),
), "TDH.MEM.SEPT.ADD: conditions in order, behind TDR and TD state; then the page.")
SEPT_ADD_L2: CheckTable[Call, Answer] = CheckTable("TDH.MEM.SEPT.ADD L2", (
    Check("MEM.SEPT.ADD.l2", "version 1: a page for an L2 VM that the TD does not have (all ones: none)",
          lambda c: first(c, _l2_page(c)), Answer(S.TDX_OPERAND_INVALID, found=True), _A),
), "TDH.MEM.SEPT.ADD: the pages of L2 VMs, behind the page in R8.")


@implements("MEM.SEPT.ADD.effect", "the page holds free entries, the entry points to it; PAMT type EPT", _A)
def _sept_add(c: Call) -> Result:
    """MEM.SEPT.ADD.effect."""
    tdr, new = FLAG_TDR(c), _page(c)
    if _is_used(c):
        c.give_page(new, PageType.EPT, c.rdx & TDR_MASK, tdr.num("hkid"))
        free_entries(c, new, tdr.num("hkid"))
        walk = sept_walk(c, tdr, gpa_of(c), c.rcx & 7)
        c.port.write_int(walk.address, new | SEPT_PRESENT | SEPT_FREE)
        add_child(tdr)
        if c.version:
            c.out(r8=NO_PAGE)
    return SUCCESS


leaf(3, "TDH.MEM.SEPT.ADD", "a page of the secure EPT",
     stages=(SEPT_ADD_VERSION, pages_back, SEPT_ADD_FIRST, page("rdx", PageType.TDR, "s", TDR_MASK),
             td_state(FLAG_TDR, OpState.INITIALIZED, OpState.RUNNABLE), SEPT_ADD, sept_add_page, SEPT_ADD_L2),
     effects=(_sept_add,), outputs=("rcx", "rdx"), late=True,
     inputs="RCX GPA and level, RDX TDR (bit 0 ALLOW_EXISTING), R8 page, version 1: R9 to R11 L2 pages")
