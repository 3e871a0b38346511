"""Mutation testing: small changes of the code (cosmic-ray's operators), and those that no test notices.

    python tools/mutants.py                       every room below, all mutants
    python tools/mutants.py manifest --sample 40  one module, every n-th mutant so that about forty are tried
    python tools/mutants.py --first               by the short tests of each room; then, with all of them,
    python tools/mutants.py --again               those that no test noticed before
    python tools/mutants.py --report              no run: what is known so far, and the figures for the book

The package and its tests are copied to a temporary folder first, and a mutant exists in memory only: the working tree
is never changed. What became of each mutant is kept in ``.mutants/``, so that a run that was stopped goes on.

How it is fast: one process imports pytest, the package and the tests of a room, and notes for each line which tests
execute it. For each mutant it forks; the child puts the changed code into the live functions and runs the tests of
that line, shortest first, until one fails. What acts while modules are imported (tables, constants, classes) is
changed in a child of a process that has not imported the package. Limits are processor time, so a loaded machine
changes no verdict.

What is left out, because nothing can notice it or because another mutant of the same place is harder to notice:
annotations, ``if TYPE_CHECKING``, what stands in an f-string (the wording of messages), decorators other than those
that make a property, a class method or a static method; ``==`` for ``is`` and back; ``> 0`` for ``!= 0`` and ``<= 0``
for ``== 0`` (nothing here is negative); of the replacements of one operator only those in ``NEAR`` (``--all``: all of
them).
"""

from __future__ import annotations

import argparse
import ast
import difflib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
KEPT = ROOT / ".mutants"
EQUIVALENT = ROOT / "tests" / "equivalent_mutants.json"
"""Mutants that act as the original does, and why: file, the line, the line as changed, reason."""
STORED = ROOT / "book" / "appendices" / "mutants.json"


@dataclass(frozen=True)
class Room:
    """What is changed, and the tests that must notice."""

    sources: tuple[str, ...]
    tests: tuple[str, ...]
    """Files and folders; ``file::part of the name`` takes only some of a file."""
    first: tuple[str, ...]
    """Those that are short and about the changed code: they kill most mutants."""


RECORDED = "tests/conformance/test_recorded.py"

ROOMS = {
    "processor": Room(("seamref/arch/seam.py", "seamref/arch/memory.py"), ("tests/arch",), (
        "tests/arch/test_seam.py", "tests/arch/test_memory.py", "tests/arch/test_vmx.py")),
    "loader": Room(("seamref/pseamldr/install.py", "seamref/pseamldr/manifest.py"),
                   ("tests/pseamldr", f"{RECORDED}::[pseamldr-"), (
        "tests/pseamldr/test_rows.py", "tests/pseamldr/test_leaves.py")),
    "firmware": Room(("seamref/firmware/np_seamldr",), ("tests/firmware", f"{RECORDED}::[npseamldr-"), (
        "tests/firmware/test_np_edges.py", "tests/firmware/test_np_seamldr.py",
        "tests/firmware/test_np_measured.py")),
    "host": Room(("seamref/host/image.py",), (
        "tests/host/test_image.py", "tests/host/test_inspection.py", "tests/host/test_verify.py",
        "tests/host/test_commands.py", f"{RECORDED}::[linux-"), ("tests/host/test_image.py",)),
    "module": Room(("seamref/tdxmodule/system",), ("tests/tdxmodule",), (
        "tests/tdxmodule/test_edges.py", "tests/tdxmodule/test_rows.py")),
}

NEAR = {
    "Add": ("Sub",), "Sub": ("Add",), "Mul": ("FloorDiv", "Add"), "Div": ("Mul",), "FloorDiv": ("Mul", "Mod"),
    "Mod": ("FloorDiv",), "Pow": ("Mul",), "RShift": ("LShift",), "LShift": ("RShift",), "BitOr": ("BitAnd",),
    "BitAnd": ("BitOr", "BitXor"), "BitXor": ("BitOr", "BitAnd"),
    "Eq": ("NotEq", "LtE", "GtE"), "NotEq": ("Eq", "Lt", "Gt"), "Lt": ("LtE", "NotEq", "GtE"),
    "LtE": ("Lt", "Eq", "Gt"), "Gt": ("GtE", "NotEq", "LtE"), "GtE": ("Gt", "Eq", "Lt"), "Is": ("IsNot",),
    "IsNot": ("Is",),
}
"""What each operator is replaced by: its opposite and its neighbours."""
SAME_TYPE = {("Is", "Eq"), ("IsNot", "NotEq"), ("Eq", "Is"), ("NotEq", "IsNot")}
UNSIGNED = {("NotEq", "Gt"), ("Eq", "LtE"), ("Gt", "NotEq"), ("LtE", "Eq")}
"""With 0 on the right."""
DECORATORS = ("@property", "@classmethod", "@staticmethod", "@cached_property")


# --- making mutants


