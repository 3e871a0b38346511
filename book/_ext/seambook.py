"""What the rendered book adds to its chapters: addresses, links, hover text and back-links.

Chapters and their stored outputs name things by id: a clause, a structure, an MSR, a status code, a source, a
function shown with ``show()``.  This extension knows from the package where each stands, and does the rest while a
page is written, so that no stored output depends on a line number or on what another chapter says.

* every clause, structure, MSR and status code is an object of the inventory and of the search, and a link with hover
  text wherever its id stands in code face;
* sources become links, once below a table instead of once a row;
* terms of the glossary are linked where a chapter uses them first;
* code shown with ``show()`` has an anchor, its line and a link to the file, which is rendered beside the book;
* a clause says which chapters and tests use it.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache, lru_cache
from html import escape, unescape
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.parsers.rst.roles import set_classes
from sphinx.application import Sphinx
from sphinx.domains import Domain, ObjType

ROOT = Path(__file__).resolve().parents[2]
STATIC = Path(__file__).resolve().parent / "static"
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

PLACE = "book/appendices/"
GLOSSARY = PLACE + "glossary"


@dataclass(frozen=True, slots=True)
class Target:
    """Something that has an address: where it is, and what a reader sees who points at its name."""

    kind: str
    name: str
    page: str
    anchor: str
    hover: str


@dataclass(slots=True)
class Known:
    """Everything that can be linked to, read once from the package."""

    targets: dict[str, Target] = field(default_factory=dict)
    """Name as it stands in code face -> target; names of two things are left out."""
    objects: list[Target] = field(default_factory=list)
    chapters: dict[str, list[str]] = field(default_factory=dict)
    """Clause id -> pages that name it."""
    tests: dict[str, list[str]] = field(default_factory=dict)
    """Clause id -> tests that are named for it or name it."""
    old: dict[str, str] = field(default_factory=dict)
    """Old anchor of a clause -> its id."""


@lru_cache(maxsize=1)
def known() -> Known:
    from seamref.arch.msr import DECLARED
    from seamref.show import registry
    from seamref.show.html import anchor, slug
    from seamref.spec import CLAUSES

    registry.modules()
    made = Known()
    for id, clause in CLAUSES.items():
        hover = f"{clause.says} [{clause.source}, {clause.mark.value}]"
        page = f"{PLACE}clauses_{registry.page_of_clause(id)}"
        made.objects.append(Target("clause", id, page, id, hover))
        made.old[anchor(id)] = id
    for held in registry.layouts().values():
        for name, layout in {layout.name: layout for _, layout in held}.items():
            hover = f"{layout.size} bytes. {layout.doc}"
            made.objects.append(Target("structure", name, PLACE + "structures", f"structure-{slug(name)}", hover))
    for msr in DECLARED:
        hover = f"MSR 0x{msr.address:X}: {msr.meaning}"
        made.objects.append(Target("msr", msr.name, PLACE + "msrs", f"msr-{slug(msr.name)}", hover))
    for module, kind in registry.statuses():
        for member in kind:
            value = f"0x{member.value:X}" if isinstance(member.value, int) and member.value >= 0 else str(member.value)
            hover = ". ".join(filter(None, (f"{kind.__name__}: {value}", str(getattr(member, "means", "")))))
            place = f"status-{slug(module)}-{slug(kind.__name__)}-{slug(member.name)}"
            made.objects.append(Target("status", member.name, PLACE + "status", place, hover))
    count: dict[str, int] = {}
    for one in made.objects:
        count[one.name] = count.get(one.name, 0) + 1
    made.targets = {one.name: one for one in made.objects if count[one.name] == 1 or one.kind == "clause"}
    _used_in(made, CLAUSES)
    return made


def _used_in(made: Known, clauses: dict[str, Any]) -> None:
    named = re.compile(r"\b[A-Za-z][\w-]*(?:\.[\w\[\]-]+)+")
    for path in sorted((ROOT / "book").rglob("*.ipynb")):
        page = path.relative_to(ROOT).with_suffix("").as_posix()
        if page.startswith(PLACE) or any(part.startswith(".") for part in path.parts[len(ROOT.parts):]):
            continue
        text = path.read_text(encoding="utf-8")
        for id in sorted({word.rstrip(".") for word in named.findall(text)} & set(clauses)):
            made.chapters.setdefault(id, []).append(page)
    slugs = {re.sub(r"\W", "_", id): id for id in clauses}
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        text = path.read_text(encoding="utf-8")
        where = path.relative_to(ROOT).as_posix()
        for name in re.findall(r"def (test_\w+)", text):
            id = slugs.get(name.removeprefix("test_").partition("__")[0])
            if id:
                made.tests.setdefault(id, []).append(f"{where}::{name}")
        for id in sorted({word.rstrip(".") for word in named.findall(text)} & set(clauses)):
            if not any(held.startswith(where) for held in made.tests.get(id, ())):
                made.tests.setdefault(id, []).append(where)


# ---------------------------------------------------------------- objects: inventory and search


class SeamDomain(Domain):
    """Clauses, structures, MSRs and status codes as objects, so that the search and other books find them by name."""

    name = "seam"
    label = "SEAM"
    object_types = {  # noqa: RUF012
        "clause": ObjType("clause", "clause"), "structure": ObjType("structure", "structure"),
        "msr": ObjType("MSR", "msr"), "status": ObjType("status code", "status"),
    }

    def get_objects(self) -> Iterator[tuple[str, str, str, str, str, int]]:
        for one in known().objects:
            if one.page in self.env.found_docs:
                yield one.name, one.name, one.kind, one.page, one.anchor, 1

    def merge_domaindata(self, docnames: Any, otherdata: Any) -> None:
        """Nothing is stored: objects come from the package."""


# ---------------------------------------------------------------- pages

PARTS = re.compile(
    r"(?P<kept><(?P<tag>pre|svg|script|style|summary|h[1-6]|a)\b[^>]*>.*?</(?P=tag)>)"
    r'|<code\b[^>]*>(?:<span class="pre">)?(?P<name>[^<]{2,90})(?:</span>)?</code>'
    r"|<td>(?P<cell>[A-Za-z][\w-]*(?:\.[\w\[\]-]+)+)</td>"
    r"|(?P<table><table\b)",
    re.DOTALL,
)
CLAUSE_LINK = re.compile(r'<a href="[^"]*clauses\.html#(clause-[\w-]+)">(.*?)</a>', re.DOTALL)
TABLE = re.compile(r'<table class="dataframe seam-table">.*?</table>', re.DOTALL)
ROW = re.compile(r"<tr\b[^>]*>.*?</tr>", re.DOTALL)
CELL = re.compile(r"<(t[dh])\b([^>]*)>(.*?)</\1>", re.DOTALL)
SHOWN = re.compile(r'<div class="seam-src"><div class="seam-src-title">([\w/]+)\.py · ([\w.<>]+)</div>')
HEADING = re.compile(r"<h[1-6][^>]*>(.*?)<a\b|<h[1-6][^>]*>(.*?)</h[1-6]>", re.DOTALL)


LEVELS = re.compile(r"<(/?)h([1-6])\b")


def levelled(body: str) -> str:
    """No heading skips a level: an output says h3 wherever its chapter puts it, below a page's title too."""
    open_: list[tuple[int, int]] = []  # the headings above this one: level as written, level as it stands
    end = 0

    def one(found: re.Match[str]) -> str:
        nonlocal end
        if found.group(1):
            return f"</h{end}"
        level = int(found.group(2))
        while open_ and open_[-1][0] >= level:
            open_.pop()
        end = open_[-1][1] + 1 if open_ else level
        open_.append((level, end))
        return f"<h{end}"

    return LEVELS.sub(one, body)


