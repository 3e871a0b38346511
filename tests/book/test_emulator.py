"""The page "Check your emulator in ten minutes", followed to the letter: its commands are run, its outputs compared."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "book" / "processor" / "emulator.md"
BLOCK = re.compile(r"(?:^% needs: (\w+)\n)?^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Command:
    """One command of the page: what is typed, what must be printed, and a tool that it needs."""

    text: str
    prints: tuple[str, ...]
    needs: str


def commands(page: str) -> list[Command]:
    """The commands of console blocks: lines behind "$ ", continued behind "> ", then what they print."""
    found: list[Command] = []
    for needs, block in BLOCK.findall(page):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            lines = part.splitlines()
            typed = [lines.pop(0)]
            while lines and lines[0].startswith(">"):
                typed.append(lines.pop(0)[1:].removeprefix(" "))
            found.append(Command("\n".join(typed), tuple(lines), needs))
    return found


def fits(must: tuple[str, ...], came: list[str]) -> bool:
    """Line by line; "..." at the end of a line stands for its rest, a line "..." for all that follows."""
    for at, line in enumerate(must):
        if line == "...":
            return True
        if at >= len(came) or not (
            came[at].startswith(line.removesuffix("...")) if line.endswith("...") else came[at] == line
        ):
            return False
    return len(must) == len(came)


COMMANDS = commands(PAGE.read_text(encoding="utf-8"))


def test_the_page_has_the_commands_that_it_speaks_of() -> None:
    assert len(COMMANDS) >= 11
    assert {c.needs for c in COMMANDS} == {"", "cc", "rustc"}
    assert all(c.text.startswith(("python3 -m seamref ", "cc ", "rustc ", "cat > ", "ls ")) for c in COMMANDS)


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh copy of what a clone has, and a python3 that sees nothing but the standard library."""
    folder = tmp_path_factory.mktemp("fresh") / "clone"
    for name in ("seamref", "examples"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    tools = folder.parent / "bin"
    tools.mkdir()
    python3 = tools / "python3"
    python3.write_text(f'#!/bin/sh\nexec "{sys.executable}" -S "$@"\n')
    python3.chmod(0o755)
    return folder


def test_followed_to_the_letter_in_ten_minutes(clone: Path) -> None:
    env = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    env["PATH"] = f"{clone.parent / 'bin'}{os.pathsep}{env['PATH']}"
    began = time.monotonic()
    followed = 0
    for command in COMMANDS:
        missing = [tool for tool in ("cc", "rustc") if tool == command.needs and shutil.which(tool) is None]
        if missing or ("my_emulator" in command.text and shutil.which("cc") is None):
            continue
        done = subprocess.run(["bash", "-c", command.text], cwd=clone, env=env, capture_output=True, text=True,
                              check=False, timeout=600)
        assert not done.stderr, (command.text, done.stderr)
        assert fits(command.prints, done.stdout.splitlines()), (command.text, done.stdout)
        assert done.returncode in (0, 1)
        followed += 1
    assert followed >= 6 and time.monotonic() - began < 600


def test_an_output_that_is_not_what_the_page_says_is_caught() -> None:
    assert fits(("a", "b..."), ["a", "bcd"]) and fits(("a", "..."), ["a", "b", "c"]) and fits((), [])
    assert not fits(("a",), ["a", "b"]) and not fits(("a", "b"), ["a"]) and not fits(("a",), ["x"])
    page = "% needs: cc\n```console\n$ cat > f << 'E'\n> one\n>   two\n> E\n$ ls\nf\n```\n"
    assert commands(page) == [Command("cat > f << 'E'\none\n  two\nE", (), "cc"), Command("ls", ("f",), "cc")]
