"""Every page of the rendered book in a real browser: wide and at phone width, in light and dark."""

from __future__ import annotations

import functools
import shutil
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

import chapters
from built import BuiltBook

ROOT = Path(__file__).resolve().parents[2]
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
PHONE = {"width": 390, "height": 844}
WIDE = {"width": 1280, "height": 900}
PAGES = [*dict.fromkeys(chapters.toc_entries())]

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture(scope="module")
def address(built_book: BuiltBook) -> Iterator[str]:
    if not (built_book.html / "index.html").is_file():
        pytest.skip("the book did not build; tests/book/test_rendered.py says why")
    handler = functools.partial(Quiet, directory=str(built_book.html))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield chromium
        chromium.close()


class Visit:
    """One page, opened once, with everything that it asked for or complained about."""

    def __init__(self, browser: Any, address: str, path: str, scheme: str, size: dict[str, int]) -> None:
        self.complaints: list[str] = []
        self.foreign: list[str] = []
        self.context = browser.new_context(viewport=size, color_scheme=scheme, service_workers="block")
        self.page = self.context.new_page()
        self.page.on("console", self._console)
        self.page.on("pageerror", lambda error: self.complaints.append(f"exception: {error}"))
        self.page.on("response", self._response)
        self.context.route("**/*", functools.partial(self._route, address))
        self.page.goto(f"{address}/{path}", wait_until="load")
        self.page.wait_for_timeout(50)  # what scripts do after load

    def _console(self, message: Any) -> None:
        if message.type in {"error", "warning"}:
            self.complaints.append(f"{message.type}: {message.text}")

    def _response(self, response: Any) -> None:
        if response.status >= 400:
            self.complaints.append(f"{response.status} {response.url}")

    def _route(self, address: str, route: Any) -> None:
        if route.request.url.startswith((address + "/", "data:", "blob:")):
            route.continue_()
        else:
            self.foreign.append(route.request.url)
            route.abort()

    def close(self) -> None:
        self.context.close()


# What sticks out of the window, unless an ancestor lets the reader scroll to it.
OVERFLOW = """() => {
  const width = document.documentElement.clientWidth;
  const scrolls = e => { for (let p = e.parentElement; p && p !== document.body; p = p.parentElement) {
    const s = getComputedStyle(p); if (s.overflowX !== 'visible' || s.position === 'fixed') return true; }
    return false; };
  const out = [...document.querySelectorAll('article.bd-article *')].filter(e => {
    const r = e.getBoundingClientRect();
    return r.width > 0 && r.right > width + 1 && !scrolls(e); });
  return {page: document.documentElement.scrollWidth, body: document.body.scrollWidth, width,
          first: out.slice(0, 3).map(e => e.tagName + '.' + e.className)};
}"""

# Relative luminance of a CSS colour, and the weakest contrast of the article's own text.
CONTRAST = """() => {
  const probe = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
  const rgba = css => { probe.clearRect(0, 0, 1, 1); probe.fillStyle = css; probe.fillRect(0, 0, 1, 1);
    const d = probe.getImageData(0, 0, 1, 1).data; return [d[0], d[1], d[2], d[3] / 255]; };
  const over = (top, under) => [0, 1, 2].map(i => top[i] * top[3] + under[i] * (1 - top[3])).concat(1);
  const light = c => c.slice(0, 3).map(v => v / 255)
    .map(v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
  const ground = e => { const stack = []; for (let p = e; p; p = p.parentElement) {
      stack.push(rgba(getComputedStyle(p).backgroundColor)); if (stack.at(-1)[3] === 1) break; }
    return stack.reverse().reduce((under, top) => over(top, under), [255, 255, 255, 1]); };
  const weak = [];
  const texts = 'article.bd-article :is(p, li, dt, dd, td, th, h1, h2, h3, pre, code, span, strong, em)';
  for (const e of document.querySelectorAll(texts)) {
    const own = [...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim());
    if (!own || !e.getClientRects().length || e.closest('svg')) continue;
    const style = getComputedStyle(e); if (style.visibility === 'hidden' || style.opacity === '0') continue;
    const under = ground(e), text = over(rgba(style.color), under);
    const [a, b] = [light(text), light(under)].sort((x, y) => y - x), ratio = (a + .05) / (b + .05);
    if (ratio < 3) weak.push(ratio.toFixed(2) + ' ' + e.tagName + ' ' + e.textContent.trim().slice(0, 40));
  }
  return weak.slice(0, 5);
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", PAGES)
def test_page(browser: Any, address: str, name: str, scheme: str) -> None:
    visit = Visit(browser, address, f"{name}.html", scheme, PHONE)
    try:
        assert visit.foreign == []
        assert visit.complaints == []
        assert visit.page.evaluate("document.documentElement.dataset.theme") == scheme
        assert visit.page.evaluate(CONTRAST) == []
        for size in (PHONE, WIDE):
            visit.page.set_viewport_size(size)
            seen = visit.page.evaluate(OVERFLOW)
            assert seen["page"] <= seen["width"] and not seen["first"], f"at {size['width']} px: {seen}"
    finally:
        visit.close()


def test_the_folder_opens_at_the_landing_page(browser: Any, address: str) -> None:
    visit = Visit(browser, address, "index.html", "light", WIDE)
    try:
        visit.page.wait_for_url(f"**/{PAGES[0]}.html")
        assert visit.page.locator("article h1").count() == 1
        assert visit.foreign == []
    finally:
        visit.close()


def test_the_checks_see_what_they_are_for(browser: Any, address: str) -> None:
    """A page with each fault: overflow, faint text, a foreign image, a console error."""
    visit = Visit(browser, address, f"{PAGES[0]}.html", "light", PHONE)
    try:
        visit.page.evaluate(
            """() => { const box = document.createElement('div');
            box.innerHTML = '<div class="wide" style="width:900px">x</div>'
              + '<p style="color:#eee;background:#fff">faint</p>'
              + '<img src="https://other.example/x.png">';
            document.querySelector('article.bd-article').append(box); console.error('a fault'); }"""
        )
        visit.page.wait_for_timeout(100)
        assert visit.page.evaluate(OVERFLOW)["first"] == ["DIV.wide"]
        assert any("faint" in line for line in visit.page.evaluate(CONTRAST))
        assert visit.foreign == ["https://other.example/x.png"]
        assert "error: a fault" in visit.complaints
    finally:
        visit.close()