class Writer:
    """One page on its way out."""

    def __init__(self, app: Sphinx, page: str) -> None:
        self.app, self.page = app, page
        self.code: set[str] = set()

    def uri(self, page: str, anchor: str = "") -> str:
        return self.app.builder.get_relative_uri(self.page, page) + (f"#{anchor}" if anchor else "")

    def run(self, body: str) -> str:
        body = self._named_boxes(body).replace('<th scope="col"></th>', "<td></td>").replace("<th></th>", "<td></td>")
        if self.page == PLACE + "status":
            body = self._status_rows(body)
        body = TABLE.sub(lambda m: self._table(m.group(0)), body)
        body = SHOWN.sub(self._shown, body)
        body = re.sub(r'<div class="seam-cite"( title="[^"]*")?>([^<]*)</div>',
                      lambda m: f'<div class="seam-cite">{self.cite(unescape(m.group(2)))}</div>', body)
        body = re.sub(r'<span class="seam-cite-of">([^<]*)</span>', lambda m: self.cite(unescape(m.group(1))), body)
        body = re.sub(r'<p class="seam-used" data-clause="([^"]+)"></p>', lambda m: self._used(unescape(m.group(1))),
                      body)
        return levelled(self._references(body))

    # --- boxes that scroll, and what hides

    def _named_boxes(self, body: str) -> str:
        """Boxes are groups named after what they hold; a table without a caption is named after its heading."""
        out, at, heading = [], 0, ""
        for found in re.finditer(
            r'<h[1-6][^>]*>.*?</h[1-6]>|role="region" aria-label="([^"]*)"'
            r'|<summary aria-label="Toggle hidden content">\s*(.*?)\s*</summary>', body, re.DOTALL,
        ):
            text = found.group(0)
            out.append(body[at:found.start()])
            at = found.end()
            if text.startswith("<h"):
                heading = re.sub(r"<[^>]+>|#$", "", re.sub(r'<a class="headerlink".*?</a>', "", text)).strip()
            elif text.startswith("role"):
                label = found.group(1)
                if not label or label.startswith("Table: "):
                    label = ": ".join(filter(None, (heading, label.removeprefix("Table: "))))
                text = f'role="group" aria-label="{label}"'
            else:
                solution = "Show a solution" if "xercise" in heading else "Show the code"
                said = found.group(2).replace("Show code cell content", solution)
                said = said.replace("Show code cell source", "Show the code")
                text = f"<summary>{said}</summary>"
            out.append(text)
        return "".join([*out, body[at:]])

    # --- tables

    def _table(self, text: str) -> str:
        if self.page == PLACE + "msrs":
            text = self._msr_rows(text)
        rows = ROW.findall(text)
        head = CELL.findall(rows[0]) if rows and "<th" in rows[0] else []
        names = [re.sub(r"<[^>]+>", "", cell[2]).strip() for cell in head]
        if "source" not in names:
            return text
        column = names.index("source")
        body = [row for row in rows[1:] if len(CELL.findall(row)) == len(head)]
        values = [CELL.findall(row)[column][2] for row in body]
        distinct = [value for value in dict.fromkeys(values) if value]
        if not distinct:
            return text
        alone = len(distinct) == 1
        numbers = {value: number for number, value in enumerate(distinct, 1)}
        made = [self._without(rows[0], column, None if alone else "<th scope=\"col\">src</th>")]
        for row, value in zip(body, values, strict=True):
            made.append(self._without(row, column, None if alone else f"<td>{numbers.get(value, '')}</td>"))
        cites = [self.cite(unescape(re.sub(r"<[^>]+>", "", value))) for value in distinct]
        said = cites[0] if alone else " ".join(
            f'<span class="seam-note">{number}: {cite}</span>' for number, cite in enumerate(cites, 1))
        span = len(head) - (1 if alone else 0)
        caption = re.search(r"<caption>.*?</caption>", text, re.DOTALL)
        return (
            f'<table class="dataframe seam-table">{caption.group(0) if caption else ""}<thead>{made[0]}</thead>'
            f'<tbody>{"".join(made[1:])}</tbody><tfoot><tr><td colspan="{span}" class="seam-sources">'
            f'{"Source" if alone else "Sources"}: {said}</td></tr></tfoot></table>'
        )

    @staticmethod
    def _without(row: str, column: int, instead: str | None) -> str:
        cells = list(CELL.finditer(row))
        held = cells[column]
        return row[:held.start()] + (instead or "") + row[held.end():]

    def _msr_rows(self, text: str) -> str:
        def row(found: re.Match[str]) -> str:
            name = re.search(r"</td><td><code>([^<]+)</code>", found.group(2))
            target = known().targets.get(name.group(1)) if name else None
            if target is None or target.kind != "msr" or target.name in self.code:
                return found.group(0)
            self.code.add(target.name)
            return f'<tr id="{target.anchor}">{found.group(2)}'

        return re.sub(r"<tr()>(<td><code>0x[0-9A-F]+</code></td><td>.*?</td>)", row, text, flags=re.DOTALL)

    @staticmethod
    def _status_rows(body: str) -> str:
        from seamref.show.html import slug

        parts = re.split(r'(?=<div id="status-)', body)
        for index, part in enumerate(parts):
            place = re.match(r'<div id="([\w-]+)"', part)
            if place:
                row = f'<tr id="{place.group(1)}-'
                for name in dict.fromkeys(re.findall(r"<tr><td><code>(\w+)</code>", part)):
                    part = part.replace(f"<tr><td><code>{name}</code>", f'{row}{slug(name)}"><td><code>{name}</code>')
                parts[index] = part
        return "".join(parts)

    # --- sources

    def cite(self, text: str) -> str:
        """A clause's source as links; what is in no public place of its own leads to the bibliography."""
        from seamref.show.html import slug
        from seamref.spec import address, cited

        made = []
        mark = re.search(r" \((?:measured|chosen|stated)\)$", text)
        for part, source in cited(text[: mark.start()] if mark else text):
            if source is None:
                made.append(escape(part))
                continue
            place = address(part) or self.uri(PLACE + "bibliography", f"source-{slug(source.tag)}")
            title = f"{source.title}: {source.where}"
            made.append(f'<a class="seam-source" href="{escape(place)}" title="{escape(title)}">{escape(part)}</a>')
        return "; ".join(made) + (mark.group(0) if mark else "")

    # --- code

    def _shown(self, found: re.Match[str]) -> str:
        path, name = found.group(1), found.group(2)
        line = lines(path).get(name, 0)
        place = f"code-{name}" if f"code-{name}" not in self.code else ""
        self.code.add(place)
        up = "../" * self.page.count("/")
        if (ROOT / path).is_dir():
            path += "/__init__"
        file = f'{up}source/{path}.html' + (f"#L-{line}" if line else "")
        here = f'<a class="headerlink" href="#{place}" title="Link to this code">#</a>' if place else ""
        return (
            f'<div class="seam-src"{f" id={chr(34)}{place}{chr(34)}" if place else ""}><div class="seam-src-title">'
            f'<a href="{file}" title="The whole file">{path}.py</a>{f", line {line}" if line else ""} · {escape(name)}'
            f"{here}</div>"
        )

    # --- back-links of a clause

    def _used(self, id: str) -> str:
        data = known()
        chapters = [
            f'<a href="{self.uri(page)}">{escape(title_of(self.app, page))}</a>' for page in data.chapters.get(id, ())
        ]
        tests = []
        for test in data.tests.get(id, ())[:6]:
            path, _, name = test.partition("::")
            tests.append(f'<code title="{escape(path)}">{escape(name or path)}</code>')
        more = len(data.tests.get(id, ())) - len(tests)
        said = []
        if chapters:
            said.append("In " + ", ".join(chapters))
        if tests:
            said.append("Tested by " + ", ".join(tests) + (f" and {more} more" if more > 0 else ""))
        return f'<p class="seam-used">{". ".join(said)}.</p>' if said else ""

    # --- names

    def _references(self, body: str) -> str:
        data, seen = known(), set()

        def part(found: re.Match[str]) -> str:
            text = found.group(0)
            if found.group("table"):
                seen.clear()
                return text
            if found.group("kept"):
                if found.group("tag") == "h2":
                    seen.clear()
                if found.group("tag") == "a":
                    return CLAUSE_LINK.sub(old_link, text)
                return text
            if found.group("cell"):
                target = data.targets.get(unescape(found.group("cell")))
                cell = f"<code>{found.group('cell')}</code>"
                return f"<td>{link(target, cell)}</td>" if target and target.kind == "clause" else text
            target = data.targets.get(unescape(found.group("name")))
            own = self.page.startswith(PLACE + "clauses")
            if target is None or (target.page == self.page and (own or target.kind != "clause")):
                return text
            if target.kind != "clause" and target.name in seen:
                return text
            seen.add(target.name)
            return link(target, text)

        def link(target: Target, inner: str) -> str:
            return (
                f'<a class="seam-ref" href="{self.uri(target.page, target.anchor)}" '
                f'title="{escape(target.hover)}">{inner}</a>'
            )

        def old_link(found: re.Match[str]) -> str:
            target = data.targets.get(data.old.get(found.group(1), ""))
            return link(target, found.group(2)) if target else found.group(0)

        return PARTS.sub(part, body)


