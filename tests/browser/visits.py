"""Pages of the rendered book, opened in the system's chromium, with what they ask for and complain about."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

import chapters

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
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",  # there is no other host
]
THOROUGH = bool(os.environ.get("SEAMREF_THOROUGH"))
PATIENCE = 120_000  # milliseconds: a loaded machine with two cores, and the longest cell
SETTLES = 500  # milliseconds: 300 after the last change of size the theme lets the keyboard reach what then scrolls
PHONE = {"width": 390, "height": 844}
WIDE = {"width": 1280, "height": 900}
PAGES = [*dict.fromkeys(chapters.toc_entries())]
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")


def sampled(every: int, first: int = 0) -> list[Any]:
    """All pages, of which ``make test`` looks at one in ``every``, and ``make thorough`` at all of them."""
    return [name if at % every == first else pytest.param(name, marks=pytest.mark.thorough)
            for at, name in enumerate(PAGES)]


class Visit:
    """One page, opened once, with everything that it asked for or complained about.

    ``browser`` may be a browser, of which the visit takes a fresh profile, or a context that several visits share.
    """

    def __init__(
        self, browser: Any, address: str, path: str, scheme: str = "light", size: dict[str, int] = WIDE,
    ) -> None:
        self.address = address
        self.complaints: list[str] = []
        self.foreign: list[str] = []
        self.own = None
        if hasattr(browser, "new_context"):
            browser = self.own = browser.new_context(service_workers="block")
        self.page = browser.new_page()
        self.page.set_default_timeout(PATIENCE)
        self.page.set_viewport_size(size)
        self.page.emulate_media(color_scheme=scheme)
        self.page.on("console", self._console)
        self.page.on("pageerror", lambda error: self.complaints.append(f"exception: {error}"))
        self.page.on("request", self._request)
        self.page.on("response", self._response)
        self.page.goto(f"{address}/{path}", wait_until="load")
        self.page.wait_for_timeout(50)  # what scripts do after load

    def _console(self, message: Any) -> None:
        if message.type in {"error", "warning"}:
            self.complaints.append(f"{message.type}: {message.text}")

    def _response(self, response: Any) -> None:
        if response.status >= 400:
            self.complaints.append(f"{response.status} {response.url}")

    def _request(self, request: Any) -> None:
        if not request.url.startswith((self.address + "/", "data:", "blob:")):
            self.foreign.append(request.url)

    def wear(self, scheme: str) -> None:
        """The page follows the reader's system while it is open."""
        self.page.emulate_media(color_scheme=scheme, media="screen")
        self.page.wait_for_function("scheme => document.documentElement.dataset.theme === scheme", arg=scheme)

    def resize(self, size: dict[str, int]) -> None:
        self.page.set_viewport_size(size)

    def quiet(self) -> None:
        """Nothing went to another host, and the console is empty."""
        assert self.foreign == []
        assert self.complaints == []

    def close(self) -> None:
        (self.own or self.page).close()


# ---------------------------------------------------------------- what is looked at

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
  const seen = new Map();
  const rgba = css => { if (seen.has(css)) return seen.get(css);
    probe.clearRect(0, 0, 1, 1); probe.fillStyle = css; probe.fillRect(0, 0, 1, 1);
    const d = probe.getImageData(0, 0, 1, 1).data, made = [d[0], d[1], d[2], d[3] / 255];
    seen.set(css, made); return made; };
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

# axe.min.js is axe-core 4.10.3 by Deque Systems, MPL-2.0 (github.com/dequelabs/axe-core), unchanged.
AXE = Path(__file__).with_name("axe.min.js").read_text(encoding="utf-8")
# The theme's own: its logo stands outside a landmark, its buttons are named otherwise than they read.
THEME = {"region", "label-content-name-mismatch", "page-has-heading-one"}
RUN = """places => axe.run({include: places}, {
  runOnly: {type: 'tag', values: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice']},
  resultTypes: ['violations'], preload: false}).then(r => r.violations.map(v => [v.id, v.impact, v.nodes.length,
    v.nodes.slice(0, 3).map(n => n.target.join(' ') + ' ' + n.html.slice(0, 120))]))"""


def violations(visit: Visit, *places: str) -> list[Any]:
    """What axe finds serious or moderate in the article, or in some places of it, as it stands now."""
    visit.page.wait_for_timeout(SETTLES)
    if not visit.page.evaluate("Boolean(window.axe)"):
        visit.page.evaluate(AXE)
    found = visit.page.evaluate(RUN, places or ["article.bd-article"])
    return [row for row in found if row[0] not in THEME and row[1] != "minor"]
