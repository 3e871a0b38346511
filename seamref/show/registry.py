"""The appendices: everything the package declares, found by walking its modules, never typed twice."""

from __future__ import annotations

import ast
import inspect
import json
import pkgutil
import re
from collections.abc import Iterator
from enum import Enum, IntEnum
from functools import lru_cache
from html import escape
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import seamref
from seamref.arch.msr import DECLARED
from seamref.layout import Layout
from seamref.show.html import Hex, Html, Id, anchor, mark_of, marked_up, slug
from seamref.show.tables import Table, check_table, implementers, layout_table, msr_bits, msr_table, sourced
from seamref.spec import CLAUSES, SOURCES, TABLES, CheckTable, Mark, Source

ROOMS: dict[str, str] = {
    "arch": "The processor", "firmware": "Boot firmware and NP-SEAMLDR", "pseamldr": "P-SEAMLDR",
    "tdxmodule": "TDX module", "mint": "Images made for tests", "host": "Host", "diagnose": "Diagnosis",
    "conformance": "Conformance", "explore": "Explorer", "experiments": "Experiments",
}
"""Rooms of the package, lower ones first, and what they are."""

SKIPPED = ("seamref.__main__", "seamref.show", "seamref.commands")


@lru_cache(maxsize=1)
def modules() -> tuple[ModuleType, ...]:
    """Every module of the package but the command line and this toolkit, imported, in order of name."""
    names = sorted(
        info.name for info in pkgutil.walk_packages(seamref.__path__, "seamref.") if not info.name.startswith(SKIPPED)
    )
    return (seamref, *(import_module(name) for name in names))


