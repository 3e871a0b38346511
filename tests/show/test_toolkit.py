"""The toolkit: what it draws says what it was given, in the reader's colours, the same every time."""

from __future__ import annotations

import json
import re
import sys
from html.parser import HTMLParser
from itertools import pairwise
from typing import Any

import pytest

from seamref import show as toolkit
from seamref.arch import lab, seam, software
from seamref.arch.msr import MSRS
from seamref.arch.revision import SILICON
from seamref.arch.seam import SEAMCALL, SEAMRET, SeamcallState, seamcall
from seamref.arch.structures import P_SYS_INFO_TABLE, SEAMEXTEND
from seamref.errors import SeamrefError
from seamref.experiments.processor.states import compressed
from seamref.show import (
    Act,
    Explorer,
    Hex,
    Html,
    Id,
    Message,
    Note,
    Region,
    Span,
    State,
    Transition,
    check_table,
    decision_path,
    explorer,
    layout_table,
    memory_map,
    msr_bits,
    msr_table,
    pairs,
    paragraph,
    record_table,
    recording,
    sequence,
    show,
    stack,
    state_machine,
    table,
)
from seamref.show.explorers import Numbers, turn
from seamref.show.html import marked_up, tone
from seamref.show.maps import size_text
from seamref.show.precomputed import EXPLORERS, explorer_named, script, turns_of
from seamref.show.processor import (
    access_matrix,
    address_picture,
    cast_picture,
    modes_picture,
    platform_map,
    seamcall_explorer,
)
from seamref.show.sequences import steps_of
from seamref.show.svg import text_width, wrap

MIB = 1 << 20
COLOUR = re.compile(r'(?:fill|stroke|stop-color|color)="([^"]*)"')


class Tree(HTMLParser):
    """Tags in order, and whether they close in the order in which they were opened."""

    VOID = frozenset({"br", "circle", "img", "line", "path", "polygon", "rect"})

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(html)
        self.close()
        assert self.open == [], f"not closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in {"br"}:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-1:]}"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.tags if name == tag]


def a_sequence() -> Html:
    platform = lab.platform()
    with recording(platform) as events:
        software.call(platform, 0, rax=1 << 63)
    return sequence([*events, Note("barrier"), Message(0, 1, "IPI"), Span(1, "violet", "SEAM"), Act(1, "x < y", "why")])


PICTURES: dict[str, Any] = {
    "memory map": lambda: platform_map(lab.platform()),
    "modes": lambda: modes_picture("SEAM VMX root"),
    "cast": cast_picture,
    "address": lambda: address_picture(lab.platform()),
    "sequence": a_sequence,
    "self loop and bend": lambda: state_machine(
        [State("a"), State("b", at=(1, 1))],
        [("a", "b"), Transition("a", "a", "again"), Transition("b", "a", "x", bend=40)],
    ),
}


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_is_svg_with_text_alternative_and_the_readers_colours(name: str) -> None:
    picture = PICTURES[name]()
    tree = Tree(picture.html)
    (svg,) = tree.all("svg")
    assert svg["viewbox"] and svg["role"] == "img" and "max-width:100%" in str(svg["style"])
    names = {attrs.get("id") for tag, attrs in tree.tags if tag in ("title", "desc")}
    assert set(str(svg["aria-labelledby"]).split()) <= names
    for value in COLOUR.findall(picture.html):
        assert value in ("none", "currentColor") or value.startswith("var(--"), value
    assert "#000" not in picture.html and "black" not in picture.html and "white" not in picture.html
    assert picture.text.startswith("[")


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_is_the_same_every_time(name: str) -> None:
    assert PICTURES[name]().html == PICTURES[name]().html


def test_two_pictures_on_a_page_do_not_share_identifiers() -> None:
    one, other = modes_picture(), modes_picture("SEAM VMX root")
    ids = [str(a["id"]) for p in (one, other) for _, a in Tree(p.html).tags if a.get("id")]
    assert len(ids) == len(set(ids))


def bars(html: str) -> list[tuple[float, float, str]]:
    """(y, height, title) of every titled box."""
    found = re.findall(r'<rect x="[^"]*" y="([^"]*)" width="[^"]*" height="([^"]*)"[^>]*><title>([^<]*)', html)
    return [(float(y), float(h), title) for y, h, title in found]