@dataclass(frozen=True)
class Mutant:
    """One small change: which operator of cosmic-ray, which of its places in the file, and where that is."""

    file: str
    operator: str
    occurrence: int
    line: int
    column: int
    key: str
    """Names it as long as its line stays, wherever the line moves."""


def _left_out(tree: ast.Module) -> Iterator[ast.AST]:
    """Nodes in which nothing is changed."""
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            yield node
        elif isinstance(node, ast.AnnAssign | ast.arg) and node.annotation is not None:
            yield node.annotation
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.returns is not None:
            yield node.returns
        elif isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            yield node


def _inside(ranges: list[tuple[tuple[int, int], tuple[int, int]]], at: tuple[int, int]) -> bool:
    return any(first <= at < last for first, last in ranges)


def _names(tree: ast.Module) -> list[tuple[int, int, str]]:
    """(first line, last line, name) of functions and classes, the inner ones last."""
    found: list[tuple[int, int, str]] = []

    def look(node: ast.AST, outer: str) -> None:
        for child in ast.iter_child_nodes(node):
            name = outer
            if isinstance(child, ast.FunctionDef | ast.ClassDef):
                name = f"{outer}.{child.name}".lstrip(".")
                found.append((child.lineno, child.end_lineno or child.lineno, name))
            look(child, name)

    look(tree, "")
    return found


def _wanted(operator: str, everything: bool) -> bool:
    """Whether an operator is used."""
    name = operator.partition("/")[2]
    if name in ("VariableReplacer", "VariableInserter"):
        return False
    if name.startswith(("ReplaceBinaryOperator_", "ReplaceComparisonOperator_")):
        _, before, after = name.split("_")
        return (before, after) not in SAME_TYPE and (everything or after in NEAR.get(before, ()))
    return True


def make(root: Path, file: str, everything: bool = False) -> list[Mutant]:
    """Every mutant of one file, in the order of its lines."""
    from cosmic_ray import plugins
    from cosmic_ray.ast import ast_nodes, get_ast

    source = (root / file).read_text(encoding="utf-8")
    lines, tree = source.split("\n"), ast.parse(source)
    ranges = [((n.lineno, n.col_offset), (n.end_lineno, n.end_col_offset)) for n in _left_out(tree)]  # type: ignore[attr-defined]
    names = _names(tree)
    operators = [(name, plugins.get_operator(name)()) for name in plugins.operator_names() if _wanted(name, everything)]
    count: dict[str, int] = {}
    seen: dict[str, int] = {}
    made: list[Mutant] = []
    for node in ast_nodes(get_ast(source)):
        for operator, instance in operators:
            for start, end in instance.mutation_positions(node):
                occurrence = count.get(operator, 0)
                count[operator] = occurrence + 1
                if _inside(ranges, start):
                    continue
                text = lines[start[0] - 1]
                if operator == "core/RemoveDecorator" and not text.strip().startswith(DECORATORS):
                    continue
                pair = tuple(operator.split("_")[1:])
                after = text[end[1] :].strip() if end[0] == start[0] else ""
                if pair in UNSIGNED and after[:1] == "0" and not after[1:2].isalnum():
                    continue
                holder = [name for first, last, name in names if first <= start[0] <= last]
                column = start[1] - (len(text) - len(text.lstrip()))
                key = f"{file}|{holder[-1] if holder else ''}|{text.strip()}|{column}|{operator}"
                seen[key] = seen.get(key, 0) + 1
                made.append(Mutant(file, operator, occurrence, start[0], start[1], f"{key}|{seen[key]}"))
    return sorted(made, key=lambda mutant: (mutant.line, mutant.column, mutant.operator, mutant.occurrence))


def mutate(source: str, mutant: Mutant) -> str:
    """The file's text with this one change."""
    from cosmic_ray import plugins
    from cosmic_ray.mutating import mutate_code

    text: str | None = mutate_code(source, plugins.get_operator(mutant.operator)(), mutant.occurrence)
    assert text is not None, mutant
    return text


def difference(source: str, changed: str) -> tuple[list[str], list[str]]:
    """(lines that went, lines that came)."""
    rows = list(difflib.ndiff(source.split("\n"), changed.split("\n")))
    return [row[2:].strip() for row in rows if row[:1] == "-"], [row[2:].strip() for row in rows if row[:1] == "+"]


def files_of(root: Path, sources: Iterable[str]) -> list[str]:
    """The Python files of files and folders; a module that has become a folder is found under either name."""
    found: list[str] = []
    for source in sources:
        name = next((n for n in (source, source.removesuffix(".py"), f"{source}.py") if (root / n).exists()), None)
        if name is None:
            raise SystemExit(f"{source}: is not there")
        path = root / name
        found += [name] if path.is_file() else [p.relative_to(root).as_posix() for p in sorted(path.rglob("*.py"))]
    return found


# --- what is kept


def kept(room: str) -> dict[str, dict[str, Any]]:
    """What became of each mutant of a room: the last word counts."""
    path = KEPT / f"{room}.jsonl"
    found: dict[str, dict[str, Any]] = {}
    if path.exists():
        for line in path.read_text(encoding="utf-8").splitlines():
            if line.endswith("}"):
                row = json.loads(line)
                found[row["key"]] = row
    return found


