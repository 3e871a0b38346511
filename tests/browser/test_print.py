"""The book on paper: no chapter is wider than its sheet, nothing stays folded, and the PDF leads where it says."""

from __future__ import annotations

import io
import re
import subprocess
import sys
from typing import Any

import pdf
import pytest
from browser.test_pages import CONTRAST, PAGES, ROOT, Visit, address, browser, pytestmark  # noqa: F401

from built import BuiltBook

SHEET = {"width": pdf.TEXT_WIDTH_PX, "height": 960}

# What a sheet cuts off, what a box cuts off, and what stays folded.
LOST = """() => {
  const width = document.documentElement.clientWidth, lost = [];
  const say = (what, e) => lost.push(what + ' ' + e.tagName + '.' + (e.className.baseVal ?? e.className) + ' '
    + e.textContent.trim().slice(0, 60));
  for (const e of document.querySelectorAll('article.bd-article *')) {
    const r = e.getBoundingClientRect(), s = getComputedStyle(e);
    if (e.tagName === 'DETAILS' && !e.open
      && getComputedStyle(e, '::details-content').contentVisibility === 'hidden') say('folded', e);
    if (r.width === 0 || e.closest('svg') && e.tagName !== 'svg') continue;
    if (r.right > width + 1 || r.left < -1) say('wider than the sheet', e);
    else if (s.overflowX !== 'visible' && e.scrollWidth > e.clientWidth + 1 && e.clientWidth > 1) say('cut', e);
  }
  return lost.slice(0, 5);
}"""


def on_paper(browser: Any, address: str, name: str, scheme: str) -> Visit:  # noqa: F811
    visit = Visit(browser, address, f"{name}.html", scheme, SHEET)
    visit.page.emulate_media(media="print", color_scheme=scheme)
    return visit


@pytest.mark.parametrize("name", [name if at % 8 == 3 else pytest.param(name, marks=pytest.mark.thorough)
                                  for at, name in enumerate(PAGES)])
def test_nothing_of_a_chapter_is_lost_on_paper(browser: Any, address: str, name: str) -> None:  # noqa: F811
    visit = on_paper(browser, address, name, "dark")
    try:
        assert visit.page.evaluate(LOST) == []
        assert visit.page.evaluate(CONTRAST) == []  # also where it is dark on the screen
    finally:
        visit.close()


def test_the_print_check_sees_what_it_is_for(browser: Any, address: str) -> None:  # noqa: F811
    visit = on_paper(browser, address, PAGES[0], "light")
    try:
        visit.page.evaluate(
            """() => { const box = document.createElement('div');
            box.innerHTML = '<div class="wide" style="width:1200px">x</div>'
              + '<div class="box" style="overflow:hidden;width:200px"><div style="width:400px">y</div></div>'
              + '<details class="shut"><summary>s</summary><p>z</p></details>'
              + '<style>.bd-article details.shut::details-content { content-visibility: hidden !important }</style>';
            document.querySelector('article.bd-article').append(box); }"""
        )
        seen = visit.page.evaluate(LOST)
        assert [line.split(" ")[0] for line in seen] == ["wider", "cut", "folded"], seen
    finally:
        visit.close()


CHOSEN = ["book/intro", "book/foundations/cast", "book/processor/tdcall", "book/appendices/glossary"]


@pytest.fixture(scope="module")
def printed(built_book: BuiltBook, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The PDF of four pages, made as ``make pdf`` makes it (a process of its own: it has a browser of its own)."""
    if not (built_book.html / "index.html").is_file():
        pytest.skip("the book did not build; tests/book/test_rendered.py says why")
    out = tmp_path_factory.mktemp("pdf") / "book.pdf"
    command = [sys.executable, str(ROOT / "tools" / "pdf.py"), "--html", str(built_book.html), "--out", str(out)]
    done = subprocess.run([*command, "--only", *CHOSEN], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r".*book\.pdf: \d+ pages, [\d.]+ MB\n", done.stdout)
    return out.read_bytes()


def test_the_pdf_has_contents_outline_and_links_that_lead_somewhere(printed: bytes) -> None:
    import pikepdf

    with pikepdf.open(io.BytesIO(printed)) as held:
        with held.open_outline() as outline:
            titles = [item.title for item in outline.root]
            inner = [child.title for item in outline.root for child in item.children]
        assert {"Contents", "Foundations", "The processor", "Appendices"} <= set(titles)
        assert {"The cast, and who trusts whom", "TDCALL", "Glossary"} <= {*titles, *inner}
        places = set(held.Root["/Dests"].keys())
        inside, outside = [], []
        for page in held.pages:
            for note in page.get("/Annots", []):
                if note.get("/Subtype") == "/Link":
                    if "/Dest" in note:
                        inside.append(str(note["/Dest"]))
                    else:
                        outside.append(str(note["/A"].get("/URI", "")))
        assert inside and [name for name in inside if name not in places] == []
        assert outside and [uri for uri in outside if not uri.startswith(("https://", "http://"))] == []
        assert held.docinfo["/Title"] == "SEAM, executed" and "/StructTreeRoot" in held.Root


def test_the_contents_of_the_pdf_say_the_pages_that_the_chapters_are_on(printed: bytes, built_book: BuiltBook) -> None:
    numbers = pdf.page_numbers(printed)
    assert [name for name in CHOSEN if name not in numbers] == []
    assert sorted(numbers[name] for name in CHOSEN) == [numbers[name] for name in CHOSEN]
    parts = pdf.read_book(built_book.html, ROOT / "_toc.yml", CHOSEN)
    text = pdf.document(parts, built_book.html, numbers)
    for name in CHOSEN:
        assert f'<a href="#{name}">' in text and f"<b>{numbers[name]}</b></a>" in text


def test_no_two_pages_share_a_place_in_the_document(built_book: BuiltBook) -> None:
    parts = pdf.read_book(built_book.html, ROOT / "_toc.yml", CHOSEN)
    places = re.findall(r'\bid="([^"]+)"', pdf.document(parts, built_book.html, {}))
    assert len(places) == len(set(places))


def test_a_page_that_was_not_rendered_is_named(tmp_path: Any) -> None:
    with pytest.raises(pdf.PdfError, match=r"intro\.html is not there: render the book first"):
        pdf.read_book(tmp_path, ROOT / "_toc.yml", ["book/intro"])
    with pytest.raises(pdf.PdfError, match=r"book/nowhere is not in _toc\.yml"):
        pdf.read_book(tmp_path, ROOT / "_toc.yml", ["book/nowhere"])


def test_a_line_of_the_package_is_a_link_where_it_has_an_address() -> None:
    version = pdf.tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    line, file = ("source/seamref/arch/seam.html", "L-12"), ("source/seamref/spec.html", "")
    assert pdf.source_address(*line, "", "") == ""
    assert pdf.source_address(*line, "", "https://book.example") == (
        "https://book.example/source/seamref/arch/seam.html#L-12")
    assert pdf.source_address(*line, "https://git.example/a/b", "https://book.example") == (
        f"https://git.example/a/b/blob/v{version}/seamref/arch/seam.py#L12")
    assert pdf.source_address(*file, "https://git.example/a/b", "") == (
        f"https://git.example/a/b/blob/v{version}/seamref/spec.py")
