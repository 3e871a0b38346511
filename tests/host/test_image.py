"""TDX-BLOB: both formats, conversion without loss, and every row that some kernel checks, both ways and in order."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from seamref import mint
from seamref.errors import LayoutError, SeamrefError
from seamref.host.abi import Errno
from seamref.host.image import (
    FORMAT_V1,
    FORMAT_V2,
    KERNEL_V1,
    KERNEL_V2,
    KERNEL_V8,
    KERNEL_VERSIONS,
    PAGE,
    TDX_BLOB_V1,
    TDX_BLOB_V2,
    V1,
    V2,
    Header,
    ImageRefused,
    ImageTaken,
    build,
    check_image,
    checksum,
    convert,
    format_of,
    format_problems,
    kernel_table,
    parse,
)
from seamref.host.series import SERIES
from seamref.spec import COVERAGE

IMAGE = mint.module_image()
SIGSTRUCT = mint.sigstruct(IMAGE)
GOOD = {V1: build(SIGSTRUCT, IMAGE, V1), V2: build(SIGSTRUCT, IMAGE, V2)}
Change = Callable[[bytearray], None]


def v1(**fields: object) -> Change:
    def change(data: bytearray) -> None:
        for name, value in fields.items():
            TDX_BLOB_V1.poke(data, name, value)

    return change


def v2(**fields: object) -> Change:
    def change(data: bytearray) -> None:
        for name, value in fields.items():
            TDX_BLOB_V2.poke(data, name, value)

    return change


def cut(size: int) -> Change:
    def change(data: bytearray) -> None:
        del data[size:]

    return change


def both(*changes: Change) -> Change:
    def change(data: bytearray) -> None:
        for one in changes:
            one(data)

    return change


def summed(*changes: Change) -> Change:
    """A change, and the checksum of 1.0 made right again."""

    def change(data: bytearray) -> None:
        both(*changes)(data)
        TDX_BLOB_V1.poke(data, "checksum", 0)
        TDX_BLOB_V1.poke(data, "checksum", -checksum(data) & 0xFFFF)

    return change


def summed2(*changes: Change) -> Change:
    """The same for 2.0."""

    def change(data: bytearray) -> None:
        both(*changes)(data)
        TDX_BLOB_V2.poke(data, "checksum", 0)
        TDX_BLOB_V2.poke(data, "checksum", -checksum(data) & 0xFFFF)

    return change


def grown(size: int) -> Change:
    return lambda data: data.extend(bytes(size - len(data)))


def changed(version: int, change: Change) -> bytes:
    data = bytearray(GOOD[version])
    change(data)
    return bytes(data)


# --- the formats


def test_checksum__makes_every_word_sum_to_zero() -> None:
    assert checksum(GOOD[V1]) == checksum(GOOD[V2]) == 0
    assert checksum(b"\x01\x00\x02\x00") == 3
    assert checksum(b"\xff\xff\x02\x00\x05") == 6, "an odd last byte is a word with high byte 0"
    assert checksum(b"") == 0


def test_the_layout_of_1_0_is_that_of_published_files() -> None:
    header = TDX_BLOB_V1.decode(GOOD[V1])
    assert (header.version, header.offset_of_module, header.signature) == (0x100, 0x2000, b"TDX-BLOB")
    assert header.length == len(GOOD[V1]) == 0x2000 + len(IMAGE)
    assert GOOD[V1][0x1000:0x1800] == SIGSTRUCT
    assert not any(GOOD[V1][0x1800:0x2000])
    assert GOOD[V1][0x2000:] == IMAGE


def test_the_magic_tells_the_formats_apart() -> None:
    assert (format_of(GOOD[V1]), format_of(GOOD[V2]), format_of(IMAGE), format_of(b"")) == (V1, V2, None, None)
    assert (GOOD[V1].find(b"TDX-BLOB"), GOOD[V2].find(b"TDX-BLOB")) == (8, 4)


@pytest.mark.parametrize("version", [V1, V2])
def test_BLOB_convert__there_and_back_is_the_same_file(version: int) -> None:
    other = V1 + V2 - version
    there = convert(GOOD[version], other)
    assert there == GOOD[other]
    assert convert(there, version) == GOOD[version]
    assert convert(GOOD[version], version) == GOOD[version]
    assert parse(there).sigstruct == SIGSTRUCT
    assert parse(there).module == IMAGE


def test_a_longer_sigstruct_area_survives() -> None:
    area = SIGSTRUCT + bytes(3 * PAGE - 2048)
    made = build(area, IMAGE, V1)
    assert TDX_BLOB_V1.peek(made, "offset_of_module") == 4 * PAGE
    assert convert(convert(made, V2), V1) == made
    assert len(parse(made).area) == 3 * PAGE


FORMAT_CASES: dict[str, tuple[int, Change]] = {
    "BLOB1.size": (V1, cut(PAGE + 100)),
    "BLOB1.version": (V1, v1(version=0x101)),
    "BLOB1.signature": (V1, v1(signature=b"TDX-BLOC")),
    "BLOB1.length": (V1, v1(length=5)),
    "BLOB1.reserved": (V1, v1(reserved1=1)),
    "BLOB1.offset": (V1, v1(offset_of_module=0x2001)),
    "BLOB1.padding": (V1, lambda data: data.__setitem__(0x1FFF, 1)),
    "BLOB1.module": (V1, both(cut(0x2000), v1(length=0x2000))),
    "BLOB1.checksum": (V1, v1(checksum=1)),
    "BLOB2.size": (V2, cut(100)),
    "BLOB2.version": (V2, v2(version=0x100)),
    "BLOB2.signature": (V2, v2(signature=b"TDX-BLOC")),
    "BLOB2.length": (V2, v2(module_nr_pages=9)),
    "BLOB2.sigstruct": (V2, v2(sigstruct_nr_pages=0, module_nr_pages=9)),
    "BLOB2.module": (V2, both(cut(2 * PAGE), v2(module_nr_pages=0))),
    "BLOB2.reserved": (V2, v2(reserved=1)),
    "BLOB2.checksum": (V2, v2(checksum=1)),
}


def test_there_is_a_case_for_every_row_of_the_formats() -> None:
    assert [row.id for table in (FORMAT_V1, FORMAT_V2) for row in table] == list(FORMAT_CASES)


@pytest.mark.parametrize("id", FORMAT_CASES)
def test_each_format_row_decides_and_is_silent(id: str) -> None:
    version, change = FORMAT_CASES[id]
    data = changed(version, change)
    silent, decided = COVERAGE[id]
    parse(GOOD[version])
    if ".signature" in id:  # parse refuses a file without magic before any format's rules: the table itself decides
        row = (FORMAT_V1 if version == V1 else FORMAT_V2).decide(Header(data))
        assert row is not None and row.id == id == format_problems(data)[0].id
        assert COVERAGE[id] == [silent + 1, decided + 1]
        return
    with pytest.raises(LayoutError, match=rf"clause {id}\)"):
        parse(data)
    assert COVERAGE[id][0] > silent
    assert COVERAGE[id][1] == decided + 1


PAGES = 496 * PAGE
"""Bytes of the largest module."""
FORMAT_EDGES: list[tuple[int, Change, str | None]] = [
    (V1, both(cut(2 * PAGE - 1)), "BLOB1.size"),
    (V1, both(cut(2 * PAGE), v1(length=2 * PAGE)), "BLOB1.module"),
    *((V1, v1(version=value), "BLOB1.version") for value in (0, 0xFF, 0x101, 0x200)),
    *((V1, v1(signature=value), "BLOB1.signature") for value in (b"TDX-BLOA", b"TDX-BLOC")),
    *((V1, v1(length=len(GOOD[V1]) + by), "BLOB1.length") for by in (-1, 1)),
    *((V1, v1(**{name: 1}), "BLOB1.reserved") for name in ("reserved0", "reserved1")),
    *((V1, v1(offset_of_module=at), "BLOB1.offset") for at in (0, PAGE, 0x2001, 0x2FFF, len(GOOD[V1]) + PAGE)),
    (V1, v1(offset_of_module=len(GOOD[V1])), "BLOB1.padding"),
    (V1, lambda data: data.__setitem__(0x1800, 1), "BLOB1.padding"),
    (V1, summed(lambda data: data.__setitem__(0x17FF, 1), lambda data: data.__setitem__(0x2000, 1)), None),
    (V1, summed(grown(2 * PAGE + PAGES), v1(length=2 * PAGE + PAGES)), None),
    (V1, summed(grown(3 * PAGE + PAGES), v1(length=3 * PAGE + PAGES)), "BLOB1.module"),
    (V1, summed(cut(0x9FFF), v1(length=0x9FFF)), "BLOB1.module"),
    (V1, summed(cut(3 * PAGE), v1(length=3 * PAGE)), None),
    *((V1, v1(checksum=TDX_BLOB_V1.peek(GOOD[V1], "checksum") + by), "BLOB1.checksum") for by in (-1, 1)),
    (V2, cut(PAGE - 1), "BLOB2.size"),
    (V2, both(cut(PAGE), v2(sigstruct_nr_pages=0, module_nr_pages=0)), "BLOB2.sigstruct"),
    *((V2, v2(version=value), "BLOB2.version") for value in (0, 0x1FF, 0x201)),
    *((V2, v2(signature=value), "BLOB2.signature") for value in (b"TDX-BLOA", b"TDX-BLOC")),
    *((V2, v2(module_nr_pages=count), "BLOB2.length") for count in (7, 9)),
    (V2, cut(len(GOOD[V2]) - 1), "BLOB2.length"), (V2, grown(len(GOOD[V2]) + 1), "BLOB2.length"),
    (V2, summed2(grown(2 * PAGE + PAGES), v2(module_nr_pages=496)), None),
    (V2, summed2(grown(3 * PAGE + PAGES), v2(module_nr_pages=497)), "BLOB2.module"),
    (V2, summed2(v2(sigstruct_nr_pages=2, module_nr_pages=7)), None),
    *((V2, v2(checksum=TDX_BLOB_V2.peek(GOOD[V2], "checksum") + by), "BLOB2.checksum") for by in (-1, 1)),
]


@pytest.mark.parametrize(("version", "change", "clause"), FORMAT_EDGES)
def test_TDX_BLOB__where_each_rule_of_the_formats_begins(version: int, change: Change, clause: str | None) -> None:
    row = (FORMAT_V1 if version == V1 else FORMAT_V2).decide(Header(changed(version, change)))
    assert (row.id if row else None) == clause


def test_a_file_without_magic_is_no_blob() -> None:
    with pytest.raises(LayoutError, match=r"TDX_BLOB.signature at 0x8: .*no TDX-BLOB at offset 8"):
        parse(IMAGE)
    assert format_problems(IMAGE)


def test_a_wrong_checksum_can_be_overlooked() -> None:
    data = changed(V1, v1(checksum=0))
    assert parse(data, ignore_checksum=True).module == IMAGE
    with pytest.raises(LayoutError, match="checksum at 0x2"):
        parse(data)


@pytest.mark.parametrize(("sigstruct", "module", "version", "says"), [
    (b"", IMAGE, V1, "SEAM_SIGSTRUCT: 0 bytes"),
    (bytes(3000), IMAGE, V1, "SEAM_SIGSTRUCT: 3000 bytes"),
    (SIGSTRUCT, b"", V1, "TDX module: 0 bytes"),
    (SIGSTRUCT, IMAGE[:-1], V1, "whole pages"),
    (SIGSTRUCT, bytes(497 * PAGE), V2, "1 to 496"),
    (SIGSTRUCT, IMAGE, 0x300, "TDX_BLOB.version: 0x300"),
])
def test_what_no_file_can_hold_is_said(sigstruct: bytes, module: bytes, version: int, says: str) -> None:
    with pytest.raises(SeamrefError, match=says):
        build(sigstruct, module, version)


# --- the kernels


def taken(data: bytes, version: str) -> ImageTaken:
    outcome = check_image(data, version)
    assert isinstance(outcome, ImageTaken), outcome
    return outcome


def test_every_version_of_the_series_has_its_table() -> None:
    assert tuple(SERIES) == KERNEL_VERSIONS
    with pytest.raises(SeamrefError, match="no version 'v11'"):
        kernel_table("v11")


@pytest.mark.parametrize("version", KERNEL_VERSIONS)
def test_each_kernel_takes_its_own_format_and_refuses_the_other(version: str) -> None:
    own = V2 if version in ("v9", "v10", "merged") else V1
    outcome = taken(GOOD[own], version)
    assert outcome.sigstruct_pages == (PAGE,)
    assert outcome.module_pages == tuple(range(2 * PAGE, 10 * PAGE, PAGE))
    assert outcome.num_module_pages == 8
    refused = check_image(GOOD[V1 + V2 - own], version)
    assert isinstance(refused, ImageRefused)
    assert refused.errno is Errno.EINVAL


def test_a_published_file_fails_the_merged_kernel_at_the_length_already() -> None:
    assert check_image(GOOD[V1]) == ImageRefused(Errno.EINVAL, "", "IMAGE2.length")


def test_params_hold_the_physical_addresses() -> None:
    from seamref.pseamldr.api import SEAMLDR_PARAMS

    page = taken(GOOD[V2], "merged").params(lambda offset: 0x1_0000_0000 + offset)
    held = SEAMLDR_PARAMS.decode(page)
    assert (held.version, held.scenario, held.sigstruct_pa, held.num_module_pages) == (0, 1, 0x1_0000_1000, 8)
    assert held.mod_pages_pa_list[:9] == [0x1_0000_2000 + PAGE * i for i in range(8)] + [0]
    assert not any(held.reserved)


KERNEL_CASES: dict[str, list[tuple[str, int, Change]]] = {
    "IMAGE1.header_v4": [("v4", V1, cut(0x2000)), ("v4", V1, cut(4095))],
    "IMAGE1.header": [("v6", V1, cut(0x2000)), ("v7", V1, cut(4096)), ("v5", V1, v1(offset_of_module=0xFFFFFFFF))],
    "IMAGE1.version_v2": [("v2", V1, v1(version=0x200))],
    "IMAGE1.version": [(v, V1, v1(version=0x200)) for v in ("v3", "v4", "v5", "v6", "v7")],
    "IMAGE1.reserved": [(v, V1, v1(reserved0=1)) for v in ("v2", "v3", "v4", "v7")],
    "IMAGE1.sizes": [("v1", V1, v1(offset_of_module=0x1000)), ("v1", V1, cut(0x2000)), ("v6", V1, v1(length=1)),
                     ("v1", V1, v1(offset_of_module=0xFFF)), ("v2", V1, v1(offset_of_module=0xFFFFFFFF))],
    "IMAGE1.signature": [(v, V1, v1(signature=b"TDX-BLOC")) for v in ("v1", "v2", "v3", "v4", "v7")],
    "IMAGE1.checksum": [(v, V1, v1(checksum=0)) for v in ("v1", "v2", "v3")],
    "IMAGE1.module_pages": [
        (v, V1, summed(grown(499 * PAGE), v1(length=499 * PAGE))) for v in ("v1", "v2", "v3", "v4", "v5", "v6", "v7")],
    "IMAGE1.sigstruct_page": [(v, V1, summed(v1(offset_of_module=0x3000))) for v in ("v1", "v2")],
    "IMAGE1.sigstruct_pages": [(v, V1, summed(v1(offset_of_module=0x6000))) for v in ("v3", "v4", "v6", "v7")],
    "IMAGE1.alignment": [(v, V1, summed(cut(0x9FFF), v1(length=0x9FFF))) for v in ("v2", "v3", "v4", "v7")],
    "IMAGE8.header": [("v8", V1, cut(4096))],
    "IMAGE8.signature": [("v8", V1, v1(signature=bytes(8)))],
    "IMAGE8.offset": [("v8", V1, v1(offset_of_module=0x1000)), ("v8", V1, cut(0x2000))],
    "IMAGE8.alignment": [("v8", V1, v1(offset_of_module=0x2010))],
    "IMAGE8.version": [("v8", V1, v1(version=0x200))],
    "IMAGE8.reserved": [("v8", V1, v1(reserved1=1 << 4000))],
    "IMAGE2.header": [("v10", V2, cut(4095)), ("merged", V2, cut(0))],
    "IMAGE2.length": [("v9", V2, cut(4095)), ("merged", V2, cut(0x9000)), ("merged", V2, v2(module_nr_pages=1 << 31))],
    "IMAGE2.version": [(v, V2, v2(version=0x201)) for v in ("v9", "v10", "merged")],
    "IMAGE2.pages": [("v10", V2, v2(sigstruct_nr_pages=2, module_nr_pages=7)),
                     ("merged", V2, both(grown(499 * PAGE), v2(module_nr_pages=497))),
                     ("merged", V2, v2(module_nr_pages=(1 << 20) + 8))],
    "IMAGE2.signature": [(v, V2, v2(signature=b"TDX_BLOB")) for v in ("v9", "v10", "merged")],
    "IMAGE2.reserved": [(v, V2, v2(reserved=1)) for v in ("v9", "v10", "merged")],
}
def sized(size: int, **fields: object) -> Change:
    """A file of 1.0 of so many bytes that says so, with its checksum right."""
    return summed(cut(size), grown(size), v1(length=size, **fields))


KERNEL_EDGES: list[tuple[str, Change, str | None]] = [
    # (versions, change of a file of their format, the row that decides)
    ("v4", cut(PAGE - 1), "IMAGE1.header_v4"), ("v4", sized(PAGE, offset_of_module=PAGE - 1), "IMAGE1.sizes"),
    ("v4", v1(offset_of_module=len(GOOD[V1])), "IMAGE1.header_v4"),
    ("v4", v1(offset_of_module=len(GOOD[V1]) - 1), "IMAGE1.sigstruct_pages"),
    ("v5 v6 v7", sized(PAGE, offset_of_module=0), "IMAGE1.header"),
    ("v5 v6 v7", sized(PAGE + 1, offset_of_module=0), "IMAGE1.sizes"),
    ("v5 v6 v7", v1(offset_of_module=len(GOOD[V1])), "IMAGE1.header"),
    ("v5 v6 v7", v1(offset_of_module=len(GOOD[V1]) - 1), "IMAGE1.sigstruct_pages"),
    *(("v2", v1(version=value), "IMAGE1.version_v2") for value in (0xFF, 0x101)),
    *(("v3 v4 v5 v6 v7", v1(version=value), "IMAGE1.version") for value in (0xFF, 0x101)),
    *(("v2 v3 v4 v7", v1(**{name: 1}), "IMAGE1.reserved") for name in ("reserved0", "reserved1")),
    *(("v1 v2 v3 v5 v7", v1(length=len(GOOD[V1]) + by), "IMAGE1.sizes") for by in (-1, 1)),
    ("v1 v2 v3", sized(2 * PAGE), "IMAGE1.sizes"), ("v1", sized(2 * PAGE + 1), None),
    ("v1 v3", summed(v1(offset_of_module=PAGE)), "IMAGE1.sizes"),
    ("v1 v2", summed(v1(offset_of_module=PAGE + 1)), "IMAGE1.sigstruct_page"),
    ("v1 v2", summed(v1(offset_of_module=2 * PAGE - 1)), "IMAGE1.sigstruct_page"),
    ("v1 v2", summed(v1(offset_of_module=2 * PAGE + 1)), "IMAGE1.sigstruct_page"),
    *(("v1 v2 v3 v4 v7", summed(v1(signature=value)), "IMAGE1.signature") for value in (b"TDX-BLOA", b"TDX-BLOC")),
    *(("v1 v2 v3", v1(checksum=TDX_BLOB_V1.peek(GOOD[V1], "checksum") + by), "IMAGE1.checksum") for by in (-1, 1)),
    ("v1 v2 v3 v4 v5 v6 v7", sized(2 * PAGE + PAGES), None),
    ("v1 v2 v3 v4 v5 v6 v7", sized(2 * PAGE + PAGES + 1), "IMAGE1.module_pages"),
    ("v3 v4 v5 v6 v7", summed(v1(offset_of_module=5 * PAGE)), None),
    ("v3 v4 v5 v6 v7", summed(v1(offset_of_module=5 * PAGE + 1)), "IMAGE1.sigstruct_pages"),
    ("v3 v4 v7", sized(len(GOOD[V1]) + 16, offset_of_module=0x2010), "IMAGE1.alignment"),
    ("v3 v4 v7", sized(len(GOOD[V1]) + 16), "IMAGE1.alignment"),
    ("v5 v6 v7", both(cut(100), v1(offset_of_module=0)), "IMAGE1.header"), ("v8", cut(100), "IMAGE8.header"),
    ("v8", cut(PAGE), "IMAGE8.header"), ("v8", cut(PAGE + 1), "IMAGE8.offset"),
    *(("v8", v1(signature=value), "IMAGE8.signature") for value in (b"TDX-BLOA", b"TDX-BLOC")),
    ("v8", v1(offset_of_module=PAGE), "IMAGE8.offset"), ("v8", v1(offset_of_module=PAGE + 1), "IMAGE8.alignment"),
    ("v8", v1(offset_of_module=len(GOOD[V1])), "IMAGE8.offset"),
    ("v8", v1(offset_of_module=len(GOOD[V1]) - 1), "IMAGE8.alignment"),
    *(("v8", v1(version=value), "IMAGE8.version") for value in (0xFF, 0x101)),
    ("v10 merged", cut(PAGE - 1), "IMAGE2.header"), ("v9", cut(PAGE - 1), "IMAGE2.length"),
    ("v9 v10 merged", cut(len(GOOD[V2]) - 1), "IMAGE2.length"),
    ("v9 v10 merged", grown(len(GOOD[V2]) + 1), "IMAGE2.length"),
    *(("v9 v10 merged", v2(version=value), "IMAGE2.version") for value in (0x1FF, 0x201)),
    ("v10 merged", both(grown(2 * PAGE + PAGES), v2(module_nr_pages=496)), None),
    ("v10 merged", v2(sigstruct_nr_pages=1 << 20, module_nr_pages=9), "IMAGE2.pages"),  # the product is 0
    *(("v9 v10 merged", v2(signature=value), "IMAGE2.signature") for value in (b"TDX-BLOA", b"TDX-BLOC")),
]


@pytest.mark.parametrize(("version", "change", "clause"), [
    pytest.param(version, change, clause, id=f"{version}-{clause}-{i}")
    for i, (versions, change, clause) in enumerate(KERNEL_EDGES) for version in versions.split()
])
def test_IMAGE_check__where_each_row_of_the_kernels_begins(version: str, change: Change, clause: str | None) -> None:
    format = V2 if version in ("v9", "v10", "merged") else V1
    row = kernel_table(version).decide(Header(changed(format, change)), version)
    assert (row.id if row else None) == clause


@pytest.mark.parametrize(("offset", "size", "sig", "module"), [
    (0x2000, 0x5000, 0x1000, 0x3000), (0x1000, 0x5000, 0, 0x4000), (0xFFF, 0x5000, -1, 0x4001),
    (0x80000FFF, 0x1000, 0x7FFFFFFF, -0x7FFFFFFF), (0x80001000, 0x1000, -(1 << 31), -(1 << 31)),
])
def test_IMAGE1_sizes__differences_are_signed_32_bit_numbers(offset: int, size: int, sig: int, module: int) -> None:
    header = Header(changed(V1, v1(offset_of_module=offset)), length=size)
    assert (header.sig_size, header.module_size) == (sig, module)


def test_IMAGE_check__which_pages_the_kernel_lists() -> None:
    data = changed(V2, v2(sigstruct_nr_pages=2, module_nr_pages=7))
    assert taken(data, "v9") == ImageTaken(0, (PAGE,), tuple(PAGE * i for i in range(3, 10)), 7)
    assert taken(changed(V2, v2(sigstruct_nr_pages=0, module_nr_pages=9)), "merged") == ImageTaken(
        0, (), tuple(PAGE * i for i in range(1, 10)), 9)
    part = changed(V1, cut(0x9FFF))
    assert taken(part, "v8") == ImageTaken(0, (PAGE,), tuple(PAGE * i for i in range(2, 9)), 7)
    longer = build(SIGSTRUCT + bytes(5 * PAGE - 2048), IMAGE, V1)
    assert taken(longer, "v8") == ImageTaken(
        1, tuple(PAGE * i for i in range(1, 5)), tuple(PAGE * i for i in range(6, 14)), 8)
    two = build(SIGSTRUCT + bytes(2 * PAGE - 2048), IMAGE, V1)
    assert [taken(two, version).params_version for version in ("v4", "v5", "v6", "v7", "v8")] == [0, 1, 1, 1, 1]
    assert [taken(GOOD[V1], version).params_version for version in ("v4", "v5", "v6", "v7", "v8")] == [0] * 5


@pytest.mark.parametrize(("sigstruct", "module", "fits"), [
    (2047, 1, False), (2048, 1, True), (2049, 1, False), (PAGE - 1, 1, False), (PAGE, 1, True), (PAGE + 1, 1, False),
    (2048, 496, True), (2048, 497, False),
])
def test_BLOB_build__sizes_at_the_edges(sigstruct: int, module: int, fits: bool) -> None:
    for version in (V1, V2):
        if fits:
            held = parse(build(bytes(sigstruct), bytes(module * PAGE), version))
            assert (len(held.area), len(held.module)) == (PAGE, module * PAGE)
        else:
            with pytest.raises(SeamrefError, match=r"SEAM_SIGSTRUCT|TDX module"):
                build(bytes(sigstruct), bytes(module * PAGE), version)


MEMORY = {"IMAGE1.memory": ("v1", V1), "IMAGE8.memory": ("v8", V1), "IMAGE2.memory": ("merged", V2)}


def test_there_is_a_case_for_every_row_of_the_kernels() -> None:
    rows = {row.id for table in (KERNEL_V1, KERNEL_V8, KERNEL_V2) for row in table}
    assert rows == set(KERNEL_CASES) | set(MEMORY)


@pytest.mark.parametrize(("id", "version", "format", "change"), [
    pytest.param(id, *case, id=f"{id}-{case[0]}-{i}")
    for id, cases in KERNEL_CASES.items() for i, case in enumerate(cases)
])
def test_each_kernel_row_decides_and_is_silent(id: str, version: str, format: int, change: Change) -> None:
    silent, decided = COVERAGE[id]
    taken(GOOD[format], version)
    refused = check_image(changed(format, change), version)
    assert isinstance(refused, ImageRefused)
    assert (refused.clause, refused.errno) == (id, Errno.EINVAL)
    assert (COVERAGE[id][0] > silent, COVERAGE[id][1]) == (True, decided + 1)


@pytest.mark.parametrize("id", MEMORY)
def test_memory_can_run_out(id: str) -> None:
    version, format = MEMORY[id]
    assert check_image(GOOD[format], version, no_memory=True) == ImageRefused(Errno.ENOMEM, "", id)


def test_the_merged_kernel_allocates_before_it_looks_but_not_before_the_first_check() -> None:
    assert check_image(b"", "merged", no_memory=True).clause == "IMAGE2.header"  # type: ignore[union-attr]
    assert check_image(GOOD[V1], "merged", no_memory=True).clause == "IMAGE2.memory"  # type: ignore[union-attr]


MESSAGES = {
    ("v2", "version"): "unsupported blob version: 512", ("v3", "version"): "unsupported blob version: 200",
    ("v6", "version"): "unsupported blob version: 200", ("v7", "version"): "", ("v8", "version"): "",
    ("v7", "reserved0"): "", ("v7", "signature"): "", ("v4", "signature"): "invalid signature",
    ("v2", "reserved0"): "non-zero reserved fields", ("v1", "signature"): "invalid signature",
    ("v1", "checksum"): "invalid checksum", ("v8", "signature"): "",
}


@pytest.mark.parametrize(("version", "field"), MESSAGES)
def test_what_each_version_prints(version: str, field: str) -> None:
    value = {"version": 0x200, "reserved0": 1, "signature": bytes(8), "checksum": 0}[field]
    refused = check_image(changed(V1, v1(**{field: value})), version)
    assert isinstance(refused, ImageRefused)
    assert refused.message == MESSAGES[version, field]


TABLE_OF = {"v4": "IMAGE1", "merged": "IMAGE2", "v8": "IMAGE8"}


@settings(max_examples=120, deadline=None)
@given(st.sampled_from(sorted(TABLE_OF)), st.data())
def test_of_any_two_wrong_things_the_first_in_order_decides(version: str, data: st.DataObject) -> None:
    format = V2 if version == "merged" else V1
    single = [change for id, cases in KERNEL_CASES.items() for v, _, change in cases if v == version]
    chosen = data.draw(st.lists(st.sampled_from(single), min_size=2, max_size=2))
    try:
        blob = changed(format, both(*chosen))
    except LayoutError:
        assume(False)  # the first change cut away what the second would have changed
    outcome = check_image(blob, version)
    stopping = [row.id for row in kernel_table(version).all_stopping(Header(blob), version)]
    assert stopping[:1] == ([outcome.clause] if isinstance(outcome, ImageRefused) else [])


def test_a_header_only_file_passes_the_merged_kernel() -> None:
    """Both counts 0 in 4096 bytes: the running module is shut down before P-SEAMLDR can refuse it."""
    data = changed(V2, both(cut(PAGE), v2(sigstruct_nr_pages=0, module_nr_pages=0)))
    assert check_image(data) == ImageTaken(0, (), (), 0)


def test_no_kernel_since_v4_looks_at_the_checksum() -> None:
    for version in KERNEL_VERSIONS:
        format = V2 if version in ("v9", "v10", "merged") else V1
        layout = v2 if format == V2 else v1
        outcome = check_image(changed(format, layout(checksum=0x1234)), version)
        assert isinstance(outcome, ImageRefused) == (version in ("v1", "v2", "v3"))


def test_v1_rounds_the_last_page_up_and_v5_rounds_it_down() -> None:
    part = summed(cut(0x9800), v1(length=0x9800))
    assert taken(changed(V1, part), "v1").num_module_pages == 8
    assert taken(changed(V1, part), "v5").num_module_pages == 7


def test_v5_to_v8_say_params_version_1_for_a_longer_sigstruct() -> None:
    longer = build(SIGSTRUCT + bytes(2 * PAGE - 2048), IMAGE, V1)
    assert [taken(longer, v).params_version for v in ("v3", "v4", "v5", "v8")] == [0, 0, 1, 1]
    page = taken(longer, "v8").params(lambda offset: offset)
    assert page[8:24] == (PAGE).to_bytes(8, "little") + (2 * PAGE).to_bytes(8, "little")


def test_v8_leaves_surplus_pages_out_and_v9_still_counts_them() -> None:
    assert taken(changed(V1, grown(600 * PAGE)), "v8").num_module_pages == 496
    many = taken(changed(V2, both(grown(600 * PAGE), v2(module_nr_pages=598))), "v9")
    assert (many.num_module_pages, len(many.module_pages)) == (598, 496)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200), st.integers(0, 5000), st.integers(0, 3), st.sampled_from(KERNEL_VERSIONS))
def test_any_bytes_get_an_outcome(patch: bytes, size: int, at: int, version: str) -> None:
    data = bytearray(GOOD[V2 if size % 2 else V1][:size])
    data[4 * at : 4 * at + len(patch)] = patch
    assert isinstance(check_image(bytes(data), version), ImageTaken | ImageRefused)
    format_problems(data)
    with suppress(SeamrefError):
        parse(data)
