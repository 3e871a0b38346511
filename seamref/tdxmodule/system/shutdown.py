"""TDH.SYS.SHUTDOWN (leaf 52): no more calls, handoff data for the module that follows (TDXM tdh_sys_shutdown.c)."""

from __future__ import annotations

from seamref.arch.software import Ud2
from seamref.spec import CHOSEN, Check, CheckTable, implements
from seamref.tdxmodule.build import UPDATE_COMPATIBILITY
from seamref.tdxmodule.core import Answer, Call, leaf
from seamref.tdxmodule.status import SUCCESS, Operand, Result
from seamref.tdxmodule.structures import HANDOFF, SysState
from seamref.tdxmodule.system.common import S, global_exclusive, ref

# --- TDH.SYS.SHUTDOWN (52) --------------------------------------------------------------------------------------

AVOID_COMPAT_SENSITIVE = 1 << 16
"""RCX bit 16 of TDH.SYS.SHUTDOWN in modules with UPDATE_COMPATIBILITY."""
_H = ref("tdh_sys_shutdown.c")


def can_avoid(c: Call) -> bool:
    """TDX_FEATURES0.UPDATE_COMPATIBILITY."""
    return bool(c.build.tdx_features0 & UPDATE_COMPATIBILITY)


def handoff_version(c: Call) -> int:
    """The handoff version in RCX: all 64 bits, but for bit 16 where the module knows the flag."""
    return c.rcx & ~AVOID_COMPAT_SENSITIVE if can_avoid(c) else c.rcx


SHUTDOWN: CheckTable[Call, Answer] = CheckTable("TDH.SYS.SHUTDOWN", (
    Check("SYS.SHUTDOWN.old", "RCX below MIN_UPDATE_HV", lambda c: handoff_version(c) < c.glob.num("min_update_hv"),
          Answer(S.TDX_OPERAND_INVALID, Operand.RCX), _H),
    Check("SYS.SHUTDOWN.new", "RCX above MODULE_HV, compared in 64 bits (an unknown flag looks like a large version)",
          lambda c: handoff_version(c) > c.glob.num("module_hv"), Answer(S.TDX_OPERAND_INVALID, Operand.RCX), _H),
    Check("SYS.SHUTDOWN.no_downgrade", "NO_DOWNGRADE, and RCX is not MODULE_HV",
          lambda c: bool(c.glob.num("no_downgrade")) and handoff_version(c) != c.glob.num("module_hv"),
          Answer(S.TDX_OPERAND_INVALID, Operand.RCX), _H),
    Check("SYS.SHUTDOWN.lock", "GLOBAL_LOCK cannot be taken exclusively", global_exclusive, Answer(S.TDX_SYS_BUSY), _H),
    Check("SYS.SHUTDOWN.sensitive", "RCX bit 16, and a TD is in an update-sensitive state",
          lambda c: can_avoid(c) and bool(c.rcx & AVOID_COMPAT_SENSITIVE) and c.glob.num("num_sensitive") > 0,
          Answer(S.TDX_UPDATE_COMPAT_SENSITIVE), "LNX series v10; BASE table 4.4", CHOSEN),
), "TDH.SYS.SHUTDOWN (leaf 52): conditions in order; the handoff version is judged before any lock.")
SHUTDOWN_BUSY: CheckTable[Call, Answer] = CheckTable("TDH.SYS.SHUTDOWN busy", (
    Check("SYS.SHUTDOWN.busy", "another processor is in the module, or in a TD (state back to SYS_READY)",
          lambda c: sum(c.local_of(i).num("busy") for i in range(c.num_addressable)) > 1, Answer(S.TDX_SYS_BUSY), _H),
), "TDH.SYS.SHUTDOWN: asked after the state was set; entering processors set busy first, then look at the state.")


@implements("SYS.SHUTDOWN.state", "state = SYS_SHUTDOWN, then a fence", _H)
def _shutdown_state(c: Call) -> Result | None:
    """SYS.SHUTDOWN.state.  Another processor may be told TDX_SYS_SHUTDOWN from here on, even if this call fails."""
    if c.state != SysState.SYS_READY:
        raise Ud2("TDH.SYS.SHUTDOWN outside SYS_READY")
    c.glob.set("sys_state", SysState.SYS_SHUTDOWN)
    return None


def _shutdown_busy(c: Call) -> Result | None:
    row = SHUTDOWN_BUSY.decide(c)
    if row is None:
        return None
    c.glob.set("sys_state", SysState.SYS_READY)
    return row.result.result(c)


@implements("SYS.SHUTDOWN.handoff", "handoff data at the start of the data region: valid, version, size, fields", _H)
def _shutdown_handoff(c: Call) -> Result:
    """SYS.SHUTDOWN.handoff."""
    hv = handoff_version(c)
    layout = HANDOFF[hv]
    g, at = c.glob, c.handoff.base
    for name in layout.fields[1:]:
        data = g.raw(name.name)
        c.linear.write(at + layout.offset_of(name.name), data)
    c.handoff.set("hv", hv)
    c.handoff.set("size", layout.size - c.handoff.layout.size)
    c.handoff.set("valid", 1)
    return SUCCESS


leaf(52, "TDH.SYS.SHUTDOWN", "stop for an update: write handoff data", stages=(SHUTDOWN,),
     effects=(_shutdown_state, _shutdown_busy, _shutdown_handoff), inputs="RCX handoff version (bit 16: see text)")
