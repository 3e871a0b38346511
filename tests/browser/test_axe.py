"""axe-core over the rendered pages, in light and dark: nothing that a reader with a screen reader or weak eyes meets.

``axe.min.js`` is axe-core 4.10.3 by Deque Systems, MPL-2.0 (github.com/dequelabs/axe-core), unchanged.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from browser.test_pages import PAGES, WIDE, Visit, address, browser, pytestmark  # noqa: F401

AXE = Path(__file__).with_name("axe.min.js").read_text(encoding="utf-8")
# The theme's own: its logo stands outside a landmark, its buttons are named otherwise than they read.
THEME = {"region", "label-content-name-mismatch", "page-has-heading-one"}
RUN = """() => axe.run(document.querySelector('article.bd-article'), {
  runOnly: {type: 'tag', values: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice']},
  resultTypes: ['violations'], preload: false}).then(r => r.violations.map(v => [v.id, v.impact, v.nodes.length,
    v.nodes.slice(0, 3).map(n => n.target.join(' ') + ' ' + n.html.slice(0, 120))]))"""


def violations(visit: Visit) -> list[Any]:
    visit.page.evaluate(AXE)
    return [row for row in visit.page.evaluate(RUN) if row[0] not in THEME and row[1] != "minor"]


# A page takes axe some seconds: make test looks at every eighth, make thorough at all of them.
@pytest.mark.parametrize("name", [name if at % 8 == 0 else pytest.param(name, marks=pytest.mark.thorough)
                                  for at, name in enumerate(PAGES)])
def test_page_has_no_serious_or_moderate_violation(browser: Any, address: str, name: str) -> None:  # noqa: F811
    visit = Visit(browser, address, f"{name}.html", "light", WIDE)
    try:
        light = violations(visit)
        visit.page.emulate_media(color_scheme="dark")  # the page follows the reader's system while it is open
        visit.page.wait_for_function("document.documentElement.dataset.theme === 'dark'")
        assert (light, violations(visit)) == ([], [])
    finally:
        visit.close()


def test_axe_sees_a_fault(browser: Any, address: str) -> None:  # noqa: F811
    visit = Visit(browser, address, f"{PAGES[0]}.html", "light", WIDE)
    try:
        visit.page.evaluate("""() => { const p = document.createElement('p'); p.textContent = 'faint';
            p.style = 'color:#bbb;background:#fff'; document.querySelector('article.bd-article').append(p); }""")
        assert "color-contrast" in {row[0] for row in violations(visit)}
    finally:
        visit.close()
