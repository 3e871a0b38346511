"""The commands of this part: what they print, and that they refuse bad input in one line."""

from __future__ import annotations

import pytest

from seamref import cli
from seamref.host import tdx_updates
from seamref.host.tdx_updates import SCENARIOS, interrupted_builds


def run(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert cli.main(list(words)) == 0
    return capsys.readouterr().out


def test_commands__story_tells_what_changed_and_what_did_not(capsys: pytest.CaptureFixture[str]) -> None:
    said = run(capsys, "tdx-story", "--sockets", "2", "--lps", "2", "--to", "1.5.16")
    assert "num_remaining_updates: 15 -> 14" in said
    assert "EVERIFYREPORT2 of its report: SUCCESS" in said
    assert "mrseam        unchanged" in said and "tee_tcb_svn2  changed: 1.5 -> 1.11" in said
    assert said.count("SEAMLDR.INSTALL") == 4


def test_commands__story_of_a_refused_update_ends_with_1(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["tdx-story", "--from", "1.5.16", "--to", "1.5.05"]) == 1
    assert "EBADSIG, RDX = 0" in capsys.readouterr().out


def test_commands__handoff_shows_the_header(capsys: pytest.CaptureFixture[str]) -> None:
    assert "01 00 00 00 8a d0 00 00" in run(capsys, "tdx-handoff")
    assert "VALID 1, HV 1, SIZE 53390" in run(capsys, "tdx-handoff", "--module", "1.5.930")


def test_commands__build_names_the_wrong_MRTD(capsys: pytest.CaptureFixture[str]) -> None:
    said = run(capsys, "tdx-build")
    assert said.count("MRTD WRONG, and no error") == 1 and said.count("\n") == len(interrupted_builds())


def test_commands__update_plays_scenarios(capsys: pytest.CaptureFixture[str]) -> None:
    said = run(capsys, "tdx-update", "wrong image", "TD runs")
    assert "EBADHASH, RDX = 1" in said and "kick the vCPU and retry" in said
    assert said.count("module now:") == 2
    assert cli.main(["tdx-update", "nonsense"]) == cli.BAD_INPUT
    assert "no scenario 'nonsense'" in capsys.readouterr().err


def test_interrupted_builds__each_kind_once() -> None:
    assert [row.build for row in interrupted_builds()] == [
        "MRTD right", "MRTD WRONG, and no error", "refused: TDX_UPDATE_COMPAT_SENSITIVE", "MRTD right", "MRTD right",
        "MRTD right",
    ]
    assert tdx_updates.get_scenario("newer") is SCENARIOS["newer"]
