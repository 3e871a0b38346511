"""The kit: which files it consists of, byte for byte.

Everything is made in memory from the declarations; nothing depends on time, place, the order of hashing or the version
of Python.  Writing the files is the command's business.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from hashlib import sha256
from typing import Any

from seamref import __version__
from seamref.arch.revision import REVISIONS
from seamref.errors import SeamrefError
from seamref.export import headers, sets
from seamref.export.declared import layouts
from seamref.export.form import (
    DIALECT,
    FORMAT,
    LICENCE,
    Count,
    Item,
    ListOf,
    Maybe,
    OneOf,
    Text,
    VectorSet,
    clauses_of,
    object_schema,
    rows_of,
    schema_of,
    sources_of,
    vectors_of,
)
from seamref.export.recording import CLAUSE_ROW, CLAUSES_FORMAT, RecordedSet, clauses_document
from seamref.export.tables import FORMAT as TABLE_FORMAT
from seamref.export.tables import TABLES, Table, table

KIT_FORMAT = "seamref-kit/1"
MANIFEST = "SHA256SUMS"
"""The hashes of every other file, as ``sha256sum`` writes and checks them."""
GENERATOR = f"seamref {__version__}"


HEADERS = "headers"
HEADERS_TITLE = "C and Rust headers"


def set_names() -> tuple[str, ...]:
    """What ``--only`` takes: sets of vectors, tables, and the headers."""
    return (*sets.NAMES, *(held.name for held in TABLES), HEADERS)


def titles() -> dict[str, str]:
    """Each of them with its heading."""
    return {**{name: sets.load(name).title for name in sets.NAMES}, **{held.name: held.title for held in TABLES},
            HEADERS: HEADERS_TITLE}


def counts() -> dict[str, int]:
    """How many tests each set has, rows each table, structures the headers; no test is run."""
    found = {}
    for name in sets.NAMES:
        which = sets.load(name)
        found[name] = which.count() if isinstance(which, RecordedSet) else sum(1 for _ in which.cases())
    return {**found, **{held.name: sum(1 for _ in held.rows()) for held in TABLES}, HEADERS: len(layouts())}


def kit(only: Sequence[str] = (), *, small: bool = False, prefix: str = headers.PREFIX,
        progress: Callable[[str], None] = lambda what: None) -> dict[str, bytes]:
    """The files of a kit: path with "/" below its folder -> bytes, sorted by path.  ``prefix``: of names in C."""
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,39}", prefix):
        raise SeamrefError(f"prefix {prefix!r}: must be a C identifier of at most 40 characters")
    unknown = [name for name in only if name not in set_names()]
    if unknown:
        raise SeamrefError(f"no set {unknown[0]!r}; there are {', '.join(set_names())}")
    files: dict[str, bytes] = {}
    index: list[dict[str, Any]] = []
    for name in sets.NAMES:
        if not only or name in only:
            progress(name)
            which = sets.load(name)
            index.append(_put_recorded(files, which, small) if isinstance(which, RecordedSet) else
                         _put_set(files, which, small))
    for held in TABLES:
        if not only or held.name in only:
            progress(held.name)
            index.append(_put_table(files, held))
    if not only or HEADERS in only:
        progress(HEADERS)
        index.append(_put_headers(files, prefix))
    document = {
        "format": KIT_FORMAT, "generator": GENERATOR, "licence": LICENCE, "size": "small" if small else "full",
        "sets": index,
    }
    files["index.json"] = _json(document)
    files["index.schema.json"] = _json(INDEX_SCHEMA)
    files["README.md"] = _text(kit_page(document))
    files = dict(sorted(files.items()))
    files[MANIFEST] = manifest(files)
    return files


def manifest(files: Mapping[str, bytes]) -> bytes:
    """The hashes of files, a line each."""
    return _text("".join(f"{sha256(data).hexdigest()}  {path}\n" for path, data in sorted(files.items())))


def _json(document: Mapping[str, Any]) -> bytes:
    return _text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")


def _text(text: str) -> bytes:
    return text.encode("utf-8")


def _lines(document: Mapping[str, Any], name: str, rows: Iterable[Mapping[str, Any]]) -> bytes:
    """A document whose last field is a list, an element a line."""
    head = json.dumps(document, indent=1, ensure_ascii=False).removesuffix("\n}")
    listed = ",\n".join("  " + json.dumps(row, ensure_ascii=False, separators=(",", ":")) for row in rows)
    return _text(f'{head},\n "{name}": [\n{listed}\n ]\n}}\n')


# --- sets of vectors


def _put_set(files: dict[str, bytes], which: VectorSet, small: bool) -> dict[str, Any]:
    tests = vectors_of(which, small=small)
    document = document_of(which, tests)
    path = which.name
    files[f"{path}/vectors.json"] = _lines({k: v for k, v in document.items() if k != "tests"}, "tests", tests)
    files[f"{path}/schema.json"] = _json(set_schema(which))
    files[f"{path}/README.md"] = _text(set_page(which, document))
    return {
        "set": which.name, "title": which.title, "kind": "vectors", "format": FORMAT,
        "file": f"{path}/vectors.json", "schema": f"{path}/schema.json", "readme": f"{path}/README.md",
        "tests": len(tests), "revisions": list(which.revisions),
    }


def document_of(which: VectorSet, tests: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The whole document of a set."""
    clauses = clauses_of(tests)
    return {
        "format": FORMAT, "set": which.name, "generator": GENERATOR, "licence": LICENCE, "title": which.title,
        "about": list(which.about), "revisions": dict(which.revisions), "clauses": clauses,
        "sources": sources_of(clauses), "common": dict(which.shared), "tests": list(tests),
    }


