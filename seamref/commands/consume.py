"""Put another implementation under test: a program that answers one JSON request a line, in any language.

python -m seamref consume --set seamcall -- ./my_emulator --seamref

Each request holds the whole input of one test of the kit (in the loaders' sets: a session of calls); the program
answers {"id": ..., "output": {...}} with the fields that it knows, or {"id": ..., "skip": "reason"}, on one line,
before it reads the next. Said are: agreement by clause, the first field that differs, which revision would give that
answer, and which client would notice. A program that hangs, dies, answers out of order, not JSON, or too much is
named, started again, and asked the next test.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from seamref.conformance.consume import Report

HELP = "another implementation under test: requests to its standard input, answers compared clause by clause"
KIT_LIMIT = 256 << 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    from seamref.commands._answer import add_json

    parser.add_argument("program", nargs="*", metavar="-- COMMAND", help="the program and its arguments")
    parser.add_argument("--set", required=True, metavar="SET", help="what is asked: a set of `export --list`")
    parser.add_argument("--revision", default="", metavar="NAME", help="which answers must come (the set's first)")
    parser.add_argument("--only", default="", metavar="PATTERN", help="only tests whose id, or a clause, fits")
    parser.add_argument("--small", action="store_true", help="only the tests of the small kit")
    parser.add_argument("--kit", metavar="DIR", help="the tests of an exported kit instead of fresh ones")
    parser.add_argument("--timeout", type=float, default=10.0, metavar="SECONDS", help="for one answer (10)")
    parser.add_argument("--restarts", type=int, default=5, metavar="N", help="how often it is started again (5)")
    parser.add_argument("--all", action="store_true", help="every differing test, not the first of each kind")
    parser.add_argument("--requests", action="store_true", help="print the requests and run nothing")
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Exit code 0: everything answered agrees; 1: a difference, or no answer; 2: bad input."""
    import json

    from seamref.commands._answer import print_json
    from seamref.commands._names import count
    from seamref.commands._progress import at
    from seamref.conformance.consume import chosen, consume, requests, revision_in
    from seamref.errors import SeamrefError

    count(args.restarts, "--restarts", 0, 1000)
    if not 0.01 <= args.timeout <= 3600:
        raise SeamrefError(f"--timeout: {args.timeout:g}, must be 0.01 to 3600 seconds")
    if bool(args.program) is args.requests:
        raise SeamrefError("--requests runs nothing: without a COMMAND" if args.requests else
                           "consume needs a program behind --, or --requests")
    document = _document(args)
    revision = revision_in(document, args.revision)
    if args.requests:
        for request in requests(document, revision, chosen(document, args.only)):
            print(json.dumps(request, separators=(",", ":")))
        return 0
    report = consume(document, args.program, revision=revision, only=args.only, timeout=args.timeout,
                     restarts=args.restarts, progress=lambda done, tests: at(f"{done} of {tests} tests"))
    if args.json:
        print_json("consume", as_json(report, document))
    else:
        for line in lines(report, document, all=args.all):
            print(line)
    return report.code


def _document(args: argparse.Namespace) -> dict[str, Any]:
    """The set's document: from the machine, or from a kit."""
    from seamref.commands._names import pick
    from seamref.errors import SeamrefError
    from seamref.export import sets
    from seamref.export.asked import document_of_sessions
    from seamref.export.form import VectorSet, vectors_of
    from seamref.export.kit import document_of

    if args.kit is None:
        which = sets.load(pick(args.set, sets.NAMES, "set"))
        if not isinstance(which, VectorSet):
            return document_of_sessions(which, small=args.small)
        return document_of(which, vectors_of(which, small=args.small))
    if args.small:
        raise SeamrefError("--kit: the kit says how many tests it has, without --small")
    return _from_kit(args.kit, args.set.lower())


def _from_kit(folder: str, name: str) -> dict[str, Any]:
    """The document of a set in an exported kit; one that is not of the format is refused by field."""
    from pathlib import Path

    from seamref.commands._files import named, read
    from seamref.conformance.reading import FormatError, parse_document
    from seamref.errors import SeamrefError
    from seamref.export.asked import sessions
    from seamref.export.form import FORMAT

    place = Path(folder) / name / "vectors.json"
    if "/" in name or name.startswith(".") or not place.is_file():
        raise SeamrefError(f"{named(folder)}: holds no set {name!r} (there is no {name}/vectors.json)")
    try:
        made = parse_document(read(place, limit=KIT_LIMIT))
        if isinstance(made.get("cases"), list) and (place.parent / "clauses.json").is_file():
            said = parse_document(read(place.parent / "clauses.json", limit=KIT_LIMIT)).get("clauses")
            clauses = said if isinstance(said, dict) else {}
            made = sessions(name, made, _flags(clauses), clauses)
    except FormatError as error:
        raise SeamrefError(f"{named(place)}: {error.problem}") from None
    problem = _problem(made, FORMAT)
    if problem:
        raise SeamrefError(f"{named(place)}: {problem}")
    return made


