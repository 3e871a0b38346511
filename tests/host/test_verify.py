"""verify: the loader's rows walked over a file; and the real modules, if they are at hand."""

from __future__ import annotations

import os
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seamref import mint
from seamref.errors import SeamrefError
from seamref.host.image import TDX_BLOB_V1, V1, V2, check_image, convert, parse
from seamref.host.inspection import inspect_file
from seamref.host.releases import RELEASES, Release
from seamref.host.verify import MIB, Target, Verification, plan_lines, read_reserved3, verify
from seamref.pseamldr.api import Scenario, Status
from seamref.pseamldr.elf import Relocated, relocate
from seamref.pseamldr.manifest import INSTALL_MANIFEST
from seamref.pseamldr.sigstruct import PRODUCTION_KEY_HASH, SEAM_SIGSTRUCT, image_hash, key_hash

IMAGE = mint.module_image()
TARGET = Target(sockets=1, lps=2, signer_key_hash=mint.KEY.key_hash)
UPDATE = replace(TARGET, scenario=Scenario.UPDATE, running_svn=(1, 5))


def walked(target: Target = TARGET, image: bytes = IMAGE, **fields: Any) -> Verification:
    return verify(mint.sigstruct(image, **fields), image, target)


def stopped(found: Verification) -> str:
    assert found.stopped is not None
    return found.stopped.id


def test_a_good_module_passes_every_row_and_gets_a_plan() -> None:
    found = walked()
    assert found.accepted
    assert found.stopped is None
    assert found.plan is not None
    ids = [asked.id for asked in found.path]
    assert [row.id for row in INSTALL_MANIFEST if row.id in ids] == [id for id in ids if id.startswith("INSTALL.man")]
    assert ids[-1] == "INSTALL.relocation.elf"


@pytest.mark.parametrize(("target", "fields", "row", "status"), [
    (TARGET, {"header_type": 7}, "INSTALL.manifest.header_type", Status.EBADSIG),
    (TARGET, {"reserved3": 1}, "INSTALL.manifest.reserved3", Status.EBADSIG),
    (TARGET, {"key": mint.OTHER_KEY}, "INSTALL.manifest.signer_key", Status.EBADSIG),
    (TARGET, {"module_type": 1 << 31}, "INSTALL.manifest.debug", Status.EBADSIG),
    (UPDATE, {"seamsvn": 0x0205}, "INSTALL.manifest.major_svn", Status.EBADCALL),
    (UPDATE, {"seamsvn": 0x0104}, "INSTALL.manifest.minor_svn", Status.EBADSIG),
    (replace(TARGET, fms=(0xA06D1,)), {}, "INSTALL.manifest.cpuid", Status.EUNSUPCPU),
    (TARGET, {"cpuid_table_size": 0}, "INSTALL.manifest.cpuid_mandatory", Status.EBADSIG),
    (TARGET, {"resign": False, "date": 1}, "INSTALL.manifest.signature", Status.EBADSIG),
    (replace(UPDATE, running_svn=None), {}, "INSTALL.params.update_ready", Status.EBADPARAM),
    (TARGET, {"num_global_data_pages": 65535}, "INSTALL.memory.size", Status.ENOMEM),
    (replace(UPDATE, remaining=0), {}, "INSTALL.update.remaining", Status.EBADCALL),
    (replace(UPDATE, running_hv=3), {}, "INSTALL.update.handoff_hv_high", Status.EBADHANDOFF),
])
def test_what_stops_while_the_old_module_still_runs(target: Target, fields: dict[str, Any], row: str,
                                                    status: Status) -> None:
    found = walked(target, **fields)
    assert (stopped(found), found.status, int(found.rdx)) == (row, status, 0)


def test_what_stops_when_the_old_module_is_gone() -> None:
    found = walked(seamhash=bytes(48))
    assert (stopped(found), found.status, int(found.rdx)) == ("INSTALL.hash.seamhash", Status.EBADHASH, 1)
    broken = mint.module_image(relocations=[mint.elf.Relocation(0, 0, info=7)])
    found = walked(image=broken)
    assert (stopped(found), found.status, int(found.rdx)) == ("INSTALL.relocation.elf", Status.EBADPARAM, 1)


