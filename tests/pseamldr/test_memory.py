"""Memory constants, page tables and VMCSs.  The numbers were worked out by hand from the published formulas."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pseamldr.scene import BUILD

from seamref import mint
from seamref.arch.memory import Agent, Range
from seamref.arch.outcome import Shutdown
from seamref.arch.paging import leaves
from seamref.arch.platform import Platform, Topology
from seamref.arch.software import MemoryFault, Port, Ud2
from seamref.arch.structures import SYS_INFO_TABLE
from seamref.arch.trace import Computed
from seamref.arch.vmcs import get
from seamref.pseamldr import lab
from seamref.pseamldr.api import PAGE, Status
from seamref.pseamldr.install import fix_up_idt
from seamref.pseamldr.lab import Returned
from seamref.pseamldr.memory_constants import (
    MemoryConstants,
    ModuleShape,
    addressable_lps,
    aslr_bits,
    compute_memory_constants,
    table_pages,
)
from seamref.pseamldr.memory_map import ModuleRegion, Tables, build_page_tables
from seamref.pseamldr.vmcs_setup import common_fields

MIB = 1 << 20
OK = Returned(Status.SUCCESS, 0)

RELEASED = ModuleShape(
    num_module_pages=102, num_stack_pages=1, num_tls_pages=1, num_keyhole_pages=127, num_global_data_pages=21,
    num_handoff_pages=13, seam_major_svn=1, gdt_idt_offset=0x5C000, fault_wrapper_offset=0x38F84,
)
"""Page counts of the released module 1.5.01."""
FIELDS = {name: getattr(RELEASED, name) for name in (
    "num_stack_pages", "num_tls_pages", "num_keyhole_pages", "num_global_data_pages", "num_handoff_pages")}


def test_MEMORY_CONSTANTS__worked_example_of_two_sockets_with_128_processors() -> None:
    lps = addressable_lps(128, 2)
    plan = compute_memory_constants(RELEASED, lps, 0, 0x7E000000, 0x7FE00000)
    assert lps == 0x100
    assert (plan.vmcs_region_size, plan.data_region_size, plan.stack_region_size) == (0x100000, 0x224000, 0x300000)
    assert (plan.keyhole_region_size, plan.keyedit_region_size) == (0x8000000, 0x40000)
    sizes = (PAGE, plan.stack_region_size, plan.data_region_size, plan.keyhole_region_size, plan.keyedit_region_size,
             plan.code_region_size)
    assert [table_pages(size) for size in sizes] == [1, 3, 3, 65, 1, 1]
    assert (plan.paging_structure_size, plan.minimum_size) == (0x4B000, 0x870000)
    assert (plan.code_region_physbase, plan.stack_region_physbase) == (0x7FC00000, 0x7F900000)
    assert (plan.pml4_physbase, plan.data_region_physbase) == (0x7F8FF000, 0x7E101000)
    assert plan.idt_linbase == 0xFFFF80000005C000 and plan.gdt_linbase == plan.idt_linbase + 2048
    assert plan.fault_wrapper_linbase == 0xFFFF800000038F84


def test_MEMORY_CONSTANTS_aslr__bits_46_to_34() -> None:
    assert aslr_bits((1 << 64) - 1) == 0x7FFC00000000
    assert aslr_bits(0x8003) == 0
    plan = compute_memory_constants(RELEASED, 1, aslr_bits(0x1234), 0, 1 << 30)
    assert plan.code_region_linbase == 0xFFFF923400000000
    assert plan.keyedit_region_linbase == 0x123500000000


@pytest.mark.parametrize(("per_socket", "sockets", "lps"), [
    (1, 1, 1), (5, 1, 8), (112, 2, 256), (128, 8, 1024), (3, 0, 0)])
def test_MEMORY_CONSTANTS_lps(per_socket: int, sockets: int, lps: int) -> None:
    assert addressable_lps(per_socket, sockets) == lps


def test_MEMORY_CONSTANTS__no_handoff_region_for_major_0_or_revision_1_0() -> None:
    for plan in (compute_memory_constants(replace(RELEASED, seam_major_svn=0), 1, 0, 0, 1 << 30),
                 compute_memory_constants(RELEASED, 1, 0, 0, 1 << 30, "1.0")):
        assert plan.handoff_data_size == 0 and not plan.td_preserving_supported
    assert compute_memory_constants(RELEASED, 1, 0, 0, 1 << 30, "1.0").fault_wrapper_linbase is None


def _watch(platform: Platform) -> dict[str, Any]:
    """What P-SEAMLDR computes from now on, by name."""
    seen: dict[str, Any] = {}
    platform.listeners.append(lambda e: seen.update({e.name: e.value}) if isinstance(e, Computed) else None)
    return seen


def _released_on(range_pages_more: int) -> tuple[object, dict[str, Any]]:
    """The released module's page counts on 2 x 128 processors, in the minimum range and so many pages more."""
    minimum = 0x870000 + range_pages_more * PAGE
    platform = lab.platform(topology=Topology(2, 1, 128), build=BUILD, p_seamldr_range_size=32 * MIB - minimum)
    seen = _watch(platform)
    data = mint.module_image(pages=102)
    signed = mint.sigstruct(data, seam_major_svn=1, **FIELDS)
    return lab.install(platform, mint.place(platform, data, signed)), seen


