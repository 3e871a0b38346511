#!/usr/bin/env python3
"""The rendered book as one PDF, printed by the system's chromium.

    python tools/pdf.py [--html FOLDER] [--out FILE] [--only PAGE ...]

The pages that ``make book`` left in ``_build/html`` become one document, in the order of the table of contents: a
title page, the contents with page numbers, then every chapter with its folded code and solutions open.  Links between
chapters lead to places in the file, links to public sources stay what they are.  A link to a line of the package leads
to the repository at the tag of this version, or to the published book, where either has an address (``repository.url``
of ``_config.yml`` or what GitHub's runner says; ``SEAMREF_BOOK_URL``).  The outline of the file has every heading.

A page number is known only after printing, so the document is printed twice; the second print must put every chapter
where the first did, or the tool fails.
"""

from __future__ import annotations

import argparse
import io
import os
import posixpath
import re
import shutil
import sys
import tempfile
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from html import escape, unescape
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

ROOT = Path(__file__).resolve().parents[1]
HTML = ROOT / "_build" / "html"
OUT = ROOT / "_build" / "seam-executed.pdf"
NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]

# A4, and what stays of it for the text: tests/browser measures against this width.
SHEET_MM = (210, 297)
MARGIN_MM = {"top": 17, "right": 15, "bottom": 19, "left": 15}
TEXT_WIDTH_PX = int((SHEET_MM[0] - MARGIN_MM["left"] - MARGIN_MM["right"]) / 25.4 * 96)

ARTICLE = re.compile(r'<article class="bd-article"[^>]*>(.*?)</article>', re.DOTALL)
SHEETS = re.compile(r'<link\b[^>]*\brel="stylesheet"[^>]*>')
HREF = re.compile(r'\bhref="([^"]*)"')
DROPPED = re.compile(r"<(script|button|noscript)\b[^>]*>.*?</\1>|<(?:input|select)\b[^>]*>(?:.*?</select>)?", re.DOTALL)
TAG = re.compile(r"<[a-zA-Z][^<>]*>")
PLACES = re.compile(r'\b(id|name|for|aria-labelledby|aria-describedby|headers)="([^"]+)"')
DRAWN = re.compile(r"url\((['\"]|&quot;)?#([^)'\"&]+)(?:['\"]|&quot;)?\)")
HEADING = re.compile(r"(</?h)([1-5])(?=[\s>])")
FIRST_HEADING = re.compile(r"<h1[^>]*>(.*?)</h1>", re.DOTALL)


class PdfError(Exception):
    """The book cannot be printed; the message says what is missing."""


@dataclass(frozen=True, slots=True)
class Chapter:
    """One page of the book on its way into the document."""

    page: str
    """As the table of contents writes it: ``book/boot/chain``."""
    title: str
    body: str


@dataclass(frozen=True, slots=True)
class Part:
    caption: str
    chapters: tuple[Chapter, ...]


# ---------------------------------------------------------------- from pages to one document


def parts_of(toc: Path) -> list[tuple[str, list[str]]]:
    """The table of contents: caption and pages of each part, the first page alone in front."""
    import yaml

    data = yaml.safe_load(toc.read_text(encoding="utf-8"))

    def pages(node: Any) -> Iterator[str]:
        for entry in node or ():
            if "file" in entry:
                yield re.sub(r"\.(ipynb|md)$", "", entry["file"])
            for key in ("chapters", "sections"):
                yield from pages(entry.get(key))

    found = [("", [re.sub(r"\.(ipynb|md)$", "", data["root"])])]
    found += [(part.get("caption", ""), list(pages(part.get("chapters")))) for part in data["parts"]]
    return found


def place(page: str, anchor: str = "") -> str:
    """The name of a place in the document; no two pages share one."""
    return f"{page}:{anchor}" if anchor else page


