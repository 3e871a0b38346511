"""TDH.VP.FLUSH (leaf 18): a vCPU leaves its processor (TDXM tdh_vp_flush.c)."""

from __future__ import annotations

from seamref.arch.trace import Step
from seamref.spec import Check, CheckTable, implements
from seamref.tdxmodule.core import Answer, Call, leaf
from seamref.tdxmodule.status import SUCCESS, Result
from seamref.tdxmodule.structures import NOT_ASSOCIATED, TDVPS_PAGES, Lifecycle, PageType
from seamref.tdxmodule.system.common import ref
from seamref.tdxmodule.td.checks import RCX_OWNER, S, owner, page
from seamref.tdxmodule.td.vp_init import clear_vmcs, rcx_tdvps, td_vmcs

_S = ref("tdh_vp_flush.c")
VP_FLUSH: CheckTable[Call, Answer] = CheckTable("TDH.VP.FLUSH", (
    Check("VP.FLUSH.keys", "lifecycle is not TD_KEYS_CONFIGURED",
          lambda c: RCX_OWNER(c).num("lifecycle") != Lifecycle.KEYS_CONFIGURED, Answer(S.TDX_TD_KEYS_NOT_CONFIGURED),
          _S),
    Check("VP.FLUSH.pages", "pages of the vCPU are missing", lambda c: rcx_tdvps(c).num("num_tdcx") < TDVPS_PAGES - 1,
          Answer(S.TDX_TDCX_NUM_INCORRECT), _S),
    Check("VP.FLUSH.associated", "the vCPU is not associated with this processor",
          lambda c: rcx_tdvps(c).num("assoc_lpid") != c.local.num("lp_id"), Answer(S.TDX_VCPU_NOT_ASSOCIATED), _S),
), "TDH.VP.FLUSH (leaf 18): conditions in order, behind TDVPR and TDR.")


@implements("VP.FLUSH.effect", "INVEPT, VMCLEAR of the vCPU's VMCS, associated with no processor", _S)
def _vp_flush(c: Call) -> Result:
    """VP.FLUSH.effect."""
    tdr = RCX_OWNER(c)
    tdcs, tdvps = c.tdcs(tdr), rcx_tdvps(c)
    if c.platform.listeners:
        c.platform.emit(Step(c.lp.id, "TDX module", "INVEPT", "the TD's"))
    clear_vmcs(c, td_vmcs(c, tdvps, tdr))
    tdvps.set("launched", 0)
    tdvps.set("assoc_lpid", NOT_ASSOCIATED)
    tdcs.set("num_assoc_vcpus", tdcs.num("num_assoc_vcpus") - 1)
    return SUCCESS


leaf(18, "TDH.VP.FLUSH", "take a vCPU off this processor", stages=(page("rcx", PageType.TDVPR, "x"), owner("rcx"),
     VP_FLUSH),
     effects=(_vp_flush,), inputs="RCX TDVPR")
