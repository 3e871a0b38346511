"""What running the published NP-SEAMLDR corrected: each kind once, in small; the recordings have the rest."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from firmware.test_np_seamldr import RANGE, E, consts, entered, put_table, run

from seamref import mint
from seamref.arch import msr
from seamref.arch.memory import Agent
from seamref.arch.outcome import TxtShutdown, Vector
from seamref.arch.platform import Platform
from seamref.arch.trace import MsrWritten
from seamref.firmware.acm import P_SEAMLDR_CONSTS
from seamref.firmware.np_seamldr import NpStatus, Returned
from seamref.mint.elf import Relocation
from seamref.pseamldr.elf import ELF64_EHDR, ELF64_RELA, ELF64_SHDR, SHT_RELA
from seamref.pseamldr.memory_constants import CODE_LINEAR

PAGE = 0x1000
CODE = E - PAGE - 0x12000


def fatal(platform: Platform) -> Vector:
    """How a run ends that must not return."""
    outcome = run(platform)
    assert isinstance(outcome, TxtShutdown) and outcome.vector is not None, outcome
    return outcome.vector


def leaves(platform: Platform, pml4: int) -> Iterator[tuple[int, int]]:
    """(linear address, entry) of P-SEAMLDR's page tables, read bare."""
    def walk(table: int, shift: int, linear: int) -> Iterator[tuple[int, int]]:
        data = platform.store_.read(table, PAGE)
        for i in range(512):
            entry = int.from_bytes(data[8 * i : 8 * i + 8], "little")
            if entry and (shift == 12 or (shift == 21 and entry & 0x80)):
                yield linear | i << shift, entry
            elif entry:
                yield from walk(entry & 0xFFFFFFFFFF000, shift - 9, linear | i << shift)

    yield from walk(pml4, 39, 0)


# --- the epilogue's temporary GDT


@pytest.mark.parametrize(("cs", "ss", "clause"), [
    (0x10, 0x18, None), (0x10, 0, None), (0x10, 0x7, None), (0x33, 0x2B, None), (0xFFF8, 0x10, None),
    (0x10, 0x10, "ss_is_cs"), (0x13, 0x10, "ss_is_cs"), (0x10, 0x1010, "ss_is_cs"), (0x1010, 0x2010, "ss_is_cs"),
    (0, 0x18, "cs_null"), (3, 0x18, "cs_null"), (0x1000, 0x18, "cs_null"), (0, 0, "cs_null"),
])
def test_NP_SEAMLDR_exit_gdt__SS_that_names_the_code_descriptor_resets_the_machine(
    cs: int, ss: int, clause: str | None
) -> None:
    platform = entered()
    lp = platform.lp(0)
    lp.rcx, lp.ss_selector = lp.rcx & ~0xFFFF | cs, ss
    outcome = run(platform)
    if clause is None:
        assert outcome == Returned(NpStatus.SUCCESS, "NP_SEAMLDR.run")
        return
    assert isinstance(outcome, TxtShutdown) and outcome.vector is Vector.GP
    assert f"NP_SEAMLDR.{clause}" in outcome.cause


def test_NP_SEAMLDR_exit_gdt__every_way_out_passes_it_and_1_0_has_none() -> None:
    platform = entered()
    platform.lp(0).ss_selector = platform.lp(0).rcx & 0xFFFF
    put_table(platform, "version", 1)  # EBADPLATF is decided, and never told
    assert fatal(platform) is Vector.GP

    def of_that_chipset(b: object) -> None:
        b.platform.txt["DEVICE_ID"] = 0xB00A  # type: ignore[attr-defined]

    platform = entered(acm=mint.acm(mint.pseamldr_image(), revision=(1, 0)), before=of_that_chipset)
    platform.lp(0).ss_selector = platform.lp(0).rcx & 0xFFFF
    assert run(platform) == Returned(NpStatus.SUCCESS, "NP_SEAMLDR.run")


# --- exceptions by name


def test_NP_SEAMLDR_cookie_32__RDSEED_is_as_wide_as_its_operand() -> None:
    platform = entered()
    platform.inject("rdseed", (1, 1 << 32), (1, 5), (1, 5))
    assert fatal(platform) is Vector.UD
    platform = entered()
    platform.inject("rdseed", (1, 5), (1, 1 << 32), (1, 5))
    assert isinstance(run(platform), Returned)


@pytest.mark.parametrize("offset", [1, 8, 0x10, 0x20])
def test_NP_SEAMLDR_wipe__MOVDIR64B_wants_64_byte_alignment(offset: int) -> None:
    platform = entered()
    put_table(platform, "p_seamldr_range_base", RANGE + offset)
    assert fatal(platform) is Vector.GP


def test_NP_SEAMLDR_wipe__64_bytes_are_alignment_enough() -> None:
    platform = entered()
    put_table(platform, "p_seamldr_range_base", RANGE + 0x40)
    assert isinstance(run(platform), Returned)


@pytest.mark.parametrize("below", [PAGE, 2 * PAGE])
def test_NP_SEAMLDR_own_tables__tables_and_VMCS_behind_SEAMRR_are_a_page_fault(below: int) -> None:
    platform = entered()
    put_table(platform, "p_seamldr_range_base", E - below)
    put_table(platform, "p_seamldr_range_size", 2 << 20)
    assert fatal(platform) is Vector.PF