def test_the_four_stages_at_the_edge_of_memory() -> None:
    """SUCCESS, shutdown, ENOMEM with RDX = 1, ENOMEM with RDX = 0, as one size grows."""
    target = replace(TARGET, lps=1, seamrr_size=32 * MIB, p_seamldr_range_size=2 * MIB)
    seen = []
    for pages in range(7100, 7200):
        found = walked(target, num_global_data_pages=pages, num_keyhole_pages=1)
        stage = "fatal" if found.fatal else f"{found.status.name} {int(found.rdx)}"
        if stage not in seen:
            seen.append(stage)
    assert seen[0] == "SUCCESS 0"
    assert seen[-1] == "ENOMEM 0"
    assert "ENOMEM 1" in seen


def test_a_debug_part_runs_what_is_debug_signed() -> None:
    assert walked(replace(TARGET, debug_unlocked=True), module_type=1 << 31, cpuid_table_size=0).accepted


def test_VERIFY_loader_2__lets_reserved3_through_and_says_that_it_is_inferred() -> None:
    found = walked(replace(TARGET, seamldr="2.0.00"), reserved3=0x0300_031F_0200_0005)
    assert found.accepted
    assert "not published" in found.notes[0]


def test_reserved3_reads_as_a_version() -> None:
    data = mint.sigstruct(IMAGE, reserved3=bytes.fromhex("05000002 5f0308".replace(" ", "")).ljust(24, b"\0"))
    assert read_reserved3(data) == "version 2.0.05 build 863, byte 1006 is 0x08"
    assert read_reserved3(mint.sigstruct(IMAGE)) == ""
    notes = verify(data, IMAGE, TARGET).notes
    assert notes[0].startswith("reserved3 is bytes 1000 to 1023; not zero are 1000: 05, 1003: 02, 1004: 5F")
    assert "P-SEAMLDR 2.0 is required" in notes[2]


def test_the_worked_example_of_two_sockets_with_128_processors() -> None:
    """75 table pages are counted, 80 are used: with exactly the minimum the map step fails."""
    found = walked(Target(signer_key_hash=mint.KEY.key_hash), image=mint.module_image("1.5.01", pages=102))
    assert found.plan is not None
    assert (found.plan.minimum_size, found.plan.paging_structure_size, found.tables) == (0x870000, 0x4B000, 80)


def test_plan_lines_leave_no_hole() -> None:
    found = walked()
    assert found.plan is not None
    lines = plan_lines(found.plan, found.tables)
    for (_, at, size, _), (name, follows, _, _) in pairwise(lines):
        if name != "P_SEAMLDR_RANGE":
            assert at + size == follows


@pytest.mark.parametrize(("fields", "says"), [
    ({"sockets": 9}, "Topology.sockets: 9"), ({"lps": 0}, "Topology.lps_per_socket: 0"),
    ({"seamrr_size": 33 * MIB}, "SEAMRR: 0x"), ({"p_seamldr_range_size": 256 * MIB}, "P_SEAMLDR_RANGE: 0x"),
    ({"seamldr": "3.0.00"}, "Target.seamldr: '3.0.00'"),
])
def test_a_platform_that_cannot_be_is_said(fields: dict[str, Any], says: str) -> None:
    with pytest.raises(SeamrefError, match=says):
        Target(**fields)


def test_half_a_sigstruct_is_the_callers_mistake() -> None:
    with pytest.raises(SeamrefError, match="SEAM_SIGSTRUCT: 100 bytes"):
        verify(bytes(100), IMAGE, TARGET)


@settings(max_examples=80, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2047), st.binary(min_size=1, max_size=8)), max_size=4), st.booleans(),
       st.sampled_from(["1.0.00", "1.5.00", "2.0.00"]))
