"""What the rendered book adds to its chapters: addresses, links, hover text and back-links.

Chapters and their stored outputs name things by id: a clause, a structure, an MSR, a status code, a source, a
function shown with ``show()``.  This extension knows from the package where each stands, and does the rest while a
page is written, so that no stored output depends on a line number or on what another chapter says.

* every clause, structure, MSR and status code is an object of the inventory and of the search, and a link with hover
  text wherever its id stands in code face;
* sources become links, once below a table instead of once a row;
* terms of the glossary are linked where a chapter uses them first;
* code shown with ``show()`` has an anchor, its line and a link to the file, which is rendered beside the book;
* a clause says which chapters and tests use it;
* the words that interpret a solution are folded with it.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.parsers.rst.roles import set_classes
from myst_nb.sphinx_ import HideCodeCellNode
from sphinx.application import Sphinx
from sphinx.domains import Domain, ObjType
from sphinx.transforms.post_transforms import SphinxPostTransform

ROOT = Path(__file__).resolve().parents[2]
STATIC = Path(__file__).resolve().parent / "static"
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from written import PLACE, Known, Target  # noqa: E402
from written import Writer as PageWriter  # noqa: E402

GLOSSARY = PLACE + "glossary"


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


def title_of(app: Sphinx, page: str) -> str:
    title = app.env.titles.get(page)
    return title.astext() if title is not None else page


class Writer(PageWriter):
    """One page of this build on its way out."""

    def __init__(self, app: Sphinx, page: str) -> None:
        super().__init__(page, app.builder.get_relative_uri, known(), lambda other: title_of(app, other))


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
    names = "|".join(map(re.escape, sorted(left, key=len, reverse=True)))
    pattern = re.compile(rf"(?<![\w/-])({names})(?![\w/-]|\.\w)")
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


# ---------------------------------------------------------------- exercises


class FoldSolutions(SphinxPostTransform):
    """What is said below a solution belongs to it: a reader who has not unfolded it has not read the answer either."""

    default_priority = 200  # MyST-NB folds the cell itself at 199
    formats = ("html",)

    def run(self, **kwargs: Any) -> None:
        for section in self.document.findall(nodes.section):
            if not section[0].astext().startswith("Exercise"):
                continue
            fold: nodes.Element | None = None
            for node in list(section.children):
                inside = node.children[0] if isinstance(node, nodes.container) and node.children else None
                if isinstance(inside, HideCodeCellNode):
                    fold = inside
                elif fold is not None and isinstance(node, nodes.paragraph | nodes.bullet_list):
                    section.remove(node)
                    fold += node
                elif isinstance(node, nodes.enumerated_list | nodes.section | nodes.target):
                    fold = None


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
pre{{counter-reset:line}} i[id]{{counter-increment:line;font-style:normal}}
i[id]::before{{content:counter(line);display:inline-block;width:4ch;margin-right:1ch;text-align:right;opacity:.75}}
{light}
@media (prefers-color-scheme:dark){{{dark}}}
"""
PLAIN = re.compile(r'<span class="(?:n|p|w|nn)">([^<]*)</span>')  # drawn in the colour of the text itself
PLACE_OF_LINE = re.compile(r'<a id="(L-\d+)" name="L-\d+"></a><span class="linenos">\s*\d+</span>')


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
        code = PLACE_OF_LINE.sub(r'<i id="\1"></i>', code)  # the style sheet counts: 60,000 lines are 1.5 MB less
        out.write_text(SHELL.format(title=f"{name}.py", up="../" * name.count("/"), code=code), encoding="utf-8")


def configure(app: Sphinx, config: Any) -> None:
    config.html_static_path = [*config.html_static_path, str(STATIC)]


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_domain(SeamDomain)
    app.add_role("cite", cite_role)
    app.add_post_transform(FoldSolutions)
    app.add_css_file("seambook.css")
    app.connect("config-inited", configure)
    app.connect("doctree-resolved", link_terms)
    app.connect("html-page-context", write_page, priority=400)
    app.connect("build-finished", write_source)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
