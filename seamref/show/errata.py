"""Where documents disagree, drawn: every erratum with both readings run, the states in which two revisions differ."""

from __future__ import annotations

from collections.abc import Iterable

from seamref.arch.errata import ERRATA
from seamref.arch.exhaustive import INPUTS, facts_of, is_reachable, seamcall_table
from seamref.arch.revision import SILICON, Revision
from seamref.experiments.processor.errata import DEMONSTRATIONS
from seamref.experiments.processor.states import differing, fact_words
from seamref.show.html import Html, Id, marked_up, scrolling
from seamref.show.svg import Board
from seamref.show.tables import Table


def errata_table(base: Revision = SILICON) -> Html:
    """Every disagreement: its sides, the decision, and either the experiment on both sides or the reason for none."""
    shown = {demo.number: demo for demo in DEMONSTRATIONS}
    rows, said = [], []
    for row in ERRATA:
        sides = "<br>".join(marked_up(side) for side in row.sides)
        if row.number in shown:
            demo = shown[row.number]
            ours, theirs = demo.answers(base)
            run = (
                f"<div>{marked_up(demo.what)}</div><div>→ <b>{marked_up(ours)}</b></div>"
                f"<div>→ other reading: <b>{marked_up(theirs)}</b></div><div><code>{row.knob}</code></div>"
            )
            text = f"{demo.what}: {ours} / {theirs}"
        else:
            run = f"<div>no knob: {marked_up(row.reason)}</div>"
            text = f"no knob: {row.reason}"
        rows.append(
            f'<tr id="erratum-{row.number}"><td>{row.number}</td><td><b>{marked_up(row.topic)}</b><br>{sides}</td>'
            f"<td><div>this machine: {marked_up(row.decision)}</div>{run}</td></tr>"
        )
        said.append(f"{row.number:2} {row.topic} | {'; '.join(row.sides)} | {row.decision} | {text}")
    head = "".join(f'<th scope="col">{n}</th>' for n in ("#", "topic and sides", "this machine, and both readings run"))
    inner = (
        f'<table class="dataframe seam-table"><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table>'
    )
    return Html(scrolling(inner, "Errata"), "\n".join(said))


def knob_table(numbers: Iterable[int], base: Revision = SILICON) -> Table:
    """The experiments of some errata, both answers side by side."""
    wanted = set(numbers)
    rows = [(d.number, d.what, *d.answers(base), f"`{d.erratum.knob}`") for d in DEMONSTRATIONS if d.number in wanted]
    return Table(("#", "experiment", base.name, "the other reading", "knob"), rows)


def difference_rows(a: Revision, b: Revision, reachable: bool = True) -> Table:
    """The states in which two revisions answer SEAMCALL differently, as few lines as describe them exactly.

    Facts that do not matter within a line stand as "any".  With ``reachable``, states that no processor can be in are
    left out, and used only to shorten the description.
    """
    found = differing(a, b, reachable)
    rows = [
        (", ".join(f"{n} = {int(v)}" for n, v in line.facts.items() if v is not None), line.states, line.one,
         line.other)
        for line in found
    ]
    caption = f"{sum(line.states for line in found)} {'reachable ' if reachable else ''}states differ"
    return Table(("states (facts not named: any)", "states", a.name, b.name), rows, caption)


def every_difference(a: Revision, b: Revision) -> Table:
    """Every reachable state in which two revisions differ, one line each, with the deciding clauses."""
    one, other = seamcall_table(a), seamcall_table(b)
    rows = [
        (state, fact_words(state), ", ".join(n for n, on in facts_of(state).items() if on), x.outcome, y.outcome,
         Id(x.clause), Id(y.clause))
        for state, (x, y) in enumerate(zip(one, other, strict=True))
        if x.outcome != y.outcome and is_reachable(state)
    ]
    return Table(("state", "where", "facts that are 1", a.name, b.name, f"clause, {a.name}", f"clause, {b.name}"), rows)


def inputs_table() -> Table:
    """The facts SEAMCALL looks at, with their bit in a state number."""
    return Table(("bit", "name", "1 means"), [(i.bit, f"`{i.name}`", i.meaning) for i in INPUTS])


def grid(a: Revision, b: Revision) -> Html:
    """All 4096 states as a square: white where two revisions agree, coloured where they differ.

    Rows are the six mode facts, columns the six readiness facts; unreachable states are hatched out.
    """
    one, other = seamcall_table(a), seamcall_table(b)
    cell, left, top, pitch = 6.4, 232.0, 24.0, 15.0
    modes = [m for m in range(64) if any(is_reachable(_state(m, r)) for r in range(64))]
    board = Board(left + 64 * cell + 6, top + len(modes) * pitch + 30)
    names = [i.name for i in INPUTS]
    said: list[str] = []
    board.text(4, 15, "mode facts that are 1", size=11.5, fill="quiet")
    board.text(left, 15, "one column for each combination of the six others", size=11.5, fill="quiet")
    for index, mode in enumerate(modes):
        y = top + index * pitch
        words = ", ".join(n for b_, n in enumerate(names[:6]) if mode >> b_ & 1) or "none"
        board.text(left - 8, y + 10, words, size=11.5, anchor="end")
        differing = 0
        for rest in range(64):
            state = _state(mode, rest)
            differs = one[state].outcome != other[state].outcome
            differing += differs and is_reachable(state)
            tint = ("red" if differs else "quiet") if is_reachable(state) else ""
            if tint:
                board.rect(left + rest * cell, y, cell - 1, pitch - 3, fill=tint, opacity=0.85 if differs else 0.16,
                           stroke="", r=0)
        if differing:
            said.append(f"{words}: {differing} of 64 states differ")
    y = top + len(modes) * pitch + 18
    board.rect(left, y - 9, 12, 10, fill="red", opacity=0.85, stroke="", r=0)
    board.text(left + 18, y, f"{a.name} and {b.name} differ", size=11.5)
    return board.html(f"Where {a.name} and {b.name} differ over all states", "\n".join(said) or "nowhere")


def _state(mode: int, rest: int) -> int:
    return mode | rest << 6


__all__ = [
    "difference_rows", "errata_table", "every_difference", "grid", "inputs_table", "knob_table",
]
