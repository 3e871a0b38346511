"""TDH.MNG.ADDCX (leaf 1): the pages of the TDCS (TDXM tdh_mng_add_cx.c)."""

from __future__ import annotations

from seamref.spec import Check, CheckTable, implements
from seamref.tdxmodule.core import Answer, Call, leaf
from seamref.tdxmodule.status import SUCCESS, Result
from seamref.tdxmodule.structures import MAX_TDCX, SEPT_ROOT_PAGE, TDCS_PAGES, Lifecycle, OpState, PageType
from seamref.tdxmodule.system.common import ref
from seamref.tdxmodule.td.checks import RDX_TDR, S, add_child, page
from seamref.tdxmodule.td.create import drawn
from seamref.tdxmodule.td.sept import free_entries

_X = ref("tdh_mng_add_cx.c")
MNG_ADDCX: CheckTable[Call, Answer] = CheckTable("TDH.MNG.ADDCX", (
    Check("MNG.ADDCX.fatal", "the TD is fatally broken", lambda c: RDX_TDR(c).num("fatal") != 0,
          Answer(S.TDX_TD_FATAL), _X),
    Check("MNG.ADDCX.keys", "lifecycle is not TD_KEYS_CONFIGURED",
          lambda c: RDX_TDR(c).num("lifecycle") != Lifecycle.KEYS_CONFIGURED, Answer(S.TDX_TD_KEYS_NOT_CONFIGURED),
          _X),
    Check("MNG.ADDCX.number", "9 TDCS pages are there", lambda c: RDX_TDR(c).num("num_tdcx") == MAX_TDCX,
          Answer(S.TDX_TDCX_NUM_INCORRECT), _X),
), "TDH.MNG.ADDCX (leaf 1): conditions in order, behind the TDR page; then the new page.")
ADDCX_LAST: CheckTable[Call, Answer] = CheckTable("TDH.MNG.ADDCX last", (
    Check("MNG.ADDCX.op_state", "the TD is initialised",
          lambda c: RDX_TDR(c).num("num_tdcx") >= TDCS_PAGES
          and c.tdcs(RDX_TDR(c)).num("op_state") != OpState.UNINITIALIZED, Answer(S.TDX_OP_STATE_INCORRECT), _X),
    Check("MNG.ADDCX.entropy", "sixth page: no entropy for a migration key",
          lambda c: RDX_TDR(c).num("num_tdcx") == TDCS_PAGES - 1 and not drawn(c), Answer(S.TDX_RND_NO_ENTROPY), _X),
), "TDH.MNG.ADDCX: behind the new page, the one that completes the TDCS and those that follow.")


@implements("MNG.ADDCX.effect", "the page becomes part of the TDCS; the secure EPT root gets its initial entries", _X)
def _mng_addcx(c: Call) -> Result:
    """MNG.ADDCX.effect."""
    tdr = RDX_TDR(c)
    number = tdr.num("num_tdcx")
    c.give_page(c.rcx, PageType.TDCX, c.rdx, tdr.num("hkid"))
    if number == SEPT_ROOT_PAGE:
        free_entries(c, c.rcx, tdr.num("hkid"))
    tdr.set(f"tdcx_pa[{number}]", c.with_hkid(c.rcx, tdr.num("hkid")))
    tdr.set("num_tdcx", number + 1)
    add_child(tdr)
    return SUCCESS


leaf(1, "TDH.MNG.ADDCX", "a page for the TD's control structure",
     stages=(page("rdx", PageType.TDR, "x"), MNG_ADDCX, page("rcx", PageType.NDA, "x"), ADDCX_LAST),
     effects=(_mng_addcx,), inputs="RCX page, RDX TDR")
