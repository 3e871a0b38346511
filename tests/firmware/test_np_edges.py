"""Where each row of NP-SEAMLDR begins: both sides of every edge, asked with the facts in place of a launch."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from seamref.arch import msr
from seamref.arch.lp import CR4_LA57
from seamref.firmware.np_seamldr import TABLES, NpState, NpStatus, Returned, checks, main
from seamref.firmware.np_seamldr.state import MIB2, Fatal

GIB = 1 << 30
ROWS = {row.id.removeprefix("NP_SEAMLDR."): row for table in TABLES for row in table}


def run_of(msrs: dict[int, int] | None = None, table: dict[str, int] | None = None, **facts: Any) -> Any:
    """A run of NP-SEAMLDR that is nothing but what the rows ask about."""
    values, names = msrs or {}, table or {}
    lp = SimpleNamespace(**{name: facts.pop(name) for name in ("rax", "r10") if name in facts})
    state = {name: facts.pop(name) for name in list(facts) if name in NpState.__dataclass_fields__}
    return SimpleNamespace(lp=lp, state=NpState(**state), rdmsr=lambda address: values.get(address, 0),
                           table=lambda name: names.get(name, 0), is_10=facts.pop("is_10", False), **facts)


@pytest.mark.parametrize(("row", "facts", "stops"), [
    *(("eax", {"rax": rax}, rax & 0xFFFFFFFF != 2) for rax in (0, 1, 2, 3, 1 << 32 | 2, 1 << 32 | 3)),
    *(("bios_done", {"msrs": {msr.BIOS_DONE: value}}, not value & 1) for value in (0, 1, 2, 3)),
    *(("cookie", {"cookie": cookie}, cookie != (1, 1)) for cookie in ((0, 0), (0, 5), (1, 0), (1, 1))),
    *(("resume_rip", {"r10": at, "cr4": 0}, stops) for at, stops in (
        ((1 << 47) - 1, False), (1 << 47, True), ((1 << 64) - (1 << 47), False), ((1 << 64) - (1 << 47) - 1, True))),
    *(("resume_rip", {"r10": at, "cr4": CR4_LA57}, stops) for at, stops in (
        ((1 << 56) - 1, False), (1 << 56, True), ((1 << 64) - (1 << 56), False), ((1 << 64) - (1 << 56) - 1, True))),
    *(("valid", {"msrs": {msr.SEAMRR_MASK: value}}, not value & 0x800) for value in (0, 0x400, 0x800, 0xC00, 0x7FF)),
    *(("map_sysinfo", {"maps_4k": count}, count >= 512) for count in (0, 511, 512, 513)),
    *(("size", {"size": size}, size > GIB) for size in (0, GIB - 1, GIB, GIB + MIB2)),
    *(("map_seamrr", {"size": pages * MIB2, "maps_2m": used}, pages + used > 512)
      for pages, used in ((512, 0), (511, 1), (512, 1), (511, 2), (0, 512), (0, 513))),
    ("map_seamrr", {"size": 512 * MIB2 + MIB2 - 1, "maps_2m": 0}, False),
    *(("sockets", {"table": {"tot_num_sockets": count}}, not 1 <= count <= 8) for count in (0, 1, 2, 8, 9)),
    *(("version", {"table": {"version": value}}, value != 0) for value in (0, 1, 0xFFFF)),
    *(("same_model", {"table": {"tot_num_sockets": 3, "socket_cpuid_table[0]": 0x806F8,
                                f"socket_cpuid_table[{1}]": first, "socket_cpuid_table[2]": second,
                                "socket_cpuid_table[3]": 0}}, stops)
      for first, second, stops in ((0x806F8, 0x806F0, False), (0x806FF, 0x806F8, False), (0x806E8, 0x806F8, True),
                                   (0x806F8, 0x806E8, True), (0x906F8, 0x806F8, True), (0x806F8, 0, True))),
    *(("mutex", {"failed": failed}, failed) for failed in (False, True)),
    *(("same_lp", {"table": {"acm_x2apicid_valid": valid, "acm_x2apicid": lp}, "x2apic_id": lambda: 4},
       valid == 1 and lp != 4) for valid in (0, 1, 2) for lp in (3, 4, 5)),
    *(("p_seamldr_ready", {"seamextend": lambda value=value: SimpleNamespace(p_seamldr_ready=value)}, value != 0)
      for value in (0, 1, 2)),
    *(("seam_ready", {"seamextend": lambda value=value: SimpleNamespace(seam_ready=value)}, value != 0)
      for value in (0, 1, 2)),
    *(("aslr", {"seed": seed}, seed[0] == 0) for seed in ((0, 5), (1, 0), (1, 5))),
    *((name, {"selectors": (cs, 1, 2, 3, ss), "is_10": is_10}, stops and not is_10)
      for is_10 in (False, True) for name, cs, ss, stops in (
          ("cs_null", 0, 0x18, True), ("cs_null", 8, 0x18, False), ("ss_is_cs", 8, 8, True),
          ("ss_is_cs", 8, 0x10, False), ("ss_is_cs", 0, 0, False), ("ss_is_cs", 0x10, 8, False))),
])
def test_NP_SEAMLDR__where_each_row_begins(row: str, facts: dict[str, Any], stops: bool) -> None:
    assert bool(ROWS[row].stops(run_of(**facts))) is stops


@pytest.mark.parametrize(("size", "room", "source", "target", "row"), [
    (100, 100, 5000, 1000, None), (101, 100, 5000, 1000, "image_size"), (100, 101, 5000, 1000, None),
    (100, 100, (1 << 64) - 101, 1000, None), (100, 100, (1 << 64) - 100, 1000, "image_wraps"),
    (100, 200, 5000, (1 << 64) - 201, None), (100, 200, 5000, (1 << 64) - 200, "image_wraps"),
    (100, 200, 1200, 1000, None), (100, 200, 1199, 1000, "image_overlaps"), (100, 200, 900, 1000, None),
    (100, 200, 901, 1000, "image_overlaps"), (100, 200, 1000, 1000, "image_overlaps"),
])
def test_NP_SEAMLDR_copy_image__sizes_and_overlap_to_the_byte(
    size: int, room: int, source: int, target: int, row: str | None
) -> None:
    run = run_of(build=SimpleNamespace(image_size=size), consts=SimpleNamespace(CCodeRgnSize=room), image_source=source,
                 code=target)
    found = checks.NP_COPY.decide(run)
    assert (found.id if found else None) == (None if row is None else f"NP_SEAMLDR.{row}")


def test_NP_SEAMLDR_run__status_numbers_are_the_published_ones() -> None:
    assert {status.name: int(status) for status in NpStatus} == {
        "SUCCESS": 0, "EBADPARAM": 1 << 63, "EMODBUSY": 1 << 63 | 1, "ELDRINPROG": 1 << 63 | 2,
        "EBADRANGE": 1 << 63 | 1 << 16, "EBADPLATF": 1 << 63 | 1 << 16 | 1, "ENOMEM": 1 << 63 | 1 << 16 | 2,
        "EUNSPECERR": 1 << 63 | 1 << 16 | 3,
    }
    assert str(Returned(NpStatus.ENOMEM, "x")) == "R9 = ENOMEM (0x8000000000010002)"
    assert str(Fatal("why")) == "UD2: reset" and "UD2" not in str(ROWS["cs_null"].result)


@pytest.mark.parametrize(("mask", "bits", "width", "size"), [
    (0x3FFFFC000000, 0, 46, 0x4000000), (0x3FFFFC000000, 6, 52, 0x4000000), (0x3FFFFC000000, 0, 52, 0xFC00004000000),
    (0x3FFFFC000000, 5, 52, 0x400004000000), (0x3FFFF8000000, 6, 52, 0x8000000), (0x3FFFFFFFFFFF, 0, 46, 1),
    (0, 0, 46, 1 << 46),
])
def test_NP_SEAMLDR_size_10__the_complement_of_the_mask(mask: int, bits: int, width: int, size: int) -> None:
    field = msr.bits(msr.TME_ACTIVATE, "tdx_reserved_keyid_bits")
    lowest = (field.mask & -field.mask).bit_length() - 1
    run = run_of({msr.TME_ACTIVATE: bits << lowest}, physmask=(1 << width) - 1)
    assert main._size_10(run, mask) == size
