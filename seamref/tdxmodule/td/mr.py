"""TDH.MR.EXTEND (leaf 16) and TDH.MR.FINALIZE (leaf 17): contents measured, MRTD finished (TDXM tdh_mr_*.c)."""

from __future__ import annotations

from seamref.spec import Check, CheckTable, implements
from seamref.tdxmodule.core import Answer, Call, View, leaf
from seamref.tdxmodule.status import SUCCESS, Operand, Result
from seamref.tdxmodule.structures import OpState, PageType
from seamref.tdxmodule.system.common import ref
from seamref.tdxmodule.td.checks import RCX_TDR, RDX_TDR, SEPT_PRESENT, S, page, td_state
from seamref.tdxmodule.td.measurement import block, extend, get_hash, interrupted
from seamref.tdxmodule.td.sept import page_walk, sept_walk, shows

_E = ref("tdh_mr_extend.c")
CHUNK = 256
MR_EXTEND: CheckTable[Call, Answer] = CheckTable("TDH.MR.EXTEND", (
    Check("MR.EXTEND.rcx", "GPA not 256-byte aligned, or not private", lambda c: c.rcx % CHUNK != 0 or c.rcx >> 47 != 0,
          Answer(S.TDX_OPERAND_INVALID, Operand.RCX), _E),
    Check("MR.EXTEND.entry", "no page is mapped there",
          lambda c: shows(c, page_walk(c), not page_walk(c).entry & SEPT_PRESENT),
          Answer(S.TDX_EPT_ENTRY_NOT_PRESENT, Operand.RCX), _E),
), "TDH.MR.EXTEND (leaf 16): conditions in order, behind TDR and TD state.")


@implements("MR.EXTEND.effect", "the GPA and the 256 bytes there are measured: three blocks", _E)
def _mr_extend(c: Call) -> Result:
    """MR.EXTEND.effect."""
    tdr = RDX_TDR(c)
    entry = sept_walk(c, tdr, c.rcx, 0).entry
    data = c.port.read(c.with_hkid(entry & 0x000FFFFFFFFFF000 | c.rcx & 0xFFF, tdr.num("hkid")), CHUNK)
    extend(c, c.tdcs(tdr), block("MR.EXTEND", c.rcx), data[: CHUNK // 2], data[CHUNK // 2 :])
    return SUCCESS


leaf(16, "TDH.MR.EXTEND", "measure 256 bytes",
     stages=(page("rdx", PageType.TDR, "x"), td_state(RDX_TDR, OpState.INITIALIZED), MR_EXTEND, interrupted(RDX_TDR)),
     effects=(_mr_extend,), outputs=("rcx", "rdx"), inputs="RCX GPA, RDX TDR")

_F = ref("tdh_mr_finalize.c")
MR_FINALIZE: CheckTable[Call, Answer] = CheckTable("TDH.MR.FINALIZE", (
    Check("MR.FINALIZE.vcpus", "the TD has no vCPU", lambda c: c.tdcs(RCX_TDR(c)).num("num_vcpus") == 0,
          Answer(S.TDX_NO_VCPUS), _F),
), "TDH.MR.FINALIZE (leaf 17): conditions in order, behind TDR and TD state.")


@implements("MR.FINALIZE.effect", "MRTD is the finished hash; OP_STATE = RUNNABLE", _F)
def _mr_finalize(c: Call) -> Result:
    """MR.FINALIZE.effect."""
    tdcs = c.tdcs(RCX_TDR(c))
    tdcs.set("mrtd", get_hash(c, tdcs).digest())
    no_longer_sensitive(c, tdcs)
    tdcs.set("op_state", OpState.RUNNABLE)
    return SUCCESS


def no_longer_sensitive(c: Call, tdcs: View) -> None:
    """A TD that counted as update-sensitive does not any more."""
    if tdcs.num("counted"):
        tdcs.set("counted", 0)
        c.glob.set("num_sensitive", max(0, c.glob.num("num_sensitive") - 1))


leaf(17, "TDH.MR.FINALIZE", "the measurement is final, the TD may run",
     stages=(page("rcx", PageType.TDR, "x"), td_state(RCX_TDR, OpState.INITIALIZED, kind="x"), interrupted(RCX_TDR),
             MR_FINALIZE),
     effects=(_mr_finalize,), inputs="RCX TDR")
