"""Bytes are taken by the name of a declared field: no slice of seamref/ has literal offsets."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

NOT_BYTES = {
    ("seamref/host/inspection.py", "text[4:6]"): "a date written in decimal",
    ("seamref/host/inspection.py", "text[6:8]"): "a date written in decimal",
    ("seamref/host/verify.py", "held[4:6]"): "a date written in decimal",
    ("seamref/host/verify.py", "held[7:]"): "a date written in decimal",
    ("seamref/explore/jobs.py", "state[2:]"): "a tuple of the explorer",
    ("seamref/show/pictures.py", "t[2:]"): "a tuple of figures",
    ("seamref/show/tables.py", "shown[4:]"): "the cells of a row",
    ("seamref/commands/completion.py", "option[2:]"): "the dashes of an option",
    ("seamref/conformance/linux.py", "field[4:]"): "the digits of a name",
    ("seamref/conformance/linux_format.py", "name[4:]"): "the digits of a name",
    ("seamref/tdxmodule/sha384.py", "_primes(16)[8:]"): "SHA-384 starts from the ninth to the sixteenth prime",
}
"""Slices of something that has no layout, and what it is."""

TO_BE_MENDED = {
    "seamref/host/image.py": 4, "seamref/host/inspection.py": 2, "seamref/host/uefi.py": 1, "seamref/show/tdx.py": 3,
    "seamref/tdxmodule/metadata.py": 1, "seamref/tdxmodule/td.py": 1,
}
"""How many are left, by file.  The figures only shrink: a file that has fewer must be given its new figure here."""


def is_literal(node: ast.expr | None) -> bool:
    """A number written down, or a sum or shift of such."""
    if isinstance(node, ast.Constant):
        return isinstance(node.value, int) and not isinstance(node.value, bool)
    return isinstance(node, ast.BinOp) and is_literal(node.left) and is_literal(node.right)


def is_offset(node: ast.Slice) -> bool:
    """From a literal to a literal, or from a literal above 1 to the end."""
    if node.upper is None:
        return is_literal(node.lower) and not (isinstance(node.lower, ast.Constant) and node.lower.value in (0, 1))
    return is_literal(node.lower) and is_literal(node.upper)


def found() -> dict[str, list[str]]:
    """The slices with literal offsets, by file."""
    slices: dict[str, list[str]] = {}
    for path in sorted((ROOT / "seamref").rglob("*.py")):
        name = path.relative_to(ROOT).as_posix()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Slice) and is_offset(node.slice):
                text = ast.unparse(node)
                if (name, text) not in NOT_BYTES:
                    slices.setdefault(name, []).append(f"line {node.lineno}: {text}")
    return slices


def test_offsets__no_slice_has_literal_ones() -> None:
    slices = found()
    new = {name: held for name, held in slices.items() if len(held) > TO_BE_MENDED.get(name, 0)}
    assert not new, new


def test_offsets__the_list_of_what_is_left_only_shrinks() -> None:
    slices = found()
    assert {name: len(slices.get(name, [])) for name in TO_BE_MENDED} == TO_BE_MENDED


def test_offsets__the_finder_finds() -> None:
    for text, wanted in (("a[900:948]", True), ("a[8:10]", True), ("a[1 << 4:]", True), ("a[:4]", False),
                         ("a[1:]", False), ("a[at:at + 8]", False), ("a[S.span('x')]", False), ("a[0:8]", True)):
        (node,) = [n for n in ast.walk(ast.parse(text)) if isinstance(n, ast.Slice)] or [None]
        assert (node is not None and is_offset(node)) is wanted, text
