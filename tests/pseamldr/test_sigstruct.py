"""SEAM_SIGSTRUCT: offsets against the published header, what is signed, who signs."""

from __future__ import annotations

from hashlib import sha384

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seamref import mint
from seamref.errors import LayoutError, SeamrefError
from seamref.pseamldr import sigstruct as s

OFFSETS = {
    "header_type": 0, "header_length": 4, "header_version": 8, "module_type": 12, "module_vendor": 16, "date": 20,
    "size": 24, "key_size": 28, "modulus_size": 32, "exponent_size": 36, "reserved0": 40, "modulus": 128,
    "exponent": 512, "signature": 516, "seamhash": 900, "seam_minor_svn": 948, "seam_major_svn": 949,
    "attributes": 950, "rip_offset": 958, "num_stack_pages": 962, "num_tls_pages": 963, "num_keyhole_pages": 964,
    "num_global_data_pages": 966, "max_tdmrs": 968, "max_rsvd_per_tdmr": 970, "pamt_entry_size_4k": 972,
    "pamt_entry_size_2m": 974, "pamt_entry_size_1g": 976, "reserved1": 978, "module_hv": 984, "min_update_hv": 986,
    "no_downgrade": 988, "reserved2": 989, "num_handoff_pages": 990, "gdt_idt_offset": 992,
    "fault_wrapper_offset": 996, "reserved3": 1000, "cpuid_table_size": 1024, "cpuid_table": 1028,
}
MUST = {
    "header_type": 6, "header_length": 0xE1, "header_version": 0x10000, "module_vendor": 0x8086, "size": 0x200,
    "key_size": 0x60, "modulus_size": 0x60, "exponent_size": 1, "exponent": 0x10001, "attributes": 0, "reserved0": 0,
    "reserved1": 0, "reserved2": 0, "reserved3": 0,
}


def test_every_field_lies_where_the_published_header_has_it() -> None:
    assert {f.name: s.SEAM_SIGSTRUCT.offset_of(f.name) for f in s.SEAM_SIGSTRUCT.fields} == OFFSETS
    assert s.SEAM_SIGSTRUCT.size == 2048


def test_what_each_field_must_be() -> None:
    assert {f.name: f.must_be for f in s.SEAM_SIGSTRUCT.fields if f.must_be is not None} == MUST


def test_1_0_has_one_svn_number_and_one_reserved_block() -> None:
    names = [f.name for f in s.SEAM_SIGSTRUCT_1_0.fields]
    assert s.SEAM_SIGSTRUCT_1_0.offset_of("seamsvn") == 948
    assert (s.SEAM_SIGSTRUCT_1_0.offset_of("reserved1"), s.SEAM_SIGSTRUCT_1_0.end_of("reserved1")) == (978, 1024)
    assert not {"module_hv", "gdt_idt_offset", "num_handoff_pages"} & set(names)


def test_SIG_signed__modulus_exponent_and_signature_are_cut_out() -> None:
    data = bytes(i % 251 for i in range(2048))
    assert s.signed_bytes(data) == data[:128] + data[900:]
    assert len(s.signed_bytes(data)) == 1276


@pytest.mark.parametrize("at", [127, 128, 511, 512, 515, 516, 899, 900])
def test_SIG_signed__exactly_the_cut_bytes_do_not_count(at: int) -> None:
    one, other = bytes(2048), bytearray(2048)
    other[at] = 1
    assert (s.signed_bytes(one) == s.signed_bytes(other)) == (128 <= at < 900)


def test_SIG_key_hash__is_over_the_stored_byte_order() -> None:
    modulus = mint.KEY.modulus_le
    assert s.key_hash(modulus) == sha384(modulus).digest() == mint.KEY.key_hash
    assert s.key_hash(modulus[::-1]) != mint.KEY.key_hash


def test_SIG_seamhash__is_over_the_image_as_it_is() -> None:
    assert s.image_hash(b"x" * 4096) == sha384(b"x" * 4096).digest()


def test_a_debug_bit_is_no_reserved_bit() -> None:
    data = bytearray(mint.sigstruct(mint.module_image()))
    s.SEAM_SIGSTRUCT.poke(data, "module_type", 1 << 31)
    assert s.SEAM_SIGSTRUCT.problems(data) == []
    s.SEAM_SIGSTRUCT.poke(data, "module_type", 1)
    assert [p.field for p in s.SEAM_SIGSTRUCT.problems(data)] == ["module_type.reserved"]


def test_a_short_sigstruct_names_the_field_that_is_cut() -> None:
    with pytest.raises(LayoutError, match=r"SEAM_SIGSTRUCT.signature at 0x204: needs 384 bytes, 84 left"):
        s.SEAM_SIGSTRUCT.decode(bytes(600))


@given(st.binary(max_size=2100))
def test_any_bytes_decode_and_encode_back_or_say_what_is_cut(data: bytes) -> None:
    try:
        record = s.SEAM_SIGSTRUCT.decode(data)
    except SeamrefError:
        assert len(data) < 2048
        return
    assert record.encode() == data[:2048]
    s.SEAM_SIGSTRUCT.problems(data)
