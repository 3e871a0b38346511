"""A small drawing board: SVG inside HTML, in the reader's colours.

Positions and sizes are CSS pixels.  A picture never becomes so small that its letters cannot be read: below
``least`` of its drawn width it scrolls instead of shrinking.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from html import escape

from seamref.show.html import LINE, PAPER, QUIET, Html, scrolling, tone

MONO = "ui-monospace,SFMono-Regular,Menlo,Consolas,monospace"
SIZE = 13.0
"""Letter height of ordinary text in a picture."""
SMALL = 11.5
"""Letter height of what stands below it."""


def text_width(text: str, size: float = SIZE, mono: bool = False, bold: bool = False) -> float:
    """Width of a line, estimated on the wide side: no font is measured, so that the result never varies."""
    if mono:
        return len(text) * size * 0.62
    narrow = sum(ch in "iljtfrI.,:;|'()[] " for ch in text)
    wide = sum(ch.isupper() or ch in "mwMW@_" for ch in text)
    return (len(text) * 0.6 - narrow * 0.22 + wide * 0.16) * size * (1.14 if bold else 1.0)


def wrap(text: str, width: float, size: float = SIZE, mono: bool = False) -> list[str]:
    """Lines of at most ``width`` pixels (a single word may be wider); a newline in the text is kept."""
    lines: list[str] = []
    for part in text.split("\n"):
        line = ""
        for word in part.split():
            longer = f"{line} {word}".strip()
            if line and text_width(longer, size, mono) > width:
                lines.append(line)
                line = word
            else:
                line = longer
        lines.append(line)
    return lines


def _n(value: float) -> str:
    return f"{value:.1f}".rstrip("0").rstrip(".")


class Board:
    """What a picture is drawn on.  ``height`` may be set later, when everything has its place."""

    def __init__(self, width: float, height: float = 0) -> None:
        self.width = width
        self.height = height
        self.parts: list[str] = []
        self._heads: dict[str, str] = {}

    def rect(
        self, x: float, y: float, w: float, h: float, *, fill: str = "", opacity: float = 0.14, stroke: str = "quiet",
        r: float = 4, dash: str = "", title: str = "", line: float = 1.2,
    ) -> None:
        """A box filled with a tint of a tone; an empty ``fill`` leaves it open."""
        paint = f'fill="{tone(fill)}" fill-opacity="{opacity}"' if fill else 'fill="none"'
        edge = f'stroke="{tone(stroke)}" stroke-width="{_n(line)}"' if stroke else ""
        dashed = f' stroke-dasharray="{dash}"' if dash else ""
        tip = f"<title>{escape(title)}</title>" if title else ""
        self.parts.append(
            f'<rect x="{_n(x)}" y="{_n(y)}" width="{_n(w)}" height="{_n(h)}" rx="{_n(r)}" {paint} {edge}{dashed}>'
            f"{tip}</rect>"
        )

    def line(
        self, points: Sequence[tuple[float, float]], *, stroke: str = "quiet", line: float = 1.2, dash: str = "",
        arrow: bool = False, back: bool = False,
    ) -> None:
        """A path through points, with an arrow head at its end (``arrow``) or beginning (``back``)."""
        d = "M" + " L".join(f"{_n(x)} {_n(y)}" for x, y in points)
        self.path(d, stroke=stroke, line=line, dash=dash, arrow=arrow, back=back)

    def path(
        self, d: str, *, stroke: str = "quiet", line: float = 1.2, dash: str = "", arrow: bool = False,
        back: bool = False,
    ) -> None:
        """An SVG path, open."""
        dashed = f' stroke-dasharray="{dash}"' if dash else ""
        wanted = [where for where, asked in (("end", arrow), ("start", back)) if asked]
        ends = "".join(f' marker-{where}="url(#@{self._head(stroke)})"' for where in wanted)
        self.parts.append(
            f'<path d="{d}" fill="none" stroke="{tone(stroke)}" stroke-width="{_n(line)}"{dashed}{ends}/>'
        )

    def polygon(self, points: Sequence[tuple[float, float]], *, fill: str, opacity: float = 0.1) -> None:
        """A filled shape without an edge."""
        at = " ".join(f"{_n(x)},{_n(y)}" for x, y in points)
        self.parts.append(f'<polygon points="{at}" fill="{tone(fill)}" fill-opacity="{opacity}"/>')

    def dot(self, x: float, y: float, r: float = 4, *, fill: str = "", hollow: bool = False, title: str = "") -> None:
        """A dot; ``hollow`` draws its edge only."""
        paint = f'fill="{PAPER}" stroke="{tone(fill)}" stroke-width="1.8"' if hollow else f'fill="{tone(fill)}"'
        tip = f"<title>{escape(title)}</title>" if title else ""
        self.parts.append(f'<circle cx="{_n(x)}" cy="{_n(y)}" r="{_n(r)}" {paint}>{tip}</circle>')

    def text(
        self, x: float, y: float, words: str, *, size: float = SIZE, anchor: str = "start", fill: str = "",
        bold: bool = False, mono: bool = False, halo: bool = False, tail: str = "",
    ) -> None:
        """One line of text with its baseline at ``y``; ``halo`` keeps it legible on lines, ``tail`` follows quietly."""
        style = [f"font-size:{_n(size)}px"]
        if mono:
            style.append(f"font-family:{MONO}")
        if bold:
            style.append("font-weight:600")
        after = (
            f'<tspan dx="8" fill="{tone("quiet")}" style="font-size:{_n(size * 0.88)}px;font-weight:400">'
            f"{escape(tail, quote=False)}</tspan>"
            if tail else ""
        )
        behind = (
            f' stroke="{PAPER}" stroke-width="4" stroke-linejoin="round" paint-order="stroke"' if halo else ""
        )
        self.parts.append(
            f'<text x="{_n(x)}" y="{_n(y)}" text-anchor="{anchor}" fill="{tone(fill)}"{behind} '
            f'style="{";".join(style)}">{escape(words, quote=False)}{after}</text>'
        )

    def lines(
        self, x: float, y: float, words: Sequence[str], *, size: float = SIZE, leading: float = 1.3,
        anchor: str = "start", fill: str = "", bold: bool = False, mono: bool = False, halo: bool = False,
    ) -> float:
        """Several lines of text below each other; the baseline behind the last one."""
        for line in words:
            self.text(x, y, line, size=size, anchor=anchor, fill=fill, bold=bold, mono=mono, halo=halo)
            y += size * leading
        return y

    def _head(self, colour: str) -> str:
        self._heads[colour] = f"head-{colour or 'ink'}"
        return self._heads[colour]

    def html(self, label: str, description: str, least: float = 0.86) -> Html:
        """The finished picture with its text alternative; ``description`` is also what a terminal prints."""
        body = "".join(self.parts)
        name = "p" + sha256(f"{label}{body}".encode()).hexdigest()[:8]
        body = body.replace("url(#@", f"url(#{name}-")
        heads = "".join(
            f'<marker id="{name}-{head}" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
            f'orient="auto-start-reverse"><path d="M0 0 L8 4 L0 8 z" fill="{tone(colour)}"/></marker>'
            for colour, head in self._heads.items()
        )
        w, h = _n(self.width), _n(self.height)
        svg = (
            f'<svg xmlns="http://www.w3.org/2000/svg" class="seam-picture" viewBox="0 0 {w} {h}" width="{w}" '
            f'role="img" aria-labelledby="{name}-t {name}-d" '
            f'style="display:block;height:auto;max-width:100%;min-width:{_n(self.width * least)}px;'
            f'color:inherit;font-family:inherit">'
            f'<title id="{name}-t">{escape(label)}</title><desc id="{name}-d">{escape(description)}</desc>'
            f"<defs>{heads}</defs>{body}</svg>"
        )
        return Html(scrolling(svg, label), f"[{label}]\n{description}")


__all__ = ["LINE", "MONO", "PAPER", "QUIET", "SIZE", "Board", "text_width", "wrap"]
