"""The appendices: everything that is declared is found, once, and has an address of its own."""

from __future__ import annotations

import re

from seamref.arch.structures import SEAMEXTEND
from seamref.show import registry
from seamref.show.html import anchor
from seamref.spec import CLAUSES, TABLES, Mark


def test_every_clause_has_its_own_address_and_the_index_leads_there() -> None:
    pages = {page: registry.clause_page(page).html for page in registry.PAGES.values()}
    places = [id for html in pages.values() for id in re.findall(r'<div class="seam-entry" id="([^"]*)"', html)]
    assert sorted(places) == sorted(CLAUSES)
    assert all(f'id="{anchor(id)}"' in pages[registry.page_of_clause(id)] for id in CLAUSES)
    index = registry.clause_addresses().html
    links = dict(re.findall(r'<li id="([^"]*)" data-clause>.*?<a href="clauses_(\w+)\.html#\1">', index))
    assert links == {id: registry.page_of_clause(id) for id in CLAUSES}
    assert all(f'id="{anchor(id)}"' in index for id in CLAUSES)


def test_every_mark_has_its_list_and_the_counts_add_up() -> None:
    total = registry.marks_summary().rows[-1]
    assert total[1:] == (*(len(registry.marked_clauses(mark)) for mark in Mark), len(CLAUSES))


def test_every_check_table_belongs_to_one_room() -> None:
    shown = [table.name for room in registry.ROOMS for table in registry.tables_of(room)]
    assert sorted(shown) == sorted(name for name, table in TABLES.items() if table.rows)


def test_a_structure_is_listed_once_in_the_lowest_room_that_names_it() -> None:
    listed = [id(layout) for held in registry.layouts().values() for _, layout in held]
    assert len(listed) == len(set(listed))
    assert id(SEAMEXTEND) in {id(layout) for _, layout in registry.layouts()["arch"]}


def test_structures_link_to_their_offsets() -> None:
    links = set(re.findall(r'href="#([^"]*)"', registry.structure_index().html))
    places = {p for room in registry.ROOMS for p in re.findall(r'<div id="([^"]*)"', registry.structures(room).html)}
    assert links <= places and len(links) > 30


def test_status_sets_link_to_their_members() -> None:
    links = set(re.findall(r'href="#([^"]*)"', registry.status_index().html))
    places = {p for room in registry.ROOMS for p in re.findall(r'<div id="([^"]*)"', registry.status_tables(room).html)}
    assert links == places


def test_coverage_of_a_clause_is_told_from_the_stored_run() -> None:
    held = {"a": {"row": True, "silent": True, "decided": False}, "b": {"row": False, "silent": False, "decided": True}}
    assert registry._exercised("a", held) == "never decided"
    assert registry._exercised("b", held) == "executed"
    assert registry._exercised("SEAMCALL.cpl", held) == "not counted yet"


def test_every_source_that_is_cited_is_in_the_bibliography() -> None:
    tags = {row[0].strip("`") for row in registry.bibliography().rows}
    cited = {c.source.split()[0].rstrip(",;") for c in CLAUSES.values()}
    assert cited <= tags


def test_the_module_reference_reads_every_module_of_a_room() -> None:
    text = registry.module_reference("arch").text
    assert "seamref.arch.seam: " in text and "seamcall" in text