def set_schema(which: VectorSet) -> dict[str, Any]:
    """JSON Schema of a set's file."""
    revision = {"enum": list(which.revisions)}
    text: dict[str, Any] = {"type": "string", "minLength": 1}
    flags = {"type": "array", "items": text}
    common = set(which.shared)
    answer = {
        "type": "object",
        "properties": {
            "revisions": {"type": "array", "items": revision, "minItems": 1, "uniqueItems": True},
            "flags": {"description": "the clauses that decide this answer", **flags, "minItems": 1},
            "output": {"$ref": "#/$defs/output"},
        },
        "required": ["revisions", "flags", "output"], "additionalProperties": False,
    }
    test = {
        "type": "object",
        "properties": {
            "id": {"description": "the same in every version of the kit", **text},
            "comment": {"type": "string"},
            "flags": {"description": "the clauses that decide the answers", **flags, "minItems": 1},
            "input": {"$ref": "#/$defs/input"},
            "answers": {"description": "each revision is in exactly one", "type": "array",
                        "items": {"$ref": "#/$defs/answer"}, "minItems": 1, "maxItems": len(which.revisions)},
        },
        "required": ["id", "comment", "flags", "input", "answers"], "additionalProperties": False,
    }
    head = {
        "format": {"const": FORMAT}, "set": {"const": which.name}, "generator": text, "licence": {"const": LICENCE},
        "title": text, "about": {"type": "array", "items": text},
        "revisions": {"type": "object", "additionalProperties": text},
        "clauses": {"type": "object", "additionalProperties": {
            "type": "object",
            "properties": {"says": text, "source": text, "mark": {"enum": ["stated", "measured", "chosen"]}},
            "required": ["says", "source", "mark"], "additionalProperties": False}},
        "sources": {"type": "object", "additionalProperties": {
            "type": "object", "properties": {"title": text, "where": text}, "required": ["title", "where"],
            "additionalProperties": False}},
        "common": {"$ref": "#/$defs/common"},
        "tests": {"type": "array", "items": {"$ref": "#/$defs/test"}},
    }
    return {
        "$schema": DIALECT, "$id": f"urn:seamref:{FORMAT}:{which.name}", "title": f"{which.title} ({FORMAT})",
        "type": "object", "properties": head, "required": list(head), "additionalProperties": False,
        "$defs": {
            "common": object_schema([item for item in which.input if item.name in common]),
            "input": object_schema([item for item in which.input if item.name not in common]),
            "output": object_schema(which.output), "answer": answer, "test": test,
        },
    }


