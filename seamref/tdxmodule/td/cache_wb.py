"""TDH.PHYMEM.CACHE.WB (leaf 40): the caches of a package written back (TDXM tdh_phymem_cache_wb.c)."""

from __future__ import annotations

from seamref.arch.msr import wrmsr
from seamref.spec import Check, CheckTable, implements
from seamref.tdxmodule.core import Answer, Call, leaf, vmcs_field
from seamref.tdxmodule.status import SUCCESS, Operand, Result
from seamref.tdxmodule.structures import KOT_ENTRY, Hkid
from seamref.tdxmodule.system.common import msr_of, ref
from seamref.tdxmodule.td.checks import S

_M = ref("tdh_phymem_cache_wb.c")


def _flushed(c: Call) -> bytes:
    """One byte for each KeyID: 1 where it is FLUSHED."""
    kot = c.glob.raw("kot")
    states = kot[KOT_ENTRY.offset_of("state") :: KOT_ENTRY.size]
    return bytes(state == Hkid.FLUSHED for state in states)


CACHE_WB: CheckTable[Call, Answer] = CheckTable("TDH.PHYMEM.CACHE.WB", (
    Check("PHYMEM.CACHE.WB.rcx", "RCX above 1", lambda c: c.rcx > 1, Answer(S.TDX_OPERAND_INVALID, Operand.RCX), _M),
    Check("PHYMEM.CACHE.WB.mutex", "another processor of the package writes caches back",
          lambda c: not c.lock("m", c.glob.address(f"wbt[{c.package}].mutex")),
          Answer(S.TDX_OPERAND_BUSY, Operand.WBCACHE), _M),
    Check("PHYMEM.CACHE.WB.kot", "the KOT is locked", lambda c: not c.lock("s", c.glob.address("kot_lock")),
          Answer(S.TDX_OPERAND_BUSY, Operand.KOT), _M),
    Check("PHYMEM.CACHE.WB.none", "start, and no KeyID is FLUSHED", lambda c: c.rcx == 0 and not any(_flushed(c)),
          Answer(S.TDX_NO_HKID_READY_TO_WBCACHE), _M),
    Check("PHYMEM.CACHE.WB.resume", "resume, and no cycle was interrupted",
          lambda c: c.rcx == 1 and c.glob.num(f"wbt[{c.package}].interruption_point") == 0,
          Answer(S.TDX_WBCACHE_RESUME_ERROR), _M),
), "TDH.PHYMEM.CACHE.WB (leaf 40): conditions in order.")


WBNOINVDP, INTR_PENDING = 0x99, 0x9A


@implements("EVENT.host", "a pending interrupt (bit 0 of MSR_INTR_PENDING) counts only where the caller had "
            "RFLAGS.IF = 1; NMI, SMI and others always", "TDXM src/common/helpers/helpers.c")
def event_pending(c: Call) -> bool:
    """EVENT.host."""
    enabled = vmcs_field(c.platform, c.lp, "guest_rflags") >> 9 & 1
    return bool(msr_of(c, INTR_PENDING) & ~(0 if enabled else 1))


@implements("PHYMEM.CACHE.WB.effect",
            "sub-block by sub-block, at least one in each call; then this package's bit of the KeyIDs that were "
            "FLUSHED at the start is cleared; a pending event interrupts", _M)
def _cache_wb(c: Call) -> Result:
    """PHYMEM.CACHE.WB.effect: the interruption point lives in the WBT, so another module can resume the cycle."""
    g, p = c.glob, c.package
    if c.rcx == 0:
        g.set(f"wbt[{p}].hkid_flushed", _flushed(c))
        g.set(f"wbt[{p}].interruption_point", 0)
    blocks = c.platform.config.cache_sub_blocks
    for at in range(g.num(f"wbt[{p}].interruption_point"), blocks):
        wrmsr(c.platform, c.lp.id, WBNOINVDP, at)
        if at + 1 < blocks and event_pending(c):
            g.set(f"wbt[{p}].interruption_point", at + 1)
            return Result(S.TDX_INTERRUPTED_RESUMABLE)
    g.set(f"wbt[{p}].interruption_point", 0)
    for hkid, flushed in enumerate(g.raw(f"wbt[{p}].hkid_flushed")):
        if flushed:
            g.set(f"kot[{hkid}].wbinvd_bitmap", g.num(f"kot[{hkid}].wbinvd_bitmap") & ~(1 << p))
    return SUCCESS


leaf(40, "TDH.PHYMEM.CACHE.WB", "write this package's caches back", stages=(CACHE_WB,), effects=(_cache_wb,),
     inputs="RCX 0 start, 1 resume")
