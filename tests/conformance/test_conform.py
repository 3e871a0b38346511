"""Recorded behaviour agrees; the replayer sees every difference; files that are no vectors are refused in words."""

from __future__ import annotations

import copy
import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conformance.by_hand import DOCUMENT

from seamref.__main__ import main
from seamref.conformance import pseamldr as conform

VECTORS = Path(__file__).resolve().parents[3] / "shared" / "vectors"
FILES = sorted(VECTORS.glob("*.json.gz")) + sorted(VECTORS.glob("*.json"))


@pytest.mark.skipif(not FILES, reason="no recorded vectors beside the repository (../shared/vectors)")
def test_every_recorded_case_agrees() -> None:
    for path in FILES:
        report = conform.replay(conform.load(path), whole=False)
        assert [f"{name}: {difference}" for name, difference in report.disagreements] == []
        assert report.ok and sum(report.agreed.values()) > 1000 and report.calls > 5000


@pytest.mark.skipif(not FILES, reason="no recorded vectors beside the repository (../shared/vectors)")
def test_the_hash_of_every_byte_of_the_range_agrees_too() -> None:
    for path in FILES:
        document = conform.load(path)
        document["cases"] = document["cases"][:: max(len(document["cases"]) // 60, 1)]
        assert conform.replay(document).ok


@pytest.mark.parametrize("case", DOCUMENT["cases"], ids=lambda case: case["id"])
def test_by_hand(case: dict[str, Any]) -> None:
    report = conform.replay({**DOCUMENT, "cases": [case]})
    assert [str(difference) for _, difference in report.disagreements] == []


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
    if path[-1] not in ("pa", "len")
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
    report = conform.replay({**DOCUMENT, "cases": [case]})
    ((_, difference),) = report.disagreements
    assert difference.step == s and not report.ok
    assert str(path[0]) in difference.path or difference.path.startswith("memory around")


def test_draws_and_writes_that_were_not_recorded_are_disagreements() -> None:
    def replayed(change: Any) -> str:
        case = copy.deepcopy(next(c for c in DOCUMENT["cases"] if c["id"] == "install/load"))
        change(case["steps"][0])
        ((_, difference),) = conform.replay({**DOCUMENT, "cases": [case]}).disagreements
        return difference.path

    assert replayed(lambda step: step["rdrand"].append([1, 5])) == "rdrand.count"
    assert replayed(lambda step: step.update(rdrand=[[1, 1], [1, "0x4000"], [0, 0]])) == "rdrand.count"
    assert replayed(lambda step: step["seamops"].pop()) == "seamops"
    assert replayed(lambda step: step["seamops"].append(["CLEAR", 0])) == "seamops.count"
    assert replayed(lambda step: step["expect"].update(vmclear=["0x7e001000"])) == "vmclear.length"
    case = copy.deepcopy(next(c for c in DOCUMENT["cases"] if c["id"] == "info/contents"))
    del case["steps"][0]["expect"]["written"]
    ((_, difference),) = conform.replay({**DOCUMENT, "cases": [case]}).disagreements
    assert difference.path == "memory around RCX"


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
    assert "leaf/unknown: step 0: rax: recorded 0x0, here 0x8000000000000000" in out


@pytest.mark.parametrize(("text", "says"), [
    (b"", "not a JSON file"), (b"\x1f\x8b\x08broken", "not a JSON file"), (b"[]", "format is 'list'"),
    (b'{"format": "other/2"}', "format is 'other/2'"),
    (b'{"format": "pseamldr-vectors/1"}', "pseamldr_info is missing"),
    (json.dumps({**DOCUMENT, "cases": []}).encode(), "no cases"),
    (json.dumps({**DOCUMENT, "cases": [{"id": "x"}]}).encode(), "x: not of the format"),
    (json.dumps({**DOCUMENT, "cases": [7]}).encode(), "not of the format"),
    (json.dumps({**DOCUMENT, "images": {"i": {**DOCUMENT["images"]["i"], "sha384": "00"}}}).encode(),
     "image i: SHA-384"),
    (json.dumps({**DOCUMENT, "sigstructs": {}}).encode(), "not of the format: KeyError 'bad'"),
])
def test_command__what_is_no_vector_file_is_said_in_one_line(
    text: bytes, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(text)
    assert main(["conform", str(path)]) == 2
    error = capsys.readouterr().err
    assert says in error and len(error.splitlines()) == 1


def test_command__a_folder_without_vectors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["conform", str(tmp_path)]) == 2
    assert capsys.readouterr().err == "no cases\n"


def test_command__no_such_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["conform", str(tmp_path / "none.json")]) == 2
    assert "none.json: No such file" in capsys.readouterr().err
