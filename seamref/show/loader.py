"""Pictures, tables and explorers of the part *The loader*: sessions, sigstructs, memory, refusals, updates."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from seamref.arch.structures import SEAMEXTEND
from seamref.experiments.loader.abi import leaf_calls
from seamref.experiments.loader.changes import NO_CHANGE, changes_tried, manifest_state, sigstruct_mutations
from seamref.experiments.loader.lab import Attempt, Called, Session, rdx_text
from seamref.experiments.loader.memory import (
    Run,
    Stage,
    answer_of,
    attributes_text,
    fits,
    needs,
    parts,
    plan,
    shape,
    smallest_seamrr,
)
from seamref.experiments.loader.refusals import Refusal, refusals
from seamref.experiments.loader.updates import Moment
from seamref.layout import Record
from seamref.pseamldr.api import MAX_MODULE_PAGES, PAGE, Scenario, Status
from seamref.pseamldr.manifest import INSTALL_MANIFEST
from seamref.pseamldr.memory_constants import MemoryConstants
from seamref.pseamldr.sigstruct import SEAM_SIGSTRUCT
from seamref.show.explorers import Explorer, Numbers
from seamref.show.html import Hex, Html, Id, clause_ref, marked_up, stack
from seamref.show.maps import Region, memory_map, size_text
from seamref.show.paths import decision_path
from seamref.show.sequences import Act, Note, Span, Step, sequence
from seamref.show.svg import Board, text_width
from seamref.show.tables import Table
from seamref.tdxmodule.build import BUILDS

# --- the ABI


def leaf_table(revision: str = "1.5") -> Table:
    """Every leaf called with a mark in each register: what came back."""
    rows = [
        (made.title, Hex(made.called.rax), made.called.answer, _registers(made.called), made.written)
        for made in leaf_calls(revision)
    ]
    return Table(("call", "RAX", "answer", "registers changed", "memory written"), rows)


def _registers(called: Called) -> str:
    names = (f"`RDX` = {rdx_text(called.rdx)}" if name == "rdx" else f"`{name.upper()}`" for name in called.changed)
    return ", ".join(names) or "none"


def status_table() -> Table:
    """Status codes with class and number."""
    rows = [
        (f"`{status.name}`", Hex(int(status)), "" if status.error_class is None else status.error_class.name,
         "" if status.error_class is None else status & 0xFFFF,
         "" if status.error_class is None else status.error_class.meaning)
        for status in Status
    ]
    return Table(("status", "RAX", "class (31:16)", "number (15:0)", "whose fault"), rows)


# --- sessions


def _short(register: bytes) -> str:
    now = SEAMEXTEND.decode(register)
    svn = now.tee_tcb_svn
    who = f"SVN {svn.seam_major_svn}.{svn.seam_minor_svn}" if now.valid else "no identity"
    return f"{who}, SEAM_READY {now.seam_ready}"


def session_picture(calls: Session | Iterable[Called], title: str = "", notes: Mapping[int, str] | None = None) -> Html:
    """Who calls, what P-SEAMLDR answers, and what SEAMEXTEND says after each call.

    ``notes`` put a line over all lanes before the call with that index.
    """
    made = list(calls.calls if isinstance(calls, Session) else calls)
    steps: list[Step] = [Act("SEAMEXTEND", _short(made[0].before), "before")]
    steps.insert(0, Span("SEAMEXTEND", _register_tone(made[0].before)))
    for index, called in enumerate(made):
        if notes and index in notes:
            steps.append(Note(notes[index]))
        good = called.status is Status.SUCCESS
        rdx = f", RDX = {called.rdx}" if called.leaf == "INSTALL" and called.returned else ""
        phases = [name.removeprefix("INSTALL.") for name in called.did if name.startswith("INSTALL.")]
        detail = called.row_ids.replace("INSTALL.", "").replace("SHUTDOWN.", "") or ", ".join(phases)
        steps.append(Act(called.lp, f"{called.leaf}: {called.answer}{rdx}", detail, "green" if good else "red"))
        if called.before != called.after:
            steps.append(Span("SEAMEXTEND", _register_tone(called.after)))
            steps.append(Act("SEAMEXTEND", _short(called.after), f"after LP {called.lp}'s call"))
    lanes = ["SEAMEXTEND", *sorted({called.lp for called in made})]
    said = title or f"{made[0].leaf} on {len(lanes) - 1} processors"
    return sequence(steps, lanes=lanes, title=said, width=min(230.0 * len(lanes), 740.0))


def _register_tone(register: bytes) -> str:
    now = SEAMEXTEND.decode(register)
    return "green" if now.seam_ready else "amber" if now.p_seamldr_ready else "red"


def session_table(calls: Session | Iterable[Called]) -> Table:
    """The same as :func:`session_picture` in rows."""
    made = list(calls.calls if isinstance(calls, Session) else calls)
    rows = [
        (f"LP {c.lp}", c.leaf, c.answer, rdx_text(c.rdx) if c.leaf == "INSTALL" and c.returned else "",
         Id(c.row.id) if c.row else "", _short(c.after))
        for c in made
    ]
    return Table(("processor", "leaf", "RAX", "RDX", "stopped by", "SEAMEXTEND afterwards"), rows)


def register_changes(before: bytes, after: bytes) -> Table:
    """Fields of SEAMEXTEND that differ."""
    rows: list[tuple[Any, ...]] = []
    for name, one, other in _differences(SEAMEXTEND.decode(before), SEAMEXTEND.decode(after)):
        rows.append((f"`{name}`", _cell(one), _cell(other)))
    return Table(("field of SEAMEXTEND", "before", "after"), rows)


def _differences(one: Record, other: Record) -> Iterable[tuple[str, Any, Any]]:
    for name in one:
        if isinstance(one[name], Record):
            yield from ((f"{name}.{inner}", a, b) for inner, a, b in _differences(one[name], other[name]))
        elif one[name] != other[name]:
            yield name, one[name], other[name]


def _cell(value: Any) -> Any:
    return Hex(value) if isinstance(value, int) else value


def outcome_table(session: Session) -> Table:
    """How a session ended, and what is left."""
    last = session.last
    rows: list[tuple[str, Any]] = [
        ("RAX", f"0x{last.rax:016X} {last.answer}" if last.returned else last.answer),
        ("RDX", rdx_text(last.rdx) if last.returned else "nothing returned"),
        ("stopped by", Id(last.row.id) if last.row else "no row"),
        ("the old module", session.survives),
        ("module range", session.memory),
        ("SEAMEXTEND", last.seamextend()),
    ]
    return Table(("", ""), rows)


# --- the sigstruct


def card(sigstruct: bytes) -> Table:
    """A sigstruct field by field: value, what it must be, whether it is, what it means."""
    wrong = {problem.field for problem in SEAM_SIGSTRUCT.problems(sigstruct)}
    held = SEAM_SIGSTRUCT.decode(sigstruct)
    rows: list[tuple[Any, ...]] = []
    for row in SEAM_SIGSTRUCT.table():
        if row.name not in held:
            continue
        value = held[row.name]
        if row.name == "cpuid_table":
            value = ", ".join(f"0x{entry:X}" for entry in value[: held.cpuid_table_size])
        ok = "" if not row.must_be else "no" if any(w.split(".")[0] == row.name for w in wrong) else "yes"
        must = row.must_be and ("zero" if row.must_be == "0" else row.must_be) + f": {ok}"
        shown = f"`{value[:8].hex()}...`" if isinstance(value, bytes) and any(value) else _cell(value)
        rows.append((f"`0x{row.offset:X}`", f"`{row.name}` ({row.size})", shown, must, row.meaning))
    return Table(("offset", "field (bytes)", "holds", "must be", "meaning"), rows)


def signed_picture(sigstruct: bytes) -> Html:
    """The 2048 bytes of a sigstruct as a strip: what the signature covers and what is cut out."""
    stretches = [
        ("header", 0, 128, "green", "signed"), ("modulus", 128, 384, "quiet", "its hash names the signer"),
        ("exponent", 512, 4, "quiet", ""), ("signature", 516, 384, "amber", "over the rest"),
        ("body: hash, SVN, sizes", 900, 124, "green", "signed"), ("CPUID table", 1024, 1024, "green", "signed"),
    ]
    board, width = Board(680, 132), 660.0
    for name, at, size, colour, what in stretches:
        x, w = 10 + at / 2048 * width, size / 2048 * width
        board.rect(x, 44, w, 34, fill=colour, opacity=0.3 if colour != "quiet" else 0.1, stroke=colour, r=0, title=name)
        if size > 100:
            up = name not in ("modulus", "CPUID table")
            board.text(x + 2, 34 if up else 96, name, bold=True, size=12)
            board.text(x + 2, 19 if up else 111, f"0x{at:X} {what}", size=11, fill="quiet")
    said = [f"0x{at:X}-0x{at + size - 1:X} {name}: {what or 'not signed'}" for name, at, size, _, what in stretches]
    return board.html(f"What the signature covers ({len(sigstruct)} bytes)", "; ".join(said))


def manifest_verdict(attempt: Attempt, path: bool = True) -> Html:
    """Run an attempt; the way through the manifest table, and what became of everything."""
    session = attempt.run()
    made: list[Html | str] = [outcome_table(session)]
    if path:
        walk = INSTALL_MANIFEST.walk(manifest_state(attempt), "1.5")
        made.append(decision_path(INSTALL_MANIFEST, walk, revision="1.5"))
    return stack(*made)


def sigstruct_explorer() -> Explorer:
    """Change one thing about a sigstruct: which check stops it, and does the old module survive."""
    mutations = sigstruct_mutations()

    def explore(change: str, scenario: Scenario, signature: str) -> Html:
        attempt = replace(mutations[change], scenario=scenario)
        if signature == "from before the change":
            attempt = replace(attempt, resign=False)
        elif signature == "by another key":
            attempt = replace(attempt, other_key=True)
        session = attempt.run()
        stopped = f"stopped by `{session.last.row.id}`" if session.last.row else "no row stops it"
        lead = f"INSTALL: `{session.last.answer}`, {stopped}. Does the old module survive? {session.survives}."
        return stack(lead, outcome_table(session))

    return Explorer(
        explore,
        {"change": list(mutations), "scenario": {"LOAD": Scenario.LOAD, "UPDATE": Scenario.UPDATE},
         "signature": ["made after the change", "from before the change", "by another key"]},
        title="One sigstruct, one INSTALL on two processors; SVN 1.5 runs, SVN 1.6 is brought", key="sigstruct",
        defaults={"change": "key_size = 64 dwords: RSA-2048"},
        also=[{"change": "seamhash of another image"}, {"change": NO_CHANGE, "scenario": Scenario.UPDATE},
              {"change": "max_tdmrs = 64 (nobody looks)", "signature": "from before the change"}],
    )


def change_table(scenarios: Sequence[Scenario] = (Scenario.LOAD, Scenario.UPDATE)) -> Table:
    """Every change of :func:`sigstruct_mutations`, executed: the row that stops it and the old module's fate."""
    rows = [
        (name, scenario.name, session.last.answer, Id(session.last.row.id) if session.last.row else "",
         session.survives)
        for name, scenario, session in changes_tried(scenarios)
    ]
    return Table(("change", "scenario", "RAX", "stopped by", "old module"), rows)