def test_a_memory_map_is_drawn_to_scale_high_addresses_on_top() -> None:
    regions = [Region("low", 0, 16 * MIB, "blue"), Region("high", 16 * MIB, 48 * MIB, "amber")]
    (top, low) = bars(memory_map(regions, height=400).html)
    assert top[2].startswith("high") and low[2].startswith("low")
    assert top[1] / low[1] == pytest.approx(3, rel=0.01)
    assert low[0] == pytest.approx(top[0] + top[1], abs=0.2)


def test_labels_of_tiny_regions_do_not_overlap() -> None:
    regions = [Region(f"r{i}", i * 4096, 4096, "blue") for i in range(6)] + [Region("rest", 6 * 4096, 1 << 30)]
    html = memory_map(regions).html
    lines = sorted(float(y) for y in re.findall(r'<text x="[^"]*" y="([^"]*)"[^>]*font-weight:600', html))
    assert len(lines) == 7
    assert all(b - a >= 30 for a, b in pairwise(lines))


def test_overlapping_regions_are_an_error_that_names_both() -> None:
    with pytest.raises(SeamrefError, match=r"high at 0x800 overlaps low"):
        memory_map([Region("low", 0, 0x1000), Region("high", 0x800, 0x1000)])


def test_a_sequence_keeps_the_order_of_events() -> None:
    said = a_sequence().text.splitlines()[1:]
    assert said.index("LP 0: SEAMCALL: entered P-SEAMLDR (SEAMCALL.enter)") < said.index("LP 0 is now in SEAM VMX root")
    assert said.index("LP 0 is now in SEAM VMX root") < said.index("LP 0: P_SEAMLDR_MUTEX released")
    assert said[-4:] == ["barrier", "LP 0 to LP 1: IPI", "LP 1 is now in SEAM", "LP 1: x < y (why)"]


def test_a_sequence_escapes_what_it_writes() -> None:
    assert "x &lt; y" in a_sequence().html


def test_a_sequence_without_lanes_or_with_an_unknown_one_is_an_error() -> None:
    with pytest.raises(SeamrefError, match="nothing happened"):
        sequence([Note("alone")])
    with pytest.raises(SeamrefError, match="names lane 7"):
        sequence([Act(0, "x"), Message(0, 7, "y")], lanes=[0])


def test_every_trace_event_has_a_form() -> None:
    from seamref.arch import trace

    given = [
        trace.InstructionEnded(0, "SEAMCALL", "#UD", "SEAMCALL.vmx"), trace.ModeChanged(0, "a", "SEAM VMX root"),
        trace.MutexChanged(0, True), trace.MsrWritten(0, 0x1402, 1), trace.SeamextendWritten(0, bytes(136)),
        trace.AccessDenied("HOST", 0x1000, 8, True, "MEMORY.module_range"), trace.VmcsFlushed(0, 0x1000, "why"),
        trace.WentDown(0, True, "cause"), trace.Step(0, "P-SEAMLDR", "INSTALL"),
    ]
    assert len(list(steps_of(given))) == len(given)


def test_a_state_machine_with_an_arrow_to_nowhere_is_an_error() -> None:
    with pytest.raises(SeamrefError, match="'c', which is no state"):
        state_machine(["a", "b"], [("a", "c")])


# --- tables


def test_check_table_has_the_rows_of_the_declaration_in_order() -> None:
    shown = check_table(SEAMRET)
    assert [row[1] for row in shown.rows] == [row.id for row in SEAMRET]
    assert shown.columns == ("#", "clause", "stops when", "result", "source")


def test_check_table_with_a_revision_leaves_out_rows_that_it_does_not_have() -> None:
    silicon = [row[1] for row in check_table(SEAMCALL, SILICON).rows]
    assert "SEAMCALL.cpl" in silicon and "SEAMCALL.cpl_late" not in silicon
    assert len(check_table(SEAMCALL)) == len(SEAMCALL)


