"""What every page says about the book, what it need not load, and the files that a publisher looks for."""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

import chapters
from built import BuiltBook

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "book" / "_ext"))
import publish  # noqa: E402

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
HEAVY = ("fontawesome.js", "searchindex.js", "searchtools.js")


def texts(book: BuiltBook) -> dict[str, str]:
    found = {name: (book.html / f"{name}.html").read_text(encoding="utf-8") for name in chapters.toc_entries()}
    assert found
    return found


def test_licence_and_disclaimer_stand_on_every_page(built_book: BuiltBook) -> None:
    assert [name for name, text in texts(built_book).items() if publish.LICENCE not in text] == []


def test_every_page_has_one_description_of_its_own_words(built_book: BuiltBook) -> None:
    said = {}
    for name, text in texts(built_book).items():
        [said[name]] = re.findall(r'<meta name="description" content="([^"]+)"', text)
        assert re.findall(r'<meta property="og:(\w+)"', text)[:2] == ["title", "description"], name
    assert len(set(said.values())) > 0.9 * len(said)
    assert max(map(len, said.values())) < 2 * publish.LENGTH


def test_no_page_loads_a_megabyte_of_icons_or_the_search_index(built_book: BuiltBook) -> None:
    assert {name: heavy for name, text in texts(built_book).items() for heavy in HEAVY if heavy in text} == {}
    search = (built_book.html / "search.html").read_text(encoding="utf-8")
    assert "searchindex.js" in search and "searchtools.js" in search


def test_every_icon_that_a_page_shows_is_drawn(built_book: BuiltBook) -> None:
    sheet = (built_book.html / "_static" / "icons.css").read_text(encoding="utf-8")
    assert len(sheet) < 30_000
    for name, text in texts(built_book).items():
        for found in publish.USED.findall(text):
            for icon in set(re.findall(r"\bfa-([a-z0-9-]+)", found)) - publish.SIZES:
                assert f".fa-{icon}{{" in sheet, f"{name}: {icon}"


def test_the_inventory_names_the_project_and_its_version(built_book: BuiltBook) -> None:
    head = (built_book.html / "objects.inv").read_bytes().split(b"\n")[1:3]
    assert head == [f"# Project: {PROJECT['name']}".encode(), f"# Version: {PROJECT['version']}".encode()]


def test_an_address_that_is_not_there_has_a_page_that_leads_back(built_book: BuiltBook) -> None:
    text = (built_book.html / "404.html").read_text(encoding="utf-8")
    assert re.findall('href="([^"]*)"', text)[0].endswith("book/intro.html")
    assert publish.LICENCE in text


def config() -> Any:
    return SimpleNamespace(html_baseurl="", html_theme_options={})


def test_addresses_come_from_one_place(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GITHUB_SERVER_URL", "GITHUB_REPOSITORY", "SEAMREF_BOOK_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(publish, "configured", lambda: "")
    nowhere = config()
    publish.set_facts(None, nowhere)  # type: ignore[arg-type]
    assert "repository_url" not in nowhere.html_theme_options and nowhere.html_baseurl == ""
    monkeypatch.setenv("GITHUB_SERVER_URL", "https://host.example")
    monkeypatch.setenv("GITHUB_REPOSITORY", "somebody/fork")
    monkeypatch.setenv("SEAMREF_BOOK_URL", "https://somebody.example/fork")
    fork, own = config(), config()
    publish.set_facts(None, fork)  # type: ignore[arg-type]
    monkeypatch.setattr(publish, "configured", lambda: "https://host.example/own/repo")
    publish.set_facts(None, own)  # type: ignore[arg-type]
    assert fork.html_theme_options["repository_url"] == "https://host.example/somebody/fork"
    assert fork.html_theme_options["use_repository_button"] and fork.html_baseurl == "https://somebody.example/fork"
    assert own.html_theme_options["repository_url"] == "https://host.example/own/repo"


def test_a_sitemap_lists_every_page_where_the_address_is_known(tmp_path: Path) -> None:
    app: Any = SimpleNamespace(
        outdir=tmp_path, env=SimpleNamespace(found_docs={"book/intro", "book/loader/abi"}),
        config=SimpleNamespace(html_baseurl="https://a.example/b/", html_title="T", root_doc="book/intro"),
    )
    publish.extra_pages(app)
    assert re.findall("<loc>(.*?)</loc>", (tmp_path / "sitemap.xml").read_text(encoding="utf-8")) == [
        "https://a.example/b/book/intro.html", "https://a.example/b/book/loader/abi.html"]
    assert 'href="https://a.example/b/book/intro.html"' in (tmp_path / "404.html").read_text(encoding="utf-8")


def test_an_icon_that_the_theme_does_not_have_is_an_error() -> None:
    with pytest.raises(LookupError, match="no icon 'nothing'"):
        publish.icons_css('{bars:[448,512,["navicon"],"f0c9","M0 9"]}', {"nothing"})
    assert "viewBox%3D%270%200%20448%20512" in publish.icons_css('{bars:[448,512,["navicon"],"f0c9","M0 9"]}', {"bars"})


def test_the_workflow_that_publishes_tests_first_and_knows_the_address() -> None:
    jobs = yaml.safe_load((ROOT / ".github" / "workflows" / "pages.yml").read_text(encoding="utf-8"))["jobs"]
    steps = jobs["build"]["steps"]
    [run] = [step for step in steps if step.get("run") == ".ci/run"]
    assert "SEAMREF_BOOK_URL" in run["env"] and jobs["deploy"]["needs"] == "build"
