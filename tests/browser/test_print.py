"""The book as one PDF: contents, outline and links lead where they say (test_pages.py looks at its sheets)."""

from __future__ import annotations

import io
import re
import subprocess
import sys
from typing import Any

import pdf
import pytest
from browser.visits import ROOT, needs_chromium

from built import BuiltBook

pytestmark = needs_chromium
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