def test_NP_SEAMLDR_paging__EFER_is_a_WRMSR_behind_IA32_PAT() -> None:
    platform = entered()
    seen: list[tuple[int, int]] = []
    platform.listeners.append(
        lambda event: seen.append((event.address, event.value)) if isinstance(event, MsrWritten) else None)
    assert isinstance(run(platform), Returned)
    at = next(i for i, (address, _) in enumerate(seen) if address == msr.EFER)
    assert seen[at - 1] == (msr.PAT, 0x0007040600070406) and seen[at][1] & 0x900 == 0x900


# --- sizes: floors, and modulo 2^64


@pytest.mark.parametrize(("field", "extra", "linear"), [
    ("CDataStackSize", 0x800, 1), ("CDataRgnSize", 0x800, 3), ("CKeyholeRgnSize", 0x800, None),
])
def test_NP_SEAMLDR_map__pages_are_counted_by_floor(field: str, extra: int, linear: int | None) -> None:
    def mapped(add: int) -> list[int]:
        held = bytearray(consts())
        kind, at = P_SEAMLDR_CONSTS.resolve(field)
        value = int.from_bytes(held[at : at + kind.size], "little") + add
        held[at : at + kind.size] = value.to_bytes(kind.size, "little")
        platform = entered(acm=mint.acm(mint.pseamldr_image(), consts=bytes(held)))
        platform.inject("rdseed", (1, 5), (1, 5), (1, 0))
        assert run(platform) == Returned(NpStatus.SUCCESS, "NP_SEAMLDR.run")
        return [at for at, _ in leaves(platform, RANGE + 2 * PAGE)]

    assert mapped(extra) == mapped(0)


@pytest.mark.parametrize(("size", "large", "small"), [(0x3FF000, 30, 1), (0x400000, 30, 0), (0x400001, 29, 511)])
def test_NP_SEAMLDR_map_module__as_many_2_MiB_pages_as_the_sizes_say_then_4_KiB(
    size: int, large: int, small: int
) -> None:
    platform = entered()
    put_table(platform, "p_seamldr_range_base", E - 0x200000)
    put_table(platform, "p_seamldr_range_size", size)
    platform.inject("rdseed", (1, 5), (1, 5), (1, 0))
    assert run(platform) == Returned(NpStatus.SUCCESS, "NP_SEAMLDR.run")
    region = [entry for at, entry in leaves(platform, E - 0x200000 + 2 * PAGE) if 1 << 33 <= at < (1 << 33) + (1 << 30)]
    assert (sum(bool(e & 0x80) for e in region), sum(not e & 0x80 for e in region)) == (large, small)


@pytest.mark.parametrize(("size", "status"), [
    (1 << 55, NpStatus.ENOMEM), ((1 << 64) - 1, NpStatus.SUCCESS), ((1 << 64) - 0x1000, NpStatus.SUCCESS),
])
def test_NP_SEAMLDR_map_module__a_range_larger_than_SEAMRR_wraps(size: int, status: NpStatus) -> None:
    platform = entered()
    put_table(platform, "p_seamldr_range_size", size)
    outcome = run(platform)
    assert isinstance(outcome, Returned) and outcome.status is status


def test_NP_SEAMLDR_vmcs__field_stores_leave_what_a_relocation_put_between_them() -> None:
    offset = RANGE + PAGE + 0x700 - CODE
    image = mint.pseamldr_image(relocations=[Relocation(offset % (1 << 64), 0x1234)])
    platform = entered(acm=mint.acm(image))
    assert run(platform) == Returned(NpStatus.SUCCESS, "NP_SEAMLDR.run")
    page = platform.load(Agent.CPU, RANGE + PAGE, PAGE)
    assert isinstance(page, bytes) and page[0x700:0x708] != bytes(8)


# --- relocation reads its tables again


def _self_patching(field: str, value: int) -> bytes:
    """An image whose first relocation stores ``value`` over a field of its own section's header (ASLR is 0)."""
    image = bytearray(mint.pseamldr_image(relocations=[Relocation(0x2000 + 8 * i, 8) for i in range(3)]))
    ehdr = ELF64_EHDR.decode(image)
    header = next(at for i in range(ehdr.e_shnum)
                  if ELF64_SHDR.peek(image, "sh_type", at := ehdr.e_shoff + i * ehdr.e_shentsize) == SHT_RELA)
    first = ELF64_SHDR.peek(image, "sh_addr", header)
    ELF64_RELA.poke(image, "r_offset", header + ELF64_SHDR.offset_of(field), first)
    ELF64_RELA.poke(image, "r_addend", (value - CODE_LINEAR) % (1 << 64), first)
    return bytes(image)


def _relocated(image: bytes) -> Platform:
    platform = entered(acm=mint.acm(image))
    platform.inject("rdseed", (1, 5), (1, 5), (1, 0))
    return platform


def test_NP_SEAMLDR_relocate__an_entry_size_that_becomes_0_in_the_walk_divides() -> None:
    assert fatal(_relocated(_self_patching("sh_entsize", 0))) is Vector.DE


@pytest.mark.parametrize(("size", "patched"), [(0, 0), (48, 1), (72, 2)])
def test_NP_SEAMLDR_relocate__the_section_ends_where_its_header_says_now(size: int, patched: int) -> None:
    platform = _relocated(_self_patching("sh_size", size))
    assert run(platform) == Returned(NpStatus.SUCCESS, "NP_SEAMLDR.run")
    held = platform.store_.read(CODE + 0x2000, 24)
    words = [int.from_bytes(held[i : i + 8], "little") for i in (8, 16)]
    assert [word == CODE_LINEAR + 8 for word in words] == [patched >= 1, patched >= 2]