def test_layout_table_has_the_declared_offsets() -> None:
    shown = layout_table(P_SYS_INFO_TABLE)
    assert ("`0x860`", 4, "`acm_x2apicid`") in [row[:3] for row in shown.rows]
    assert len(shown) == len(P_SYS_INFO_TABLE.table())


def test_record_table_shows_what_is_not_zero_and_what_is_asked_for() -> None:
    record = SEAMEXTEND.new(seam_ready=1, mrseam=b"\x11" * 48)
    assert [row[1] for row in record_table(record).rows] == ["`mrseam`", "`seam_ready`"]
    assert [row[2] for row in record_table(record, "p_seamldr_ready").rows] == [0]


def test_msr_tables_find_by_number_and_name_and_name_what_is_missing() -> None:
    assert msr_table(0x1401).rows == msr_table("IA32_SEAMRR_PHYS_MASK").rows
    assert len(msr_table()) == len(MSRS)
    assert [row[2] for row in msr_bits(0x1401, 0xC00).rows] == [0, 1, 1]
    with pytest.raises(SeamrefError, match="0x1409"):
        msr_table(0x1409)


def test_a_table_is_a_data_frame_and_scrolls() -> None:
    shown = table([{"a": 1, "b": "x"}, {"a": 2, "b": "y"}])
    assert list(shown.frame.columns) == ["a", "b"] and int(shown.frame["a"].sum()) == 3
    assert shown.records == shown.frame.to_dict("records")
    assert 'overflow-x:auto' in shown.html and Tree(shown.html).all("table")


def test_cells_say_numbers_codes_clauses_and_outcomes() -> None:
    html = table([(Hex(255), "a `code` <b>", Id("SEAMCALL.cpl"), True, None)], ["h", "t", "c", "y", "n"]).html
    assert "<code>0xFF</code>" in html and "<code>code</code> &lt;b&gt;" in html
    assert 'href="../appendices/clauses.html#clause-seamcall-cpl"' in html and "<td>yes</td>" in html


def test_a_row_that_is_no_row_is_an_error() -> None:
    with pytest.raises(SeamrefError, match="mapping, a dataclass or a tuple, not int"):
        table([1, 2])


def test_pairs_have_no_empty_head() -> None:
    assert "<thead>" not in pairs(("a", 1)).html


def test_markup_escapes_and_an_unknown_tone_is_an_error() -> None:
    assert marked_up("<i>`x<y`") == "&lt;i&gt;<code>x&lt;y</code>"
    with pytest.raises(SeamrefError, match="no tone 'pink'; there are quiet, blue"):
        tone("pink")


# --- code


def test_show_has_the_source_and_the_clause_beside_it() -> None:
    shown = show(seam.seam_cvp)
    assert "def seam_cvp(" in shown.text and "# SEAM_CVP: " in shown.text
    tree = Tree(shown.html.replace("<style>", "").replace("</style>", ""))
    assert any("clause-seam-cvp" in str(a.get("href")) for a in tree.all("a"))


def test_show_dispatches_on_what_it_is_given() -> None:
    assert show(SEAMRET).text == check_table(SEAMRET).text
    assert show(SEAMEXTEND).text == layout_table(SEAMEXTEND).text
    assert show(MSRS[0x1402]).text == msr_table(0x1402).text
    assert show("SEAM_CVP").text.startswith("clause")
    assert "def decide" in show(type(SEAMRET).decide).text


def test_show_can_leave_the_docstring_out() -> None:
    assert "physical address of this processor" not in show(seam.seam_cvp, doc=False).text


# --- decisions and explorers


def state(**changes: Any) -> SeamcallState:
    platform = lab.platform()
    lp = platform.lp(0)
    for name, value in changes.items():
        setattr(lp, name, value)
    return SeamcallState(platform, lp)


def test_decision_path_marks_silent_deciding_unreached_and_absent_rows() -> None:
    asked = state(cpl=3)
    text = decision_path(SEAMCALL, SEAMCALL.walk(asked, SILICON), None, SILICON).text.splitlines()
    answers = {line.split(":")[0].split()[-1]: line.rsplit("--", 1)[1].strip() for line in text[1:]}
    assert answers["SEAMCALL.vmx"] == "silent"
    assert answers["SEAMCALL.cpl"].startswith("decides -> #GP(0)")
    assert answers["SEAMCALL.non_root"] == "not reached"
    assert answers["SEAMCALL.cpl_late"] == "not in this revision"


