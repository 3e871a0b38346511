"""Put another implementation under test: ask it each test of a set, compare, and say who would notice.

The protocol, ``seamref-request/1``: a request is one line on the program's standard input,

    {"format": "seamref-request/1", "set": "seamcall", "revision": "silicon", "id": "seamcall-051", "input": {...}}

``input`` is the whole input of a vector of the kit.  The answer is one line on its standard output, before the next
request is read: ``{"id": ..., "output": {...}}`` with the fields of the vector's output, or ``{"id": ..., "skip":
"reason"}``.  Top-level fields that are not said are not compared, and are listed; ``outcome`` must be said where the
set has it, and an object that is said must be whole.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from seamref.conformance.clients import Noticed, noticed_in
from seamref.conformance.consumer import Answered, Consumer, Trouble
from seamref.errors import SeamrefError

REQUEST = "seamref-request/1"
NUMBER = re.compile(r"0x[0-9A-Fa-f]+")


@dataclass(frozen=True, slots=True)
class FieldDiffers:
    """The first field that differs: its path, what must come, what came."""

    path: str
    must: Any
    came: Any


@dataclass(frozen=True, slots=True)
class Differing:
    """One test that is answered otherwise; ``like`` are the revisions that give the answer that came."""

    id: str
    comment: str
    flags: tuple[str, ...]
    first: FieldDiffers
    like: tuple[str, ...]
    noticed: tuple[Noticed, ...]


@dataclass(frozen=True, slots=True)
class Troubled:
    """One test without an answer."""

    id: str
    trouble: Trouble


@dataclass
class Report:
    """What came of a set.

    ``clauses``: clause id -> [tests that agree, tests answered]; ``said``: top-level field -> how often it was said;
    ``not_asked``: tests left when the program had been started as often as it may be.
    """

    set: str
    revision: str
    tests: int = 0
    agreed: int = 0
    differing: list[Differing] = field(default_factory=list)
    troubled: list[Troubled] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)
    not_asked: int = 0
    ended: Trouble | None = None
    clauses: dict[str, list[int]] = field(default_factory=dict)
    said: Counter[str] = field(default_factory=Counter)
    unsaid: Counter[str] = field(default_factory=Counter)

    @property
    def code(self) -> int:
        """0: it answered, and everything answered agrees; 1 otherwise."""
        fine = self.agreed and not (self.differing or self.troubled or self.not_asked or self.ended)
        return 0 if fine else 1


def requests(
    document: Mapping[str, Any], revision: str, tests: Sequence[Mapping[str, Any]]
) -> Iterator[dict[str, Any]]:
    """The requests for tests of a document of ``seamref-vectors/1``."""
    for test in tests:
        yield {"format": REQUEST, "set": document["set"], "revision": revision, "id": test["id"],
               "input": {**document["common"], **test["input"]}}


def chosen(document: Mapping[str, Any], pattern: str) -> list[Mapping[str, Any]]:
    """The tests whose id or one of whose clauses fits a shell pattern; all of them for ""."""
    tests: list[Mapping[str, Any]] = document["tests"]
    if not pattern:
        return tests
    found = [test for test in tests if any(fnmatchcase(name, pattern) for name in (test["id"], *test["flags"]))]
    if not found:
        raise SeamrefError(f"no test of {document['set']} fits {pattern!r}, neither by its id nor by a clause")
    return found


def revision_in(document: Mapping[str, Any], revision: str) -> str:
    """A revision of the document: the one that is named, or the first."""
    names = list(document["revisions"])
    if not revision:
        return str(names[0])
    if revision not in names:
        raise SeamrefError(f"set {document['set']} has no revision {revision!r}; there are {', '.join(names)}")
    return revision


def consume(
    document: Mapping[str, Any], command: Sequence[str], *, revision: str = "", only: str = "", timeout: float = 10.0,
    restarts: int = 5, progress: Callable[[int, int], None] = lambda done, tests: None,
) -> Report:
    """Ask a program every test of a set and compare.

    ``timeout``   seconds for one answer
    ``restarts``  how often it is started again after a Trouble; then the rest is not asked

    Nothing that the program does ends this early; a command that cannot be started at all raises.
    """
    revision = revision_in(document, revision)
    tests = chosen(document, only)
    report = Report(document["set"], revision, len(tests))
    fields = _fields(document)
    consumer = Consumer(command, timeout=timeout)
    consumer.start()
    try:
        for done, (test, request) in enumerate(zip(tests, requests(document, revision, tests), strict=True)):
            progress(done, len(tests))
            if consumer.process is None:
                if restarts == 0:
                    report.not_asked = len(tests) - done
                    break
                restarts -= 1
                consumer.start()
            answer = consumer.ask(test["id"], request)
            if isinstance(answer, Trouble):
                report.troubled.append(Troubled(test["id"], answer))
            else:
                _compare(report, document["set"], request["input"], test, answer, fields)
        if consumer.process is not None:
            report.ended = consumer.finish()
    finally:
        consumer.kill()
    return report


def _fields(document: Mapping[str, Any]) -> list[str]:
    """Every top-level field that some output of the document has, in order."""
    return list(dict.fromkeys(name for test in document["tests"] for a in test["answers"] for name in a["output"]))


def _compare(
    report: Report, set_name: str, whole: Mapping[str, Any], test: Mapping[str, Any], answer: Answered,
    fields: Sequence[str],
) -> None:
    if answer.skipped:
        report.skipped[answer.skipped] += 1
        return
    ours = next(held for held in test["answers"] if report.revision in held["revisions"])
    must, came = ours["output"], answer.output
    report.said.update(name for name in must if name in came)
    report.unsaid.update(name for name in must if name not in came)
    first = first_difference(must, came, fields)
    for flag in ours["flags"]:
        count = report.clauses.setdefault(flag, [0, 0])
        count[0] += first is None
        count[1] += 1
    if first is None:
        report.agreed += 1
        return
    like = tuple(name for held in test["answers"] if first_difference(held["output"], came, fields) is None
                 for name in held["revisions"])
    noticed = tuple(noticed_in(set_name, whole, came, must, first.path, first.came, first.must))
    report.differing.append(Differing(test["id"], test["comment"], tuple(ours["flags"]), first, like, noticed))


NOTHING = "(not said)"


def first_difference(
    must: Mapping[str, Any], came: Mapping[str, Any], fields: Sequence[str] = ()
) -> FieldDiffers | None:
    """The first field of an output, in the set's order, that is not as it must be; ``None`` where all that was said is.

    Fields of ``came`` that no output of the set has are differences too, and so is an ``outcome`` that is not said.
    """
    if "outcome" in must and "outcome" not in came:
        return FieldDiffers("outcome", must["outcome"], NOTHING)
    for name in (*must, *(name for name in fields if name not in must)):
        if name in came:
            found = _differs(name, must.get(name, NOTHING), came[name])
            if found is not None:
                return found
    unknown = sorted(set(came) - set(must) - set(fields))
    return FieldDiffers(unknown[0], "(no such field)", came[unknown[0]]) if unknown else None


def _differs(path: str, must: Any, came: Any) -> FieldDiffers | None:
    match must, came:
        case dict(), dict():
            for name in (*must, *sorted(set(came) - set(must))):
                found = _differs(f"{path}.{name}", must.get(name, "(no such field)"), came.get(name, NOTHING))
                if found is not None:
                    return found
            return None
        case list(), list() if len(must) == len(came):
            pairs = (_differs(f"{path}[{i}]", *pair) for i, pair in enumerate(zip(must, came, strict=True)))
            return next((found for found in pairs if found is not None), None)
        case str(), str() if NUMBER.fullmatch(must) and NUMBER.fullmatch(came):
            same = len(came) <= len(must) + 16 and int(must, 16) == int(came, 16)
        case _:
            same = type(must) is type(came) and must == came
    return None if same else FieldDiffers(path, must, came)


@dataclass(frozen=True, slots=True)
class Group:
    """Tests that differ in the same way."""

    flags: tuple[str, ...]
    first: FieldDiffers
    like: tuple[str, ...]
    noticed: tuple[Noticed, ...]
    ids: tuple[str, ...]
    comment: str


def groups(report: Report) -> list[Group]:
    """The differing tests, those together that differ in the same way; the largest group first."""
    found: dict[str, list[Differing]] = {}
    for one in report.differing:
        found.setdefault(repr((one.flags, one.first, one.like, one.noticed)), []).append(one)
    made = [Group(held[0].flags, held[0].first, held[0].like, held[0].noticed, tuple(o.id for o in held),
                  held[0].comment) for held in found.values()]
    return sorted(made, key=lambda group: -len(group.ids))