def room_of(module: str) -> str:
    """The room a module belongs to; the core's own modules are in ""."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and parts[1] in ROOMS else ""


# --- structures


@lru_cache(maxsize=1)
def layouts() -> dict[str, list[tuple[str, Layout]]]:
    """Room -> (module, layout) of every declared structure, each once: in the lowest room that names it."""
    found: dict[str, list[tuple[str, Layout]]] = {room: [] for room in ROOMS}
    seen: set[int] = set()
    for module in sorted(modules(), key=lambda m: list(ROOMS).index(room_of(m.__name__) or "arch")):
        room = room_of(module.__name__)
        if not room:
            continue
        for value in vars(module).values():
            if isinstance(value, Layout) and id(value) not in seen:
                seen.add(id(value))
                found[room].append((module.__name__, value))
    return found


def structure_index() -> Table:
    """Every structure with its size, linked to its offsets below."""
    rows = [
        (_link(f"structure-{slug(layout.name)}", layout.name), layout.size, ROOMS[room], layout.doc.rstrip("."),
         layout.source)
        for room, held in layouts().items() for _, layout in held
    ]
    return Table(("structure", "bytes", "room", "what it is", "source"), rows)


def structures(room: str) -> Html:
    """The offset tables of one room."""
    parts, said, used = [], [], set()
    for _, layout in layouts()[room]:
        name = f"structure-{slug(layout.name)}"
        place = "" if name in used else f' id="{name}"'
        used.add(name)
        shown = layout_table(layout)
        parts.append(f"<div{place}>{shown.html}</div>")
        said.append(shown.text)
    if not parts:
        return Html("<p>This room declares no structure.</p>", "This room declares no structure.")
    return Html("".join(parts), "\n\n".join(said))


def _link(place: str, words: str) -> Html:
    return Html(f'<a href="#{place}"><code>{escape(words)}</code></a>', words)


# --- MSRs


def msr_details() -> Html:
    """The bit ranges of every MSR that has some."""
    shown = [msr_bits(msr) for msr in DECLARED if msr.bits]
    return Html("".join(part.html for part in shown), "\n\n".join(part.text for part in shown))


def all_msrs() -> Table:
    """Every MSR with its rules."""
    return msr_table()


# --- status codes


def _is_status(kind: type[Enum]) -> bool:
    return bool(re.search(r"(Status|Error|Errno|ExitReason|Vector|Efi|Objection|Misfit)$", kind.__name__))


@lru_cache(maxsize=1)
def statuses() -> tuple[tuple[str, type[Enum]], ...]:
    """(module, enumeration) of everything that names an outcome, in order of module; each once."""
    found: list[tuple[str, type[Enum]]] = []
    for module in modules():
        for value in vars(module).values():
            if (
                inspect.isclass(value) and issubclass(value, Enum) and value.__module__ == module.__name__
                and _is_status(value) and len(value)
            ):
                found.append((module.__name__, value))
    return tuple(found)


def status_index() -> Table:
    """Every set of status codes."""
    rows = [
        (_link(f"status-{slug(module)}-{slug(kind.__name__)}", kind.__name__), f"`{module}`", len(kind), _first(kind))
        for module, kind in statuses()
    ]
    return Table(("set", "declared in", "members", "what it is"), rows)


def status_tables(room: str) -> Html:
    """The members of every set of status codes of one room."""
    parts, said = [], []
    for module, kind in statuses():
        if room_of(module) != room:
            continue
        explained = any(getattr(member, "means", "") for member in kind)
        rows = [
            (f"`{member.name}`", _value(member), *([str(getattr(member, "means", ""))] if explained else []))
            for member in kind
        ]
        columns = ("name", "value", *(["meaning"] if explained else []))
        shown = Table(columns, rows, f"`{kind.__name__}`: {_first(kind)}")
        parts.append(f'<div id="status-{slug(module)}-{slug(kind.__name__)}">{shown.html}</div>')
        said.append(shown.text)
    if not parts:
        return Html("<p>This room declares no status codes.</p>", "This room declares no status codes.")
    return Html("".join(parts), "\n\n".join(said))


def _value(member: Enum) -> Any:
    value = member.value
    if isinstance(value, int):
        return Hex(value) if isinstance(member, IntEnum) and abs(value) > 255 else value
    return str(value)


def _first(thing: Any) -> str:
    """The first sentence of a docstring, without reStructuredText marks."""
    doc = (inspect.getdoc(thing) or "").split("\n\n")[0].replace("\n", " ")
    doc = re.sub(r":\w+:`~?([^`]+)`", lambda m: f"`{m.group(1).rpartition('.')[2]}`", doc)
    return doc.replace("``", "`")


# --- clauses, with coverage

COVERAGE_FILE = Path(seamref.__file__).resolve().parents[1] / "book" / "appendices" / "coverage.json"


def coverage() -> dict[str, dict[str, bool]]:
    """What the stored test run exercised: clause id -> row, silent, decided.  Empty where no run was stored."""
    if not COVERAGE_FILE.is_file():
        return {}
    data: dict[str, dict[str, bool]] = json.loads(COVERAGE_FILE.read_text(encoding="utf-8"))
    return data


def _exercised(clause_id: str, held: dict[str, dict[str, bool]]) -> str:
    row = held.get(clause_id)
    if row is None:
        return "declared only" if not implementers(clause_id) else "not counted yet"
    if not row["row"]:
        return "executed" if row["decided"] else "never executed"
    match row["silent"], row["decided"]:
        case True, True:
            return "both ways"
        case True, False:
            return "never decided"
        case False, True:
            return "never silent"
        case _:
            return "never asked"


def clause_families() -> list[str]:
    """What stands before the first dot of clause ids, sorted."""
    modules()
    return sorted({id.partition(".")[0] for id in CLAUSES})


def coverage_summary() -> Table:
    """How much of the specification the tests exercise, by room of the code that carries it."""
    modules()
    held = coverage()
    counts: dict[str, list[int]] = {}
    for id in CLAUSES:
        where = _room_of_clause(id)
        count = counts.setdefault(where, [0, 0, 0])
        said = _exercised(id, held)
        count[0] += 1
        count[1] += said in ("both ways", "executed")
        count[2] += said == "declared only"
    rows = [
        (ROOMS.get(room, "core"), total, complete, declared, total - complete - declared)
        for room, (total, complete, declared) in sorted(counts.items(), key=lambda item: list(ROOMS).index(item[0]))
    ]
    return Table(("room", "clauses", "exercised", "declared only", "left"), rows,
                 "A check row must have decided and have been silent; a function must have been executed.")


def _room_of_clause(clause_id: str) -> str:
    from seamref.spec import IMPLEMENTED_BY

    for function in IMPLEMENTED_BY.get(clause_id, []):
        room = room_of(function.__module__)
        if room:
            return room
    return "arch"


PAGES: dict[str, str] = {
    "arch": "processor", "firmware": "firmware", "pseamldr": "loader", "tdxmodule": "module", "host": "host",
}
"""Room -> the page of the book on which its clauses stand (``clauses_NAME``); what is in no room, the first."""


def page_of_clause(clause_id: str) -> str:
    """The page on which a clause stands, after the room of the code that carries it."""
    return PAGES.get(_room_of_clause(clause_id), PAGES["arch"])


def clauses_on(page: str) -> list[str]:
    """The clauses of one page, sorted by id."""
    modules()
    return sorted(id for id in CLAUSES if page_of_clause(id) == page)


def clause_page(page: str) -> Html:
    """The clauses of one page, each with its address: what it says, where from, who carries it, how tested."""
    held = coverage()
    parts, said, family = [family_index(page).html], [], ""
    for id in clauses_on(page):
        if id.partition(".")[0] != family:
            family = id.partition(".")[0]
            parts.append(f'<h3 id="family-{slug(family)}">{escape(family)}</h3>')
        clause = CLAUSES[id]
        carriers = [
            f'<a href="checks.html#table-{slug(name)}">{escape(name)} row {number}</a>'
            for name, table in TABLES.items() for number, row in enumerate(table, 1) if row.id == id
        ] or [f"<code>{escape(w.removeprefix('seamref.'))}</code>" for w in dict.fromkeys(implementers(id))]
        by, tried = ", ".join(carriers) or "no code", _exercised(id, held)
        parts.append(
            f'<div class="seam-entry" id="{escape(id)}"><p><span id="{anchor(id)}"></span><code>{escape(id)}</code>'
            f'<a class="headerlink" href="#{escape(id)}" title="Link to this clause">#</a> {mark_of(clause)}</p>'
            f'<p>{marked_up(clause.says)}</p><p class="seam-from">Source: <span class="seam-cite-of">'
            f'{escape(clause.source)}</span>. Carried by {by}; {tried}.</p>'
            f'<p class="seam-used" data-clause="{escape(id)}"></p></div>'
        )
        said.append(f"{id}: {clause.says} [{sourced(clause.source, clause.mark)}] {_exercised(id, held)}")
    return Html("".join(parts), "\n".join(said))


REDIRECT = """<script>(() => { const go = () => { const at = document.getElementById(decodeURIComponent(
location.hash.slice(1))); const link = at && at.closest("li[data-clause]"); if (link) location.replace(
link.querySelector("a").href); }; window.addEventListener("hashchange", go); go(); })();</script>"""
"""A mail quotes ``clauses#ID``: whoever comes with an id is taken to the page where the clause stands."""


