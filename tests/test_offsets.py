"""Bytes are taken by the name of a declared field: no slice of seamref/ has literal offsets."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

def is_literal(node: ast.expr | None) -> bool:
    """A number written down, or a sum or shift of such."""
    if isinstance(node, ast.Constant):
        return isinstance(node.value, int) and not isinstance(node.value, bool)
    return isinstance(node, ast.BinOp) and is_literal(node.left) and is_literal(node.right)


LARGE = 16
"""Where a slice to the end starts that cannot be a prefix of some text."""


def is_offset(node: ast.Slice) -> bool:
    """From a literal to a literal, or from a large literal to the end."""
    if node.upper is None:
        return is_literal(node.lower) and not (isinstance(node.lower, ast.Constant) and node.lower.value < LARGE)
    return is_literal(node.lower) and is_literal(node.upper)


def found() -> dict[str, list[str]]:
    """The slices with literal offsets, by file."""
    slices: dict[str, list[str]] = {}
    for path in sorted((ROOT / "seamref").rglob("*.py")):
        name = path.relative_to(ROOT).as_posix()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Slice) and is_offset(node.slice):
                text = ast.unparse(node)
                if not isinstance(node.value, ast.Call):
                    slices.setdefault(name, []).append(f"line {node.lineno}: {text}")
    return slices


def test_offsets__no_slice_has_literal_ones() -> None:
    assert found() == {}


@pytest.mark.parametrize(("text", "wanted"), [
    ("a[900:948]", True), ("a[8:10]", True), ("a[1 << 4:]", True), ("a[0:8]", True), ("a[62:]", True),
    ("a[:4]", False), ("a[1:]", False), ("a[7:]", False), ("a[at:at + 8]", False),
])
def test_offsets__the_finder_finds(text: str, wanted: bool) -> None:
    (node,) = [n for n in ast.walk(ast.parse(text)) if isinstance(n, ast.Slice)]
    assert is_offset(node) is wanted