def test_decision_path_says_when_every_row_is_silent() -> None:
    asked = state()
    walk = SEAMCALL.walk(asked, SILICON)
    shown = decision_path(SEAMCALL, walk, seamcall(asked.platform, 0), SILICON)
    assert shown.text.splitlines()[-1].strip() == "every row silent -> entered TDX module"


def an_explorer() -> Explorer:
    return explorer(lambda cpl, on: paragraph(f"cpl {cpl} on {on}"), cpl=[0, 3], on=True, title="T", also=[{"cpl": 3}])


def test_an_explorer_shows_its_default_and_the_further_turns() -> None:
    text = repr(an_explorer())
    assert "cpl 0 on True" in text and "With cpl = 3:" in text and "cpl 3 on True" in text


def test_an_explorer_has_a_static_form_and_outside_a_kernel_nothing_else() -> None:
    bundle = an_explorer()._repr_mimebundle_()
    assert set(bundle) == {"text/plain", "text/html"}
    assert "cpl 0 on True" in Tree(bundle["text/html"]).words


def test_an_explorers_controls_change_what_it_shows() -> None:
    box = an_explorer().widget()
    controls, _, shown = box.children
    assert [type(control).__name__ for control in controls.children] == ["Dropdown", "Checkbox"]
    assert "cpl 0 on True" in shown.value
    controls.children[0].value = 3
    controls.children[1].value = False
    assert "cpl 3 on False" in shown.value


def test_a_live_explorer_says_that_it_works_and_shows_no_old_result_when_a_turn_fails() -> None:
    seen: list[str] = []

    def shown(n: int) -> Any:
        seen.append(state.value if n else "")
        if n == 2:
            raise ValueError("two <is> too many")
        return paragraph(f"n is {n}")

    made = explorer(shown, n=[0, 1, 2])
    box = made.widget()
    controls, state, result = box.children
    controls.children[0].value = 1
    assert "working" in seen[-1] and state.value == "" and "n is 1" in result.value
    controls.children[0].value = 2
    assert "ValueError: two &lt;is&gt; too many" in state.value and result.value == ""
    controls.children[0].value = 0
    assert state.value == "" and "n is 0" in result.value


def test_an_explorer_refuses_controls_that_it_does_not_have() -> None:
    with pytest.raises(SeamrefError, match="no control 'colour'; there are cpl, on"):
        an_explorer().at(colour=1)
    with pytest.raises(SeamrefError, match="no control 'x'"):
        explorer(lambda: paragraph(""), defaults={"x": 1})
    with pytest.raises(SeamrefError, match="cpl = 7 is none of its choices"):
        explorer(lambda cpl: paragraph(""), cpl=[0, 3], defaults={"cpl": 7}).static()


