"""explain: every status, errno and message that the rest of this package can produce has a reading."""

from __future__ import annotations

import io
import json
import re

import pytest

from seamref.cli import main
from seamref.diagnose.calls import CALLS
from seamref.diagnose.explain import _ERRNO, _FW_ERRORS, INIT_ERRNO, explain, explain_log, explain_value
from seamref.diagnose.lines import FORMS
from seamref.diagnose.names import loader_leaves, module_leaves
from seamref.diagnose.reading import Kind
from seamref.errors import SeamrefError
from seamref.host import abi
from seamref.host.abi import Errno
from seamref.host.fw_upload import FwError
from seamref.pseamldr.api import Status as LoaderStatus
from seamref.spec import CLAUSES
from seamref.tdxmodule.status import Status as ModuleStatus


def text_of(line: str) -> str:
    return "\n".join(e.text() for e in explain(line))


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
    (named,) = explain(status.name)
    assert status.name in named.what and named.clauses == found[0].clauses
    assert "operand" not in named.what, "the name states no operand"


def test_explain__operand_details_are_read() -> None:
    assert "operand RCX" in explain("0xC000010000000001")[0].what
    assert "operand SEPT_TREE" in explain("TDX_OPERAND_BUSY | TDX_OPERAND_ID_SEPT")[0].what
    assert "operand TDR" in explain("oops: TDX_OPERAND_BUSY | TDX_OPERAND_ID_TDR again")[0].what


def test_explain__a_number_has_all_its_readings() -> None:
    assert [e.component for e in explain("0x8000000000000001")] == ["NP-SEAMLDR", "a call of P-SEAMLDR"]
    assert [e.component for e in explain("0x8000000000010002")][:2] == ["P-SEAMLDR", "NP-SEAMLDR"]
    assert explain("VMfailInvalid")[0].what.endswith("TDX_SEAMCALL_VMFAILINVALID") and explain("#UD")
    assert explain("34")[0].what.endswith("TDH.SYS.RD") and explain("TDH.SYS.RD")[0].what.endswith("TDH.SYS.RD")
    assert explain("0x123456789ABCDEF0") == [] and explain("hello") == [] and explain("") == []
    with pytest.raises(SeamrefError, match="64 bits"):
        explain_value(1 << 64)
    for digits in ("9" * 5000, "0x" + "f" * 5000, "1" * 25):
        with pytest.raises(SeamrefError, match="64 bits"):
            explain(digits)


@pytest.mark.parametrize(("number", "name"), [*module_leaves().items(), *loader_leaves().items()])
def test_explain__every_leaf_by_number_and_by_name(number: int, name: str) -> None:
    assert any(e.what.endswith(f"leaf {name}") for e in explain(hex(number)))
    for word in (name, name.lower(), name.replace(".", "_")):
        assert explain(word)[0].what == f"0x{number:X}  leaf {name}", word


def test_explain__sixty_eight_leaves_of_the_module() -> None:
    assert len(module_leaves()) >= 68 and len(loader_leaves()) == 4


def test_explain__zero_padded_and_bare_hexadecimal() -> None:
    assert text_of("0000000000000022").startswith("0x22  leaf TDH.SYS.RD")
    assert "TDX_PAGE_METADATA_INCORRECT" in text_of("c000030000000001")
    assert "leaf TDH.SYS.KEY.CONFIG" in text_of("0000001f") and "TDH.MNG.INIT" in text_of("21")


@pytest.mark.parametrize("value", [abi.TDX_SEAMCALL_VMFAILINVALID, abi.TDX_SEAMCALL_GP, abi.TDX_SEAMCALL_UD])
def test_explain__software_defined_values(value: int) -> None:
    (found,) = explain(hex(value))
    assert found.component.startswith("Linux") and set(found.clauses) <= set(CLAUSES)
    assert explain(found.what.split()[-1]) == [found]


def test_explain__another_vector_on_SEAMCALL_and_no_address() -> None:
    assert "vector 14" in explain_value(abi.TDX_SW_ERROR | 14)[0].what
    assert explain("0xffffffff82000000") == [], "a kernel address is no exception on SEAMCALL"


@pytest.mark.parametrize("errno", list(_ERRNO), ids=lambda e: e.name)
def test_explain__every_errno_by_name_and_number_and_as_the_error_of_our_file(errno: Errno) -> None:
    for text in (f"-{errno.name}", str(int(errno)), f"cat: error: {abi.ERRNO_TEXT[errno]}"):
        (found,) = explain(text)
        assert found.what == _ERRNO[errno].what, text
    assert set(_ERRNO) == set(Errno) - {Errno.OK}
    (foreign,) = explain(f"write: {abi.ERRNO_TEXT[errno]}")
    assert not foreign.known and "not in the line" in foreign.what


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
    assert "TDH.MEM.SEPT.ADD (leaf 0x3) version 1" in text_of("virt/tdx: SEAMCALL (0x0000000000010003) failed: "
                                                              "0xc000050500000000")


INSTALL_FAILURES = [s for s in LoaderStatus if s is not LoaderStatus.SUCCESS]


@pytest.mark.parametrize("status", INSTALL_FAILURES, ids=lambda s: s.name)
def test_CALL_install__what_Linux_printed_in_an_update_is_never_recoverable(status: LoaderStatus) -> None:
    """P-SEAMLDR's own view may be "nothing was changed"; the host's comes first: the module was shut down before."""
    line = f"seamldr: SEAMCALL (0x8000000000000001) failed: 0x{int(status):016x}"
    host, own = explain(line)
    assert host.recoverable.startswith("no") and "reboot" in host.advice
    assert status.name in own.what and own.recoverable.startswith("for P-SEAMLDR alone") and "reboot" in own.advice


