"""The chapters in JupyterLab (``make lab``): MyST is rendered, links lead from chapter to chapter, explorers turn."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jupyter_lab
import pytest
from browser.visits import ROOT, needs_chromium

pytestmark = needs_chromium
PATIENCE = 120_000  # milliseconds
TOKEN = "a-token-for-a-test"
FAKE = "get: async () => () => ({ IMarkdownParser: {} })"


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return jupyter_lab.prepare(tmp_path_factory.mktemp("lab") / "lab")


@pytest.fixture(scope="module")
def extension(browser: Any, prepared: Path) -> Iterator[Any]:
    """The extension's own functions, in an empty page."""
    context = browser.new_context()
    page = context.new_page()
    page.add_script_tag(path=prepared / "extensions" / "seambook" / "static" / "remoteEntry.js")
    page.evaluate(f"""async () => {{
        const held = window._JUPYTERLAB.seambook;
        held.init({{ '@jupyterlab/rendermime': {{ '4': {{ {FAKE} }} }} }});
        Object.assign(window, (await held.get('./extension'))()); }}""")
    yield page
    context.close()


@pytest.mark.parametrize(("myst", "markdown"), [
    ("(here)=\n## Title", '<a id="here"></a>\n\n## Title'),
    ("`{cite}` and `a`{.x}", "`{cite}` and `a`{.x}"),
    ("```python\n(x)=\n{cite}`343754`\n```", "```python\n(x)=\n{cite}`343754`\n```"),
    ("{cite}`nosuch 1`", "[nosuch 1]"),
    ("a [b](nosuchlabel) c", "a [b](nosuchlabel) c"),
    ("See [that](q-4), [](glossary).",
     "See [that](/seambook/processor/seamcall.html#q-4), [Glossary](/seambook/appendices/glossary.html)."),
    ("```{note}\nSay **it**.\n```", "\n> **Note**\n>\n> Say **it**.\n"),
    (":::{admonition} A title\n:class: tip\nWords.\n:::", "\n> **A title**\n>\n> Words.\n"),
    ("```{literalinclude} update.pml\n:language: c\n```", "\n[update.pml](update.pml)\n"),
])
def test_myst_becomes_what_JupyterLab_knows(extension: Any, myst: str, markdown: str) -> None:
    assert extension.evaluate("text => translated(text)", myst) == markdown


def test_no_page_keeps_a_role_a_label_or_a_directive_that_JupyterLab_would_show(extension: Any) -> None:
    texts = [text for path in jupyter_lab.pages().values() for text in jupyter_lab.markdown(path)]
    assert sum("{cite}" in text for text in texts) > 50
    left = [(text, made) for text, made in zip(texts, extension.evaluate("all => all.map(translated)", texts),
                                               strict=True)
            if re.search(r"^\([\w.-]+\)=\s*$|^(`{3,}|:{3,})\s*\{|(?<!`)\{[\w:.-]+\}`", made, re.MULTILINE)]
    assert left == []


def test_every_citation_leads_where_the_rendered_book_leads(extension: Any) -> None:
    made = extension.evaluate("text => translated(text)", "See {cite}`343754 section 3.4; SDM vol. 3C` here.")
    known = set(jupyter_lab.facts()["cites"])
    said = next(iter(sorted(known)))
    shown = extension.evaluate("text => translated(text)", f"{{cite}}`{said}`")
    assert made.startswith("See [") and shown.startswith("&#91;") and "http" in shown


@pytest.mark.parametrize(("href", "path", "id"), [
    ("../appendices/clauses.html#clause-seamcall-cpl", "appendices/clauses_processor.ipynb", "SEAMCALL.cpl"),
    ("clauses_host.html#BLOB.convert", "appendices/clauses_host.ipynb", "BLOB.convert"),
    ("../loader/install.html#exercises", "loader/install.ipynb", "exercises"),
    ("#exercises", "processor/seamcall.ipynb", "exercises"),
])
def test_a_link_of_an_output_leads_to_the_chapter_that_has_it(extension: Any, href: str, path: str, id: str) -> None:
    made = extension.evaluate("href => place(href, 'processor/seamcall.ipynb')", href)
    assert made == {"path": path, "id": id}


# ---------------------------------------------------------------- the whole of it