# --- sets in the formats of recordings


def _put_recorded(files: dict[str, bytes], which: RecordedSet, small: bool) -> dict[str, Any]:
    document, flags = which.made(small)
    path = which.name
    clauses = clauses_document(flags)
    files[f"{path}/vectors.json"] = _lines({k: v for k, v in document.items() if k != "cases"}, "cases",
                                           document["cases"])
    files[f"{path}/schema.json"] = _json(recorded_schema(which))
    files[f"{path}/clauses.json"] = _json({
        "format": CLAUSES_FORMAT, "set": which.name, "generator": GENERATOR, "licence": LICENCE, "clauses": clauses,
        "sources": sources_of(clauses)})
    files[f"{path}/clauses.schema.json"] = _json(CLAUSES_SCHEMA)
    rows = [f"| `{id}` | {len(held['cases'])} | {_cell(held['says'])} | {_cell(held['source'])} | {held['mark']} |"
            for id, held in clauses.items()]
    files[f"{path}/README.md"] = _text(_page(which.title, which.about, [
        f"`vectors.json` ({which.format}) has {len(document['cases'])} cases, one a line; `schema.json` is its "
        f"schema.  "
        "`clauses.json` says which clauses the cases are about.",
        *_fields("The document", which.document), "## Clauses",
        "\n".join(["| Clause | Cases | What it says | Source | Mark |", "|---|---|---|---|---|", *rows])]))
    return {
        "set": which.name, "title": which.title, "kind": "recordings", "format": which.format,
        "file": f"{path}/vectors.json", "schema": f"{path}/schema.json", "readme": f"{path}/README.md",
        "tests": len(document["cases"]), "revisions": [],
    }


def recorded_schema(which: RecordedSet) -> dict[str, Any]:
    """JSON Schema of a document in a format of recordings, as the kit writes it."""
    return {"$schema": DIALECT, "$id": f"urn:seamref:{which.format}", "title": f"{which.title} ({which.format})",
            **object_schema(which.document)}


CLAUSES_SCHEMA: dict[str, Any] = {
    "$schema": DIALECT, "$id": f"urn:seamref:{CLAUSES_FORMAT}", "title": f"Clauses of a set ({CLAUSES_FORMAT})",
    "type": "object",
    "properties": {
        "format": {"const": CLAUSES_FORMAT}, "set": schema_of(Text()), "generator": schema_of(Text()),
        "licence": {"const": LICENCE},
        "clauses": {"type": "object", "additionalProperties": object_schema(CLAUSE_ROW)},
        "sources": {"type": "object", "additionalProperties": object_schema((
            Item("title", Text(), "as a library files it"), Item("where", Text(), "public place")))},
    },
    "required": ["format", "set", "generator", "licence", "clauses", "sources"], "additionalProperties": False,
}


# --- tables


def _put_table(files: dict[str, bytes], held: Table) -> dict[str, Any]:
    rows = list(held.rows())
    path = f"tables/{held.name}"
    head = {"format": TABLE_FORMAT, "table": held.name, "generator": GENERATOR, "licence": LICENCE,
            "title": held.title, "about": list(held.about)}
    files[f"{path}.json"] = _lines(head, "rows", rows)
    files[f"{path}.schema.json"] = _json(table_schema(held))
    files[f"{path}.md"] = _text(_page(held.title, held.about, [
        f"`{held.name}.json` ({TABLE_FORMAT}) has {len(rows)} rows, one a line; its schema is "
        f"`{held.name}.schema.json`.",
        *_fields("A row", held.row)]))
    return {"set": held.name, "title": held.title, "kind": "table", "format": TABLE_FORMAT, "file": f"{path}.json",
            "schema": f"{path}.schema.json", "readme": f"{path}.md", "tests": len(rows), "revisions": []}


