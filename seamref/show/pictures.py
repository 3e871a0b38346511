"""Pictures that every part of the book draws: memory to scale, space and time, states, paths through checks."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, TypeAlias

from seamref.arch import trace
from seamref.arch.platform import Platform
from seamref.errors import SeamrefError
from seamref.show.html import Html, Id, cell, clause_ref, marked_up, plain, scrolling, tone
from seamref.show.svg import SIZE, Board, text_width, wrap
from seamref.show.tables import result_text
from seamref.spec import Check, CheckTable

SMALL = 11.5

# --- memory


@dataclass(frozen=True, slots=True)
class Region:
    """[base, base + size) of memory: what it is, its tone, and a remark below its name."""

    name: str
    base: int
    size: int
    tone: str = "quiet"
    note: str = ""

    @property
    def end(self) -> int:
        return self.base + self.size


def size_text(size: int) -> str:
    """A size as people say it: 64 MiB, 4 KiB, 0x1234 bytes."""
    for unit, name in ((1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
        if size >= unit and size % unit == 0:
            return f"{size // unit} {name}"
    return f"{size} bytes" if size < 1024 else f"0x{size:X} bytes"


def memory_map(
    regions: Sequence[Region], *zooms: Sequence[Region], title: str = "Memory map", height: float = 340,
    least: float = 0.86,
) -> Html:
    """Memory drawn to scale, high addresses on top.

    Each further list of regions is a column of its own to the right, drawn to its own scale; what it enlarges is
    found in the column before it and connected with it.  Names stand beside the bar where they do not overlap.
    """
    columns = [sorted(column, key=lambda r: r.base) for column in (regions, *zooms)]
    for column in columns:
        for low, high in pairwise(column):
            if high.base < low.end:
                raise SeamrefError(f"memory_map: {high.name} at 0x{high.base:X} overlaps {low.name}")
    bar, gap, top = 56.0, 46.0, 26.0
    label_widths = [max(_label_width(r) for r in column) + 22 for column in columns]
    need = max(sum(_label_height(r) for r in column) for column in columns)
    height = max(height, need + 10)
    board = Board(sum(label_widths) + len(columns) * bar + (len(columns) - 1) * gap + 8, height + top + 26)
    x, before = 4.0, None
    for column, label_width in zip(columns, label_widths, strict=True):
        _column(board, column, x, top, bar, height, before)
        before = (column, x + bar + label_width)
        x += bar + label_width + gap
    said = [
        f"{r.name}: 0x{r.base:X} to 0x{r.end - 1:X} ({size_text(r.size)}){'; ' + r.note if r.note else ''}"
        for column in columns for r in reversed(column)
    ]
    return board.html(title, "\n".join(said), least)


def _label_width(region: Region) -> float:
    name = text_width(f"{region.name}  {size_text(region.size)}", SIZE, bold=True)
    return max(name, text_width(f"0x{region.base:X}", SMALL, mono=True), text_width(region.note, SMALL)) + 6


def _label_height(region: Region) -> float:
    return 34.0 + (14.0 if region.note else 0)


def _column(
    board: Board, column: Sequence[Region], x: float, top: float, bar: float, height: float,
    before: tuple[Sequence[Region], float] | None,
) -> None:
    low, high = column[0].base, column[-1].end
    scale = height / (high - low)

    def at(address: int) -> float:
        return top + (high - address) * scale

    if before is not None:
        outer, left = before
        outer_low, outer_high = outer[0].base, outer[-1].end
        outer_scale = height / (outer_high - outer_low)
        upper = top + (outer_high - min(high, outer_high)) * outer_scale
        lower = top + (outer_high - max(low, outer_low)) * outer_scale
        board.polygon([(left - 6, upper), (x, top), (x, top + height), (left - 6, max(lower, upper + 1))], fill="quiet",
                      opacity=0.13)
    board.text(x, top - 9, f"0x{high - 1:X}", size=SMALL, mono=True, fill="quiet")
    board.text(x, top + height + 16, f"0x{low:X}", size=SMALL, mono=True, fill="quiet")
    board.rect(x, top, bar, height, stroke="quiet", r=0)
    wanted: list[tuple[float, float, Region]] = []
    for region in reversed(column):
        y, h = at(region.end), max(region.size * scale, 1.5)
        drawn = region.tone != "quiet"
        board.rect(x, y, bar, h, fill=region.tone, opacity=0.42 if drawn else 0.08, stroke=region.tone, r=0, line=1,
                   title=f"{region.name}: 0x{region.base:X}, {size_text(region.size)}")
        wanted.append((y + h / 2, _label_height(region), region))
    for middle, place, region in _spread(wanted, top, top + height):
        board.line([(x + bar, middle), (x + bar + 10, place), (x + bar + 16, place)], stroke=region.tone, line=1)
        left, y = x + bar + 21, place - _label_height(region) / 2 + 14
        board.text(left, y, region.name, bold=True, tail=size_text(region.size))
        board.text(left, y + 15, f"0x{region.base:X}", size=SMALL, mono=True, fill="quiet")
        if region.note:
            board.text(left, y + 29, region.note, size=SMALL, fill="quiet")


_Label: TypeAlias = tuple[float, float, Region]


def _spread(wanted: Sequence[_Label], top: float, bottom: float) -> list[_Label]:
    """Places for labels near where they belong, in order, without overlap, inside the column."""
    places: list[float] = []
    edge = top
    for middle, tall, _ in wanted:
        place = max(middle, edge + tall / 2)
        places.append(place)
        edge = place + tall / 2
    edge = bottom
    for index in range(len(wanted) - 1, -1, -1):
        tall = wanted[index][1]
        places[index] = min(places[index], edge - tall / 2)
        edge = places[index] - tall / 2
    return [(middle, place, region) for (middle, _, region), place in zip(wanted, places, strict=True)]


# --- space and time


@dataclass(frozen=True, slots=True)
class Act:
    """Something one lane does: ``text``, with ``detail`` below it in smaller letters."""

    lane: Hashable
    text: str
    detail: str = ""
    tone: str = ""


@dataclass(frozen=True, slots=True)
class Message:
    """Something that goes from one lane to another."""

    source: Hashable
    target: Hashable
    text: str
    tone: str = "quiet"


@dataclass(frozen=True, slots=True)
class Span:
    """From here on the lane's line is drawn in this tone (until the next Span); ``text`` names what it is in."""

    lane: Hashable
    tone: str
    text: str = ""


