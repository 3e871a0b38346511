"""Page tables of the module, built from the top of the free memory downward.

The allocator takes pages as they are: what the handoff data of an update left there is taken for entries.  Pages are
worked on as lists of 512 entries and written back whole; the order of allocation is that of a walk page by page.
"""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING

from seamref.arch.outcome import Fault, Vector
from seamref.arch.paging import ADDRESS
from seamref.arch.software import MemoryFault, Port, Ud2
from seamref.pseamldr.api import PAGE, Status
from seamref.pseamldr.build import R10
from seamref.pseamldr.memory_constants import MemoryConstants
from seamref.spec import MEASURED, Check, CheckTable, clause, implements

if TYPE_CHECKING:
    from collections.abc import Iterator

_SRC = "PSL src/common/memory_handlers/seam_memory_map.c"

NON_LEAF = 0x27
KEYHOLE_PDE = 0x8000000000000027
CODE = 0x21
DATA = STACK = 0x8000000000000063
SHADOW_STACK = 0x8000000000000061
SYS_INFO = 0x8000000000000021
KEYHOLE = 0
KEY_EDIT = 0x8000000000000067
"""Raw attributes of entries: P=1, RW=2, U=4, A=20H, D=40H, XD=bit 63."""

ENTRIES = 512
_TABLE = Struct("<512Q")
_SHIFTS = (39, 30, 21)


class ModuleRegion:
    """[SEAMRR base, P_SEAMLDR_RANGE base) as P-SEAMLDR reaches it: through its linear alias, which ends there."""

    __slots__ = ("base", "end", "port")

    def __init__(self, port: Port, base: int, end: int) -> None:
        self.port = port
        self.base = base
        self.end = end

    def _inside(self, address: int, size: int, write: bool) -> None:
        if not self.base <= address <= address + size <= self.end:
            raise MemoryFault(Fault(Vector.PF, write << 1, "INSTALL.module_region"), address, write)

    def read(self, address: int, size: int) -> bytes:
        """Bytes at a physical address of the region; outside it is a page fault."""
        self._inside(address, size, False)
        return self.port.read(address, size)

    def write(self, address: int, data: bytes | bytearray) -> None:
        """Store bytes."""
        self._inside(address, len(data), True)
        self.port.write(address, data)

    def zero(self, address: int, size: int) -> None:
        """Store zeros."""
        if size:
            self._inside(address, size, True)
            self.port.zero(address, size)


clause("INSTALL.module_region", "P-SEAMLDR reaches the module range through a linear alias that ends at "
    "P_SEAMLDR_RANGE: beyond it, a page fault", "NPS Core/CommonSeamLdr64/SeamrrPaging64.c", MEASURED)


class _NoTable(Exception):
    """The allocator has met the data region."""


class Tables:
    """The page tables while they are being built."""

    __slots__ = ("_dirty", "_limit", "_pages", "_region", "next", "root")

    def __init__(self, region: ModuleRegion, root: int, limit: int) -> None:
        self._region = region
        self._pages: dict[int, list[int]] = {}
        self._dirty: set[int] = set()
        self._limit = limit
        self.root = root
        self.next = root - PAGE

    def entries(self, at: int) -> list[int]:
        """The 512 entries of a table page."""
        found = self._pages.get(at)
        if found is None:
            found = self._pages[at] = list(_TABLE.unpack(self._region.read(at, PAGE)))
        return found

    @implements("MAP.walk", "levels 4, 3, 2: an entry that is 0 gets the next page below; any other is followed", _SRC,
                MEASURED)
    def table_of(self, linear: int, pde: int = NON_LEAF) -> int:
        """MAP.walk: the page table for ``linear``, made on the way; ``pde``: attributes of a new level-2 entry."""
        at = self.root
        for shift in _SHIFTS:
            entries = self.entries(at)
            index = linear >> shift & 511
            entry = entries[index]
            if entry == 0:
                if self.next < self._limit:
                    raise _NoTable
                entry = entries[index] = self.next | (pde if shift == 21 else NON_LEAF)
                self._dirty.add(at)
                self.next -= PAGE
            at = entry & ADDRESS
        return at

    def map(self, linear: int, physical: int, count: int, attributes: int) -> None:
        """Map ``count`` consecutive 4 KiB pages."""
        while count:
            at = self.table_of(linear)
            first = linear >> 12 & 511
            part = min(count, ENTRIES - first)
            start = physical | attributes
            self.entries(at)[first : first + part] = range(start, start + part * PAGE, PAGE)
            self._dirty.add(at)
            linear += part * PAGE
            physical += part * PAGE
            count -= part

    def clear(self, linear: int, count: int) -> Iterator[int]:
        """Write zero leaves for ``count`` pages; yields each page table as it is come to."""
        while count:
            at = self.table_of(linear, KEYHOLE_PDE)
            first = linear >> 12 & 511
            part = min(count, ENTRIES - first)
            self.entries(at)[first : first + part] = (KEYHOLE,) * part
            self._dirty.add(at)
            yield at
            linear += part * PAGE
            count -= part

    def write_back(self) -> None:
        """Store every page that changed."""
        for at in sorted(self._dirty):
            entries = self._pages[at]
            if any(entries):
                self._region.write(at, _TABLE.pack(*entries))
            else:
                self._region.zero(at, PAGE)
        self._dirty.clear()


