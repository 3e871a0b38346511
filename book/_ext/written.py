"""What becomes of an output on its way to a page: addresses, links, hover text and back-links.

Imports nothing of Sphinx: the book's build (``seambook``) writes its pages with it, and the page's own Python, in the
reader's browser, writes with it what a live cell gives, so that both look the same.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from html import escape, unescape
from pathlib import Path
from posixpath import dirname, relpath

PLACE = "book/appendices/"


def root() -> Path:
    """The folder that holds the package and the book."""
    import seamref

    return Path(seamref.__file__).resolve().parents[1]


def relative(page: str, to: str) -> str:
    """From one page to another, as Sphinx's HTML builder has it."""
    return relpath(f"{to}.html", dirname(page) or ".")


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


PARTS = re.compile(
    r"(?P<kept><(?P<tag>pre|svg|script|style|summary|h[1-6]|a)\b[^>]*>.*?</(?P=tag)>)"
    r'|<code\b[^>]*>(?:<span class="pre">)?(?P<name>[^<]{2,90})(?:</span>)?</code>'
    r"|<td>(?P<cell>[A-Za-z][\w-]*(?:\.[\w\[\]-]+)+)</td>"
    r"|(?P<table><table\b)"
    r"|(?<![\w/.-])(?P<repository>canonical/tdx|(?:intel/)?tdx-module|tinfoil-go|tdx-tools),?\s+issues?\s+"
    r"(?P<issues>\d+(?:(?:,|\s+and)\s+\d+)*)(?![^<>]*>)"
    r"|(?<![\w/@.+-])(?P<message>[\w.+-]{12,}(?:@|&#64;)(?:[\w-]+\.)+(?:com|org|net))\b(?![^<>]*>)"
    r"|intel/confidential-computing\.tdx\.tdx-module\s+tag\s+(?P<release>TDX_MODULE_[\d.]*\d)(?![^<>]*>)"
    r"|torvalds/linux\s+(?:commit\s+)?(?P<commit>[0-9a-f]{12,40})\b(?![^<>]*>)",
    re.DOTALL,
)
TRACKERS = {
    "canonical/tdx": "canonical/tdx", "tinfoil-go": "tinfoilsh/tinfoil-go", "tdx-tools": "intel/tdx-tools",
    "intel/tdx-module": "intel/confidential-computing.tdx.tdx-module",
    "tdx-module": "intel/confidential-computing.tdx.tdx-module",
}
"""Where the issues are that a chapter names by repository and number."""
MESSAGE = re.compile(r"[\w.+-]{12,}@(?:[\w-]+\.)+(?:com|org|net)")
CLAUSE_LINK = re.compile(r'<a href="[^"]*clauses\.html#(clause-[\w-]+)">(.*?)</a>', re.DOTALL)
TABLE = re.compile(r'<table class="dataframe seam-table">.*?</table>', re.DOTALL)
ROW = re.compile(r"<tr\b[^>]*>.*?</tr>", re.DOTALL)
CELL = re.compile(r"<(t[dh])\b([^>]*)>(.*?)</\1>", re.DOTALL)
SHOWN = re.compile(r'<div class="seam-src"><div class="seam-src-title">([\w/]+)\.py · ([\w.<>]+)</div>')
HEADING = re.compile(r"<h[1-6][^>]*>(.*?)<a\b|<h[1-6][^>]*>(.*?)</h[1-6]>", re.DOTALL)


LONG = re.compile(r"(<(code|a|caption)\b.*?</\2>)|(?<=[>\s(])[\w/.,=]{20,}(?=[<\s),;:])(?![^<>]*>)", re.DOTALL)
MARK = re.compile(r"(?<=[A-Za-z0-9])([_/,.=])(?=[A-Za-z0-9])")
"""Names without a blank in the cells of a table, code excepted: they may break after a mark rather than widen it."""
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

    def __init__(self, page: str, relative: Callable[[str, str], str], known: Known,
                 title: Callable[[str], str] = str) -> None:
        self.page, self.relative, self.known, self.title = page, relative, known, title
        self.code: set[str] = set()

    def uri(self, page: str, anchor: str = "") -> str:
        return self.relative(self.page, page) + (f"#{anchor}" if anchor else "")

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
                said = said.replace("Show code cell output", "Show the output")
                text = f"<summary>{said}</summary>"
            out.append(text)
        return "".join([*out, body[at:]])

    # --- tables

    def _table(self, text: str) -> str:
        text = LONG.sub(lambda m: m.group(1) or MARK.sub(r"\1<wbr>", m.group(0)), text)
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
            target = self.known.targets.get(name.group(1)) if name else None
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
        if (root() / path).is_dir():
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
        data = self.known
        chapters = [
            f'<a href="{self.uri(page)}">{escape(self.title(page))}</a>' for page in data.chapters.get(id, ())
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
        data = self.known
        seen: set[str] = set()

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
            if found.group("issues"):
                tracker = f"https://github.com/{TRACKERS[found.group('repository')]}/issues"
                start = found.start("issues") - found.start()
                return text[:start] + re.sub(r"\d+", lambda n: source(f"{tracker}/{n.group(0)}", n.group(0)),
                                             text[start:])
            if found.group("message"):
                return source(f"https://lore.kernel.org/all/{unescape(text)}/", text)
            if found.group("release"):
                tag = found.group("release")
                return source(f"https://github.com/{TRACKERS['tdx-module']}/releases/tag/{tag}", text)
            if found.group("commit"):
                return source(f"https://git.kernel.org/torvalds/c/{found.group('commit')}", text)
            if found.group("cell"):
                target = data.targets.get(unescape(found.group("cell")))
                cell = f"<code>{found.group('cell')}</code>"
                return f"<td>{link(target, cell)}</td>" if target and target.kind == "clause" else text
            name = unescape(found.group("name"))
            if MESSAGE.fullmatch(name):
                return source(f"https://lore.kernel.org/all/{name}/", text)
            target = data.targets.get(name)
            own = self.page.startswith(PLACE + "clauses")
            if target is None or (target.page == self.page and (own or target.kind != "clause")):
                return text
            if target.kind != "clause" and target.name in seen:
                return text
            seen.add(target.name)
            return link(target, text)

        def source(place: str, inner: str) -> str:
            return f'<a class="seam-source" href="{place}">{inner}</a>'

        def link(target: Target, inner: str) -> str:
            return (
                f'<a class="seam-ref" href="{self.uri(target.page, target.anchor)}" '
                f'title="{escape(target.hover)}">{inner}</a>'
            )

        def old_link(found: re.Match[str]) -> str:
            target = data.targets.get(data.old.get(found.group(1), ""))
            return link(target, found.group(2)) if target else found.group(0)

        return PARTS.sub(part, body)


@cache
def lines(path: str) -> dict[str, int]:
    """Qualified name -> first line of its definition, in one file of the package."""
    file = root() / f"{path}.py"
    if not file.is_file():
        file = root() / path / "__init__.py"
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
