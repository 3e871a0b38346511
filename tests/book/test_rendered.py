"""The rendered book: it builds without a warning, its links lead somewhere, and it needs no other host."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

import chapters
from built import BuiltBook

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "book" / "_ext"))
import written  # noqa: E402

# Attributes whose address a browser fetches by itself; href of <a> is a place the reader may choose to go to.
LOADING = {
    ("script", "src"),
    ("link", "href"),
    ("img", "src"),
    ("img", "srcset"),
    ("source", "src"),
    ("source", "srcset"),
    ("iframe", "src"),
    ("embed", "src"),
    ("object", "data"),
    ("video", "src"),
    ("audio", "src"),
    ("track", "src"),
    ("image", "href"),
    ("image", "xlink:href"),
    ("use", "href"),
    ("use", "xlink:href"),
    ("video", "poster"),
}
NOT_FETCHED = {"canonical", "next", "prev", "index", "search", "author", "license"}
REMOTE = re.compile(r"^\s*(?:https?:)?//", re.IGNORECASE)
REMOTE_IN_CSS = re.compile(r"(?:url\(|@import)\s*['\"]?\s*((?:https?:)?//[^'\")\s]+)", re.IGNORECASE)
REMOTE_IN_SCRIPT = re.compile(r"https?://[^\s'\"`)<>]+", re.IGNORECASE)


class Page(HTMLParser):
    """What one page loads, where it links to, and which places it has."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.loads: list[str] = []
        self.links: list[str] = []
        self.places: set[str] = set()
        self._inside = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self._inside = tag
        self.places |= {values[name] for name in ("id", "name") if name in values}
        fetched = not (tag == "link" and set(values.get("rel", "").split()) & NOT_FETCHED)
        for name, value in values.items():
            if (tag, name) in LOADING and fetched:
                self.loads.append(value)
            if name == "style":
                self.loads += REMOTE_IN_CSS.findall(value)
        if tag == "a" and "href" in values:
            self.links.append(values["href"])

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside == "style":
            self.loads += REMOTE_IN_CSS.findall(data)
        elif self._inside == "script":
            self.loads += REMOTE_IN_SCRIPT.findall(data)

    @property
    def remote(self) -> list[str]:
        return [address for address in self.loads if REMOTE.match(address)]


def pages(book: BuiltBook) -> dict[Path, Page]:
    return {
        path: Page(path.read_text(encoding="utf-8"))
        for path in sorted(book.html.rglob("*.html"))
        if "_static" not in path.relative_to(book.html).parts
    }


def test_the_book_builds_with_warnings_as_errors(built_book: BuiltBook) -> None:
    assert built_book.exit_status == 0, built_book.log[-6000:]
    assert "WARNING" not in built_book.log


def test_every_page_of_the_table_of_contents_is_rendered(built_book: BuiltBook) -> None:
    missing = [name for name in chapters.toc_entries() if not (built_book.html / f"{name}.html").is_file()]
    assert missing == []


def test_no_page_loads_from_another_host(built_book: BuiltBook) -> None:
    remote = {path.name: page.remote for path, page in pages(built_book).items() if page.remote}
    assert remote == {}


def test_no_stylesheet_loads_from_another_host(built_book: BuiltBook) -> None:
    sheets = sorted(built_book.html.rglob("*.css"))
    assert sheets
    remote = {
        sheet.name: found
        for sheet in sheets
        if (found := REMOTE_IN_CSS.findall(sheet.read_text(encoding="utf-8", errors="replace")))
    }
    assert remote == {}


def test_everything_a_page_loads_is_in_the_folder(built_book: BuiltBook) -> None:
    missing = [
        f"{path.name}: {address}"
        for path, page in pages(built_book).items()
        for address, target in local_targets(path, page.loads)
        if not target.exists()
    ]
    assert missing == []


def test_every_link_inside_the_book_leads_somewhere(built_book: BuiltBook) -> None:
    known = pages(built_book)
    broken = []
    for path, page in known.items():
        for address, target in local_targets(path, page.links):
            place = unquote(urlsplit(address).fragment)
            if not target.exists():
                broken.append(f"{path.name}: {address}")
            elif place and target in known and place not in known[target].places:
                broken.append(f"{path.name}: {address} (no such place)")
    assert broken == []


def skipped(text: str) -> list[str]:
    """Headings that stand more than one level below the one before them."""
    article = text.partition('<article class="bd-article">')[2].partition("</article>")[0]
    found = re.findall(r"<h([1-6])\b[^>]*>(.*?)</h\1>", article, re.DOTALL)
    levels = [0, *(int(level) for level, _ in found)]
    return [said for (_, said), before, level in zip(found, levels, levels[1:], strict=False) if level > before + 1]


def test_no_heading_skips_a_level(built_book: BuiltBook) -> None:
    texts = {name: (built_book.html / f"{name}.html").read_text(encoding="utf-8") for name in chapters.toc_entries()}
    assert {name: found for name, text in texts.items() if (found := skipped(text))} == {}
    assert all('<article class="bd-article">' in text for text in texts.values())


def test_a_heading_that_skips_a_level_is_noticed_and_levelled() -> None:
    body = "<h1>a</h1><h3 id='b'>b</h3><h4>c</h4><h3>d</h3><h2>e</h2><h3>f</h3>"
    assert skipped(f'<article class="bd-article">{body}</article>') == ["b"]
    assert written.levelled(body) == (
        "<h1>a</h1><h2 id='b'>b</h2><h3>c</h3><h2>d</h2><h2>e</h2><h3>f</h3>")


def local_targets(path: Path, addresses: list[str]) -> Iterator[tuple[str, Path]]:
    for address in addresses:
        parts = urlsplit(address)
        if not parts.scheme and not parts.netloc:
            yield address, ((path.parent / unquote(parts.path)).resolve() if parts.path else path)


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md"])
def test_every_link_of_the_front_pages_leads_to_a_file(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)\s]+)\)|src=\"([^\"]+)\"", text)
    local = [urlsplit(a or b).path for a, b in links if not urlsplit(a or b).scheme and urlsplit(a or b).path]
    assert [link for link in local if not (ROOT / link).exists()] == []


# ---------------------------------------------------------------- the check itself


@pytest.mark.parametrize(
    "text",
    [
        '<script src="https://cdn.example/x.js"></script>',
        '<script src="//cdn.example/x.js"></script>',
        '<script>load("https://cdn.example/x.js")</script>',
        '<link rel="stylesheet" href="https://cdn.example/x.css">',
        '<img src="https://cdn.example/x.svg">',
        "<style>@import url(https://cdn.example/x.css)</style>",
        "<p style=\"background:url('https://cdn.example/x.svg')\">",
        '<svg><use xlink:href="https://cdn.example/x.svg#a"/></svg>',
    ],
)
def test_a_load_from_another_host_is_noticed(text: str) -> None:
    assert len(Page(text).remote) == 1


@pytest.mark.parametrize(
    "text",
    [
        '<a href="https://lore.kernel.org/">',
        '<link rel="canonical" href="https://x.example/">',
        '<script src="_static/x.js"></script>',
        '<svg xmlns="http://www.w3.org/2000/svg"></svg>',
    ],
)
def test_a_link_that_the_reader_may_follow_is_not_a_load(text: str) -> None:
    assert Page(text).remote == []