def clause_addresses() -> Html:
    """Every clause by its id, as a link to where it stands; the address ``clauses#ID`` stays, however pages are cut."""
    modules()
    links = []
    for id in sorted(CLAUSES):
        page = f"clauses_{page_of_clause(id)}.html#{escape(id)}"
        links.append(
            f'<li id="{escape(id)}" data-clause><span id="{anchor(id)}"></span>'
            f'<a href="{page}"><code>{escape(id)}</code></a></li>'
        )
    return Html(f'<ul class="seam-addresses">{"".join(links)}</ul>{REDIRECT}', "\n".join(sorted(CLAUSES)))


def family_index(page: str) -> Html:
    """The families of clauses of one page as links, with how many each has."""
    ids = clauses_on(page)
    links, said = [], []
    for family in sorted({id.partition(".")[0] for id in ids}):
        count = sum(id.partition(".")[0] == family for id in ids)
        links.append(f'<a href="#family-{slug(family)}"><code>{escape(family)}</code></a> {count}')
        said.append(family)
    return Html(f'<p style="line-height:2">{" · ".join(links)}</p>', ", ".join(said))


# --- how well the clauses are known


def marks_summary() -> Table:
    """How many clauses of each room are stated, measured and chosen."""
    modules()
    counts: dict[str, dict[Mark, int]] = {}
    for id, clause in CLAUSES.items():
        row = counts.setdefault(_room_of_clause(id), dict.fromkeys(Mark, 0))
        row[clause.mark] += 1
    rows = [
        (ROOMS.get(room, "core"), *(counts[room][mark] for mark in Mark), sum(counts[room].values()))
        for room in sorted(counts, key=list(ROOMS).index)
    ]
    marks = [clause.mark for clause in CLAUSES.values()]
    total = ("all", *(marks.count(mark) for mark in Mark), len(marks))
    return Table(("room", *(mark.value for mark in Mark), "clauses"), [*rows, total],
                 "Clauses by room and by how they are known")