class Box(HTMLParser):
    """The declaration that an explorer's HTML carries."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.declared: dict[str, Any] = {}
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.declared = self.declared or json.loads(dict(attrs).get("data-declared") or "{}")


def test_the_pages_form_carries_the_declaration_that_the_widget_reads() -> None:
    made = explorer(lambda **said: paragraph(repr(said)), title="<T> & t", key="k", defaults={"cpl": 3},
                    also=[{"mode": 1}], cpl=[0, 3], on=False, mode={"LOAD": 0, "UPDATE": 1},
                    pages=Numbers((2, 8), 1, 100), many="abcd")
    held = Box(made.static().html).declared
    assert held == made.declaration() and held["key"] == "k" and held["title"] == "<T> & t"
    assert [(one["kind"], one["choices"], one["set"]) for one in held["controls"]] == [
        ("few", ["0", "3"], 1), ("tick", ["yes", "no"], 1), ("few", ["LOAD", "UPDATE"], 0), ("number", ["2", "8"], 0),
        ("pick", ["a", "b", "c", "d"], 0)]
    assert (held["controls"][3]["least"], held["controls"][3]["most"], held["also"]) == (1, 100, [{"mode": 1}])
    kinds = [type(control).__name__ for control in made.widget().children[0].children]
    assert kinds == ["Dropdown", "Checkbox", "Dropdown", "BoundedIntText", "Dropdown"]


def test_a_page_turns_an_explorer_that_was_shown_by_numbers_of_choices() -> None:
    explorer(lambda cpl, pages: paragraph(f"cpl {cpl}, {pages} pages"), key="turned", cpl=[0, 3],
             pages=Numbers((2, 8), 1, 100)).static()
    assert "cpl 3, 8 pages" in turn("turned", {"cpl": 1, "pages": 1})
    assert "cpl 0, 77 pages" in turn("turned", {"pages": {"value": 77}})
    for marks, said in (({"cpl": 2}, "choices 0 to 1, not 2"), ({"cpl": "3"}, "not '3'"), ({"x": 0}, "no control 'x'"),
                        ({"pages": {"value": 101}}, "pages: a whole number from 1 to 100"),
                        ({"pages": {"value": 1.5}}, "a whole number"), ({"cpl": {"value": 0}}, "chosen from a list")):
        with pytest.raises(SeamrefError, match=said):
            turn("turned", marks)
    with pytest.raises(SeamrefError, match="no explorer 'nobody' was shown"):
        turn("nobody", {})


def test_precomputed_answers_are_the_machines_for_every_setting() -> None:
    made = explorer(lambda cpl, on: stack(f"cpl {cpl // 3}", paragraph("on" if on else "off")), cpl=[0, 1, 3], on=True)
    turns = turns_of(made)
    assert (turns.sizes, len(turns.number), len(turns.answers)) == ((3, 2), 6, 4)
    for i, cpl in enumerate((0, 1, 3)):
        for j, on in enumerate((True, False)):
            assert turns.answer(i, j) == made.html_at(cpl=cpl, on=on)


def test_the_script_of_answers_is_one_assignment_that_puts_the_pieces_together_again() -> None:
    words = "</script> \u2028 é"
    made = explorer(lambda n: stack(words, table([(n,)], ["n"])), key="k", n=[1, 2, 1])
    turns = turns_of(made)
    text = script(turns, lambda html: html.replace("<p", "<p id=x"))
    assert "</" not in text and "\u2028" not in text and text.count("\n") == 1
    held = json.loads(re.search(r'seambook\.turns\["k"\]=(.*);', text).group(1))  # type: ignore[union-attr]
    for number, answer in enumerate(turns.answers):
        joined = "".join(held["pieces"][piece] for piece in held["answers"][number])
        assert joined == answer.replace("<p", "<p id=x")
    assert held["number"] == [0, 1] or held["number"] == [0, 1, 0]


@pytest.mark.parametrize("key", EXPLORERS)
def test_every_explorer_of_the_book_is_declared_with_its_key_and_says_its_answer_in_a_line(key: str) -> None:
    made = explorer_named(key)
    assert made.key == key
    html = made.static().html
    assert Box(html).declared == made.declaration()
    assert re.match(r"<p\b[^>]*>(?!</p>)", html.partition("seam-answer\">")[2])
    assert made.count <= 10_000  # what a build of the book runs


def test_an_unknown_explorer_is_one_line_with_the_known_ones() -> None:
    with pytest.raises(SeamrefError, match="no explorer 'x'; there are seamcall, boot"):
        explorer_named("x")


def test_the_seamcall_explorer_answers_like_the_machine() -> None:
    made = seamcall_explorer()
    assert "decided by SEAMCALL.cpl.\n" in made.at(revision="silicon").text
    assert "decided by SEAMCALL.non_root.\n" in made.at().text
    assert "entered P-SEAMLDR" in made.at(
        where="host (VMX root)", CPL=0, RAX="RAX[63] = 1: P-SEAMLDR"
    ).text
    assert "decided by SEAMCALL.p_seamldr_busy" in made.at(
        where="host (VMX root)", CPL=0, RAX="RAX[63] = 1: P-SEAMLDR", mutex=True
    ).text


def test_the_access_matrix_is_what_the_platform_says() -> None:
    platform = lab.platform()
    rows = {row[0]: row[1:] for row in access_matrix(platform, {"module": lab.SEAMRR.base, "low": 0x1000}).rows}
    assert rows["host"] == ("MEMORY.module_range", "yes") and rows["TDX module"] == ("yes", "yes")


def test_compressed_states_are_exactly_the_states() -> None:
    states = [s for s in range(4096) if s & 0b101 == 0b101 or s == 0]
    cubes = compressed(states, [])
    names = list(cubes[0])
    covered = {
        s for s in range(4096) for cube in cubes
        if all(cube[n] is None or bool(s >> i & 1) == cube[n] for i, n in enumerate(names))
    }
    assert covered == set(states) and len(cubes) == 2


# --- odds and ends


def test_sizes_and_lines() -> None:
    assert [size_text(n) for n in (64 * MIB, 4096, 100, 0x1234)] == ["64 MiB", "4 KiB", "100 bytes", "0x1234 bytes"]
    assert wrap("one two three", text_width("one two")) == ["one two", "three"]


def test_everything_exported_exists() -> None:
    assert all(hasattr(toolkit, name) for name in toolkit.__all__)


def test_a_result_reads_as_words_whatever_it_is() -> None:
    from dataclasses import dataclass

    from seamref.arch.memory import Verdict
    from seamref.arch.outcome import Fault, Vector, VmxError
    from seamref.show.tables import result_text

    @dataclass(frozen=True)
    class Stop:
        cause: str
        code: int

    assert result_text(Fault(Vector.GP, 0, "X")) == "#GP(0)"
    assert result_text(Verdict.DENIED) == "inside SEAM memory"
    assert result_text(VmxError.ENTRY_INVALID_HOST_STATE) == "ENTRY_INVALID_HOST_STATE (8)"
    assert result_text(Stop("why", 2)) == "Stop: why, 2"
    assert [row[3] for row in check_table(SEAMRET).rows][-2:] == ["VM-entry failure 33", "VM-entry failure 34"]


@pytest.mark.parametrize("sure", [True, False])
def test_run_picture_calls_a_run_the_shortest_only_where_that_was_shown(sure: bool) -> None:
    from dataclasses import replace

    from seamref.explore import explore
    from seamref.show.explore import run_picture

    found = explore("update-without-lock", properties=["nobody-collides"], shortest=False).counterexample()
    drawn = run_picture(replace(found, shortest=sure)).html
    assert ("The shortest run that breaks nobody-collides" in drawn) is sure
    assert "run that breaks nobody-collides" in drawn


def test_check_table_names_revisions_of_the_kind_that_the_table_is_asked_with() -> None:
    from seamref.arch.revision import REVISIONS
    from seamref.host.fw_upload import SUPPORTED
    from seamref.host.image import KERNEL_V1, KERNEL_V2
    from seamref.host.series import SERIES
    from seamref.pseamldr.build import REVISIONS as LOADERS
    from seamref.pseamldr.manifest import INSTALL_MANIFEST

    def said(checks: Any) -> dict[str, set[str]]:
        shown = toolkit.check_table(checks)
        return {str(row[1]): set(filter(None, row[-1].split(", "))) for row in shown.rows}

    for checks, known in ((INSTALL_MANIFEST, {f"P-SEAMLDR {name}": name for name in LOADERS}),
                         (KERNEL_V1, {name: name for name in SERIES}), (KERNEL_V2, {name: name for name in SERIES}),
                         (SUPPORTED, SERIES), (seam.SEAMCALL, REVISIONS)):
        shown = said(checks)
        for row in checks:
            have = set() if row.applies is None else {name for name, one in known.items() if row.applies(one)}
            assert shown[row.id] == have, row.id
    assert said(INSTALL_MANIFEST)["INSTALL.manifest.svn"] == {"P-SEAMLDR 1.0"}
    assert said(KERNEL_V2)["IMAGE2.header"] == {"v10", "merged"}


def test_without_pandas_a_table_still_gives_its_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    shown = table([{"a": Hex(3), "`b`": "`x`"}])
    assert shown.records == [{"a": 3, "b": "x"}]
    with pytest.raises(SeamrefError, match="pandas is not installed here; records has the same rows"):
        _ = shown.frame
