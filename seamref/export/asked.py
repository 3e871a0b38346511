"""Sets in a format of recordings as tests that a program can be asked: a whole session in, what every call gave out.

A case of a recording holds inputs and, as ``expect``, what came.  A test has the case without any ``expect`` as its
input, beside the parts of the document that it refers to; its output has each expected field as a list with one element
for each step (``null`` where the recording has none), or the one ``expect`` as it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from seamref.errors import SeamrefError
from seamref.export.form import FORMAT, hexed
from seamref.export.recording import RecordedSet, clauses_document

RUNS = {"pseamldr": "P-SEAMLDR 1.5", "npseamldr": "NP-SEAMLDR 1.5"}
"""Set -> whose behaviour it holds."""
REGISTERS = ("rax", "rdx")
"""Expected fields that are registers: always "0x...", however small."""
NAMED = ("images", "sigstructs")
"""Parts of a document that cases refer to by name."""


def document_of_sessions(which: RecordedSet, *, small: bool = False) -> dict[str, Any]:
    """A recorded set as a document of tests."""
    document, flags = which.made(small)
    return sessions(which.name, document, flags, clauses_document(flags))


def sessions(
    name: str, document: Mapping[str, Any], flags: Mapping[str, Any], clauses: Mapping[str, Any]
) -> dict[str, Any]:
    """A document of recordings, the clauses of each case, and each clause explained, as a document of tests.

    A case that is not of the format is a SeamrefError that names it.
    """
    run = RUNS.get(name, name)
    shared = {key: value for key, value in document.items() if key not in ("cases", *NAMED)}
    tests = []
    for at, case in enumerate(document["cases"]):
        if not isinstance(case, dict) or not isinstance(case.get("id"), str):
            raise SeamrefError(f"set {name}: cases[{at}] has no id")
        marks = list(flags.get(case["id"], ()))
        tests.append({
            "id": case["id"], "comment": str(case.get("note", "")), "flags": marks,
            "input": {**_named(document, case), "case": _without(case)},
            "answers": [{"revisions": [run], "flags": marks, "output": _output(name, case)}],
        })
    return {"format": FORMAT, "set": name, "revisions": {run: "recorded behaviour, and this machine's own"},
            "clauses": dict(clauses), "common": shared, "tests": tests}


def _without(value: Any) -> Any:
    """The same without any ``expect``."""
    match value:
        case dict():
            return {key: _without(held) for key, held in value.items() if key not in ("expect", "mutations")}
        case list():
            return [_without(held) for held in value]
    return value


def _words(value: Any) -> Iterator[str]:
    """Every string inside a value."""
    match value:
        case str():
            yield value
        case dict():
            for held in value.values():
                yield from _words(held)
        case list():
            for held in value:
                yield from _words(held)


def _named(document: Mapping[str, Any], case: Mapping[str, Any]) -> dict[str, Any]:
    """The images and sigstructs that a case refers to, by their names."""
    said = set(_words(case))
    return {part: {key: held for key, held in document[part].items() if key in said}
            for part in NAMED if isinstance(document.get(part), dict)}


def _output(name: str, case: Mapping[str, Any]) -> dict[str, Any]:
    """What came: a list for each field over the steps, or the one object."""
    steps = case.get("steps")
    if steps is None:
        whole = case.get("expect")
        if not isinstance(whole, dict) or not whole:
            raise SeamrefError(f"set {name}: case {case['id']}: expect is missing or no object")
        return dict(whole)
    came: list[dict[str, Any]] = []
    for step in steps if isinstance(steps, list) else ():
        if not isinstance(step, dict) or not isinstance(step.get("expect"), dict):
            raise SeamrefError(f"set {name}: case {case['id']}: step {len(came)} has no expect")
        came.append(step["expect"])
    if not came:
        raise SeamrefError(f"set {name}: case {case['id']}: no steps")
    fields = dict.fromkeys(key for one in came for key in one)
    return {key: [_register(key, one.get(key)) for one in came] for key in fields}


def _register(key: str, value: Any) -> Any:
    return hexed(value) if key in REGISTERS and isinstance(value, int) else value
