"""The experiments, pictures and commands of the part *The loader*."""

from __future__ import annotations

from itertools import pairwise

import pytest

from seamref import cli, mint
from seamref.arch.outcome import Shutdown
from seamref.errors import SeamrefError
from seamref.experiments.loader import abi as loader_abi
from seamref.experiments.loader import lab as loader_lab
from seamref.experiments.loader import memory as loader_memory
from seamref.experiments.loader import refusals as loader_refusals
from seamref.experiments.loader import updates as loader_updates
from seamref.experiments.loader.lab import Attempt, install, running
from seamref.experiments.loader.refusals import INSTALL_TABLES, cases, fatal_cases
from seamref.pseamldr.api import PAGE, Leaf, Scenario
from seamref.pseamldr.sigstruct import SEAM_SIGSTRUCT
from seamref.show import loader

CASES = list(cases())
BEFORE_THE_LAST = ("DISPATCH.", "INSTALL.lp.")
"""Rows of every processor's call: they do not end a session."""
WIPED = ("INSTALL.map", "INSTALL.hash", "INSTALL.relocation", "INSTALL.seamdb", "ELF.")
"""Rows that are asked after the range was cleared."""

# --- attempts


def test_every_row_that_refuses_has_exactly_one_attempt() -> None:
    rows = [row.id for table in INSTALL_TABLES for row in table]
    assert sorted(rows) == sorted(case.row for case in CASES)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.row)
def test_an_attempt_is_stopped_by_its_row_and_leaves_what_the_row_says(case: loader_refusals.Case) -> None:
    session = case.attempt.run()
    last = session.last
    row = next(row for table in INSTALL_TABLES for row in table if row.id == case.row)
    assert case.row in {found.id for found in last.rows}
    if not case.row.startswith("ELF."):
        assert last.status is row.result
    if case.row == "DISPATCH.canary.entropy":
        assert "rdx" not in last.changed
    else:
        assert last.rdx == case.row.startswith(WIPED)
    if not case.row.startswith(BEFORE_THE_LAST):
        assert (session.memory == "untouched") is (last.rdx == 0)
        assert session.ready is (last.rdx == 0 and case.attempt.old is not None)


@pytest.mark.parametrize("case", list(fatal_cases()), ids=lambda case: case.row)
def test_a_fatal_end_shuts_the_processor_down_and_takes_SEAM_with_it(case: loader_refusals.Case) -> None:
    session = case.attempt.run()
    assert isinstance(session.last.outcome, Shutdown) and session.last.outcome.in_SEAM
    assert not session.platform.P_SEAMLDR_READY and not session.platform.SEAM_READY
    assert session.last.status is None


def test_an_attempt_without_a_mistake_succeeds_in_both_scenarios() -> None:
    for scenario in Scenario:
        session = Attempt(scenario=scenario).run()
        assert session.ok and session.survives == "replaced" and not session.last.rows


def test_an_unknown_sigstruct_field_is_named() -> None:
    with pytest.raises(SeamrefError, match="num_handof_pages"):
        Attempt(sig={"num_handof_pages": 1}).run()


def test_what_became_of_the_old_module_is_said_for_each_end() -> None:
    begun = running("1.5.05")
    assert "open" in install(begun, order=[0]).survives
    assert Attempt(old=None).run().survives == "there was none; the new one is ready"
    assert Attempt(old=None, params={"version": 1}).run().survives == "there was none"
    assert Attempt(params={"version": 1}).run().survives == "yes"
    assert Attempt(sig={"seamhash": bytes(48)}).run().survives == "no"


# --- the ABI


def test_only_INSTALL_changes_RDX_and_no_leaf_another_register() -> None:
    for made in loader_abi.leaf_calls():
        assert set(made.called.changed) <= {"rax", "rdx"}
        assert ("rdx" in made.called.changed) == ("INSTALL" in made.title)


def test_memory_written_is_the_buffer_and_nothing_else() -> None:
    written = {made.title: made.written for made in loader_abi.leaf_calls()}
    assert written["SEAMLDR.INFO"] == "256 bytes at RCX"
    assert written["SEAMLDR.SEAMINFO"] == "2048 bytes at RCX"
    assert {text for title, text in written.items() if title not in ("SEAMLDR.INFO", "SEAMLDR.SEAMINFO")} == {"none"}


# --- memory


def test_the_parts_of_a_plan_cover_the_module_range_without_gap_or_overlap() -> None:
    session = Attempt(old=None, on={"lps": 6}).run()
    assert session.plan is not None
    for end in (None, session.last.computed["current_pt_physbase"]):
        parts = loader_memory.parts(session.plan, end)
        assert parts[0].base == session.plan.seamrr_base
        assert parts[-1].base + parts[-1].size == session.plan.module_physlimit
        assert all(low.base + low.size == high.base for low, high in pairwise(parts))


