"""`upload` and `uefi` on the command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from seamref.cli import main
from seamref.host.image import V1
from seamref.host.machine import blob


def test_upload__a_session_that_ends_well(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["upload", "--cpus", "4", "--sockets", "2", "--states"]) == 0
    out = capsys.readouterr().out
    assert "# cat /sys/devices/faux/tdx_host/version\n1.5.16\n" in out
    assert "CPU_INSTALL  SEAMLDR.INSTALL on CPU 0, 1, 2, 3" in out and "RUN_UPDATE   TDH.SYS.UPDATE on CPU 0" in out
    assert "TD 0: counted to 1 before, to 2 after" in out


def test_upload__sessions_that_end_badly(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["upload", "2.0.05"]) == 1
    assert "transferring:firmware-invalid" in capsys.readouterr().out
    assert main(["upload", "--cpus", "4", "--offline", "3"]) == 1
    assert "virt/tdx: module not loaded" in capsys.readouterr().out
    published = tmp_path / "published.blob"
    published.write_bytes(blob("1.5.16", version=V1))
    assert main(["upload", str(published)]) == 1
    out = capsys.readouterr().out
    assert "transferring:firmware-invalid" in out and "to 2 after" in out  # refused before anything was shut down
    assert main(["upload", str(published), "--series", "v7"]) == 0
    assert main(["upload", "--erratum"]) == 1
    assert "No such file or directory" in capsys.readouterr().out


def test_upload__bad_arguments(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["upload", "nofile"]) == 2
    assert main(["upload", "--series", "v11"]) == 2
    assert main(["upload", "--offline", "0"]) == 2
    assert capsys.readouterr().err.count("\n") == 3


def test_uefi__walks(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["uefi", "--cpus", "4", "--sockets", "2"]) == 0
    assert "SEAM_READY is 1" in capsys.readouterr().out
    assert main(["uefi", "--not-started", "1"]) == 1
    assert "says: TDX module installed\nreturns EFI_SUCCESS; SEAM_READY is 0" in capsys.readouterr().out
    assert main(["uefi", "--times-out", "1"]) == 1
    bad = tmp_path / "TDX-BLOB"
    bad.write_bytes(b"x")
    assert main(["uefi", str(bad)]) == 1


def test_commands__upload_and_failures_take_scripted_rules(capsys: pytest.CaptureFixture[str]) -> None:
    rule = "cpu=1,leaf=TDH.SYS.LP.INIT,rax=TDX_RND_NO_ENTROPY"
    assert main(["upload", "--fail", rule]) == 1
    assert "virt/tdx: SEAMCALL (0x0000000000000023) failed: 0x8000020300000000" in capsys.readouterr().out
    assert main(["upload", "--fail", rule + ",nth_to=8"]) == 0  # the tenth attempt enters SEAM
    assert main(["failures", "--fail", rule, "--fail", "leaf=53,outcome=zf"]) == 0
    out = capsys.readouterr().out
    assert "CPU_INIT" in out and "fails: reboot" in out
    assert main(["upload", "--fail", "cpu=1,lea=3"]) == 2
    assert "no key 'lea'" in capsys.readouterr().err


def test_commands__failures_of_a_changed_bit(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["failures", "--changed-bit", "dynamic-pamt"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert sum("TDX_FEATURES0 changed" in line for line in lines) == 12 and len(lines) == 27
    assert any(line.startswith("dynamic-pamt   1 -> 0") and "-EIO" in line for line in lines)
