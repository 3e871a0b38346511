"""TDH.MEM.TRACK (leaf 38): TD_EPOCH + 1 (TDXM tdh_mem_track.c)."""

from __future__ import annotations

from seamref.spec import Check, CheckTable, implements
from seamref.tdxmodule.core import Answer, Call, leaf
from seamref.tdxmodule.status import SUCCESS, Operand, Result
from seamref.tdxmodule.structures import OpState, PageType
from seamref.tdxmodule.system.common import ref
from seamref.tdxmodule.td.checks import RCX_TDR, S, page, td_state

_Y = ref("tdh_mem_track.c")
MEM_TRACK: CheckTable[Call, Answer] = CheckTable("TDH.MEM.TRACK", (
    Check("MEM.TRACK.lock", "another processor holds TD_EPOCH",
          lambda c: not c.lock("x", c.tdcs(RCX_TDR(c)).address("epoch_lock"), linear=False),
          Answer(S.TDX_OPERAND_BUSY, Operand.TD_EPOCH), _Y),
    Check("MEM.TRACK.previous", "a vCPU entered in the previous epoch still runs",
          lambda c: c.tdcs(RCX_TDR(c)).num(f"refcount[{c.tdcs(RCX_TDR(c)).num('td_epoch') - 1 & 1}]") != 0,
          Answer(S.TDX_PREVIOUS_TLB_EPOCH_BUSY, Operand.TD_EPOCH), _Y),
), "TDH.MEM.TRACK (leaf 38): conditions in order, behind TDR and TD state.")


@implements("MEM.TRACK.effect", "TD_EPOCH + 1", _Y)
def _mem_track(c: Call) -> Result:
    """MEM.TRACK.effect."""
    tdcs = c.tdcs(RCX_TDR(c))
    tdcs.set("td_epoch", tdcs.num("td_epoch") + 1)
    return SUCCESS


leaf(38, "TDH.MEM.TRACK", "a new TLB epoch", stages=(
    page("rcx", PageType.TDR, "s"), td_state(RCX_TDR, OpState.INITIALIZED, OpState.RUNNABLE), MEM_TRACK),
     effects=(_mem_track,), inputs="RCX TDR")
