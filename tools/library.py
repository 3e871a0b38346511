#!/usr/bin/env python3
"""The book's page *Library*, from the docstrings of what is public and from seamref/show/library.py.

    python tools/library.py write    generate, execute and store book/appendices/library.ipynb
    python tools/library.py check    say whether the stored page has the cells that it would have
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "book" / "appendices" / "library.ipynb"
sys.path[:0] = [str(ROOT), str(ROOT / "tools")]

INTRODUCTION = """\
# Library

What a program may rely on: the names in `seamref.__all__`, the command line, the formats of its answers, and the
clause ids. They follow [semantic versioning](https://semver.org/); before 1.0 a minor version may change them and says
so in CHANGELOG.md. Everything else may move.

This page is generated from docstrings. Each example ran when the page was made, and runs in the tests."""

COOKBOOK: tuple[tuple[str, str, str], ...] = (
    (
        "An oracle in a test",
        "Your emulator decides SEAMCALL; the machine here is asked the same. A state is a platform that you set up;\n"
        "what comes back compares by value.",
        """\
def my_seamcall(cpl, non_root):
    \"\"\"Your code: it tests CPL too late.\"\"\"
    return "VM exit 76 (SEAMCALL)" if non_root else "#GP(0)" if cpl else "entered"


def must_be(cpl, non_root):
    platform = seamref.boot()
    lp = platform.lp(platform.lps[0])
    lp.cpl, lp.non_root, lp.rax = cpl, non_root, 1 << 63
    return seamref.seamcall(platform, lp.id)


wrong = []
for cpl in (0, 3):
    for non_root in (False, True):
        must = must_be(cpl, non_root)
        if not str(must).startswith(my_seamcall(cpl, non_root)):
            wrong.append((cpl, non_root, str(must), must.clause))
assert wrong == [(3, True, "#GP(0)", "SEAMCALL.cpl")]
wrong""",
    ),
    (
        "A session of your own bytes",
        "Any bytes can be the module. These are a page that is no ELF file, signed properly, then a minted module\n"
        "whose signature was spoiled. The refusal names the processor, the status, RDX and the row.",
        """\
from seamref import mint


def refusal(image, sigstruct):
    try:
        seamref.install(seamref.boot(), image, sigstruct)
    except seamref.SeamrefError as refused:
        return str(refused)
    return "installed"


junk = bytes(range(256)) * 16
module = mint.module_image()
good = mint.sigstruct(module)
spoiled = bytearray(good)
spoiled[600] ^= 1
answers = [refusal(junk, mint.sigstruct(junk)), refusal(module, bytes(spoiled)), refusal(module, good)]
assert "INSTALL.relocation.elf" in answers[0] and "EBADSIG" in answers[1] and answers[2] == "installed"
answers""",
    ),
    (
        "A failure on CPU 3",
        "A kernel updates its module; SEAMLDR.INSTALL fails on one CPU of four. What does the user see?",
        """\
from seamref.host.machine import blob

host = seamref.machine(4)
rules = seamref.parse_rules(["cpu=3,leaf=SEAMLDR.INSTALL,outcome=vmfailinvalid"])
host.set(script=seamref.Script(rules))
shell = seamref.Terminal(host, {"new.blob": blob("1.5.16")})
seen = shell.session(
    "cd /sys/class/firmware/tdx_module",
    "echo 1 > loading",
    "cat new.blob > data",
    "echo 0 > loading",
    "cat status",
    "cat error",
)
assert "transferring:firmware-invalid" in seen
print(seen)""",
    ),
    (
        "The state after each call",
        "INSTALL is called on every processor in turn. What changes with each call?",
        """\
from seamref import mint

platform = seamref.boot(sockets=1, lps=3)
image = mint.module_image()
params = mint.place(platform, image, mint.sigstruct(image), scenario=0, at=0x10000000)
states = []
for id in platform.lps:
    called = seamref.seamldr_call(platform, id, 0x8000000000000001, rcx=params)
    left = seamref.read_info(platform).num_remaining_updates
    states.append((id, hex(called.rax), platform.SEAM_READY, left))
assert [ready for _, _, ready, _ in states] == [False, False, True]
states""",
    ),
)
"""Title, words, and code that runs and asserts."""


def cells() -> Iterator[tuple[str, str]]:
    """The page's cells: kind and source."""
    from seamref.show.library import GROUPS

    yield "markdown", INTRODUCTION
    yield "code", "import seamref\nfrom seamref.show import *\nfrom seamref.show.library import documented"
    for title, entries in GROUPS.items():
        yield "markdown", f"## {title}"
        for entry in entries:
            yield "markdown", f"### `{entry.name}`"
            yield "code", f'documented("{entry.name}")'
            if entry.example:
                yield "code", entry.example
    yield "markdown", "## Cookbook"
    for title, words, code in COOKBOOK:
        yield "markdown", f"### {title}\n\n{words}"
        yield "code", code


def percent() -> str:
    """The page as a percent-format script."""
    parts = []
    for kind, text in cells():
        head = "# %% [markdown]" if kind == "markdown" else "# %%"
        body = "\n".join(f"# {line}".rstrip() for line in text.splitlines()) if kind == "markdown" else text
        parts.append(f"{head}\n{body}\n")
    return "\n".join(parts)


def problems() -> list[str]:
    """What in the stored page is not what it would be."""
    import chapters

    if not PAGE.exists():
        return [f"{PAGE.relative_to(ROOT)}: is not there"]
    stored = [(cell.cell_type, cell.source) for cell in chapters.read(PAGE).cells]
    wanted = list(cells())
    found = [f"cell {at}: is not what tools/library.py says" for at, (one, other) in
             enumerate(zip(stored, wanted, strict=False), 1) if one != other]
    return found + ([f"{len(stored)} cells, must be {len(wanted)}"] if len(stored) != len(wanted) else [])


def main(argv: Sequence[str] | None = None) -> int:
    """The command line."""
    import chapters

    parser = argparse.ArgumentParser(prog="tools/library.py", description="The page of the library.")
    parser.add_argument("command", choices=["write", "check"])
    if parser.parse_args(argv).command == "write":
        with tempfile.TemporaryDirectory() as folder:
            script = Path(folder) / "library.py"
            script.write_text(percent(), encoding="utf-8")
            chapters.execute_file(PAGE, script)
    found = problems()
    for line in found:
        print(line, file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    raise SystemExit(main())
