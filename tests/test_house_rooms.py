"""The rooms: no circles of imports, facts that need no drawing, and a map that is the code's."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import grimp
import pytest
import rooms

from seamref.cli import command_names

ROOT = Path(__file__).resolve().parents[1]

CIRCLES: set[frozenset[str]] = {
    frozenset({"seamref.arch.memory", "seamref.arch.msr", "seamref.arch.platform"}),
}
"""Circles that are still there.  Nothing is added here; the list must become empty."""


def circles(graph: grimp.ImportGraph) -> set[frozenset[str]]:
    """The strongly connected sets of more than one module; imports inside functions count."""
    reach = {module: graph.find_downstream_modules(module) for module in graph.modules}  # who imports it, in the end
    found = {
        frozenset(other for other in held if module in reach[other]) | {module} for module, held in reach.items()
    }
    return {circle for circle in found if len(circle) > 1}


def test_no_modules_import_each_other_in_a_circle() -> None:
    graph = grimp.build_graph("seamref", cache_dir=None, exclude_type_checking_imports=True)
    found = circles(graph)
    assert found <= CIRCLES, "new circles: " + "; ".join(" ".join(sorted(c)) for c in found - CIRCLES)


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
import sys
for name in ("pandas", "ipywidgets", "IPython", "pygments", "numpy", "seamref.show"):
    sys.modules[name] = None
from seamref.cli import main
sys.exit(main(sys.argv[1:]))
"""

QUICK: dict[str, list[str]] = {
    "access": ["access", "--matrix"], "clause": ["clause", "SEAMCALL.cpl"], "event": ["event", "--kind", "nmi"],
    "explain": ["explain", "TDX_SYS_BUSY"], "install": ["install"], "install-changes": ["install", "--changes"],
    "layout": ["layout", "SEAMLDR_PARAMS"], "leaves": ["leaves"], "memory": ["memory"], "msr": ["msr"],
    "seamcall": ["seamcall"], "seamret": ["seamret"],
    "plan": ["plan", "--seamldr", "1.5.00", "--cpu", "0xC06F2"],
    "boot": ["boot"], "explore": ["explore"],
    "blob": ["blob", "demo"],
}


@pytest.mark.parametrize("words", QUICK.values(), ids=QUICK)
def test_commands_run_without_the_book_s_packages(words: list[str]) -> None:
    done = subprocess.run([sys.executable, "-c", BLOCKED, *words], cwd=ROOT, capture_output=True, text=True,
                          check=False, timeout=120)
    assert done.returncode in (0, 1) and done.stdout and "Traceback" not in done.stderr, done.stderr


@pytest.mark.parametrize("name", command_names())
def test_every_command_s_help_needs_the_standard_library_only(name: str) -> None:
    done = subprocess.run([sys.executable, "-c", BLOCKED, name, "--help"], cwd=ROOT, capture_output=True, text=True,
                          check=False, timeout=60)
    assert done.returncode == 0, done.stderr


def test_the_map_in_CONTRIBUTING_is_the_code_s() -> None:
    assert rooms.main("check") == 0
    assert all(f"`seamref/{room}/`" in rooms.room_map() for room in ("arch", "show", "experiments/loader", "commands"))


LITERAL_OFFSETS = {
    "diagnose/explain.py", "host/image.py", "host/inspection.py", "host/uefi.py", "host/verify.py", "show/tdx.py",
}
"""Files that still cut bytes at offsets written as numbers.  Nothing is added here; the list must become empty."""


def slices_with_literal_offsets(source: str) -> list[int]:
    """Lines with ``data[8:16]`` and the like: both ends numbers, the first not 0."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Slice):
            ends = [node.slice.lower, node.slice.upper]
            if all(isinstance(end, ast.Constant) and isinstance(end.value, int) and end.value for end in ends):
                found.append(node.lineno)
    return found


def test_bytes_are_cut_by_the_names_of_fields() -> None:
    assert slices_with_literal_offsets("a = data[900:948]\nb = data[:8]\nc = data[n:16]") == [1]
    found = {}
    for path in (ROOT / "seamref").rglob("*.py"):
        lines = slices_with_literal_offsets(path.read_text(encoding="utf-8"))
        if lines:
            found[path.relative_to(ROOT / "seamref").as_posix()] = lines
    assert set(found) <= LITERAL_OFFSETS, {name: found[name] for name in set(found) - LITERAL_OFFSETS}
