#!/usr/bin/env python3
"""The page of questions, generated from book/questions.json.

    python tools/questions.py write    write book/questions.md
    python tools/questions.py check    say what does not fit: the page, the anchors, the chapters

A question is answered when it has a command; then a chapter must carry its anchor, `(q-N)=`.
A question without a command is open, and the page lists it as open.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT / "book" / "questions.json"
PAGE = ROOT / "book" / "questions.md"
ANCHOR = re.compile(r"^\((q-\d+)\)=\s*\n+#{1,6} \S", re.MULTILINE)


@dataclass(frozen=True)
class Question:
    number: int
    part: str
    question: str
    asked: str | None  # where it was asked in public
    command: str | None  # a command that answers it by running; None while open

    @property
    def anchor(self) -> str:
        return f"q-{self.number}"

    @property
    def is_open(self) -> bool:
        return self.command is None


def load(path: Path = DATA) -> list[Question]:
    return [Question(**row) for row in json.loads(path.read_text(encoding="utf-8"))]


def anchors(book: Path = ROOT / "book") -> dict[str, list[str]]:
    """Every question anchor that stands above a heading of a chapter, with the chapters that carry it."""
    found: dict[str, list[str]] = {}
    for path in sorted(book.rglob("*.ipynb")):
        if any(part.startswith((".", "_")) for part in path.relative_to(book).parts):
            continue
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            if cell["cell_type"] == "markdown":
                for anchor in ANCHOR.findall("".join(cell["source"])):
                    found.setdefault(anchor, []).append(path.relative_to(book).as_posix())
    return found


def page(questions: Sequence[Question]) -> str:
    """The page as MyST markdown; a link that does not resolve is a warning of the build, hence an error."""
    lines = [
        "# Questions",
        "",
        "Asked in public by kernel, firmware and security people. Each answer has an address in this book",
        "and a command that gives it by running.",
    ]
    answered = [q for q in questions if not q.is_open]
    for part in dict.fromkeys(q.part for q in answered):
        lines += ["", f"## {part}"]
        for q in answered:
            if q.part == part:
                lines += ["", f"**{q.number}.** [{q.question}](#{q.anchor})", *_asked(q)]
                lines += ["", "```console", f"$ {q.command}", "```"]
    unanswered = [q for q in questions if q.is_open]
    if unanswered:
        lines += ["", "## Open", "", "Not answered by this book yet."]
        for q in unanswered:
            lines += ["", f"**{q.number}.** {q.question}", *_asked(q)]
    return "\n".join(lines) + "\n"


def _asked(q: Question) -> list[str]:
    return ["", f"*Asked:* {q.asked}"] if q.asked else []


def problems(questions: Sequence[Question], carried: Mapping[str, Sequence[str]], text: str) -> list[str]:
    found: list[str] = []
    if [q.number for q in questions] != list(range(1, len(questions) + 1)):
        found.append("the questions are not numbered 1..n in order")
    for q in questions:
        places = carried.get(q.anchor, ())
        if q.is_open and places:
            found.append(f"{q.anchor}: has an address in {', '.join(places)}, but no command")
        elif not q.is_open and len(places) != 1:
            found.append(f"{q.anchor}: stands in {len(places)} chapters, must stand in one {list(places)}")
        if q.command is not None and not q.command.startswith("python -m seamref "):
            found.append(f"{q.anchor}: the command is not a `python -m seamref ...` command")
    known = {q.anchor for q in questions}
    found += [
        f"{anchor}: an anchor in {places[0]} for no question"
        for anchor, places in carried.items()
        if anchor not in known
    ]
    if text != page(questions):
        found.append("book/questions.md is not what book/questions.json says (run tools/questions.py write)")
    return found


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="tools/questions.py", description="The page of questions.")
    parser.add_argument("command", choices=["write", "check"])
    args = parser.parse_args(argv)
    questions = load()
    if args.command == "write":
        PAGE.write_text(page(questions), encoding="utf-8")
        return 0
    found = problems(questions, anchors(), PAGE.read_text(encoding="utf-8"))
    for line in found:
        print(line, file=sys.stderr)
    print(f"{len(questions)} questions, {sum(q.is_open for q in questions)} open, {len(found)} problems")
    return 1 if found else 0


if __name__ == "__main__":
    raise SystemExit(main())