def test_any_sigstruct_gets_a_status(patches: list[tuple[int, bytes]], update: bool, seamldr: str) -> None:
    data = bytearray(mint.sigstruct(IMAGE))
    for at, patch in patches:
        data[at : at + len(patch)] = patch[: 2048 - at]
    found = verify(bytes(data), IMAGE, replace(UPDATE if update else TARGET, seamldr=seamldr))
    assert found.status in Status
    assert found.accepted == (found.status is Status.SUCCESS and not found.fatal)


# --- the real ones


REAL = os.environ.get("SEAMREF_REAL_MODULES")
real = pytest.mark.skipif(
    not REAL, reason="set SEAMREF_REAL_MODULES to a checkout of intel/tdx-module-binaries to compare what was measured"
)
each = pytest.mark.parametrize("release", RELEASES.values(), ids=lambda r: r.version)


def files(release: Release) -> tuple[bytes, bytes, bytes]:
    """(module, sigstruct, published blob)."""
    root, line, name = Path(REAL or ""), release.version[:3], f"tdx_module_{release.version}"
    apart = root / "separate_files" / line / release.version
    return ((apart / f"{name}.bin").read_bytes(), (apart / f"{name}.sigstruct").read_bytes(),
            (root / "joined_files" / line / f"{name}.blob").read_bytes())


@real
@each
def test_the_measured_figures_are_those_of_the_files(release: Release) -> None:
    image, sigstruct, blob = files(release)
    held = SEAM_SIGSTRUCT.decode(sigstruct)
    assert image_hash(image).hex() == release.seamhash == held.seamhash.hex()
    assert key_hash(held.modulus) == PRODUCTION_KEY_HASH
    assert (f"{held.date:08X}", held.seam_major_svn << 8 | held.seam_minor_svn) == (str(release.date), release.seamsvn)
    for name in ("rip_offset", "gdt_idt_offset", "fault_wrapper_offset", "num_handoff_pages", "num_global_data_pages",
                 "module_hv", "min_update_hv", "no_downgrade"):
        assert held[name] == getattr(release, name), name
    assert tuple(held.cpuid_table[: held.cpuid_table_size]) == release.cpuids
    assert len(image) == release.pages * 4096
    assert len(blob) == release.blob_size
    assert TDX_BLOB_V1.peek(blob, "checksum") == release.blob_checksum
    assert held.reserved3.hex().startswith(release.reserved3)
    assert isinstance(relocate(bytearray(image), 0xFFFF800000000000), Relocated)


@real
@each
def test_published_files_convert_without_loss_and_then_suit_the_merged_kernel(release: Release) -> None:
    image, sigstruct, blob = files(release)
    taken_apart = parse(blob)
    assert (taken_apart.module, taken_apart.sigstruct) == (image, sigstruct)
    there = convert(blob, V2)
    assert convert(there, V1) == blob
    assert type(check_image(blob)).__name__ == "ImageRefused"
    assert type(check_image(there)).__name__ == "ImageTaken"


@real
@each
def test_released_modules_under_each_loader(release: Release) -> None:
    image, sigstruct, _ = files(release)
    target = Target(fms=release.cpuids[:1])
    found = verify(sigstruct, image, target)
    if release.version.startswith("1.5"):
        assert found.accepted
        return
    assert (stopped(found), found.status) == ("INSTALL.manifest.reserved3", Status.EBADSIG)
    assert f"version {release.version} build" in " ".join(found.notes)
    assert verify(sigstruct, image, replace(target, seamldr="2.0.00")).accepted


@real
@each
def test_every_published_file_is_inspected(release: Release) -> None:
    image, sigstruct, blob = files(release)
    for data, kind in ((image, "module"), (sigstruct, "sigstruct"), (blob, "blob")):
        found = inspect_file(data)
        assert found.kind == kind
        assert found.good == (kind == "module" or release.version.startswith("1.5"))


@real
def test_the_mapping_file_says_what_is_stored() -> None:
    from seamref.host.select import parse_mapping

    assert parse_mapping((Path(REAL or "") / "mapping_file.json").read_text(encoding="utf-8")) == RELEASES
