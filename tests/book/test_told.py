"""What every chapter from the foundations to the host is held to: solutions that assert, a summary, sources."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from seamref.commands._rooms import import_clauses
from seamref.spec import address, cited

BOOK = Path(__file__).parents[2] / "book"
PARTS = ("foundations", "processor", "boot", "loader", "module", "host", "proofs")
CHAPTERS = sorted(path for part in PARTS for path in (BOOK / part).glob("*.ipynb"))
NO_HEADING = {"The question first", "The clause", "What goes wrong", "Introduction", "The machinery", "The table"}
"""Headings that say nothing of what stands under them."""

CITE = re.compile(r"\{cite\}`([^`]+)`")


def name(path: Path) -> str:
    return path.relative_to(BOOK).with_suffix("").as_posix()


def cells(path: Path) -> list[dict[str, Any]]:
    held: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return held


def prose(path: Path) -> str:
    return "\n\n".join("".join(cell["source"]) for cell in cells(path) if cell["cell_type"] == "markdown")


told = pytest.mark.parametrize("path", CHAPTERS, ids=name)


@told
def test_every_solution_says_what_must_come(path: Path) -> None:
    """A stored output is not a right output: each exercise has a solution that fails when the answer changes."""
    text = prose(path)
    exercises = len(re.findall(r"^\d+\. ", text.partition("## Exercises")[2], re.MULTILINE))
    groups: list[str] = []
    behind = False
    for cell in cells(path):
        if cell["cell_type"] == "code" and "hide-cell" in cell["metadata"].get("tags", []):
            source = "".join(cell["source"])
            groups[len(groups) - behind:] = [groups[-1] + source if behind else source]
            behind = True
        else:
            behind = False
    assert exercises >= 2
    assert len(groups) == exercises
    assert all("assert " in group for group in groups), [group[:60] for group in groups if "assert " not in group]


@told
def test_a_chapter_says_what_to_know_before_and_what_to_remember(path: Path) -> None:
    text = prose(path)
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    assert re.search(r"(?i)to know before|need to know|before this:", text.partition("\n## ")[0])
    assert re.search(r"^## What to remember$", text, re.MULTILINE)
    assert not NO_HEADING & set(headings)
    assert not re.findall(r"^# .+\n(?=# )", text, re.MULTILINE)


def test_every_source_cited_in_prose_has_an_address() -> None:
    import_clauses(None)
    found = [(name(path), part, source) for path in sorted(BOOK.glob("*/*.ipynb")) for text in CITE.findall(prose(path))
             for part, source in cited(text)]
    assert len(found) > 60
    assert not [(where, part) for where, part, source in found if source is None or not address(part)]


@told
def test_a_chapter_leads_to_a_source_outside(path: Path) -> None:
    assert CITE.search(prose(path).partition("## Further reading")[2])