def table_schema(held: Table) -> dict[str, Any]:
    """JSON Schema of a table's file."""
    text = {"type": "string", "minLength": 1}
    head = {"format": {"const": TABLE_FORMAT}, "table": {"const": held.name}, "generator": text,
            "licence": {"const": LICENCE}, "title": text, "about": {"type": "array", "items": text},
            "rows": {"type": "array", "items": {"$ref": "#/$defs/row"}}}
    return {"$schema": DIALECT, "$id": f"urn:seamref:{TABLE_FORMAT}:{held.name}",
            "title": f"{held.title} ({TABLE_FORMAT})", "type": "object", "properties": head, "required": list(head),
            "additionalProperties": False, "$defs": {"row": object_schema(held.row)}}


def _put_headers(files: dict[str, bytes], prefix: str) -> dict[str, Any]:
    """The C headers and the Rust file."""
    name = prefix.lower()
    made = {f"{HEADERS}/{name}.h": headers.c_header(prefix, GENERATOR), f"{HEADERS}/seamref.rs":
            headers.rust_header(GENERATOR)}
    for revision in REVISIONS:
        made[f"{HEADERS}/{name}_seamcall_{headers.word(revision).lower()}.h"] = headers.c_seamcall(
            revision, prefix)
    files.update({path: _text(text) for path, text in made.items()})
    rows = [f"- `{path.partition('/')[2]}`" for path in made]
    files[f"{HEADERS}/README.md"] = _text(_page(HEADERS_TITLE, (
        "Structures, MSRs, status codes, leaf numbers, VMCS fields and numbers of outcomes for C (C11, C++11) and Rust "
        "(1.77, no std); size and every offset of a structure are asserted when they are compiled.  What SEAMCALL "
        "does in "
        "each state is a table for each revision.",
        f"Every C name begins with `{name}_` or `{name.upper()}_`; `export --prefix NAME` chooses another one, so that "
        "headers of two kits can be included in one file.  Names that a revision decides have the revision in them, so "
        "that the tables of two revisions can be, too.  `seamref.rs` is included as a module: `mod seamref;`.",
    ), ["\n".join(rows)]))
    return {"set": HEADERS, "title": HEADERS_TITLE, "kind": "headers", "format": "C11 and Rust",
            "file": f"{HEADERS}/{name}.h", "schema": None, "readme": f"{HEADERS}/README.md", "tests": len(layouts()),
            "revisions": list(REVISIONS)}


INDEX: tuple[Item, ...] = (
    Item("set", Text(), "word for --only, and for consumers"),
    Item("title", Text(), "what it is about"),
    Item("kind", OneOf(("vectors", "table", "recordings", "headers")), "what the file holds"),
    Item("format", Text(), "format id and version of the file"),
    Item("file", Text(), "path of the file"),
    Item("schema", Maybe(Text()), "path of its schema, null for headers"),
    Item("readme", Text(), "path of the page that explains it"),
    Item("tests", Count(), "number of tests, of rows in a table, of structures in the headers"),
    Item("revisions", ListOf(Text()), "the revisions that its answers are given for"),
)
INDEX_SCHEMA: dict[str, Any] = {
    "$schema": DIALECT, "$id": f"urn:seamref:{KIT_FORMAT}", "title": f"The kit ({KIT_FORMAT})", "type": "object",
    "properties": {
        "format": {"const": KIT_FORMAT}, "generator": schema_of(Text()), "licence": {"const": LICENCE},
        "size": {"enum": ["full", "small"]},
        "sets": {"type": "array", "items": object_schema(INDEX)},
    },
    "required": ["format", "generator", "licence", "size", "sets"], "additionalProperties": False,
}


# --- pages


