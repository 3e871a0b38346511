"""The kit holds what it says: its own schemas, the same bytes every time, nothing but its own files touched."""

from __future__ import annotations

import json
import time

import jsonschema
import pytest

from seamref.arch import exhaustive
from seamref.arch.revision import get_revision
from seamref.conformance.frame import replay_document
from seamref.export import form, kit, sets
from seamref.export.tables import TABLES

VECTOR_SETS = [held.name for held in sets.vectors()]


@pytest.fixture(scope="module")
def small() -> dict[str, bytes]:
    return kit.kit(small=True)


def check(schema: dict, document: dict) -> None:
    jsonschema.Draft202012Validator.check_schema(schema)
    errors = list(jsonschema.Draft202012Validator(schema).iter_errors(document))
    assert not errors, [(list(e.absolute_path), e.message[:200]) for e in errors[:3]]


def test_every_file_validates_against_its_schema(small):
    index = json.loads(small["index.json"])
    check(json.loads(small["index.schema.json"]), index)
    assert [row["set"] for row in index["sets"]] == list(kit.set_names())
    for row in index["sets"]:
        assert row["readme"] in small
        if row["schema"] is None:
            assert row["file"] in small
            continue
        document = json.loads(small[row["file"]])
        check(json.loads(small[row["schema"]]), document)
        key = {"vectors": "tests", "recordings": "cases", "table": "rows"}[row["kind"]]
        assert row["tests"] == len(document[key]) > 0


def test_a_schema_refuses_what_is_not_of_the_form(small):
    document = json.loads(small["seamcall/vectors.json"])
    schema = jsonschema.Draft202012Validator(json.loads(small["seamcall/schema.json"]))
    document["tests"][0]["input"]["vmx"] = 1
    assert not schema.is_valid(document)


@pytest.mark.parametrize("name", VECTOR_SETS)
def test_the_machine_answers_a_stored_test_as_it_is_stored(small, name):
    document = json.loads(small[f"{name}/vectors.json"])
    which = sets.load(name)
    found = [line for test in document["tests"] for line in form.differences(which, test)]
    assert not found, found[:5]


@pytest.mark.parametrize("name", VECTOR_SETS)
def test_each_revision_is_in_exactly_one_answer(small, name):
    document = json.loads(small[f"{name}/vectors.json"])
    for test in document["tests"]:
        assert sorted(r for a in test["answers"] for r in a["revisions"]) == sorted(document["revisions"]), test["id"]
        assert set(test["flags"]) <= set(document["clauses"])


def test_layouts_have_no_gaps_and_name_known_structures():
    rows = list(next(t for t in TABLES if t.name == "layouts").rows())
    names = {row["name"] for row in rows}
    for row in rows:
        at = 0
        for field in row["fields"]:
            assert field["offset"] == at, (row["name"], field["name"])
            at += field["size"]
            kind = field["type"]
            while kind["kind"] == "array":
                assert kind["size"] == kind["count"] * kind["of"]["size"]
                kind = kind["of"]
            assert kind["kind"] != "struct" or kind["struct"] in names
        assert at == row["size"]


@pytest.mark.parametrize("name", ["pseamldr", "npseamldr"])
def test_conform_agrees_with_the_recordings_of_the_kit(small, name):
    document = json.loads(small[f"{name}/vectors.json"])
    report = replay_document(document)
    assert (report.code, report.agreed) == (0, len(document["cases"])), report.disagreements[:3] or report.malformed[:3]
    one = document["cases"][0]
    changed = one["steps"][-1]["expect"] if "steps" in one else one["expect"]
    changed["seamextend"] = "5a" + changed["seamextend"][2:]
    document["cases"] = [one]
    assert replay_document(document).code == 1, "a changed expectation is seen"


@pytest.mark.parametrize("name", ["pseamldr", "npseamldr"])
def test_every_case_of_a_recording_is_about_a_clause_that_is_explained(small, name):
    clauses = json.loads(small[f"{name}/clauses.json"])
    check(json.loads(small[f"{name}/clauses.schema.json"]), clauses)
    about = {case for held in clauses["clauses"].values() for case in held["cases"]}
    assert about == {case["id"] for case in json.loads(small[f"{name}/vectors.json"])["cases"]}


def test_the_small_kit_is_below_3_MB(small):
    assert sum(map(len, small.values())) < 3_000_000


def test_sets_of_the_kit_and_the_SEAMCALL_table_say_the_same():
    tests = {test["id"]: test for test in form.vectors_of(sets.load("seamcall"))}
    for name in sets.load("seamcall").revisions:
        for state, row in enumerate(exhaustive.seamcall_table(get_revision(name))):
            (answer,) = (a for a in tests[f"seamcall-{state:03x}"]["answers"] if name in a["revisions"])
            assert answer["flags"] == [row.clause]
            assert outcome_text(answer["output"]["outcome"]) == row.outcome


def outcome_text(outcome: dict) -> str:
    """As the table of `seamcall-table` spells it."""
    match outcome["kind"]:
        case "fault":
            code = outcome["error_code"]
            return outcome["mnemonic"] + ("" if code is None else f"({code})")
        case "vm_exit":
            return f"VM exit {outcome['reason']}"
        case "entered":
            return f"entered {outcome['target']}"
        case kind:
            return {"vmfail_invalid": "VMfailInvalid"}[kind]


@pytest.mark.thorough
def test_the_full_kit_validates_and_keeps_its_bounds():
    began = time.process_time()
    whole = kit.kit()
    assert time.process_time() - began < 180, "seconds of processor time"
    assert sum(map(len, whole.values())) < 60_000_000
    for row in json.loads(whole["index.json"])["sets"]:
        if row["schema"] is not None:
            check(json.loads(whole[row["schema"]]), json.loads(whole[row["file"]]))
