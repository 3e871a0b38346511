"""Say what a number or a line of the kernel log means.

VALUE is a status, a leaf, a name (EBADHASH, TDX_SYS_BUSY, SEAMLDR.INSTALL), an errno (-ENODEV), an upload error
(transferring:firmware-invalid), a whole line as dmesg or journalctl shows it, or a file with a log; - is standard
input, which is read too when there is no VALUE.  Lines of a log are read with what the lines before them said.
Numbers without 0x are decimal, but for the zero-padded ones of a register dump and those with letters.

What is the first cause in a log: python -m seamref doctor.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from seamref.commands._answer import add_json, print_json

if TYPE_CHECKING:
    from seamref.diagnose.explain import Answer

HELP = "which component said this number or log line, why, and what now"
SHORT = 200
"""Lines of a paste in which every line is answered; in longer logs those that have nothing to do with TDX are not."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    # "-19" and "-ENODEV" are values here, not options.
    parser._negative_number_matcher = re.compile(r"-(\d+|E[A-Z]+)$")
    parser.add_argument("value", nargs="*", metavar="VALUE", help="a number, a name, a quoted line, a file, or -")
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Print every reading; 1 when something had none."""
    from seamref.diagnose.explain import Answer, explain
    from seamref.diagnose.read import stdin_lines

    out = _Printer(args.json)
    given = list(args.value) or ["-"]
    for text in given:
        if text == "-":
            _log(stdin_lines(), out)
        elif (path := _file(text)) is not None:
            from seamref.diagnose.read import file_lines

            _log(file_lines(path), out)
        elif "\n" in text:
            _log(iter(text.splitlines()), out)
        else:
            out.answer(Answer(0, text, tuple(explain(text))))
    return out.end()


def _file(text: str) -> Path | None:
    """A VALUE that names a file; a word that is read otherwise is not looked for."""
    from seamref.diagnose.explain import explain
    from seamref.errors import SeamrefError

    if len(text) > 4096 or "\0" in text:
        return None
    try:
        path = Path(text)
        if not path.exists() or path.is_dir():
            return None
        return None if any(e.known for e in explain(text)) else path
    except (OSError, SeamrefError):
        return None


def _log(lines: Iterator[str], out: _Printer) -> None:
    """A short paste is answered line by line, a longer one where it speaks of TDX."""
    from itertools import chain, islice

    from seamref.diagnose.explain import explain_log

    head = list(islice(lines, SHORT + 1))
    whole = len(head) <= SHORT
    report = explain_log(chain(head, lines), everything=whole, seen=out.answer)
    out.log(report.lines, report.related, report.unknown, report.left_out, whole)


class _Printer:
    """Answers one after another; as JSON all at the end."""

    def __init__(self, as_json: bool) -> None:
        self.as_json = as_json
        self.answers: list[Answer] = []
        self.logs: list[dict[str, int]] = []
        self.printed = self.unknown = self.known = 0

    def answer(self, answer: Answer) -> None:
        """One line and its readings."""
        if answer.known:
            self.known += 1
        else:
            self.unknown += 1
        if self.as_json:
            self.answers.append(answer)
            return
        if self.printed:
            print()
        self.printed += 1
        if answer.number:
            print(f"line {answer.number}: {printable(answer.line)}")
        if not answer.readings:
            print(f"{printable(answer.line)}: nothing is known about this")
        print("\n\n".join(explanation.text() for explanation in answer.readings),
              end="\n" if answer.readings else "")

    def log(self, lines: int, related: int, unknown: int, left_out: int, whole: bool) -> None:
        """What a log held in all."""
        self.logs.append({"lines": lines, "related": related, "unknown": unknown, "left_out": left_out})
        self.unknown = max(self.unknown, 1 if whole and not related else self.unknown)
        if not whole and not self.as_json:
            rest = f", {left_out} left out (too many)" if left_out else ""
            print(f"\n{lines} lines, {related} that may have to do with TDX, {unknown} of these not known{rest}")

    def end(self) -> int:
        """Exit code; 1 when a line of a paste, or everything of a log, was not known."""
        if self.as_json:

            print_json("explain", {"logs": self.logs, "answers": [
                {"line": a.line, "number": a.number or None, "known": a.known,
                 "readings": [e.to_json() for e in a.readings]} for a in self.answers]})
        return 1 if self.unknown or not self.known else 0


def printable(text: str) -> str:
    """A line as it may go to a terminal."""
    shown = text if len(text) <= 300 else f"{text[:297]}..."
    return "".join(c if c.isprintable() else "?" for c in shown)


