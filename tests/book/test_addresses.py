"""Addresses: every source one click away, every clause a place, a search result and an object of the inventory."""

from __future__ import annotations

import json
import re
import zlib
from pathlib import Path

import pytest

from built import BuiltBook
from seamref.show import registry
from seamref.spec import CLAUSES, SOURCES, address, cited

registry.modules()
ROOT = Path(__file__).resolve().parents[2]
PLACE = "book/appendices/"
NOWHERE = {"PSLV", "HWL", "SEAMREF"}  # no public place of their own: the bibliography says what they are


@pytest.mark.parametrize(
    ("part", "place"),
    [
        ("SC1", "https://lore.kernel.org/all/20251014231042.1399849-1-seanjc@google.com/"),
        ("SR2", "https://lore.kernel.org/all/aYTFZv9Mf_FqWM_k@google.com/"),
        ("MCE", "https://git.kernel.org/torvalds/c/7911f145de5f"),
        ("ISS29", "https://github.com/intel/confidential-computing.tdx.tdx-module/issues/29"),
        ("RFC8017 section 8.2.2", "https://www.rfc-editor.org/rfc/rfc8017"),
        ("SDM vol. 3C VMXON", "https://www.intel.com/sdm"),
        ("X2 SEAMCALL", "https://cdrdv2.intel.com/v1/dl/getContent/733582"),
        ("TDXM src/vmm_dispatcher/api_calls/tdh_sys_init.c",
         "https://github.com/intel/tdx-module/blob/TDX_1.5.01/src/vmm_dispatcher/api_calls/tdh_sys_init.c"),
        ("LNX tdx.c, commit 5b25f249be32", "https://git.kernel.org/torvalds/c/5b25f249be32"),
        ("LNX seamldr.c", "https://github.com/torvalds/linux/blob/v7.2-rc1/arch/x86/virt/vmx/tdx/seamldr.c"),
    ],
)
def test_a_cited_part_has_its_address(part: str, place: str) -> None:
    assert address(part) == place


def test_a_file_named_without_its_folder_is_the_one_that_another_clause_states() -> None:
    assert address("TDXM tdh_sys_init.c") == address("TDXM src/vmm_dispatcher/api_calls/tdh_sys_init.c")


def test_every_clause_cites_something_that_can_be_looked_up() -> None:
    assert {tag for tag, held in SOURCES.items() if not held.url} == NOWHERE
    for id, clause in CLAUSES.items():
        for part, source in cited(clause.source):
            assert source is not None or re.match(r"[a-z(]", part), (id, part)
            assert source is None or address(part) or source.tag in NOWHERE, (id, part)


# ---------------------------------------------------------------- the rendered pages


def page(book: BuiltBook, name: str) -> str:
    return (book.html / f"{name}.html").read_text(encoding="utf-8")


def test_every_clause_stands_on_its_page_and_in_the_index(built_book: BuiltBook) -> None:
    index = page(built_book, PLACE + "clauses")
    held = {name: page(built_book, f"{PLACE}clauses_{name}") for name in registry.PAGES.values()}
    for id in CLAUSES:
        assert f'id="{id}"' in index
        assert f'id="{id}"' in held[registry.page_of_clause(id)]


def test_a_clause_links_to_its_source_and_says_where_it_is_used(built_book: BuiltBook) -> None:
    text = page(built_book, PLACE + "clauses_processor")
    entry = text[text.index('id="SEAMCALL.cpl"'):].partition('class="seam-entry"')[0]
    assert 'href="https://' in entry
    assert "processor/seamcall.html" in entry
    assert "test_SEAMCALL_cpl" in entry or "tests/" in entry


def test_clauses_structures_registers_and_terms_are_in_the_inventory(built_book: BuiltBook) -> None:
    raw = (built_book.html / "objects.inv").read_bytes()
    text = zlib.decompress(raw.split(b"\n", 4)[4]).decode("utf-8")
    for line in ("SEAMCALL.cpl seam:clause", "SEAM_SIGSTRUCT seam:structure", "IA32_SEAMRR_PHYS_BASE seam:msr"):
        assert f"\n{line} " in text, line
    assert re.search(r"^SEAMDB std:term ", text, re.MULTILINE)


def test_the_search_knows_a_clause_by_name(built_book: BuiltBook) -> None:
    text = (built_book.html / "searchindex.js").read_text(encoding="utf-8")
    index = json.loads(text[text.index("(") + 1 : text.rindex(")")])
    assert any(row[4] == "cpl" for row in index["objects"]["SEAMCALL"])


def test_a_clause_in_a_chapter_is_a_link_with_what_it_says(built_book: BuiltBook) -> None:
    text = page(built_book, "book/processor/seamcall")
    link = r'<a class="seam-ref" href="([^"]*)" title="([^"]*)"><code[^>]*>SEAMCALL\.non_root</code></a>'
    found = re.search(link, text)
    assert found and found.group(1) == "../appendices/clauses_processor.html#SEAMCALL.non_root"
    assert CLAUSES["SEAMCALL.non_root"].says[:20] in found.group(2)


def test_code_shown_in_a_chapter_names_its_line_and_leads_to_the_file(built_book: BuiltBook) -> None:
    text = page(built_book, "book/processor/seamcall")
    shown = re.findall(r'<div class="seam-src"([^>]*)><div class="seam-src-title"><a href="\.\./\.\./source/'
                       r'(seamref/[\w/]+)\.html#L-(\d+)"', text)
    assert shown
    for place, path, line in shown:
        assert "id=" in place
        source = (ROOT / f"{path}.py").read_text(encoding="utf-8").splitlines()
        assert re.match(r"\s*(def|class|@)", source[int(line) - 1])


def test_no_box_is_a_landmark_and_no_heading_of_a_column_is_empty(built_book: BuiltBook) -> None:
    for path in (built_book.html / "book").rglob("*.html"):
        text = path.read_text(encoding="utf-8")
        assert 'role="region"' not in text, path.name
        assert "<th></th>" not in text and '<th scope="col"></th>' not in text, path.name
        assert 'aria-label="Toggle hidden content"' not in text, path.name


def test_long_sources_stand_once_below_a_table(built_book: BuiltBook) -> None:
    text = page(built_book, PLACE + "checks")
    assert text.count('class="seam-sources"') > 30
    assert text.count("<td>PSL src/pseamldr_dispatcher") == 0
