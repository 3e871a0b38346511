"""explain: every status, errno and message that the rest of this package can produce has a reading."""

from __future__ import annotations

import re

import pytest

from seamref.cli import main
from seamref.diagnose.explain import _ERRNO, _FW_ERRORS, _LINES, explain, explain_value
from seamref.errors import SeamrefError
from seamref.host import abi
from seamref.host.abi import Errno
from seamref.host.records import FwError
from seamref.pseamldr.api import Status as LoaderStatus
from seamref.spec import CLAUSES
from seamref.tdxmodule.status import Status as ModuleStatus


@pytest.mark.parametrize("status", list(LoaderStatus), ids=lambda s: s.name)
def test_explain__every_P_SEAMLDR_status(status: LoaderStatus) -> None:
    found = [e for e in explain_value(int(status)) if e.component == "P-SEAMLDR"]
    assert len(found) == 1 and status.name in found[0].what and found[0].advice
    assert found[0].clauses or status in (LoaderStatus.SUCCESS, LoaderStatus.EINTERRUPT)
    by_name = explain(status.name)
    assert by_name[0].what == found[0].what


@pytest.mark.parametrize("status", list(ModuleStatus), ids=lambda s: s.name)
def test_explain__every_TDX_module_status(status: ModuleStatus) -> None:
    found = [e for e in explain_value(int(status)) if e.component.startswith("TDX module")]
    assert found and status.name in found[0].what and found[0].recoverable and found[0].causes
    assert explain(status.name)[0].what == found[0].what


def test_explain__operand_details_are_read() -> None:
    assert "operand RCX" in explain("0xC000010000000001")[0].what


def test_explain__a_number_has_all_its_readings() -> None:
    assert [e.component for e in explain("0x8000000000000001")] == ["NP-SEAMLDR", "a call of P-SEAMLDR"]
    assert [e.component for e in explain("0x8000000000010002")][:2] == ["P-SEAMLDR", "NP-SEAMLDR"]
    assert explain("VMfailInvalid")[0].what.endswith("TDX_SEAMCALL_VMFAILINVALID") and explain("#UD")
    assert explain("34")[0].what.endswith("TDH.SYS.RD") and explain("TDH.SYS.RD")[0].what.endswith("TDH.SYS.RD")
    assert explain("17")[0].component == "TDX module"
    assert explain("0x123456789ABCDEF0") == [] and explain("hello") == [] and explain("") == []
    with pytest.raises(SeamrefError, match="64 bits"):
        explain_value(1 << 64)


@pytest.mark.parametrize("value", [abi.TDX_SEAMCALL_VMFAILINVALID, abi.TDX_SEAMCALL_GP, abi.TDX_SEAMCALL_UD])
def test_explain__software_defined_values(value: int) -> None:
    (found,) = explain(hex(value))
    assert found.component.startswith("Linux") and set(found.clauses) <= set(CLAUSES)
    assert explain(found.what.split()[-1]) == [found]


def test_explain__another_vector_on_SEAMCALL() -> None:
    assert "vector 14" in explain_value(abi.TDX_SW_ERROR | 14)[0].what


@pytest.mark.parametrize("errno", list(_ERRNO), ids=lambda e: e.name)
def test_explain__every_errno_by_name_number_and_text(errno: Errno) -> None:
    for text in (f"-{errno.name}", str(int(errno)), f"cat: error: {abi.ERRNO_TEXT[errno]}"):
        assert explain(text) == [_ERRNO[errno]], text
    assert set(_ERRNO) == set(Errno) - {Errno.OK}


@pytest.mark.parametrize("error", list(FwError), ids=lambda e: e.value)
def test_explain__every_upload_error(error: FwError) -> None:
    (found,) = explain(f"transferring:{error.value}")
    assert found.what == f"fw_upload error {error.value} while transferring"
    assert error.value in _FW_ERRORS


def test_explain__a_failed_SEAMCALL_line_decides_between_the_components() -> None:
    loader = explain("[   12.3] seamldr: SEAMCALL (0x8000000000000001) failed: 0x8000000000020001")
    assert [e.component for e in loader][1] == "P-SEAMLDR" and "EBADHASH" in loader[1].what
    module = explain("virt/tdx: SEAMCALL (0x0000000000000034) failed: 0xc000010000000001")
    assert "TDX_OPERAND_INVALID" in module[1].what and "TDH.SYS.SHUTDOWN" in module[0].what
    assert "no status" in explain("SEAMCALL (0x8000000000000001) failed: 0x1234567800000000")[1].what


def test_explain__every_line_of_a_failed_and_of_a_good_run_is_known() -> None:
    from seamref.host.install import seamldr_install_module
    from seamref.host.machine import blob, machine
    from seamref.host.series import SERIES

    lines: set[str] = set()
    for name in ("v2", "v7", "v10", "merged"):
        host = machine(2, series=SERIES[name])
        seamldr_install_module(host, blob("2.0.05", version=0x100 if name in ("v2", "v7") else 0x200))
        lines |= set(host.state.dmesg)
    assert len(lines) > 4
    for line in lines:
        assert explain(line) or re.search(r"R(CX|09) 0x", line), line


def test_explain__clauses_named_in_tables_exist() -> None:
    import seamref.host.install
    import seamref.host.tdx  # noqa: F401

    for _, known in _LINES:
        assert set(known.clauses) <= set(CLAUSES), known.what
    for known in _ERRNO.values():
        assert set(known.clauses) <= set(CLAUSES), known.what


def test_explain_command__arguments_lines_and_exit_codes(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import io

    assert main(["explain", "0x8000000000020001"]) == 0
    assert "EBADHASH" in capsys.readouterr().out
    assert main(["explain", "-ENODEV", "-19"]) == 0
    assert capsys.readouterr().out.count("-ENODEV (-19)") == 2
    monkeypatch.setattr("sys.stdin", io.StringIO("virt/tdx: module not loaded\n\nnonsense\n"))
    assert main(["explain"]) == 1
    out = capsys.readouterr().out
    assert "TDH.SYS.INIT met VMfailInvalid" in out and "nonsense: nothing is known" in out
    assert main(["explain", "0x1FFFFFFFFFFFFFFFF"]) == 2
