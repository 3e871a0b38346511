"""Pictures of the boot chain: who acts when, the module's bytes, P_SEAMLDR_RANGE as it fills, what each break stops."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from seamref.arch.outcome import TxtShutdown
from seamref.arch.platform import Platform, Topology
from seamref.bootchain import BREAKS, STEPS, BootResult
from seamref.experiments.boot.breaks import NOTHING, attempts, break_one, every_break
from seamref.experiments.boot.memory import Frame, regions
from seamref.firmware.acm import ACM_HEADER, ACM_INFO_TABLE, Acm
from seamref.firmware.np_seamldr import STEPS as NP_STEPS
from seamref.show.explorers import Explorer, explorer
from seamref.show.html import Html, Id, paragraph, stack
from seamref.show.maps import Region, memory_map
from seamref.show.svg import SMALL, Board, text_width, wrap
from seamref.show.tables import Table, table

TRUSTED = ("hardware", "MCHECK", "processor", "NP-SEAMLDR", "P-SEAMLDR")
TONES = {
    "hardware": "quiet", "BIOS": "amber", "launcher": "amber", "OS": "amber", "MCHECK": "teal", "processor": "teal",
    "NP-SEAMLDR": "violet", "P-SEAMLDR": "blue",
}
PARTS = {
    "unused page": "quiet", "transfer VMCS": "amber", "page tables": "green", "free": "quiet", "data": "blue",
    "data stack": "teal", "shadow stack": "teal", "code": "violet", "P_SYS_INFO_TABLE": "amber",
}
"""Colours of the parts of P_SEAMLDR_RANGE."""


def timeline(result: BootResult, title: str = "From reset to a callable P-SEAMLDR") -> Html:
    """Every boot step down the page: untrusted software on the left, what it cannot influence on the right."""
    width, spine, box = 600.0, 300.0, 272.0
    board = Board(width)
    board.text(spine - 24, 18, "untrusted: BIOS, launcher, OS", anchor="end", bold=True, fill="quiet")
    board.text(spine + 24, 18, "processor, microcode, signed code", bold=True, fill="quiet")
    answers = {record.step.name: record for record in result.records}
    y, said = 34.0, []
    end = y
    for step in STEPS:
        record = answers.get(step.name)
        right = step.who in TRUSTED
        colour = "red" if record is not None and record.stopped else TONES[step.who] if record is not None else "quiet"
        answer = "" if record is None or str(record.answer) == "done" else str(record.answer)
        lines, small = wrap(step.does, box - 24), wrap(answer, box - 24, SMALL) if answer else []
        tall = 24.0 + 16 * len(lines) + 14 * len(small) + (4 if small else 0)
        x = spine + 22 if right else spine - 22 - box
        board.rect(x, y, box, tall, fill=colour if record is not None else "", stroke=colour,
                   dash="" if record is not None else "4 4", opacity=0.13)
        faded = "quiet" if record is None else ""
        board.text(x + 12, y + 17, f"{step.name}", bold=True, fill=faded)
        board.text(x + 20 + text_width(step.name, bold=True), y + 17, step.who, size=SMALL, fill="quiet")
        below = board.lines(x + 12, y + 34, lines, size=12.5, leading=16 / 12.5, fill=faded)
        board.lines(x + 12, below, small, size=SMALL, leading=14 / SMALL, fill=colour)
        board.line([(spine, y + tall / 2), (x if right else x + box, y + tall / 2)], stroke=colour)
        board.dot(spine, y + tall / 2, 5, fill=colour, hollow=record is None)
        if record is not None:
            end = y + tall / 2
            sign = "x" if record.stopped else "."
            said.append(f"{sign} {step.who}: {step.does}" + (f" -> {answer}" if answer else ""))
        y += tall + 9
    board.line([(spine, 28), (spine, end)], stroke="quiet", line=2)
    board.height = y
    return board.html(title, "\n".join(said))


def broken(name: str = "unlocked", sockets: int = 2) -> Html:
    """A boot with one thing broken: the timeline, and what decided."""
    made = break_one(name, Topology(sockets, 2))
    result = made.result
    what = f"Broken: {made.says}." if made.says else "Nothing is broken."
    last = result.records[-1]
    if not last.stopped:
        words = f"{what} The chain does not stop: P-SEAMLDR answers with {last.answer}."
        return stack(paragraph(words), timeline(result))
    words = f"{what} The chain stops at `{last.step.name}` ({last.step.who}): {last.answer}."
    if isinstance(last.answer, TxtShutdown):
        words += f" The platform resets; TXT.ERRORCODE keeps `0x{result.platform.txt['ERRORCODE']:X}`."
    elif result.is_callable:
        words += " P-SEAMLDR is loaded all the same."
    decided = table([(Id(last.answer.clause), str(last.answer))], ["decided by", "answer"])
    return stack(paragraph(words), decided, timeline(result, f"A boot in which something is broken: {name}"))


def break_explorer() -> Explorer:
    """Break one thing at a time and see where the chain stops."""
    return explorer(
        broken, title="Break one boot step", key="boot", labels={"name": "what is broken", "sockets": "packages"},
        defaults={"name": "unlocked"}, also=({"name": "bit-flipped"}, {"name": "two-gib"}),
        name=[NOTHING, *BREAKS], sockets=[2, 1, 8],
    )


def break_table(topology: Topology | None = None) -> Table:
    """Every break, the step at which the chain stops, and the clause that stops it."""
    rows = []
    for one in every_break(topology):
        last = one.result.records[-1]
        where = f"`{one.where}`" if one.where else "it does not"
        rows.append((f"`{one.name}`", one.says, where, Id(last.answer.clause) if one.where else "", str(last.answer)))
    return table(rows, ["break", "what is wrong", "stops at", "decided by", "answer"])


def attack_table(by: str) -> Table:
    """What "BIOS" or "OS" tries, executed: the answer and what is gained."""
    rows = [(attack.tries, made.answer, Id(made.clause), made.gain.value) for attack, made in attempts(by)]
    return table(rows, ["attempt", "answer", "clause", "gained"])


# --- memory


def seamrr_map(platform: Platform) -> Html:
    """SEAMRR with its two parts, P_SEAMLDR_RANGE enlarged, and its upper end once more."""
    seamrr, held = platform.seamrr(), platform.p_seamldr_range
    assert seamrr is not None and held is not None
    outer = [Region("MODULE_RANGE", seamrr.base, held.base - seamrr.base, "blue", "TDX module"),
             Region("P_SEAMLDR_RANGE", held.base, held.size, "violet")]
    inner = [Region(name, base, size, PARTS[name], note) for name, base, size, note in regions(platform)]
    # The four upper regions are a few pages in 4 MiB: enlarge them once more.
    top = [r for r in inner if r.base >= inner[-1].end - 0x40000]
    low = top[0].base
    middle = [r for r in inner if r.end <= low] + [Region("data, stacks, code, table", low, held.end - low, "teal")]
    return stack(
        memory_map(outer, middle, title="SEAM memory after NP-SEAMLDR"),
        memory_map(top, title="The upper end of P_SEAMLDR_RANGE", height=250),
    )


# --- NP-SEAMLDR, step by step


def _grid(
    rows: Sequence[tuple[str, Sequence[tuple[str, str]]]], columns: Sequence[str], title: str, said: Iterable[str],
    cell: float,
) -> Html:
    """Rows of little boxes, one column for each step, the steps' names written upwards above them."""
    left = max(text_width(name, bold=True) for name, _ in rows) + 18
    angle, along, up = (60, 0.5, 0.87) if cell < 20 else (45, 0.72, 0.72)
    top = max(text_width(name, SMALL) for name in columns) * up + 18
    right = max(left + cell * (i + 0.7) + text_width(name, SMALL) * along for i, name in enumerate(columns))
    board = Board(max(right, left + cell * len(columns)) + 6, top + 26.0 * len(rows) + 10)
    for i, name in enumerate(columns):
        x = left + cell * i + cell / 2 + 4
        board.parts.append(f'<g transform="translate({x:.1f} {top - 8:.1f}) rotate(-{angle})">')
        board.text(0, 0, name, size=SMALL)
        board.parts.append("</g>")
    for j, (name, cells) in enumerate(rows):
        y = top + 26.0 * j
        board.text(left - 10, y + 16, name, anchor="end", bold=True)
        for i, (words, tone) in enumerate(cells):
            board.rect(left + cell * i + 1, y, cell - 2, 23, fill=tone, opacity=0.45 if tone != "quiet" else 0.07,
                       stroke=tone, r=2, line=0.8, title=f"{columns[i]}: {name} {words}")
            if words:
                board.text(left + cell * i + cell / 2, y + 15.5, words, size=10.5, anchor="middle")
    return board.html(title, "\n".join(said))


