"""The mint: the same bytes everywhere, every field overridable, and nothing a loader would refuse by default."""

from __future__ import annotations

from hashlib import sha384

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seamref import mint
from seamref.arch.memory import Agent
from seamref.arch.platform import Platform
from seamref.arch.software import P_SEAMLDR_PROGRAM, STUB, TDX_MODULE_PROGRAM
from seamref.arch.structures import IDT_GATE
from seamref.errors import LayoutError, SeamrefError
from seamref.firmware.acm import ACM_HEADER, NP_SEAMLDR_PROGRAM, P_SEAMLDR_CONSTS, parse_acm, signed_bytes
from seamref.mint import elf
from seamref.mint.loader import pad
from seamref.pseamldr import rsa
from seamref.pseamldr.api import SEAMLDR_PARAMS
from seamref.pseamldr.build import P_SEAMLDR_BUILD, Build, decode_build
from seamref.pseamldr.elf import PAGE, Relocated, relocate
from seamref.pseamldr.sigstruct import SEAM_SIGSTRUCT
from seamref.pseamldr.sigstruct import signed_bytes as sigstruct_signed
from seamref.tdxmodule.build import BUILDS, TDX_MODULE_BUILD, get_build

FINGERPRINTS = {
    "module": "d614d9c74a39114054502958bbc00222",
    "sigstruct": "aa159eecbfd466b43621f3e19c1e8a93",
    "pseamldr": "e54f503ee7736c9cb17a911737f59fbb",
}


def fields(data: bytes) -> dict[str, object]:
    return dict(SEAM_SIGSTRUCT.decode(data))


def is_signed(data: bytes, key: mint.TestKey = mint.KEY) -> bool:
    record = SEAM_SIGSTRUCT.decode(data)
    return record.modulus == key.modulus_le and rsa.verify(record.modulus, record.signature, sigstruct_signed(data))


def test_the_same_call_makes_the_same_bytes_on_every_machine() -> None:
    image = mint.module_image()
    made = {
        "module": sha384(image).hexdigest()[:32],
        "sigstruct": sha384(mint.sigstruct(image)).hexdigest()[:32],
        "pseamldr": sha384(mint.pseamldr_image()).hexdigest()[:32],
    }
    assert made == FINGERPRINTS


@pytest.mark.parametrize("key", [mint.KEY, mint.OTHER_KEY], ids=lambda key: key.name)
def test_keys_are_rsa_3072(key: mint.TestKey) -> None:
    assert key.n.bit_length() == 3072
    assert key.p != key.q
    assert pow(pow(0x1234567, key.e, key.n), key.d, key.n) == 0x1234567
    assert int.from_bytes(key.modulus_le, "little") == key.n


def test_the_two_keys_differ() -> None:
    assert mint.KEY.key_hash != mint.OTHER_KEY.key_hash


@pytest.mark.parametrize("name", BUILDS)
def test_every_named_build_makes_an_image_and_a_sigstruct_without_problems(name: str) -> None:
    image = mint.module_image(name)
    data = mint.sigstruct(image)
    assert elf.stub_of(image) == TDX_MODULE_PROGRAM
    assert elf.build_of(image, TDX_MODULE_BUILD.size) == get_build(name).constants
    assert SEAM_SIGSTRUCT.problems(data) == []
    assert is_signed(data)
    held, build = fields(data), get_build(name)
    assert (held["seam_major_svn"], held["seam_minor_svn"]) == (build.major_svn, build.minor_svn)
    assert (held["module_hv"], held["num_handoff_pages"]) == (build.module_hv, build.num_handoff_pages)
    assert held["seamhash"] == sha384(image).digest()
    assert held["rip_offset"] == elf.entry_of(image)


def test_two_builds_differ_in_their_hash() -> None:
    assert len({sha384(mint.module_image(name)).digest() for name in BUILDS}) == len(BUILDS)


def test_build_constants_can_be_overridden() -> None:
    image = mint.module_image("1.5.05", update=77, module_hv=9)
    held = TDX_MODULE_BUILD.decode(elf.build_of(image, TDX_MODULE_BUILD.size))
    assert (held.update, held.module_hv, held.minor) == (77, 9, 5)
    assert fields(mint.sigstruct(image))["module_hv"] == 9


# --- images


@pytest.mark.parametrize("pages", [1, 2, 3, 4, 8, 102, 496])
@pytest.mark.parametrize("gdt_idt", [True, False])
def test_images_of_any_size_relocate(pages: int, gdt_idt: bool) -> None:
    if pages == 1 and gdt_idt:
        with pytest.raises(SeamrefError, match="page of IDT and GDT"):
            mint.module_image(pages=pages)
        return
    image = mint.module_image(pages=pages, gdt_idt=gdt_idt)
    assert len(image) == pages * PAGE
    assert relocate(bytearray(image), 0xFFFF800000000000) == Relocated(8)
    assert (elf.find_section(image, ".gdt_idt") is not None) == gdt_idt