@pytest.fixture(scope="module")
def jupyter(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """JupyterLab as ``make lab`` starts it, with nothing of this user's settings."""
    home = tmp_path_factory.mktemp("home")
    log = home / "log.txt"
    words = jupyter_lab.command(prepared, ["--no-browser", f"--IdentityProvider.token={TOKEN}", "--ServerApp.port=0",
                                   "--ServerApp.ip=127.0.0.1", "--allow-root", "--ServerApp.log_level=INFO"])
    with log.open("w") as out:
        server = subprocess.Popen(words, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=out, stderr=out, env={
            **os.environ, "JUPYTER_CONFIG_DIR": str(home / "config"), "HOME": str(home),
            "JUPYTER_DATA_DIR": str(home / "data"), "JUPYTER_RUNTIME_DIR": str(home / "run")})
    try:
        end = time.monotonic() + 120
        while not (found := re.search(r"http://127\.0\.0\.1:(\d+)/lab", log.read_text())):
            assert server.poll() is None and time.monotonic() < end, log.read_text()
            time.sleep(0.5)
        yield f"http://127.0.0.1:{found.group(1)}"
    finally:
        server.terminate()
        server.wait(30)


@pytest.fixture
def opened(browser: Any, jupyter: str) -> Iterator[Any]:
    """Opens a chapter, and gives its page once its Markdown is there."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    page.set_default_timeout(PATIENCE)

    def open_(path: str) -> Any:
        page.goto(f"{jupyter}/lab/tree/{path}?token={TOKEN}&reset")
        page.locator(".jp-NotebookPanel:visible .jp-RenderedMarkdown h1").first.wait_for()
        return page

    yield open_
    context.close()


@pytest.mark.thorough
def test_a_chapter_in_JupyterLab_shows_no_raw_MyST_and_its_links_open_chapters(opened: Any) -> None:
    page = opened("processor/seamcall.ipynb")
    text = page.locator(".jp-NotebookPanel:visible").inner_text()
    assert "{cite}" not in text and not re.search(r"^\([\w-]+\)=", text, re.MULTILINE)
    page.locator('.jp-OutputArea a[href*="clause-seamcall-cpl"]').first.click()
    arrived = page.locator('.jp-NotebookPanel:visible :is([id="SEAMCALL.cpl"], [data-jupyter-id="SEAMCALL.cpl"])')
    arrived.wait_for()
    page.wait_for_function("e => document.activeElement === e", arg=arrived.element_handle())
    page = opened("processor/events.ipynb")
    page.locator('.jp-RenderedMarkdown a[href*="#q-4"]').first.click()
    page.locator(".jp-NotebookPanel:visible h1", has_text="SEAMCALL as a decision procedure").wait_for()
    page.locator('.jp-RenderedMarkdown a:visible:has-text("When documents disagree")').first.click()
    page.locator(".jp-NotebookPanel:visible h1", has_text="When documents disagree").wait_for()


@pytest.mark.thorough
def test_an_explorer_in_JupyterLab_turns_and_says_when_it_fails(opened: Any) -> None:
    page = opened("processor/seamcall.ipynb")
    source = ("from seamref.show import explorer, paragraph\n"
              "explorer(lambda n, up: paragraph(f'{n} squared is {n * n}' if up else 1 / 0),\n"
              "         n={'three': 3, 'four': 4}, up=True, key='own')")
    cell = page.locator(".jp-NotebookPanel:visible .jp-CodeCell").first
    cell.locator(".cm-content").click()
    page.keyboard.press("Control+a")
    page.keyboard.insert_text(source)
    page.keyboard.press("Shift+Enter")
    shown = cell.locator(".jupyter-widgets")
    shown.first.wait_for()
    cell.get_by_text("3 squared is 9").wait_for()
    assert cell.locator('input[type="checkbox"]').count() == 1  # three and four are no yes and no
    cell.locator("select").select_option("four")
    cell.get_by_text("4 squared is 16").wait_for()
    cell.locator('input[type="checkbox"]').uncheck()
    cell.get_by_text("ZeroDivisionError: division by zero").wait_for()
    assert cell.get_by_text("4 squared is 16").count() == 0


def test_make_lab_starts_it(tmp_path: Path) -> None:
    words = jupyter_lab.command(tmp_path, ["--no-browser"])
    assert words[0] == sys.executable and words[-1] == str(ROOT / "book") and "--no-browser" in words
    assert "tools/jupyter_lab.py" in (ROOT / "Makefile").read_text(encoding="utf-8")
    held = json.loads((jupyter_lab.OWN / jupyter_lab.NAME / "package.json").read_text(encoding="utf-8"))
    assert (jupyter_lab.OWN / jupyter_lab.NAME / held["jupyterlab"]["_build"]["load"]).is_file()
