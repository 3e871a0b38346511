"""Recorded behaviour agrees; the replayer sees every difference; files that are no vectors are refused in words."""

from __future__ import annotations

import copy
import gzip
import io
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conformance.by_hand import DOCUMENT

import seamref
from seamref.__main__ import main
from seamref.conformance.frame import Report, replay_document
from seamref.conformance.vectorset import Difference


def replay(document: dict[str, Any]) -> Report:
    return replay_document(document)


def differences(case: dict[str, Any]) -> list[Difference]:
    """What a hand-made case differs in; it must be of the format."""
    report = replay({**DOCUMENT, "cases": [case]})
    assert [str(bad) for bad in report.malformed] == []
    return [one.difference for one in report.disagreements]


@pytest.mark.parametrize("case", DOCUMENT["cases"], ids=lambda case: case["id"])
def test_by_hand(case: dict[str, Any]) -> None:
    assert [str(difference) for difference in differences(case)] == []


def _leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Paths to the scalar values below an expectation."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _leaves(inner, (*path, name))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _leaves(inner, (*path, index))
    else:
        yield path


def _changed(value: Any) -> Any:
    if isinstance(value, bool):
        return not value
    if value is None:
        return 1
    if isinstance(value, int):
        return value ^ 1
    if value.startswith("0x"):
        return hex(int(value, 16) ^ 1)
    return ("1" if value[0] == "0" else "0") + value[1:]


OBSERVED = [
    (c, s, path)
    for c, case in enumerate(DOCUMENT["cases"])
    for s, step in enumerate(case["steps"])
    for path in _leaves(step["expect"])
    if path[-1] not in ("pa", "len", "fatal")
]


def _id(value: object) -> str:
    return ".".join(map(str, value)) if isinstance(value, tuple) else str(value)


@pytest.mark.parametrize(("c", "s", "path"), OBSERVED, ids=_id)
def test_one_changed_value_is_one_disagreement(c: int, s: int, path: tuple[Any, ...]) -> None:
    case = copy.deepcopy(DOCUMENT["cases"][c])
    place = case["steps"][s]["expect"]
    for name in path[:-1]:
        place = place[name]
    place[path[-1]] = _changed(place[path[-1]])
    report = replay({**DOCUMENT, "cases": [case]})
    if report.malformed:  # what is told of a call contradicts its status: the recording is none
        assert path[-1] in ("rax", "lps_in_update") and report.malformed[0].path == f"cases[0].steps[{s}].expect"
        return
    (difference,) = [one.difference for one in report.disagreements]
    assert difference.step == s and difference.case == case["id"]
    assert str(path[0]) in difference.field or difference.field.startswith("memory around")


def test_draws_and_writes_that_were_not_recorded_are_disagreements() -> None:
    def replayed(change: Any) -> str:
        case = copy.deepcopy(next(c for c in DOCUMENT["cases"] if c["id"] == "install/load"))
        change(case["steps"][0])
        (difference,) = differences(case)
        return difference.field

    assert replayed(lambda step: step["rdrand"].append([1, 5])) == "rdrand.count"
    assert replayed(lambda step: step.update(rdrand=[[1, 1], [1, "0x4000"], [0, 0]])) == "rdrand.count"
    assert replayed(lambda step: step["seamops"].pop()) == "seamops"
    assert replayed(lambda step: step["seamops"].append(["CLEAR", 0])) == "seamops.count"
    assert replayed(lambda step: step["expect"].update(vmclear=["0x7e001000"])) == "vmclear.length"
    case = copy.deepcopy(next(c for c in DOCUMENT["cases"] if c["id"] == "info/contents"))
    del case["steps"][0]["expect"]["written"]
    (bad,) = replay({**DOCUMENT, "cases": [case]}).malformed
    assert "written must be told" in bad.problem
    case = copy.deepcopy(next(c for c in DOCUMENT["cases"] if c["id"] == "info/contents"))
    case["steps"][0]["expect"]["written"]["len"] = 255
    case["steps"][0]["expect"]["written"]["hex"] = case["steps"][0]["expect"]["written"]["hex"][:510]
    case["steps"][0]["expect"]["written"].pop("sha256", None)
    (difference,) = differences(case)
    assert (difference.field, difference.ours, difference.recorded) == ("written.len", 256, 255)


