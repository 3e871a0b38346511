"""Memory to scale: a column for each range, what lies in it, and where."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeAlias

from seamref.errors import SeamrefError
from seamref.show.html import Html
from seamref.show.svg import SIZE, SMALL, Board, text_width


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


__all__ = ["Region", "memory_map", "size_text"]