def test_MAP__the_size_formula_counts_75_pages_where_80_are_needed() -> None:
    assert _released_on(-1)[0] == Returned(Status.ENOMEM, 0)
    for more in range(5):  # the tables that do not fit are the last to be made, those of the keyholes
        answer, seen = _released_on(more)
        assert isinstance(answer, Shutdown) and "keyholes" in answer.cause
        assert seen["memory_constants"].paging_structure_size == 75 * PAGE
    answer, seen = _released_on(5)
    assert answer == OK
    plan = seen["memory_constants"]
    assert (plan.pml4_physbase - seen["current_pt_physbase"]) // PAGE == 80
    assert seen["current_pt_physbase"] == plan.data_region_end - PAGE, "not one page is left"


@pytest.fixture(scope="module")
def installed() -> tuple[Platform, MemoryConstants]:
    platform = lab.platform(topology=Topology(1, 2), build=BUILD)
    seen = _watch(platform)
    data = mint.module_image(pages=8)
    signed = mint.sigstruct(data, seam_major_svn=1, **FIELDS)
    assert lab.install(platform, mint.place(platform, data, signed)) == OK
    platform.listeners.clear()
    return platform, seen["memory_constants"]


def test_MAP__every_region_with_its_attributes(installed: tuple[Platform, MemoryConstants]) -> None:
    platform, plan = installed
    found = {linear: entry for linear, entry, _ in leaves(platform, plan.pml4_physbase)}
    want = {plan.code_region_linbase + i * PAGE: plan.code_region_physbase + i * PAGE | 0x21 for i in range(8)}
    for i in range(plan.data_region_size // PAGE):
        want[plan.data_region_linbase + i * PAGE] = plan.data_region_physbase + i * PAGE | 0x63 | 1 << 63
    for lp in range(2):
        for page in range(3):
            offset = lp * plan.lp_stack_size + page * PAGE
            attributes = (0x61 if page == 2 else 0x63) | 1 << 63
            want[plan.stack_region_linbase + offset] = plan.stack_region_physbase + offset | attributes
    want[plan.sysinfo_table_linbase] = plan.seamrr_base | 0x21 | 1 << 63
    edit = found.pop(plan.keyedit_region_linbase)
    assert edit & 0xFFF0000000000FFF == 0x8000000000000067
    assert found == want, "keyholes are zero leaves and do not show"
    page_table = edit & 0xFFFFFFFFF000
    assert platform.bytes_at(Agent.MODULE, page_table, PAGE) == bytes(PAGE)


def test_INSTALL_sys_info(installed: tuple[Platform, MemoryConstants]) -> None:
    platform, plan = installed
    table = SYS_INFO_TABLE.decode(platform.bytes_at(Agent.MODULE, plan.seamrr_base, PAGE))
    held = platform.p_seamldr_range
    assert held is not None
    assert table.mcheck == platform.bytes_at(Agent.CPU, held.end - PAGE, 2048)
    assert (table.code_rgn_base, table.code_rgn_size) == (plan.code_region_linbase, 8 * PAGE)
    assert table.keyhole_edit_rgn_base == plan.keyedit_region_linbase
    assert (table.num_stack_pages, table.num_tls_pages) == (1, 1)
    assert table.num_handoff_pages == 13 and table.reserved_2 == bytes(1936)


def test_VMCS_setup__each_processor_has_its_own_stack_and_local_data(
    installed: tuple[Platform, MemoryConstants]
) -> None:
    platform, plan = installed
    pages = [platform.bytes_at(Agent.MODULE, plan.seamrr_base + PAGE * (1 + i), PAGE) for i in range(2)]
    assert get(pages[0], "host_rsp") == plan.stack_region_linbase + plan.data_stack_size - 8
    assert get(pages[0], "host_ssp") == plan.stack_region_linbase + plan.lp_stack_size - 8
    assert get(pages[0], "host_gs_base") == plan.data_region_linbase + plan.handoff_data_size
    assert get(pages[1], "host_rsp") - get(pages[0], "host_rsp") == plan.lp_stack_size
    assert get(pages[1], "host_gs_base") - get(pages[0], "host_gs_base") == plan.local_data_size
    assert get(pages[1], "host_cr3") == plan.pml4_physbase
    assert get(pages[0], "guest_rip") == 0x1000000000000000
    assert get(pages[0], "host_idtr_base") == plan.idt_linbase


def test_VMCS_setup__a_short_region_size_loses_host_S_CET_in_all_but_the_first() -> None:
    from seamref.arch.platform import VMX_MSRS

    short = {**VMX_MSRS, 0x480: 0x400 << 32 | 0x13}
    platform = lab.platform(topology=Topology(1, 2), build=BUILD, vmx_msrs=short)
    data = mint.module_image(pages=8)
    assert lab.install(platform, mint.place(platform, data)) == OK
    pages = [platform.bytes_at(Agent.MODULE, lab.SEAMRR.base + PAGE * (1 + i), PAGE) for i in range(2)]
    assert [get(page, "host_ia32_s_cet") for page in pages] == [0x15, 0]
    assert get(pages[1], "host_ssp") != 0, "SSP is written for each"


def test_VMCS_common__controls_keep_only_what_the_part_allows() -> None:
    msrs = dict.fromkeys((0x480, 0x486, 0x487, 0x488, 0x489, 0x48D, 0x48E), 0)
    fields = common_fields({**msrs, 0x480: 0xFFFFFFFF, 0x48F: 0x00000001_00000001, 0x490: 0xFFFFFFFF_00000000})
    assert fields["exit_ctls"] == 1 and fields["entry_ctls"] == 0x007EE004
    assert fields["revision_id"] == 0x7FFFFFFF and fields["host_cr4"] == 0xB526A8


# --- the allocator


def _region(size: int = 64 * PAGE) -> tuple[Platform, ModuleRegion]:
    platform = lab.platform(topology=Topology(1, 1))
    return platform, ModuleRegion(Port(platform, platform.lp(0), Agent.P_SEAMLDR), 0x7E000000, 0x7E000000 + size)


def test_MAP_walk__one_table_at_a_time_downward_and_shared() -> None:
    _, region = _region()
    tables = Tables(region, 0x7E000000 + 60 * PAGE, 0x7E000000)
    assert tables.next == 0x7E000000 + 59 * PAGE
    tables.map(0xFFFF800000000000, 0x1000, 1, 0x21)
    assert tables.next == 0x7E000000 + 56 * PAGE
    tables.map(0xFFFF8000001FF000, 0x2000, 2, 0x21)
    assert tables.next == 0x7E000000 + 55 * PAGE, "only the second 2 MiB needs one more"
    tables.write_back()
    root = int.from_bytes(region.read(0x7E000000 + 60 * PAGE + 256 * 8, 8), "little")
    assert root == 0x7E000000 + 59 * PAGE | 0x27


def test_MAP_walk__residue_is_taken_for_entries() -> None:
    _, region = _region()
    at = 0x7E000000 + 59 * PAGE
    region.write(at, (0x1234567000 | 0x27).to_bytes(8, "little"))
    tables = Tables(region, 0x7E000000 + 60 * PAGE, 0x7E000000)
    with pytest.raises(MemoryFault):
        tables.map(0xFFFF800000000000, 0x1000, 1, 0x21)


def test_MAP__revision_1_0_stops_one_page_earlier() -> None:
    _, region = _region(4 * MIB)
    needed = 1 + 5 * 2 + 3  # one PDPT, directory and table for each of five regions; three for the key-edit region
    for revision in ("1.5", "1.0"):
        plan = compute_memory_constants(ModuleShape(1, 0, 0, 0, 0), 1, 0, 0x7E000000, 0x7E400000, revision)
        plan = replace(plan, data_region_physbase=plan.first_table - plan.data_region_size - (needed - 1) * PAGE)
        if revision == "1.5":
            assert build_page_tables(region, plan, revision) == (True, plan.data_region_end - PAGE)
            region.zero(region.base, region.end - region.base)
        else:
            with pytest.raises(Ud2, match="keyholes"):
                build_page_tables(region, plan, revision)


def _page_by_page(region: ModuleRegion, plan: MemoryConstants) -> bool:
    """The mapper as the documents tell it: one page after the other, one 8-byte entry at a time."""
    free = plan.pml4_physbase - PAGE

    def table(linear: int, pde: int = 0x27) -> int | None:
        nonlocal free
        at = plan.pml4_physbase
        for shift in (39, 30, 21):
            where = at + (linear >> shift & 511) * 8
            entry = int.from_bytes(region.read(where, 8), "little")
            if entry == 0:
                if free < plan.data_region_end:
                    return None
                entry = free | (pde if shift == 21 else 0x27)
                region.write(where, entry.to_bytes(8, "little"))
                free -= PAGE
            at = entry & 0xFFFFFFFFFF000
        return at

    def leaf(linear: int, entry: int, pde: int = 0x27) -> int | None:
        at = table(linear, pde)
        if at is not None:
            region.write(at + (linear >> 12 & 511) * 8, entry.to_bytes(8, "little"))
        return at

    xd = 1 << 63
    pages = [(plan.code_region_linbase + i, plan.code_region_physbase + i | 0x21)
             for i in range(0, plan.code_region_size, PAGE)]
    pages += [(plan.data_region_linbase + i, plan.data_region_physbase + i | 0x63 | xd)
              for i in range(0, plan.data_region_size, PAGE)]
    for i in range(0, plan.stack_region_size, PAGE):
        shadow = (i + PAGE) % plan.lp_stack_size == 0
        pages.append((plan.stack_region_linbase + i, plan.stack_region_physbase + i | (0x61 if shadow else 0x63) | xd))
    pages.append((plan.sysinfo_table_linbase, plan.seamrr_base | 0x21 | xd))
    for linear, entry in pages:
        if leaf(linear, entry) is None:
            return False
    last, edit = 0, plan.keyedit_region_linbase
    for i in range(0, plan.keyhole_region_size, PAGE):
        at = leaf(plan.keyhole_region_linbase + i, 0, 0x27 | xd)
        if at is None:
            return False
        if at != last:
            if leaf(edit, at | 0x67 | xd) is None:
                return False
            last, edit = at, edit + PAGE
    return True


@given(
    shape=st.builds(ModuleShape, st.integers(0, 4), st.integers(0, 3), st.integers(0, 3), st.integers(0, 700),
                    st.integers(0, 900), st.integers(0, 9), st.integers(0, 1)),
    lps=st.sampled_from([1, 2, 4]), random=st.integers(0, 0xFFFF), missing=st.integers(0, 20), residue=st.booleans())
@settings(max_examples=60)
def test_MAP_order__whole_tables_at_a_time_are_the_same_as_page_by_page(
    shape: ModuleShape, lps: int, random: int, missing: int, residue: bool
) -> None:
    results = []
    base, end = 0x7E000000, 0x7E000000 + 12 * MIB
    plan = compute_memory_constants(shape, lps, aslr_bits(random), base, end)
    room = plan.paging_structure_size + (8 - missing) * PAGE
    plan = replace(plan, data_region_physbase=plan.pml4_physbase - room - plan.data_region_size)
    for whole in (True, False):
        platform, _ = _region()
        region = ModuleRegion(Port(platform, platform.lp(0), Agent.P_SEAMLDR), base, end)
        if residue:  # a page that is going to be a page table keeps what lay there: entries that nothing overwrites
            region.write(plan.first_table - 2 * PAGE + 4088, b"\x5a" * 8)
        if whole:
            try:
                fitted = build_page_tables(region, plan, "1.5")[0]
            except Ud2:
                fitted = False
        else:
            fitted = _page_by_page(region, plan)
        results.append((fitted, list(platform.store_.pages(base, end))))
    assert results[0] == results[1]


def test_INSTALL_module_region__ends_at_P_SEAMLDR_RANGE() -> None:
    _, region = _region()
    region.write(region.end - 8, bytes(8))
    for bad in (lambda: region.read(region.end - 4, 8), lambda: region.write(region.base - 1, b"x"),
                lambda: region.zero(region.end, (1 << 64) - PAGE)):
        with pytest.raises(MemoryFault):
            bad()
    region.zero(region.end, 0)


@given(wrapper=st.integers(0, (1 << 64) - 512), offset=st.sampled_from([0, 4096]))
def test_INSTALL_idt__offsets_of_32_gates(wrapper: int, offset: int) -> None:
    image = bytearray(b"\xa5" * 8192)
    fix_up_idt(image, offset, wrapper)
    for vector in range(32):
        gate = image[offset + 16 * vector : offset + 16 * vector + 16]
        assert int.from_bytes(gate[0:2] + gate[6:12], "little") == wrapper + 16 * vector
        assert gate[2:6] == b"\xa5" * 4 and gate[12:] == b"\xa5" * 4
    assert image[:offset] + image[offset + 512 :] == b"\xa5" * (8192 - 512)


@given(st.builds(
    ModuleShape, st.integers(0, 496), st.integers(0, 255), st.integers(0, 255), st.integers(0, 0xFFFF),
    st.integers(0, 0xFFFF), st.integers(0, 0xFFFF), st.integers(0, 255)), st.sampled_from([1, 2, 64, 1024]))
def test_MEMORY_CONSTANTS__when_the_formula_is_content_regions_do_not_overlap(shape: ModuleShape, lps: int) -> None:
    plan = compute_memory_constants(shape, lps, 0, 0x7E000000, 0)
    plan = compute_memory_constants(shape, lps, 0, 0x7E000000, 0x7E000000 + plan.minimum_size)
    spans = [Range(plan.seamrr_base, PAGE), Range(plan.seamrr_base + PAGE, plan.vmcs_region_size),
             Range(plan.data_region_physbase, plan.data_region_size), Range(plan.pml4_physbase, PAGE),
             Range(plan.stack_region_physbase, plan.stack_region_size), Range(plan.code_region_physbase, 2 * MIB)]
    for before, after in pairwise(spans):
        assert before.end <= after.base
    assert spans[-1].end == plan.module_physlimit