def filling(made: Sequence[Frame], platform: Platform) -> Html:
    """P_SEAMLDR_RANGE as it fills: for each step, how many pages of each region hold something."""
    shown = [f for f in made if f.step in {s.name for s in NP_STEPS if s.phase == "main"}]
    start = next(i for i, f in enumerate(shown) if f.step.startswith("wipe"))
    shown = shown[start:]
    rows = []
    for index, (name, *_) in reversed(list(enumerate(regions(platform)))):
        tone = PARTS[name]
        counts = [frame.used[index] for frame in shown]
        rows.append((name, [(str(count) if count else "", tone if count and tone != "quiet" else "quiet")
                            for count in counts]))
    said = [f"{f.step}: " + (", ".join(
        f"{name} {count}" for (name, *_), count in zip(regions(platform), f.used, strict=True) if count) or "all zero")
        for f in shown]
    return _grid(rows, [f.step for f in shown], "P_SEAMLDR_RANGE as it fills: pages that are not zero", said, cell=34)


def switches(made: Sequence[Frame]) -> Html:
    """What is open, held, remembered and ready after each step of NP-SEAMLDR."""
    tracks = (
        ("VALID, this processor", [f.valid for f in made], "teal"),
        ("VALID, other package", [f.others_valid for f in made], "teal"),
        ("np_seamldr_mutex", [bool(f.mutex) for f in made], "amber"),
        ("acm_x2apicid_valid", [bool(f.lp_valid) for f in made], "blue"),
        ("P_SEAMLDR_READY", [f.ready for f in made], "green"),
    )
    rows = [(name, [("1" if on else "0", tone if on else "quiet") for on in values]) for name, values, tone in tracks]
    said = [
        f"{f.step}: " + ", ".join(f"{name} {int(values[i])}" for name, values, _ in tracks) for i, f in enumerate(made)
    ]
    return _grid(rows, [f.step for f in made], "What NP-SEAMLDR holds and opens", said, cell=16)


