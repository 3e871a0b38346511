"""What every page says about the book, and what a page need not load.  A Sphinx extension: see ``_config.yml``.

Name and version come from ``pyproject.toml``.  Where the book is published comes from one place: ``repository.url`` of
``_config.yml``, or, where that is empty, what GitHub's runner says (so a fork changes nothing); the book's own address
is ``html_baseurl`` or the environment's ``SEAMREF_BOOK_URL``.  Without it there is no sitemap: one needs addresses.
"""

from __future__ import annotations

import os
import re
import tomllib
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

import yaml
from docutils import nodes
from sphinx.application import Sphinx

ROOT = Path(__file__).resolve().parents[2]
LICENCE = "Text and code: Apache-2.0. Not affiliated with Intel."
LENGTH = 300  # characters of a description: what search engines and chats show

FONT = re.compile(r'[ \t]*<script defer src="[^"]*/scripts/fontawesome\.js[^"]*"></script>\n?')
INDEX = re.compile(r'[ \t]*<script src="[^"]*(?:searchtools|language_data|searchindex)\.js[^"]*"></script>\n?')
USED = re.compile(r'class="[^"]*\bfa-(?:solid|regular|brands)\b[^"]*"')
SIZES = {"solid", "regular", "brands", "lg", "sm", "xs", "fw", "spin"}


def configured() -> str:
    """``repository.url`` of ``_config.yml``; Jupyter Book loses it where ``html_theme_options`` are given."""
    return str(yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))["repository"]["url"] or "")


def set_facts(app: Sphinx, config: Any) -> None:
    """Name, version and addresses, before anything is read."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    config.project, config.version, config.release = project["name"], project["version"], project["version"]
    config.html_baseurl = config.html_baseurl or os.environ.get("SEAMREF_BOOK_URL", "")
    options = config.html_theme_options
    options.setdefault("extra_footer", f"<p>{LICENCE}</p>")
    url = configured() or (
        f"{os.environ['GITHUB_SERVER_URL']}/{os.environ['GITHUB_REPOSITORY']}"
        if {"GITHUB_SERVER_URL", "GITHUB_REPOSITORY"} <= set(os.environ) else ""
    )
    if url:
        options.update(repository_url=url, use_repository_button=True, use_issues_button=True)


def first_words(doctree: nodes.document | None) -> str:
    """The first paragraph of a page, cut at a word."""
    for paragraph in doctree.findall(nodes.paragraph) if doctree is not None else ():
        words = " ".join(paragraph.astext().split())
        if len(words) > 40 and not isinstance(paragraph.parent, nodes.entry):
            return words if len(words) <= LENGTH else words[:LENGTH].rsplit(" ", 1)[0] + " ..."
    return ""


def describe(app: Sphinx, pagename: str, templatename: str, context: dict[str, Any],
             doctree: nodes.document | None) -> None:
    """Description and og: tags of one page."""
    title = re.sub(r"<[^>]+>", "", context.get("title") or app.config.html_title)
    about = first_words(doctree) or "An executable specification of Intel TDX's SEAM loading chain"
    tags = [f'<meta name="description" content="{escape(about)}" />']
    facts = {"title": title, "description": about, "type": "article", "site_name": app.config.html_title}
    if app.config.html_baseurl:
        facts["url"] = f"{app.config.html_baseurl.rstrip('/')}/{quote(pagename)}.html"
    tags += [f'<meta property="og:{name}" content="{escape(value)}" />' for name, value in facts.items()]
    context["metatags"] = context.get("metatags", "") + "\n" + "\n".join(tags)


def icons_css(script: str, names: set[str]) -> str:
    """Style sheet for the icons that pages use, drawn from the theme's own copy of Font Awesome Free (CC BY 4.0)."""
    rules = [
        "/* Icons: Font Awesome Free, CC BY 4.0, https://fontawesome.com/license/free */",
        ".fa-solid,.fa-regular,.fa-brands{display:inline-block;width:1.25em;height:1em;vertical-align:-.125em;"
        "background:currentColor;-webkit-mask:var(--fa) center/contain no-repeat;"
        "mask:var(--fa) center/contain no-repeat}",
        ".fa-lg{font-size:1.25em;line-height:.05em;vertical-align:-.075em}",
    ]
    for name in sorted(names):
        # Where an icon is drawn in several styles, the solid one comes last.
        drawings = re.findall(rf'[,{{]"?{re.escape(name)}"?:\[(\d+),(\d+),\[[^\]]*\],"[0-9a-f]*","([^"]+)"\]', script)
        if not drawings:
            raise LookupError(f"the theme's fontawesome.js has no icon {name!r}")
        width, height, path = drawings[-1]
        svg = f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {width} {height}'><path d='{path}'/></svg>"
        drawn = quote(svg)
        rules.append(f'.fa-{name}{{--fa:url("data:image/svg+xml,{drawn}")}}')
    return "\n".join(rules) + "\n"