def _page(title: str, about: Sequence[str], parts: Sequence[str]) -> str:
    made_by = f"Made by {GENERATOR}, {LICENCE}."
    return "\n\n".join([f"# {title}", *(_one(text) for text in about), *parts, made_by]) + "\n"


def _one(text: str) -> str:
    return " ".join(text.split())


def _cell(text: str) -> str:
    return _one(text).replace("|", "\\|")


def _fields(title: str, items: Sequence[Item]) -> list[str]:
    rows = [f"| `{name}` | {_cell(kind)} | {_cell(meaning)} |" for name, kind, meaning in rows_of(items)]
    return [f"## {title}", "\n".join(["| Field | Type | Meaning |", "|---|---|---|", *rows])]


def set_page(which: VectorSet, document: Mapping[str, Any]) -> str:
    """The page that explains a set, from its declaration and from its tests."""
    tests = document["tests"]
    both = sum(len(test["answers"]) > 1 for test in tests)
    count = f"`vectors.json` ({FORMAT}) has {len(tests)} tests, one a line; `schema.json` is its schema."
    if len(which.revisions) > 1:
        count += f" In {both} of them the revisions do not give one answer."
    revisions = ["| Revision | What it is |", "|---|---|",
                 *(f"| `{name}` | {_cell(says)} |" for name, says in which.revisions.items())]
    decided: dict[str, int] = {}
    for test in tests:
        for flag in test["flags"]:
            decided[flag] = decided.get(flag, 0) + 1
    flags = ["| Flag | Tests | What it says | Source | Mark |", "|---|---|---|---|---|",
             *(f"| `{id}` | {decided[id]} | {_cell(held['says'])} | {_cell(held['source'])} | {held['mark']} |"
               for id, held in document["clauses"].items())]
    sources = ["| Tag | Document |", "|---|---|",
               *(f"| {tag} | {_cell(held['title'])}; {_cell(held['where'])} |"
                 for tag, held in document["sources"].items())]
    common = set(which.shared)
    parts = [count, "## Revisions", "\n".join(revisions)]
    if common:
        parts += _fields("Input that is the same in every test (`common`)",
                         [item for item in which.input if item.name in common])
    parts += _fields("Input", [item for item in which.input if item.name not in common])
    parts += _fields("Output", which.output)
    parts += ["## Flags", "\n".join(flags), "## Sources", "\n".join(sources)]
    return _page(which.title, which.about, parts)


def kit_page(document: Mapping[str, Any]) -> str:
    """The page of the whole kit."""
    rows = [f"| [{held['set']}]({held['readme']}) | {_cell(held['title'])} | `{held['format']}` | {held['tests']} |"
            for held in document["sets"]]
    return _page("The seamref kit", (
        "Vectors, tables and headers of Intel TDX's SEAM loading chain: what an emulator, a hypervisor, a firmware or "
        "a kernel can hold itself against, without our code.  `index.json` lists the sets for a program.",
        "A file of vectors says in its head what is common to its tests, which revisions of the documents it gives "
        "answers for, and what each clause id means.  A test is an `input` and, for each revision, an `output`: the "
        "whole input is `common` with the test's `input` over it.  `flags` are the clauses that decide.  An id stays "
        "what it is in later versions of the kit.",
        "Numbers that documents write in hexadecimal are strings `\"0x...\"` in capital digits; bytes in memory are "
        "hex digits in lower case, in the order of memory; counts, sizes and offsets are numbers.",
    ), ["\n".join(["| Set | About | Format | Tests |", "|---|---|---|---|", *rows]),
        f"`{MANIFEST}` has the hash of every file: `sha256sum -c {MANIFEST}`."])


__all__ = ["GENERATOR", "INDEX_SCHEMA", "KIT_FORMAT", "MANIFEST", "counts", "document_of", "kit", "kit_page",
           "manifest", "set_names", "set_page", "set_schema", "table", "table_schema", "titles"]