# --- the module


def acm_map(acm: Acm) -> Html:
    """The module's bytes: what is signed, what is not, and where P-SEAMLDR lies in it."""
    header, build = acm.header, acm.build
    assert build is not None
    info_at = ACM_HEADER.size
    image_at, image_end = build.image_offset, build.image_offset + build.image_size
    whole = [
        Region("header and tables", 0, header.EntryPoint, "amber"),
        Region("NP-SEAMLDR", header.EntryPoint, image_at - header.EntryPoint, "violet", "stub, constants, code"),
        Region("P-SEAMLDR", image_at, image_end - image_at, "blue", "the image, padded with HLT"),
    ]
    if len(acm.data) > image_end:
        whole.append(Region("padding", image_end, len(acm.data) - image_end, "quiet"))
    key, sig, scratch = (ACM_HEADER.offset_of(n) for n in ("RSAPubKey", "RSASig", "Scratch"))
    close = [
        Region("header fields", 0, key, "green", "signed"),
        Region("RSA-3072 key", key, sig - key, "red", "known by its hash"),
        Region("signature", sig, scratch - sig, "red", "not signed"),
        Region("scratch", scratch, info_at - scratch, "quiet", "not signed"),
        Region("info table and lists", info_at, header.GDTBasePtr - info_at, "green", "signed"),
        Region("GDT", header.GDTBasePtr, header.EntryPoint - header.GDTBasePtr, "green", "signed"),
    ]
    return memory_map(whole, close, title="An authenticated code module", height=360)


def acm_tables(acm: Acm) -> Html:
    """Information table and lists of a module."""
    info = acm.info
    first = table([
        ("UUID", " ".join(f"{part:08X}" for part in info.UUID)),
        ("ChipsetACMType", info.ChipsetACMType), ("Version", info.Version), ("Length", info.Length),
        ("ChipsetIDList", f"`0x{info.ChipsetIDList:X}`"), ("ProcessorIDList", f"`0x{info.ProcessorIDList:X}`"),
        ("AcmRevision", ".".join(str(part) for part in info.AcmRevision)),
    ], ["field", "value"], f"ACM_INFO_TABLE at 0x{ACM_HEADER.size:X}, {ACM_INFO_TABLE.size} bytes")
    second = table(
        [(f"`0x{p.FMS:X}`", f"`0x{p.FMSMask:X}`", f"`0x{p.PlatformMask:X}`") for p in acm.processors],
        ["FMS", "mask", "platform mask"], "Processors it is for",
    )
    return stack(first, second)


def update_table(records: Sequence[Any]) -> Table:
    """The actions of a P-SEAMLDR update in order."""
    return table([(f"LP {r.lp}", r.action, str(r.answer), Id(r.answer.clause)) for r in records],
                 ["processor", "action", "answer", "clause"])


__all__ = [
    "acm_map", "acm_tables", "attack_table", "break_explorer", "break_table", "broken", "filling",
    "seamrr_map", "switches", "timeline", "update_table",
]
