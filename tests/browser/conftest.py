"""A browser and two servers of the rendered book for each file of tests here."""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from browser.visits import CHROMIUM, FLAGS

import serve
from built import BuiltBook


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        pass


def _served(server: ThreadingHTTPServer) -> Iterator[str]:
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(scope="module")
def address(built_book: BuiltBook) -> Iterator[str]:
    """The book as any static server has it."""
    if not (built_book.html / "index.html").is_file():
        pytest.skip("the book did not build; tests/book/test_rendered.py says why")
    handler = functools.partial(Quiet, directory=str(built_book.html))
    yield from _served(ThreadingHTTPServer(("127.0.0.1", 0), handler))


@pytest.fixture(scope="module")
def site(built_book: BuiltBook) -> Iterator[str]:
    """The book with its Python, as ``make serve`` serves it."""
    if not list(built_book.html.glob("_static/live/*/worker.js")):
        if os.environ.get("CI"):
            pytest.fail("the book was built without Pyodide")
        pytest.skip("the book was built without Pyodide: npm gave nothing")
    yield from _served(serve.server(built_book.html))


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def profile(browser: Any) -> Iterator[Any]:
    """A context whose cache the visits of a file share."""
    context = browser.new_context(service_workers="block")
    yield context
    context.close()
