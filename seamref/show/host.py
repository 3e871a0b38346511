"""Pictures of the kernel: an update as CPUs against time, and a terminal."""

from __future__ import annotations

from html import escape

from seamref.experiments.host.recording import Piece, enters, record, record_trouble
from seamref.host.fw_upload import Terminal
from seamref.host.kernel import Host
from seamref.host.records import UpdateState
from seamref.host.scenarios import TROUBLES, Trouble
from seamref.host.series import MERGED, SERIES, KernelSeries
from seamref.host.update import Schedule, in_order
from seamref.show.explorers import Explorer, Numbers
from seamref.show.html import Html, scrolling, stack
from seamref.show.svg import Board
from seamref.show.tables import pairs

BANDS = {
    UpdateState.SHUTDOWN: "amber", UpdateState.CPU_INSTALL: "violet", UpdateState.CPU_INIT: "blue",
    UpdateState.RUN_UPDATE: "green", UpdateState.DONE: "quiet",
}


def spacetime(pieces: list[Piece], ended: str, title: str, *, cpus: int) -> Html:
    """CPUs below each other, steps to the right, the global state as bands; boxes are stays in SEAM."""
    wide, high, left, top = 5.2, 34.0, 64.0, 40.0
    board = Board(left + wide * max(len(pieces), 1) + 16, top + high * cpus + 56)
    _bands(board, pieces, left, top, wide, high * cpus)
    for cpu in range(cpus):
        y = top + high * cpu + high / 2
        board.text(8, y + 4, f"CPU {cpu}", bold=True)
        board.line([(left, y), (board.width - 10, y)], line=1.0)
        _stays(board, [p for p in pieces if p.cpu == cpu], left, y, wide)
    _legend(board, left, top + high * cpus + 24)
    return board.html(title, _said(pieces, ended))


def _bands(board: Board, pieces: list[Piece], left: float, top: float, wide: float, height: float) -> None:
    start = 0
    for index, piece in enumerate(pieces):
        last = index + 1 == len(pieces)
        if last or pieces[index + 1].state is not piece.state:
            x, w = left + start * wide, (index + 1 - start) * wide
            board.rect(x, top - 6, w, height + 12, fill=BANDS[piece.state], opacity=0.1, stroke="", r=0)
            if w > 9 * len(piece.state.name):
                board.text(x + 4, top - 12, piece.state.name, size=11.5, fill=BANDS[piece.state], bold=True)
            start = index + 1


def _stays(board: Board, pieces: list[Piece], left: float, y: float, wide: float) -> None:
    opened: Piece | None = None
    for piece in pieces:
        x = left + piece.at * wide
        if enters(piece):
            opened = piece
        elif opened is not None and ("SEAMRET" in piece.words or "shutdown in SEAM" in piece.words):
            begin_x = left + opened.at * wide
            tone = "violet" if opened.kind == "loader" else "teal"
            if "shutdown in SEAM" in piece.words:
                tone = "red"
            board.rect(begin_x, y - 8, max(x - begin_x + wide, wide), 16, fill=tone, opacity=0.45, stroke=tone, r=2,
                       title=f"{opened.words} ... {piece.words}")
            opened = None
        elif "VMfailInvalid" in piece.words:
            board.line([(x, y - 9), (x + 8, y + 9)], stroke="red", line=2)
            board.line([(x + 8, y - 9), (x, y + 9)], stroke="red", line=2)
        elif piece.kind in ("ack", "bad"):
            board.dot(x + wide / 2, y, 3.4, fill="red" if piece.kind == "bad" else "", title=piece.words)
        elif piece.kind == "lock":
            board.line([(x + wide / 2, y - 9), (x + wide / 2, y + 9)], stroke="amber", line=1.6)


def _legend(board: Board, x: float, y: float) -> None:
    for words, draw in (("in P-SEAMLDR", "violet"), ("in the TDX module", "teal")):
        board.rect(x, y - 10, 14, 12, fill=draw, opacity=0.45, stroke=draw, r=2)
        board.text(x + 20, y, words, size=11.5)
        x += 150
    board.line([(x + 4, y - 12), (x + 4, y + 2)], stroke="amber", line=1.6)
    board.text(x + 14, y, "lock taken, released", size=11.5)
    board.dot(x + 160, y - 4, 3.4)
    board.text(x + 170, y, "acknowledged", size=11.5)
    board.width = max(board.width, x + 270)


def _said(pieces: list[Piece], ended: str) -> str:
    lines: list[str] = []
    state: UpdateState | None = None
    for piece in pieces:
        if piece.state is not state:
            state = piece.state
            lines.append(f"{state.name}:")
        if enters(piece) or piece.kind == "bad":
            lines.append(f"  CPU {piece.cpu}: {piece.words.split(';')[-1].strip()}")
    return "\n".join([*lines, ended if ended.startswith("stop_machine") else f"stop_machine returns {ended}"])


def update_picture(host: Host, data: bytes, title: str, schedule: Schedule = in_order) -> Html:
    """Run an update and draw it."""
    pieces, ended = record(host, data, schedule)
    return spacetime(pieces, ended, title, cpus=len(host.state.cpus))


def update_explorer() -> Explorer:
    """Pick what goes wrong, the version of the series and the machine; see the run and what the user is left with."""
    def shown(trouble: Trouble, series: KernelSeries, cpus: int) -> Html:
        seen = record_trouble(trouble, series, cpus)
        pieces, left = seen.pieces, seen.left
        td = f"counts on, to {left.td}" if isinstance(left.td, int) else left.td
        again = "" if not left.error else "fails too: reboot" if left.reboot else "succeeds"
        facts = pairs(("cat error", left.error), ("cat version", left.version), ("dmesg", left.said), ("the TD", td),
                      ("uploading a good image afterwards", again))
        lead = f"`cat error`: {left.error}" if left.error else "The update succeeds"
        lead += f"; the TD {td}." if isinstance(left.td, int) else f"; the TD: {td}."
        if not pieces:
            return stack(lead, facts)
        return stack(lead, spacetime(pieces, seen.ended, f"{trouble.what}, {series.name}", cpus=cpus), facts)

    return Explorer(
        shown,
        {"trouble": {t.what: t for t in TROUBLES}, "series": {s.name: s for s in SERIES.values()},
         "cpus": Numbers((2, 4), 2, 8)},
        title="Break an update",
        key="update",
        defaults={"trouble": TROUBLES[3], "series": MERGED, "cpus": 4},
        also=({"series": SERIES["v1"]}, {"trouble": TROUBLES[2], "series": SERIES["v2"]}),
    )


def terminal(shell: Terminal, *lines: str) -> Html:
    """A session, as a terminal shows it."""
    text = shell.session(*lines)
    shown = "\n".join(
        f'<span style="font-weight:600">{escape(line)}</span>' if line[:2] in ("# ", "$ ") else escape(line)
        for line in text.splitlines()
    )
    box = (
        '<pre style="border:1px solid var(--pst-color-border,#8c8c8c);border-radius:6px;padding:.7rem 1rem;'
        f'background:transparent;color:inherit;overflow-x:auto">{shown}</pre>'
    )
    return Html(scrolling(box, "terminal"), text)


