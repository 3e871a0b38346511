"""What a command costs before it answers: help and look-ups import what they need to answer, and no more.

Counted in modules, not in seconds: the same on every machine.  About 80 modules are 0.3 s of CPU time.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from seamref.cli import command_names
from seamref.commands import _declared

ROOT = Path(__file__).resolve().parents[2]
IMPORTED = """
import contextlib, io, json, shlex, sys
from seamref.cli import main
with contextlib.redirect_stdout(io.StringIO()):
    code = main(shlex.split(sys.argv[1]))
print(json.dumps([code, sorted(m for m in sys.modules if m.startswith("seamref."))]))
"""
NONE = frozenset({"errors", "cli", "commands", "spec", "layout"})
PROCESSOR = NONE | {"arch"}
LOOKUPS: dict[str, tuple[frozenset[str], int]] = {
    # line: the rooms that it may import, and how many modules in all
    "--version": (NONE, 50), "--help": (NONE, 50), "completion bash": (NONE, 50), "man": (NONE, 50),
    "clause": (NONE, 12), "clause INSTALL.params": (NONE, 12), "clause --mark chosen --json": (NONE, 12),
    "layout": (NONE, 12), "layout --json": (NONE, 12), "export --list": (NONE, 12),
    "clause SEAMCALL.cpl": (PROCESSOR, 25), "layout SEAMLDR_PARAMS": (PROCESSOR | {"pseamldr"}, 15),
    "msr": (PROCESSOR | {"diagnose"}, 32), "msr IA32_SEAMRR_PHYS_BASE": (PROCESSOR | {"diagnose"}, 32),
    "event": (PROCESSOR, 30), "access --matrix": (PROCESSOR, 30), "access host 0x7C001000": (PROCESSOR, 30),
    "seamcall": (PROCESSOR, 30), "seamret": (PROCESSOR, 30),
    "plan --running 1.5.05 --seamldr 1.5.00 --cpu 0x806F8": (NONE | {"host"}, 15),
    "identify 0x010C": (PROCESSOR | {"host", "diagnose", "pseamldr"}, 20),
    "explain TDX_SYS_BUSY": (PROCESSOR | {"host", "diagnose", "pseamldr", "tdxmodule"}, 92),
    "explain 0xC000010000000001": (PROCESSOR | {"host", "diagnose", "pseamldr", "tdxmodule"}, 92),
    "explain 0x8000000000010001": (PROCESSOR | {"host", "diagnose", "pseamldr", "tdxmodule", "firmware"}, 72),
}


def imported(line: str) -> tuple[int, list[str]]:
    """The exit code of a command, and the modules of this package that it imported."""
    done = subprocess.run([sys.executable, "-c", IMPORTED, line], cwd=ROOT, capture_output=True, text=True,
                          check=True, timeout=120)
    code, names = json.loads(done.stdout.splitlines()[-1])
    return code, names


@pytest.mark.parametrize("line", LOOKUPS)
def test_a_look_up_imports_only_what_its_answer_needs(line: str) -> None:
    rooms, most = LOOKUPS[line]
    code, names = imported(line)
    assert code in (0, 1)
    assert {name.split(".")[1] for name in names} <= rooms
    assert len(names) <= most


def test_no_command_s_help_imports_a_room_of_the_machine() -> None:
    script = ("import contextlib, io, json, sys\nfrom seamref.cli import command_names, main\n"
              "with contextlib.redirect_stdout(io.StringIO()):\n"
              "    codes = [main([name, '--help']) for name in command_names()]\n"
              "print(json.dumps([codes, sorted({m.split('.')[1] for m in sys.modules if m.startswith('seamref.')})]))")
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True,
                          timeout=120)
    codes, rooms = json.loads(done.stdout)
    assert codes == [0] * len(command_names())
    assert set(rooms) <= PROCESSOR | {"host"}, "names of series and revisions may be looked up, nothing may be run"


def test_the_index_of_what_is_declared_is_the_code_s() -> None:
    done = subprocess.run([sys.executable, "tools/declared.py", "check"], cwd=ROOT, capture_output=True, text=True,
                          check=False, timeout=300)
    assert done.returncode == 0, done.stderr


def test_an_index_of_another_time_is_not_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A function that began on another line of text: the rooms are asked, and say where it is now."""
    held = json.loads(_declared.FILE.read_text(encoding="utf-8"))
    row = next(row for row in held["clauses"] if row["id"] == "SEAMCALL.cpl")
    row["says"], row["implemented_by"][0][1] = "what it said once", "# the text of a line that is gone"
    monkeypatch.setattr(_declared, "index", lambda: held)
    found = {row["id"]: row for row in _declared.clauses()}
    assert found["SEAMCALL.cpl"]["says"] != "what it said once"
    assert re.fullmatch(r"seamref/arch/seam\.py:\d+", found["SEAMCALL.cpl"]["implemented_by"][0])


def test_without_an_index_the_rooms_are_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    listed = _declared.layouts(), _declared.export_sets()
    monkeypatch.setattr(_declared, "index", dict)
    assert (_declared.layouts(), _declared.export_sets()) == listed
