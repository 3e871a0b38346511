"""The command line's manners: groups, guesses, streams, files whole or not at all; inputs are sized."""

from __future__ import annotations

import gzip
import json
import os
import pty
import resource
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest

import seamref
from seamref.cli import command_names, command_parser, groups, main, resolve
from seamref.commands import ALIASES, EXAMPLES, GROUPS, NO
from seamref.commands import _files as files
from seamref.commands._answer import plain
from seamref.commands._names import guess, pick
from seamref.errors import SeamrefError

ROOT = Path(__file__).resolve().parents[2]
RUN = [sys.executable, "-m", "seamref"]


def shell(command: str, **more: object) -> subprocess.CompletedProcess[str]:
    """A command line with seamref in it, run by bash."""
    line = command.replace("seamref ", f"{shlex.quote(sys.executable)} -m seamref ")
    return subprocess.run(["bash", "-c", line], cwd=ROOT, capture_output=True, text=True, check=False, timeout=120,
                          **more)  # type: ignore[call-overload,no-any-return]


def complaint(capsys: pytest.CaptureFixture[str], *args: str) -> str:
    code = main(args)
    out, err = capsys.readouterr()
    assert code == 2 and err.count("\n") == 1 and "Traceback" not in err, (code, out, err)
    return err


# --- help


def test_every_command_is_in_one_group_and_has_examples_and_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    listed = [name for names in groups().values() for name in names]
    assert sorted(listed) == command_names() and len(set(listed)) == len(listed)
    assert "more" not in groups(), f"in no group: {groups().get('more')}"
    for name in command_names():
        main([name, "--help"])
        text = capsys.readouterr().out
        assert f"examples:\n    python -m seamref {name}" in text, name
        assert "exit codes: 0; " in text and ("; 1 " in text) == (name in NO), name


@pytest.mark.parametrize("line", [line for lines in EXAMPLES.values() for line in lines])
def test_every_example_can_be_parsed(line: str) -> None:
    name, *rest = shlex.split(line.partition(" > ")[0])
    if name in command_names():
        command_parser(name)[0].parse_args(rest)


def test_names_given_up_are_aliases_of_commands() -> None:
    assert all(new in command_names() and old not in command_names() for old, new in ALIASES.items())
    assert resolve("TDX_story") == "module-story" and resolve("SeamCall") == "seamcall" and resolve("nothing") == ""
    assert len({name for names in GROUPS.values() for name in names}) == sum(map(len, GROUPS.values()))


def test_guesses(capsys: pytest.CaptureFixture[str]) -> None:
    assert "did you mean seamcall" in complaint(capsys, "seamcal")
    assert "did you mean --everywhere?" in complaint(capsys, "seamcall", "--everywere")
    assert "did you mean guest?" in complaint(capsys, "seamcall", "--mode", "gest")
    assert "unrecognized arguments: --bogus" in complaint(capsys, "--bogus")
    assert guess("zzz", ["abc"]) == "" and pick("ABC", ["abc"], "thing") == "abc"
    with pytest.raises(SeamrefError, match="no thing 'x'; there are abc, def"):
        pick("x", ["abc", "def"], "thing")


def test_help_and_V(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["-V"]) == 0
    version = capsys.readouterr().out
    assert main(["--version"]) == 0 and capsys.readouterr().out == version
    assert main(["help", "boot"]) == 0
    text = capsys.readouterr().out
    assert main(["boot", "--help"]) == 0 and capsys.readouterr().out == text
    assert main(["help"]) == 0 and "ask the machine:" in capsys.readouterr().out


def test_choices_have_no_case(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["seamcall", "--mode", "GUEST"]) == main(["seamcall", "--mode", "guest"])
    first, second = capsys.readouterr().out.split("VM exit 76")[:2]
    assert first.splitlines()[-1:] == second.splitlines()[-1:] or first


def test_it_calls_itself_as_it_was_called(tmp_path: Path) -> None:
    (tmp_path / "seamref").write_text("import sys\nfrom seamref.__main__ import main\nsys.exit(main())\n")
    done = subprocess.run([sys.executable, str(tmp_path / "seamref"), "boot", "--help"], capture_output=True, text=True,
                          check=True, env={**os.environ, "PYTHONPATH": str(ROOT)}, timeout=60)
    assert "python -m" not in done.stdout and "    seamref boot --sockets" in done.stdout


