"""TDH.VP.WR (leaf 43): the field of a vCPU that the host writes (TDXM tdh_vp_rd_wr.c)."""

from __future__ import annotations

from seamref.spec import CHOSEN, Check, CheckTable, implements
from seamref.tdxmodule.core import Answer, Call, leaf
from seamref.tdxmodule.status import SUCCESS, Result
from seamref.tdxmodule.structures import PAGE, OpState, PageType
from seamref.tdxmodule.system.common import ref
from seamref.tdxmodule.td.checks import RCX_OWNER, S, owner, page, td_state
from seamref.tdxmodule.td.vp_init import rcx_tdvps

_Q = ref("tdh_vp_rd_wr.c")
SHARED_EPTP_FIELD = 0x002000030000203C
"""Metadata field id of a TD VMCS's Shared-EPTP: context 2 (vCPU), 8 bytes, the VMCS encoding."""
VP_WR: CheckTable[Call, Answer] = CheckTable("TDH.VP.WR", (
    Check("VP.WR.field", "no such field", lambda c: c.rdx != SHARED_EPTP_FIELD,
          Answer(S.TDX_METADATA_FIELD_ID_INCORRECT),
          _Q, CHOSEN),
    Check("VP.WR.value", "Shared-EPTP with reserved bits, or inside SEAM's or private memory",
          lambda c: not c.is_shared(c.r8, PAGE), Answer(S.TDX_METADATA_FIELD_VALUE_NOT_VALID), _Q),
), "TDH.VP.WR (leaf 43): of all vCPU fields, Shared-EPTP only.")


@implements("VP.WR.effect", "the vCPU's Shared-EPTP; reaches the TD VMCS at the next entry", _Q)
def _vp_wr(c: Call) -> Result:
    """VP.WR.effect."""
    rcx_tdvps(c).set("shared_eptp", c.r8)
    return SUCCESS


leaf(43, "TDH.VP.WR", "the vCPU's shared EPT", stages=(
    page("rcx", PageType.TDVPR, "x"), owner("rcx"), td_state(RCX_OWNER, OpState.INITIALIZED, OpState.RUNNABLE), VP_WR),
     effects=(_vp_wr,), inputs="RCX TDVPR, RDX field id, R8 value, R9 mask")