def marked_clauses(mark: Mark) -> Table:
    """Every clause with one mark."""
    modules()
    rows = [(Id(id), clause.says, clause.source) for id, clause in sorted(CLAUSES.items()) if clause.mark is mark]
    return Table(("clause", "says", "source"), rows, f"Clauses that are {mark.value}")


# --- check tables


def tables_of(room: str) -> list[CheckTable[Any, Any]]:
    """The check tables whose rows one room carries, in order of name."""
    modules()
    return [t for name, t in sorted(TABLES.items()) if t.rows and _room_of_clause(t.rows[0].id) == room]


def check_tables(room: str) -> Html:
    """Every ordered list of conditions of one room."""
    shown = [(t.name, check_table(t)) for t in tables_of(room)]
    if not shown:
        return Html("<p>This room has no check table.</p>", "This room has no check table.")
    html = "".join(f'<h3 id="table-{slug(name)}">{escape(name)}</h3>{part.html}' for name, part in shown)
    return Html(html, "\n\n".join(part.text for _, part in shown))


# --- sources


def bibliography() -> Table:
    """Every public source: what it is, where it is, and how many clauses cite it."""
    modules()
    cited: dict[str, int] = {}
    for clause in CLAUSES.values():
        for part in clause.source.split(";"):
            tag = part.strip().split(" ")[0].rstrip(",")
            cited[tag] = cited.get(tag, 0) + 1
    rows = [(f"`{s.tag}`", s.title, _at(s), cited.get(s.tag, 0)) for s in SOURCES.values()]
    return Table(("tag", "title", "where", "clauses"), rows, ids=[f"source-{slug(s.tag)}" for s in SOURCES.values()])


def _at(source: Source) -> Html:
    place = source.url
    return Html(f'<a href="{escape(place)}">{escape(source.where)}</a>' if place else escape(source.where),
                f"{source.where} <{place}>" if place else source.where)


# --- module reference


def module_reference(room: str) -> Html:
    """The modules of one room: what each is, and its public functions and classes with their first sentence.

    Read from the source, so that nothing depends on what has been imported.
    """
    folder = Path(seamref.__file__).parent
    paths = sorted((folder / room).rglob("*.py")) if room else sorted(folder.glob("*.py"))
    parts, said = [], []
    for path in paths:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        name = ".".join(("seamref", *path.relative_to(folder).with_suffix("").parts)).removesuffix(".__init__")
        doc = _clean(ast.get_docstring(tree) or "")
        rows = [(f"`{node.name}`", kind, _clean(ast.get_docstring(node) or "")) for node, kind in _public(tree)]
        members = Table(("name", "kind", "says"), rows) if rows else None
        parts.append(
            f'<h3 id="module-{slug(name)}"><code>{escape(name)}</code></h3><p>{marked_up(doc)}</p>'
            + (members.html if members else "")
        )
        said += [f"{name}: {doc}", *([members.text] if members else []), ""]
    return Html("".join(parts), "\n".join(said))


def _public(tree: ast.Module) -> Iterator[tuple[ast.FunctionDef | ast.ClassDef, str]]:
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            yield node, "class" if isinstance(node, ast.ClassDef) else "function"


def _clean(doc: str) -> str:
    first = doc.split("\n\n")[0].replace("\n", " ")
    first = re.sub(r":\w+:`~?([^`]+)`", lambda m: f"`{m.group(1).rpartition('.')[2]}`", first)
    return first.replace("``", "`")


__all__ = [
    "ROOMS", "all_msrs", "bibliography", "check_tables", "clause_addresses", "clause_page", "clauses_on",
    "coverage_summary", "family_index", "marked_clauses", "marks_summary", "page_of_clause",
    "layouts", "module_reference", "modules", "msr_details", "status_index", "status_tables", "statuses",
    "structure_index", "structures", "tables_of",
]
