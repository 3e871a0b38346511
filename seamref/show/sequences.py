"""Space and time: who does what, in which order, and in which mode each processor is meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeAlias

from seamref.arch import trace
from seamref.arch.platform import Platform
from seamref.errors import SeamrefError
from seamref.show.html import Html
from seamref.show.svg import SMALL, Board, wrap


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


__all__ = ["MODE_TONES", "Act", "Message", "Note", "Span", "Step", "recording", "sequence", "steps_of"]
