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


def test_INSTALL_manifest__an_image_without_pages_lets_offsets_wrap() -> None:
    empty = replace(_manifest(), num_module_pages=0)
    rows = TABLES["INSTALL.manifest"]
    assert not rows["INSTALL.manifest.gdt_idt_bound"].stops(empty)
    assert not rows["INSTALL.manifest.fault_wrapper_bound"].stops(empty)


def test_lab_is_the_platform_of_these_examples() -> None:
    assert lab.SEAMRR.base == VALUES.seamrr_base and lab.SEAMRR.size == VALUES.seamrr_size
