"""States and the ways between them: boxes on a grid, arrows with words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from seamref.errors import SeamrefError
from seamref.show.html import Html
from seamref.show.svg import SIZE, SMALL, Board, text_width, wrap


@dataclass(frozen=True, slots=True)
class State:
    """A box of a state machine at a place of a grid: (column, row), halves allowed."""

    id: str
    text: str = ""
    at: tuple[float, float] | None = None
    tone: str = "quiet"
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Transition:
    """An arrow; ``bend`` moves its middle sideways (pixels, positive to the right of its direction)."""

    source: str
    target: str
    text: str = ""
    tone: str = "quiet"
    bend: float = 0.0
    dash: bool = False


Arrow: TypeAlias = "Transition | tuple[str, str] | tuple[str, str, str]"


def state_machine(
    states: Sequence[State | str], transitions: Sequence[Arrow], *, title: str = "States",
    cell: tuple[float, float] = (210, 120), box: tuple[float, float] = (150, 52), current: str = "",
    least: float = 0.86,
) -> Html:
    """Boxes on a grid and arrows between them.

    ``states`` without a place are put below each other; ``transitions`` may be plain (source, target, text) tuples.
    ``current`` draws one state filled.
    """
    made = [s if isinstance(s, State) else State(s) for s in states]
    arrows = [t if isinstance(t, Transition) else Transition(*t[:2], *t[2:]) for t in transitions]
    at: dict[str, tuple[float, float]] = {}
    for index, state in enumerate(made):
        column, row = state.at if state.at is not None else (0.0, float(index))
        at[state.id] = (column * cell[0], row * cell[1])
    for arrow in arrows:
        for end in (arrow.source, arrow.target):
            if end not in at:
                raise SeamrefError(f"state_machine: an arrow names {end!r}, which is no state")
    pad = 12.0 + (46 if any(a.source == a.target for a in arrows) else 0)
    right = max(x for x, _ in at.values()) + box[0]
    board = Board(right + 2 * pad, max(y for _, y in at.values()) + box[1] + 2 * pad)
    centre = {id: (x + pad + box[0] / 2, y + pad + box[1] / 2) for id, (x, y) in at.items()}
    both = {(a.source, a.target) for a in arrows}
    labels: list[tuple[float, float, list[str], str]] = []
    for arrow in arrows:
        bend = arrow.bend or (16.0 if (arrow.target, arrow.source) in both and arrow.source != arrow.target else 0.0)
        labels.append(_arrow(board, arrow, centre, box, bend))
    for state in made:
        x, y = centre[state.id]
        now = state.id == current
        board.rect(x - box[0] / 2, y - box[1] / 2, box[0], box[1], fill=state.tone, opacity=0.4 if now else 0.14,
                   stroke=state.tone, r=8, line=2.4 if now else 1.4)
        lines = wrap(state.text or state.id, (box[0] - 14) / 1.18)  # bold letters are wider
        small = wrap(state.detail, box[0] - 12, SMALL) if state.detail else []
        tall = 16.5 * len(lines) + 14.5 * len(small)
        below = board.lines(x, y - tall / 2 + 13, lines, anchor="middle", bold=True, leading=16.5 / SIZE)
        board.lines(x, below - 1, small, anchor="middle", size=SMALL, fill="quiet", leading=14.5 / SMALL)
    for x, y, words, colour in labels:
        board.lines(x, y - 14 * (len(words) - 1) / 2 + 4, words, anchor="middle", size=12, fill=colour, halo=True,
                    leading=14 / 12)
    name = {s.id: s.text.replace("\n", " ") or s.id for s in made}
    said = [f"{name[a.source]} -> {name[a.target]}{': ' + a.text if a.text else ''}" for a in arrows]
    return board.html(title, "\n".join(said) or ", ".join(name.values()), least)


def _arrow(
    board: Board, arrow: Transition, centre: Mapping[str, tuple[float, float]], box: tuple[float, float], bend: float
) -> tuple[float, float, list[str], str]:
    (x0, y0), (x1, y1) = centre[arrow.source], centre[arrow.target]
    dash = "5 4" if arrow.dash else ""
    words = wrap(arrow.text, 130, 12) if arrow.text else []
    colour = "" if arrow.tone == "quiet" else arrow.tone
    if arrow.source == arrow.target:
        right = x0 + box[0] / 2
        board.path(f"M{right:.1f} {y0 - 12:.1f} C{right + 44:.1f} {y0 - 34:.1f} {right + 44:.1f} {y0 + 34:.1f} "
                   f"{right:.1f} {y0 + 12:.1f}", stroke=arrow.tone, arrow=True, dash=dash, line=1.6)
        return right + 40, y0, words, colour
    dx, dy = x1 - x0, y1 - y0
    length = (dx * dx + dy * dy) ** 0.5
    nx, ny = -dy / length, dx / length
    mx, my = (x0 + x1) / 2 + nx * bend, (y0 + y1) / 2 + ny * bend
    shift = max(-box[0] / 3, min(box[0] / 3, bend)) if abs(bend) <= 20 else 0.0
    begin = _edge(x0 + nx * shift, y0 + ny * shift, mx + nx * shift * 0, my, box, x0, y0)
    end = _edge(x1 + nx * shift, y1 + ny * shift, mx, my, box, x1, y1)
    if abs(bend) <= 20:
        board.line([begin, end], stroke=arrow.tone, arrow=True, dash=dash, line=1.6)
        lx, ly = (begin[0] + end[0]) / 2 + nx * shift * 0.4, (begin[1] + end[1]) / 2 + ny * shift * 0.4
    else:
        cx, cy = (x0 + x1) / 2 + nx * bend * 1.6, (y0 + y1) / 2 + ny * bend * 1.6
        board.path(f"M{begin[0]:.1f} {begin[1]:.1f} Q{cx:.1f} {cy:.1f} {end[0]:.1f} {end[1]:.1f}", stroke=arrow.tone,
                   arrow=True, dash=dash, line=1.6)
        lx = begin[0] / 4 + cx / 2 + end[0] / 4
        ly = begin[1] / 4 + cy / 2 + end[1] / 4
    if abs(dx) < 1 and words:  # a vertical arrow: its words beside it, not on it
        widest = max(text_width(line, 12) for line in words)
        side = 1 if shift * nx >= 0 else -1
        lx += side * (widest / 2 + 8)
    elif abs(dy) < 1 and words:  # a horizontal one: above or below
        ly += (-1 if shift * ny <= 0 else 1) * (8 + 7 * (len(words) - 1))
    return lx, ly, words, colour


def _edge(
    x: float, y: float, tx: float, ty: float, box: tuple[float, float], cx: float, cy: float
) -> tuple[float, float]:
    """Where the way from (x, y) inside a box centred at (cx, cy) towards (tx, ty) leaves it, with a little room."""
    dx, dy = tx - x, ty - y
    hw, hh = box[0] / 2 + 3, box[1] / 2 + 3
    reach = []
    if dx:
        reach.append(((cx + (hw if dx > 0 else -hw)) - x) / dx)
    if dy:
        reach.append(((cy + (hh if dy > 0 else -hh)) - y) / dy)
    t = min((r for r in reach if r > 0), default=0.0)
    return x + dx * t, y + dy * t


__all__ = ["State", "Transition", "state_machine"]
