"""TDH.PHYMEM.PAGE.RECLAIM (leaf 28): a page comes back to the host (TDXM tdh_phymem_page_reclaim.c)."""

from __future__ import annotations

from seamref.spec import Check, CheckTable, implements
from seamref.tdxmodule.core import Answer, Call, View, leaf
from seamref.tdxmodule.status import SUCCESS, Operand, Result
from seamref.tdxmodule.structures import Lifecycle, PageType
from seamref.tdxmodule.system.common import ref
from seamref.tdxmodule.td.checks import S, add_child, page

_O = ref("tdh_phymem_page_reclaim.c")
_USED = tuple(t for t in PageType if t not in (PageType.NDA, PageType.RSVD))


def _reclaim_tdr(c: Call) -> View:
    """The TDR concerned: the page itself, or its owner."""
    entry = c.pamt(c.rcx)
    return c.tdr(c.rcx if entry.num("type") == PageType.TDR else entry.num("owner") << 12)


def _show_page(c: Call) -> Result | None:
    """Type, owner and size of the page are told from here on, also where the call fails."""
    entry = c.pamt(c.rcx)
    c.out(rcx=entry.num("type"), rdx=entry.num("owner") << 12, r8=0)
    return None


def _owner_held(c: Call) -> bool:
    entry = c.pamt(c.rcx)
    tdr = entry.num("owner") << 12
    return entry.num("type") != PageType.TDR and not c.lock("S", c.pamt(tdr).address("lock"), linear=False)


RECLAIM: CheckTable[Call, Answer] = CheckTable("TDH.PHYMEM.PAGE.RECLAIM", (
    Check("PHYMEM.PAGE.RECLAIM.owner", "another processor holds the owning TDR exclusively", _owner_held,
          Answer(S.TDX_OPERAND_BUSY, Operand.TDR), _O),
    Check("PHYMEM.PAGE.RECLAIM.lifecycle", "the TD's lifecycle is not TD_TEARDOWN",
          lambda c: _reclaim_tdr(c).num("lifecycle") != Lifecycle.TEARDOWN, Answer(S.TDX_LIFECYCLE_STATE_INCORRECT),
          _O),
    Check("PHYMEM.PAGE.RECLAIM.children", "a TDR whose TD still has pages",
          lambda c: c.pamt(c.rcx).num("type") == PageType.TDR and c.tdr(c.rcx).num("chldcnt") != 0,
          Answer(S.TDX_TD_ASSOCIATED_PAGES_EXIST), _O),
), "TDH.PHYMEM.PAGE.RECLAIM (leaf 28): conditions in order, behind the page.")


@implements("PHYMEM.PAGE.RECLAIM.effect", "PAMT NDA, its owner field stays; RCX page type, RDX owner, R8 size", _O)
def _reclaim(c: Call) -> Result:
    """PHYMEM.PAGE.RECLAIM.effect."""
    entry = c.pamt(c.rcx)
    kind, tdr_pa = entry.num("type"), entry.num("owner") << 12
    if kind != PageType.TDR:
        add_child(c.tdr(tdr_pa), -1)
    entry.set("type", PageType.NDA)
    return SUCCESS


leaf(28, "TDH.PHYMEM.PAGE.RECLAIM", "take a page back",
     stages=(page("rcx", _USED, "x"), _show_page, RECLAIM), effects=(_reclaim,),
     outputs=("rcx", "rdx", "r8", "r9", "r10", "r11"), inputs="RCX page")
