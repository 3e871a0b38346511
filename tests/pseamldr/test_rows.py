"""Every row of every check table of P-SEAMLDR, both ways."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from pseamldr import scene

from seamref import mint
from seamref.pseamldr import lab
from seamref.pseamldr.api import PAGE, SEAMLDR_PARAMS
from seamref.pseamldr.data import Call
from seamref.pseamldr.elf import ElfError, ElfRefused, Relocated
from seamref.pseamldr.hpa import SharedHpa
from seamref.pseamldr.info import BufferState
from seamref.pseamldr.install import HashState, LpState, RcxState, UpdateState
from seamref.pseamldr.manifest import ManifestState, ParamsState
from seamref.pseamldr.memory_constants import MemoryState, ModuleShape, compute_memory_constants
from seamref.pseamldr.program import EntryState
from seamref.pseamldr.shutdown import ShutdownState
from seamref.pseamldr.sigstruct import SEAM_SIGSTRUCT
from seamref.pseamldr.sysvalues import SystemValues, hkid_mask
from seamref.spec import TABLES

OURS = ("SHARED_HPA", "SEAMLDR.", "INSTALL.", "DISPATCH.")
ROWS = [(table, row) for name, table in TABLES.items() if name.startswith(OURS) for row in table]

VALUES = SystemValues(46, 0x7E000000, 0x2000000, hkid_mask(46, 6), 8)
PAGES = [0x10002000 + i * PAGE for i in range(8)]


def _params(**fields: Any) -> ParamsState:
    ready = fields.pop("seam_ready", 1)
    good = {"scenario": 1, "sigstruct_pa": 0x10001000, "num_module_pages": 8, "mod_pages_pa_list": PAGES}
    return ParamsState(SEAMLDR_PARAMS.encode({**good, **fields}), VALUES, ready)


def _manifest(revision: str = "1.5", **fields: Any) -> ManifestState:
    data = mint.sigstruct(scene.image(), **fields)
    return ManifestState(data, 1, 8, 2, 1, False, (0x806F8,), mint.KEY.key_hash, revision)


def _old() -> ManifestState:
    """A manifest that 1.0 accepts: its reserved area is longer, the module has no IDT and no handoff pages."""
    return _manifest("1.0", gdt_idt_offset=0, fault_wrapper_offset=0, num_handoff_pages=0, module_hv=0, min_update_hv=0,
                     no_downgrade=0, seam_major_svn=1, seam_minor_svn=3)


def _lp(lpid: int, lps_in_shutdown: int = 0, member: bool = False) -> LpState:
    platform = scene.base()
    call = Call(platform, platform.lp(0), scene.BUILD)
    call.lp.inSEAM = call.lp.inP_SEAMLDR = True
    if member:
        call.test_and_set("update_bitmap", lpid)
    return LpState(lpid, lps_in_shutdown, call)


def _plan(size: int) -> MemoryState:
    shape = ModuleShape(8, 1, 1, 7, 3, 1, 1)
    plan = compute_memory_constants(shape, 2, 0, 0x7E000000, 0x7E000000 + size)
    return MemoryState(1, plan)


MINIMUM = _plan(0).constants.minimum_size
UPDATE = UpdateState(3, 1, 2, PAGE - 8, 0, 2, 2)

EXAMPLES: dict[str, tuple[Any, Any]] = {
    "HPA.alignment": (SharedHpa(0x1000, 4096, VALUES), SharedHpa(0x1800, 4096, VALUES)),
    "HPA.width": (SharedHpa((8 << 40) - 256, 256, VALUES), SharedHpa(1 << 46, 256, VALUES)),
    "HPA.seamrr": (SharedHpa(0x80000000, 4096, VALUES), SharedHpa(0x7FFFF000, 4096, VALUES)),
    "HPA.hkid": (SharedHpa(7 << 40, 4096, VALUES), SharedHpa(8 << 40, 4096, VALUES)),
    "INFO.rcx": (BufferState(0x100, VALUES), BufferState(0x180, VALUES)),
    "SEAMINFO.rcx": (BufferState(0x800, VALUES), BufferState(0x100, VALUES)),
    "SHUTDOWN.x2apic_id": (ShutdownState(1023, 0), ShutdownState(1024, 0)),
    "SHUTDOWN.acm_x2apicid": (ShutdownState(5, 5), ShutdownState(4, 5)),
    "DISPATCH.exit_reason": (EntryState(76 | 1 << 29), EntryState(77)),
    "DISPATCH.canary.entropy": (EntryState(76, 1, 5), EntryState(76, 1, 0)),
    "DISPATCH.leaf.unknown": (1 << 63 | 3, 1 << 63 | 4),
    "INSTALL.lp.x2apic_id": (_lp(1023), _lp(1024)),
    "INSTALL.lp.shutdown": (_lp(0), _lp(0, 1)),
    "INSTALL.lp.repeated": (_lp(9), _lp(9, member=True)),
    "INSTALL.rcx.pa": (RcxState(0x1000, VALUES), RcxState(0x1800, VALUES)),
    "INSTALL.params.version": (_params(), _params(version=1)),
    "INSTALL.params.reserved": (_params(), _params(reserved=1)),
    "INSTALL.params.scenario": (_params(scenario=0), _params(scenario=2)),
    "INSTALL.params.num_module_pages": (_params(num_module_pages=0), _params(num_module_pages=497)),
    "INSTALL.params.page_pa": (_params(), _params(mod_pages_pa_list=[*PAGES[:-1], 0x7E000000])),
    "INSTALL.params.sigstruct_pa": (_params(), _params(sigstruct_pa=0x10001800)),
    "INSTALL.params.update_ready": (_params(seam_ready=2), _params(seam_ready=0)),
    "INSTALL.manifest.svn": (_old(), replace(_old(), seam_minor_svn=4)),
    "INSTALL.manifest.debug": (
        replace(_manifest(module_type=1 << 31), debug_unlocked=True), _manifest(module_type=1 << 31)),
    "INSTALL.manifest.major_svn": (replace(_manifest(seam_major_svn=9), scenario=0), _manifest(seam_major_svn=9)),
    "INSTALL.manifest.minor_svn": (_manifest(seam_minor_svn=2), _manifest(seam_minor_svn=1)),
    "INSTALL.manifest.gdt_idt_bound": (_manifest(gdt_idt_offset=7 * PAGE), _manifest(gdt_idt_offset=8 * PAGE)),
    "INSTALL.manifest.fault_wrapper_bound": (
        _manifest(fault_wrapper_offset=8 * PAGE - 512), _manifest(fault_wrapper_offset=8 * PAGE - 511)),
    "INSTALL.manifest.cpuid": (_manifest(cpuid_table=[0x806FF]), _manifest(cpuid_table=[0x806E8])),
    "INSTALL.manifest.cpuid_mandatory": (
        replace(_manifest(cpuid_table_size=0, module_type=1 << 31), debug_unlocked=True),
        _manifest(cpuid_table_size=0)),
    "INSTALL.memory.entropy": (_plan(MINIMUM), replace(_plan(MINIMUM), carry=0)),
    "INSTALL.memory.size": (_plan(MINIMUM), _plan(MINIMUM - 1)),
    "INSTALL.update.remaining": (UPDATE, replace(UPDATE, remaining=0)),
    "INSTALL.update.handoff_valid": (replace(UPDATE, valid=0x80), replace(UPDATE, valid=0)),
    "INSTALL.update.handoff_size": (UPDATE, replace(UPDATE, size=PAGE - 7)),
    "INSTALL.update.handoff_hv_low": (UPDATE, replace(UPDATE, hv=1)),
    "INSTALL.update.handoff_hv_high": (UPDATE, replace(UPDATE, hv=3)),
    "INSTALL.map.tables": (True, False),
    "INSTALL.hash.seamhash": (HashState(b"a", b"a"), HashState(b"a", b"b")),
    "INSTALL.relocation.elf": (Relocated(3), ElfRefused(ElfError.HEADER, "ELF.magic", 0, 0)),
    "INSTALL.seamdb.entropy": (0, 2),
}
for fault in scene.FAULTS:
    if fault.row.startswith("INSTALL.manifest.") and fault.row not in EXAMPLES:
        broken = scene.Scene()
        fault.put(broken)
        EXAMPLES[fault.row] = (_manifest(), _manifest(**broken.sig))


def test_every_row_has_an_example() -> None:
    assert {row.id for _, row in ROWS} == set(EXAMPLES)


@pytest.mark.parametrize(("table", "row"), ROWS, ids=[row.id for _, row in ROWS])
def test_row_is_silent_on_one_context_and_decides_on_another(table: Any, row: Any) -> None:
    silent, stops = EXAMPLES[row.id]
    revision = "1.0" if row.id == "INSTALL.manifest.svn" else "1.5"
    assert table.decide(silent, revision) is None
    decided = table.decide(stops, revision)
    assert decided is not None and decided.id == row.id


@pytest.mark.parametrize("row", [row for row in TABLES["INSTALL.manifest"] if row.applies], ids=lambda row: row.id)
def test_rows_of_one_generation_are_skipped_in_the_other(row: Any) -> None:
    _, stops = EXAMPLES[row.id]
    other = "1.5" if row.applies("1.0") else "1.0"
    assert row.id not in [r.id for r, _ in TABLES["INSTALL.manifest"].walk(replace(stops, revision=other), other)]


MUST = {"header_type": 6, "header_length": 0xE1, "header_version": 0x10000, "key_size": 0x60, "exponent_size": 1,
        "modulus_size": 0x60, "module_vendor": 0x8086, "attributes": 0, "size": 0x200, "exponent": 0x10001}
UNLOCKED = {"debug_unlocked": True}
EDGES: list[tuple[str, dict[str, Any], dict[str, Any], bool]] = [
    # row, fields of the sigstruct, what else differs, whether the row stops
    *((name, {name: value + by}, {}, by != 0) for name, value in MUST.items() for by in (-1, 0, 1) if value + by >= 0),
    *((name, {name: 1}, {}, True) for name in ("reserved0", "reserved1", "reserved2", "reserved3")),
    *(("module_type", {"module_type": value}, {}, value & 0x7FFFFFFF != 0)
      for value in (0, 1, 1 << 30, 1 << 31, 1 << 31 | 1, 0x7FFFFFFF)),
    *(("cpuid_table_size", {"cpuid_table_size": size}, {}, size > 255) for size in (0, 254, 255, 256)),
    *(("hv", {"min_update_hv": low, "module_hv": 2}, {}, low > 2) for low in (0, 1, 2, 3)),
    *(("gdt_idt_alignment", {"gdt_idt_offset": at}, {}, at % PAGE != 0) for at in (0, 1, PAGE - 1, PAGE, PAGE + 1)),
    *(("gdt_idt_pair", {"gdt_idt_offset": gdt, "fault_wrapper_offset": wrapper}, {}, (gdt == 0) != (wrapper == 0))
      for gdt in (0, 1, PAGE) for wrapper in (0, 1, PAGE)),
    *(("signer_key", {}, {"signer_key_hash": byte * 48}, True) for byte in (b"\0", b"\xff")),
    *(("debug", {"module_type": kind}, {"debug_unlocked": unlocked}, bool(kind) and not unlocked)
      for kind in (0, 1 << 31) for unlocked in (False, True)),
    *(("major_svn", {"seam_major_svn": svn}, {"scenario": scenario}, scenario == 1 and svn != 1)
      for svn in (0, 1, 2) for scenario in (0, 1)),
    *(("minor_svn", {"seam_minor_svn": svn}, {"scenario": scenario}, scenario == 1 and svn < 2)
      for svn in (1, 2, 3) for scenario in (0, 1)),
    *(("gdt_idt_bound", {"gdt_idt_offset": at}, {"num_module_pages": pages}, stops) for at, pages, stops in (
        (0, 1, False), (1, 1, True), (7 * PAGE, 8, False), (7 * PAGE + 1, 8, True), (0xFFFFFFFF, 0, False))),
    *(("fault_wrapper_bound", {"fault_wrapper_offset": at}, {"num_module_pages": pages}, stops)
      for at, pages, stops in (
        (0, 1, False), (PAGE - 512, 1, False), (PAGE - 511, 1, True), (0xFFFFFE00, 0, False), (0xFFFFFE01, 0, True))),
    *(("cpuid", {"cpuid_table": table, "cpuid_table_size": size}, {"socket_cpuids": sockets}, stops)
      for table, size, sockets, stops in (
          ([0x806F8], 0, (0x806F8,), False), ([0x806F8], 1, (0x806F8,), False), ([0x806F0], 1, (0x806FF,), False),
          ([0x806F8], 1, (0x806E8,), True), ([0x806F8], 1, (0x806F8, 0x806E8), True),
          ([0x806E8, 0x806F8], 1, (0x806F8,), True), ([0x806E8, 0x806F8], 2, (0x806F8,), False))),
    *(("cpuid_mandatory", {"cpuid_table_size": size, "module_type": kind}, {}, not kind and not size)
      for size in (0, 1) for kind in (0, 1 << 31)),
]


@pytest.mark.parametrize(("row", "fields", "rest", "stops"), EDGES)
def test_INSTALL_manifest__where_each_row_begins(
    row: str, fields: dict[str, Any], rest: dict[str, Any], stops: bool
) -> None:
    state = _manifest()
    data = bytearray(state.sigstruct)
    for name, value in fields.items():
        if name == "cpuid_table":
            value = [*value, *[0] * (len(SEAM_SIGSTRUCT.peek(data, name)) - len(value))]
        SEAM_SIGSTRUCT.poke(data, name, value)
    state = replace(state, sigstruct=bytes(data), **rest)
    assert bool(TABLES["INSTALL.manifest"][f"INSTALL.manifest.{row}"].stops(state)) is stops


@pytest.mark.parametrize(("new", "running", "scenario", "stops"), [
    (0x103, 0x103, 1, False), (0x103, 0x104, 1, True), (0x104, 0x103, 1, False), (0x1FF, 0x200, 1, True),
    (0x200, 0x1FF, 1, False), (0x103, 0x104, 0, False),
])
def test_INSTALL_manifest_svn__1_0_compares_16_bits(new: int, running: int, scenario: int, stops: bool) -> None:
    state = _manifest("1.0", seam_major_svn=new >> 8, seam_minor_svn=new & 0xFF)
    state = replace(state, seam_major_svn=running >> 8, seam_minor_svn=running & 0xFF, scenario=scenario)
    assert bool(TABLES["INSTALL.manifest"]["INSTALL.manifest.svn"].stops(state)) is stops


BAD = 0x7E000000
PARAMS_EDGES: list[tuple[str, dict[str, Any], bool]] = [
    ("version", {"version": 1}, True), ("reserved", {"reserved": 1}, True),
    *(("scenario", {"scenario": value}, value > 1) for value in (0, 1, 2, 1 << 31)),
    *(("num_module_pages", {"num_module_pages": value}, value > 496) for value in (0, 495, 496, 497, 1 << 32)),
    ("page_pa", {"mod_pages_pa_list": [*PAGES, BAD]}, False),
    ("page_pa", {"mod_pages_pa_list": [*PAGES, BAD], "num_module_pages": 9}, True),
    ("page_pa", {"mod_pages_pa_list": [BAD, *PAGES[1:]]}, True),
    *(("sigstruct_pa", {"sigstruct_pa": at}, at % PAGE != 0 or at == BAD)
      for at in (0, 0x1000, 0x1001, 0x1800, 0x1FFF, BAD)),
    *(("update_ready", {"scenario": scenario, "seam_ready": ready}, scenario == 1 and ready == 0)
      for scenario in (0, 1) for ready in (0, 1, 2)),
]


@pytest.mark.parametrize(("row", "fields", "stops"), PARAMS_EDGES)
def test_INSTALL_params__where_each_row_begins(row: str, fields: dict[str, Any], stops: bool) -> None:
    assert bool(TABLES["INSTALL.params"][f"INSTALL.params.{row}"].stops(_params(**fields))) is stops


@pytest.mark.parametrize(("row", "changes", "stops"), [
    *(("remaining", {"remaining": value}, value == 0) for value in (0, 1, 2, 0xFFFFFFFF)),
    *(("handoff_valid", {"valid": value}, value == 0) for value in (0, 1, 2, 0xFF)),
    *(("handoff_size", {"size": pages * PAGE + PAGE - 8 + by, "old_handoff_pages": pages}, by > 0)
      for pages in (0, 1, 2) for by in (-1, 0, 1)),
    ("handoff_size", {"size": 0xFFFFFFFFFFFFFFFF}, True),
    *(("handoff_hv_low", {"hv": value}, value < 2) for value in (1, 2, 3)),
    *(("handoff_hv_high", {"hv": value}, value > 2) for value in (1, 2, 3)),
])
def test_INSTALL_update__where_each_row_begins(row: str, changes: dict[str, int], stops: bool) -> None:
    assert bool(TABLES["INSTALL.update"][f"INSTALL.update.{row}"].stops(replace(UPDATE, **changes))) is stops


@pytest.mark.parametrize(("digest", "stops"), [(b"a" * 48, True), (b"b" * 48, False), (b"c" * 48, True)])
def test_INSTALL_hash__any_other_digest_stops(digest: bytes, stops: bool) -> None:
    assert bool(TABLES["INSTALL.hash"]["INSTALL.hash.seamhash"].stops(HashState(digest, b"b" * 48))) is stops


@pytest.mark.parametrize("status", [0, 1, 2, 3])
def test_INSTALL_seamdb__only_no_entropy_is_a_status(status: int) -> None:
    assert TABLES["INSTALL.seamdb"]["INSTALL.seamdb.entropy"].stops(status) == (status == 2)


def test_INSTALL_lp_repeated__each_processor_has_its_own_bit() -> None:
    for lpid in (0, 7, 8, 9, 1023):
        state = _lp(lpid, member=True)
        assert state.in_session()
        for other in {(lpid + 1) % 1024, (lpid + 8) % 1024, lpid - 1 if lpid else 8}:
            assert not replace(state, lpid=other).in_session()


def test_INSTALL_manifest__an_image_without_pages_lets_offsets_wrap() -> None:
    empty = replace(_manifest(), num_module_pages=0)
    rows = TABLES["INSTALL.manifest"]
    assert not rows["INSTALL.manifest.gdt_idt_bound"].stops(empty)
    assert not rows["INSTALL.manifest.fault_wrapper_bound"].stops(empty)


def test_lab_is_the_platform_of_these_examples() -> None:
    assert lab.SEAMRR.base == VALUES.seamrr_base and lab.SEAMRR.size == VALUES.seamrr_size
