"""TDH.VP.CREATE (leaf 10) and TDH.VP.ADDCX (leaf 4): the pages of a vCPU (TDXM tdh_vp_create.c, tdh_vp_addcx.c)."""

from __future__ import annotations

from seamref.spec import Check, CheckTable, implements
from seamref.tdxmodule.core import Answer, Call, leaf
from seamref.tdxmodule.status import SUCCESS, Result
from seamref.tdxmodule.structures import MAX_TDVPS_PAGES, NOT_ASSOCIATED, OpState, PageType, VcpuState
from seamref.tdxmodule.system.common import ref
from seamref.tdxmodule.td.checks import RDX_OWNER, RDX_TDR, S, add_child, owner, owner_of, page, td_state

# --- vCPUs ------------------------------------------------------------------------------------------------------

_V = ref("tdh_vp_create.c")


@implements("VP.CREATE.effect", "the page becomes a vCPU's root; associated with no processor", _V)
def _vp_create(c: Call) -> Result:
    """VP.CREATE.effect."""
    tdr = RDX_TDR(c)
    c.give_page(c.rcx, PageType.TDVPR, c.rdx, tdr.num("hkid"))
    c.tdvps(c.rcx, tdr).set("assoc_lpid", NOT_ASSOCIATED)
    add_child(tdr)
    return SUCCESS


leaf(10, "TDH.VP.CREATE", "a vCPU's root page",
     stages=(page("rdx", PageType.TDR, "s"), td_state(RDX_TDR, OpState.INITIALIZED), page("rcx", PageType.NDA, "x")),
     effects=(_vp_create,), inputs="RCX page, RDX TDR")

_W = ref("tdh_vp_addcx.c")
VP_ADDCX: CheckTable[Call, Answer] = CheckTable("TDH.VP.ADDCX", (
    Check("VP.ADDCX.state", "the vCPU is initialised",
          lambda c: c.tdvps(c.rdx, RDX_OWNER(c)).num("state") != VcpuState.UNINITIALIZED,
          Answer(S.TDX_VCPU_STATE_INCORRECT), _W),
    Check("VP.ADDCX.number", "the vCPU has 15 pages, for as many L2 VMs as a TD can have",
          lambda c: c.tdvps(c.rdx, RDX_OWNER(c)).num("num_tdcx") == MAX_TDVPS_PAGES - 1,
          Answer(S.TDX_TDCX_NUM_INCORRECT), _W),
), "TDH.VP.ADDCX (leaf 4): conditions in order, behind TDVPR, TDR and TD state; then the page.")


@implements("VP.ADDCX.effect", "the page becomes part of the vCPU", _W)
def _vp_addcx(c: Call) -> Result:
    """VP.ADDCX.effect."""
    tdr_pa = owner_of(c, c.rdx)
    tdr = c.tdr(tdr_pa)
    tdvps = c.tdvps(c.rdx, tdr)
    number = tdvps.num("num_tdcx")
    c.give_page(c.rcx, PageType.TDCX, tdr_pa, tdr.num("hkid"))
    tdvps.set(f"tdcx_pa[{number}]", c.rcx)
    tdvps.set("num_tdcx", number + 1)
    add_child(tdr)
    return SUCCESS


leaf(4, "TDH.VP.ADDCX", "a page for a vCPU",
     stages=(page("rdx", PageType.TDVPR, "x"), owner("rdx"), td_state(RDX_OWNER, OpState.INITIALIZED), VP_ADDCX,
             page("rcx", PageType.NDA, "x")),
     effects=(_vp_addcx,), inputs="RCX page, RDX TDVPR")