def read_chapter(html: Path, page: str, known: frozenset[str]) -> Chapter:
    """The article of one rendered page, its places renamed and its links led into the document."""
    path = html / f"{page}.html"
    if not path.is_file():
        raise PdfError(f"{path} is not there: render the book first (make book)")
    text = path.read_text(encoding="utf-8")
    article = ARTICLE.search(text)
    if article is None:
        raise PdfError(f"{path} has no article")
    body = DROPPED.sub("", article.group(1))
    found = FIRST_HEADING.search(body)
    if found is None:
        raise PdfError(f"{path} has no heading")
    heading = re.sub(r'<a class="headerlink".*?</a>', "", found.group(1), flags=re.DOTALL)
    title = unescape(re.sub(r"<[^>]+>", "", heading))
    body = TAG.sub(lambda m: _tag(m.group(0), html, page, known), body)
    body = HEADING.sub(lambda m: f"{m.group(1)}{int(m.group(2)) + 1}", body)
    return Chapter(page, " ".join(title.split()), body)


def _tag(tag: str, html: Path, page: str, known: frozenset[str]) -> str:
    """One tag with this page's names in the document's form."""
    if "=" not in tag:
        return "<details open>" if tag == "<details>" else tag
    tag = PLACES.sub(lambda m: f'{m.group(1)}="{" ".join(place(page, one) for one in m.group(2).split())}"', tag)
    tag = DRAWN.sub(lambda m: f"url('#{place(page, m.group(2))}')", tag)
    if tag.startswith("<details") and not re.search(r"\sopen\b", tag):
        return tag.replace("<details", "<details open", 1)
    if tag.startswith("<img"):
        return re.sub(r'\bsrc="([^":]+)"', lambda m: f'src="{_file(html, page, m.group(1))}"', tag)
    found = HREF.search(tag)
    if found is None:
        return tag
    to = _link(page, unescape(found.group(1)), known, drawn=tag.startswith("<use"))
    return tag.replace(found.group(0), f'href="{escape(to)}"' if to else "", 1)


def _file(html: Path, page: str, address: str) -> str:
    return (html / posixpath.normpath(posixpath.join(posixpath.dirname(page), unquote(address)))).resolve().as_uri()


def _link(page: str, address: str, known: frozenset[str], *, drawn: bool) -> str:
    """Where a link of ``page`` leads in the document; empty where the document has no such place."""
    parts = urlsplit(address)
    if parts.scheme or parts.netloc:
        return address
    target = page
    if parts.path:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(page), unquote(parts.path)))
        if target.startswith("source/"):
            return source_address(target, parts.fragment, *addresses())
        target = target.removesuffix(".html")
        if target not in known:
            return ""
    to = place(target, unquote(parts.fragment))
    return f"#{to}" if drawn else f"#{quote(to, safe=':/._-')}"


@cache
def addresses() -> tuple[str, str]:
    """Where the repository and the published book are on the web; empty where nothing says so."""
    import yaml

    config = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))
    runner = [os.environ.get(name, "") for name in ("GITHUB_SERVER_URL", "GITHUB_REPOSITORY")]
    repository = str(config["repository"]["url"] or "") or ("/".join(runner) if all(runner) else "")
    return repository.rstrip("/"), os.environ.get("SEAMREF_BOOK_URL", "").rstrip("/")


def source_address(target: str, fragment: str, repository: str, book: str) -> str:
    """The address of a line of the package, ``source/seamref/spec.html`` and ``L-12``; empty where it has none."""
    if repository:
        project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        path = target.removeprefix("source/").removesuffix(".html")
        line = f"#L{fragment.removeprefix('L-')}" if fragment else ""
        return f"{repository}/blob/v{project['version']}/{path}.py{line}"
    return f"{book}/{target}{f'#{fragment}' if fragment else ''}" if book else ""


def read_book(html: Path, toc: Path, only: Sequence[str] = ()) -> list[Part]:
    listed = parts_of(toc)
    unknown = [page for page in only if page not in {p for _, pages in listed for p in pages}]
    if unknown:
        raise PdfError(f"{unknown[0]} is not in {toc.name}")
    chosen = [(caption, [p for p in pages if not only or p in only]) for caption, pages in listed]
    known = frozenset(page for _, pages in chosen for page in pages)
    return [
        Part(caption, tuple(read_chapter(html, page, known) for page in pages)) for caption, pages in chosen if pages
    ]