@dataclass(frozen=True, slots=True)
class Note:
    """A line over all lanes: a barrier, a phase, something that everybody sees."""

    text: str
    tone: str = "quiet"


Step: TypeAlias = Act | Message | Span | Note

MODE_TONES: Mapping[str, str] = {
    "outside VMX": "quiet",
    "legacy VMX root": "quiet",
    "legacy VMX non-root": "teal",
    "SEAM VMX root": "violet",
    "SEAM VMX non-root": "blue",
}
"""The tone of each of the five modes, the same in every picture."""


@contextmanager
def recording(platform: Platform) -> Iterator[list[trace.Event]]:
    """Everything a platform's steps tell while the block runs, as a list for :func:`sequence`."""
    events: list[trace.Event] = []
    platform.listeners.append(events.append)
    try:
        yield events
    finally:
        platform.listeners.remove(events.append)


def steps_of(events: Iterable[trace.Event | Step]) -> Iterator[Step]:
    """Trace events as steps of a space-time diagram; steps pass through.

    A change of mode is told after the instruction that made it, although the instruction ends later.
    """
    changed: dict[Hashable, Span] = {}
    for event in events:
        match event:
            case Act() | Message() | Span() | Note():
                yield event
            case trace.InstructionEnded(lp, instruction, outcome, clause):
                bad = any(word in outcome for word in ("#", "fail", "shutdown", "lost"))
                yield Act(lp, f"{instruction}: {outcome}", clause, "red" if bad else "")
                if lp in changed:
                    yield changed.pop(lp)
            case trace.ModeChanged(lp, _, after):
                if lp in changed:
                    yield changed[lp]
                changed[lp] = Span(lp, MODE_TONES.get(after, "quiet"), after)
            case trace.MutexChanged(lp, held):
                yield Act(lp, f"P_SEAMLDR_MUTEX {'taken' if held else 'released'}", "", "amber")
            case trace.MsrWritten(lp, address, value):
                yield Act(lp, f"WRMSR 0x{address:X}", f"0x{value:X}", "teal")
            case trace.SeamextendWritten(lp, value):
                ready = f"SEAM_READY={value[128]}, P_SEAMLDR_READY={value[130]}"
                yield Act(lp, "SEAMEXTEND written", ready, "teal")
            case trace.AccessDenied(agent, address, _, write, clause):
                yield Note(f"{agent} {'write' if write else 'read'} at 0x{address:X} denied ({clause})", "red")
            case trace.VmcsFlushed(lp, address, why):
                yield Act(lp, f"VMCS 0x{address:X} flushed", why, "amber")
            case trace.WentDown(lp, in_SEAM, cause):
                yield Act(lp, f"shutdown{' in SEAM' if in_SEAM else ''}", cause, "red")
            case trace.Step(lp, component, name, detail):
                yield Act(lp, f"{component}: {name}", detail, "violet")
    yield from changed.values()


