"""Every question has an address and a command, or stands on the page as open."""

from __future__ import annotations

import io
import shlex
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import questions
from seamref.cli import main

ROOT = Path(__file__).resolve().parents[2]
ALL = questions.load()
ANSWERED = [q for q in ALL if not q.is_open]


def test_page_anchors_and_data_agree() -> None:
    assert questions.problems(ALL, questions.anchors(), questions.PAGE.read_text(encoding="utf-8")) == []


def test_there_are_37_questions() -> None:
    assert len(ALL) == 37


def test_the_page_lists_as_open_exactly_the_open_questions() -> None:
    text = questions.PAGE.read_text(encoding="utf-8")
    answered, _, unanswered = text.partition("\n## Open\n")
    for q in ALL:
        line = f"**{q.number}.** "
        assert (line in answered) is not q.is_open
        assert (line in unanswered) is q.is_open


@pytest.mark.parametrize("question", ANSWERED, ids=lambda q: q.anchor)
def test_the_command_answers_by_running(
    question: questions.Question, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = shlex.split(question.command)
    assert command[:3] == ["python", "-m", "seamref"]
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    assert main(command[3:]) == 0
    said = capsys.readouterr()
    assert said.out.strip() and not said.err


# ---------------------------------------------------------------- the check itself

OPEN = questions.Question(1, "Part", "Why?", None, None)
DONE = replace(OPEN, command="python -m seamref --help")


def test_an_answer_without_an_address_is_caught() -> None:
    assert "q-1: stands in 0 chapters" in questions.problems([DONE], {}, questions.page([DONE]))[0]
    assert questions.problems([DONE], {"q-1": ["a.ipynb"]}, questions.page([DONE])) == []


def test_an_address_without_a_command_is_caught() -> None:
    assert "but no command" in questions.problems([OPEN], {"q-1": ["a.ipynb"]}, questions.page([OPEN]))[0]


def test_two_addresses_and_unknown_addresses_are_caught() -> None:
    text = questions.page([DONE])
    assert "stands in 2 chapters" in questions.problems([DONE], {"q-1": ["a.ipynb", "b.ipynb"]}, text)[0]
    assert "for no question" in questions.problems([DONE], {"q-1": ["a.ipynb"], "q-9": ["b.ipynb"]}, text)[0]


def test_a_stale_page_is_caught() -> None:
    assert "is not what" in questions.problems([OPEN], {}, questions.page([DONE]))[0]


def test_only_labels_above_headings_are_addresses(tmp_path: Path) -> None:
    (tmp_path / "a.ipynb").write_text(
        '{"cells": [{"cell_type": "markdown", "source": ["(q-1)=\\n", "## Why?\\n", "(q-2)=\\n", "text"]},'
        ' {"cell_type": "code", "source": ["(q-3)=\\n", "# x"]}]}'
    )
    assert questions.anchors(tmp_path) == {"q-1": ["a.ipynb"]}
