"""The ACM as bytes: layouts, parsing of anything at all, fitness for a platform."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seamref import mint
from seamref.arch.acm import ACM_HEADER, ACM_HEADER_V0, ACM_HEADER_V4, HEADERS, signed_bytes
from seamref.arch.platform import Platform, PlatformConfig
from seamref.bootchain import default_acm
from seamref.errors import LayoutError
from seamref.firmware.acm import ACM_INFO_TABLE, ACM_MATCH, MatchState, Misfit, fits, parse_acm

GOOD = default_acm()


def platform(**config: object) -> Platform:
    return Platform(PlatformConfig(**config))  # type: ignore[arg-type]


def test_ACM_HEADER__offsets_that_the_documents_print() -> None:
    for layout, length, scratch, key in ((ACM_HEADER_V0, 161, 143, 64), (ACM_HEADER, 224, 208, 96),
                                         (ACM_HEADER_V4, 928, 896, 96)):
        assert layout.size == 4 * (length + scratch)
        assert layout.offset_of("Scratch") == 4 * length
        record = layout.new()
        assert (record.HeaderLen, record.ScratchSize, record.KeySize) == (length, scratch, key)
        assert HEADERS[record.HeaderVersion] is layout
        assert layout.resolve("RSAPubKey")[0].size == 4 * key


def test_ACM_parse__a_minted_module_part_by_part() -> None:
    image = mint.pseamldr_image()
    parsed = parse_acm(mint.acm(image))
    assert not ACM_HEADER.problems(parsed.data)
    assert parsed.image == image and parsed.info.Version == 7 and parsed.info.ChipsetACMType == 0
    assert [p.FMS for p in parsed.processors] == [0x806F0, 0xC06F0, 0xA06F0, 0xA06D0]
    assert len(parsed.chipsets) == 1 and len(parsed.gdt) == 4 and parsed.gdt[0] == 0
    assert parsed.build is not None and parsed.build.consts.CCodeRgnSize == len(image)


def test_ACM_parse__code_that_is_not_ours_has_no_build() -> None:
    data = bytearray(GOOD)
    data[ACM_HEADER.peek(GOOD, "EntryPoint")] ^= 1
    parsed = parse_acm(data)
    assert parsed.build is None and parsed.image == b""
    data = bytearray(GOOD)
    ACM_HEADER.poke(data, "EntryPoint", len(data) - 8)
    assert parse_acm(data).build is None


@pytest.mark.parametrize(("change", "said"), [
    (lambda d: ACM_HEADER.poke(d, "HeaderVersion", 0x50000), r"ACM_HEADER.HeaderVersion at 0x8"),
    (lambda d: ACM_HEADER.poke(d, "Size", 0x10000), r"ACM_HEADER.Size at 0x18: 0x10000 dwords"),
    (lambda d: d.__setitem__(ACM_HEADER.size, 0), r"ACM_INFO_TABLE.UUID at 0x6C0"),
    (lambda d: ACM_HEADER.poke(d, "GDTBasePtr", 0x7FFFFFFF), r"ACM_HEADER.GDTBasePtr at 0x2C"),
    (lambda d: ACM_HEADER.poke(d, "HeaderLen", 0x3FFFFFFF), r"ACM_INFO_TABLE.UUID at 0x0: needs"),
    (lambda d: ACM_INFO_TABLE.poke(d, "ChipsetIDList", 0x7FFFFFF0, ACM_HEADER.size), r"ACM_CHIPSET_ID_LIST.count"),
    (lambda d: ACM_INFO_TABLE.poke(d, "ProcessorIDList", 0x900, ACM_HEADER.size), r"ACM_PROCESSOR_ID_LIST.count"),
])
def test_ACM_parse__what_is_not_there_is_named(change: Callable[[bytearray], None], said: str) -> None:
    data = bytearray(GOOD)
    change(data)
    with pytest.raises(LayoutError, match=said):
        parse_acm(data)


@pytest.mark.parametrize("size", [0, 7, 11, 127, 1727, 1728, 1779, 2000])
def test_ACM_parse__cut_short(size: int) -> None:
    with pytest.raises(LayoutError):
        parse_acm(GOOD[:size])


def test_ACM_parse__a_list_that_is_not_there_is_empty() -> None:
    data = bytearray(GOOD)
    ACM_INFO_TABLE.poke(data, "ChipsetIDList", 0, ACM_HEADER.size)
    assert parse_acm(data).chipsets == ()


@given(st.data())
def test_ACM_parse__any_bytes_give_a_module_or_a_layout_error(data: st.DataObject) -> None:
    changed = bytearray(GOOD[: data.draw(st.integers(0, len(GOOD)) | st.just(len(GOOD)))])
    for _ in range(data.draw(st.integers(0, 6))):
        if changed:
            at = data.draw(st.integers(0, min(len(changed), 2200) - 1))
            changed[at] = data.draw(st.integers(0, 255))
    try:
        parsed = parse_acm(changed)
    except LayoutError as error:
        assert error.structure in str(error) and "at 0x" in str(error)
    else:
        assert parsed.data == changed and fits(platform(), parsed) in (None, *Misfit)


@given(st.binary(max_size=4096))
def test_ACM_parse__noise(data: bytes) -> None:
    with pytest.raises(LayoutError):
        parse_acm(data)


@given(st.integers(0, (1 << 32) - 1))
def test_ACM_signed__any_size_field_gives_bytes_or_a_layout_error(dwords: int) -> None:
    data = bytearray(GOOD)
    ACM_HEADER.poke(data, "Size", dwords)
    try:
        covered = signed_bytes(data)
    except LayoutError as error:
        assert not ACM_HEADER.size <= 4 * dwords <= len(data) and error.field == "Size"
    else:
        assert len(covered) == 4 * dwords - 1600


@given(st.integers(0, len(GOOD) - 1))
def test_ACM_signed__covers_all_but_key_signature_and_scratch(at: int) -> None:
    data = bytearray(GOOD)
    data[at] ^= 0x80
    if 24 <= at < 28:
        return  # Size itself: the property above
    assert (signed_bytes(data) == signed_bytes(GOOD)) is (128 <= at < ACM_HEADER.size)


# --- whether a loader launches it

IMAGE = mint.pseamldr_image()
UNFIT: dict[str, tuple[dict[str, object], Misfit]] = {
    "ACM_MATCH.type": ({"ModuleType": 3}, Misfit.TYPE),
    "ACM_MATCH.vendor": ({"ModuleVendor": 0x1022}, Misfit.VENDOR),
    "ACM_MATCH.flags": ({"Flags": 0x8000}, Misfit.SIGNED_FOR_DEBUG),
    "ACM_MATCH.chipset": ({"revision": (1, 0)}, Misfit.CHIPSET),
    "ACM_MATCH.processor": ({"processors": [(0x50650, 0x0FFF3FF0)]}, Misfit.PROCESSOR),
}


@pytest.mark.parametrize("clause", UNFIT)
def test_ACM_MATCH__each_row_alone(clause: str) -> None:
    fields, misfit = UNFIT[clause]
    acm = parse_acm(mint.acm(IMAGE, **fields))  # type: ignore[arg-type]
    assert fits(platform(), acm) is misfit
    row = ACM_MATCH.decide(MatchState(platform(), acm))
    assert row is not None and row.id == clause


@pytest.mark.parametrize("pair", combinations(UNFIT, 2))
def test_ACM_MATCH__the_earlier_of_two_rows_decides(pair: tuple[str, str]) -> None:
    fields = {**UNFIT[pair[0]][0], **UNFIT[pair[1]][0]}
    assert fits(platform(), parse_acm(mint.acm(IMAGE, **fields))) is UNFIT[pair[0]][1]  # type: ignore[arg-type]


def test_ACM_MATCH__a_fitting_module_and_an_unlocked_platform() -> None:
    assert {row.id for row in ACM_MATCH} == set(UNFIT)
    assert fits(platform(), parse_acm(GOOD)) is None
    assert fits(platform(debug_unlocked=True), parse_acm(mint.acm(IMAGE, Flags=0x4000))) is None


def test_ACM_MATCH_chipset__revision_is_a_mask_with_flag_bit_0_else_a_value() -> None:
    acm = parse_acm(GOOD)
    for flags, revision, misfit in ((1, 3, None), (1, 2, Misfit.CHIPSET), (0, 1, None), (0, 3, Misfit.CHIPSET)):
        acm.chipsets[0].Flags = flags
        made = platform()
        made.txt["REVISION_ID"] = revision
        assert fits(made, acm) is misfit


def test_ACM_MATCH_processor__stepping_and_platform_id_count_under_their_masks() -> None:
    acm = parse_acm(GOOD)
    assert fits(platform(fms=(0xC06F9,)), acm) is None
    assert fits(platform(fms=(0xC0670,)), acm) is Misfit.PROCESSOR
    for entry in acm.processors:
        entry.PlatformID, entry.PlatformMask = 2, 7
    made = platform()
    assert fits(made, acm) is Misfit.PROCESSOR
    made.txt["PLATFORM_ID"] = 2
    assert fits(made, acm) is None
