"""Page tables of P-SEAMLDR: from P_SEAMLDR_RANGE.base + 8 KiB upward."""

from __future__ import annotations

from collections.abc import Callable
from struct import pack

from seamref.firmware.np_seamldr.checks import NP_TABLES, ask
from seamref.firmware.np_seamldr.state import (
    ADDRESS,
    KEYHOLE_TABLE_ENTRY,
    LEAF_2M,
    LEAF_CODE,
    LEAF_RO,
    LEAF_RW,
    LEAF_RW_USER,
    LEAF_SHADOW,
    MASK64,
    MIB2,
    MODULE_LINEAR,
    PAGE,
    PAGING,
    SHADOW_STACK,
    TABLE_ENTRY,
    VMCS_AREA,
    Np,
)
from seamref.pseamldr.memory_constants import (
    CODE_LINEAR,
    DATA_LINEAR,
    KEYEDIT_LINEAR,
    KEYHOLE_LINEAR,
    STACK_LINEAR,
    SYSINFO_LINEAR,
)
from seamref.spec import MEASURED, implements


class NoTables(Exception):
    """The page-table allocator met the data region."""


def _entry_of(np: Np, linear: int, leaf_level: int, pd_entry: int) -> int:
    """Physical address of the entry for ``linear`` at ``leaf_level`` (12 or 21), building tables on the way."""
    table = np.range.base + VMCS_AREA
    for level in (39, 30, 21):
        at = table + (linear >> level & 0x1FF) * 8
        if level == leaf_level:
            return at
        entry = np.read_int(at)
        if entry == 0:
            if np.state.next_table >= np.data:
                raise NoTables
            entry = np.state.next_table | (pd_entry if level == 21 else TABLE_ENTRY)
            np.write_int(at, entry)
            np.set(next_table=np.state.next_table + PAGE)
        table = entry & ADDRESS
    return table + (linear >> 12 & 0x1FF) * 8


def _map(np: Np, linear: int, physical: int, pages: int, leaf: int, pd_entry: int = TABLE_ENTRY) -> None:
    """``pages`` pages of 4 KiB; the entries of one table are stored together."""
    at = 0
    while at < pages:
        first = linear + at * PAGE & MASK64
        count = min(pages - at, 512 - (first >> 12 & 0x1FF))
        entry = _entry_of(np, first, 12, pd_entry)
        values = (physical + (at + i) * PAGE & MASK64 | leaf for i in range(count))
        np.write(entry, pack(f"<{count}Q", *values))
        at += count


def mapping_step(name: str, build: Callable[[Np], None]) -> Callable[[Np], None]:
    def step(np: Np) -> None:
        if np.state.next_table == 0:
            np.set(next_table=np.range.base + VMCS_AREA + PAGE)
        try:
            build(np)
            np.set(failed=False)
        except NoTables:
            np.set(failed=True)
        ask(np, NP_TABLES[name])

    step.__name__, step.__doc__ = build.__name__, build.__doc__
    step.__wrapped__ = build  # type: ignore[attr-defined]
    return step


@implements("NP_SEAMLDR.map_code", "image pages, present and executable, read-only", PAGING, MEASURED)
def map_code(np: Np) -> None:
    """NP_SEAMLDR.map_code: the image's whole pages count, not CCodeRgnSize."""
    _map(np, np.linear(CODE_LINEAR), np.code, int(np.build.image_size) // PAGE, LEAF_CODE)


@implements("NP_SEAMLDR.map_stacks", "data stack read-write, then the shadow stack's page", PAGING, MEASURED)
def map_stacks(np: Np) -> None:
    """NP_SEAMLDR.map_stacks."""
    pages = np.stack_pages
    _map(np, np.linear(STACK_LINEAR), np.stack, pages, LEAF_RW)
    _map(np, np.linear(STACK_LINEAR) + pages * PAGE, np.stack + pages * PAGE, SHADOW_STACK // PAGE, LEAF_SHADOW)


@implements("NP_SEAMLDR.map_keyholes", "tables for 512 pages whose leaves are 0; those tables are mapped as key-edit",
            PAGING, MEASURED)
def map_keyholes(np: Np) -> None:
    """NP_SEAMLDR.map_keyholes: P-SEAMLDR maps a page by writing a leaf through the key-edit region."""
    edit, last = np.linear(KEYEDIT_LINEAR), None
    page, pages = 0, int(np.consts.CKeyholeRgnSize) // PAGE
    while page < pages:
        linear = np.linear(KEYHOLE_LINEAR) + page * PAGE & MASK64
        count = min(pages - page, 512 - (linear >> 12 & 0x1FF))
        entry = _entry_of(np, linear, 12, KEYHOLE_TABLE_ENTRY)
        np.zero(entry, 8 * count)
        if entry & ADDRESS != last:
            last = entry & ADDRESS
            _map(np, edit, last, 1, LEAF_RW_USER)
            edit += PAGE
        page += count


@implements("NP_SEAMLDR.map_data", "data region read-write", PAGING, MEASURED)
def map_data(np: Np) -> None:
    """NP_SEAMLDR.map_data."""
    _map(np, np.linear(DATA_LINEAR), np.data, int(np.consts.CDataRgnSize) // PAGE, LEAF_RW)


@implements("NP_SEAMLDR.map_table", "P_SYS_INFO_TABLE read-only", PAGING, MEASURED)
def map_table(np: Np) -> None:
    """NP_SEAMLDR.map_table."""
    _map(np, np.linear(SYSINFO_LINEAR), np.sysinfo, 1, LEAF_RO)


@implements("NP_SEAMLDR.map_module",
            "SEAMRR.base + (size - P_SEAMLDR_RANGE.size mod 2^64): as many 2 MiB pages as fit, while they end at or "
            "below P_SEAMLDR_RANGE, then 4 KiB pages, rounded down", PAGING, MEASURED)
def map_module(np: Np) -> None:
    """NP_SEAMLDR.map_module."""
    held = np.range
    size = np.state.size - held.size & MASK64
    at, large = 0, size // MIB2
    while large and np.state.base + at + MIB2 <= held.base:
        np.write_int(_entry_of(np, np.linear(MODULE_LINEAR) + at, 21, TABLE_ENTRY), np.state.base + at | LEAF_2M)
        at += MIB2
        large -= 1
    _map(np, np.linear(MODULE_LINEAR) + at, np.state.base + at, (size - at) // PAGE, LEAF_RW)