STYLE = f"""
@page {{ size: {SHEET_MM[0]}mm {SHEET_MM[1]}mm; margin: {" ".join(f"{MARGIN_MM[side]}mm" for side in MARGIN_MM)}; }}
html, body {{ background: white !important; }}
body {{ margin: 0; padding: 0; min-height: 0; display: block; }}
article.bd-article {{ padding: 0 !important; break-before: page; }}
.seam-title {{ padding-top: 55mm; text-align: center; }}
.seam-title img {{ width: 46mm; }}
.seam-title .seam-name {{ font-size: 34pt; font-weight: 600; margin: 10mm 0 4mm; }}
.seam-title .seam-about {{ font-size: 13pt; max-width: 120mm; margin: 0 auto; }}
.seam-title .seam-legal {{ margin-top: 70mm; font-size: 9pt; }}
.seam-contents {{ break-before: page; }}
.seam-contents .seam-caption {{ font-weight: 600; margin: 3.2mm 0 0.6mm; break-after: avoid; }}
.seam-contents a {{ display: flex; align-items: baseline; gap: 1.5mm; color: inherit; text-decoration: none;
  font-size: 9.5pt; line-height: 1.42; }}
.seam-contents a i {{ flex: 1; border-bottom: 1px dotted #888; }}
.seam-contents a b {{ min-width: 8mm; text-align: right; font-weight: 400; font-variant-numeric: tabular-nums; }}
.seam-part {{ break-before: page; padding-top: 90mm; }}
.seam-part h1 {{ font-size: 30pt; margin: 0; border: 0; }}
"""


def document(parts: Sequence[Part], html: Path, pages: Mapping[str, int]) -> str:
    """The whole book as one page of HTML; ``pages`` are the page numbers, where they are known."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    first = parts[0].chapters[0]
    sheets = []
    for link in SHEETS.findall((html / f"{first.page}.html").read_text(encoding="utf-8")):
        address = HREF.search(link)
        if address is not None and not urlsplit(address.group(1)).scheme:
            path = urlsplit(unescape(address.group(1))).path
            sheets.append(f'<link rel="stylesheet" href="{_file(html, first.page, path)}">')
    contents, bodies = [], []
    for part in parts:
        if part.caption:
            contents.append(f'<div class="seam-caption">{escape(part.caption)}</div>')
            bodies.append(f'<section class="seam-part bd-article"><h1>{escape(part.caption)}</h1></section>')
        for chapter in part.chapters:
            number = pages.get(chapter.page, 0)
            contents.append(f'<a href="#{quote(chapter.page)}"><span>{escape(chapter.title)}</span><i></i>'
                            f"<b>{number or '000'}</b></a>")
            bodies.append(f'<article class="bd-article" id="{chapter.page}">{chapter.body}</article>')
    logo = (html / "_static" / "logo.svg").resolve().as_uri()
    return f"""<!DOCTYPE html>
