"""Secure EPT: the walk from the root in the TDCS, and what a failed walk shows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from seamref.spec import implements
from seamref.tdxmodule.core import Call, View
from seamref.tdxmodule.structures import SEPT_ROOT_PAGE
from seamref.tdxmodule.td.checks import RDX_TDR, SEPT_FREE, SEPT_PRESENT, tdr_in

# --- secure EPT -------------------------------------------------------------------------------------------------


def free_entries(c: Call, pa: int, hkid: int) -> None:
    """Fill a secure-EPT page with free entries."""
    c.port.write(c.with_hkid(pa, hkid), SEPT_FREE.to_bytes(8, "little") * 512)


def sept_root(c: Call, tdr: View) -> int:
    """Address of the secure EPT's root, without KeyID."""
    return c.platform.split(tdr.num(f"tdcx_pa[{SEPT_ROOT_PAGE}]"))[1]


@dataclass(frozen=True, slots=True)
class Walk:
    """Where a walk of the secure EPT ended: the entry's address (with KeyID), its value and level (0 = 4 KiB)."""

    address: int
    entry: int
    level: int


@implements("SEPT.walk", "from the root in the TDCS down to a level, through entries under the TD's KeyID",
            "TDXM src/common/memory_handlers/sept_manager.h")
def sept_walk(c: Call, tdr: View, gpa: int, level: int) -> Walk:
    """SEPT.walk: stops early at an entry that is not present."""
    hkid, table = tdr.num("hkid"), sept_root(c, tdr)
    for at in (3, 2, 1, 0):
        address = c.with_hkid(table + (gpa >> 12 + 9 * at & 0x1FF) * 8, hkid)
        entry = c.port.read_int(address)
        if at == level or not entry & SEPT_PRESENT:
            return Walk(address, entry, at)
        table = entry & 0x000FFFFFFFFFF000
    raise AssertionError("level 0 returns")


def gpa_of(c: Call) -> int:
    """GPA in RCX, without the level bits."""
    return c.rcx & ~0xFFF


def gpa_wrong(c: Call, levels: range) -> bool:
    """Level not possible, reserved bits, or a GPA that is shared, too wide, or not aligned to the level."""
    level = c.rcx & 7
    if level not in levels or c.rcx & 0xFF8 or c.rcx >> 47:
        return True
    return bool(gpa_of(c) & (1 << 12 + 9 * level) - 1)


def sept_locked(register: str, mask: int) -> Callable[[Call], bool]:
    find = tdr_in(register, mask)
    return lambda c: not c.lock("x", c.tdcs(find(c)).address("sept_lock"), linear=False)


TDR_MASK = ~0xFFF & (1 << 52) - 1
FLAG_TDR = tdr_in("rdx", TDR_MASK)
LEVEL, MAPPED, NON_LEAF = 7, 4, 0x84
SEPT_LEAF_SHOWN, SEPT_TABLE_SHOWN, SEPT_LEAF_TYPE = 0x800FFFFFFFFFF0F7, 7, 0xF0
"""Bits of a leaf entry, of an entry that names a table, that the host is shown in RCX; a leaf is
write-back with the guest's PAT ignored."""


@implements("SEPT.shown", "RCX = the entry's architectural bits, RDX = level | state << 8: 0 free, 4 mapped, "
            "84H a table",
            "TDXM src/common/memory_handlers/sept_manager.c")
def show_entry(c: Call, walk: Walk) -> None:
    """SEPT.shown."""
    if not walk.entry & SEPT_PRESENT:
        c.out(rcx=SEPT_FREE, rdx=walk.level)
    elif walk.level:
        c.out(rcx=walk.entry & SEPT_TABLE_SHOWN, rdx=walk.level | NON_LEAF << 8)
    else:
        c.out(rcx=(walk.entry | SEPT_LEAF_TYPE) & SEPT_LEAF_SHOWN, rdx=MAPPED << 8)


def shows(c: Call, walk: Walk, wrong: bool) -> bool:
    """A condition on an entry: where it decides, the entry is shown."""
    if wrong:
        show_entry(c, walk)
    return wrong


def page_walk(c: Call) -> Walk:
    return sept_walk(c, RDX_TDR(c), gpa_of(c), 0)
