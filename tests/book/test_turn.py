"""Answers of the explorers: computed once for a tree, and never taken for those of another."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "book" / "_ext"))

import turn  # noqa: E402

from seamref.show.precomputed import explorer_named, turns_of  # noqa: E402


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    turn.compute(tmp_path, ["boot"])
    (file,) = tmp_path.glob("boot-*.json")
    return file


def test_answers_are_kept_as_the_machine_gives_them(kept: Path) -> None:
    held, now = turn.Answers(kept.parent).of("boot"), turns_of(explorer_named("boot"))
    assert (list(held.number), list(held.answers)) == (list(now.number), list(now.answers))
    before = kept.stat().st_mtime_ns
    turn.compute(kept.parent, ["boot"])
    assert kept.stat().st_mtime_ns == before  # another build finds them


@pytest.mark.parametrize("path", ["seamref/show/boot.py", "seamref/bootchain/chain.py", "seamref/arch/platform.py"])
def test_answers_do_not_hold_when_a_module_has_changed(kept: Path, path: str) -> None:
    data = json.loads(kept.read_text(encoding="utf-8"))
    assert data["modules"][path] == turn.file_digest(path)
    data["modules"][path] = "0" * 20
    kept.write_text(json.dumps(data), encoding="utf-8")
    assert turn.Answers(kept.parent).kept("boot") is None


@pytest.mark.parametrize(
    "text", ["", "{}", "[]", '{"modules": {}', '{"modules": {"seamref/none.py": "ab"}, "turns": {}}'])
def test_a_file_that_is_broken_or_of_another_tree_is_no_answer(tmp_path: Path, text: str) -> None:
    (tmp_path / "boot-0.json").write_text(text, encoding="utf-8")
    assert turn.Answers(tmp_path).kept("boot") is None