def test_the_terms_add_up_to_what_the_size_check_demands() -> None:
    for lps, sockets in ((1, 1), (112, 2), (128, 8)):
        made = loader_memory.plan(loader_memory.shape(), lps, sockets, 256 << 20)
        assert sum(size for _, size in loader_memory.needs(made)) == made.minimum_size


def test_the_edge_walks_through_four_answers_in_order() -> None:
    stages = loader_memory.edge(lps=1, seamrr=32 << 20)
    assert [stage.answer for stage in stages] == ["SUCCESS", "UD2: shutdown", "ENOMEM, RDX = 1", "ENOMEM, RDX = 0"]
    assert all(a.last + 1 == b.first for a, b in pairwise(stages))
    assert stages[2].last == loader_memory.largest_planned(lps=1, seamrr=32 << 20)


def test_every_page_that_the_tables_map_is_a_page_of_the_plan() -> None:
    session = Attempt(old=None).run()
    plan = session.plan
    assert plan is not None
    mapped = {run.linear: run for run in loader_memory.runs(session.platform, plan.pml4_physbase)}
    assert mapped[plan.code_region_linbase].count == plan.code_region_size // PAGE
    assert mapped[plan.data_region_linbase].physical == plan.data_region_physbase
    assert loader_memory.attributes_text(mapped[plan.code_region_linbase].attributes) == "P A"
    assert loader_memory.table_pages_used(session.platform, session) * PAGE > plan.paging_structure_size


def test_the_smallest_SEAMRR_is_the_first_that_passes() -> None:
    wanted = loader_memory.shape(num_global_data_pages=0xFFFF)
    least = loader_memory.smallest_seamrr(wanted, 2, 1)
    assert least == 512 << 20
    assert loader_memory.fits(loader_memory.plan(wanted, 2, 1, least))
    assert not loader_memory.fits(loader_memory.plan(wanted, 2, 1, least // 2))


# --- updates


def test_the_story_counts_down_and_a_LOAD_begins_again() -> None:
    moments = list(loader_updates.story(3))
    updates = [m for m in moments if m.step.startswith("UPDATE") and "copy" not in m.step]
    assert [m.answer for m in updates] == ["SUCCESS", "SUCCESS", "EBADCALL"]
    assert [m.counted for m in updates] == [1, 0, 0]
    assert moments[-1].counted == 2 and moments[-1].entries == 1


def test_looking_at_the_count_does_not_ask_SEAMDB() -> None:
    made = loader_lab.platform(seamdb=5)
    assert loader_updates.moment(made, "look").counted == 0
    assert loader_updates.moment(made, "ask", ask=True).info == 5
    assert loader_updates.moment(made, "look").counted == 5


# --- pictures and explorers


def test_a_session_picture_says_what_every_call_answered() -> None:
    session = Attempt(on={"lps": 3}, order=(0, 1, 1, 2)).run()
    text = repr(loader.session_picture(session))
    assert text.count("SUCCESS") == 3 and text.count("EBADCALL") == 1
    assert "SVN 1.6, SEAM_READY 1" in text
    assert len(loader.session_table(session)) == 4


def test_the_card_marks_a_field_that_is_not_what_it_must_be() -> None:
    image = mint.module_image()
    good, bad = loader.card(mint.sigstruct(image)), loader.card(mint.sigstruct(image, size=1))
    assert {row[1]: row[3] for row in good.rows}["`size` (4)"] == "0x200: yes"
    assert {row[1]: row[3] for row in bad.rows}["`size` (4)"] == "0x200: no"
    assert len(good) == len(SEAM_SIGSTRUCT.fields)


def test_the_sigstruct_explorer_shows_every_change_it_offers() -> None:
    explorer = loader.sigstruct_explorer()
    for change in loader.sigstruct_mutations():
        assert "RAX" in repr(explorer.at(change=change))
    other_key = explorer.at(change="date changed after signing", signature="by another key")
    assert "INSTALL.manifest.signer_key" in repr(other_key)
    assert "INSTALL.manifest.signature" in repr(explorer.at(change="max_tdmrs = 64 (nobody looks)",
                                                            signature="from before the change"))
    assert "SUCCESS" in repr(explorer.at(change="nothing", scenario=Scenario.UPDATE))


def test_turning_a_control_of_a_live_widget_runs_INSTALL_again() -> None:
    box = loader.sigstruct_explorer().widget()
    controls, _, shown = box.children
    before = shown.value
    # W7: LOAD counts as 0 and UPDATE as 1, and yet they are two names and no tick.
    assert [type(control).__name__ for control in controls.children] == ["Dropdown", "Dropdown", "Dropdown"]
    assert [name for name, _ in controls.children[1].options] == ["LOAD", "UPDATE"]
    controls.children[0].value = "header_type = 0x5"
    assert shown.value != before and "INSTALL.manifest.header_type" in shown.value


def test_the_memory_explorer_draws_a_map_or_says_ENOMEM() -> None:
    explorer = loader.memory_explorer()
    assert "SYS_INFO_TABLE" in repr(explorer.at())
    assert "ENOMEM" in repr(explorer.at(global_data=65536))
    assert explorer.widget().children


def test_the_big_table_has_a_line_for_each_row() -> None:
    found = loader_refusals.refusals()
    assert len(loader.refusal_table(found)) == sum(len(table) for table in INSTALL_TABLES)
    assert "from here on the old module is gone" in repr(loader.funnel(found))
    assert len(loader.aftermath_table(found)) == len(found)


def test_bars_and_boxes_say_in_words_what_they_draw() -> None:
    made = loader_memory.plan(loader_memory.shape(), 2, 1)
    assert "code 2 MiB" in repr(loader.need_bars({"two": made}))
    stages = loader_memory.edge(lps=1, around=8)
    assert all(stage.answer in repr(loader.edge_picture(stages)) for stage in stages)


# --- commands


def run(capsys: pytest.CaptureFixture[str], *args: str) -> tuple[int, str, str]:
    code = cli.main(list(args))
    said = capsys.readouterr()
    return code, said.out, said.err


def test_command_install_says_what_stopped_it(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "install", "--scenario", "update", "--set", "seam_minor_svn=1", "--lps", "3")
    assert code == 1
    assert "INSTALL.manifest.minor_svn" in out and "the module that ran before: yes" in out
    assert out.count("LP ") == 3


def test_command_install_prints_the_plan_of_a_module_it_accepts(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "install", "--old", "none", "--set", "cpuid_table=0xC06F0", "--order", "1,0")
    assert code == 0 and "memory plan for 2 addressable processors" in out
    assert out.index("LP 1:") < out.index("LP 0:")


def test_command_install_runs_on_the_older_generation(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "install", "--seamldr", "1.0", "--scenario", "update", "--build", "1.5.01")
    assert code == 1 and "INSTALL.manifest.svn" in out


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["--set", "nothing=1"], "no field 'nothing'"),
        (["--set", "size"], "must be FIELD=VALUE"),
        (["--set", "size=big"], "must be a number"),
        (["--set", "seamhash=xy"], "must be hex digits"),
        (["--old", "9.9"], "no build '9.9'"),
        (["--row", "INSTALL.nothing"], "no attempt"),
        (["--seamrr", "48M"], "power of two"),
    ],
)
def test_command_install_complains_in_one_line(
    capsys: pytest.CaptureFixture[str], args: list[str], says: str
) -> None:
    code, _, err = run(capsys, "install", *args)
    assert code == 2 and says in err and len(err.splitlines()) == 1


