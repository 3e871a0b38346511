"""`consume`: another implementation under test, whatever it does."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from seamref.cli import main
from seamref.commands.consume import as_json
from seamref.conformance.clients import noticed_in, words_of
from seamref.conformance.consume import Report, consume, first_difference, groups, requests
from seamref.conformance.consumer import LINE_LIMIT, Kind, ended_in_words
from seamref.errors import SeamrefError
from seamref.export import sets
from seamref.export.asked import document_of_sessions
from seamref.export.form import VectorSet, vectors_of
from seamref.export.kit import document_of

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"


@cache
def document(name: str = "tdcall", small: bool = False) -> dict[str, Any]:
    which = sets.load(name)
    if not isinstance(which, VectorSet):
        return document_of_sessions(which, small=True)
    return document_of(which, vectors_of(which, small=small))


ANSWERS = f"""
import json, os, signal, sys, time
known = {{}}
def load(revision):
    for test in json.load(open(sys.argv[1]))["tests"]:
        for answer in test["answers"]:
            if revision in answer["revisions"]:
                known[test["id"]] = answer["output"]
def say(request, output): print(json.dumps({{"id": request["id"], "output": output}}), flush=True)
load(sys.argv[2] if len(sys.argv) > 2 else list(json.load(open(sys.argv[1]))["revisions"])[0])
LIMIT = {LINE_LIMIT}
def stop(): return number == 3 and not os.path.exists(mark)
"""
"""What the programs below have in common: the right answers by id."""


def program(tmp_path: Path, body: str, name: str = "tdcall") -> list[str]:
    """A consumer in Python that knows the right answers; ``body`` runs once for each request."""
    data = tmp_path / "answers.json"
    data.write_text(json.dumps(document(name)))
    mark = tmp_path / "was-here"
    loop = "number = 0\nfor line in sys.stdin:\n    number += 1\n    request = json.loads(line)\n"
    text = ANSWERS + f"mark = {str(mark)!r}\n" + loop + "".join(f"    {row}\n" for row in body.splitlines())
    (tmp_path / "consumer.py").write_text(text)
    return [sys.executable, "-S", str(tmp_path / "consumer.py"), str(data)]


RIGHT = 'say(request, known[request["id"]])'
ONCE = "if stop():\n    open(mark, 'w').close()\n    {}\n" + RIGHT
"""Something bad at the third request of the first run, right answers otherwise."""


# --- answers


def test_a_consumer_that_agrees_gets_0(tmp_path: Path) -> None:
    report = consume(document(), program(tmp_path, RIGHT))
    assert report.code == 0 and report.agreed == report.tests == len(document()["tests"])
    assert all(agreed == answered for agreed, answered in report.clauses.values())
    assert report.said["rax"] == report.tests and not report.unsaid


def test_the_first_field_that_differs_is_named_with_clause_revision_and_client(tmp_path: Path) -> None:
    body = "out = dict(known[request['id']])\nif out['outcome'].get('reason') == 77:\n" \
           "    out['outcome'] = {'kind': 'fault', 'vector': 6, 'mnemonic': '#UD', 'error_code': None}\n" \
           "say(request, out)"
    report = consume(document(), program(tmp_path, body))
    assert report.code == 1 and report.differing
    one = report.differing[0]
    assert one.flags == ("TDCALL.exit",) and one.first.path == "outcome.kind"
    assert (one.first.came, one.first.must) == ("fault", "vm_exit") and one.like == ()
    assert {str(n) for d in report.differing for n in d.noticed} >= {"TDX module: nothing, not VM exit 77"}
    assert report.clauses["TDCALL.exit"][0] == 0 and report.clauses["TDCALL.cpl"][0] > 0
    assert sum(len(group.ids) for group in groups(report)) == len(report.differing)


def test_another_revision_is_recognised_by_its_answers(tmp_path: Path) -> None:
    command = [*program(tmp_path, RIGHT, "seamcall"), "343754-002"]
    report = consume(document("seamcall"), command, only="SEAMCALL.cpl")
    assert report.differing and all("343754-002" in one.like for one in report.differing)
    printed = consume(document("seamcall"), command, revision="343754-002", only="SEAMCALL.cpl")
    assert printed.code == 0


def test_fields_left_out_are_listed_and_not_counted_as_wrong(tmp_path: Path) -> None:
    report = consume(document(), program(tmp_path, "say(request, {'outcome': known[request['id']]['outcome']})"))
    assert report.code == 0 and report.unsaid["rax"] == report.tests and report.said["outcome"] == report.tests


def test_skipped_is_never_agreement(tmp_path: Path) -> None:
    report = consume(document(), program(tmp_path, "print(json.dumps({'id': request['id'], 'skip': 'not mine'}), "
                                                   "flush=True)"))
    assert report.code == 1 and report.agreed == 0 and report.skipped == {"not mine": report.tests}


@pytest.mark.parametrize(("must", "came", "path"), [
    ({"a": 1}, {"a": True}, "a"), ({"a": False}, {"a": 0}, "a"), ({"a": "0x1F"}, {"a": "0x1f"}, ""),
    ({"a": "0x1F"}, {"a": "0x001F"}, ""), ({"a": "0x1F"}, {"a": "0x20"}, "a"), ({"a": 1, "b": 2}, {"b": 2}, ""),
    ({"a": {"x": 1}}, {"a": {}}, "a.x"), ({"a": {"x": 1}}, {"a": {"x": 1, "y": 2}}, "a.y"),
    ({"a": [1, {"x": 1}]}, {"a": [1, {"x": 2}]}, "a[1].x"), ({"a": [1]}, {"a": [1, 2]}, "a"),
    ({"a": 1}, {"a": 1, "zz": 1}, "zz"), ({"outcome": {}, "a": 1}, {"a": 1}, "outcome"),
    ({"a": 1}, {"a": 1, "sometimes": 1}, "sometimes"), ({"a": None}, {"a": None}, ""), ({"a": "x"}, {"a": "X"}, "a"),
    ({"a": "0x1"}, {"a": "0x" + "0" * 500 + "1"}, "a"),
])
def test_comparison_is_strict_about_types_and_lenient_about_the_spelling_of_numbers(
    must: dict[str, Any], came: dict[str, Any], path: str,
) -> None:
    found = first_difference(must, came, ["a", "b", "sometimes"])
    assert (found.path if found else "") == path


# --- sessions


@pytest.mark.parametrize("name", ["pseamldr", "npseamldr"])
def test_a_session_is_one_request_and_its_answer_is_every_call_s(name: str, tmp_path: Path) -> None:
    report = consume(document(name), program(tmp_path, RIGHT, name))
    assert report.code == 0 and report.agreed == report.tests >= 20
    assert any(flag.startswith(("INSTALL.", "NP_SEAMLDR.")) for flag in report.clauses)
    asked = [json.dumps(request) for request in requests(document(name), report.revision, document(name)["tests"])]
    assert not any('"expect"' in text for text in asked) and max(map(len, asked)) < LINE_LIMIT


def test_a_session_answered_otherwise_names_the_step(tmp_path: Path) -> None:
    body = "out = {'rax': known[request['id']].get('rax', ['0x0'])}\nout['rax'][-1] = '0x1'\nsay(request, out)"
    report = consume(document("pseamldr"), program(tmp_path, body, "pseamldr"))
    assert report.differing and not report.troubled
    first = report.differing[0]
    steps = len(next(t for t in document("pseamldr")["tests"] if t["id"] == first.id)["input"]["case"]["steps"])
    assert first.first.path == f"rax[{steps - 1}]" and first.first.came == "0x1"
    assert first.noticed[0].who == "the host kernel behind a P-SEAMLDR call"


def test_sessions_of_an_exported_kit_are_the_same_tests(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", str(tmp_path / "kit"), "--small", "--only", "npseamldr"]) == 0
    capsys.readouterr()
    lines = []
    for where in (["--kit", str(tmp_path / "kit")], ["--small"]):
        assert main(["consume", "--set", "npseamldr", *where, "--requests"]) == 0
        lines.append(capsys.readouterr().out)
    assert lines[0] == lines[1] and lines[0]
    place = tmp_path / "kit" / "npseamldr" / "vectors.json"
    good = json.loads(place.read_text())
    for cases, says in (([{}], "cases[0] has no id"), ([{"id": "x"}], "case x: expect is missing"),
                        ([{"id": "x", "steps": []}], "case x: no steps"),
                        ([{"id": "x", "steps": [{}]}], "case x: step 0 has no expect")):
        place.write_text(json.dumps({**good, "cases": cases}))
        assert main(["consume", "--set", "npseamldr", "--kit", str(tmp_path / "kit"), "--", "true"]) == 2
        assert says in capsys.readouterr().err


# --- what a consumer can do wrong


@pytest.mark.parametrize(("does", "kind", "detail"), [
    ("time.sleep(60)", Kind.HANGS, "none within 4 s"),
    ("print('{', end='', flush=True); time.sleep(60)", Kind.HANGS, "1 bytes without an end of line"),
    ("sys.exit(3)", Kind.DIED, "exit status 3"),
    ("os.kill(os.getpid(), signal.SIGSEGV)", Kind.DIED, "signal 11 (SIGSEGV)"),
    ("os.close(1); time.sleep(60)", Kind.CLOSED, "and runs on"),
    ("say({'id': 'another'}, {'outcome': 1})", Kind.ORDER, "where tdcall-02 was asked"),
    ("print('hello', flush=True)", Kind.NOT_JSON, '"hello", must be one JSON object a line'),
    ("print('[1]', flush=True)", Kind.NOT_JSON, "must be one JSON object a line"),
    ("print('{\"id\": NaN}', flush=True)", Kind.NOT_JSON, "NaN is no JSON number"),
    ("print('{\"id\": 1, \"id\": 2}', flush=True)", Kind.NOT_JSON, "stands twice in one object"),
    ("print('{\"id\":' + '[' * 100000, flush=True)", Kind.NOT_JSON, "nested too deep"),
    ("sys.stdout.buffer.write(bytes([123, 255, 10])); sys.stdout.flush()", Kind.NOT_JSON, "not UTF-8 at byte 1"),
    ("print(flush=True)", Kind.NOT_JSON, "must be one JSON object a line"),
    ("say(request, {})", Kind.NOT_AN_ANSWER, "output is an object of 0 keys, must be an object with fields"),
    ("print(json.dumps({'id': request['id'], 'out': 1}), flush=True)", Kind.NOT_AN_ANSWER, 'a field "out"'),
    ("print(json.dumps({'id': request['id'], 'skip': 1}), flush=True)", Kind.NOT_AN_ANSWER, "a reason in words"),
    ("print('x' * (LIMIT + 100000), flush=True)", Kind.TOO_MUCH, f"a line of more than {LINE_LIMIT} bytes"),
    ("while True: sys.stdout.write('x' * 65536)", Kind.TOO_MUCH, f"a line of more than {LINE_LIMIT} bytes"),
])
def test_what_goes_wrong_is_named_and_the_run_goes_on(tmp_path: Path, does: str, kind: Kind, detail: str) -> None:
    began = time.monotonic()
    report = consume(document(), program(tmp_path, ONCE.format(does)), timeout=4 if kind is Kind.HANGS else 30)
    assert [one.id for one in report.troubled] == [document()["tests"][2]["id"]]
    trouble = report.troubled[0].trouble
    assert trouble.kind is kind and detail in trouble.detail, trouble
    assert report.agreed == report.tests - 1 and report.not_asked == 0 and report.code == 1
    assert time.monotonic() - began < 60


def test_a_second_line_for_one_request_is_named(tmp_path: Path) -> None:
    body = ONCE.format("print('{}\\n{}'.format(json.dumps({'id': request['id'], 'output': known[request['id']]}), 'x'),"
                       " flush=True); continue")
    report = consume(document(), program(tmp_path, body))
    assert [one.trouble.kind for one in report.troubled] == [Kind.TOO_MUCH]
    assert report.troubled[0].trouble.detail == "a second line before the next request"


def test_standard_error_is_read_bounded_and_its_end_is_shown(tmp_path: Path) -> None:
    body = ONCE.format("sys.stderr.write('noise ' * 1000000 + 'the reason'); sys.exit(1)")
    trouble = consume(document(), program(tmp_path, body)).troubled[0].trouble
    assert trouble.kind is Kind.DIED and "the reason" in trouble.stderr and len(trouble.stderr) < 300


def test_a_consumer_that_reads_nothing_holds_nobody_up(tmp_path: Path) -> None:
    began = time.monotonic()
    sleeper = [sys.executable, "-S", "-c", "import time; time.sleep(60)"]
    report = consume(document("seamret", True), sleeper, timeout=0.3, restarts=1)
    assert {one.trouble.kind for one in report.troubled} == {Kind.HANGS} and time.monotonic() - began < 20


def test_a_consumer_that_always_fails_is_started_a_bounded_number_of_times() -> None:
    report = consume(document(), [sys.executable, "-S", "-c", "raise SystemExit(7)"], restarts=2)
    assert len(report.troubled) == 3 and report.not_asked == report.tests - 3
    assert {str(one.trouble) for one in report.troubled} == {"died: exit status 7"}


def test_a_program_that_does_not_end_with_its_input_is_ended_and_named(tmp_path: Path) -> None:
    command = program(tmp_path, RIGHT)
    with (tmp_path / "consumer.py").open("a") as file:
        file.write("time.sleep(60)\n")
    report = consume(document(), command, timeout=6)
    assert report.agreed == report.tests and report.ended is not None and report.ended.kind is Kind.NO_END
    assert report.code == 1


def test_a_program_that_fails_behind_its_last_answer_is_named(tmp_path: Path) -> None:
    command = program(tmp_path, RIGHT)
    with (tmp_path / "consumer.py").open("a") as file:
        file.write("sys.exit(9)\n")
    ended = consume(document(), command).ended
    assert ended is not None and str(ended) == "died: exit status 9 behind the end of its input"


def test_what_the_consumer_started_is_ended_with_it(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    body = "import subprocess\nchild = subprocess.Popen(['sleep', '60'])\n" \
           f"open({str(pid)!r}, 'w').write(str(child.pid))\ntime.sleep(60)"
    consume(document(), program(tmp_path, body), timeout=6, restarts=0)
    time.sleep(0.2)
    state = Path(f"/proc/{pid.read_text()}/stat")
    assert not state.exists() or state.read_text().split()[2] == "Z"


def test_a_command_that_cannot_be_started_is_bad_input(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SeamrefError, match='cannot start "/nowhere/emulator": No such file'):
        consume(document(), ["/nowhere/emulator"])
    assert main(["consume", "--set", "tdcall", "--", "/nowhere/emulator"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_signals_and_statuses_in_words() -> None:
    assert ended_in_words(0) == "exit status 0" and ended_in_words(-9) == "signal 9 (SIGKILL)"
    assert ended_in_words(-250) == "signal 250"


# --- the command


def test_consume__words_and_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = program(tmp_path, RIGHT.replace("known[request[\"id\"]]", "{'outcome': {'kind': 'done'}}"))
    assert main(["consume", "--set", "TDCALL", "--", *command]) == 1
    out = capsys.readouterr().out
    assert "tdcall, silicon: 0 of" in out and "never said, so not compared: rax" in out
    assert "outcome.kind is done, must be fault" in out and "the first: tdcall-00" in out
    assert main(["consume", "--set", "tdcall", "--only", "TDCALL.cpl", "--json", "--", *command]) == 1
    made = json.loads(capsys.readouterr().out)
    assert made["format"] == "seamref-consume/1" and made["seamref"]
    assert made["tests"] == len(made["differing"]) and made["clauses"]["TDCALL.cpl"]["agreed"] == 0
    assert main(["consume", "--set", "tdcall", "--all", "--", *command]) == 1
    assert capsys.readouterr().out.count("  tdcall-") == len(document()["tests"])


def test_consume__trouble_in_words(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["consume", "--set", "tdcall", "--", *program(tmp_path, ONCE.format("sys.exit(3)"))]) == 1
    assert "  tdcall-02: died: exit status 3" in capsys.readouterr().out
    assert as_json(Report("s", "r"), document())["ended"] is None


def test_consume__requests_are_lines_with_the_whole_input(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["consume", "--set", "seamcall", "--small", "--only", "SEAMCALL.cpl", "--requests"]) == 0
    made = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert made and all(m["format"] == "seamref-request/1" and m["input"]["seamrr_base"] for m in made)
    assert [m["id"] for m in made] == [t["id"] for t in document("seamcall", True)["tests"]
                                       if "SEAMCALL.cpl" in t["flags"]]
    first = document("seamcall", True)["tests"][:1]
    assert next(iter(requests(document("seamcall", True), "silicon", first)))["input"] == {
        **document("seamcall")["common"], **first[0]["input"]}


def test_consume__an_exported_kit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", str(tmp_path / "kit"), "--only", "tdcall"]) == 0
    command = program(tmp_path, RIGHT)
    assert main(["consume", "--set", "tdcall", "--kit", str(tmp_path / "kit"), "--", *command]) == 0
    place = tmp_path / "kit" / "tdcall" / "vectors.json"
    good = json.loads(place.read_text())
    capsys.readouterr()
    for spoil, says in (
        ({"format": "seamref-vectors/2"}, "format is 'seamref-vectors/2', must be seamref-vectors/1"),
        ({"tests": [{"id": 1}]}, "tests[0].id is missing or no str"), ({"common": []}, "common is missing or no dict"),
        ({"tests": [{**good["tests"][0], "answers": []}]}, "does not hold each revision once"),
        ({"revisions": {}}, "revisions is empty"),
    ):
        place.write_text(json.dumps({**good, **spoil}))
        assert main(["consume", "--set", "tdcall", "--kit", str(tmp_path / "kit"), "--", *command]) == 2
        err = capsys.readouterr().err
        assert says in err and err.count("\n") == 1
    place.write_text("[]")
    assert main(["consume", "--set", "tdcall", "--kit", str(tmp_path / "kit"), "--", *command]) == 2


@pytest.mark.parametrize(("line", "says"), [
    (["--set", "tdcall"], "consume needs a program behind --"),
    (["--set", "tdcall", "--requests", "--", "true"], "--requests runs nothing: without a COMMAND"),
    (["--set", "tdcal", "--", "true"], "no set 'tdcal'; did you mean tdcall?"),
    (["--set", "tdcall", "--revision", "X", "--", "true"], "set tdcall has no revision 'X'; there are silicon"),
    (["--set", "tdcall", "--only", "nothing*", "--", "true"], "no test of tdcall fits 'nothing*'"),
    (["--set", "tdcall", "--timeout", "0", "--", "true"], "--timeout: 0, must be 0.01 to 3600 seconds"),
    (["--set", "tdcall", "--timeout", "nan", "--", "true"], "--timeout: nan, must be"),
    (["--set", "tdcall", "--restarts", "-1", "--", "true"], "--restarts: -1, must be 0 to 1000"),
    (["--set", "tdcall", "--kit", "/nowhere", "--", "true"], "holds no set 'tdcall'"),
    (["--set", "../tdcall", "--kit", ".", "--", "true"], "holds no set '../tdcall'"),
])
def test_consume__bad_input_is_one_line(line: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["consume", *line]) == 2
    err = capsys.readouterr().err
    assert says in err and err.count("\n") == 1


@pytest.mark.parametrize("which", sets.vectors(), ids=lambda which: which.name)
def test_every_set_says_who_would_notice(which: VectorSet) -> None:
    case = next(iter(which.cases()))
    whole = which.whole(case.input)
    output = which.answer(whole, next(iter(which.revisions))).output
    seen = noticed_in(which.name, whole, {}, output, "rax", "0x1", "0x0")
    assert seen and "unknown" not in seen[0].who and seen[0].who != "whoever relies on it", seen


def test_outcomes_of_the_kit_in_words() -> None:
    assert words_of({"kind": "fault", "mnemonic": "#GP", "error_code": 0}) == "#GP(0)"
    assert words_of({"kind": "left", "target": "P-SEAMLDR", "vmcs_lost": True}) == "left P-SEAMLDR, current VMCS lost"
    assert words_of({"kind": "vm_exit", "reason": 76}) == "VM exit 76"
    assert words_of({}) == "something that is no outcome"
    absurd = noticed_in("seamcall", {"non_root": True}, {"outcome": {"kind": "vm_exit", "reason": "many"}},
                        {"outcome": {"kind": "vmfail_invalid"}}, "outcome.kind", "vm_exit", "vmfail_invalid")
    assert absurd[0].differs


# --- the consumers that travel with the project

CC, RUSTC = shutil.which("cc"), shutil.which("rustc")


@pytest.fixture(scope="module")
def c_consumer(tmp_path_factory: pytest.TempPathFactory) -> str:
    if CC is None:
        pytest.skip("no C compiler (cc) here")
    made = str(tmp_path_factory.mktemp("c") / "seamcall_consumer")
    subprocess.run([CC, "-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic", "-O2", "-o", made,
                    str(EXAMPLES / "seamcall_consumer.c")], check=True)
    return made


@pytest.fixture(scope="module")
def rust_consumer(tmp_path_factory: pytest.TempPathFactory) -> str:
    if RUSTC is None:
        pytest.skip("no Rust compiler (rustc) here")
    made = str(tmp_path_factory.mktemp("rust") / "seam_consumer")
    done = subprocess.run([RUSTC, "-O", "-D", "warnings", "-o", made, str(EXAMPLES / "seam_consumer.rs")],
                          capture_output=True, text=True, check=False)
    if done.returncode and "no default toolchain" in done.stderr + done.stdout:
        pytest.skip("rustc is there without a toolchain")
    assert done.returncode == 0, done.stderr
    return made


@pytest.mark.parametrize("which", ["c_consumer", "rust_consumer"])
def test_the_order_of_silicon_agrees_everywhere(which: str, request: pytest.FixtureRequest) -> None:
    report = consume(document("seamcall"), [request.getfixturevalue(which)])
    assert report.code == 0 and report.agreed == report.tests == 4096


@pytest.mark.parametrize("which", ["c_consumer", "rust_consumer"])
def test_the_order_of_343754_002_is_told_the_states_in_which_it_differs(
    which: str, request: pytest.FixtureRequest,
) -> None:
    report = consume(document("seamcall"), [request.getfixturevalue(which), "343754-002"])
    assert not report.troubled and len(report.differing) == 192 and report.agreed == 4096 - 192
    assert all("343754-002" in one.like for one in report.differing)
    assert {one.id for one in report.differing} == {
        test["id"] for test in document("seamcall")["tests"]
        if len(test["answers"]) > 1 and test["answers"][0]["output"] != test["answers"][1]["output"]
    }
    assert consume(document("seamcall"), [request.getfixturevalue(which), "343754-002"],
                   revision="343754-002").code == 0


def test_the_rust_consumer_answers_TDCALL_and_skips_the_rest(rust_consumer: str, c_consumer: str) -> None:
    assert consume(document("tdcall"), [rust_consumer]).code == 0
    skipped = consume(document("seamret", True), [rust_consumer])
    assert skipped.code == 1 and skipped.skipped == {"seamret is not implemented": skipped.tests}
    assert consume(document("tdcall"), [c_consumer]).skipped == {
        "only SEAMCALL is implemented": len(document("tdcall")["tests"])}


@pytest.mark.parametrize("which", ["c_consumer", "rust_consumer"])
@pytest.mark.parametrize("line", ["hello", "{", '{"id":"x"}', '{"id":"x","set":"seamcall","input":{}}', "[" * 5000,
                                  '{"id":"x","set":"seamcall","input":{"vmx":1}}', '{"id', '{"id":"\\'])
def test_the_examples_refuse_what_is_no_request(which: str, line: str, request: pytest.FixtureRequest) -> None:
    done = subprocess.run([request.getfixturevalue(which)], input=line + "\n", capture_output=True, text=True,
                          check=False, timeout=20)
    assert done.returncode not in (0, -11, -6) and done.stderr
