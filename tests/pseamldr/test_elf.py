"""ELF checks and relocation: each row both ways, the order, what stays behind, and bytes of any kind."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seamref import mint
from seamref.errors import SeamrefError
from seamref.mint.elf import Relocation
from seamref.pseamldr.elf import (
    ELF64_EHDR,
    ELF64_RELA,
    ELF64_SHDR,
    ELF_HEADER,
    ELF_RELA_SECTION,
    ELF_RELOCATION,
    ELF_SECTION,
    PAGE,
    SHT_RELA,
    ElfFatal,
    ElfRefused,
    Relocated,
    relocate,
)
from seamref.spec import COVERAGE

BASE = 0xFFFF800000000000 | 0x1234 << 34
TABLES = (ELF_HEADER, ELF_SECTION, ELF_RELA_SECTION, ELF_RELOCATION)
SHDR = 0x100  # where the mint puts section headers
RELA = 0x300
RELA_SHDR = SHDR + 2 * ELF64_SHDR.size


def image(pages: int = 4, **fields: object) -> bytearray:
    return bytearray(mint.module_image(pages=pages, **fields))  # type: ignore[arg-type]


def poked(layout: object, name: str, value: object, base: int) -> Callable[[bytearray], None]:
    return lambda data: layout.poke(data, name, value, base)  # type: ignore[attr-defined]


SIZE = 4 * PAGE
CASES: dict[str, Callable[[bytearray], None]] = {
    "ELF.magic": poked(ELF64_EHDR, "magic", b"\x7fELG", 0),
    "ELF.class": poked(ELF64_EHDR, "class", 1, 0),
    "ELF.data": poked(ELF64_EHDR, "data", 2, 0),
    "ELF.version": poked(ELF64_EHDR, "ident_version", 0, 0),
    "ELF.section": poked(ELF64_EHDR, "e_shoff", SIZE - 63, 0),
    "ELF.entsize": poked(ELF64_SHDR, "sh_entsize", 0, RELA_SHDR),
    "ELF.rela": poked(ELF64_SHDR, "sh_addr", SIZE - 23, RELA_SHDR),
    "ELF.r_info": poked(ELF64_RELA, "r_info", 8 | 1 << 32, RELA),
    "ELF.r_offset": poked(ELF64_RELA, "r_offset", SIZE - 7, RELA),
    "ELF.r_addend": poked(ELF64_RELA, "r_addend", SIZE, RELA),
}


def test_there_is_a_case_for_every_row() -> None:
    assert [row.id for table in TABLES for row in table] == list(CASES)


@pytest.mark.parametrize("id", CASES)
def test_each_row_decides_and_is_silent_on_a_good_image(id: str) -> None:
    before = list(COVERAGE[id])
    good, bad = image(), image()
    assert isinstance(relocate(good, BASE), Relocated)
    CASES[id](bad)
    refused = relocate(bad, BASE)
    assert isinstance(refused, ElfRefused)
    assert (refused.clause, refused.count) == (id, 0)
    assert COVERAGE[id][0] > before[0]
    assert COVERAGE[id][1] == before[1] + 1


@pytest.mark.parametrize("first", range(4))
def test_header_rows_decide_in_order(first: int) -> None:
    data = image()
    for id in list(CASES)[first:4]:
        CASES[id](data)
    assert relocate(data, BASE).clause == list(CASES)[first]  # type: ignore[union-attr]


def test_edges_that_are_still_inside() -> None:
    last = image(relocations=[Relocation(SIZE - 8, SIZE - 1)])
    assert relocate(last, BASE) == Relocated(1)
    assert last[-8:] == (BASE + SIZE - 1).to_bytes(8, "little")
    moved = image()
    moved[-64:] = bytes(64)
    ELF64_EHDR.poke(moved, "e_shoff", SIZE - 64)
    ELF64_EHDR.poke(moved, "e_shnum", 1)
    assert relocate(moved, BASE) == Relocated(0)


def test_ELF_relocate__stores_load_address_plus_addend() -> None:
    data = image(relocations=[Relocation(0x3000 + 8 * i, 0x10 * i) for i in range(20)], gdt_idt=False)
    assert relocate(data, BASE) == Relocated(20)
    stored = [int.from_bytes(data[0x3000 + 8 * i : 0x3008 + 8 * i], "little") for i in range(20)]
    assert stored == [BASE + 0x10 * i for i in range(20)]


def test_ELF_relocate__what_was_written_before_a_refusal_stays() -> None:
    entries = [Relocation(0x3000, 1), Relocation(0x3008, 2), Relocation(0x3010, 3, info=7)]
    data = image(relocations=entries, gdt_idt=False)
    refused = relocate(data, BASE)
    assert isinstance(refused, ElfRefused)
    assert (refused.clause, refused.at, refused.count) == ("ELF.r_info", RELA + 48, 2)
    assert data[0x3000:0x3010] == (BASE + 1).to_bytes(8, "little") + (BASE + 2).to_bytes(8, "little")


def test_relocations_are_found_by_address_not_by_file_offset() -> None:
    data = image()
    ELF64_SHDR.poke(data, "sh_offset", 0xFFFF_FFFF_FFFF, RELA_SHDR)
    assert isinstance(relocate(data, BASE), Relocated)


def test_sections_of_another_type_are_skipped_whatever_they_say() -> None:
    data = image()
    ELF64_SHDR.poke(data, "sh_type", SHT_RELA + 1, RELA_SHDR)
    ELF64_SHDR.poke(data, "sh_entsize", 0, RELA_SHDR)
    assert relocate(data, BASE) == Relocated(0)


def test_section_offsets_wrap_at_64_bits() -> None:
    data = image()
    ELF64_EHDR.poke(data, "e_shoff", (1 << 64) - ELF64_SHDR.size)
    ELF64_EHDR.poke(data, "e_shnum", 1)
    assert relocate(data, BASE).clause == "ELF.section"  # type: ignore[union-attr]
    ELF64_EHDR.poke(data, "e_shentsize", 0)
    ELF64_EHDR.poke(data, "e_shoff", SHDR + 2 * ELF64_SHDR.size)
    ELF64_EHDR.poke(data, "e_shnum", 3)
    assert relocate(data, BASE) == Relocated(24), "the same header three times"


def test_the_same_header_65535_times_takes_no_time() -> None:
    data = image()
    ELF64_EHDR.poke(data, "e_shentsize", 0)
    ELF64_EHDR.poke(data, "e_shoff", RELA_SHDR)
    ELF64_EHDR.poke(data, "e_shnum", 0xFFFF)
    assert relocate(data, BASE) == Relocated(8 * 0xFFFF)


def test_rest_of_a_division_is_left_out() -> None:
    data = image()
    ELF64_SHDR.poke(data, "sh_size", 24 * 8 + 23, RELA_SHDR)
    assert relocate(data, BASE) == Relocated(8)


def test_a_relocation_can_change_the_ones_behind_it() -> None:
    """Tables are read from the memory that is patched: the first entry spoils r_info of the second."""
    data = image(relocations=[Relocation(RELA + 24 + 8, 5), Relocation(0x3000, 1)], gdt_idt=False)
    refused = relocate(data, BASE)
    assert isinstance(refused, ElfRefused)
    assert (refused.clause, refused.count) == ("ELF.r_info", 1)


def test_ELF_divide__a_relocation_that_zeroes_its_own_entsize_is_a_divide_error() -> None:
    at = RELA_SHDR + ELF64_SHDR.offset_of("sh_entsize")
    # Zeros of B + 0 lie at its bytes 0 to 3 for a load address without randomisation; the last store leaves 0 only.
    data = image(relocations=[Relocation(at - 4, 0x80)] + [Relocation(at + i, 0) for i in range(8)], gdt_idt=False)
    outcome = relocate(data, 0)
    assert isinstance(outcome, ElfFatal)
    assert outcome.at == RELA_SHDR


def test_an_image_without_pages_has_no_magic() -> None:
    assert relocate(bytearray(), BASE).clause == "ELF.magic"  # type: ignore[union-attr]


def test_half_a_page_is_the_callers_mistake() -> None:
    with pytest.raises(SeamrefError, match="100 bytes, must be whole pages"):
        relocate(bytearray(100), BASE)


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2), st.binary(max_size=256), st.integers(0, 0x400))
def test_any_bytes_get_an_outcome(pages: int, patch: bytes, at: int) -> None:
    data = image(2)[: pages * PAGE]
    end = min(at + len(patch), len(data))
    if at < end:
        data[at:end] = patch[: end - at]
    size = len(data)
    assert isinstance(relocate(data, BASE), Relocated | ElfRefused | ElfFatal)
    assert len(data) == size


FIELDS = [(layout, f.name, base) for layout, base in ((ELF64_EHDR, 0), (ELF64_SHDR, RELA_SHDR), (ELF64_RELA, RELA))
          for f in layout.fields if f.type.size in (2, 4, 8)]
NUMBERS = st.sampled_from([0, 1, 7, 8, 24, 64, SIZE - 64, SIZE - 24, SIZE - 8, SIZE, SIZE + 1, 0xFFFF, 1 << 31,
                           1 << 63, (1 << 64) - 64, (1 << 64) - 1])


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(FIELDS), NUMBERS), max_size=5))
def test_any_edges_in_any_fields_get_an_outcome(changes: list[tuple[tuple[object, str, int], int]]) -> None:
    data = image()
    for (layout, name, base), value in changes:
        size = layout.field(name).type.size  # type: ignore[attr-defined]
        layout.poke(data, name, value & ((1 << 8 * size) - 1), base)  # type: ignore[attr-defined]
    assert isinstance(relocate(data, BASE), Relocated | ElfRefused | ElfFatal)
    assert len(data) == SIZE