def lighten(out: Path) -> None:
    """Icons as a small style sheet, and the search index only where there is a search."""
    pages = [page for page in sorted(out.rglob("*.html")) if "_static" not in page.relative_to(out).parts]
    texts = {page: page.read_text(encoding="utf-8") for page in pages}
    script = (out / "_static" / "scripts" / "fontawesome.js").read_text(encoding="utf-8")
    used = {
        name for text in texts.values() for found in USED.findall(text)
        for name in re.findall(r"\bfa-([a-z0-9-]+)", found) if name not in SIZES
    }
    (out / "_static" / "icons.css").write_text(icons_css(script, used), encoding="utf-8")
    static = out / "_static"
    for unused in (static / "scripts" / "fontawesome.js", *static.rglob("*.map"), *static.rglob("fa-*.ttf")):
        unused.unlink()  # maps are for whoever debugs the theme; every browser takes the woff2 beside the ttf
    for page, text in texts.items():
        up = "../" * (len(page.relative_to(out).parts) - 1)
        made = FONT.sub(f'  <link rel="stylesheet" href="{up}_static/icons.css" />\n', text)
        if page != out / "search.html":
            made = INDEX.sub("", made)
        if made != text:
            page.write_text(made, encoding="utf-8")


def extra_pages(app: Sphinx) -> None:
    """The page for an address that is not there, and the list of those that are."""
    out, base = Path(app.outdir), app.config.html_baseurl.rstrip("/")
    root = f"{base}/" if base else ""  # the page is shown at any depth: only a whole address leads from everywhere
    names = sorted(app.env.found_docs)
    start = f"{root}{app.config.root_doc}.html"
    (out / "404.html").write_text(
        f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8" /><meta name="viewport" content="width=device-width, initial-scale=1" />
<meta name="robots" content="noindex" /><title>Not here: {escape(app.config.html_title)}</title>
<style>:root{{color-scheme:light dark}}
body{{font:1rem/1.6 sans-serif;max-width:36rem;margin:4rem auto;padding:0 1rem}}</style>
</head><body><h1>This page is not here</h1>
<p>The book has no page at this address. It may have moved: a clause or a structure is found by its name.</p>
<p><a href="{escape(start)}">The book's first page</a>; <a href="{escape(root)}search.html">search the book</a>.</p>
<p>{LICENCE}</p></body></html>
""", encoding="utf-8")
    if base:
        places = "\n".join(f"  <url><loc>{escape(base)}/{quote(name)}.html</loc></url>" for name in names)
        (out / "sitemap.xml").write_text(
            '<?xml version="1.0" encoding="utf-8"?>\n<urlset xmlns="http://www.sitemaps.org/schemas/sitemap/0.9">\n'
            f"{places}\n</urlset>\n", encoding="utf-8")


def finish(app: Sphinx, exception: Exception | None) -> None:
    """After the pages are written."""
    if exception is None and app.builder.format == "html" and app.builder.name == "html":
        lighten(Path(app.outdir))
        extra_pages(app)


def setup(app: Sphinx) -> dict[str, Any]:
    """Hook into the build."""
    app.connect("config-inited", set_facts, priority=900)
    app.connect("html-page-context", describe)
    app.connect("build-finished", finish, priority=900)  # when every other page is written
    return {"parallel_read_safe": True, "parallel_write_safe": True}
