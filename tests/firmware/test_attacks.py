"""Each attempt of a malicious BIOS or OS, and the command line that shows them."""

from __future__ import annotations

import pytest

from seamref.arch.memory import Agent
from seamref.arch.platform import Topology
from seamref.bootchain import BREAKS, boot
from seamref.bootchain.attacks import ATTACKS, Gain, get_attack
from seamref.cli import main
from seamref.errors import SeamrefError

CLAUSES = {
    "own-signature": ("ENTERACCS.authenticate", Gain.RESET),
    "patched-image": ("ENTERACCS.authenticate", Gain.RESET),
    "swap": ("SMX.fetch", Gain.NOTHING),
    "plant": ("NP_SEAMLDR.wipe", Gain.NOTHING),
    "no-launch": ("SEAMCALL.p_seamldr_not_ready", Gain.NOTHING),
    "ready-flag": ("WRMSR.mode", Gain.NOTHING),
    "two-ranges": ("MCHECK.same_base", Gain.NOTHING),
    "left-unlocked": ("MCHECK.lock", Gain.NOTHING),
    "move": ("WRMSR.seamrr_lock", Gain.NOTHING),
    "open": ("WRMSR.seamrr_lock", Gain.NOTHING),
    "forged-table": ("P_SEAMLDR_CVP", Gain.UNKNOWN),
    "stale-at-boot": ("NP_SEAMLDR.se_svn", Gain.VISIBLE),
    "do-nothing": ("SEAMCALL.p_seamldr_not_ready", Gain.DENIAL),
    "leaves": ("NP_SEAMLDR.not_callable", Gain.NOTHING),
    "late-in-vmx": ("ENTERACCS.vmx", Gain.NOTHING),
    "late-others-run": ("ENTERACCS.sibling_idle", Gain.NOTHING),
    "late-ready": ("NP_SEAMLDR.p_seamldr_ready", Gain.NOTHING),
    "other-lp": ("NP_SEAMLDR.same_lp", Gain.NOTHING),
    "forget-lp": ("NP_SEAMLDR.wipe", Gain.NOTHING),
    "stale-late": ("ENTERACCS.svn", Gain.RESET),
    "read": ("MEMORY.denied", Gain.NOTHING),
    "write": ("MEMORY.denied", Gain.NOTHING),
    "private-keyid": ("MEMORY.private_keyid", Gain.NOTHING),
    "window-core": ("MEMORY.p_seamldr_range", Gain.NOTHING),
    "window-dma": ("MEMORY.dma_range", Gain.NOTHING),
    "two-at-once": ("NP_SEAMLDR.wipe", Gain.DENIAL),
    "shutdown": ("SEAMCALL.p_seamldr_not_ready", Gain.DENIAL),
}


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
def test_ATTACKS__what_answers_and_what_is_gained(attack: object) -> None:
    assert attack in ATTACKS
    attempt = attack.run()  # type: ignore[attr-defined]
    assert (attempt.clause, attempt.gain) == CLAUSES[attack.name]  # type: ignore[attr-defined]


def test_ATTACKS__every_one_is_expected_and_found_by_name() -> None:
    assert [attack.name for attack in ATTACKS] == list(CLAUSES)
    assert get_attack("swap").by == "BIOS"
    with pytest.raises(SeamrefError, match="own-signature"):
        get_attack("tea")


def test_MEMORY_dma_range__VALID_of_a_core_does_not_matter_before_approval_it_does() -> None:
    platform = boot(Topology(1, 1))
    platform.set_msr(platform.lp(0), 0x1401, platform.msr_value(platform.lp(0), 0x1401) & ~0x800)
    assert platform.load(Agent.DMA, 0x7C000000, 8) == b"\xff" * 8
    assert platform.load(Agent.HOST, 0x7C000000, 8) == bytes(8)
    platform.p_seamldr_range = None
    assert platform.load(Agent.DMA, 0x7C000000, 8) == bytes(8)


# --- the command


def said(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> str:
    assert main(["boot", *arguments]) == code
    return capsys.readouterr().out


def test_boot_command__steps_answers_and_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    assert "RAX = 0x0 (SEAMRET.leave)" in said(capsys, "--sockets", "2")
    text = said(capsys, "--break", "no-bios-done", "--trace", code=1)
    assert "write BIOS_SE_SVN" in text and text.rstrip().endswith("TXT.ERRORCODE = 0x80000000")
    assert "stopped at mcheck" in said(capsys, "--break", "unlocked", code=1)
    assert "info" not in said(capsys, "--until", "mcheck")


def test_boot_command__every_break_is_listed(capsys: pytest.CaptureFixture[str]) -> None:
    lines = said(capsys, "--every-break").splitlines()
    assert [line.split()[0] for line in lines] == list(BREAKS)


def test_boot_command__update(capsys: pytest.CaptureFixture[str]) -> None:
    text = said(capsys, "--update", "5", "--last", "1")
    assert "RAX = 0x8000000000000003" in text and "P-SEAMLDR answers: launched on LP 0" in text
    assert "ENTERACCS.svn" in said(capsys, "--update", "3", code=1)
    assert "NP_SEAMLDR.same_lp" in said(capsys, "--update", "5", "--on", "1", code=1)


def test_boot_command__attacks(capsys: pytest.CaptureFixture[str]) -> None:
    text = said(capsys, "--attacks", "bios")
    assert "own-signature" in text and "late-ready" not in text
    assert "late-ready" in said(capsys, "--attacks", "os")