def sequence(
    events: Iterable[trace.Event | Step], *, lanes: Sequence[Hashable] | None = None,
    names: Mapping[Hashable, str] | None = None, title: str = "What happens, in order", width: float | None = None,
    least: float = 0.86,
) -> Html:
    """A space-time diagram: lanes (processors) across, time down.

    ``events`` are trace events of a platform (:func:`recording`), or :class:`Act`, :class:`Message`, :class:`Span`
    and :class:`Note`.  ``lanes`` fixes which lanes there are and their order; ``names`` what stands above them.
    """
    steps = list(steps_of(events))
    seen = dict.fromkeys(_lanes_of(steps))
    order = list(lanes if lanes is not None else sorted(seen, key=str) if all(isinstance(s, str) for s in seen) else
                 sorted(seen, key=lambda s: (not isinstance(s, int), s if isinstance(s, int) else 0, str(s))))
    if not order:
        raise SeamrefError("sequence: nothing happened on any lane")
    steps = [s for s in steps if not isinstance(s, Act | Span) or s.lane in order]
    called = names or {}
    total = width or (min(760.0, max(420.0, 250.0 * len(order))))
    lane_width = total / len(order)
    board = Board(total)
    where = {lane: i * lane_width + 20 for i, lane in enumerate(order)}
    for lane in order:
        words = called.get(lane, f"LP {lane}" if isinstance(lane, int) else str(lane))
        board.lines(where[lane] - 8, 18, wrap(words, lane_width - 20)[:2], bold=True)
    y = 48.0
    said: list[str] = []
    line_from = dict.fromkeys(order, 32.0)
    line_tone = dict.fromkeys(order, "quiet")
    segments: list[tuple[float, float, float, str]] = []
    marks: list[Callable[[], None]] = []
    room = lane_width - 40
    for step in steps:
        match step:
            case Span(lane, colour, words):
                segments.append((where[lane], line_from[lane], y, line_tone[lane]))
                line_from[lane], line_tone[lane] = y, colour
                said.append(f"{_called(lane, called)} is now in {words}" if words else "")
                if words:
                    x = where[lane]
                    marks.append(_later_text(board, x + 14, y + 4, words, colour))
                    y += 22
            case Act(lane, words, detail, colour):
                x = where[lane]
                lines, small = wrap(words, room), wrap(detail, room, SMALL) if detail else []
                marks.append(_later_act(board, x, y, lines, small, colour))
                y += 17.0 * len(lines) + 15.0 * len(small) + 9
                said.append(f"{_called(lane, called)}: {words}{' (' + detail + ')' if detail else ''}")
            case Message(source, target, words, colour):
                for end in (source, target):
                    if end not in where:
                        raise SeamrefError(f"sequence: a message names lane {end!r}, which is not drawn")
                lines = wrap(words, abs(where[target] - where[source]) - 20)
                y += 15 * len(lines)
                marks.append(_later_message(board, where[source], where[target], y, lines, colour))
                y += 20
                said.append(f"{_called(source, called)} to {_called(target, called)}: {words}")
            case Note(words, colour):
                lines = wrap(words, total - 30)
                marks.append(_later_note(board, y, total, lines, colour))
                y += 16.0 * len(lines) + 16
                said.append(words)
    for lane in order:
        segments.append((where[lane], line_from[lane], y + 2, line_tone[lane]))
    for x, begin, end, colour in segments:
        heavy = colour != "quiet"
        board.line([(x, begin), (x, end)], stroke=colour, line=5 if heavy else 1.5)
    for mark in marks:
        mark()
    board.height = y + 10
    return board.html(title, "\n".join(filter(None, said)), least)


def _lanes_of(steps: Iterable[Step]) -> Iterator[Hashable]:
    for step in steps:
        match step:
            case Act(lane=lane) | Span(lane=lane):
                yield lane
            case Message(source=source, target=target):
                yield source
                yield target
            case Note():
                pass


def _called(lane: Hashable, names: Mapping[Hashable, str]) -> str:
    return names.get(lane, f"LP {lane}" if isinstance(lane, int) else str(lane))


def _later_text(board: Board, x: float, y: float, words: str, colour: str) -> Callable[[], None]:
    return lambda: board.text(x, y, words, size=SMALL, fill=colour, bold=True, halo=True)


def _later_act(
    board: Board, x: float, y: float, lines: list[str], small: list[str], colour: str
) -> Callable[[], None]:
    def draw() -> None:
        board.dot(x, y, 4.5, fill=colour)
        end = board.lines(x + 14, y + 4.5, lines, halo=True, leading=1.3)
        board.lines(x + 14, end - 2, small, size=SMALL, fill="quiet", halo=True)

    return draw


