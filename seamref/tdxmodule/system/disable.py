"""TDH.SYS.DISABLE (leaf 69, newer modules): everything is forgotten and given back, for kexec."""

from __future__ import annotations

from seamref.spec import CHOSEN, Check, CheckTable, implements
from seamref.tdxmodule.build import DISABLE
from seamref.tdxmodule.core import Answer, Call, leaf
from seamref.tdxmodule.status import SUCCESS, Result
from seamref.tdxmodule.structures import PAMT_ENTRY, TDMR_ENTRY, SysState
from seamref.tdxmodule.system.common import S, global_exclusive, msr_of
from seamref.tdxmodule.system.config import PAMT_LEVELS

# --- TDH.SYS.DISABLE (69) ---------------------------------------------------------------------------------------

_Z = "LNX series \"Fuller TDX kexec support\""
SYS_DISABLE: CheckTable[Call, Answer] = CheckTable("TDH.SYS.DISABLE", (
    Check("SYS.DISABLE.lock", "GLOBAL_LOCK cannot be taken exclusively", global_exclusive, Answer(S.TDX_SYS_BUSY), _Z),
    Check("SYS.DISABLE.busy", "another processor is in the module, or in a TD",
          lambda c: sum(c.local_of(i).num("busy") for i in range(c.num_addressable)) > 1, Answer(S.TDX_SYS_BUSY), _Z,
          CHOSEN),
), "TDH.SYS.DISABLE (leaf 69, newer modules): for kexec, not for updates.")


@implements("SYS.DISABLE.state", "nobody else is inside, and from the same moment on nobody is let in: state = "
            "SYSINIT_PENDING before anything is given back", _Z, CHOSEN)
def _disable_state(c: Call) -> Result | None:
    """SYS.DISABLE.state: a processor sets busy first and looks at the state then, so none can slip in between."""
    c.glob.set("sys_state", SysState.SYSINIT_PENDING)
    return None


@implements("SYS.DISABLE.reclaim",
            "TDMR by TDMR all memory is written with KeyID 0, which clears poison; a pending event "
            "interrupts, and the next call goes on", _Z)
def _disable_reclaim(c: Call) -> Result | None:
    """SYS.DISABLE.reclaim: TDs are gone from the first TDMR on."""
    done, count = c.glob.num("disabled_tdmrs"), c.glob.num("num_tdmrs")
    while done < count:
        entry = TDMR_ENTRY.decode(c.glob.raw(f"tdmrs[{done}]"))
        for base, size in ((entry.base, entry.size), *((entry[f"pamt_{name}_base"],
        (entry.size >> shift) * PAMT_ENTRY.size)
                                                       for shift, name in PAMT_LEVELS)):
            c.port.zero(base, size)
        done += 1
        c.glob.set("disabled_tdmrs", done)
        if done < count and msr_of(c, 0x9A):
            return Result(S.TDX_INTERRUPTED_RESUMABLE)
    return None


@implements("SYS.DISABLE.effect", "everything is forgotten, on every processor; state = SYSINIT_PENDING", _Z)
def _disable(c: Call) -> Result:
    """SYS.DISABLE.effect: nothing works any more until TDH.SYS.INIT and all that follows it."""
    for i in range(c.num_addressable):
        c.local_of(i).set("initialised", 0)
    c.linear.write(c.handoff.base, bytes(c.handoff.layout.size))
    c.held.clear()  # the lock goes with the rest of global data
    c.linear.write(c.glob.base, bytes(c.glob.layout.size))
    return SUCCESS


leaf(69, "TDH.SYS.DISABLE", "forget everything, give all memory back", stages=(SYS_DISABLE, _disable_state),
     effects=(_disable_reclaim, _disable), before_ready=True, knob=DISABLE, inputs="none")
