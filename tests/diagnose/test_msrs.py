"""msr: values as rdmsr prints them, fields, names, registers without a model, SEAMRR in bytes."""

from __future__ import annotations

import pytest

from seamref.arch.msr import MSRS
from seamref.cli import main
from seamref.diagnose.msrs import UNMODELLED, bits_of, derived, find, number, range_size, seamrr
from seamref.errors import SeamrefError


def said(capsys: pytest.CaptureFixture[str], *args: str, code: int = 0) -> str:
    assert main(["msr", *args]) == code
    out, err = capsys.readouterr()
    assert "Traceback" not in err
    return out + err


@pytest.mark.parametrize("address", list(UNMODELLED))
def test_msr__one_without_a_model_is_described_and_never_GP(address: int, capsys: pytest.CaptureFixture[str]) -> None:
    text = said(capsys, hex(address))
    assert UNMODELLED[address].name in text and "not modelled" in text and "#GP" not in text
    assert address not in MSRS
    assert "not modelled" in said(capsys, hex(address), "--value", "1") and "0x1" in said(capsys, hex(address),
                                                                                          "--value",
                                                                                          "1")


def test_msr__an_unknown_number_is_not_known_and_no_GP(capsys: pytest.CaptureFixture[str]) -> None:
    text = said(capsys, "0x12345", code=2)
    assert "not modelled" in text and "#GP" not in text


@pytest.mark.parametrize("value", ["1600000003", "0x1600000003", "0X16_0000_0003", "0000001600000003"])
def test_msr__values_are_hexadecimal_as_rdmsr_prints_them(value: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = said(capsys, "0x982", "--value", value)
    assert "31 shared, 32 TDX private" in text and "keyid_bits               0x6" in text


@pytest.mark.parametrize("value", ["", "hello", "1" * 17, "f" * 5000, "0x", "-1", "1.5"])
def test_msr__what_is_no_64_bit_value_is_refused(value: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert "--value" in said(capsys, "0x982", f"--value={value}", code=2)


@pytest.mark.parametrize("name", ["ia32_seamrr_phys_mask", "IA32_SEAMRR_PHYS_MASK", "seamrr_phys_mask",
                                  "SEAMRR-PHYS-MASK"])
def test_msr__names_in_any_case_and_in_part(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert said(capsys, name, "--value", "3ffff8000c00").startswith("0x1401 IA32_SEAMRR_PHYS_MASK")
    assert "names 2 MSRs: 0x1400" in said(capsys, "seamrr", code=2)
    assert find("0x1401") == [0x1401] and find("1f5") == [0x1F5] and find("no such") == []


def test_msr__SEAMRR_in_bytes(capsys: pytest.CaptureFixture[str]) -> None:
    text = said(capsys, "0x1401", "--value", "3ffff8000c00")
    assert "size 0x8000000 bytes (128 MiB)" in text
    text = said(capsys, "0x1401", "--value", "3ffff8000c00", "--base", "3ff8000008")
    assert "base 0x3FF8000000" in text and "end  0x3FFFFFFFFF" in text
    assert "base 0x3FFE000000" in said(capsys, "0x1400", "--value", "3ffe000008")
    for shift in range(25, 31):
        mask = ((1 << 46) - 1) & ~((1 << shift) - 1) | 0xC00
        assert range_size(mask) == 1 << shift and seamrr(0x4000000008, mask).size == 1 << shift
    assert seamrr(None, 0).valid is False and derived(0x1401, 0) == ["size 0: no range"]


def test_msr__fields_as_rdmsr_f_gives_them(capsys: pytest.CaptureFixture[str]) -> None:
    text = said(capsys, "0x87", "-f", "63:32", "--value", "20")
    assert "num_tdx_priv_kids        0x20" in text and "num_mktme" not in text
    text = said(capsys, "0x1401", "--field", "11:11", "--value", "1")
    assert "valid                    0x1" in text and "lock" not in text
    for bad in ("11:12", "64:0", "a:b", "11"):
        assert "HIGH:LOW" in said(capsys, "0x1401", "-f", bad, "--value", "1", code=2)
    assert "does not fit" in said(capsys, "0x1401", "-f", "11:11", "--value", "2", code=2)
    assert "give both" in said(capsys, "0x1401", "-f", "11:11", code=2)


def test_msr__IA32_TME_CAPABILITY_has_AES_XTS_256() -> None:
    assert {str(line).split()[1]: line.value for line in bits_of(0x981, 0b101)}["aes_xts_256"] == 1


def test_number__names_what_was_given() -> None:
    with pytest.raises(SeamrefError, match="65 bits"):
        number("1ffffffffffffffff", "value")