@pytest.mark.parametrize("kind", ["bash", "zsh"])
def test_completion_is_a_script_that_completes(kind: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["completion", kind]) == 0
    script = capsys.readouterr().out
    if kind == "zsh":
        assert "bashcompinit" in script
        return
    (tmp_path / "script").write_text(script)

    def completed(*words: str) -> list[str]:
        line = (f". {tmp_path}/script; COMP_WORDS=({' '.join(map(shlex.quote, words))}); "
                f"COMP_CWORD={len(words) - 1}; _seamref; printf '%s\\n' \"${{COMPREPLY[@]}}\"")
        return subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=True).stdout.split()

    assert completed("seamref", "seamcall") == ["seamcall", "seamcall-table"]
    assert completed("seamref", "seamcall", "--mode", "g") == ["guest"]
    assert "--everywhere" in completed("seamref", "seamcall", "--e")


def test_manual_page_has_every_command_and_option(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["man"]) == 0
    page = capsys.readouterr().out
    assert page.startswith(".TH SEAMREF 1")
    for name in command_names():
        assert f".B seamref {name.replace('-', chr(92) + '-')}\n" in page
        for action in command_parser(name)[0]._actions:
            for option in action.option_strings:
                assert option in ("-h", "--help") or option.replace("-", "\\-") in page


# --- streams


@pytest.mark.parametrize("line", ["seamref seamcall >&-", "seamref seamcall-table --json >&-", "seamref --help >&-"])
def test_closed_output_is_one_line(line: str) -> None:
    done = shell(line)
    assert (done.returncode, done.stderr) == (2, "seamref: standard output is closed\n")


@pytest.mark.parametrize("line", ["seamref --help", "seamref --version", "seamref seamcall", "seamref clause"])
def test_a_full_disk_behind_standard_output_is_one_line(line: str) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    done = shell(f"{line} >/dev/full")
    assert (done.returncode, done.stderr) == (2, "seamref: standard output: No space left on device\n")


def test_closed_input_and_closed_errors() -> None:
    done = shell("seamref explain <&-")
    assert (done.returncode, done.stderr) == (2, "seamref: standard input is closed\n")
    assert shell("seamref no-such 2>&-").returncode == 2


def test_a_message_cannot_drive_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    assert "\x1b" not in complaint(capsys, "inspect", "a\x1b[31mb")
    assert "\x1b" not in complaint(capsys, "\x1b[31m")


