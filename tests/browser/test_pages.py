"""Every page of the rendered book in a real browser: wide and at phone width, in light and dark, and on paper.

A page is loaded once for all that is looked at (``visit``); the theme and the width change in place.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pdf
import pytest
from browser.visits import CONTRAST, OVERFLOW, PAGES, PHONE, THOROUGH, WIDE, Visit, needs_chromium, sampled, violations

pytestmark = needs_chromium
SHEET = {"width": pdf.TEXT_WIDTH_PX, "height": 960}


@pytest.fixture(scope="module")
def visit(profile: Any, address: str, request: pytest.FixtureRequest) -> Iterator[Visit]:
    made = Visit(profile, address, f"{request.param}.html", "light", PHONE)
    yield made
    made.close()


# Each list has every page in the same order: pytest then does all that is to be done on a page before it leaves it.
each = pytest.mark.parametrize("visit", PAGES, indirect=True, scope="module")
some = pytest.mark.parametrize("visit", sampled(8), indirect=True, scope="module")
others = pytest.mark.parametrize("visit", sampled(8, 3), indirect=True, scope="module")


@each
def test_page(visit: Visit) -> None:
    visit.quiet()
    for scheme in ("light", "dark"):
        visit.wear(scheme)
        assert visit.page.evaluate(CONTRAST) == [], scheme
        if scheme == "dark" and not THOROUGH:
            break  # a theme changes colours, no sizes; make thorough looks all the same
        for size in (PHONE, WIDE):
            visit.resize(size)
            seen = visit.page.evaluate(OVERFLOW)
            assert seen["page"] <= seen["width"] and not seen["first"], f"{scheme}, {size['width']} px: {seen}"
    visit.quiet()


# axe takes some seconds for a page.
@some
def test_page_has_no_serious_or_moderate_violation(visit: Visit) -> None:
    found = {}
    for scheme, size in (("light", WIDE), ("dark", PHONE)):
        visit.wear(scheme)
        visit.resize(size)
        if seen := violations(visit):
            found[scheme, size["width"]] = seen
    assert found == {}


# What a sheet cuts off, what a box cuts off, and what stays folded.
LOST = """() => {
  const width = document.documentElement.clientWidth, lost = [];
  const say = (what, e) => lost.push(what + ' ' + e.tagName + '.' + (e.className.baseVal ?? e.className) + ' '
    + e.textContent.trim().slice(0, 60));
  for (const e of document.querySelectorAll('article.bd-article *')) {
    const r = e.getBoundingClientRect(), s = getComputedStyle(e);
    if (e.tagName === 'DETAILS' && !e.open
      && getComputedStyle(e, '::details-content').contentVisibility === 'hidden') say('folded', e);
    if (r.width === 0 || e.closest('svg') && e.tagName !== 'svg') continue;
    if (r.right > width + 1 || r.left < -1) say('wider than the sheet', e);
    else if (s.overflowX !== 'visible' && e.scrollWidth > e.clientWidth + 1 && e.clientWidth > 1) say('cut', e);
  }
  return lost.slice(0, 5);
}"""


@others
def test_nothing_of_a_chapter_is_lost_on_paper(visit: Visit) -> None:
    visit.wear("dark")
    visit.resize(SHEET)
    visit.page.emulate_media(media="print", color_scheme="dark")
    assert visit.page.evaluate(LOST) == []
    assert visit.page.evaluate(CONTRAST) == []  # also where it is dark on the screen


# ---------------------------------------------------------------- pages of their own


def test_a_page_is_dark_from_the_first_for_a_reader_whose_system_is(browser: Any, address: str) -> None:
    visit = Visit(browser, address, f"{PAGES[0]}.html", "dark", WIDE)
    try:
        assert visit.page.evaluate("document.documentElement.dataset.theme") == "dark"
        assert visit.page.evaluate(CONTRAST) == []
        visit.quiet()
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


# ---------------------------------------------------------------- that the checks can fail


def test_the_checks_see_what_they_are_for(browser: Any, address: str) -> None:
    """A page with each fault: overflow, faint text, a console error, and other hosts, asked by page and by worker."""
    visit = Visit(browser, address, f"{PAGES[0]}.html", "light", PHONE)
    try:
        visit.page.evaluate(
            """() => { const box = document.createElement('div');
            box.innerHTML = '<div class="wide" style="width:900px">x</div>'
              + '<p style="color:#eee;background:#fff">faint</p>'
              + '<img src="https://other.example/x.png">';
            document.querySelector('article.bd-article').append(box); console.error('a fault');
            new Worker(URL.createObjectURL(new Blob(["fetch('https://third.example/y').catch(() => postMessage(1))"])))
              .onmessage = () => { document.body.dataset.asked = 'refused'; }; }"""
        )
        visit.page.wait_for_function("document.body.dataset.asked === 'refused'")
        assert visit.page.evaluate(OVERFLOW)["first"] == ["DIV.wide"]
        assert any("faint" in line for line in visit.page.evaluate(CONTRAST))
        assert sorted(visit.foreign) == ["https://other.example/x.png", "https://third.example/y"]
        assert "error: a fault" in visit.complaints
        assert "color-contrast" in {row[0] for row in violations(visit)}
    finally:
        visit.close()


def test_the_print_check_sees_what_it_is_for(browser: Any, address: str) -> None:
    visit = Visit(browser, address, f"{PAGES[0]}.html", "light", SHEET)
    try:
        visit.page.emulate_media(media="print")
        visit.page.evaluate(
            """() => { const box = document.createElement('div');
            box.innerHTML = '<div class="wide" style="width:1200px">x</div>'
              + '<div class="box" style="overflow:hidden;width:200px"><div style="width:400px">y</div></div>'
              + '<details class="shut"><summary>s</summary><p>z</p></details>'
              + '<style>.bd-article details.shut::details-content { content-visibility: hidden !important }</style>';
            document.querySelector('article.bd-article').append(box); }"""
        )
        seen = visit.page.evaluate(LOST)
        assert [line.split(" ")[0] for line in seen] == ["wider", "cut", "folded"], seen
    finally:
        visit.close()