def title_of(app: Sphinx, page: str) -> str:
    title = app.env.titles.get(page)
    return title.astext() if title is not None else page


@cache
def lines(path: str) -> dict[str, int]:
    """Qualified name -> first line of its definition, in one file of the package."""
    file = ROOT / f"{path}.py"
    if not file.is_file():
        file = ROOT / path / "__init__.py"
    if not file.is_file():
        return {}
    found: dict[str, int] = {}

    def walk(body: list[ast.stmt], prefix: str) -> None:
        for node in body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                found[prefix + node.name] = min([node.lineno, *(d.lineno for d in node.decorator_list)])
                inner = ".<locals>." if isinstance(node, ast.FunctionDef) else "."
                walk(node.body, prefix + node.name + inner)

    walk(ast.parse(file.read_text(encoding="utf-8")).body, "")
    return found


def write_page(app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: Any) -> None:
    if doctree is not None and context.get("body"):
        context["body"] = Writer(app, pagename).run(context["body"])


# ---------------------------------------------------------------- the glossary


@lru_cache(maxsize=1)
def terms() -> dict[str, tuple[str, str]]:
    """Term -> (anchor, definition as plain text), from the glossary's own text."""
    text = (ROOT / f"{GLOSSARY}.md").read_text(encoding="utf-8")
    found: dict[str, tuple[str, str]] = {}
    for names, said in re.findall(r"((?:^\S[^\n]*\n)+)  (\S.*?)(?=\n\n|\n```)", text, re.DOTALL | re.MULTILINE):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)|[`*]", r"\1", said).replace("\n", " ").replace(" See .", "").strip()
        for name in names.split("\n"):
            if name and not name.startswith("```"):
                found[name] = (nodes.make_id(name), plain)
    return found


def link_terms(app: Sphinx, doctree: nodes.document, page: str) -> None:
    """Link the first use of each term in the text of a chapter."""
    if page == GLOSSARY or app.builder.format != "html":
        return
    held = {name.casefold(): (node_id) for name, node_id in _term_ids(app).items()}
    left = {name: said for name, (_, said) in terms().items() if name.casefold() in held}
    if not left:
        return
    forbidden = (nodes.reference, nodes.title, nodes.literal_block, nodes.raw, nodes.math, nodes.term)
    pattern = re.compile(r"(?<![\w-])(" + "|".join(map(re.escape, sorted(left, key=len, reverse=True))) + r")(?![\w-])")
    for text in list(doctree.findall(nodes.Text)):
        parents = []
        up = text.parent
        while up is not None:
            parents.append(up)
            up = up.parent
        if any(isinstance(p, forbidden) for p in parents) or not any(isinstance(p, nodes.paragraph) for p in parents):
            continue
        in_code = isinstance(text.parent, nodes.literal)
        words = text.astext()
        if in_code:
            if words in left:
                said = left.pop(words)
                _replace(text.parent, [_term(app, page, held[words.casefold()], text.parent.deepcopy(), said)])
            continue
        made: list[nodes.Node] = []
        at = 0
        for found in pattern.finditer(words):
            name = found.group(1)
            if name not in left:
                continue
            said = left.pop(name)
            made += [nodes.Text(words[at:found.start()]),
                     _term(app, page, held[name.casefold()], nodes.Text(name), said)]
            at = found.end()
        if made:
            _replace(text, [*made, nodes.Text(words[at:])])


def _term_ids(app: Sphinx) -> dict[str, str]:
    return {name: place for name, _, kind, page, place, _ in app.env.get_domain("std").get_objects()
            if kind == "term" and page == GLOSSARY}


def _term(app: Sphinx, page: str, place: str, inner: nodes.Node, said: str) -> nodes.reference:
    uri = app.builder.get_relative_uri(page, GLOSSARY) + f"#{place}"
    made = nodes.reference("", "", internal=True, refuri=uri, reftitle=said, classes=["seam-term"])
    made += inner
    return made


def _replace(old: nodes.Node, new: list[nodes.Node]) -> None:
    parent = old.parent
    index = parent.index(old)
    parent[index:index + 1] = new


# ---------------------------------------------------------------- citations in prose


def cite_role(name: str, rawtext: str, text: str, lineno: int, inliner: Any, options: Any = None, content: Any = ()
              ) -> tuple[list[nodes.Node], list[nodes.system_message]]:
    """``{cite}`TAG section` ``: a declared source, one click away.  An unknown tag is an error of the build."""
    from seamref.spec import address, cited

    made: list[nodes.Node] = [nodes.Text("[")]
    for index, (part, source) in enumerate(cited(text)):
        if source is None:
            return [], [inliner.reporter.error(f"no source is declared as {part.split()[0]!r}", line=lineno)]
        if index:
            made.append(nodes.Text("; "))
        place = address(part)
        options = {"classes": ["seam-source"]}
        set_classes(options)
        if place:
            made.append(nodes.reference("", part, refuri=place, reftitle=source.title, **options))
        else:
            made.append(nodes.inline("", part, **options))
    return [*made, nodes.Text("]")], []


# ---------------------------------------------------------------- the source, rendered beside the book

SHELL = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title} - SEAM, executed</title><link rel="stylesheet" href="{up}source.css"></head>
<body><main><h1>{title}</h1><p><a href="{up}../index.html">SEAM, executed</a>. Text and code: Apache-2.0. Not affiliated
with Intel.</p><div role="group" tabindex="0" aria-label="Source of {title}">{code}</div></main></body></html>
"""
SOURCE_CSS = """:root{{color-scheme:light dark}} body{{margin:1rem auto;max-width:75rem;padding:0 1rem;
font-family:sans-serif;line-height:1.45}} pre{{overflow-x:auto;font-size:.85rem}} :target{{outline:2px solid #c98a1b}}
{light}
@media (prefers-color-scheme:dark){{{dark}}}
"""
PLAIN = re.compile(r'<span class="(?:n|p|w|nn)">([^<]*)</span>')  # drawn in the colour of the text itself
PLACE_OF_LINE = re.compile(r'<a id="(L-\d+)" name="L-\d+"></a><span class="linenos">')


def write_source(app: Sphinx, problem: Exception | None) -> None:
    """The package's files as pages with an anchor for each line."""
    if problem is not None or app.builder.format != "html":
        return
    from pygments import highlight
    from pygments.formatters import HtmlFormatter
    from pygments.lexers import PythonLexer

    form = HtmlFormatter(linenos="inline", lineanchors="L", anchorlinenos=False, style="a11y-high-contrast-light")
    light = form.get_style_defs(".highlight")
    dark = HtmlFormatter(style="a11y-high-contrast-dark").get_style_defs(".highlight")
    home = Path(app.outdir) / "source"
    home.mkdir(parents=True, exist_ok=True)
    (home / "source.css").write_text(SOURCE_CSS.format(light=light, dark=dark), encoding="utf-8")
    for file in sorted((ROOT / "seamref").rglob("*.py")):
        name = file.relative_to(ROOT).with_suffix("").as_posix()
        out = home / f"{name}.html"
        out.parent.mkdir(parents=True, exist_ok=True)
        code = PLAIN.sub(r"\1", highlight(file.read_text(encoding="utf-8"), PythonLexer(), form))
        code = PLACE_OF_LINE.sub(r'<span class="linenos" id="\1">', code)
        out.write_text(SHELL.format(title=f"{name}.py", up="../" * name.count("/"), code=code), encoding="utf-8")


def configure(app: Sphinx, config: Any) -> None:
    config.html_static_path = [*config.html_static_path, str(STATIC)]


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_domain(SeamDomain)
    app.add_role("cite", cite_role)
    app.add_css_file("seambook.css")
    app.connect("config-inited", configure)
    app.connect("doctree-resolved", link_terms)
    app.connect("html-page-context", write_page, priority=400)
    app.connect("build-finished", write_source)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
