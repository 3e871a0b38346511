"""TDH.SYS.TDMR.INIT (leaf 36): the PAMT entries of a piece of a TDMR (TDXM tdh_sys_tdmr_init.c)."""

from __future__ import annotations

from seamref.spec import Check, CheckTable, implements
from seamref.tdxmodule.core import Answer, Call, leaf
from seamref.tdxmodule.status import SUCCESS, Operand, Result
from seamref.tdxmodule.structures import PAGE, PAMT_ENTRY, TDMR_ENTRY, PageType
from seamref.tdxmodule.system.common import GIB, S, ref

# --- TDH.SYS.TDMR.INIT (36) -------------------------------------------------------------------------------------

INIT_STEP = 1024
"""4 KiB pages that one TDH.SYS.TDMR.INIT initialises."""
_T = ref("tdh_sys_tdmr_init.c")


def _tdmr(c: Call) -> int | None:
    return next((i for i in range(c.glob.num("num_tdmrs")) if c.glob.num(f"tdmrs[{i}].base") == c.rcx), None)


def _tdmr_done(c: Call) -> bool:
    i = _tdmr(c)
    return c.glob.num(f"tdmrs[{i}].next_to_init") >= c.glob.num(f"tdmrs[{i}].base") + c.glob.num(f"tdmrs[{i}].size")


TDMR_INIT: CheckTable[Call, Answer] = CheckTable("TDH.SYS.TDMR.INIT", (
    Check("SYS.TDMR.INIT.rcx", "RCX not 1 GiB aligned, too wide, or with KeyID bits",
          lambda c: c.rcx % GIB != 0 or c.rcx >> c.platform.config.maxpa != 0 or c.platform.split(c.rcx)[0] != 0,
          Answer(S.TDX_OPERAND_INVALID, Operand.RCX), _T),
    Check("SYS.TDMR.INIT.unknown", "no TDMR has this base", lambda c: _tdmr(c) is None,
          Answer(S.TDX_OPERAND_INVALID, Operand.RCX), _T),
    Check("SYS.TDMR.INIT.mutex", "another processor initialises this TDMR",
          lambda c: not c.lock("m", c.glob.address(f"tdmrs[{_tdmr(c)}].mutex")),
          Answer(S.TDX_OPERAND_BUSY, Operand.RCX), _T),
    Check("SYS.TDMR.INIT.complete", "the TDMR is initialised to its end", _tdmr_done,
          Answer(S.TDX_TDMR_ALREADY_INITIALIZED), _T),
), "TDH.SYS.TDMR.INIT (leaf 36): conditions in order.")


@implements("SYS.TDMR.INIT.effect", "1024 PAMT entries and those above them; RDX = next address, down to 1 GiB", _T)
def _tdmr_init(c: Call) -> Result:
    """SYS.TDMR.INIT.effect: pages are usable below the rounded-down mark only."""
    i = _tdmr(c)
    entry = TDMR_ENTRY.decode(c.glob.raw(f"tdmrs[{i}]"))
    at, hkid = entry.next_to_init, c.glob.num("hkid")
    end = at + INIT_STEP * PAGE
    nda = PAMT_ENTRY.encode({"type": PageType.NDA})
    rsvd = PAMT_ENTRY.encode({"type": PageType.RSVD})
    out = bytearray(nda * INIT_STEP)
    for area in entry.reserved_areas[: entry.num_reserved]:
        low = max(at, entry.base + area.offset)
        high = min(end, entry.base + area.offset + area.size)
        for page in range(low, high, PAGE):
            where = (page - at >> 12) * len(rsvd)
            out[where : where + len(rsvd)] = rsvd
    for shift, name, data in ((12, "4k", bytes(out)), (21, "2m", nda * 2), (30, "1g", nda)):
        index = at - entry.base >> shift
        where = entry[f"pamt_{name}_base"] + index * len(nda)
        c.port.write(c.with_hkid(where, hkid), data)
    c.glob.set(f"tdmrs[{i}].next_to_init", end)
    c.out(rdx=end & ~(GIB - 1))
    return SUCCESS


leaf(36, "TDH.SYS.TDMR.INIT", "initialise PAMT, 4 MiB of a TDMR at a time", stages=(TDMR_INIT,), effects=(_tdmr_init,),
     outputs=("rdx",), inputs="RCX TDMR base")
