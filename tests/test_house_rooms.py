"""The rooms: no circles of imports, facts that need no drawing, and a map that is the code's."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path

import grimp
import rooms

from seamref.cli import command_names

ROOT = Path(__file__).resolve().parents[1]

def circles(graph: grimp.ImportGraph) -> set[frozenset[str]]:
    """The strongly connected sets of more than one module (Tarjan); imports inside functions count."""
    number: dict[str, int] = {}
    low: dict[str, int] = {}
    open_: list[str] = []
    found: set[frozenset[str]] = set()

    def visit(module: str) -> None:
        number[module] = low[module] = len(number)
        open_.append(module)
        for other in graph.find_modules_directly_imported_by(module):
            if other not in number:
                visit(other)
            if other in open_:
                low[module] = min(low[module], low[other])
        if low[module] == number[module]:
            circle = open_[open_.index(module):]
            del open_[open_.index(module):]
            if len(circle) > 1:
                found.add(frozenset(circle))

    for module in sorted(graph.modules):
        if module not in number:
            visit(module)
    return found


def test_no_modules_import_each_other_in_a_circle() -> None:
    graph = grimp.build_graph("seamref", cache_dir=None, exclude_type_checking_imports=True)
    found = circles(graph)
    assert not found, "circles: " + "; ".join(" ".join(sorted(c)) for c in found)


def test_a_circle_is_noticed() -> None:
    graph = grimp.ImportGraph()
    for module in "abcd":
        graph.add_module(module)
    for one, other in ("ab", "bc", "ca", "cd"):
        graph.add_import(importer=one, imported=other)
    assert circles(graph) == {frozenset("abc")}


def test_experiments_and_commands_know_nothing_of_drawing() -> None:
    graph = grimp.build_graph("seamref", cache_dir=None)
    for room in ("seamref.experiments", "seamref.commands", "seamref.cli"):
        chain = graph.find_shortest_chain(room, "seamref.show", as_packages=True)
        assert chain is None, " -> ".join(chain or ())


BLOCKED = """
import contextlib, io, json, sys
for name in ("pandas", "ipywidgets", "IPython", "pygments", "numpy", "seamref.show"):
    sys.modules[name] = None
from seamref.cli import main
answers = []
for words in json.loads(sys.argv[1]):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(words)
    answers.append((words, code, len(out.getvalue()), err.getvalue()))
print(json.dumps(answers))
"""
LINES = (
    "access --matrix", "blob demo", "boot", "clause SEAMCALL.cpl", "event --kind nmi", "explain TDX_SYS_BUSY",
    "explore",
    "identify", "install", "install --row INSTALL.params.version", "layout SEAMLDR_PARAMS", "leaves", "memory",
    "module-handoff", "msr", "plan --seamldr 1.5.00 --cpu 0xC06F2", "seamcall", "seamret",
)


def answers(lines: list[list[str]]) -> list[tuple[list[str], int, int, str]]:
    """What commands answer where the book's packages cannot be imported, all in one process."""
    done = subprocess.run([sys.executable, "-c", BLOCKED, json.dumps(lines)], cwd=ROOT, capture_output=True, text=True,
                          check=True, timeout=300)
    found: list[tuple[list[str], int, int, str]] = json.loads(done.stdout)
    return found


def test_commands_run_without_the_book_s_packages() -> None:
    bad = [one for one in answers([shlex.split(line) for line in LINES]) if one[1] not in (0, 1) or not one[2]]
    assert bad == []


def test_every_command_s_help_needs_the_standard_library_only() -> None:
    assert [one for one in answers([[name, "--help"] for name in command_names()]) if one[1] or not one[2]] == []


def test_the_map_in_CONTRIBUTING_is_the_code_s() -> None:
    assert rooms.main("check") == 0
    assert all(f"`seamref/{room}/`" in rooms.room_map() for room in ("arch", "show", "experiments/loader", "commands"))

