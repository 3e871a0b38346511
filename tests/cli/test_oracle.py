"""The doors for newcomers work as they are written: the C example, and the worked example of CONTRIBUTING.md."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from seamref import __version__, spec
from seamref.__main__ import main
from seamref.arch.exhaustive import STATES, export, is_reachable

ROOT = Path(__file__).resolve().parents[2]
CC = shutil.which("cc")


def compiled(tmp_path: Path, capsys: pytest.CaptureFixture[str], *flags: str) -> subprocess.CompletedProcess[str]:
    assert CC is not None
    assert main(["seamcall-table", "--c", "--revision", "silicon"]) == 0
    (tmp_path / "seamcall.h").write_text(capsys.readouterr().out)
    program = tmp_path / "compare"
    subprocess.run(
        [CC, "-Wall", "-Wextra", "-Werror", *flags, f"-I{tmp_path}", "-o", str(program),
         str(ROOT / "examples" / "compare_seamcall.c")],
        check=True,
    )
    return subprocess.run([str(program)], capture_output=True, text=True, check=False)


@pytest.mark.skipif(CC is None, reason="no C compiler (cc) here")
def test_oracle__a_C_implementation_agrees_in_every_state(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    done = compiled(tmp_path, capsys)
    assert (done.returncode, done.stdout) == (0, f"0 of {STATES} states differ\n")


@pytest.mark.skipif(CC is None, reason="no C compiler (cc) here")
def test_oracle__the_printed_order_differs_where_the_errata_chapter_says(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    done = compiled(tmp_path, capsys, "-DCPL_AFTER_EXIT")
    states = [int(found, 16) for found in re.findall(r"state (0x\w+): clause SEAMCALL\.cpl decides", done.stdout)]
    assert done.returncode == 1 and f"{len(states)} of {STATES} states differ" in done.stdout
    user_in_guest = 0b11_1001  # vmx, non_root, 64bit, user
    assert states and all(state & user_in_guest == user_in_guest and not state & 2 for state in states)


def test_seamcall_table__json_is_what_the_library_exports(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["seamcall-table", "--json", "--revision", "343754-002"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert made.pop("seamref") == __version__
    assert made == export(["343754-002"])


def test_seamcall_table__diff_and_reachable(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["seamcall-table", "--diff", "silicon", "343754-002", "--reachable"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 192 and all("343754-002" in line for line in lines)
    assert main(["seamcall-table", "--revision", "silicon", "--reachable"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == sum(map(is_reachable, range(STATES)))
    assert main(["seamcall-table", "--revision", "343755-002"]) == 2
    assert "no revision '343755-002'" in capsys.readouterr().err


def test_contributing__the_worked_example_runs() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    examples = re.findall(r"```python\n(.*?)```", text, re.S)
    assert examples, "CONTRIBUTING.md shows no example"
    registries = {name: held for name, held in vars(spec).items() if name.isupper() and isinstance(held, dict)}
    before = {name: dict(held) for name, held in registries.items()}
    try:
        exec(compile("\n".join(examples), "CONTRIBUTING.md", "exec"), {"__name__": "contributing"})
        assert "VMPTRLD.example" in spec.TABLES and spec.COVERAGE["VMPTRLD.example.align"] == [1, 1]
    finally:
        for name, registry in before.items():
            live = getattr(spec, name)
            live.clear()
            live.update(registry)