# --- memory


def range_map(constants: MemoryConstants, tables_end: int | None = None) -> Html:
    """The module range of a plan to scale, and its two ends enlarged, each to its own scale."""
    found = parts(constants, tables_end)
    held = [Region(p.name, p.base, p.size, p.tone) for p in found]
    free = next(i for i, p in enumerate(found) if p.name == "free")
    whole = [
        Region("low end", found[0].base, found[free].base - found[0].base, "green", "VMCSs, data"),
        held[free],
        Region("high end", found[free + 1].base, found[-1].base + found[-1].size - found[free + 1].base, "violet",
               "tables, stacks, code"),
    ]
    return stack(
        memory_map(whole, held[free + 1 :], title="Module range, and its high end enlarged", height=300),
        memory_map(whole, held[:free], title="Module range, and its low end enlarged", height=300),
    )


def part_table(constants: MemoryConstants, tables_end: int | None = None) -> Table:
    """The same as :func:`range_map` in rows, low addresses first."""
    rows = [(p.name, Hex(p.base), p.size // PAGE, size_text(p.size), p.what) for p in parts(constants, tables_end)]
    return Table(("part", "physical", "pages", "size", "for"), rows)


def run_table(found: Sequence[Run]) -> Table:
    """What the page tables map, neighbours joined."""
    rows = [(Hex(r.linear), Hex(r.physical), r.count, attributes_text(r.attributes)) for r in found]
    return Table(("linear", "physical", "pages", "attributes"), rows)


_BAR_TONES = {"SYS_INFO_TABLE": "teal", "VMCSs": "violet", "stacks": "blue", "data": "green",
              "page tables, estimated": "red", "code": "amber"}


def need_bars(plans: Mapping[str, MemoryConstants], title: str = "What the size formula adds up") -> Html:
    """Stacked bars to one scale: what a module needs, by platform."""
    left, width, step = max(text_width(name) for name in plans) + 14, 440.0, 34.0
    most = max(c.minimum_size for c in plans.values())
    board = Board(left + width + 96, 40 + step * len(plans) + 8)
    x = 4.0
    for name, colour in _BAR_TONES.items():
        board.rect(x, 6, 12, 12, fill=colour, opacity=0.5, stroke=colour, r=2)
        board.text(x + 17, 16, name, size=12)
        x += 34 + text_width(name, 12)
    board.width = max(board.width, x)
    said = []
    for index, (name, constants) in enumerate(plans.items()):
        y = 34 + step * index
        board.text(left - 8, y + 15, name, anchor="end")
        at = left
        for what, size in needs(constants):
            w = size / most * width
            board.rect(at, y, w, 20, fill=_BAR_TONES[what], opacity=0.5, stroke=_BAR_TONES[what], r=0, line=0.8,
                       title=f"{what}: {size_text(size)}")
            at += w
        total = f"{constants.minimum_size / (1 << 20):.1f} MiB"
        board.text(at + 6, y + 15, total, bold=True)
        terms = ", ".join(f"{what} {size_text(size)}" for what, size in needs(constants))
        said.append(f"{name}: {total}, of it {terms}")
    return board.html(title, "\n".join(said))


_STAGE_TONES = {"SUCCESS": "green", "UD2: shutdown": "red", "ENOMEM, RDX = 1": "amber", "ENOMEM, RDX = 0": "blue"}


def edge_picture(stages: Sequence[Stage], title: str = "INSTALL as num_global_data_pages grows") -> Html:
    """One box for each size that was executed, in the tone of its answer."""
    first, last = stages[0].first, stages[-1].last
    box, per = 30.0, last - first + 1
    board = Board(20 + box * per, 122)
    for stage in stages:
        tone = _STAGE_TONES.get(stage.answer, "quiet")
        for size in range(stage.first, stage.last + 1):
            board.rect(10 + (size - first) * box, 40, box - 3, 30, fill=tone, opacity=0.45, stroke=tone, r=3,
                       title=f"{size}: {stage.answer}")
        x = 10 + (stage.first - first) * box
        board.text(x, 88, f"{stage.first}", size=11.5, mono=True)
    x = 10.0
    for answer, tone in _STAGE_TONES.items():
        board.rect(x, 10, 14, 14, fill=tone, opacity=0.45, stroke=tone, r=3)
        board.text(x + 20, 22, answer, size=12.5)
        x += 42 + text_width(answer, 12.5)
    board.width = max(board.width, x)
    board.text(10, 110, f"pages on the number line: {first} to {last}; each box is one INSTALL", size=12, fill="quiet")
    return board.html(title, "\n".join(f"{s.first} to {s.last}: {s.answer}" for s in stages))


def memory_explorer() -> Explorer:
    """Topology and page counts; the memory map, the sum, and the smallest SEAMRR that would do."""

    def explore(processors: tuple[int, int], image: int, global_data: int, stack_pages: int, keyholes: int,
                SEAMRR: int) -> Html:
        lps, sockets = processors
        wanted = replace(shape("1.5.06", 8), num_module_pages=image, num_global_data_pages=global_data - 1,
                         num_stack_pages=stack_pages - 1, num_keyhole_pages=keyholes - 1)
        made = plan(wanted, lps, sockets, SEAMRR)
        have = made.module_physlimit - made.seamrr_base
        least = smallest_seamrr(wanted, lps, sockets)
        verdict = Table(("", ""), [
            ("addressable processors", made.num_addressable_lps),
            ("demanded", f"{made.minimum_size / (1 << 20):.3f} MiB"),
            ("module range", f"{have / (1 << 20):.0f} MiB"),
            ("size check", "passes" if fits(made) else "`ENOMEM`, RDX = 0: the old module still runs"),
            ("smallest SEAMRR that passes", size_text(least) if least else "above 4 GiB"),
        ])
        bars = need_bars({"demanded": made}, "Terms of the size formula")
        ends = "fits" if fits(made) else "does not fit: `ENOMEM`"
        lead = f"{made.minimum_size / (1 << 20):.3f} MiB demanded of {have / (1 << 20):.0f} MiB: {ends}."
        return stack(lead, verdict, bars, *([range_map(made)] if fits(made) else []))

    return Explorer(
        explore,
        {"processors": {"1 socket, 2": (2, 1), "2 sockets, 112 each": (112, 2), "4 sockets, 112 each": (112, 4),
                        "8 sockets, 128 each": (128, 8)},
         "image": Numbers((102, 150, 496), 1, MAX_MODULE_PAGES), "global_data": Numbers((22, 1024, 65536), 1, 65536),
         "stack_pages": Numbers((2, 8), 1, 65536), "keyholes": Numbers((128, 1024), 1, 65536),
         "SEAMRR": {"32 MiB": 32 << 20, "64 MiB": 64 << 20, "128 MiB": 128 << 20, "256 MiB": 256 << 20}},
        title="A module's memory by topology and page counts", key="memory",
        defaults={"processors": (112, 2), "SEAMRR": 128 << 20},
        also=[{"processors": (2, 1), "SEAMRR": 32 << 20}, {"global_data": 65536}],
        labels={"image": "image pages", "global_data": "global data pages", "stack_pages": "stack pages of a processor",
                "keyholes": "keyhole pages of a processor", "processors": "processors"},
    )


# --- refusals


def refusal_table(found: Sequence[Refusal] | None = None, caption: str = "") -> Table:
    """One executed attempt for each row: the condition, what was brought, RAX and RDX, what is left."""
    rows = []
    for refusal in refusals() if found is None else found:
        shown = refusal.rows
        rows.append((
            _with_id(refusal.row.id, shown["says"]), shown["attempt"], f"`{shown['RAX']}`, RDX {shown['RDX']}",
            shown["old module"],
        ))
    return Table(("clause: it stops when", "attempt", "answer", "old module"), rows, caption)


def _with_id(row: str, says: str) -> Html:
    """A clause id with its condition below it."""
    return Html(f"{clause_ref(row)}<br>{marked_up(says)}", f"{row}: {says}")


def aftermath_table(found: Sequence[Refusal]) -> Table:
    """What is left behind: SEAMEXTEND, memory, the update count, SEAMDB."""
    rows = []
    for refusal in found:
        session, last = refusal.session, refusal.session.last
        rows.append((
            refusal.case.brings, f"`{last.answer}`, RDX = {last.rdx}", _short(last.after), session.memory,
            refusal.remaining, f"{len(session.platform.seamdb)} entries",
        ))
    return Table(("attempt", "answer", "SEAMEXTEND", "module range", "updates counted", "SEAMDB"), rows)


def funnel(found: Sequence[Refusal]) -> Html:
    """How many rows each phase has, in order, and where the old module ends."""
    groups: dict[str, list[Refusal]] = {}
    for refusal in found:
        groups.setdefault(refusal.table, []).append(refusal)
    names = {"DISPATCH.canary": "dispatcher", "SHARED_HPA": "any address", "INSTALL.lp": "every processor"}
    left, step = 150.0, 27.0
    board = Board(620, 34 + step * len(groups) + 30)
    y, gone = 20.0, False
    said: list[str] = []
    for table, rows in groups.items():
        late = any(r.session.last.rdx == 1 for r in rows)
        if late and not gone:
            gone = True
            board.line([(4, y + 3), (616, y + 3)], stroke="red", dash="5 4", line=1.6)
            board.text(612, y + 18, "from here on the old module is gone (RDX = 1)", anchor="end", size=12, fill="red")
            said.append("--- from here on the old module is gone (RDX = 1) ---")
            y += 26
        name = names.get(table, table.removeprefix("INSTALL.").replace("ELF_", "ELF ").lower())
        board.text(left - 10, y + 14, name, anchor="end")
        for i, refusal in enumerate(rows):
            board.rect(left + 15 * i, y + 2, 12, 15, fill="red" if late else "blue", opacity=0.45,
                       stroke="red" if late else "blue", r=2, title=refusal.row.id)
        answers = ", ".join(dict.fromkeys(r.session.last.answer for r in rows))
        if len(rows) < 12:
            board.text(left + 15 * len(rows) + 8, y + 14, answers, size=12, fill="quiet")
        said.append(f"{name}: {len(rows)} rows, {answers}")
        y += step
    board.height = y + 8
    return board.html("The rows that can refuse an INSTALL, phase by phase", "\n".join(said))


# --- updates


def story_picture(moments: Sequence[Moment], title: str = "num_remaining_updates, step by step") -> Html:
    """For each step: P-SEAMLDR's count as a bar, SEAMDB's entries as boxes."""
    words = max(text_width(f"{i + 1}. {m.step}", 12.5) for i, m in enumerate(moments)) + 20
    capacity = max(m.capacity for m in moments)
    unit, step = 20.0, 26.0
    count_x, db_x = words + 110, words + 110 + unit * capacity + 70
    board = Board(db_x + unit * capacity + 16, 44 + step * len(moments))
    board.text(4, 20, "step", bold=True, size=12.5)
    board.text(words, 20, "answer", bold=True, size=12.5)
    board.text(count_x, 20, "counts", bold=True, size=12.5)
    board.text(db_x, 20, "SEAMDB", bold=True, size=12.5)
    said = []
    for index, moment in enumerate(moments):
        y = 34 + step * index
        bad = moment.answer not in ("", "SUCCESS")
        board.text(4, y + 14, f"{index + 1}. {moment.step}", size=12.5)
        board.text(words, y + 14, moment.answer, size=12, fill="red" if bad else "green", bold=bad)
        now = moment.counted if moment.info is None else moment.info
        board.rect(count_x, y + 3, max(unit * now, 1.5), 14, fill="blue", opacity=0.4, stroke="blue", r=2)
        board.text(count_x + unit * now + 6, y + 15, str(now), bold=True, size=12.5)
        for i in range(moment.capacity):
            taken = i < moment.entries
            board.rect(db_x + unit * i, y + 3, unit - 4, 14, fill="violet" if taken else "", opacity=0.45,
                       stroke="violet", r=2)
        said.append(f"{index + 1}. {moment.step}: {moment.answer or '-'}; counts {now}; SEAMDB {moment.entries} of "
                    f"{moment.capacity}")
    return board.html(title, "\n".join(said))


def story_table(moments: Sequence[Moment]) -> Table:
    """The same in rows."""
    rows = [
        (i, m.step, f"`{m.answer}`" if m.answer else "", m.counted if m.info is None else m.info,
         f"{m.entries} of {m.capacity}") for i, m in enumerate(moments, 1)
    ]
    return Table(("", "step", "RAX", "num_remaining_updates", "SEAMDB"), rows)


def builds_table(*names: str) -> Table:
    """Named builds that a chapter uses."""
    rows = [(f"`{n}`", f"{BUILDS[n].major_svn}.{BUILDS[n].minor_svn}", BUILDS[n].says) for n in names]
    return Table(("build", "SVN", "what it is"), rows)


def changed_bytes(before: bytes, after: bytes, limit: int = 12) -> Table:
    """Eight-byte words that differ between two images."""
    rows: list[tuple[Any, ...]] = []
    for at in range(0, min(len(before), len(after)), 8):
        if before[at : at + 8] != after[at : at + 8]:
            rows.append((f"`0x{at:X}`", before[at : at + 8], after[at : at + 8]))
    return Table(("offset", "in the file", "in SEAM memory"), rows[:limit],
                 f"{len(rows)} words of 8 bytes differ" + ("" if len(rows) <= limit else f"; the first {limit}"))


__all__ = [
    "aftermath_table", "answer_of", "builds_table", "card", "change_table", "changed_bytes", "edge_picture", "funnel",
    "leaf_table", "manifest_state", "manifest_verdict", "memory_explorer", "need_bars", "outcome_table", "part_table",
    "range_map", "refusal_table", "register_changes", "run_table", "session_picture", "session_table", "signed_picture",
    "sigstruct_explorer", "sigstruct_mutations", "status_table", "story_picture", "story_table",
]
