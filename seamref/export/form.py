"""The vector form ``seamref-vectors/1``: what a test is, what its fields are, and how a set makes and answers them.

A set declares the fields of its inputs and outputs once, as :class:`Item` rows.  The JSON Schema, the page that
explains the set and the form itself come from these rows.  A set is two functions: ``cases`` gives the inputs,
``answer`` lets the machine answer one.  ``answer`` sees nothing but the input as JSON holds it, so an input that is not
complete cannot be answered.

One file holds one set, one test a line::

    {"format": "seamref-vectors/1", "set": ..., "generator": ..., "licence": ..., "title": ..., "about": [...],
     "revisions": {name: what it is}, "clauses": {id: {"says": ..., "source": ..., "mark": ...}},
     "sources": {tag: {"title": ..., "where": ...}}, "common": {...}, "tests": [
      {"id": ..., "comment": ..., "flags": [clause ids], "input": {...},
       "answers": [{"revisions": [...], "flags": [clause ids], "output": {...}}]}]}

The whole input of a test is ``common`` with the test's ``input`` over it.  Each revision of the set is in exactly one
of the answers; where documents agree there is one answer.  Numbers that documents write in hexadecimal are strings
"0x...", bytes in memory are hex digits, counts and sizes are numbers.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeAlias, assert_never

from seamref.errors import SeamrefError
from seamref.spec import CLAUSES, cited

FORMAT = "seamref-vectors/1"
LICENCE = "Apache-2.0"
DIALECT = "https://json-schema.org/draft/2020-12/schema"


# --- what a field can be


@dataclass(frozen=True, slots=True)
class Flag:
    """true or false."""


@dataclass(frozen=True, slots=True)
class Hex:
    """A register, address or mask: "0x..." in capital digits without leading zeros."""

    bits: int = 64


@dataclass(frozen=True, slots=True)
class Count:
    """A number: a count, a size in bytes, an index."""

    least: int = 0
    most: int = (1 << 53) - 1


@dataclass(frozen=True, slots=True)
class Number:
    """A number in either spelling: a JSON number, or "0x..." where it is large."""


@dataclass(frozen=True, slots=True)
class Any_:
    """Whatever the field beside it says."""


@dataclass(frozen=True, slots=True)
class Row:
    """A list of fixed length, each element with a type and a meaning of its own."""

    of: tuple[tuple[Type, str], ...]
    least: int | None = None
    """Elements that must be there; those behind may be missing."""


@dataclass(frozen=True, slots=True)
class Octets:
    """Bytes in the order of memory, as lower-case hex digits; ``size`` where it is always the same."""

    size: int | None = None


@dataclass(frozen=True, slots=True)
class OneOf:
    """One of a closed set of words."""

    words: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Text:
    """Words for a reader, or a name from an open set."""


@dataclass(frozen=True, slots=True)
class Maybe:
    """The type, or null where there is none."""

    of: Type


@dataclass(frozen=True, slots=True)
class ListOf:
    """A list of any length, or of exactly ``count`` elements."""

    of: Type
    count: int | None = None


@dataclass(frozen=True, slots=True)
class MapOf:
    """An object whose keys are data: names or "0x..." numbers."""

    of: Type
    keys: str = "names"


@dataclass(frozen=True, slots=True)
class Group:
    """An object with these fields."""

    items: tuple[Item, ...]


@dataclass(frozen=True, slots=True)
class Item:
    """One field: its name, type and meaning; ``optional`` fields are left out where they would say nothing."""

    name: str
    type: Type
    meaning: str
    optional: bool = False


Type: TypeAlias = "Any_ | Flag | Hex | Count | Number | Row | Octets | OneOf | Text | Maybe | ListOf | MapOf | Group"


def schema_of(kind: Type) -> dict[str, Any]:
    """A type as JSON Schema."""
    match kind:
        case Flag():
            return {"type": "boolean"}
        case Hex(bits=bits):
            return {"type": "string", "pattern": f"^0x(0|[1-9A-F][0-9A-F]{{0,{bits // 4 - 1}}})$"}
        case Count(least=least, most=most):
            return {"type": "integer", "minimum": least, "maximum": most}
        case Any_():
            return {}
        case Number():
            return {"anyOf": [{"type": "integer", "minimum": 0, "maximum": (1 << 64) - 1},
                              {"type": "string", "pattern": "^0x[0-9A-Fa-f]{1,16}$"}]}
        case Row(of=of, least=least):
            return {"type": "array", "prefixItems": [{"description": says, **schema_of(part)} for part, says in of],
                    "items": False, "minItems": len(of) if least is None else least}
        case Octets(size=None):
            return {"type": "string", "pattern": "^([0-9a-f]{2})*$"}
        case Octets(size=size):
            return {"type": "string", "pattern": f"^[0-9a-f]{{{2 * size}}}$"}  # type: ignore[operator]
        case OneOf(words=words):
            return {"enum": list(words)}
        case Text():
            return {"type": "string"}
        case Maybe(of=of):
            return {"anyOf": [schema_of(of), {"type": "null"}]}
        case ListOf(of=of, count=None):
            return {"type": "array", "items": schema_of(of)}
        case ListOf(of=of, count=count):
            return {"type": "array", "items": schema_of(of), "minItems": count, "maxItems": count}
        case MapOf(of=of):
            return {"type": "object", "additionalProperties": schema_of(of)}
        case Group(items=items):
            return object_schema(items)
        case _ as never:
            assert_never(never)


def object_schema(items: Sequence[Item]) -> dict[str, Any]:
    """An object with these fields and no others."""
    return {
        "type": "object",
        "properties": {item.name: {"description": item.meaning, **schema_of(item.type)} for item in items},
        "required": [item.name for item in items if not item.optional],
        "additionalProperties": False,
    }


def type_text(kind: Type) -> str:
    """A type in words, for the page of a set."""
    match kind:
        case Flag():
            return "true or false"
        case Hex(bits=bits):
            return f'"0x...", {bits} bits'
        case Count(least=least, most=most):
            return "number" if most >= 1 << 32 else f"number {least} to {most}"
        case Any_():
            return "any"
        case Number():
            return 'number, or "0x..."'
        case Row(of=of):
            return "[" + ", ".join(says for _, says in of) + "]"
        case Octets(size=size):
            return "bytes as hex digits" if size is None else f"{size} bytes as hex digits"
        case OneOf(words=words):
            return ", ".join(f'"{word}"' for word in words)
        case Text():
            return "text"
        case Maybe(of=of):
            return f"{type_text(of)}, or null"
        case ListOf(of=of, count=count):
            return f"list of {'' if count is None else f'{count} '}({type_text(of)})"
        case MapOf(of=of, keys=keys):
            return f"object: {keys} to ({type_text(of)})"
        case Group():
            return "object"
        case _ as never:
            assert_never(never)


def rows_of(items: Sequence[Item], prefix: str = "") -> Iterator[tuple[str, str, str]]:
    """Name, type and meaning of each field, those inside objects and lists below theirs."""
    for item in items:
        name = prefix + item.name
        yield name, type_text(item.type) + (" (may be missing)" if item.optional else ""), item.meaning
        inner, mark = item.type, "."
        while not isinstance(inner, Group) and isinstance(inner, Maybe | ListOf | MapOf):
            mark = "." if isinstance(inner, Maybe) else "[]." if isinstance(inner, ListOf) else "{}."
            inner = inner.of
        if isinstance(inner, Group):
            yield from rows_of(inner.items, name + mark)


def hexed(value: int) -> str:
    """A number as :class:`Hex` holds it."""
    return f"0x{value:X}"


def number(text: str) -> int:
    """The number that :class:`Hex` text stands for."""
    return int(text, 16)


# --- a set


@dataclass(frozen=True, slots=True)
class Case:
    """An input: the id that it keeps in every version, one line for a reader, the fields."""

    id: str
    comment: str
    input: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Answer:
    """What the machine answered: the fields, and the clauses that decided or were executed."""

    output: Mapping[str, Any]
    flags: tuple[str, ...]


@dataclass(frozen=True)
class VectorSet:
    """A set of the kit.

    ``name``       folder and word on the command line
    ``title``      what it is about, as a heading
    ``about``      paragraphs for a reader: what is asked, what stands outside
    ``input``, ``output``  the fields
    ``revisions``  name -> what it is; a single one where documents agree on everything
    ``cases``      the inputs, in their order
    ``answer``     the whole input and a revision -> the answer of the machine
    ``common``     fields of the input that are the same in every test
    """

    name: str
    title: str
    about: tuple[str, ...]
    input: tuple[Item, ...]
    output: tuple[Item, ...]
    revisions: Mapping[str, str]
    cases: Callable[[], Iterator[Case]]
    answer: Callable[[Mapping[str, Any], str], Answer]
    common: Callable[[], Mapping[str, Any]] = field(default=dict)
    small: int = 2
    """Tests that the small kit keeps of those that one and the same list of clauses decides, from first to last."""

    def whole(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """The whole input of a test."""
        return {**self.shared, **given}

    @cached_property
    def shared(self) -> Mapping[str, Any]:
        """``common``, made once."""
        return self.common()


def vector_of(which: VectorSet, case: Case) -> dict[str, Any]:
    """One test: the machine answers for each revision, equal answers are one."""
    answers: list[dict[str, Any]] = []
    whole = json.loads(json.dumps(which.whole(case.input)))
    for revision in which.revisions:
        made = which.answer(whole, revision)
        flags, output = list(made.flags), dict(made.output)
        for known in answers:
            if known["output"] == output and known["flags"] == flags:
                known["revisions"].append(revision)
                break
        else:
            answers.append({"revisions": [revision], "flags": flags, "output": output})
    flags = list(dict.fromkeys(flag for known in answers for flag in known["flags"]))
    return {"id": case.id, "comment": case.comment, "flags": flags, "input": dict(case.input), "answers": answers}


def vectors_of(which: VectorSet, *, small: bool = False) -> list[dict[str, Any]]:
    """Every test of a set; of the small kit, for each list of clauses that decides, some from first to last."""
    made: list[dict[str, Any]] = []
    seen: set[str] = set()
    alike: dict[str, list[int]] = {}
    for case in which.cases():
        if case.id in seen:
            raise SeamrefError(f"set {which.name}: test {case.id!r} is there twice")
        seen.add(case.id)
        test = vector_of(which, case)
        decided = json.dumps([[answer["revisions"], answer["flags"]] for answer in test["answers"]])
        alike.setdefault(decided, []).append(len(made))
        made.append(test)
    if not small:
        return made
    kept = sorted(index for places in alike.values() for index in spread(places, which.small))
    return [made[index] for index in kept]


def spread(places: Sequence[int], count: int) -> list[int]:
    """At most ``count`` of them, evenly from the first to the last: neighbours often say the same."""
    if len(places) <= count:
        return list(places)
    if count == 1:
        return [places[0]]
    return [places[i * (len(places) - 1) // (count - 1)] for i in range(count)]


def clauses_of(tests: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, str]]:
    """The clauses that tests name, each explained; one that is declared nowhere is a mistake."""
    found: dict[str, dict[str, str]] = {}
    for id in sorted({flag for test in tests for flag in test["flags"]}):
        if id not in CLAUSES:
            raise SeamrefError(f"clause {id!r} is declared nowhere")
        held = CLAUSES[id]
        found[id] = {"says": held.says, "source": held.source, "mark": held.mark.value}
    return found


def sources_of(clauses: Mapping[str, Mapping[str, str]]) -> dict[str, dict[str, str]]:
    """The documents that the clauses cite, by their tags."""
    found = {}
    for held in clauses.values():
        for _, source in cited(held["source"]):
            if source is not None:
                found[source.tag] = {"title": source.title, "where": source.where}
    return dict(sorted(found.items()))


def differences(which: VectorSet, test: Mapping[str, Any]) -> list[str]:
    """Ask the machine again for a stored test: what differs, in words; empty where it agrees."""
    whole = which.whole(test["input"])
    found = []
    for held in test["answers"]:
        for revision in held["revisions"]:
            made = which.answer(whole, revision)
            output = json.loads(json.dumps(dict(made.output)))
            found += [f"{test['id']}: {revision}: {name}: {output.get(name)!r}, stored {held['output'].get(name)!r}"
                      for name in dict.fromkeys((*held["output"], *output))
                      if output.get(name) != held["output"].get(name)]
            if list(made.flags) != held["flags"]:
                found.append(f"{test['id']}: {revision}: flags: {list(made.flags)}, stored {held['flags']}")
    return found
