"""The command line: what is listed, what is printed, exit codes, one line for bad input, never a traceback."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from seamref import mint
from seamref.cli import command_names, load_command, main
from seamref.host.image import TDX_BLOB_V1, build

IMAGE = mint.module_image()
SIGSTRUCT = mint.sigstruct(IMAGE)


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    held = {"module": IMAGE, "sigstruct": SIGSTRUCT, "blob": build(SIGSTRUCT, IMAGE),
            "acm": mint.acm(mint.pseamldr_image()), "text": b"Lorem ipsum" * 100, "empty": b""}
    for name, data in held.items():
        (tmp_path / name).write_bytes(data)
    return {name: str(tmp_path / name) for name in held} | {"out": str(tmp_path / "out"), "dir": str(tmp_path)}


def ran(capsys: pytest.CaptureFixture[str], *args: str) -> tuple[int, str, str]:
    code = main(args)
    out, err = capsys.readouterr()
    return code, out, err


def complaint(capsys: pytest.CaptureFixture[str], *args: str) -> str:
    """The one line that bad input gets."""
    code, out, err = ran(capsys, *args)
    assert code == 2, out + err
    assert err.endswith("\n")
    assert err.count("\n") == 1
    assert "Traceback" not in err
    return err


# --- the registry


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = ran(capsys, "--help")
    assert code == 0
    for name in command_names():
        assert f"  {name} " in out
        assert load_command(name).HELP in out
    assert {"inspect", "verify", "blob", "layout", "msr", "clause", "plan"} <= set(command_names())


@pytest.mark.parametrize("name", command_names())
def test_every_command_has_help_and_complains_in_one_line(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = ran(capsys, name, "--help")
    assert code == 0
    assert f"python -m seamref {name}" in out
    complaint(capsys, name, "--no-such-option", "x")


def test_underscores_are_hyphens(capsys: pytest.CaptureFixture[str]) -> None:
    assert ran(capsys, "seamcall_table", "--help") == ran(capsys, "seamcall-table", "--help")


def test_bad_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert "no command 'frobnicate'; there are " in complaint(capsys, "frobnicate")
    assert "unrecognized arguments" in complaint(capsys, "--frobnicate", "x")
    assert ran(capsys)[0] == 2
    assert ran(capsys, "--version")[1].startswith("seamref ")


def test_naming_one_command_imports_no_other() -> None:
    code = ("import sys; from seamref.cli import main; main(['plan', '--help']);"
            "print(*[m for m in sys.modules if m.startswith('seamref.')], file=sys.stderr)")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert set(done.stderr.split()) == {"seamref.cli", "seamref.errors", "seamref.commands", "seamref.commands.plan"}


def test_a_reader_that_goes_away_is_no_error() -> None:
    command = f"{sys.executable} -m seamref clause | head -1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=120)
    assert done.stdout.splitlines()[-1] in ("141", "0")
    assert done.stderr == ""


# --- inspect


@pytest.mark.parametrize("name", ["module", "sigstruct", "blob", "acm"])
def test_inspect_shows_each_kind(name: str, files: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = ran(capsys, "inspect", files[name])
    assert code == 0
    assert {"module": "e_entry", "sigstruct": "seamhash", "blob": "offset_of_module", "acm": "SeSvn"}[name] in out
    assert "BAD" not in out
    code, out, _ = ran(capsys, "inspect", "--json", files[name])
    held = json.loads(out)
    assert (code, held["kind"], held["good"]) == (0, name, True)
    assert held["sections"][0]["fields"][0]["offset"] == 0


def test_inspect_says_no_with_1(files: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    Path(files["sigstruct"]).write_bytes(mint.sigstruct(IMAGE, size=1))
    code, out, _ = ran(capsys, "inspect", files["sigstruct"])
    assert code == 1
    assert "[must be 0x200: BAD]" in out


def test_inspect_of_what_is_nothing(files: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    assert "file starts 4c6f72656d" in complaint(capsys, "inspect", files["text"])
    assert "file is empty" in complaint(capsys, "inspect", files["empty"])
    assert "No such file" in complaint(capsys, "inspect", files["out"])
    assert "Is a directory" in complaint(capsys, "inspect", files["dir"])
    assert "SEAM_SIGSTRUCT" in complaint(capsys, "inspect", files["empty"], "--as", "sigstruct")
    assert "no kind of file 'zip'" in complaint(capsys, "inspect", files["blob"], "--as", "zip")


# --- verify


def verify(capsys: pytest.CaptureFixture[str], *args: str) -> tuple[int, str]:
    code, out, err = ran(capsys, "verify", *args, "--signer", "test")
    assert err == ""
    return code, out


def test_verify_prints_the_memory_plan(files: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    code, out = verify(capsys, files["blob"], "--sockets", "1", "--lps", "2")
    assert code == 0
    assert "RAX = 0x0000000000000000 SUCCESS, RDX = 0" in out
    for region in ("SYS_INFO_TABLE", "2 VMCSs", "page tables and PML4", "stacks", "code"):
        assert region in out
    assert verify(capsys, files["module"], "--sigstruct", files["sigstruct"], "--sockets", "1", "--lps", "2")[1] == out


def test_verify_names_the_check_that_stops_it(files: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    code, out = verify(capsys, files["blob"], "--fms", "0xA06D1", "--running-svn", "1.4")
    assert code == 1
    assert "stops   INSTALL.manifest.cpuid" in out
    assert "0x8000000000010004 EUNSUPCPU, RDX = 0\nthe module that ran before still runs" in out
    code, out = verify(capsys, files["blob"], "--scenario", "update", "--running-svn", "1.9")
    assert "stops   INSTALL.manifest.minor_svn" in out
    assert "INSTALL.manifest.major_svn" in verify(
        capsys, files["blob"], "--scenario", "update", "--running-svn", "0x0205")[1]
    broken = mint.sigstruct(IMAGE, seamhash=bytes(48))
    Path(files["sigstruct"]).write_bytes(broken)
    code, out = verify(capsys, files["module"], "--sigstruct", files["sigstruct"], "--running-svn", "1.4")
    assert (code, out.splitlines()[-1]) == (1, "the module that ran before is gone")


def test_verify_as_json(files: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    code, out = verify(capsys, files["blob"], "--json", "--lps", "4")
    held = json.loads(out)
    assert (code, held["accepted"], held["rax"], held["stopped"]) == (0, True, "0x0", None)
    assert held["plan"][0]["region"] == "SYS_INFO_TABLE"
    assert verify(capsys, files["blob"], "--lps", "4", "--all")[1].count("silent") == len(held["asked"])


def test_verify_takes_a_platform_file(files: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    Path(files["out"]).write_text('{"sockets": 1, "lps": 2, "seamrr-size": "64M", "fms": ["0x806F8"]}')
    direct = verify(capsys, files["blob"], "--sockets", "1", "--lps", "2", "--seamrr-size", "64M", "--fms", "0x806F8")
    assert verify(capsys, files["blob"], "--platform", files["out"]) == direct
    Path(files["out"]).write_text('{"sockets": 1, "cores": 2}')
    assert "must be an object with sockets" in complaint(capsys, "verify", files["blob"], "--platform", files["out"])
    Path(files["out"]).write_text("{")
    assert "not JSON" in complaint(capsys, "verify", files["blob"], "--platform", files["out"])


@pytest.mark.parametrize(("options", "says"), [
    (["--sockets", "9"], "Topology.sockets: 9"), (["--lps", "many"], "--lps: 'many', must be a number"),
    (["--fms", "SPR"], "--fms: 'SPR'"), (["--seamldr", "9.9.9"], "Target.seamldr"),
    (["--signer", "zz"], "--signer: 'zz'"),
    (["--running-svn", "x"], "--running-svn: 'x'"),
    (["--seamrr-size", "48M"], "SEAMRR: 0x3000000 bytes, must be a power of two"),
    (["--scenario", "sideways"], "--scenario"),
])
def test_verify_of_a_platform_that_cannot_be(options: list[str], says: str, files: dict[str, str],
                                             capsys: pytest.CaptureFixture[str]) -> None:
    assert says in complaint(capsys, "verify", files["blob"], *options)


def test_verify_finds_the_other_half_of_a_module(files: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    size = ("--sockets", "1", "--lps", "2")
    expected = verify(capsys, files["blob"], *size)
    assert verify(capsys, files["sigstruct"], "--image", files["module"], *size) == expected
    assert "a sigstruct needs its module: --image" in complaint(capsys, "verify", files["sigstruct"])
    for name, data in (("m.bin", IMAGE), ("m.sigstruct", SIGSTRUCT)):
        Path(files["dir"], name).write_bytes(data)
    for name in ("m.bin", "m.sigstruct"):
        assert verify(capsys, str(Path(files["dir"], name)), *size) == expected


def test_verify_of_what_is_no_module(files: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    assert "needs --sigstruct" in complaint(capsys, "verify", files["module"])
    assert "SEAM_SIGSTRUCT: 0 bytes" in complaint(capsys, "verify", files["module"], "--sigstruct", files["empty"])


# --- blob


def test_blob_join_split_convert_check(files: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    out, again = Path(files["out"]), Path(files["dir"]) / "again"
    assert ran(capsys, "blob", "join", files["module"], files["sigstruct"], str(out))[0] == 0
    assert out.read_bytes() == Path(files["blob"]).read_bytes()
    assert ran(capsys, "blob", "split", str(out), str(again), files["sigstruct"], "--force")[0] == 0
    assert (again.read_bytes(), Path(files["sigstruct"]).read_bytes()) == (IMAGE, SIGSTRUCT)
    code, said, _ = ran(capsys, "blob", "convert", files["blob"], str(out), "--force")
    assert (code, "format 2.0" in said) == (0, True)
    assert ran(capsys, "blob", "convert", str(out), str(again), "--force")[0] == 0
    assert again.read_bytes() == Path(files["blob"]).read_bytes()
    code, said, _ = ran(capsys, "blob", "check", files["blob"], "--kernel", "merged")
    assert (code, "kernel merged: -EINVAL by IMAGE2.length" in said) == (1, True)
    assert ran(capsys, "blob", "check", files["blob"])[0] == 0
    assert ran(capsys, "blob", "check", str(out), "--kernel", "merged")[0] == 0


def test_blob_join_in_format_2(files: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    assert ran(capsys, "blob", "join", files["module"], files["sigstruct"], files["out"], "--format", "2")[0] == 0
    assert Path(files["out"]).read_bytes()[4:12] == b"TDX-BLOB"


def test_blob_demo_shows_why_a_published_file_is_refused_and_what_helps(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = ran(capsys, "blob", "demo")
    assert code == 0
    before, after = out.split("the same, converted")
    assert "kernel merged: -EINVAL by IMAGE2.length" in before
    assert "kernel merged: taken, 8 module pages" in after
    assert out.endswith("converting back gives the published file: yes\n")


def test_blob_of_what_is_none(files: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("module", "text", "empty"):
        assert "no TDX-BLOB at offset 8" in complaint(capsys, "blob", "convert", files[name], files["out"])
        assert ran(capsys, "blob", "check", files[name])[0] == 1
    assert "SEAM_SIGSTRUCT: 0 bytes" in complaint(capsys, "blob", "join", files["module"], files["empty"], files["out"])
    data = bytearray(Path(files["blob"]).read_bytes())
    TDX_BLOB_V1.poke(data, "length", 1)
    Path(files["blob"]).write_bytes(data)
    said = complaint(capsys, "blob", "split", files["blob"], files["out"], files["out"])
    assert "TDX_BLOB_V1.length at 0x10: 0x1: length is not the size of the file (clause BLOB1.length)" in said
    assert "no version 'v77'" in complaint(capsys, "blob", "check", files["blob"], "--kernel", "v77")
    assert "blob" in complaint(capsys, "blob")


# --- layout and clause


def test_layout_lists_and_prints_tables(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = ran(capsys, "layout")
    assert code == 0
    for name in ("SEAM_SIGSTRUCT", "SEAMLDR_PARAMS", "TDX_BLOB_V2", "P_SYS_INFO_TABLE", "ACM_HEADER", "ELF64_RELA"):
        assert f"\n{name} " in "\n" + out
    code, out, _ = ran(capsys, "layout", "seam_sigstruct")
    assert "  900 0x384      48  seamhash" in out
    held = json.loads(ran(capsys, "layout", "SEAM_SIGSTRUCT", "--json")[1])
    assert (held["size"], held["fields"][-1]["offset"]) == (2048, 1028)
    assert len(json.loads(ran(capsys, "layout", "--json")[1])["layouts"]) > 20
    assert "did you mean SEAM_SIGSTRUCT" in complaint(capsys, "layout", "sigstruct")
    assert "no structure 'nothing'" in complaint(capsys, "layout", "nothing")


def test_clause_says_source_and_who_implements_it(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = ran(capsys, "clause", "SIG.signed")
    assert code == 0
    assert "source: PSL src/common/crypto/rsa.c" in out
    assert "implemented by seamref/pseamldr/sigstruct.py:" in out
    assert "row 3 of check table KERNEL_IMAGE_V2" not in ran(capsys, "clause", "IMAGE2.header")[1]
    assert "row 1 of check table KERNEL_IMAGE_V2" in ran(capsys, "clause", "IMAGE2.header")[1]
    held = json.loads(ran(capsys, "clause", "elf.", "--json")[1])["clauses"]
    assert {row["id"] for row in held} >= {"ELF.magic", "ELF.relocate"}
    assert all(row["implemented_by"] for row in held)
    assert "no clause 'NO.SUCH'" in complaint(capsys, "clause", "NO.SUCH")
    everything = ran(capsys, "clause")[1].splitlines()
    assert len(everything) > 300


@pytest.mark.parametrize("mark", ["stated", "measured", "chosen"])
def test_clause_mark_lists_what_is_known_in_one_way_and_nothing_else(
    mark: str, capsys: pytest.CaptureFixture[str]
) -> None:
    held = json.loads(ran(capsys, "clause", "--mark", mark, "--json")[1])["clauses"]
    every = json.loads(ran(capsys, "clause", "--json")[1])["clauses"]
    assert held and held == [row for row in every if row["mark"] == mark]
    code, out, _ = ran(capsys, "clause", "--mark", mark)
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()] == [row["id"] for row in held]


def test_clause_mark_narrows_a_part_of_an_id_and_says_when_nothing_is_left(capsys: pytest.CaptureFixture[str]) -> None:
    held = json.loads(ran(capsys, "clause", "INSTALL.manifest", "--mark", "measured", "--json")[1])["clauses"]
    assert held and {row["mark"] for row in held} == {"measured"}
    assert all("INSTALL.manifest" in row["id"] for row in held)
    assert ran(capsys, "clause", "ACM.signed", "--mark", "chosen")[0] == 0
    assert "none is measured: clause ACM.signed is chosen" in complaint(
        capsys, "clause", "ACM.signed", "--mark", "measured")
    assert "no clause 'NO.SUCH'" in complaint(capsys, "clause", "NO.SUCH", "--mark", "stated")


# --- plan


def test_plan_answers_the_question_of_the_book(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = ran(capsys, "plan", "--running", "1.5.05", "--seamldr", "1.5.00", "--cpu", "0x806F8")
    assert code == 0
    assert "  1.5.16  choice\n" in out
    assert "  1.5.01  no  PLAN.minor_svn" in out
    assert "published script: newest 1.5.16, installs 1.5.16" in out
    code, out, _ = ran(capsys, "plan", "--seamldr", "1.5.00", "--cpu", "0xA06D1", "--json")
    assert (code, json.loads(out)["choice"]) == (1, None)
    out = ran(capsys, "plan", "--running", "1.5.16", "--seamldr", "1.5.00", "--cpu", "0x806F8", "--all-flaws")[1]
    assert out.count("  flaw ") == 18


def test_plan_with_a_mapping_file(files: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    entry = {"version": "1.5.24", "min_module_version_for_td_preserving": "1.5.01", "min_seamldr_versions": ["1.5.00"],
             "tdx_feature0": "0x1"}
    Path(files["out"]).write_text(json.dumps({"tdx_module_releases": [entry]}))
    args = ("plan", "--running", "1.5.16", "--seamldr", "1.5.00", "--cpu", "0x806F8", "--mapping", files["out"])
    code, out, _ = ran(capsys, *args)
    assert code == 0
    assert "1.5.24  choice  (only the mapping file names it" in out
    Path(files["out"]).write_bytes(b"\xff\xfe{")
    assert "not JSON" in complaint(capsys, *args)


@pytest.mark.parametrize(("args", "says"), [
    (["--seamldr", "1.5.00", "--cpu", "SPR"], "--cpu: SPR"),
    (["--seamldr", "1.5", "--cpu", "1"], "P-SEAMLDR: '1.5'"),
    (["--seamldr", "1.5.00", "--cpu", "1", "--running", "new"], "running module: 'new'"),
    (["--cpu", "1"], "--seamldr"),
    (["--seamldr", "1.5.00", "--cpu", "1", "--mapping", "/no/such/file"], "/no/such/file: No such file"),
])
def test_plan_of_what_cannot_be(args: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert says in complaint(capsys, "plan", *args)