def test_command_install_runs_the_attempt_of_a_row(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "install", "--row", "INSTALL.seamdb.entropy")
    assert code == 1 and "ENOENTROPY" in out and "RDX = 1" in out


def test_command_install_lists_every_failure_that_cannot_be_recovered(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "install", "--unrecoverable")
    assert code == 0 and "RDX = 0" not in out
    assert all(case.row in out for case in CASES if case.row.startswith(WIPED))


def test_command_install_runs_every_row_and_every_change(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "install", "--every-refusal")
    assert code == 0 and all(f"{case.row}: " in out for case in (*CASES, *fatal_cases()))
    code, out, _ = run(capsys, "install", "--changes")
    assert code == 0 and all(change in out for change in loader.sigstruct_mutations())


def test_command_leaves_calls_each_leaf(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "leaves")
    assert code == 0 and all(f"SEAMLDR.{leaf.name}" in out for leaf in Leaf)


def test_command_memory_answers_and_executes_the_edge(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "memory", "--lps", "1", "--seamrr", "32M", "--edge")
    assert code == 0 and "needed, of 28 MiB" in out
    assert out.index("UD2") < out.index("RDX = 1") < out.index("RDX = 0")
    assert run(capsys, "memory", "--build", "none")[0] == 2


def test_command_memory_says_no_where_it_does_not_fit(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "memory", "--lps", "1024", "--sockets", "8", "--seamrr", "32M")
    assert code == 1 and "smallest SEAMRR" in out


def test_command_remaining_tells_the_story(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "remaining", "--seamdb", "2")
    assert code == 0 and "EBADCALL" in out and "2 of 2" in out