def test_the_idt_page_holds_32_gates_without_offsets() -> None:
    page = elf.gdt_idt_page()
    gates = [IDT_GATE.decode(page, IDT_GATE.size * v) for v in range(32)]
    assert {(g.selector, g.type, g.offset_15_0, g.offset_31_16, g.offset_63_32) for g in gates} == {(8, 0x8E, 0, 0, 0)}
    assert not any(page[512:2048])
    assert any(page[2048:])


def test_fault_wrapper_lies_where_released_modules_have_it() -> None:
    image = mint.module_image(pages=20)
    wrapper = elf.find_section(image, ".fault_wrapper")
    assert wrapper == (elf.entry_of(image) + 0x160, 512)
    assert image[wrapper[0] : wrapper[0] + 4] == bytes.fromhex("f30f1efa")


def test_parts_that_overlap_or_leave_the_image_are_named() -> None:
    with pytest.raises(SeamrefError, match="page of IDT and GDT at 0x4000 overwrites entry stub"):
        mint.module_image(pages=8, gdt_idt=0x4000)
    with pytest.raises(SeamrefError, match="fault wrapper at 0x7F00, 512 bytes, leaves an image of 0x8000"):
        mint.module_image(pages=8, fault_wrapper=0x7F00)
    with pytest.raises(SeamrefError, match="overwrites"):
        mint.module_image(pages=8, relocations=[elf.Relocation(0, 0)] * 1000)


def test_a_named_section_is_found_and_others_are_not() -> None:
    image = mint.module_image()
    assert elf.find_section(image, ".text") == (elf.entry_of(image), STUB.size + TDX_MODULE_BUILD.size)
    assert elf.find_section(image, ".data") is None
    assert elf.find_section(b"\x7fELF" + bytes(60), ".text") is None
    assert elf.find_section(b"no ELF image", ".text") is None


@given(st.binary(max_size=300), st.integers(0, 0x400))
def test_looking_into_broken_images_raises_nothing(patch: bytes, at: int) -> None:
    data = bytearray(mint.module_image(pages=2))
    data[at : at + len(patch)] = patch
    elf.find_section(data, ".text")
    elf.stub_of(data)
    elf.entry_of(data)


# --- sigstructs


NOT_HERE = ("cpuid_table", "signature", "modulus")
OVERRIDES = [(f.name, f.type.size) for f in SEAM_SIGSTRUCT.fields if f.name not in NOT_HERE]


@pytest.mark.parametrize(("name", "size"), OVERRIDES, ids=[name for name, _ in OVERRIDES])
def test_any_field_can_be_overridden_and_signed_again_or_not(name: str, size: int) -> None:
    image = mint.module_image()
    value = (0xA5).to_bytes(size, "little") if size not in (1, 2, 4, 8) or name.startswith("reserved") else 0xA5
    again, late = mint.sigstruct(image, **{name: value}), mint.sigstruct(image, resign=False, **{name: value})
    assert fields(again)[name] == fields(late)[name] == value
    assert is_signed(again)
    assert is_signed(late) == (name == "exponent")  # the exponent is not among the signed bytes


def test_svn_can_be_given_as_one_number_and_a_table_brings_its_size() -> None:
    held = fields(mint.sigstruct(mint.module_image(), seamsvn=0x0307, cpuid_table=[1, 2, 3, 4]))
    assert (held["seam_major_svn"], held["seam_minor_svn"], held["cpuid_table_size"]) == (3, 7, 4)
    assert fields(mint.sigstruct(mint.module_image(), cpuid_table=[1], cpuid_table_size=0))["cpuid_table_size"] == 0


def test_another_key_signs_under_its_own_modulus() -> None:
    assert is_signed(mint.sigstruct(mint.module_image(), key=mint.OTHER_KEY), mint.OTHER_KEY)


def test_a_given_signature_stays() -> None:
    assert fields(mint.sigstruct(mint.module_image(), signature=bytes(384)))["signature"] == bytes(384)


def test_what_is_no_field_or_does_not_fit_is_said() -> None:
    with pytest.raises(SeamrefError, match="has no field 'seam_hash'"):
        mint.sigstruct(mint.module_image(), seam_hash=b"")
    with pytest.raises(LayoutError, match=r"SEAM_SIGSTRUCT.num_stack_pages at 0x3C2: 0x100 does not fit in 8 bits"):
        mint.sigstruct(mint.module_image(), num_stack_pages=256)


def test_a_foreign_image_gets_a_sigstruct_too() -> None:
    held = fields(mint.sigstruct(b"\xf4" * PAGE))
    assert held["seamhash"] == sha384(b"\xf4" * PAGE).digest()
    assert (held["rip_offset"], held["gdt_idt_offset"]) == (0, 0)


# --- memory


def test_place_puts_params_sigstruct_and_pages_where_it_says() -> None:
    platform, image = Platform(), mint.module_image()
    at = mint.place(platform, image, scenario=1)
    params = SEAMLDR_PARAMS.decode(platform.load(Agent.HOST, at, PAGE))  # type: ignore[arg-type]
    assert (params.version, params.scenario, params.num_module_pages) == (0, 1, 8)
    assert platform.load(Agent.HOST, params.sigstruct_pa, 2048) == mint.sigstruct(image)
    pages = [platform.load(Agent.HOST, pa, PAGE) for pa in params.mod_pages_pa_list[:8]]
    assert b"".join(pages) == image  # type: ignore[arg-type]


