"""identify: every row of the table by every kind of value, and "not known" for what no row has."""

from __future__ import annotations

import json

import pytest

from seamref.cli import main
from seamref.diagnose.explain import explain
from seamref.diagnose.identity import Match, everything, identify_bytes, identify_text
from seamref.host.releases import PUBLISHED, RELEASES

ALL = everything()


@pytest.mark.parametrize("match", [m for m in ALL if m.mrseam], ids=lambda m: m.version)
@pytest.mark.parametrize("form", ["{}", "0x{}", "MRSEAM (hash): 0x{}", "mrseam={}", "mr_seam: {}"])
def test_identify__MRSEAM_upper_and_lower_case(match: Match, form: str) -> None:
    for digits in (match.mrseam, match.mrseam.upper()):
        found = identify_text(form.format(digits))
        assert found is not None and found.short == match.version
    grouped = " ".join(match.mrseam[i : i + 2] for i in range(0, 96, 2))
    assert identify_text(grouped).short == match.version  # type: ignore[union-attr]
    assert match.version in explain(match.mrseam)[0].what


@pytest.mark.parametrize("match", [m for m in ALL if m.seamsvn], ids=lambda m: m.version)
def test_identify__SEAMSVN_and_TEE_TCB_SVN(match: Match) -> None:
    svn = match.seamsvn
    for text in (hex(svn), str(svn), f"SEAMSVN: 0x{svn:04x}", bytes([svn & 255, svn >> 8, 6, *bytes(13)]).hex()):
        found = identify_text(text)
        assert found is not None and match.version in found.short.split(" or "), text
    strange = bytes([svn & 255, svn >> 8, 6, *bytes(12), 1]).hex()
    assert not identify_text(strange).known  # type: ignore[union-attr]


@pytest.mark.parametrize("match", [m for m in ALL if m.published and m.published.build_num], ids=lambda m: m.version)
def test_identify__build_date_and_number_decimal_and_hexadecimal(match: Match) -> None:
    assert match.published is not None
    num = match.published.build_num
    dates = {match.published.build_date, match.measured.date if match.measured else 0} - {0}
    for date in dates:
        for text in (f"build_date {date}, build_num {num}", f"build_date 0x{date:x} build_num 0x{num:x}",
                     f"build number {num}, build date {date:08x}", f"TDX_MODULE_BUILD_DATE={date} build_num={num}"):
            found = identify_text(text)
            assert found is not None and found.short == match.version, text
    assert not identify_text(f"build_date 20991231, build_num {num}").known  # type: ignore[union-attr]
    assert identify_text(f"build_num {num}").short == match.version  # type: ignore[union-attr]


@pytest.mark.parametrize("version", [*RELEASES, *PUBLISHED])
def test_identify__versions_with_three_and_four_parts(version: str) -> None:
    major, minor, update = version.split(".")
    for text in (version, f"{version}.0000", f"{version}.12", f"{major}.{minor}.{int(update)}", f"v{version}"):
        assert identify_text(text).short == version, text  # type: ignore[union-attr]


def test_identify__what_no_row_has_is_not_known_and_never_the_nearest() -> None:
    for text in ("f" * 96, "9.9.99", "0x0199", "build_date 20230206, build_num 457", "20000101", "03000600" + "0" * 24):
        found = identify_text(text)
        assert found is not None and not found.known and "not known" in found.text(), text
    assert identify_text("hello") is None and identify_text("9" * 5000) is None


def test_identify__handoff_versions_known_only_of_measured_releases() -> None:
    assert identify_text("1.5.24").matches[0].handoff == "not known"  # type: ignore[union-attr]
    assert identify_text("1.5.08").matches[0].handoff == "0 to 0"  # type: ignore[union-attr]
    assert all(match.sources for match in ALL)


def test_identify__files_by_their_hash() -> None:
    from seamref.host.machine import blob

    data = blob("1.5.16")
    found = identify_bytes(data)
    assert not found.known and "0x010B" in found.notes[-1], "a minted module is no release"
    changed = data[:-1] + bytes([data[-1] ^ 1])
    assert any("seamhash differs" in note for note in identify_bytes(changed).notes)
    assert not identify_bytes(data[0x1000:0x1800]).known


def test_identify_command(capsys: pytest.CaptureFixture[str], tmp_path: object) -> None:
    assert main(["identify", "build_date 20240725, build_num 784"]) == 0
    assert "1.5.08" in capsys.readouterr().out
    assert main(["identify", "9.9.99"]) == 1 and main(["identify", "no such file"]) == 2
    capsys.readouterr()
    assert main(["identify", "--json", "1.5.20"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["format"] == "seamref-identify/1" and said["answers"][0]["matches"][0]["build_num"] == 920


@pytest.mark.parametrize(("running", "words"), [
    ("9.9.99", "nothing is known of the running 9.9.99"), ("1.5.24", "its SVN is 1.13, its handoff fields are not "
                                                           "known"),
    ("1.5.24.0000", "1.5.24"), ("1.5.05", ""), ("none", ""), ("NONE", "")])
def test_plan_command__says_what_is_not_known_of_the_running_module(
    running: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plan", "--running", running, "--seamldr", "1.5.00", "--cpu", "0x806F8"]) in (0, 1)
    out = capsys.readouterr().out
    assert words in out and ("note: " in out) is bool(words)
    assert main(["plan", "--seamldr", "1.5.00", "--cpu", "-1"]) == 2


def test_plan__a_release_known_by_its_notes_has_its_SVN_compared(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--running", "1.5.24", "--seamldr", "1.5.00", "--cpu", "0x806F8"]) == 1
    out = capsys.readouterr().out
    assert "PLAN.minor_svn" in out and "PLAN.handoff" not in out