# --- the command


@pytest.fixture
def vectors(tmp_path: Path) -> Path:
    path = tmp_path / "v.json"
    path.write_text(json.dumps(DOCUMENT))
    return path


def test_command__agreement_disagreement_and_no_vectors(
    vectors: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    packed = tmp_path / "v.json.gz"
    packed.write_bytes(gzip.compress(vectors.read_bytes()))
    cases = 2 * len(DOCUMENT["cases"])
    for paths in ([vectors, packed], [tmp_path]):
        assert main(["conform", *map(str, paths)]) == 0
        assert f"{cases} of     {cases} agree" in capsys.readouterr().out
    broken = copy.deepcopy(DOCUMENT)
    broken["cases"][0]["steps"][0]["expect"]["rax"] = "0x0"
    vectors.write_text(json.dumps(broken))
    assert main(["conform", "--sparse", str(vectors)]) == 1
    out = capsys.readouterr().out
    assert "leaf/unknown: step 0: rax: recorded 0x0, ours 0x8000000000000000" in out


def test_command__standard_input_only_and_json(
    vectors: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    stdin = io.TextIOWrapper(io.BytesIO(vectors.read_bytes()))
    monkeypatch.setattr(sys, "stdin", stdin)
    assert main(["conform", "-", "--only", "info/*", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    wanted = [case for case in DOCUMENT["cases"] if case["id"].startswith("info/")]
    assert answer["format"] == "seamref-conform/1" and answer["seamref"] == seamref.__version__
    assert answer["cases"] == answer["agreed"] == len(wanted) > 0
    assert set(answer["sets"]["P-SEAMLDR"]["groups"]) == {"info"}
    assert main(["conform", str(vectors), "--only", "no such"]) == 2
    assert capsys.readouterr().err == "no case fits 'no such'\n"


def test_command__one_bad_case_hides_no_other(
    vectors: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = copy.deepcopy(DOCUMENT)
    broken["cases"][0]["steps"][0]["rcx"] = "10"
    broken["cases"][1]["steps"][0]["expect"]["rdx"] = "0x1234"
    vectors.write_text(json.dumps(broken))
    (tmp_path / "w.json").write_text(json.dumps(DOCUMENT))
    assert main(["conform", str(tmp_path), "--json"]) == 2
    captured = capsys.readouterr()
    answer, cases = json.loads(captured.out), len(DOCUMENT["cases"])
    assert (answer["cases"], answer["agreed"], answer["files"]) == (2 * cases - 1, 2 * cases - 2, 2)
    (bad,), (one,) = answer["malformed"], answer["disagreements"]
    assert (bad["path"], bad["case"]) == ("cases[0].steps[0].rcx", DOCUMENT["cases"][0]["id"])
    assert (one["case"], one["step"], one["field"]) == (DOCUMENT["cases"][1]["id"], 0, "rdx")
    assert one["recorded"] == "0x1234" and 'cases[0].steps[0].rcx: "10", must be a number or "0x..."' in captured.err


@pytest.mark.parametrize(("text", "says"), [
    (b"", "not JSON"), (b"\x1f\x8b\x08broken", "a broken gzip file"), (b"[]", "not a JSON object"),
    (gzip.compress(b"{}" * 99, mtime=0)[:20], "cut off"),
    (b'{"format": "other/2"}', 'format "other/2" is none of the known'),
    (b'{"format": "pseamldr-vectors/1"}', "pseamldr_info is missing"), (b"{}", "a document without format"),
    (b'{"a": ' * 99999, "nested too deep"), (b'{"a": 1, "a": 2}', 'the key "a" stands twice'),
    (b'{"a": ' + b"9" * 5000 + b"}", "not JSON"), (b'{"a": NaN}', "NaN is no JSON number"), (b"{\xff", "not UTF-8"),
    (json.dumps({**DOCUMENT, "cases": []}).encode(), "no cases"),
    (json.dumps({**DOCUMENT, "cases": [{"id": "x"}]}).encode(), "cases[0]: group is missing"),
    (json.dumps({**DOCUMENT, "cases": [7]}).encode(), "cases[0]: 7, must be an object"),
    (json.dumps({**DOCUMENT, "cases": [DOCUMENT["cases"][0]] * 2}).encode(), "cases[1]: the id"),
    (json.dumps({**DOCUMENT, "images": {"i": {**DOCUMENT["images"]["i"], "sha384": "00"}}}).encode(),
     "images.i.sha384: 1 bytes, must be 48"),
    (json.dumps({**DOCUMENT, "sigstructs": {}}).encode(), "is not among sigstructs"),
])
def test_command__what_is_no_vector_file_is_said_in_one_line(
    text: bytes, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(text)
    assert main(["conform", str(path)]) == 2
    error = capsys.readouterr().err
    assert says in error and "Traceback" not in error
    assert len(error.splitlines()) == 1 or "sha384" in says or "sigstructs" in says


def _at(case: dict[str, Any], path: str) -> tuple[Any, Any]:
    """The place that ``a.b.0.c`` names: its container and its key."""
    *names, last = (int(name) if name.isdigit() else name for name in path.split("."))
    place: Any = case
    for name in names:
        place = place[name]
    return place, last


MALFORMED = [
    ("steps.0.expect.raxx", 5), ("steps.0.what", 5), ("steps", []), ("seamdb.size", -1), ("seamdb.last", -2),
    ("steps.0.seamops.0.1", 1 << 64), ("steps.0.seamops.0.1", -1), ("steps.0.rcx", "10"), ("steps.0.rcx", "a"),
    ("steps.0.rcx", 1.0), ("steps.0.rcx", True), ("steps.0.rcx", None), ("steps.0.rcx", -1), ("steps.0.rcx", "-0x5"),
    ("steps.0.rcx", "0x"), ("steps.0.rcx", "0x1_0"), ("steps.0.rcx", 10**400), ("steps.0.rdrand.0.1", "-5"),
    ("steps.0.rdrand.0.0", 2), ("steps.0.seam_writes", [{"off": -1, "hex": "00"}]),
    ("steps.0.seam_writes", [{"off": 1 << 62, "hex": "00"}]),
    ("steps.0.seam_writes", [{"off": 0, "shake": [0, 10**11]}]),
    ("group", None), ("group", 7), ("group", ["a"]), ("id", 7), ("platform.seamrr_base", 1 << 63),
    ("platform.p_seamldr_range_size", 2), ("platform.reserved_seed", -1), ("platform.lps", [[0, 10**9]]),
    ("platform.lps", [[0, 0]]), ("platform.max_pa", 99), ("platform.seamrr_size", 1 << 50), ("steps.0.lps", [[0, 1]]),
    ("platform.seamrr_size", 3 << 25), ("platform.fms", [0] * 9), ("platform.vmx_msrs", {}), ("seamextend", "00"),
    ("steps.0.expect.memory", {}), ("steps.0.expect.mapping", {}), ("steps.0.expect.vmcs", {}),
    ("steps.0.expect.fatal", "shutdown"), ("steps.0.mem.0.params.pages", [[0, 0, 1 << 31]]),
    ("steps.0.mem.0.params.patch", [[4095, "0000"]]), ("steps.0.mem.2.at", [[0, 0, 3]]), ("steps.0.leaf", "NONE"),
    ("steps.0.mem.2.image", "none"), ("steps.0.mem.0.pa", (1 << 64) - 1), ("steps.0.expect.seamextend", "zz" * 136),
]


@pytest.mark.parametrize(("path", "value"), MALFORMED, ids=lambda v: str(v)[:40])
def test_strict__what_is_not_of_the_format_is_named_by_its_path(path: str, value: Any) -> None:
    case = copy.deepcopy(next(c for c in DOCUMENT["cases"] if c["id"] == "install/load"))
    place, last = _at(case, path)
    place[last] = value
    report = replay({**DOCUMENT, "cases": [case]})
    (bad,) = report.malformed
    assert report.cases == 0 and report.code == 2 and bad.path.startswith("cases[0]")


@pytest.mark.parametrize("rax", [1, 3, 4, 5, 1 << 63, (1 << 64) - 1])
def test_SEAMOPS__any_status_but_success_and_no_entropy_is_fatal_to_CLEAR_and_INSERT(rax: int) -> None:
    for index in (0, 2):
        case = copy.deepcopy(next(c for c in DOCUMENT["cases"] if c["id"] == "install/load"))
        step = case["steps"][0]
        step["seamops"] = step["seamops"][: index + 1]
        step["seamops"][index][1] = rax
        (difference,) = differences(case)
        assert (difference.field, difference.ours) == ("fatal", "shutdown"), step["seamops"]


def test_bounded__a_gzip_bomb_and_an_endless_file_end_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "bomb.json.gz"
    path.write_bytes(gzip.compress(b"{" + b" " * (130 << 20), 1))
    begun = time.process_time()
    assert main(["conform", str(path)]) == 2
    assert "expands to more than" in capsys.readouterr().err
    assert time.process_time() - begun < 2
    if Path("/dev/zero").exists():
        assert main(["conform", "/dev/zero"]) == 2
        assert "not a JSON object" in capsys.readouterr().err


@pytest.mark.parametrize(("path", "value"), [
    ("images.i.pages", 10**7), ("images.i.writes.0.2", ["x"]), ("images.i.fill", ["shake"]),
    ("images.i.writes", [["relaseq", 0, [10**9, 0, 8, 8, 0, 8]]]),
    ("images.i.writes", [["hex", 1 << 62, "00"]]), ("cases.0.platform.num_sockets", 10**9),
    ("cases.0.steps.0.mem.2.at", [["0x10100000", 0, 10**9]]), ("cases.0.platform.cpuid4_max_lps_minus1", 10**9),
])
def test_bounded__counts_end_before_memory_is_taken(path: str, value: Any) -> None:
    case = copy.deepcopy(next(c for c in DOCUMENT["cases"] if c["id"] == "install/load"))
    document = copy.deepcopy({**DOCUMENT, "cases": [case]})
    place, last = _at(document, path)
    place[last] = value
    begun = time.process_time()
    report = replay(document)
    assert report.code == 2 and report.malformed and time.process_time() - begun < 1


def test_command__a_folder_without_vectors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["conform", str(tmp_path)]) == 2
    assert capsys.readouterr().err == "no cases\n"


def test_command__no_such_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["conform", str(tmp_path / "none.json")]) == 2
    assert "none.json: No such file" in capsys.readouterr().err


def test_command__others_vectors_in_a_folder_are_skipped_with_a_word_and_never_taken_for_recordings(
        tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "one.json").write_text(json.dumps(DOCUMENT), encoding="utf-8")
    other = tmp_path / "rsa_test.json"
    other.write_text(json.dumps({"algorithm": "RSASSA-PKCS1-v1_5", "numberOfTests": 0, "testGroups": []}),
                     encoding="utf-8")
    assert main(["conform", str(tmp_path)]) == 0
    assert "skipped" in (said := capsys.readouterr().err) and "Wycheproof" in said
    assert main(["conform", str(other)]) == 2, "a file that is named itself must be a recording"
    (tmp_path / "schema.json").write_text('{"$schema": "https://json-schema.org/"}', encoding="utf-8")
    (tmp_path / "clauses.json").write_text('{"format": "seamref-clauses/1"}', encoding="utf-8")
    assert main(["conform", str(tmp_path)]) == 0, "the kit's schemas lie beside its sets"
    other.write_text(json.dumps({"algorithm": "RSASSA-PKCS1-v1_5"}), encoding="utf-8")
    capsys.readouterr()
    assert main(["conform", str(tmp_path)]) == 2, "what is not known by name is not skipped"
