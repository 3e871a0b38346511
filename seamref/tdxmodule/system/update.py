"""TDH.SYS.UPDATE (leaf 53): take over from the module before (TDXM tdh_sys_update.c)."""

from __future__ import annotations

from seamref.arch.software import Ud2
from seamref.spec import Check, CheckTable, implements
from seamref.tdxmodule.core import Answer, Call, leaf
from seamref.tdxmodule.status import SUCCESS, Result
from seamref.tdxmodule.structures import HANDOFF, PAGE, SysState
from seamref.tdxmodule.system.common import S, global_exclusive, ref

# --- TDH.SYS.UPDATE (53) ----------------------------------------------------------------------------------------

_U = ref("tdh_sys_update.c")
UPDATE: CheckTable[Call, Answer] = CheckTable("TDH.SYS.UPDATE", (
    Check("SYS.UPDATE.lock", "GLOBAL_LOCK cannot be taken exclusively", global_exclusive, Answer(S.TDX_SYS_BUSY), _U),
    Check("SYS.UPDATE.state", "state is not SYSINIT_DONE", lambda c: c.state != SysState.SYSINIT_DONE,
          Answer(S.TDX_SYS_STATE_INCORRECT), _U),
    Check("SYS.UPDATE.lps", "a processor of TOT_NUM_LPS is not initialised",
          lambda c: c.glob.num("num_init_lps") < c.glob.num("num_lps"), Answer(S.TDX_SYS_STATE_INCORRECT), _U),
    Check("SYS.UPDATE.valid", "no valid handoff data", lambda c: c.handoff.num("valid") == 0,
          Answer(S.TDX_SYS_INVALID_HANDOFF), _U),
    Check("SYS.UPDATE.old", "handoff version below MIN_UPDATE_HV",
          lambda c: c.handoff.num("hv") < c.glob.num("min_update_hv"), Answer(S.TDX_SYS_INVALID_HANDOFF), _U),
    Check("SYS.UPDATE.new", "handoff version above MODULE_HV", lambda c: c.handoff.num("hv") > c.glob.num("module_hv"),
          Answer(S.TDX_SYS_INVALID_HANDOFF), _U),
), "TDH.SYS.UPDATE (leaf 53): conditions in order; a refused call changed nothing, the handoff data stay valid.")


@implements("SYS.UPDATE.size", "a size that cannot be is fatal, not an error status", _U)
def _update_size(c: Call) -> Result | None:
    """SYS.UPDATE.size."""
    size, room = c.handoff.num("size"), (c.table.num("num_handoff_pages") + 1) * PAGE - c.handoff.layout.size
    if size == 0 or size > room or size < HANDOFF[c.handoff.num("hv")].size - c.handoff.layout.size:
        raise Ud2(f"TDH.SYS.UPDATE: handoff size {size}")
    return None


@implements("SYS.UPDATE.effect", "fields copied back, CPUID table completed, header cleared; state = SYS_READY", _U)
def _update(c: Call) -> Result:
    """SYS.UPDATE.effect.  NUM_INIT_PKGS stays 0 and SYSCONFIG_DONE never occurs; the header's version stays."""
    layout, at = HANDOFF[c.handoff.num("hv")], c.handoff.base
    for name in layout.fields[1:]:
        c.glob.set(name.name, c.linear.read(at + layout.offset_of(name.name), name.type.size))
    c.glob.set("cpuid_complete", 1)
    c.handoff.set("valid", 0)
    c.handoff.set("size", 0)
    c.glob.set("sys_state", SysState.SYS_READY)
    return SUCCESS


leaf(53, "TDH.SYS.UPDATE", "take over from the module before", stages=(UPDATE,), effects=(_update_size, _update),
     before_ready=True, inputs="none")
