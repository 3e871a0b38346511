"""Sub-checks that the leaves share: PAGE for an operand that names a page, OWNER for its TD, TD for its state."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from seamref.spec import Check, CheckTable
from seamref.tdxmodule.core import Answer, Call, Stage, View
from seamref.tdxmodule.status import Operand, Result, Status
from seamref.tdxmodule.structures import INIT_MSRS, TDCS_PAGES, Lifecycle, OpState, PageType
from seamref.tdxmodule.system.common import first, msr_of

S = Status
SHARED_GPA = 1 << 47
"""SHARED bit of a guest physical address (GPAW = 0)."""
SEPT_FREE = 1 << 63
"""A free secure-EPT entry: nothing but "suppress #VE" (the bits are *chosen*)."""
SEPT_PRESENT = 7


# --- shared sub-checks ------------------------------------------------------------------------------------------


class PageCheck:
    """An operand that names a page: register, expected types, how its PAMT entry is locked."""

    __slots__ = ("call", "kind", "pa", "types")

    def __init__(self, call: Call, pa: int, types: tuple[PageType, ...], kind: str) -> None:
        self.call = call
        self.pa = pa
        self.types = types
        self.kind = kind

    def malformed(self) -> bool:
        """Not 4 KiB aligned, beyond max PA, or with KeyID bits."""
        platform = self.call.platform
        return bool(self.pa & 0xFFF) or self.pa >> platform.config.maxpa != 0 or platform.split(self.pa)[0] != 0


_P = "TDXM src/common/memory_handlers/pamt_manager.h"
PAGE_CHECK: CheckTable[PageCheck, Status] = CheckTable("PAGE", (
    Check("PAGE.align", "not 4 KiB aligned, beyond max PA, or with KeyID bits", lambda c: c.malformed(),
          S.TDX_OPERAND_INVALID, _P),
    Check("PAGE.range", "not in an initialised block of a TDMR", lambda c: c.call.tdmr_of(c.pa) is None,
          S.TDX_OPERAND_ADDR_RANGE_ERROR, _P),
    Check("PAGE.lock", "another processor holds the page's PAMT entry",
          lambda c: not c.call.lock(c.kind.upper(), c.call.pamt(c.pa).address("lock"), linear=False),
          S.TDX_OPERAND_BUSY, _P),
    Check("PAGE.type", "the page is of another type", lambda c: c.call.pamt(c.pa).num("type") not in c.types,
          S.TDX_PAGE_METADATA_INCORRECT, _P),
), "A page operand: conditions in order; each status carries the operand's id.")


def page(register: str, types: PageType | tuple[PageType, ...], kind: str, mask: int = (1 << 64) - 1) -> Stage:
    """A page operand in ``register``, of one of ``types``, locked exclusive (x) or shared (s)."""
    wanted = types if isinstance(types, tuple) else (types,)

    def stage(c: Call) -> Result | None:
        row = PAGE_CHECK.decide(PageCheck(c, c.reg(register) & mask, wanted, kind))
        return None if row is None else Result(row.result, int(Operand[register.upper()]))

    return stage


def owner_of(c: Call, pa: int) -> int:
    """Address of the TDR that owns a page."""
    return c.pamt(pa).num("owner") << 12


VP_INIT_LEAF = 22
OWNER: CheckTable[tuple[Call, int, str], Answer] = CheckTable("OWNER", (
    Check("OWNER.lock", "another processor holds the owning TDR",
          lambda c: not c[0].lock(c[2], c[0].pamt(owner_of(*c[:2])).address("lock"), linear=False),
          Answer(S.TDX_OPERAND_BUSY, Operand.TDR), _P),
), "The TDR that owns a vCPU or page, locked shared.")


def owner(register: str, mask: int = (1 << 64) - 1) -> Stage:
    """Lock the owning TDR of the page in ``register``: shared, exclusive for TDH.VP.INIT version 1."""

    def stage(c: Call) -> Result | None:
        kind = "X" if c.leaf == VP_INIT_LEAF and c.version else "S"
        row = OWNER.decide((c, c.reg(register) & mask, kind))
        return None if row is None else row.result.result(c)

    return stage


@dataclass(frozen=True, slots=True)
class TdCheck:
    """A TD that must be in a state for something."""

    call: Call
    tdr: View
    states: tuple[OpState, ...]
    kind: str

    @property
    def tdcs(self) -> View:
        """Its control structure; asked for behind the row that says it is there."""
        return self.call.tdcs(self.tdr)


_B = "TDXM src/common/helpers/helpers.c"
TD_CHECK: CheckTable[TdCheck, Answer] = CheckTable("TD", (
    Check("TD.fatal", "the TD is fatally broken", lambda c: c.tdr.num("fatal") != 0, Answer(S.TDX_TD_FATAL), _B),
    Check("TD.keys", "lifecycle is not TD_KEYS_CONFIGURED",
          lambda c: c.tdr.num("lifecycle") != Lifecycle.KEYS_CONFIGURED,
          Answer(S.TDX_TD_KEYS_NOT_CONFIGURED), _B),
    Check("TD.tdcs", "fewer than 6 TDCS pages", lambda c: c.tdr.num("num_tdcx") < TDCS_PAGES,
          Answer(S.TDX_TDCS_NOT_ALLOCATED), _B),
    Check("TD.op_lock", "another processor changes OP_STATE",
          lambda c: not c.call.lock(c.kind, c.tdcs.address("op_state_lock"), linear=False),
          Answer(S.TDX_OPERAND_BUSY, Operand.OP_STATE), _B),
    Check("TD.op_state", "OP_STATE does not allow this", lambda c: c.tdcs.num("op_state") not in c.states,
          Answer(S.TDX_OP_STATE_INCORRECT), _B),
), "A TD's state, in order.")


def td_state(find: Callable[[Call], View], *states: OpState, kind: str = "s") -> Stage:
    """The TD must be in one of the OP states; OP_STATE is locked shared, or exclusive where it changes."""

    def stage(c: Call) -> Result | None:
        row = TD_CHECK.decide(TdCheck(c, find(c), states, kind))
        return None if row is None else row.result.result(c)

    return stage


def tdr_in(register: str, mask: int = (1 << 64) - 1) -> Callable[[Call], View]:
    """The TDR that a register names."""
    return lambda c: c.tdr(c.reg(register) & mask)


def tdr_behind(register: str, mask: int = (1 << 64) - 1) -> Callable[[Call], View]:
    """The TDR that owns the page a register names."""
    return lambda c: c.tdr(owner_of(c, c.reg(register) & mask))


def tsc_adjust_differs(c: Call) -> bool:
    """IA32_TSC_ADJUST against what TDH.SYS.INIT sampled."""
    now, then = msr_of(c, 0x3B), c.glob.num(f"msr_sample[{INIT_MSRS.index(0x3B)}]")
    return first(c, 0x3B if now != then else None)


def add_child(tdr: View, count: int = 1) -> None:
    """A page more (or less) belongs to the TD."""
    tdr.set("chldcnt", tdr.num("chldcnt") + count)


RCX_TDR, RDX_TDR = tdr_in("rcx"), tdr_in("rdx")
RCX_OWNER, RDX_OWNER = tdr_behind("rcx"), tdr_behind("rdx")
