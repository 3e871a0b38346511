"""inspect: every field shown with its verdict, and any bytes whatever without an exception but a named one."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seamref import mint
from seamref.errors import SeamrefError
from seamref.host.image import V2, build, convert
from seamref.host.inspection import BAD, KINDS, Finding, Inspection, inspect_file, kind_of, read_bcd_date
from seamref.pseamldr.elf import ELF64_EHDR
from seamref.pseamldr.sigstruct import SEAM_SIGSTRUCT

IMAGE = mint.module_image()
SIGSTRUCT = mint.sigstruct(IMAGE)
BLOB = build(SIGSTRUCT, IMAGE)
PSEAMLDR = mint.pseamldr_image()
ACM = mint.acm(PSEAMLDR)
SAMPLES = {"sigstruct": SIGSTRUCT, "module": IMAGE, "blob": BLOB, "acm": ACM}


def findings(found: Inspection) -> list[Finding]:
    return [f for s in found.sections for f in s.findings]


def bad(found: Inspection) -> set[str]:
    lines = {line.name for s in found.sections for line in s.lines if line.verdict == BAD}
    return lines | {f.clause for f in findings(found) if f.good is False}


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_is_recognised_and_a_minted_one_is_good(kind: str) -> None:
    found = inspect_file(SAMPLES[kind])
    assert found.kind == kind == kind_of(SAMPLES[kind])
    assert found.good
    assert found.to_json()["good"] is True


def test_every_field_of_a_sigstruct_is_shown_at_its_offset() -> None:
    lines = inspect_file(SIGSTRUCT).sections[0].lines
    assert [(line.name, line.offset) for line in lines] == [
        (f.name, SEAM_SIGSTRUCT.offset_of(f.name)) for f in SEAM_SIGSTRUCT.fields]
    shown = {line.name: line for line in lines}
    assert shown["date"].decoded == "2024-01-29"
    assert "test key KEY" in shown["modulus"].decoded
    assert shown["num_keyhole_pages"].decoded == "128 pages"
    assert "0xC06F0 Emerald Rapids" in shown["cpuid_table"].decoded
    assert shown["header_type"].rule == "must be 0x6"


@pytest.mark.parametrize(("fields", "what"), [
    ({"header_type": 5}, "header_type"), ({"reserved0": 1}, "reserved0"), ({"module_type": 2}, "module_type"),
    ({"cpuid_table_size": 256}, "INSTALL.manifest.cpuid_table_size"),
    ({"min_update_hv": 1}, "INSTALL.manifest.hv"), ({"gdt_idt_offset": 0x6001}, "INSTALL.manifest.gdt_idt_alignment"),
    ({"gdt_idt_offset": 0}, "INSTALL.manifest.gdt_idt_pair"),
    ({"date": 1, "resign": False}, "INSTALL.manifest.signature"),
    ({"cpuid_table_size": 0}, "INSTALL.manifest.cpuid_mandatory"),
])
def test_a_broken_rule_of_a_sigstruct_is_named(fields: dict[str, int], what: str) -> None:
    found = inspect_file(mint.sigstruct(IMAGE, **fields))
    assert what in bad(found)
    assert not found.good


def test_a_blob_is_held_against_its_module() -> None:
    other = mint.sigstruct(mint.module_image("1.5.06"))
    assert bad(inspect_file(build(other, IMAGE))) == {"INSTALL.hash.seamhash"}
    far = mint.sigstruct(IMAGE, gdt_idt_offset=0x8000)
    assert bad(inspect_file(build(far, IMAGE))) == {"INSTALL.manifest.gdt_idt_bound"}


def test_a_blob_says_which_kernel_takes_it() -> None:
    texts = [f.text for f in findings(inspect_file(BLOB))]
    assert "kernel v8 would take it" in texts
    assert "kernel merged would not (IMAGE2.length: -EINVAL) take it" in texts
    assert "kernel merged would take it" in [f.text for f in findings(inspect_file(convert(BLOB, V2)))]


def test_a_blob_that_cannot_be_taken_apart_is_still_shown() -> None:
    data = bytearray(BLOB)
    data[4:8] = b"\1\0\0\0"
    found = inspect_file(bytes(data))
    assert len(found.sections) == 1
    assert "BLOB1.offset" in bad(found)


def test_a_module_says_which_relocation_is_refused() -> None:
    broken = mint.module_image(relocations=[mint.elf.Relocation(0, 1 << 40)])
    assert bad(inspect_file(broken)) == {"ELF.r_addend"}
    assert bad(inspect_file(IMAGE[:-1])) == {""}
    data = bytearray(IMAGE)
    ELF64_EHDR.poke(data, "class", 1)
    assert bad(inspect_file(bytes(data))) == {"class", "ELF.class"}


def test_an_acm_is_shown_with_what_it_carries() -> None:
    found = inspect_file(ACM)
    titles = [s.title for s in found.sections]
    assert titles[0] == "ACM_HEADER"
    assert titles.count("ACM_PROCESSOR_ID") == 4
    assert titles[-1] == "embedded P-SEAMLDR image"
    assert any("P_SEAMLDR_BUILD" in f.text for f in findings(found))
    assert bad(inspect_file(mint.acm(PSEAMLDR, SeSvn=1, resign=False))) == {"ACM.signed"}


def test_what_is_no_known_file_is_said() -> None:
    for data, says in ((b"", "file is empty"), (b"GIF89a" * 500, "file starts 474946383961")):
        with pytest.raises(SeamrefError, match=says):
            inspect_file(data)
    with pytest.raises(SeamrefError, match="no kind of file 'picture'"):
        inspect_file(b"", "picture")
    with pytest.raises(SeamrefError, match=r"SEAM_SIGSTRUCT.header_type at 0x0"):
        inspect_file(b"", "sigstruct")


def test_dates() -> None:
    assert read_bcd_date(0x20240129) == "2024-01-29"
    assert [read_bcd_date(d) for d in (0, 0x20241301, 0x2024012F)] == ["no BCD date"] * 3


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(KINDS), st.integers(0, 9000), st.binary(max_size=64), st.integers(0, 2200))
def test_any_file_is_shown_or_refused_by_name(kind: str, size: int, patch: bytes, at: int) -> None:
    data = bytearray(SAMPLES[kind][:size])
    data[at : at + len(patch)] = patch
    try:
        found = inspect_file(bytes(data), kind)
    except SeamrefError as error:
        assert " at 0x" in str(error) or "whole pages" in str(error) or "bytes" in str(error)
        return
    found.to_json()


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=2048))
def test_any_bytes_are_of_some_kind_or_of_none(data: bytes) -> None:
    try:
        assert kind_of(data) in KINDS
    except SeamrefError as error:
        assert "file" in str(error)


