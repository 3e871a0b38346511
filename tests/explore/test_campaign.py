"""Campaigns: cases, bounds, a ledger that survives kill -9, reports; each case gets its verdict once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

from seamref import cli
from seamref.errors import SeamrefError
from seamref.experiments.proofs import campaign as told
from seamref.explore import workers
from seamref.explore.campaign import (
    FORMAT,
    Bounds,
    Case,
    Ledger,
    Outcome,
    Verdict,
    cases,
    imported,
    resident,
    run_case,
)
from seamref.explore.engine import explore

ROOT = Path(__file__).resolve().parents[2]
SMALL = ("info-callers", "uefi-cold", "uefi-disabled", "loader-reload")


# --- cases


def test_cases__are_the_product_and_each_has_its_own_name() -> None:
    found = list(cases(("info-callers",), faults=((), ("mc",)), cpus=(2, 3), revisions=("silicon", "SDM")))
    assert len({case.key for case in found}) == len(found)
    assert Counter((case.cpus, case.revision, case.faults) for case in found)[2, "SDM", ("mc",)] == 2
    assert all(case.target for case in found if case.faults) and not any(c.target for c in found if not c.faults)
    together = list(cases(("info-callers",), faults=(("mc",),), targets="together"))
    assert [case.target for case in together] == [""]
    assert [c.target for c in cases(("info-callers",), faults=(("mc",),), targets="1")] == ["actor 1"]


def test_run_case__says_what_explore_says() -> None:
    case = Case("info-callers-v3", cpus=2)
    outcome = run_case(case)
    plain = explore("info-callers-v3", 2, stop_first=False, shortest=False)
    assert outcome.verdict is Verdict.BREAKS and set(outcome.breaks) == {found.broken for found in plain.broken}
    assert (outcome.states, outcome.ends) == (plain.states, plain.ends)
    assert Outcome.from_json(json.loads(json.dumps(outcome.to_json()))) == outcome


def test_run_case__one_placement_is_a_part_of_all() -> None:
    both = run_case(Case("info-callers", faults=("mc",)))
    one = run_case(Case("info-callers", faults=("mc",), target="actor 1"))
    assert both.breaks == one.breaks == ("no-deadlock",) and one.states < both.states


def test_run_case__never_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    assert run_case(Case("info-callers", faults=("mc",), target="actor 9")).verdict is Verdict.REFUSED
    assert "nothing is placed" in run_case(Case("info-callers", faults=("mc",), target="actor 9")).why
    assert run_case(Case("no-such-scenario")).verdict is Verdict.REFUSED
    assert run_case(Case("update"), Bounds(states=20)).verdict is Verdict.STATES

    def fails(*args: object, **kwargs: object) -> None:
        raise ZeroDivisionError("in the machine")

    monkeypatch.setattr("seamref.explore.campaign.explore", fails)
    outcome = run_case(Case("update"))
    assert outcome.verdict is Verdict.ERROR and outcome.why == "ZeroDivisionError: in the machine"
    monkeypatch.setattr("seamref.explore.campaign.explore", lambda *a, **k: (_ for _ in ()).throw(MemoryError))
    assert run_case(Case("update")).verdict is Verdict.MEMORY


def test_run_case__the_revision_counts_from_the_beginning() -> None:
    """X2 forgets nothing: under 343754-001 the mutex row differs, and the case is named for it."""
    outcome = run_case(Case("info-callers", revision="343754-001"))
    assert outcome.verdict in (Verdict.HOLDS, Verdict.BREAKS) and "/343754-001/" in outcome.case.key


def test_verdict__only_three_are_answers() -> None:
    assert {verdict.value for verdict in Verdict if verdict.is_answer} == {"holds", "breaks", "vacuous"}


# --- workers


def behave(case: Case, bounds: Bounds) -> Outcome:
    """Stands for run_case in a worker: what the name of the case says."""
    match case.scenario:
        case "sleeps":
            time.sleep(60)
        case "dies":
            os._exit(7)
        case "grows":
            held = bytearray(600 << 20)
            time.sleep(60)
            del held
    return Outcome(case, Verdict.HOLDS)


def outcomes_of(monkeypatch: pytest.MonkeyPatch, names: list[str], jobs: int, bounds: Bounds) -> dict[str, Outcome]:
    monkeypatch.setattr(workers, "run_case", behave)
    monkeypatch.setattr(workers, "GRACE", 0.2)
    found: list[Outcome] = []
    workers.run_cases([Case(name, cpus=n) for n, name in enumerate(names, 1)], jobs, bounds, found.append)
    assert len({outcome.case.key for outcome in found}) == len(found) == len(names)
    return {f"{outcome.case.scenario} {outcome.case.cpus}": outcome for outcome in found}


@pytest.mark.skipif(not workers.can_fork(), reason="no process can be split off here")
def test_workers__time_memory_and_death_are_verdicts_and_the_others_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    bounds = Bounds(seconds=4.0, memory=resident(os.getpid()) + 200)
    found = outcomes_of(monkeypatch, ["fine", "sleeps", "fine", "dies", "fine", "fine"], 2, bounds)
    assert found["sleeps 2"].verdict is Verdict.TIMEOUT and "4 s" in found["sleeps 2"].why
    assert found["dies 4"].verdict is Verdict.LOST and "7" in found["dies 4"].why
    assert [found[f"fine {n}"].verdict for n in (1, 3, 5, 6)] == [Verdict.HOLDS] * 4


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="nobody says how much memory a process uses")
def test_workers__memory_is_looked_at_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    found = outcomes_of(monkeypatch, ["grows", "fine"], 1, Bounds(30.0, resident(os.getpid()) + 100))
    assert found["grows 1"].verdict is Verdict.MEMORY and found["fine 2"].verdict is Verdict.HOLDS


def test_workers__where_no_process_can_be_started_the_work_is_done_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "_context", lambda: None)
    found = outcomes_of(monkeypatch, ["fine", "fine"], 4, Bounds())
    assert {outcome.verdict for outcome in found.values()} == {Verdict.HOLDS}


# --- which state of the code

RUNS_A_CASE = """
import sys
from seamref.explore.campaign import Bounds, Case, run_case
for case in (Case("update"), Case("tds-during-update", faults=("smi",)), Case("loader-reload-install"),
             Case("uefi-together"), Case("kexec-under-td"), Case("build-during-update-v10"), Case("no-such-scenario")):
    run_case(case, Bounds(states=60))
