"""The reading paths: every chapter and file that they name is there, and minutes and sizes are counted, not typed."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

import chapters

ROOT = Path(__file__).resolve().parents[2]
PATHS = ROOT / "book" / "paths"
_spec = importlib.util.spec_from_file_location("readingpaths", ROOT / "book" / "_ext" / "readingpaths.py")
assert _spec is not None and _spec.loader is not None
readingpaths = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(readingpaths)

BLOCK = re.compile(r"^```\{([\w-]+)\}\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(name: str, kind: str) -> list[str]:
    text = (PATHS / f"{name}.md").read_text(encoding="utf-8")
    return [entry for of, body in BLOCK.findall(text) if of == kind
            for entry, _ in readingpaths.entries(body.splitlines())]


@pytest.mark.parametrize("name", ["reviewer", "author", "security", "newcomer"])
def test_a_path_names_chapters_of_the_book_once_each(name: str) -> None:
    pages = blocks(name, "reading")
    listed = set(chapters.toc_entries())
    assert pages and [page for page in pages if f"book/{page}" not in listed] == []
    assert len(pages) == len(set(pages))
    assert all(readingpaths.minutes(page) >= 1 and readingpaths.title(page) for page in pages)


def test_the_reviewers_path_has_the_six_chapters_that_it_promises() -> None:
    assert len(blocks("reviewer", "reading")) == 6
    assert "Six chapters" in (PATHS / "reviewer.md").read_text(encoding="utf-8")


def test_reading_the_source_names_files_that_say_what_they_are_for() -> None:
    files = blocks("source", "source-files")
    assert len(files) == len(set(files)) > 20
    assert [name for name in files if len(readingpaths.source_purpose(name)) < 20] == []
    assert [name for name in files if readingpaths.source_lines(name) < 5] == []


def test_minutes_follow_the_text_and_not_what_is_folded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import json

    def page(**cells: object) -> int:
        (tmp_path / "x.ipynb").write_text(json.dumps({"cells": cells["cells"]}), encoding="utf-8")
        return int(readingpaths.minutes("x"))

    monkeypatch.setattr(readingpaths, "BOOK", tmp_path)
    words = {"cell_type": "markdown", "source": ["word " * 1800]}
    code = {"cell_type": "code", "source": ["x = 1\n"] * 400, "outputs": [], "metadata": {}}
    folded = {**code, "metadata": {"tags": ["hide-input"]}}
    assert (page(cells=[words]), page(cells=[words, code]), page(cells=[words, folded])) == (10, 20, 10)


def test_what_is_not_there_is_named() -> None:
    with pytest.raises(LookupError, match="no chapter 'boot/nowhere'"):
        readingpaths.minutes("boot/nowhere")
    with pytest.raises(LookupError, match=r"no file seamref/nowhere\.py and no package"):
        readingpaths.source_lines("seamref/nowhere")


SUMS = [(1, "5 minutes"), (62, "60 minutes"), (89, "90 minutes"), (95, "an hour and a half"), (118, "2 hours"),
        (250, "4 hours"), (275, "4 and a half hours")]


@pytest.mark.parametrize(("whole", "said"), SUMS)
def test_a_sum_is_said_as_a_person_would(whole: int, said: str) -> None:
    assert readingpaths.spoken(whole) == said