INTERRUPTED = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a run in the background inherits it ignored
class AtImport:
    def find_spec(self, name, *rest):
        if name == sys.argv[1]:
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, AtImport())
from seamref.__main__ import main
sys.exit(main(["explore", "update"]))
"""


@pytest.mark.parametrize("where", ["seamref.cli", "seamref.commands.explore", "seamref.explore.engine"])
def test_interrupted_it_says_so(where: str) -> None:
    done = subprocess.run([sys.executable, "-c", INTERRUPTED, where], cwd=ROOT, capture_output=True, text=True,
                          check=False, timeout=60)
    assert (done.returncode, done.stderr) == (130, "seamref: interrupted\n")


def test_a_mistake_of_ours_is_one_line_and_its_own_code(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import seamref.commands.leaves

    def broken(args: object) -> int:
        raise TypeError("oops")

    monkeypatch.setattr(seamref.commands.leaves, "run", broken)
    assert main(["leaves"]) == 70
    assert capsys.readouterr().err == \
        "seamref: a mistake in seamref, please report it: TypeError: oops (SEAMREF_TRACEBACK=1 says where)\n"


def test_progress_only_at_a_terminal_and_only_after_a_while() -> None:
    code = ("import sys, time\nfrom seamref.commands import _progress\n_progress.AFTER = _progress.EVERY = 0.05\n"
            "with _progress.Waiting('seamref boot'):\n _progress.at('3 of 4'); time.sleep(0.4); print('result')\n")
    ours, theirs = pty.openpty()
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, stdout=theirs, stderr=theirs, check=True, timeout=60)
    os.close(theirs)
    said = os.read(ours, 65536).decode()
    os.close(ours)
    assert done.returncode == 0 and "seamref boot: 3 of 4, " in said
    assert "\x1b[Kresult" in said  # the line is taken away before anything is printed
    piped = shell("seamref boot --sockets 1 --lps 2")
    assert piped.stderr == ""


# --- reading


def test_reading_is_bounded(tmp_path: Path) -> None:
    began = time.perf_counter()
    for name in ("/dev/zero", str(_sparse(tmp_path / "huge"))):
        with pytest.raises(SeamrefError, match="64 MiB"):
            files.read(name)
    assert time.perf_counter() - began < 10
    with pytest.raises(SeamrefError, match="expands to more than 1 MiB"):
        files.expand(gzip.compress(bytes(4 << 20)), "bomb", limit=1 << 20)
    assert files.expand(gzip.compress(b"a") + gzip.compress(b"b"), "two") == b"ab"
    with pytest.raises(SeamrefError, match="end in the middle"):
        files.expand(gzip.compress(bytes(100))[:-3], "cut")
    with pytest.raises(SeamrefError, match="0xFF at offset 1 is no UTF-8"):
        (tmp_path / "t").write_bytes(b"a\xff")
        files.read_text(tmp_path / "t")
    with pytest.raises(SeamrefError, match="no file can have this name"):
        files.read("a\0b")


def _sparse(path: Path) -> Path:
    with path.open("wb") as file:
        file.truncate(1 << 40)
    return path


# --- writing


def test_writing_is_whole_or_nothing(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    files.write(str(one), b"old")
    assert one.stat().st_mode & 0o777 == 0o666 & ~_umask()
    for more in ({}, {"inputs": [str(one)], "force": True}):
        with pytest.raises(SeamrefError, match=r"one: (exists already|is an input)"):
            files.write(str(one), b"new", **more)  # type: ignore[arg-type]
    with pytest.raises(SeamrefError, match="named for two outputs"):
        files.write_all([(str(two), b"a"), (str(tmp_path / "." / "two"), b"b")])
    with pytest.raises(SeamrefError, match="/nosuch/sig: No such file"):
        files.write_all([(str(two), b"a"), ("/nosuch/sig", b"b")])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one"] and one.read_bytes() == b"old"
    one.chmod(0o640)
    files.write(str(one), b"new", force=True)
    assert one.read_bytes() == b"new" and one.stat().st_mode & 0o777 == 0o640
    link = tmp_path / "link"
    link.symlink_to(one)
    files.write(str(link), b"through", force=True)
    assert link.is_symlink() and one.read_bytes() == b"through"
    with pytest.raises(SeamrefError, match="Is a directory"):
        files.write(str(tmp_path), b"", force=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_writing__a_full_disk_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held = tmp_path / "held"
    held.write_bytes(b"old")

    def full(number: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(SeamrefError, match="held: No space left on device"):
        files.write(str(held), b"new", force=True)
    assert held.read_bytes() == b"old" and len(list(tmp_path.iterdir())) == 1


WRITE = """
import sys
from seamref.commands._files import write
print("ready", flush=True)
while True:
    for letter in (b"a", b"b"):
        write(sys.argv[1], letter * 3_000_000, force=True)