def _later_message(
    board: Board, source: float, target: float, y: float, lines: list[str], colour: str
) -> Callable[[], None]:
    def draw() -> None:
        way = 1 if target > source else -1
        board.line([(source + 6 * way, y), (target - 6 * way, y)], stroke=colour, arrow=True, line=1.6)
        top = y - 15 * (len(lines) - 1) - 6
        board.lines((source + target) / 2, top, lines, anchor="middle", halo=True, leading=15 / 13)

    return draw


def _later_note(board: Board, y: float, total: float, lines: list[str], colour: str) -> Callable[[], None]:
    def draw() -> None:
        tall = 16.0 * len(lines) + 8
        board.rect(2, y - 6, total - 4, tall, fill=colour, opacity=0.1, stroke=colour, dash="4 3")
        board.lines(total / 2, y + 10, lines, anchor="middle", size=12.5, leading=16 / 12.5, halo=True)

    return draw


# --- states


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


# --- paths through checks

ASKED, DECIDED, UNREACHED, ABSENT = "silent", "decides", "not reached", "not in this revision"
_SIGN = {ASKED: ("✓", "green"), DECIDED: ("■", "red"), UNREACHED: ("·", "quiet"), ABSENT: ("–", "quiet")}


@dataclass(frozen=True, slots=True)
class Decision:
    """A path through a check table and what came of it."""

    table: CheckTable[Any, Any]
    walk: tuple[tuple[Check[Any, Any], bool], ...]
    outcome: str
    revision: Any = None
    answers: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        asked = {row.id: decided for row, decided in self.walk}
        reached_end = not any(asked.values())
        for row in self.table:
            if row.id in asked:
                self.answers[row.id] = DECIDED if asked[row.id] else ASKED
            elif row.applies is not None and not row.applies(self.revision):
                self.answers[row.id] = ABSENT
            else:
                self.answers[row.id] = ASKED if reached_end else UNREACHED

    @property
    def deciding(self) -> Check[Any, Any] | None:
        """The row that decided, ``None`` when all were silent."""
        return next((row for row, decided in self.walk if decided), None)


def decision_path(
    table: CheckTable[Any, Any], walk: Iterable[tuple[Check[Any, Any], bool]], outcome: Any = None,
    revision: Any = None, caption: str = "",
) -> Html:
    """The way through a check table: which rows were silent, which one decided, which were never asked.

    ``walk`` is what ``CheckTable.walk`` returns; ``outcome`` what the instruction came to.
    """
    path = tuple(walk)
    deciding = next((row for row, decided in path if decided), None)
    result = str(outcome) if outcome is not None else result_text(deciding.result) if deciding else "no row stops"
    decision = Decision(table, path, result, revision)
    rows, said = [], []
    for number, row in enumerate(table, start=1):
        answer = decision.answers[row.id]
        sign, colour = _SIGN[answer]
        faded = answer in (UNREACHED, ABSENT)
        style = ' style="opacity:.62"' if faded else ""
        then = marked_up(f"→ {result}") if answer == DECIDED else ""
        rows.append(
            f'<tr{style}{" class=seam-decides" if answer == DECIDED else ""}><td>{number}</td>'
            f'<td style="color:{tone(colour)};font-weight:700" aria-hidden="true">{sign}</td>'
            f"<td>{clause_ref(row.id)}</td><td>{cell(row.says)}</td><td>{answer} <b>{then}</b></td></tr>"
        )
        said.append(f"{number:2} {sign} {row.id}: {row.says} -- {answer}{' -> ' + result if then else ''}")
    if deciding is None:
        rows.append(
            f'<tr class="seam-decides"><td></td><td style="color:{tone("green")};font-weight:700">▶</td>'
            f"<td colspan=3>every row silent: <b>{marked_up(result)}</b></td></tr>"
        )
        said.append(f"   every row silent -> {result}")
    head = "".join(f'<th scope="col">{name}</th>' for name in ("#", "", "clause", "stops when", "answer"))
    words = caption or f"{table.name}: {result}" + (f", decided by `{deciding.id}`" if deciding else "")
    inner = (
        f'<table class="dataframe seam-table seam-path"><caption>{marked_up(words)}</caption>'
        f'<thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table>'
    )
    return Html(scrolling(inner, words.replace("`", "")), "\n".join([words.replace("`", ""), *said]))


__all__ = [
    "MODE_TONES", "Act", "Decision", "Id", "Message", "Note", "Region", "Span", "State", "Step", "Transition",
    "decision_path", "memory_map", "plain", "recording", "sequence", "size_text", "state_machine", "steps_of",
]