<html lang="en" data-theme="light" data-mode="light"><head><meta charset="utf-8"><title>SEAM, executed</title>
{"".join(dict.fromkeys(sheets))}<style>{STYLE}</style></head><body>
<div class="seam-title"><img src="{logo}" alt=""><div class="seam-name">SEAM, executed</div>
<div class="seam-about">{escape(project["description"])}</div>
<div class="seam-legal">seamref {escape(project["version"])}. Text and code: Apache-2.0. Not affiliated with Intel.<br>
Every output in this book was computed by the code that it shows.</div></div>
<nav class="seam-contents bd-article"><h1>Contents</h1>{"".join(contents)}</nav>
{"".join(bodies)}</body></html>
"""


# ---------------------------------------------------------------- printing


def find_chromium() -> str:
    for name in NAMES:
        found = shutil.which(name)
        if found:
            return found
    raise PdfError("no chromium on this machine: the book is printed by it (Debian: apt install chromium)")


def print_document(text: str, chromium: str, *, tagged: bool) -> bytes:
    """What chromium prints, with numbered pages; ``tagged``: with outline and tags for screen readers (takes twice as
    long, and moves nothing)."""
    from playwright.sync_api import sync_playwright

    foot = ('<div style="width:100%;font:7pt sans-serif;color:#555;padding:0 15mm;display:flex;'
            'justify-content:space-between"><span>SEAM, executed</span><span class="pageNumber"></span></div>')
    with tempfile.TemporaryDirectory(prefix="seam-pdf-") as folder, sync_playwright() as playwright:
        path = Path(folder) / "book.html"
        path.write_text(text, encoding="utf-8")
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        try:
            page = browser.new_page()
            page.set_default_timeout(0)
            page.route(re.compile("^https?:"), lambda route: route.abort())
            page.goto(path.as_uri(), wait_until="load")
            return page.pdf(
                prefer_css_page_size=True, print_background=True, display_header_footer=True,
                header_template="<span></span>", footer_template=foot, outline=tagged, tagged=tagged,
            )
        finally:
            browser.close()


def page_numbers(pdf: bytes) -> dict[str, int]:
    """Where each place that a link leads to was printed, counted from 1."""
    import pikepdf

    with pikepdf.open(io.BytesIO(pdf)) as held:
        number = {page.obj.objgen: at for at, page in enumerate(held.pages, 1)}
        places = held.Root.get("/Dests", {})
        return {unquote(name[1:]): number[destination[0].objgen] for name, destination in places.items()}


def finished(pdf: bytes) -> bytes:
    """The same pages, packed, with the facts that a reader's program shows; no times, so that two prints compare."""
    import pikepdf

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    out = io.BytesIO()
    with pikepdf.open(io.BytesIO(pdf)) as held:
        del held.docinfo
        held.docinfo["/Title"] = "SEAM, executed"
        held.docinfo["/Author"] = "The seamref authors"
        held.docinfo["/Subject"] = f"{project['description']} (seamref {project['version']})"
        held.save(out, object_stream_mode=pikepdf.ObjectStreamMode.generate, compress_streams=True,
                  recompress_flate=True, deterministic_id=True)
    return out.getvalue()


def make_pdf(html: Path, toc: Path, only: Sequence[str] = ()) -> bytes:
    """The book below ``html`` as a PDF, contents and all.  Raises PdfError where it cannot be made."""
    chromium = find_chromium()
    parts = read_book(html, toc, only)
    chapters = [chapter.page for part in parts for chapter in part.chapters]
    first = page_numbers(print_document(document(parts, html, {}), chromium, tagged=False))
    lost = [page for page in chapters if page not in first]
    if lost:
        raise PdfError(f"{lost[0]} was printed, and no link leads to it")
    pdf = print_document(document(parts, html, first), chromium, tagged=True)
    second = page_numbers(pdf)
    moved = [page for page in chapters if first[page] != second.get(page)]
    if moved:
        raise PdfError(f"{moved[0]} moved from page {first[moved[0]]} to {second.get(moved[0])} between two prints")
    return finished(pdf)


def main(argv: Sequence[str] | None = None) -> int:
    """Print the book and say where it is."""
    parser = argparse.ArgumentParser(description="The rendered book as one PDF.")
    parser.add_argument("--html", type=Path, default=HTML, help="the rendered book (default: _build/html)")
    parser.add_argument("--out", type=Path, default=OUT, help="the file to write (default: _build/seam-executed.pdf)")
    parser.add_argument("--only", nargs="+", default=(), metavar="PAGE",
                        help="only these pages, such as book/boot/chain")
    args = parser.parse_args(argv)
    try:
        pdf = make_pdf(args.html, ROOT / "_toc.yml", args.only)
    except PdfError as problem:
        print(f"pdf: {problem}", file=sys.stderr)
        return 1
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_bytes(pdf)
    import pikepdf

    with pikepdf.open(io.BytesIO(pdf)) as held:
        print(f"{args.out}: {len(held.pages)} pages, {len(pdf) / 1e6:.1f} MB")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