def equivalents() -> list[dict[str, str]]:
    """The stored list."""
    held: list[dict[str, str]] = json.loads(EQUIVALENT.read_text(encoding="utf-8")) if EQUIVALENT.exists() else []
    return held


def is_equivalent(row: dict[str, Any], listed: list[dict[str, str]]) -> bool:
    """Whether the list has this change: the line before and after."""
    return any(
        entry["file"] == row["file"] and entry["line"] == " ".join(row["before"])
        and entry["changed"] == " ".join(row["after"]) for entry in listed
    )


def figures(root: Path, everything: bool) -> dict[str, dict[str, Any]]:
    """For each module: mutants there are, tried, killed, equivalent, alive."""
    listed = equivalents()
    found: dict[str, dict[str, Any]] = {}
    for name, room in ROOMS.items():
        known = kept(name)
        for source in room.sources:
            made = [m for file in files_of(root, (source,)) for m in make(root, file, everything)]
            rows = [known[m.key] for m in made if m.key in known]
            killed = [row for row in rows if row["verdict"] == "killed"]
            equal = [row for row in rows if row["verdict"] != "killed" and is_equivalent(row, listed)]
            alive = [row for row in rows if row["verdict"] != "killed" and row not in equal]
            found[source] = {
                "mutants": len(made), "tried": len(rows), "killed": len(killed), "equivalent": len(equal),
                "alive": [{"at": f"{row['file']}:{row['line']}", "line": " ".join(row["before"]),
                           "changed": " ".join(row["after"])} for row in alive],
            }
    return found


def report(found: dict[str, dict[str, Any]], long: bool) -> None:
    """Say it."""
    for source, row in found.items():
        counted = row["tried"] - row["equivalent"]
        print(f"{source}: {row['killed']} of {counted} mutants killed ({100 * row['killed'] / max(counted, 1):.1f} %); "
              f"{row['tried']} of {row['mutants']} tried, {row['equivalent']} equivalent, {len(row['alive'])} alive")
        for alive in row["alive"] if long else ():
            print(f"    {alive['at']}\n      - {alive['line']}\n      + {alive['changed']}")


# --- running


def copy_tree(folder: Path) -> None:
    """The package, its tests and what they read."""
    for name in ("seamref", "tests", "tools", "book", "examples"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "*.ipynb", "_build"))
    for file in ROOT.glob("*.*"):
        if file.is_file():
            shutil.copy(file, folder / file.name)


def main() -> int:
    """Try what was asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("module", nargs="*", help="part of a module's or room's name (default: all)")
    parser.add_argument("--sample", type=int, default=0, metavar="N", help="about this many mutants of each module")
    parser.add_argument("--all", action="store_true", help="every replacement of an operator, not only its neighbours")
    parser.add_argument("--again", action="store_true", help="try again what no test noticed")
    parser.add_argument("--first", action="store_true", help="only the short tests; --again asks the others too")
    parser.add_argument("--report", action="store_true", help="what is known so far; store the figures for the book")
    args = parser.parse_args()

    def asked(room: str, source: str) -> bool:
        return not args.module or any(part in source or part == room for part in args.module)

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # the temporary folder goes
    if not args.report:
        KEPT.mkdir(exist_ok=True)
        listed = equivalents()
        for name, room in ROOMS.items():
            known = kept(name)
            todo: list[Mutant] = []
            for source in room.sources:
                if not asked(name, source):
                    continue
                made = [m for file in files_of(ROOT, (source,)) for m in make(ROOT, file, args.all)]
                if args.again:
                    todo += [m for m in made if m.key in known and known[m.key]["verdict"] != "killed"
                             and not is_equivalent(known[m.key], listed)]
                else:
                    chosen = made[:: max(1, len(made) // args.sample)] if args.sample else made
                    todo += [m for m in chosen if m.key not in known]
            if not todo:
                continue
            print(f"{name}: {len(todo)} mutants to try", file=sys.stderr, flush=True)
            with tempfile.TemporaryDirectory(prefix="mutants-") as held:
                folder = Path(held)
                copy_tree(folder)
                (folder / "todo.json").write_text(json.dumps([mutant.__dict__ for mutant in todo]))
                job = {"tests": list(room.first if args.first else room.tests), "sources": files_of(ROOT, room.sources),
                       "kept": str(KEPT / f"{name}.jsonl")}
                (folder / "job.json").write_text(json.dumps(job))
                env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), str(folder / "tools")])}
                done = subprocess.run([sys.executable, str(folder / "tools" / "mutant_runs.py")], cwd=folder, env=env,
                                      check=False)
                if done.returncode:
                    return done.returncode
    found = {source: row for source, row in figures(ROOT, args.all).items()
             if any(asked(name, source) and source in room.sources for name, room in ROOMS.items())}
    report(found, True)
    if args.report and not args.module:
        STORED.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
