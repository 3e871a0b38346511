"""Every line that the kernel of ``seamref.host`` prints is declared once, and read by the form of its id."""

from __future__ import annotations

import ast
from pathlib import Path
from string import Formatter

import pytest

from seamref.commands._rooms import import_clauses
from seamref.diagnose.explain import explain
from seamref.diagnose.lines import BY_ID, match_form, strip_prefix
from seamref.host import log
from seamref.spec import CLAUSES, SOURCES

HOST = Path(log.__file__).parent
VALUES: dict[str, object] = {
    "leaf": 0x22, "status": 0xC000050500000000, "rcx": 1, "rdx": 2, "r8": 3, "r9": 4, "r10": 5, "r11": 6, "first": 32,
    "end": 64, "major": 1, "minor": 5, "update": 6, "kb": 4096, "errno": -5, "version": 3, "old": 1, "new": 2,
    "name": "tdx_module", "number": 7,
}


def said(line: log.LogLine) -> str:
    values = {name: VALUES[name] for _, name, _, _ in Formatter().parse(line.text) if name}
    if line is log.UPDATED:
        values = {"old": "1.5.05", "new": "1.5.06"}
    return line.says(None, **values)


def named(line: log.LogLine) -> str:
    return f"{line.id} {line.text[:40]}"


@pytest.mark.parametrize("line", log.LINES, ids=named)
def test_LINES__each_is_read_by_its_form_with_its_own_clauses(line: log.LogLine) -> None:
    found = match_form(strip_prefix(f"[   12.345678] {said(line)}"))
    assert found is not None and found[0].id == line.id
    assert set(line.clauses) <= set(found[0].clauses)
    others = {clause for other in log.LINES if other.id == line.id for clause in other.clauses} - set(line.clauses)
    assert not others & set(found[0].clauses), "clauses of another wording"
    assert explain(said(line))


@pytest.mark.parametrize("line", log.LINES, ids=named)
def test_LINES__clauses_and_sources_are_declared(line: log.LogLine) -> None:
    import_clauses(None)
    assert set(line.clauses) <= set(CLAUSES)
    assert line.source.split()[0] in SOURCES and line.source in BY_ID[line.id].source


def test_LINES__nothing_else_is_printed() -> None:
    """Whoever calls ``printk`` says a declared line: no literal of its own stands in the kernel's code."""
    literal = []
    for path in sorted(HOST.glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) \
                    and node.func.attr in ("printk", "log", "warn"):
                literal += [f"{path.name}:{node.lineno}" for argument in node.args
                            if isinstance(argument, ast.JoinedStr)
                            or (isinstance(argument, ast.Constant) and argument.value)]
    assert literal == []