print(*sorted(name for name in sys.modules if name.partition(".")[0] == "seamref"))
"""


def test_code_digest__covers_every_module_that_running_cases_imports() -> None:
    done = subprocess.run([sys.executable, "-c", RUNS_A_CASE], cwd=ROOT, capture_output=True, text=True, timeout=300,
                          check=True)
    loaded, covered = set(done.stdout.split()), set(imported("seamref.explore.campaign", ROOT / "seamref"))
    assert len(loaded) > 60 and loaded <= covered


def test_code_digest__leaves_out_what_only_draws_prints_or_exports() -> None:
    covered = set(imported("seamref.explore.campaign", ROOT / "seamref"))
    rooms = {name.split(".")[1] for name in covered if "." in name}
    assert rooms >= {"arch", "firmware", "pseamldr", "tdxmodule", "host", "mint", "explore"}
    assert not rooms & {"show", "commands", "export", "experiments", "conformance"}
    assert "seamref.explore.bugs" not in covered, "no case seeds one"


def test_code_digest__changes_with_a_module_that_is_imported_inside_a_function(tmp_path: Path) -> None:
    root = tmp_path / "seamref"
    (root / "deep").mkdir(parents=True)
    for name, text in {"__init__.py": "", "deep/__init__.py": "", "a.py": "def f():\n    from seamref import deep\n",
                       "deep/b.py": "import seamref.c\n", "c.py": "", "other.py": "import seamref.a\n"}.items():
        (root / name).write_text(text)
    assert set(imported("seamref.a", root)) == {"seamref", "seamref.a", "seamref.deep"}
    (root / "a.py").write_text("def f():\n    from seamref.deep import b\n    import os.path\n")
    assert set(imported("seamref.a", root)) == {"seamref", "seamref.a", "seamref.deep", "seamref.deep.b", "seamref.c"}
    (root / "a.py").write_text("from . import c\n")
    with pytest.raises(SeamrefError, match="relative import"):
        imported("seamref.a", root)


# --- the ledger


def test_ledger__a_campaign_killed_with_SIGKILL_goes_on_without_loss_or_repetition(tmp_path: Path) -> None:
    store = tmp_path / "found.jsonl"
    command = [sys.executable, "-m", "seamref", "campaign", "--scenarios", ",".join(SMALL), "--cpus", "2-4",
               "--jobs", "2", "--store", str(store), "--quiet"]
    first = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
    until = time.monotonic() + 120
    while time.monotonic() < until and (not store.exists() or store.read_bytes().count(b"\n") < 4):
        time.sleep(0.02)
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    done = store.read_bytes()
    kept = done[: done.rfind(b"\n") + 1]
    assert kept.count(b"\n") >= 4
    store.write_bytes(kept + b'{"case": {"scenario": "cut sh')  # as if it was killed in the middle of a line
    again = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert again.returncode == 0, again.stderr
    data = store.read_bytes()
    assert data.startswith(kept), "what was found stays as it was"
    keys = [Outcome.from_json(json.loads(line)).case.key for line in data.splitlines()[1:]]
    wanted = [case.key for case in cases(SMALL, cpus=(2, 3, 4))]
    assert sorted(keys) == sorted(wanted)
    size = store.stat().st_size
    assert subprocess.run(command, cwd=ROOT, capture_output=True, timeout=300, check=False).returncode == 0
    assert store.stat().st_size == size, "nothing is left to do"


def test_ledger__files_that_are_none_are_refused_by_line(tmp_path: Path) -> None:
    path = tmp_path / "x"
    outcome = Outcome(Case("update"), Verdict.HOLDS)
    with pytest.raises(SeamrefError, match="no campaign was stored there"):
        Ledger(path, read_only=True)
    for text, says in (("hello\n", "line 1"), ('{"format": "other/1"}\n', "format 'other/1'"), ("[1]\n", "line 1"),
                       ('{"format": "seamref-campaign/1", "code": "0"}\n', "another state of the code"),
                       ("x", "no header")):
        path.write_text(text)
        with pytest.raises(SeamrefError, match=says):
            Ledger(path)
    path.unlink()
    ledger = Ledger(path)
    assert ledger.add(outcome) and not ledger.add(replace(outcome, verdict=Verdict.BREAKS))
    with pytest.raises(SeamrefError, match="another campaign has it open"):
        Ledger(path)
    ledger.close()
    assert Ledger(path, read_only=True).outcomes["update/silicon/no fault/everywhere/2"] == outcome
    with path.open("a") as file:
        file.write(json.dumps(outcome.to_json()) + "\n")
    with pytest.raises(SeamrefError, match=r"line 3: .* has a verdict already"):
        Ledger(path)
    path.write_text(f'{{"format": "{FORMAT}", "code": "0"}}\n{{"case": 1}}\n')
    with pytest.raises(SeamrefError, match="line 2: no line of a campaign"):
        Ledger(path, read_only=True)


# --- reports

FOUND = [
    Outcome(Case("update"), Verdict.HOLDS, states=201, seconds=1.0),
    Outcome(Case("update", faults=("mc",), target="actor 1"), Verdict.BREAKS, (("no-deadlock", 5, "<waits> & waits"),)),
    Outcome(Case("info-callers"), Verdict.BREAKS, (("callers-succeed", 3, "\x1bno"),)),
    Outcome(Case("update", cpus=3), Verdict.TIMEOUT, why="600 s"),
    Outcome(Case("update", cpus=4), Verdict.LOST, why="died"),
    Outcome(Case("update", faults=("seamdb-full",), target="actor 0"), Verdict.VACUOUS, why="can never strike"),
]


def test_ledger__what_a_bound_cut_short_is_run_again_with_more_room(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = tmp_path / "found.jsonl"
    few = ["campaign", "--scenarios", "info-callers,uefi-disabled,info-callers-v3", "--jobs", "1", "--quiet", "--store",
           str(store)]
    assert cli.main([*few, "--states", "40"]) == 3
    first = Ledger(store, read_only=True).outcomes
    assert {o.case.scenario: o.is_cut for o in first.values()} == {
        "info-callers": True, "uefi-disabled": False, "info-callers-v3": True}
    assert cli.main(few) == 3, "an outcome is kept"
    assert Ledger(store, read_only=True).outcomes == first
    assert cli.main([*few, "--again"]) == 0
    again = Ledger(store, read_only=True).outcomes
    assert not any(outcome.is_cut for outcome in again.values())
    assert again["uefi-disabled/silicon/no fault/everywhere/2"] == first["uefi-disabled/silicon/no fault/everywhere/2"]
    assert len(store.read_bytes().splitlines()) == 1 + 3 + 2
    store.write_bytes(store.read_bytes() + store.read_bytes().splitlines(keepends=True)[-1])
    with pytest.raises(SeamrefError, match=r"line 7: .* has a verdict already"):
        Ledger(store, read_only=True)
    capsys.readouterr()


def test_report__surprises_are_named() -> None:
    assert [bool(told.surprise(outcome)) for outcome in FOUND] == [False, False, True, True, True, False]
    before = {FOUND[1].case.key: Outcome(FOUND[1].case, Verdict.HOLDS)}
    assert told.surprise(FOUND[1], before) == "was: holds"
    assert told.sums(FOUND) == ("6 cases: 1 holds, 2 breaks, 1 vacuous, 1 timeout, 1 lost; 201 states, 1 CPU s")
    assert "! breaks callers-succeed" in "\n".join(told.lines(FOUND))


def test_report__JUnit_is_XML_with_a_case_each() -> None:
    root = ElementTree.fromstring(told.to_junit(FOUND))
    assert len(root.findall(".//testcase")) == len(FOUND)
    suite = next(s for s in root if s.get("name") == "update")
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors"), suite.get("skipped")) == (
        "5", "1", "1", "1")
    assert root.find(".//testsuite[@name='info-callers']//failure") is not None


def test_report__HTML_is_escaped_and_alone() -> None:
    page = told.to_html(FOUND)
    assert "&lt;waits&gt; &amp; waits" in page and "<waits>" not in page
    assert "http" not in page.replace("<!DOCTYPE html>", "") and "<script" not in page


def test_report__matrix_takes_the_gravest() -> None:
    case = Case("update", faults=("mc",), target="actor 0")
    table = told.matrix([*FOUND, Outcome(case, Verdict.HOLDS)], 2)
    assert table["update"]["mc"] == (Verdict.BREAKS, ("no-deadlock",))
    assert table["update"]["seamdb-full"] == (Verdict.VACUOUS, ())
    assert told.matrix(FOUND, 3)["update"]["no fault"][0] is Verdict.TIMEOUT


# --- the command


def test_campaign__stores_reports_and_compares(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store, page, junit = tmp_path / "a.jsonl", tmp_path / "a.html", tmp_path / "a.xml"
    args = ["campaign", "--scenarios", "info-callers", "--faults", "none,mc", "--jobs", "1", "--store", str(store)]
    assert cli.main([*args, "--html", str(page), "--junit", str(junit)]) == 0
    out = capsys.readouterr()
    assert "breaks no-deadlock" in out.out and "3/3 cases" in out.err
    assert page.read_text().startswith("<!DOCTYPE html>") and junit.read_text().startswith("<?xml")
    assert cli.main([*args, "--html", str(page)]) == 2
    assert "is there already" in capsys.readouterr().err or page.exists()
    assert cli.main(["campaign", "--report", "--store", str(store), "--json"]) == 0
    held = json.loads(capsys.readouterr().out)
    assert held["format"] == "seamref-campaign/1" and len(held["cases"]) == 3
    other = tmp_path / "b.jsonl"
    text = store.read_text().replace('"breaks"', '"holds"').replace("no-deadlock", "one-identity")
    other.write_text(text)
    assert cli.main(["campaign", "--report", "--store", str(store), "--baseline", str(other)]) == 1
    assert "! was: " in capsys.readouterr().out


def test_campaign__a_case_without_an_answer_is_exit_code_3(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["campaign", "--scenarios", "update", "--states", "20", "--jobs", "1", "--quiet"]) == 3
    assert "1 states" in capsys.readouterr().out


@pytest.mark.parametrize("args, says", [
    (["--scenarios", "updte"], "--scenarios: no scenario 'updte'; did you mean update"),
    (["--faults", "mc+x"], "--faults: no fault 'x'"),
    (["--faults", ","], "--faults: ',' names none"),
    (["--revisions", "x"], "--revisions: no revision 'x'"),
    (["--cpus", "3-2"], "--cpus: 3-2, must be 1 to 64, the lower number first"),
    (["--cpus", "0"], "--cpus: 0, must be"),
    (["--cpus", "two"], "--cpus: 'two', must be numbers and ranges"),
    (["--targets", "x"], "--targets: 'x', must be each, together"),
    (["--jobs", "0"], "--jobs: 0, must be"),
    (["--seconds", "0"], "--seconds: 0, must be above 0"),
    (["--memory", "1"], "--memory: 1, must be"),
    (["--report"], "--report: says what is in a file"),
    (["--jobs", "2", "--dask", "tcp://127.0.0.1:1"], "--jobs: with --dask"),
])
def test_campaign__bad_input_is_refused_by_name(
    args: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["campaign", *args]) == 2
    assert says in capsys.readouterr().err


def test_campaign__lists_cases_and_runs_none(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["campaign", "--scenarios", "update", "--cpus", "2,3", "--list"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "update/silicon/no fault/everywhere/2", "update/silicon/no fault/everywhere/3"]


def test_report__in_the_order_of_declarations_and_what_a_fault_costs() -> None:
    found = [
        Outcome(Case("info-callers", faults=("mc",)), Verdict.BREAKS, (("no-deadlock", 1, "x"),)),
        Outcome(Case("info-callers"), Verdict.HOLDS), Outcome(Case("update"), Verdict.HOLDS),
        Outcome(Case("update-without-lock", faults=("smi",)), Verdict.BREAKS, (("session-ends", 1, "x"),)),
        Outcome(Case("update-without-lock"), Verdict.BREAKS, (("session-ends", 1, "x"),)),
        Outcome(Case("update", faults=("nmi",)), Verdict.TIMEOUT),
    ]
    assert [o.case.scenario for o in told.ordered(found)] == [
        "update", "update", "update-without-lock", "update-without-lock", "info-callers", "info-callers"]
    assert told.cost(found) == {
        "mc": {"info-callers, 2 CPUs": ("no-deadlock",)}, "smi": {"update-without-lock, 2 CPUs": ()},
    }


def test_report__standing_counts_every_case_once() -> None:
    from seamref.explore.faults import FAULTS
    from seamref.explore.scenarios import SCENARIOS

    held = [Outcome(Case("update"), Verdict.HOLDS), Outcome(Case("update", faults=("mc",)), Verdict.STATES, why="x"),
            Outcome(Case("uefi-cold"), Verdict.BREAKS, why="the bound"), Outcome(Case("late-cpu"), Verdict.BREAKS),
            Outcome(Case("update", cpus=3), Verdict.HOLDS),
            Outcome(Case("update", faults=("mc", "nmi")), Verdict.HOLDS)]
    found = told.standing(held, 2)
    assert found["cases"] == len(SCENARIOS) * (1 + len(FAULTS)) == sum(found.values()) - found["cases"]
    assert (found["hold"], found["break"], found["break, then cut"], found["cut, nothing found"]) == (1, 1, 1, 1)
    assert told.standing(held, 2, [""])["not run"] == len(SCENARIOS) - 3


def test_report__a_fault_costs_what_is_found_and_nothing_is_concluded_from_a_search_that_was_cut() -> None:
    held = [Outcome(Case("update"), Verdict.HOLDS),
            Outcome(Case("update", faults=("mc",)), Verdict.BREAKS, (("no-deadlock", 3, ""),), "the bound"),
            Outcome(Case("update", faults=("nmi",)), Verdict.STATES, why="the bound"),
            Outcome(Case("late-cpu"), Verdict.BREAKS, (("session-ends", 3, ""),), "the bound"),
            Outcome(Case("late-cpu", faults=("nmi",)), Verdict.BREAKS, (("update-succeeds", 3, ""),))]
    assert told.cost(held) == {"mc": {"update, 2 CPUs": ("no-deadlock",)}}


def test_pictures__say_every_verdict_in_words_too() -> None:
    from seamref.show.campaign import campaign_picture, campaign_table, sizes_picture

    picture = campaign_picture(FOUND, 2)
    assert "update: no fault holds; mc breaks no-deadlock; seamdb-full vacuous" in repr(picture)
    assert ">B</text>" in picture._repr_html_()
    assert list(campaign_table(FOUND).frame.CPUs) == [2, 2, 2, 3, 4, 2]
    assert "update: none 816, both 201" in repr(sizes_picture({"update": {"none": 816, "both": 201}}))
