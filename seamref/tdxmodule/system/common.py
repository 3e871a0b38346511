"""What the TDH.SYS functions share: GLOBAL_LOCK, the low half of SYS_INFO_TABLE, MSRs that must not fault."""

from __future__ import annotations

from seamref.arch.msr import rdmsr
from seamref.arch.outcome import Fault
from seamref.arch.software import Ud2
from seamref.arch.structures import P_SYS_INFO_TABLE
from seamref.tdxmodule.core import Call, View
from seamref.tdxmodule.status import Status

S = Status
GIB = 1 << 30


def ref(path: str) -> str:
    """Source of a TDH.SYS function."""
    return f"TDXM src/vmm_dispatcher/api_calls/{path}"


def msr_of(c: Call, address: int) -> int:
    """RDMSR that must not fault."""
    value = rdmsr(c.platform, c.lp.id, address)
    if isinstance(value, Fault):
        raise Ud2(f"RDMSR 0x{address:X}: {value}")
    return value


def first(c: Call, details: int | None) -> bool:
    """Remember what a check found."""
    if details is None:
        return False
    c.found = details
    return True


def global_exclusive(c: Call) -> bool:
    """Whether GLOBAL_LOCK could *not* be taken exclusively."""
    return not c.lock("x", c.glob.address("global_lock"))


def global_shared(c: Call) -> bool:
    """Whether GLOBAL_LOCK could *not* be taken shared."""
    return not c.lock("s", c.glob.address("global_lock"))


def mcheck(c: Call) -> View:
    """The low half of SYS_INFO_TABLE, with the field names of MCHECK's table."""
    return View(P_SYS_INFO_TABLE, c.linear, c.table.base)