def test_CALL_info__a_failed_SEAMLDR_INFO_loses_nothing() -> None:
    (head, _) = explain("seamldr: SEAMCALL (0x8000000000000000) failed: 0x8000000000000000")
    assert head.recoverable.startswith("yes") and "reboot" not in head.text()


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
        assert any(e.known for e in explain(line)), line


def test_explain__clauses_named_in_tables_exist() -> None:
    import seamref.host.install
    import seamref.host.tdx
    import seamref.host.update
    import seamref.tdxmodule.program  # noqa: F401

    for said in (*FORMS, *_ERRNO.values(), *CALLS):
        assert set(said.clauses) <= set(CLAUSES), said
    assert len({form.id for form in FORMS}) == len(FORMS)
    assert set(INIT_ERRNO) <= {-5, -12, -13, -19, -22, -28, -95}


def test_explain_command__arguments_lines_and_exit_codes(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["explain", "0x8000000000020001"]) == 0
    assert "EBADHASH" in capsys.readouterr().out
    assert main(["explain", "-ENODEV", "-19"]) == 0
    assert capsys.readouterr().out.count("-ENODEV (-19)") == 2
    monkeypatch.setattr("sys.stdin", io.StringIO("virt/tdx: module not loaded\n\nnonsense\n"))
    assert main(["explain"]) == 1
    out = capsys.readouterr().out
    assert "TDH.SYS.INIT is the first call" in out and "nonsense: nothing is known" in out
    assert main(["explain", "0x1FFFFFFFFFFFFFFFF"]) == 2 and main(["explain", "7" * 5000]) == 2
    capsys.readouterr()
    monkeypatch.setattr("sys.stdin", None)
    assert main(["explain"]) == 2 and "standard input is closed" in capsys.readouterr().err


def test_explain_command__json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "--json", "virt/tdx: SEAMCALL (0x22) failed: 0xc000050500000000", "hello"]) == 1
    said = json.loads(capsys.readouterr().out)
    assert said["format"] == "seamref-explain/1" and said["seamref"]
    first, second = said["answers"]
    assert first["readings"][0]["form"] == "CALL.too_old" and second == {
        "line": "hello", "number": None, "known": False, "readings": []}


def test_explain_command__a_file_is_read_as_a_log(capsys: pytest.CaptureFixture[str], tmp_path: object) -> None:
    from pathlib import Path

    log = Path(str(tmp_path)) / "dmesg.txt"
    log.write_text("[    1.0] usb 1-1: new device\n" * 300 + "[    2.0] virt/tdx: module not loaded\n")
    assert main(["explain", str(log)]) == 0
    out = capsys.readouterr().out
    assert "line 301:" in out and "301 lines, 1 that may have to do with TDX, 0 of these not known" in out


def test_explain__registers_belong_to_the_call_before() -> None:
    report = explain_log([
        "virt/tdx: SEAMCALL (0x0000000000000015) failed: 0xc000010000000045",
        "virt/tdx: RCX 0x0000000500000007 RDX 0x0000000000000000 R08 0x0000000000000000",
        "virt/tdx: R09 0x0000000000000000 R10 0x0000000000000000 R11 0x0000000000000000",
        "virt/tdx: module initialization failed (-5)",
    ])
    assert report.unknown == 0 and "CPUID leaf 0x7, subleaf 0x5" in report.answers[1].readings[0].causes[0]
    assert report.answers[3].readings[0].kind is Kind.CONSEQUENCE
    alone = explain("virt/tdx: RCX 0x1 RDX 0x0 R08 0x0")[0]
    assert "not here" in alone.what


def test_explain__the_module_line_decides_what_not_ready_means() -> None:
    failed = "virt/tdx: SEAMCALL (0x0000000000000022) failed: 0xc000050500000000"
    module = "virt/tdx: TDX module: attributes 0x0, vendor_id 0x8086, major_version 1, minor_version {}, build_date {}"
    old = explain_log([module.format(0, "20230206, build_num 457"), failed]).answers[1].readings[0]
    assert old.form == "CALL.too_old" and "line 1.0" in old.causes[0] and "20230206" in old.causes[1]
    new = explain_log([module.format(5, "20240725, build_num 784"), failed]).answers[1].readings[0]
    assert new.form == "CALL.not_ready_unclear" and new.recoverable == "not known"
    later = explain("virt/tdx: SEAMCALL (0x0000000000000024) failed: 0xc000050500000000")[0]
    assert later.form == "CALL.not_ready", "a leaf that needs SYS_READY: no word on the module's age"


def test_explain__no_number_is_taken_out_of_a_line() -> None:
    for line in ("[   14.000034] usb 3-3: new device 34", "Jul 08 09:10:11 box app[33]: 2021 items, 35 left",
                 "kernel 6.8.0-1013 #20", "virt/tdx: something new (34)", "foo: -5", "CPU 7: 0x22", "0x22 0x23"):
        assert explain(line) == [], line
    assert "VMfailInvalid" in text_of("TDX Module not loaded") and "Hibernation" not in text_of("Hibernation is "
                                                                                                "enabled")
    assert len(explain("ENOMEM")) == 2, "P-SEAMLDR's status, and an errno"
    assert re.search(r"a status in this line", text_of("weird: ended with 0xc000050600000000, at 12.5"))
