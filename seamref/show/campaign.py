"""Pictures of campaigns and of sizes: what holds where, and what a reduction is worth."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import log10

from seamref.experiments.proofs.campaign import matrix, told
from seamref.explore.bugs import BUGS
from seamref.explore.campaign import Outcome, Verdict
from seamref.explore.seeding import Change
from seamref.show.html import Html, Id
from seamref.show.svg import Board, text_width
from seamref.show.tables import Table, table

LOOKS: Mapping[Verdict, tuple[str, str]] = {
    Verdict.HOLDS: ("green", "H"), Verdict.BREAKS: ("red", "B"), Verdict.VACUOUS: ("quiet", "v"),
    Verdict.TIMEOUT: ("amber", "?"), Verdict.MEMORY: ("amber", "?"), Verdict.STATES: ("amber", "?"),
    Verdict.LIVELOCK: ("violet", "L"), Verdict.REFUSED: ("quiet", "-"), Verdict.ERROR: ("violet", "E"),
    Verdict.LOST: ("violet", "E"),
}
"""Tone and letter of a verdict: a picture is read without colours too."""


def campaign_picture(outcomes: Sequence[Outcome], cpus: int, title: str = "") -> Html:
    """Scenario by fault: H holds, B breaks, v vacuous (the fault cannot strike), ? no answer within the bounds.

    b: it breaks what was found before a bound cut the search short.
    """
    rows = matrix(outcomes, cpus)
    cut = {(o.case.scenario, "+".join(o.case.faults) or "no fault") for o in outcomes
           if o.is_cut and o.case.cpus == cpus}
    faults = list(dict.fromkeys(fault for row in rows.values() for fault in row))
    left = 24 + max(text_width(name, 12, mono=True) for name in rows)
    top = 20 + max(text_width(name, 12) for name in faults) * 0.75
    side, step = 22.0, 24.0
    board = Board(left + step * len(faults) + 80, top + step * len(rows) + 12)
    for column, fault in enumerate(faults):
        x = left + step * column + side / 2
        board.parts.append(f'<g transform="rotate(-45 {x:.0f} {top - 8:.0f})">')
        board.text(x, top - 8, fault, size=12)
        board.parts.append("</g>")
    said = []
    for line, (name, row) in enumerate(rows.items()):
        y = top + step * line
        board.text(left - 10, y + 15, name, size=12, anchor="end", mono=True)
        parts = []
        for column, fault in enumerate(faults):
            if fault not in row:
                continue
            verdict, broken = row[fault]
            tone, letter = LOOKS[verdict]
            if verdict is Verdict.BREAKS and (name, fault) in cut:
                letter = "b"
            words = f"{name}, {fault}: {verdict.value}{' ' + ', '.join(broken) if broken else ''}"
            board.rect(left + step * column, y, side, side, fill=tone, opacity=0.3, stroke=tone, r=3, title=words)
            board.text(left + step * column + side / 2, y + 15.5, letter, size=12, anchor="middle", bold=True)
            parts.append(f"{fault} {'breaks ' + ', '.join(broken) if broken else verdict.value}")
        said.append(f"{name}: {'; '.join(parts)}")
    return board.html(title or f"Every scenario with every fault, {cpus} CPUs", "\n".join(said))


def campaign_table(outcomes: Iterable[Outcome], caption: str = "") -> Table:
    """One row per case; ``.frame`` is a DataFrame to go on with."""
    return table([
        {
            "scenario": o.case.scenario, "fault": "+".join(o.case.faults) or "none", "CPUs": o.case.cpus,
            "verdict": told(o), "states": o.states, "transitions": o.transitions, "longest run": o.depth,
        }
        for o in outcomes
    ], caption=caption)


def bug_table(caption: str = "Seeded bugs") -> Table:
    """Every seeded bug: what is changed, the clause it violates, and what notices it."""
    return table([
        {
            "bug": bug.name, "changed": "; ".join(_change(change) for change in bug.changes), "clause": Id(bug.clause),
            "where": bug.scenario + (f" with {'+'.join(bug.faults)}" if bug.faults else ""),
            "noticed by": bug.noticed_by or f"nothing: {bug.survives}", "alone": bug.alone,
        }
        for bug in BUGS.values()
    ], caption=caption)


def _change(change: Change) -> str:
    return str(change)


def sizes_picture(sizes: Mapping[str, Mapping[str, int]], title: str = "States stored") -> Html:
    """Bars on a logarithmic scale: for each name a group, for each way of searching a bar."""
    ways = list(dict.fromkeys(way for group in sizes.values() for way in group))
    tones = ("quiet", "amber", "blue", "teal", "violet")
    most = max(value for group in sizes.values() for value in group.values())
    left = 24 + max(text_width(name, 12, mono=True) for name in sizes)
    room, bar = 430.0, 13.0
    scale = room / max(1.0, log10(most))
    height = sum(bar * len(group) + 12 for group in sizes.values())
    board = Board(left + room + 110, height + 26 + 18 * len(ways))
    y, said = 8.0, []
    for name, group in sizes.items():
        board.text(left - 10, y + bar * len(group) / 2 + 4, name, size=12, anchor="end", mono=True)
        for way, value in group.items():
            tone = tones[ways.index(way) % len(tones)]
            length = max(2.0, scale * log10(max(1, value)))
            board.rect(left, y, length, bar - 3, fill=tone, opacity=0.45, stroke=tone, r=2, title=f"{way}: {value:,}")
            board.text(left + length + 6, y + bar - 4, f"{value:,}", size=11)
            y += bar
        y += 12
        said.append(f"{name}: " + ", ".join(f"{way} {value:,}" for way, value in group.items()))
    for number, way in enumerate(ways):
        tone = tones[number % len(tones)]
        board.rect(left, y + 18 * number + 2, 14, 10, fill=tone, opacity=0.45, stroke=tone, r=2)
        board.text(left + 22, y + 18 * number + 11, way, size=12)
    return board.html(title + " (logarithmic)", "\n".join(said))


__all__ = ["bug_table", "campaign_picture", "campaign_table", "sizes_picture"]