@implements("MAP.order", "code, data, each processor's stacks, SYS_INFO_TABLE, keyholes with their key-edit pages",
            _SRC,
            MEASURED)
def build_page_tables(region: ModuleRegion, plan: MemoryConstants, revision: str) -> tuple[bool, int]:
    """MAP.order: (whether all tables fitted, the next free page).

    Running out while mapping keyholes is fatal.  Whatever happens, what was built so far is in memory.
    """
    limit = plan.data_region_end + (1 if revision == R10 else 0)  # 1.0 stops one page earlier
    tables = Tables(region, plan.pml4_physbase, limit)
    try:
        try:
            _map_regions(tables, plan)
        except _NoTable:
            return False, tables.next
        try:
            _map_keyholes(tables, plan)
        except _NoTable:
            raise Ud2("mapping the module's keyholes: no page left for tables") from None
    finally:
        tables.write_back()
    return True, tables.next


def _map_regions(tables: Tables, plan: MemoryConstants) -> None:
    tables.map(plan.code_region_linbase, plan.code_region_physbase, plan.code_region_size // PAGE, CODE)
    tables.map(plan.data_region_linbase, plan.data_region_physbase, plan.data_region_size // PAGE, DATA)
    linear, physical = plan.stack_region_linbase, plan.stack_region_physbase
    data_pages = plan.data_stack_size // PAGE
    for _ in range(plan.num_addressable_lps):
        tables.map(linear, physical, data_pages, STACK)
        tables.map(linear + plan.data_stack_size, physical + plan.data_stack_size, 1, SHADOW_STACK)
        linear += plan.lp_stack_size
        physical += plan.lp_stack_size
    tables.map(plan.sysinfo_table_linbase, plan.seamrr_base, 1, SYS_INFO)


@implements("MAP.keyholes", "a zero leaf for each keyhole; the page table that holds it is mapped at the next "
            "key-edit address whenever it is another than before", _SRC, MEASURED)
def _map_keyholes(tables: Tables, plan: MemoryConstants) -> None:
    edit, end = plan.keyedit_region_linbase, plan.keyedit_region_linbase + plan.keyedit_region_size
    last = 0
    for table in tables.clear(plan.keyhole_region_linbase, plan.keyhole_region_size // PAGE):
        if table == last:
            continue
        last = table
        if edit >= end:
            raise Ud2("mapping the module's keyholes: the key-edit region is full")
        tables.map(edit, table, 1, KEY_EDIT)
        edit += PAGE


INSTALL_MAP: CheckTable[bool, Status] = CheckTable("INSTALL.map", (
    Check("INSTALL.map.tables", "the page-table allocator meets the data region", lambda fitted: not fitted,
          Status.ENOMEM,
          _SRC, MEASURED),
), "Page tables of code, data, stacks and SYS_INFO_TABLE: the old module is gone (RDX = 1).")