"""


def test_writing__killed_at_any_moment_the_file_is_whole(tmp_path: Path) -> None:
    held = tmp_path / "held"
    for wait in (0.01, 0.04, 0.09, 0.2):
        with subprocess.Popen([sys.executable, "-c", WRITE, str(held)], cwd=ROOT, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None and process.stdout.readline()
            time.sleep(wait)
            process.kill()
        data = held.read_bytes() if held.exists() else b""
        assert len(data) in (0, 3_000_000) and len(set(data)) < 2


def test_writing__two_at_once_and_the_first_one_wins(tmp_path: Path) -> None:
    code = "import sys\nfrom seamref.cli import main\nsys.exit(main(['blob', 'mint', sys.argv[1]]))"
    both = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "out")], cwd=ROOT, stderr=subprocess.PIPE,
                             stdout=subprocess.DEVNULL, text=True) for _ in range(2)]
    said = [process.communicate(timeout=60)[1] for process in both]
    assert sorted(process.returncode for process in both) == [0, 2]
    assert "exists already" in "".join(said) and [path.name for path in tmp_path.iterdir()] == ["out"]


def test_blob__loses_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    blob, out = str(tmp_path / "b"), str(tmp_path / "o")
    assert main(["blob", "mint", blob]) == 0
    held = Path(blob).read_bytes()
    capsys.readouterr()
    assert "named for two outputs" in complaint(capsys, "blob", "split", blob, out, out)
    assert "is an input" in complaint(capsys, "blob", "split", blob, blob, out, "--force")
    assert "is an input" in complaint(capsys, "blob", "convert", blob, blob, "--force")
    assert "/nosuch/sig: No such file" in complaint(capsys, "blob", "split", blob, out, "/nosuch/sig")
    assert [path.name for path in tmp_path.iterdir()] == ["b"] and Path(blob).read_bytes() == held
    assert main(["blob", "split", blob, out, out + "s"]) == 0 and main(["blob", "check", blob]) == 0
    capsys.readouterr()
    assert "exists already" in complaint(capsys, "blob", "join", out, out + "s", blob)
    assert "is an input" in complaint(capsys, "blob", "join", out, out + "s", out + "s", "--force")
    assert main(["blob", "join", out, out + "s", blob, "--force"]) == 0 and Path(blob).read_bytes() == held


def test_blob__through_pipes(tmp_path: Path) -> None:
    done = shell("seamref blob mint - | seamref inspect - && "
                 "seamref blob mint - | seamref verify - --signer test --lps 2")
    assert done.returncode == 0 and "SUCCESS" in done.stdout, done.stderr
    done = shell(f"seamref blob mint - | seamref blob convert - - | seamref blob convert - {tmp_path}/b && "
                 f"seamref blob mint - 2>/dev/null | cmp - {tmp_path}/b && test ! -e ./-")
    assert done.returncode == 0, done.stderr


def test_answers_are_plain() -> None:
    assert plain({"a": (1, b"\x01", {2}, None)}) == {"a": [1, "01", [2], None]}


# --- answers for programs

JSON_LINES = [
    "access --matrix", "access host 0x7C001000", "boot", "boot --attacks os", "clause SEAMCALL.cpl", "event --kind nmi",
    "explore", "install", "install --row INSTALL.params.version", "layout", "layout SEAM_SIGSTRUCT", "leaves", "memory",
    "memory --lps 1 --seamrr 32M", "module-handoff", "module-story", "remaining --seamdb 2", "seamcall",
    "seamcall --everywhere", "seamcall --vmfail", "seamcall-table --diff SDM silicon", "seamret",
    "serialise --series v3", "serialise", "uefi",
]


@pytest.mark.parametrize("line", JSON_LINES)
def test_json_has_a_format_id_the_version_and_the_text_s_exit_code(
    line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code = main(shlex.split(line))
    assert capsys.readouterr().out
    assert main([*shlex.split(line), "--json"]) == code
    held = json.loads(capsys.readouterr().out)
    assert held["format"].startswith("seamref-") and held["format"].endswith("/1") and len(held) > 2
    assert held["seamref"] == seamref.__version__
    assert "0x" not in json.dumps([v for v in held.values() if isinstance(v, int)])


def test_json_is_what_the_text_says(capsys: pytest.CaptureFixture[str]) -> None:
    main(["install", "--json", "--row", "INSTALL.params.version"])
    held = json.loads(capsys.readouterr().out)
    assert not held["installed"] and "INSTALL.params.version" in held["calls"][-1]["stopped_by"]
    assert held["calls"][-1]["rax"] == "0x8000000000000000" and held["calls"][-1]["answer"] == "EBADPARAM"
    main(["memory", "--json", "--lps", "1", "--seamrr", "32M", "--pages", "102"])
    held = json.loads(capsys.readouterr().out)
    assert held["fits"] is True and sum(part["bytes"] for part in held["parts"]) == held["needed"]
    main(["seamcall", "--mode", "guest", "--json"])
    held = json.loads(capsys.readouterr().out)
    assert held["outcome"] == "VM exit 76 (SEAMCALL)" and held["clause"] == "SEAMCALL.non_root"
    assert next(row for row in held["path"] if row["decides"])["clause"] == held["clause"]


# --- options that do not go together, numbers that nothing has


@pytest.mark.parametrize(("line", "says"), [
    ("seamcall --everywhere --cpl 3", "--everywhere does not go together with --cpl"),
    ("seamcall --vmfail --mutex-held", "--vmfail does not go together with --mutex-held"),
    ("seamcall --mode seam --cpl 3", "SEAM VMX root runs at CPL 0 only"),
    ("seamcall-table --c --json", "--c is the whole table of one revision"),
    ("seamcall-table --c --revision SDM --revision silicon", "one --revision at most"),
    ("seamcall-table --diff SDM silicon --revision SDM", "--diff names its two revisions itself"),
    ("uefi --not-started 99", "--not-started 99: no such processor; there are 0, 1"),
    ("uefi --cpus 3 --sockets 2", "cannot be dealt out evenly"), ("failures --cpus 2 --sockets 3", "evenly"),
    ("boot --attacks os --trace", "--attacks does not go together with --trace"),
    ("boot --last 1", "--last and --on belong to --update"), ("boot --sockets 0", "--sockets: 0, must be 1 to 8"),
    ("boot --break unlockd", "did you mean unlocked?"), ("boot --until inf", "did you mean info"),
    ("verify /dev/null --remaining -1", "--remaining: -1, must be 0 to"),
    ("verify /dev/null --signer 00", "96 hex digits"),
    ("verify /dev/null --running-svn 1.-5", "--running-svn, minor: -5"),
    ("verify /dev/null --running-svn 999.1", "major: 999"),
    ("verify /dev/null --lps 4 --addressable 2", "2 ids cannot name 4"),
    ("verify /dev/null --platform ''", "No such file"),
    ("plan --seamldr 1.5.00 --cpu -1 --running 1.5.05", "--cpu"),
    ("plan --seamldr 1.5.00 --cpu 99999999999999", "32 bits"),
    ("plan --seamldr 1.5.00 --cpu 1 --remaining -5", "--remaining: -5"), ("upload --tds -1", "--tds: -1"),
    ("upload --cpus 3 --sockets 2", "evenly"), ("upload /no/such/file", "/no/such/file: No such file"),
    ("inspect /dev/zero", "64 MiB"), ("inspect /nonexistent", "/nonexistent: No such file"),
    ("memory --pages 497", "num_module_pages: 497, must be 1 to 496 (clause INSTALL.params.num_module_pages)"),
    ("memory --pages 20000", "must be 1 to 496"), ("memory --sockets 0", "Topology.sockets: 0"),
    ("memory --lps 0", "Topology.lps_per_socket: 0"), ("memory --lps 100000000", "must be 1 to 1024"),
    ("memory --seamrr 0", "SEAMRR: 0x0 bytes, must be a power of two"), ("memory --build 1.5.6", "did you mean 1.5."),
    ("install --lps 4 --addressable 2", "2 ids cannot name 4 processors"), ("install --seamdb -1", "--seamdb: -1"),
    ("install --seamrr 48M", "SEAMRR: 0x3000000"), ("install --set seamhash=00", "1 bytes given, must be 48"),
    ("install --changes --row INSTALL.params.version", "--changes does not go together with --row"),
    ("install --row INSTALL.params.versio", "did you mean INSTALL.params.version"),
    ("install --order 0,0", "each processor once"), ("install --lps 1024 --sockets 8", "processors: 8192"),
    ("remaining --seamdb 0", "--seamdb: 0, must be 1 to 64"), ("access host 0x7C001000 --keyid -1", "--keyid: -1"),
    ("access --matrix host", "--matrix judges every agent"), ("explore --cpus 0", "a scenario is missing"),
    ("explore update --cpus 0", "--cpus 0"), ("explore update --cpus 1000000000", "must be 1 to 64"),
    ("explore nothing", "no scenario 'nothing'"), ("explore update --max-memory 0", "--max-memory 0"),
    ("event --revision SILIKON", "did you mean silicon?"), ("serialise --series v33", "did you mean v3"),
    ("module-story --from 9.9", "no build '9.9'"), ("module-story --sockets 9", "Topology.sockets: 9"),
])
def test_what_cannot_be_is_refused_by_name(line: str, says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert says in complaint(capsys, *shlex.split(line))


def test_seamcall_table__options_change_what_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    main(["seamcall-table", "--json", "--revision", "sdm"])
    whole = json.loads(capsys.readouterr().out)
    main(["seamcall-table", "--json", "--reachable", "--revision", "SDM"])
    some = json.loads(capsys.readouterr().out)
    assert some["states"] == whole["reachable"] and len(some["revisions"]["SDM"]) == len(some["states"])
    assert some["revisions"]["SDM"] == [whole["revisions"]["SDM"][state] for state in some["states"]]
    main(["seamcall-table", "--diff", "silicon", "silicon"])
    assert capsys.readouterr().out == "0 states differ: silicon, silicon\n"


# --- the library


@pytest.mark.parametrize(("given", "says"), [
    ({"sockets": 0}, "Topology.sockets: 0"), ({"lps": 0}, "Topology.lps_per_socket: 0"),
    ({"lps": "x"}, "boot: lps: 'x', must be a whole number"), ({"lps": 2.5}, "boot: lps: 2.5"),
    ({"module": 5}, "boot: module: int"), ({"module": "9.9"}, "no TDX module build '9.9'"),
    ({"sokets": 1}, "boot: no argument 'sokets'; did you mean sockets?"), ({"topology": 4}, "boot: topology: 4"),
    ({"seamrr_sise": 1}, "did you mean seamrr_size?"),
])
def test_boot_refuses_nonsense_by_name(given: dict[str, object], says: str) -> None:
    with pytest.raises(SeamrefError) as caught:
        seamref.boot(**given)  # type: ignore[arg-type]
    assert says in str(caught.value)


def test_boot_takes_the_name_of_a_build_and_install_names_the_status() -> None:
    from seamref.bootchain import install

    platform = seamref.boot(sockets=1, lps=1, module="1.5.06")
    assert platform.SEAM_READY
    with pytest.raises(SeamrefError, match=r"EBADHASH, RDX = \d+ \(INSTALL\."):
        from seamref import mint

        image = mint.module_image()
        install(seamref.boot(sockets=1, lps=1), image, mint.sigstruct(image, seamhash=bytes(48)))


# --- start-up


def _imported(*words: str) -> set[str]:
    code = ("import sys\nfrom seamref.cli import main\nmain(sys.argv[1:])\n"
            "print(*[m for m in sys.modules if m.startswith('seamref.')], file=sys.stderr)")
    done = subprocess.run([sys.executable, "-c", code, *words], cwd=ROOT, capture_output=True, text=True, check=True,
                          timeout=60)
    return set(done.stderr.split())


@pytest.mark.parametrize("words", [["clause", "SEAMCALL.cpl"], ["layout", "seam_sigstruct"], ["msr"], ["--help"]])
def test_looking_something_up_imports_no_other_room(words: list[str]) -> None:
    rooms_named = {name.split(".")[1] for name in _imported(*words)}
    assert not rooms_named & {"tdxmodule", "host", "bootchain", "explore", "conformance", "show", "experiments", "mint"}


@pytest.mark.parametrize("words", [["--help"], ["clause", "SEAMCALL.cpl"], ["layout"], ["seamcall"]])
def test_start_up_costs_little(words: list[str]) -> None:
    spent = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([*RUN, *words], cwd=ROOT, stdout=subprocess.DEVNULL, check=True, timeout=60)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        spent.append(after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime)
    assert min(spent) < 0.6, spent  # twice what is asked for: another machine may be slower


LIMITED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
from seamref.cli import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize("force", [[], ["--force"]])
def test_blob__a_file_that_cannot_grow_leaves_what_was_there(force: list[str], tmp_path: Path) -> None:
    """The system refuses the write half way, as a full disk does: the old file, or none, and a line that names it."""
    blob, out = tmp_path / "b", tmp_path / "o"
    assert main(["blob", "mint", str(blob)]) == 0
    if force:
        out.write_bytes(b"old")
    done = subprocess.run([sys.executable, "-c", LIMITED, "blob", "convert", str(blob), str(out), *force], cwd=ROOT,
                          capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (2, f"seamref: {out}: File too large\n")
    assert sorted(path.name for path in tmp_path.iterdir()) == (["b", "o"] if force else ["b"])
    assert not force or out.read_bytes() == b"old"
