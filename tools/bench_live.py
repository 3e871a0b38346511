"""The live book in chromium: seconds from the click to the first result, and a chapter's cells against CPython.

Needs the rendered book (``make book``) and the system's chromium.  The aim is 10 s with nothing in the browser's cache
and 3 s after that, on an idle machine with two cores.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench import Bench

import serve

ROOT = Path(__file__).resolve().parents[1]
HTML = ROOT / "_build" / "html"
CHAPTER = "book/processor/seamcall"
PATIENCE = 600_000  # milliseconds
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]


def opened(context: Any, address: str) -> Any:
    """A page with the chapter, everything but Python there."""
    page = context.new_page()
    page.set_default_timeout(PATIENCE)
    page.goto(f"{address}/{CHAPTER}.html", wait_until="load")
    page.wait_for_timeout(1000)
    return page


def first_result(page: Any) -> None:
    """Go live, run the first cell, and see its output."""
    page.get_by_role("button", name="Make this page live").click()
    page.get_by_role("button", name="Run cell 1", exact=True).click()
    page.wait_for_function("document.querySelector('.cell').dataset.live === 'same'")


def benchmarks() -> Iterator[Bench | str]:
    """What a reader waits for."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None or not list(HTML.glob("_static/live/*/worker.js")):
        yield "not measured: needs chromium, and the book with its Python (make book)"
        return
    from playwright.sync_api import sync_playwright

    cells = [cell for cell in json.loads((ROOT / f"{CHAPTER}.ipynb").read_text(encoding="utf-8"))["cells"]
             if cell["cell_type"] == "code"]
    spec = importlib.util.spec_from_file_location("kernel", ROOT / "book" / "_ext" / "livebook" / "kernel.py")
    assert spec is not None and spec.loader is not None
    kernel = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(kernel)
    server = serve.server(HTML)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    with tempfile.TemporaryDirectory() as profile, sync_playwright() as playwright:
        context = playwright.chromium.launch_persistent_context(profile, executable_path=chromium, args=FLAGS)
        page = opened(context, address)
        cold = "first result, nothing in the browser's cache"
        yield Bench(cold, lambda: first_result(page), 1, "page", repeat=1)
        page.close()
        pages = [opened(context, address) for _ in range(3)]
        yield Bench("first result, files in the browser's cache", lambda: first_result(pages.pop()), 1, "page", cold)
        page = opened(context, address)
        first_result(page)
        sources = [source for cell in cells if ".frame" not in (source := "".join(cell["source"]))]

        def here() -> None:
            session = kernel.Kernel()
            for source in sources:
                session.run(source)

        def there() -> None:
            page.evaluate("async sources => { for (const one of sources) await seambook.live.run(one); }", sources)

        against = f"{len(sources)} cells of {CHAPTER} under CPython"
        yield Bench(against, here, 1, "chapter", repeat=2)
        yield Bench(f"{len(sources)} cells of {CHAPTER} in the page", there, 1, "chapter", against, repeat=2)
        context.close()
    server.shutdown()
    server.server_close()
