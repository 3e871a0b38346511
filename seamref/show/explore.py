"""Pictures of explorations: counterexamples in space and time, results as tables, growth as a plot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import log10

from seamref.experiments.proofs.runs import told
from seamref.explore.engine import Counterexample, Result
from seamref.explore.properties import PROPERTIES
from seamref.show.html import Html
from seamref.show.sequences import Act, Note, Step, sequence
from seamref.show.svg import Board
from seamref.show.tables import Table, table

TONES = ("blue", "red", "teal", "violet", "amber")


def run_picture(found: Counterexample, title: str = "") -> Html:
    """A counterexample: actors across, time down; neighbouring steps of one actor are joined.

    The title says *shortest* only where the explorer has shown that no shorter run breaks the property.
    """
    steps: list[Step] = []
    for line in told(found):
        if line.fault:
            steps.append(Act(line.name, line.fault, "", "red"))
        steps.append(Act(line.name, line.text, "", "red" if line.wrong else "violet" if line.enters else ""))
    steps.append(Note(found.wrong, "red"))
    lanes = sorted({did.actor: did.name for did in found.steps}.items())
    return sequence(steps, lanes=[name for _, name in lanes],
                    title=title or f"{'The shortest' if found.shortest else 'A'} run that breaks {found.broken}")


def verdict_table(results: Sequence[Result], caption: str = "") -> Table:
    """One row per exploration: what was found, and how much was looked at."""
    return table([
        {
            "scenario": r.scenario, "CPUs": r.cpus, "verdict": r.verdict, "states": r.states, "stands for": r.worlds,
            "longest run": r.depth, "ends": r.ends,
        }
        for r in results
    ], caption=caption)


def property_table(caption: str = "What is checked") -> Table:
    """Every property: what it says, of what, and where it comes from."""
    return table([
        {"property": p.name, "says": p.says, "of": "every step" if p.step is not None else "every end",
         "source": p.source}
        for p in PROPERTIES.values()
    ], caption=caption)


def _short(value: int) -> str:
    for unit, name in ((10**6, " million"), (10**3, " thousand")):
        if value >= unit:
            return f"{value // unit:,}{name}"
    return str(value)


def growth_plot(series: Mapping[str, Mapping[int, int]], title: str = "States stored, by number of CPUs") -> Html:
    """Counts over N, with a logarithmic axis; each series is named where it ends."""
    width, height, left, bottom = 660.0, 380.0, 92.0, 40.0
    board = Board(width, height)
    most = max(value for points in series.values() for value in points.values())
    last = max(n for points in series.values() for n in points)
    first = min(n for points in series.values() for n in points)
    decades = int(log10(most)) + 1

    def x(n: int) -> float:
        return left + (width - left - 150) * (n - first) / max(1, last - first)

    def y(value: int) -> float:
        return 20 + (height - bottom - 20) * (1 - log10(max(1, value)) / decades)

    for power in range(decades + 1):
        board.line([(left, y(10**power)), (width - 150, y(10**power))], stroke="quiet", line=0.5)
        board.text(left - 8, y(10**power) + 4, _short(10**power), anchor="end", size=11)
    for n in range(first, last + 1):
        if last - first <= 8 or n % 2 == 0:
            board.text(x(n), height - bottom + 18, str(n), anchor="middle", size=11)
    board.text((left + width - 150) / 2, height - 6, "CPUs", anchor="middle", size=12)
    said = []
    for (name, points), tone in zip(series.items(), TONES, strict=False):
        places = [(x(n), y(value)) for n, value in sorted(points.items())]
        if len(places) > 1:
            board.line(places, stroke=tone, line=2)
        for place in places:
            board.line([(place[0] - 3, place[1]), (place[0] + 3, place[1])], stroke=tone, line=5)
        board.text(places[-1][0] + 8, places[-1][1] + 4, name, size=12)
        said.append(f"{name}: " + ", ".join(f"{n} CPUs {value:,}" for n, value in sorted(points.items())))
    return board.html(title, "\n".join(said))
