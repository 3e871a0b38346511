"""TDH.MNG.KEY.FREEID (leaf 20): the HKID is free again (TDXM tdh_mng_key_freeid.c)."""

from __future__ import annotations

from seamref.spec import Check, CheckTable, implements
from seamref.tdxmodule.core import Answer, Call, leaf, ok
from seamref.tdxmodule.status import SUCCESS, Operand, Result
from seamref.tdxmodule.structures import Hkid, Lifecycle, PageType
from seamref.tdxmodule.system.common import ref
from seamref.tdxmodule.td.checks import RCX_TDR, S, page

_J = ref("tdh_mng_key_freeid.c")
FREEID: CheckTable[Call, Answer] = CheckTable("TDH.MNG.KEY.FREEID", (
    Check("MNG.KEY.FREEID.lifecycle", "lifecycle is not TD_BLOCKED",
          lambda c: RCX_TDR(c).num("lifecycle") != Lifecycle.BLOCKED, Answer(S.TDX_LIFECYCLE_STATE_INCORRECT), _J),
    Check("MNG.KEY.FREEID.kot", "the KOT is locked", lambda c: not c.lock("x", c.glob.address("kot_lock")),
          Answer(S.TDX_OPERAND_BUSY, Operand.KOT), _J),
    Check("MNG.KEY.FREEID.wb", "a package's caches were not written back",
          lambda c: c.glob.num(f"kot[{RCX_TDR(c).num('hkid')}].wbinvd_bitmap") != 0,
          Answer(S.TDX_WBCACHE_NOT_COMPLETE), _J),
), "TDH.MNG.KEY.FREEID (leaf 20): conditions in order, behind the TDR page.")


@implements("MNG.KEY.FREEID.effect", "KOT FREE; lifecycle TEARDOWN", _J)
def _freeid(c: Call) -> Result:
    """MNG.KEY.FREEID.effect."""
    tdr = RCX_TDR(c)
    c.glob.set(f"kot[{tdr.num('hkid')}].state", Hkid.FREE)
    tdr.set("lifecycle", Lifecycle.TEARDOWN)
    return SUCCESS


leaf(20, "TDH.MNG.KEY.FREEID", "give the KeyID back", stages=(page("rcx", PageType.TDR, "x"), FREEID),
     effects=(_freeid,),
     inputs="RCX TDR")
leaf(27, "TDH.MNG.KEY.RECLAIMID", "no effect, always succeeds", stages=(), effects=(ok,), inputs="RCX TDR")
