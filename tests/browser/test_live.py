"""The live book in a real browser: cells run and give what is printed, from the book's own folder and nothing else."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from browser.visits import PAGES, PHONE, ROOT, WIDE, Visit, needs_chromium, violations

from built import BuiltBook

sys.path.append(str(ROOT / "book" / "_ext"))
import live

pytestmark = needs_chromium
SEAMCALL = "book/processor/seamcall"


def notebook(name: str) -> list[dict[str, Any]]:
    """The code cells of a chapter; none of a page that is no notebook."""
    path = ROOT / f"{name}.ipynb"
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"] if path.is_file() else []
    return [cell for cell in cells if cell["cell_type"] == "code" and "".join(cell["source"]).strip()]


CHAPTERS = [name for name in PAGES if notebook(name)]
# Their cells run in every test run, in the Python of one page: one that prints long lists, one with an error, one that
# reads a file, one of each part.
SAMPLED = [
    "book/foundations/oracle", "book/boot/info", "book/loader/sigstruct", "book/module/up", "book/appendices/fuzzing",
]


class Live(Visit):
    """A chapter that is made live, with what it asks for and complains about."""

    def __init__(self, browser: Any, site: str, name: str) -> None:
        super().__init__(browser, site, f"{name}.html")

    def go(self) -> None:
        self.page.get_by_role("button", name="Make this page live").click()
        self.page.get_by_role("button", name="Run all cells").wait_for()

    def press(self, name: str) -> None:
        self.page.get_by_role("button", name=name, exact=True).click()

    def wait(self, condition: str) -> None:
        self.page.wait_for_function(f"() => {condition}")

    def outcome(self, number: int) -> str:
        """Run one cell: ``same`` as printed, ``other``, or ``failed``."""
        self.press(f"Run cell {number}")
        return self.came(number)

    def came(self, number: int) -> str:
        cell = f"seambook.live.cells()[{number - 1}].box"
        self.wait(f"['same', 'other', 'failed'].includes({cell}.dataset.live)")
        return str(self.page.evaluate(f"{cell}.dataset.live"))

    def write(self, number: int, text: str) -> None:
        self.page.get_by_label(f"Code of cell {number}", exact=True).fill(text)

    def shown(self, number: int) -> str:
        return str(self.page.evaluate(f"seambook.live.cells()[{number - 1}].output.innerText"))

    def state(self, number: int) -> str:
        return str(self.page.evaluate(f"seambook.live.cells()[{number - 1}].state.textContent"))

    def close(self) -> None:
        """Not while files are on their way: a context that is closed then does not always end."""
        if self.page.evaluate("window.seambook?.live?.state === 'starting'"):
            self.wait("seambook.live.state !== 'starting'")
        super().close()


@pytest.fixture(scope="module")
def shared_page(profile: Any, site: str) -> Iterator[Live]:
    visit = Live(profile, site, SEAMCALL)
    try:
        visit.go()
        yield visit
    finally:
        visit.close()


@pytest.fixture
def seamcall(shared_page: Live) -> Iterator[Live]:
    """The chapter, live, every cell as printed; its Python has the names of earlier tests."""
    shared_page.page.evaluate("""() => seambook.live.cells()
        .forEach(cell => { cell.ran = undefined; cell.reset(); })""")
    yield shared_page
    shared_page.quiet()


# ---------------------------------------------------------------- every cell of every chapter


def run_all(visit: Live, name: str) -> None:
    """Run a chapter as its reader does."""
    visit.press("Run all cells")
    visit.wait("""(() => { const cells = seambook.live.cells().filter(c => !c.facts.needs);
        return cells.every(c => ['same', 'other', 'failed'].includes(c.box.dataset.live))
            || cells.some(c => c.box.dataset.live === 'failed' && !c.facts.fails); })()""")
    rows = visit.page.evaluate("""seambook.live.cells().map(c =>
        [c.number, c.facts.needs ? "needs" : c.box.dataset.live, c.state.textContent])""")
    lacking = ["needs" in row for row in live.cells_of(ROOT / f"{name}.ipynb")]
    assert [row[:2] for row in rows] == [[i, "needs" if lacks else "same"] for i, lacks in enumerate(lacking, 1)], rows


def test_every_cell_gives_its_printed_output(seamcall: Live) -> None:
    run_all(seamcall, SEAMCALL)


@pytest.mark.thorough
@pytest.mark.parametrize("name", CHAPTERS)
def test_every_cell_of_a_chapter_gives_its_printed_output_on_its_page(profile: Any, site: str, name: str) -> None:
    visit = Live(profile, site, name)
    try:
        visit.go()
        run_all(visit, name)
        visit.quiet()
    finally:
        visit.close()


@pytest.mark.parametrize("name", SAMPLED)
def test_the_cells_of_a_chapter_give_their_printed_outputs_in_the_page_s_python(seamcall: Live, name: str) -> None:
    assert name in CHAPTERS
    told = live.cells_of(ROOT / f"{name}.ipynb")
    cells = [{"number": number, "source": "".join(cell["source"]), "digest": row["digest"]}
             for number, (cell, row) in enumerate(zip(notebook(name), told, strict=True), 1)]
    page = seamcall.page
    try:
        other = page.evaluate("""async ([name, cells]) => {
            await seambook.live.call('seambook_kernel:begin', ['/seambook', name]);
            const other = [];
            for (const { number, source, digest } of cells) {
                const got = await seambook.live.run(source, digest);
                if (got.digest !== digest) other.push([number, got.outputs]);
            }
            return other; }""", [name, cells])
    finally:
        page.evaluate("name => seambook.live.call('seambook_kernel:begin', ['/seambook', name])", SEAMCALL)
    assert other == []


# ---------------------------------------------------------------- one cell


def test_each_cell_has_a_button_that_says_run(seamcall: Live) -> None:
    for number, _ in enumerate(notebook(SEAMCALL), 1):
        tools = seamcall.page.locator(f'.seam-cell-tools[aria-label="Cell {number}"]')
        names = tools.get_by_role("button", name=re.compile("^Run"), include_hidden=True)
        assert [button.get_attribute("aria-label") for button in names.all()] == [
            f"Run cell {number}", f"Run all above cell {number}"]


def test_a_changed_cell_gives_another_table_and_reset_brings_the_printed_one_back(seamcall: Live) -> None:
    printed = seamcall.shown(1)
    source = "".join(notebook(SEAMCALL)[0]["source"])
    assert "user=True" in source
    seamcall.write(1, source.replace("user=True", "user=False"))
    assert seamcall.outcome(1) == "other"
    assert seamcall.shown(1) != printed
    table = seamcall.page.locator(".cell").first.locator("table.seam-table")
    assert table.locator("tbody tr").count() == 4
    assert table.locator("a.seam-ref").first.get_attribute("href") == (
        "../appendices/clauses_processor.html#SEAMCALL.non_root")
    seamcall.press("Reset cell 1")
    assert seamcall.shown(1) == printed
    assert seamcall.outcome(1) == "same"
    assert seamcall.state(1).startswith("as printed")


def test_an_error_is_one_line_as_the_book_prints_it_with_the_way_to_it_behind(seamcall: Live) -> None:
    seamcall.write(1, "def half(n):\n    return n / 0\n\nhalf(1)")
    assert seamcall.outcome(1) == "failed"
    first, *_ = seamcall.shown(1).splitlines()
    assert first == "ZeroDivisionError: division by zero"
    trace = seamcall.page.locator(".seam-trace pre").first.text_content()
    assert trace is not None and "return n / 0" in trace and "seambook_kernel" not in trace
    seamcall.write(1, "print('one')\nimport sys\nprint('two', file=sys.stderr)\ndisplay(3)\n[0x10] * 30")
    assert seamcall.outcome(1) == "other"
    assert seamcall.shown(1).split()[:3] == ["one", "two", "3"]
    assert len(seamcall.shown(1).splitlines()) > 30  # a long list, broken as the pretty printer breaks it


def test_a_cell_runs_after_those_above_it(seamcall: Live) -> None:
    assert seamcall.outcome(3) == "same"
    assert [seamcall.came(number) for number in (1, 2)] == ["same", "same"]


def test_a_failure_stops_what_was_to_follow(seamcall: Live) -> None:
    seamcall.write(2, "raise ValueError('here')")
    seamcall.press("Run cell 4")
    assert seamcall.came(2) == "failed"
    seamcall.page.wait_for_timeout(300)
    assert seamcall.page.evaluate("seambook.live.cells()[3].box.dataset.live ?? ''") == ""
    assert seamcall.page.evaluate("seambook.live.state") == "ready"


def test_stop_interrupts_a_running_cell_and_keeps_the_session(seamcall: Live) -> None:
    assert seamcall.page.evaluate("window.crossOriginIsolated")
    seamcall.write(1, "kept = 41\nwhile True:\n    pass")
    seamcall.press("Run cell 1")
    seamcall.wait("seambook.live.state === 'busy'")
    seamcall.page.wait_for_timeout(500)
    assert seamcall.page.locator(".cell").first.get_attribute("aria-busy") == "true"
    seamcall.press("Stop cell 1")
    assert seamcall.came(1) == "failed"
    assert seamcall.shown(1).splitlines()[0] == "KeyboardInterrupt"
    seamcall.write(1, "kept + 1")
    assert seamcall.outcome(1) == "other"
    assert seamcall.shown(1).split() == ["42"]


def test_where_a_server_does_not_isolate_pages_stop_starts_python_anew_and_says_so(
        browser: Any, address: str, site: str) -> None:
    visit = Live(browser, address, SEAMCALL)
    try:
        visit.page.get_by_role("button", name="Make this page live").hover()
        visit.wait("seambook.live.state === 'starting'")  # who rests on it will press it
        visit.go()
        assert not visit.page.evaluate("window.crossOriginIsolated")
        visit.write(1, "lost = 1\nwhile True:\n    pass")
        visit.press("Run cell 1")
        visit.wait("seambook.live.state === 'busy'")
        visit.page.wait_for_timeout(500)
        visit.press("Stop cell 1")
        visit.wait("seambook.live.cells()[0].state.textContent === 'stopped'")
        assert "started anew" in str(visit.page.locator(".seam-live-said").text_content())
        visit.write(1, "lost")
        assert visit.outcome(1) == "failed"
        assert visit.shown(1).splitlines()[0] == "NameError: name 'lost' is not defined"
        visit.quiet()
    finally:
        visit.close()


def test_start_over_forgets_everything(seamcall: Live) -> None:
    seamcall.write(1, "held = 1\nheld")
    assert seamcall.outcome(1) == "other"
    seamcall.press("Start over")
    assert seamcall.page.evaluate("seambook.live.state") == "off"
    assert "user=True" in str(seamcall.page.get_by_label("Code of cell 1", exact=True).inner_text())
    seamcall.write(1, "held")
    assert seamcall.outcome(1) == "failed"


# ---------------------------------------------------------------- hands, ears, eyes


def test_the_keyboard_alone_goes_live_changes_a_cell_and_runs_it(browser: Any, site: str) -> None:
    visit = Live(browser, site, SEAMCALL)
    page = visit.page
    focused = "document.activeElement.getAttribute('aria-label') ?? document.activeElement.textContent"

    def tab_to(name: str, key: str = "Tab") -> None:
        for _ in range(400):
            if page.evaluate(focused) == name:
                return
            page.keyboard.press(key)
        raise AssertionError(f"{name} is not reached with {key}; now at {page.evaluate(focused)}")

    try:
        tab_to("Make this page live")
        page.keyboard.press("Enter")
        page.get_by_role("button", name="Run all cells").wait_for()
        assert page.evaluate(focused) == "Run all cells"
        tab_to("Code of cell 1")
        page.keyboard.press("Control+Home")
        line = next(at for at, text in enumerate("".join(notebook(SEAMCALL)[0]["source"]).splitlines())
                    if "user=True" in text)
        for _ in range(line):
            page.keyboard.press("ArrowDown")
        page.keyboard.press("End")
        for key in ("ArrowLeft", *["Backspace"] * 4):
            page.keyboard.press(key)
        page.keyboard.type("False")
        page.keyboard.press("Shift+Enter")
        assert visit.came(1) == "other"
        assert page.evaluate(focused) == "Code of cell 1"
        tab_to("Run cell 1")
        tab_to("Reset cell 1")
        page.keyboard.press("Enter")
        assert page.evaluate(focused) == "Run cell 1"
        assert "user=True" in str(page.get_by_label("Code of cell 1", exact=True).inner_text())
        page.keyboard.press("Enter")
        assert visit.came(1) == "same"
        tab_to("Code of cell 1", "Shift+Tab")
        visit.quiet()
    finally:
        visit.close()


def test_the_live_controls_have_no_violation(seamcall: Live) -> None:
    source = "".join(notebook(SEAMCALL)[0]["source"])
    seamcall.write(1, source.replace("user=True", "user=False"))
    assert seamcall.outcome(1) == "other"
    seamcall.write(2, "# a word\ndef f(x: int) -> str:\n    return 'a' * x if x > 1 else None\n\nf(3, 4)")
    assert seamcall.outcome(2) == "failed"
    seamcall.page.locator(".seam-trace summary").first.click()
    # The rest of the page is as test_pages.py finds it, but for what stands below each cell.
    seamcall.page.evaluate("[...document.querySelectorAll('.cell')].slice(0, 3).forEach((e, i) => e.id = `live-${i}`)")
    places = [".seam-live", "#live-0", "#live-1", "#live-2"]
    found = {}
    try:
        for size in (WIDE, PHONE):
            for scheme in ("light", "dark"):
                seamcall.resize(size)
                seamcall.wear(scheme)
                if seen := violations(seamcall, *places):
                    found[scheme, size["width"]] = seen
            wide, window = seamcall.page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
            assert wide <= window
    finally:
        seamcall.resize(WIDE)
        seamcall.wear("light")
    assert found == {}


def test_from_a_file_one_line_says_how_to_go_live(browser: Any, built_book: BuiltBook, site: str) -> None:
    visit = Visit(browser, "file://", f"{built_book.html}/{SEAMCALL}.html", "light", WIDE)
    try:
        line = str(visit.page.locator(".seam-live").text_content())
        assert "make serve" in line and len(line) < 200
        assert visit.page.locator(".seam-live button").count() == 0
        assert visit.page.get_by_role("button", name=re.compile("^Run")).count() == 0
        assert visit.page.locator(".cell_output table").count() > 5
        assert visit.complaints == []
    finally:
        visit.close()


# ---------------------------------------------------------------- the core's jobs, against CPython

JOBS = [
    ["--version"], ["--help"], ["help", "explain"],
    ["explain", "0x8000000000000003"], ["explain", "TDX module initialization failed"], ["explain", "0xC0000"],
    ["seamcall", "--help"], ["clause", "SEAMCALL.cpl"], ["layout", "SEAM_SIGSTRUCT"], ["msr", "IA32_SEAMRR_PHYS_MASK"],
    ["leaves"], ["boot"], ["install"], ["remaining", "--json"], ["module-story"], ["memory", "--lps", "8"],
    ["nosuchcommand"], ["inspect", "/nosuchfile"],
]


def said(text: str) -> str:
    return " ".join(text.split())


UNDER_CPYTHON = """
import json, runpy, sys
command = runpy.run_path(sys.argv[1])["command"]
print(json.dumps([command(*words) for words in json.loads(sys.argv[2])]))
"""


def test_the_core_s_jobs_give_under_pyodide_what_they_give_under_cpython(seamcall: Live) -> None:
    done = subprocess.run([sys.executable, "-c", UNDER_CPYTHON, str(live.OWN / "kernel.py"), json.dumps(JOBS)],
                          stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True, cwd=ROOT,
                          env={**os.environ, "COLUMNS": "80"})
    there = seamcall.page.evaluate("""async jobs => { const got = [];
        for (const words of jobs) got.push(await seambook.live.command(...words));
        return got; }""", JOBS)
    for words, here, got in zip(JOBS, json.loads(done.stdout), there, strict=True):
        assert (got["status"], said(got["out"]), said(got["err"])) == (
            here["status"], said(here["out"]), said(here["err"])), words
    assert [got["status"] for got in there[-2:]] == [2, 2] and there[0]["out"].startswith("seamref")


def test_a_file_is_written_for_a_command_and_a_function_of_the_page_is_called(seamcall: Live) -> None:
    answer = seamcall.page.evaluate("""async () => {
        await seambook.live.write('/dropped/x.bin', new Uint8Array([1, 2, 3]));
        await seambook.live.run('def twice(n):\\n    return 2 * n\\nfrom seamref.show import table');
        return [await seambook.live.command('inspect', '/dropped/x.bin'),
                await seambook.live.call('twice', [21]), await seambook.live.call('twice', {n: 'a'}),
                await seambook.live.call('table', [[[1, 2]], 'a | b']),
                await seambook.live.call('nosuch:name', []).catch(error => error.message)]; }""")
    inspected, twice, text, table, refused = answer
    assert inspected["status"] == 2 and "file starts 010203" in inspected["err"]
    assert (twice, text) == (42, "aa")
    assert set(table["data"]) == {"text/plain", "text/html"}
    assert "ModuleNotFoundError" in refused