def test_place_takes_overrides_and_refuses_what_cannot_be() -> None:
    platform = Platform()
    at = mint.place(platform, mint.module_image(), version=5, num_module_pages=3)
    params = SEAMLDR_PARAMS.decode(platform.load(Agent.HOST, at, PAGE))  # type: ignore[arg-type]
    assert (params.version, params.num_module_pages) == (5, 3)
    with pytest.raises(SeamrefError, match="must be 4 KiB aligned"):
        mint.place(platform, mint.module_image(), at=0x1001)
    with pytest.raises(SeamrefError, match="must be whole pages"):
        mint.place(platform, b"x")
    with pytest.raises(SeamrefError, match="cannot store"):
        mint.place(platform, mint.module_image(), at=1 << 53)


# --- P-SEAMLDR and its ACM


def test_pseamldr_image_is_padded_with_hlt_to_whole_pages() -> None:
    assert pad(b"x") == b"x" + b"\xf4" * 4095
    assert pad(bytes(PAGE)) == bytes(PAGE) + b"\xf4" * PAGE
    image = mint.pseamldr_image(size=0x11A00)
    assert len(image) == 0x12000
    assert set(image[0x11A00:]) == {0xF4}
    assert elf.stub_of(image) == P_SEAMLDR_PROGRAM


def test_pseamldr_image_carries_its_constants() -> None:
    held = decode_build(elf.build_of(mint.pseamldr_image(revision="1.0", build_num=7), P_SEAMLDR_BUILD.size))
    assert held == Build("1.0", build_num=7, signer_key_hash=mint.KEY.key_hash)
    raw = Build(minor=9).encode()
    assert elf.build_of(mint.pseamldr_image(raw), len(raw)) == raw


def test_acm_is_signed_and_carries_the_image() -> None:
    image = mint.pseamldr_image()
    data = mint.acm(image)
    parsed = parse_acm(data)
    assert ACM_HEADER.problems(data) == []
    assert len(data) % 64 == 0
    assert len(data) == 4 * parsed.header.Size
    assert parsed.image == image
    assert rsa.verify(parsed.header.RSAPubKey, parsed.header.RSASig, signed_bytes(data), strict=True)
    assert STUB.decode(data, parsed.header.EntryPoint).program == NP_SEAMLDR_PROGRAM
    assert (parsed.header.SegSel, len(parsed.gdt)) == (8, 4)


def test_constants_beside_the_image_follow_it() -> None:
    image = mint.pseamldr_image()
    consts = P_SEAMLDR_CONSTS.decode(mint.pseamldr_consts(image))
    assert dict(consts) == {
        "CDataStackSize": 0x3000, "CCodeRgnSize": 0x12000, "CDataRgnSize": 0x6000, "CKeyholeRgnSize": 0x200000,
        "CKeyholeEditRgnSize": 0x1000, "CEntryPointOffset": elf.entry_of(image),
    }
    assert P_SEAMLDR_CONSTS.decode(mint.pseamldr_consts(image, CDataRgnSize=1)).CDataRgnSize == 1


@pytest.mark.parametrize("resign", [True, False])
def test_acm_header_overrides_are_signed_or_not(resign: bool) -> None:
    data = mint.acm(mint.pseamldr_image(), SeSvn=9, resign=resign)
    header = ACM_HEADER.decode(data)
    assert header.SeSvn == 9
    assert rsa.verify(header.RSAPubKey, header.RSASig, signed_bytes(data)) == resign


@pytest.mark.parametrize(("at", "counts"), [
    (0, True), (127, True), (128, False), (511, False), (512, False), (895, False), (896, False), (1727, False),
    (1728, True), (-1, True),
])
def test_ACM_signed__key_signature_and_scratch_do_not_count(at: int, counts: bool) -> None:
    data = bytearray(mint.acm(mint.pseamldr_image()))
    before = signed_bytes(data)
    data[at] ^= 1
    assert (signed_bytes(data) != before) == counts


def test_ACM_signed__a_size_beyond_the_file_is_named() -> None:
    with pytest.raises(LayoutError, match=r"ACM_HEADER.Size at 0x18"):
        signed_bytes(mint.acm(mint.pseamldr_image(), Size=1 << 20))


def test_revision_1_0_of_the_acm() -> None:
    parsed = parse_acm(mint.acm(mint.pseamldr_image(), revision=(1, 0)))
    assert parsed.build is not None
    assert (parsed.build.revision_major, parsed.build.revision_minor, parsed.header.SeSvn) == (1, 0, 0)
    assert parsed.chipsets[0].DeviceID == 0xB00A


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1 << 64), st.integers(0, 600))
def test_params_page_is_a_page_or_names_the_field(pa: int, count: int) -> None:
    try:
        page = mint.params_page(pa, [0x1000 * i for i in range(count)])
    except LayoutError as error:
        assert pa == 1 << 64, error
        return
    held = SEAMLDR_PARAMS.decode(page)
    assert (held.sigstruct_pa, held.num_module_pages) == (pa, count)