def _flags(clauses: Mapping[str, Any]) -> dict[str, list[str]]:
    """Case -> clauses, from the file that says clause -> cases."""
    found: dict[str, list[str]] = {}
    for clause, held in clauses.items():
        cases = held.get("cases") if isinstance(held, dict) else None
        for case in cases if isinstance(cases, list) else ():
            found.setdefault(str(case), []).append(clause)
    return found


def _problem(made: Mapping[str, Any], format_id: str) -> str:
    """The first thing in a document that is not of the format, as far as consume relies on it."""
    if made.get("format") != format_id:
        return f"format is {made.get('format')!r}, must be {format_id}"
    for name, kind in (("set", str), ("revisions", dict), ("clauses", dict), ("common", dict), ("tests", list)):
        if not isinstance(made.get(name), kind):
            return f"{name} is missing or no {kind.__name__}"
    if not made["revisions"]:
        return "revisions is empty"
    for at, test in enumerate(made["tests"]):
        for name, kind in (("id", str), ("comment", str), ("flags", list), ("input", dict), ("answers", list)):
            if not isinstance(test, dict) or not isinstance(test.get(name), kind):
                return f"tests[{at}].{name} is missing or no {kind.__name__}"
        told = [name for answer in test["answers"] if isinstance(answer, dict)
                and isinstance(answer.get("output"), dict) and isinstance(answer.get("flags"), list)
                and isinstance(answer.get("revisions"), list) for name in answer["revisions"]]
        if sorted(map(str, told)) != sorted(made["revisions"]):
            return f"tests[{at}].answers does not hold each revision once, with flags and output"
    return ""


def lines(report: Report, document: Mapping[str, Any], *, all: bool) -> Iterator[str]:
    """The report in words: the sums, what happened instead of answers, clauses that disagree, the differences."""
    from seamref.conformance.consume import groups

    asked = sum(report.skipped.values())
    yield (f"{report.set}, {report.revision}: {report.agreed} of {report.tests} tests agree, {len(report.differing)} "
           f"differ, {len(report.troubled)} without an answer, {asked} skipped, {report.not_asked} not asked")
    for trouble in report.troubled:
        yield f"  {trouble.id}: {trouble.trouble}"
    if report.ended is not None:
        yield f"  at the end: {report.ended}"
    for reason, count in report.skipped.most_common(20):
        yield f"  skipped {count}: {_printable(reason)}"
    unsaid = [name for name in report.unsaid if not report.said[name]]
    if unsaid and (report.agreed or report.differing):
        yield f"  never said, so not compared: {', '.join(unsaid)}"
    for clause, (agreed, answered) in sorted(report.clauses.items()):
        if agreed != answered:
            yield f"  {clause}: {agreed} of {answered} agree ({_says(document, clause)})"
    for group in groups(report):
        first = group.first
        yield (f"{len(group.ids)} tests where {', '.join(group.flags)} decides: {first.path} is "
               f"{_short(first.came)}, must be {_short(first.must)}")
        if group.like:
            yield f"  that is the answer of {', '.join(group.like)}"
        for noticed in group.noticed:
            yield f"  {_printable(str(noticed))}"
        if all:
            yield from (f"  {id}" for id in group.ids)
        else:
            yield f"  the first: {group.ids[0]}, {group.comment}"


def _says(document: Mapping[str, Any], clause: str) -> str:
    held = document["clauses"].get(clause)
    return str(held.get("says", "")) if isinstance(held, dict) else ""


def _short(value: Any) -> str:
    import json

    text = _printable(value if isinstance(value, str) else json.dumps(value))
    return text if len(text) <= 100 else text[:97] + "..."


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)


def as_json(report: Report, document: Mapping[str, Any]) -> dict[str, Any]:
    """The report for a program."""
    return {
        "set": report.set, "revision": report.revision, "tests": report.tests, "agreed": report.agreed,
        "skipped": dict(report.skipped), "not_asked": report.not_asked,
        "clauses": {clause: {"agreed": agreed, "answered": answered}
                    for clause, (agreed, answered) in sorted(report.clauses.items())},
        "fields": {name: {"said": report.said[name], "not_said": report.unsaid[name]}
                   for name in sorted({*report.said, *report.unsaid})},
        "differing": [
            {"id": one.id, "comment": one.comment, "flags": one.flags, "field": one.first.path, "must": one.first.must,
             "came": one.first.came, "like": one.like,
             "noticed": [{"who": n.who, "sees": n.one, "must_see": n.other, "differs": n.differs}
                         for n in one.noticed]}
            for one in report.differing
        ],
        "troubled": [{"id": one.id, "kind": one.trouble.kind.value, "detail": one.trouble.detail,
                      "stderr": one.trouble.stderr} for one in report.troubled],
        "ended": None if report.ended is None else {"kind": report.ended.kind.value, "detail": report.ended.detail,
                                                    "stderr": report.ended.stderr},
    }
