"""TDH.MEM.PAGE.ADD (leaf 2): a page of the TD, encrypted and measured by address (TDXM tdh_mem_page_add.c)."""

from __future__ import annotations

from seamref.spec import Check, CheckTable, implements
from seamref.tdxmodule.core import Answer, Call, leaf
from seamref.tdxmodule.status import SUCCESS, Operand, Result
from seamref.tdxmodule.structures import PAGE, OpState, PageType
from seamref.tdxmodule.system.common import ref
from seamref.tdxmodule.td.checks import RDX_TDR, SEPT_FREE, SEPT_PRESENT, S, add_child, page, td_state
from seamref.tdxmodule.td.measurement import block, extend, interrupted
from seamref.tdxmodule.td.sept import gpa_of, gpa_wrong, page_walk, sept_walk, shows

_G = ref("tdh_mem_page_add.c")
PAGE_ADD: CheckTable[Call, Answer] = CheckTable("TDH.MEM.PAGE.ADD", (
    Check("MEM.PAGE.ADD.rcx", "level is not 0, or GPA not private", lambda c: gpa_wrong(c, range(1)),
          Answer(S.TDX_OPERAND_INVALID, Operand.RCX), _G),
    Check("MEM.PAGE.ADD.walk", "no page of the secure EPT for this GPA",
          lambda c: shows(c, page_walk(c), page_walk(c).level != 0), Answer(S.TDX_EPT_WALK_FAILED, Operand.RCX),
          _G),
    Check("MEM.PAGE.ADD.entry", "the entry is not free",
          lambda c: shows(c, page_walk(c), page_walk(c).entry != SEPT_FREE),
          Answer(S.TDX_EPT_ENTRY_STATE_INCORRECT, Operand.RCX), _G),
    Check("MEM.PAGE.ADD.r9", "source not 4 KiB aligned or not a shared address", lambda c: not c.is_shared(c.r9, PAGE),
          Answer(S.TDX_OPERAND_INVALID, Operand.R9), _G),
), "TDH.MEM.PAGE.ADD (leaf 2): conditions in order, behind TDR and TD state; then the target page.")


@implements("MEM.PAGE.ADD.effect", "copied and encrypted, mapped, and its GPA measured", _G)
def _page_add(c: Call) -> Result:
    """MEM.PAGE.ADD.effect: the contents are not measured, TDH.MR.EXTEND does that."""
    tdr = RDX_TDR(c)
    data = c.port.read(c.r9, PAGE)
    c.give_page(c.r8, PageType.REG, c.rdx, tdr.num("hkid"))
    c.port.write(c.with_hkid(c.r8, tdr.num("hkid")), data)
    c.port.write_int(sept_walk(c, tdr, gpa_of(c), 0).address, c.r8 | SEPT_PRESENT | SEPT_FREE)
    extend(c, c.tdcs(tdr), block("MEM.PAGE.ADD", gpa_of(c)))
    add_child(tdr)
    return SUCCESS


leaf(2, "TDH.MEM.PAGE.ADD", "a page of initial contents",
     stages=(page("rdx", PageType.TDR, "x"), td_state(RDX_TDR, OpState.INITIALIZED), PAGE_ADD, interrupted(RDX_TDR),
             page("r8", PageType.NDA, "x")),
     effects=(_page_add,), outputs=("rcx", "rdx"), inputs="RCX GPA, RDX TDR, R8 target page, R9 source page")
