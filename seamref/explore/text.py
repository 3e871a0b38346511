"""A counterexample, and a verdict, as text for a terminal: actors across, time down."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import groupby
from textwrap import wrap

from seamref.explore.engine import Counterexample, Result
from seamref.explore.world import Did

_NOTABLE = re.compile(r"VMfail|fails|lost|refuse|RAX = 0x8|-E[A-Z]+|status 0x|shut ?down in SEAM|is shut down")
"""Steps that stay visible when neighbouring steps of one actor are joined."""


def condensed(steps: Sequence[Did]) -> list[Did]:
    """Neighbouring steps of one actor as one line: between them nobody else acted."""
    lines = []
    for _, group in groupby(steps, key=lambda did: (did.actor, did.fault)):
        members = list(group)
        last = members[-1]
        texts = [m.text for m in members if m.text]
        kept = [text for i, text in enumerate(texts) if i in (0, len(texts) - 1) or _NOTABLE.search(text)]
        text = " ... ".join(kept)
        lines.append(Did(last.actor, last.name, members[0].pc, text, members[0].fault))
    return lines


def space_time(found: Counterexample, *, width: int = 100, whole: bool = False) -> str:
    """The run: one column per actor; ``whole`` shows every step, else neighbouring steps of one actor are joined."""
    steps = found.steps if whole else condensed(found.steps)
    names = sorted({did.actor: did.name for did in steps}.items())
    column = {actor: index for index, (actor, _) in enumerate(names)}
    room = max(18, (width - 5) // max(1, len(names)) - 1)
    lines = ["     " + " ".join(name.ljust(room) for _, name in names).rstrip()]
    for number, did in enumerate(steps, 1):
        text = f"!! {did.fault}; {did.text}" if did.fault else did.text
        for index, part in enumerate(wrap(text, room) or [""]):
            cells = ["|".ljust(room)] * len(names)
            cells[column[did.actor]] = part.ljust(room)
            lines.append((f"{number:3}  " if index == 0 else "     ") + " ".join(cells).rstrip())
    lines += wrap(f"=> {found.broken}: {found.wrong}", width)
    return "\n".join(lines)


def report(result: Result, *, width: int = 100, whole: bool = False, timing: bool = True) -> str:
    """What an exploration found, with its counts and every counterexample."""
    lines = [f"{result.scenario}, {result.cpus} CPUs: {result.verdict}"]
    counts = (f"{result.states:,} states ({result.worlds:,} without symmetry), {result.transitions:,} transitions, "
              f"depth {result.depth}, {result.ends:,} ends")
    if timing:
        counts += f", {result.seconds:.1f} s"
    lines.append(counts)
    lines.append("reductions: " + (", ".join(result.reductions) or "none")
                 + (f"; stopped: {result.why}" if result.why else "; every reachable state was looked at"))
    for text in result.widened:
        lines += wrap(f"widened: {text}", width)
    for text in result.notes:
        lines += wrap(f"note: {text}", width)
    lines += [f"{count:8,} x {name}" for name, count in result.outcomes]
    for found in result.broken:
        began = f" ({found.began})" if found.began else ""
        sure = "the shortest of all interleavings" if found.shortest else "shortened by replay"
        lines += ["", f"{found.broken} broken after {found.depth} steps{began}, {sure}:",
                  space_time(found, width=width, whole=whole)]
    return "\n".join(lines)
