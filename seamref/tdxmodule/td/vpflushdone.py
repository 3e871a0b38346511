"""TDH.MNG.VPFLUSHDONE (leaf 19): no vCPU is on a processor any more (TDXM tdh_mng_vpflushdone.c)."""

from __future__ import annotations

from seamref.spec import Check, CheckTable, implements
from seamref.tdxmodule.core import Answer, Call, leaf
from seamref.tdxmodule.status import SUCCESS, Operand, Result
from seamref.tdxmodule.structures import Hkid, Lifecycle, PageType
from seamref.tdxmodule.system.common import ref
from seamref.tdxmodule.td.checks import RCX_TDR, S, page
from seamref.tdxmodule.td.mr import no_longer_sensitive

# --- teardown ---------------------------------------------------------------------------------------------------

_Z = ref("tdh_mng_vpflushdone.c")
VPFLUSHDONE: CheckTable[Call, Answer] = CheckTable("TDH.MNG.VPFLUSHDONE", (
    Check("MNG.VPFLUSHDONE.kot", "the KOT is locked", lambda c: not c.lock("x", c.glob.address("kot_lock")),
          Answer(S.TDX_OPERAND_BUSY, Operand.KOT), _Z),
    Check("MNG.VPFLUSHDONE.lifecycle", "lifecycle is neither TD_HKID_ASSIGNED nor TD_KEYS_CONFIGURED",
          lambda c: RCX_TDR(c).num("lifecycle") not in (Lifecycle.HKID_ASSIGNED, Lifecycle.KEYS_CONFIGURED),
          Answer(S.TDX_LIFECYCLE_STATE_INCORRECT), _Z),
    Check("MNG.VPFLUSHDONE.vcpus", "a vCPU is still associated with a processor",
          lambda c: RCX_TDR(c).num("num_tdcx") > 0 and c.tdcs(RCX_TDR(c)).num("num_assoc_vcpus") != 0,
          Answer(S.TDX_FLUSHVP_NOT_DONE), _Z),
), "TDH.MNG.VPFLUSHDONE (leaf 19): conditions in order, behind the TDR page.")


@implements("MNG.VPFLUSHDONE.effect",
            "lifecycle BLOCKED; KOT FLUSHED, every package of PKG_CONFIG_BITMAP to write back", _Z)
def _vpflushdone(c: Call) -> Result:
    """MNG.VPFLUSHDONE.effect."""
    tdr = RCX_TDR(c)
    if tdr.num("num_tdcx") > 0:
        no_longer_sensitive(c, c.tdcs(tdr))
    tdr.set("lifecycle", Lifecycle.BLOCKED)
    hkid = tdr.num("hkid")
    c.glob.set(f"kot[{hkid}].state", Hkid.FLUSHED)
    c.glob.set(f"kot[{hkid}].wbinvd_bitmap", c.glob.num("pkg_config_bitmap"))
    return SUCCESS


leaf(19, "TDH.MNG.VPFLUSHDONE", "no vCPU is associated any more", stages=(page("rcx", PageType.TDR, "x"), VPFLUSHDONE),
     effects=(_vpflushdone,), inputs="RCX TDR")
