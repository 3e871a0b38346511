"""The commands that answer questions 1 to 7."""

from __future__ import annotations

import pytest

from seamref.cli import main


def run(capsys: pytest.CaptureFixture[str], line: str) -> tuple[int, str, str]:
    code = main(line.split())
    said = capsys.readouterr()
    return code, said.out, said.err


def test_seamcall_names_outcome_clause_and_path(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "seamcall --mode guest --cpl 3 --revision 343754-002")
    assert code == 0
    assert out.splitlines()[-1] == "VM exit 76 (SEAMCALL), decided by SEAMCALL.non_root (343754-002)"
    code, out, _ = run(capsys, "seamcall --mode guest --cpl 3")
    assert out.splitlines()[-1] == "#GP(0), decided by SEAMCALL.cpl (silicon)"


@pytest.mark.parametrize(
    ("options", "clause"),
    [
        ("--mode outside-vmx", "SEAMCALL.vmx"),
        ("--mode smm", "SEAMCALL.smm"),
        ("--mode seam", "SEAMCALL.inSEAM_root"),
        ("--not-64bit", "SEAMCALL.64bit"),
        ("--seamrr-off", "SEAMCALL.seamrr"),
        ("--mov-ss", "SEAMCALL.mov_ss"),
        ("--module-not-loaded", "SEAMCALL.module_not_ready"),
        ("--to p-seamldr --mutex-held", "SEAMCALL.p_seamldr_busy"),
        ("--to p-seamldr --p-seamldr-not-loaded", "SEAMCALL.p_seamldr_not_ready"),
        ("", "SEAMCALL.enter"),
    ],
)
def test_each_option_reaches_its_clause(capsys: pytest.CaptureFixture[str], options: str, clause: str) -> None:
    _, out, _ = run(capsys, f"seamcall {options}")
    assert f"decided by {clause} (silicon)" in out


def test_seamcall_shows_every_seat_and_revision(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = run(capsys, "seamcall --everywhere --all-revisions")
    assert len(out.splitlines()) == 11 * 4
    assert "td           CPL 0  343754-002   #UD" in out


def test_VMfailInvalid_looks_the_same_in_its_three_situations(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = run(capsys, "seamcall --vmfail")
    seen = {line.split("  ", 1)[1].rsplit("(", 1)[0].strip() for line in out.splitlines()}
    assert seen == {"VMfailInvalid  CF=1  RAX unchanged"} and len(out.splitlines()) == 3


def test_access_is_judged(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "access host 0x7C001000")
    assert code == 1 and "decided by MEMORY.module_range" in out
    code, out, _ = run(capsys, "access module 0x7C001000 --write")
    assert code == 0 and out.splitlines()[-1] == "allowed"
    code, out, _ = run(capsys, "access host 0x100000 --keyid 33")
    assert code == 1 and "#PF(9)" in out
    code, out, _ = run(capsys, "access host 0x7C001000 --denied fault")
    assert "#GP(0)" in out


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("access", "an agent and an address"),
        ("access ghost 0", "no agent 'ghost'; did you mean host or guest"),
        ("access host zero", "'zero' is no number"),
        ("access host 0 --size 0", "size must be 1 to 4096"),
        ("access host 0 --keyid 64", "--keyid: 64, must be 0 to 63"),
        ("msr foo", "'foo' is no number"),
        ("msr 0x1409 --value 1", "not modelled: MSR 0x1409"),
        ("seamcall --revision 343754-009", "no revision '343754-009'"),
    ],
)
def test_nonsense_gets_one_line_that_says_what_is_wrong(
    capsys: pytest.CaptureFixture[str], line: str, said: str
) -> None:
    code, out, err = run(capsys, line)
    assert code == 2 and out == "" and said in err and len(err.splitlines()) == 1


def test_seamret_loses_the_vmcs_from_p_seamldr_only(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = run(capsys, "seamret --revision silicon")
    rows = [" ".join(line.split()) for line in out.splitlines()]
    assert rows == [
        "module IA32_VMX_BASIC[60]=0 silicon left TDX module current VMCS 0x11000 VMRESUME: entered guest",
        "module IA32_VMX_BASIC[60]=1 silicon left TDX module current VMCS 0x11000 VMRESUME: entered guest",
        "p-seamldr IA32_VMX_BASIC[60]=0 silicon left P-SEAMLDR, current VMCS lost current VMCS none "
        "VMRESUME: VMfailInvalid",
        "p-seamldr IA32_VMX_BASIC[60]=1 silicon left P-SEAMLDR current VMCS 0x11000 VMRESUME: entered guest",
    ]


def test_msr_decodes_reads_and_writes(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = run(capsys, "msr 0x1401 --value 0x3FFFFC000C00")
    bits = [line.split()[1:3] for line in out.splitlines()[1:] if "size 0x" not in line]
    assert bits == [["mask", "0x1FFFFE"], ["valid", "0x1"], ["lock", "0x1"]]
    code, out, _ = run(capsys, "msr 0x1402 --write 0x7FC10001")
    assert code == 1 and "decided by WRMSR.mode" in out
    code, out, _ = run(capsys, "msr 0x1402 --write 0x7FC10001 --mode p-seamldr")
    assert code == 0 and "done" in out
    code, out, _ = run(capsys, "msr IA32_SEAMEXTEND")
    assert code == 1 and "RDMSR.mode" in out


def test_only_one_reading_of_the_gate_works_with_and_refuses_without_prmrr(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = run(capsys, "msr 0x1402 --gate all")
    done = [" done " in line for line in out.splitlines()]
    assert done == [True, True, True, False, False, False]


def test_an_event_in_SEAM_root_is_fatal_to_everybody_only_if_it_shuts_down(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = run(capsys, "event --mode seam")
    fatal = {line.split()[0] for line in out.splitlines() if "another processor: VMfailInvalid" in line}
    assert fatal == {"mc", "shutdown"}
    _, out, _ = run(capsys, "event --mode host --kind shutdown")
    assert "another processor: entered TDX module" in out
