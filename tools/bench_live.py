"""The live book in chromium: seconds from the click to the first result, and a chapter's cells against CPython.

Needs the rendered book (``make book``) and the system's chromium.  The aim is 10 s with nothing in the browser's cache
and 3 s after that, on an idle machine with two cores.  On a busy one seconds from the click say little; so a line says
how much CPU time all processes of the browser took meanwhile (Linux only).
"""

from __future__ import annotations

import importlib.util
import json
import os
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


def cpu_seconds(profile: str) -> float:
    """CPU time so far of the browser that has this profile, with all its processes; 0 where there is no /proc."""
    rows: dict[int, tuple[int, float]] = {}
    tree: set[int] = set()
    for place in Path("/proc").glob("[0-9]*"):
        try:
            command = (place / "cmdline").read_bytes()
            words = (place / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it has ended
        rows[int(place.name)] = int(words[1]), (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")
        if f"--user-data-dir={profile}".encode() in command:
            tree.add(int(place.name))
    while more := {pid for pid, (parent, _) in rows.items() if parent in tree} - tree:
        tree |= more
    return sum(rows[pid][1] for pid in tree)


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
        before = cpu_seconds(profile)
        cold = "first result, nothing in the browser's cache"
        yield Bench(cold, lambda: first_result(page), 1, "page", repeat=1)
        yield f"  CPU time of the browser: {cpu_seconds(profile) - before:.1f} s"
        page.close()
        pages = [opened(context, address) for _ in range(3)]
        before = cpu_seconds(profile)
        yield Bench("first result, files in the browser's cache", lambda: first_result(pages.pop()), 1, "page", cold)
        yield f"  CPU time of the browser: {(cpu_seconds(profile) - before) / 3:.1f} s"
        page = opened(context, address)
        first_result(page)
        sources = ["".join(cell["source"]) for cell in cells]

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
