"""Explorers turn on the rendered page, from a folder and from a server; commands run in the page that is for them.

What a page shows is compared with what the real machine says here, for choices that are drawn anew at each run.
"""

from __future__ import annotations

import functools
import json
import random
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from browser.visits import PHONE, ROOT, WIDE, Visit, needs_chromium, violations

from built import BuiltBook
from seamref.show.precomputed import EXPLORERS, explorer_named

pytestmark = needs_chromium
STANDS = {
    "seamcall": "book/processor/seamcall", "boot": "book/boot/chain", "sigstruct": "book/loader/sigstruct",
    "memory": "book/loader/memory", "refusals": "book/module/refusals", "update": "book/host/update",
}
TRY = "book/try"
TURNS = 3
MOST_BYTES = 3 << 20
PYTHON_S = 300  # loading Python in a browser on a busy machine

# What a reader sees of an answer, without the links and the layout that a page adds.
WORDS = "e => e.innerText.replace(/\\s+/g, '')"
PLAIN = """html => { const e = document.createElement('div'); e.style.width = '60rem'; e.innerHTML = html;
  document.querySelector('article').append(e); const t = e.innerText.replace(/\\s+/g, ''); e.remove(); return t; }"""


@pytest.fixture(scope="module", params=["file", "http"])
def place(request: pytest.FixtureRequest, built_book: BuiltBook, address: str) -> str:
    return address if request.param == "http" else f"file://{built_book.html}"


class Turned:
    """An explorer on a page, and its declaration."""

    def __init__(self, browser: Any, place: str, key: str, size: dict[str, int] = WIDE) -> None:
        self.visit = Visit(browser, place, f"{STANDS[key]}.html", "light", size)
        self.box = self.visit.page.locator(f'.seam-explorer[data-explorer="{key}"]')
        self.box.locator("form.seam-turn").wait_for()
        self.declared = json.loads(self.box.get_attribute("data-declared"))

    def put(self, name: str, choice: int) -> None:
        at = [one["name"] for one in self.declared["controls"]].index(name)
        one = self.declared["controls"][at]
        control = self.box.locator(".seam-control").nth(at)
        match one["kind"]:
            case "tick":
                control.locator("input").set_checked(one["choices"][choice] == "yes")
            case "few":
                control.locator("input").nth(choice).check()
            case _:
                control.locator("select").select_option(index=choice)

    def words(self) -> str:
        self.visit.page.wait_for_function(
            "e => e.querySelector('.seam-said').dataset.state === 'answered'", arg=self.box.element_handle())
        return str(self.box.locator(".seam-answer").evaluate(WORDS))

    def plain(self, html: str) -> str:
        return str(self.visit.page.evaluate(PLAIN, html))


@functools.cache
def drawn(key: str) -> list[tuple[dict[str, int], str]]:
    """Some choices, by number, and what the machine says to them; other ones in each run."""
    made, draw = explorer_named(key), random.Random()
    rows = [{name: draw.randrange(len(held)) for name, held in made.options.items()} for _ in range(TURNS)]
    return [(choices, made.html_at(**made.chosen(choices))) for choices in rows]


@pytest.mark.parametrize("key", EXPLORERS)
def test_an_explorer_turns_without_Python_and_says_what_the_machine_says(profile: Any, place: str, key: str) -> None:
    turned = Turned(profile, place, key)
    try:
        assert turned.declared == explorer_named(key).declaration()
        assert turned.box.locator(".seam-settings").is_hidden()
        for choices, html in drawn(key):
            for name, choice in choices.items():
                turned.put(name, choice)
            assert turned.words() == turned.plain(html), choices
        assert turned.visit.complaints == [] and turned.visit.foreign == []
    finally:
        turned.visit.close()


@pytest.mark.parametrize("key", ["seamcall", "sigstruct"])
def test_an_explorer_is_turned_by_keyboard_alone_and_says_its_answer_to_a_screen_reader(
    profile: Any, address: str, key: str,
) -> None:
    turned = Turned(profile, address, key, PHONE)
    page = turned.visit.page
    try:
        before = turned.box.locator(".seam-answer").inner_text()
        turned.box.locator("select").first.focus()
        for _ in range(3):
            page.keyboard.press("ArrowUp")
        page.keyboard.press("Tab")
        page.keyboard.press("ArrowRight")  # the radio buttons of the next control
        shown = turned.words()
        assert shown != re.sub(r"\s+", "", before)
        said = turned.box.locator(".seam-said")
        assert said.get_attribute("role") == "status"
        assert re.sub(r"\s+", "", said.inner_text()) in shown
        names = page.evaluate("""() => [...document.querySelectorAll('.seam-turn :is(select, input, button)')]
            .map(e => e.labels?.[0]?.innerText ?? e.innerText)""")
        assert all(name.strip() for name in names)
        turned.box.get_by_role("button", name="as at first").click()
        assert turned.words() == re.sub(r"\s+", "", before)
    finally:
        turned.visit.close()


@pytest.mark.parametrize("key", ["seamcall", "memory"])
def test_controls_have_no_serious_or_moderate_violation(profile: Any, address: str, key: str) -> None:
    turned = Turned(profile, address, key)
    try:
        turned.put(*next((name, 1) for name in explorer_named(key).options))
        turned.words()
        light = violations(turned.visit, ".seam-explorer")
        turned.visit.wear("dark")
        turned.visit.resize(PHONE)
        assert (light, violations(turned.visit, ".seam-explorer")) == ([], [])
    finally:
        turned.visit.close()


def test_without_its_answers_an_explorer_is_a_table_again(browser: Any, address: str) -> None:
    context = browser.new_context(viewport=WIDE)
    try:
        context.route("**/_static/turns/*", lambda route: route.abort())
        page = context.new_page()
        page.goto(f"{address}/{STANDS['boot']}.html")
        box = page.locator(".seam-explorer")
        first = box.locator(".seam-answer").inner_text()
        box.locator("select").first.select_option(index=3)
        box.locator("form.seam-turn").wait_for(state="detached")
        assert box.locator(".seam-settings").is_visible() and box.locator(".seam-turned").first.is_visible()
        assert box.locator(".seam-answer").inner_text() == first
        assert "are missing" in box.locator(".seam-said").inner_text()
    finally:
        context.close()


def test_without_script_an_explorer_is_a_table_and_has_no_control(browser: Any, address: str) -> None:
    context = browser.new_context(viewport=WIDE, java_script_enabled=False)
    try:
        page = context.new_page()
        for path in (STANDS["seamcall"], TRY):
            page.goto(f"{address}/{path}.html")
            assert page.locator("article :is(select, input, textarea):visible").count() == 0
        page.goto(f"{address}/{STANDS['seamcall']}.html")
        assert page.locator(".seam-settings table").is_visible()
    finally:
        context.close()


def test_an_explorer_that_nobody_turned_is_printed_with_its_further_turns(profile: Any, address: str) -> None:
    turned = Turned(profile, address, "boot")
    box, page = turned.box, turned.visit.page
    try:
        page.emulate_media(media="print")
        assert box.locator(".seam-settings").is_visible() and box.locator(".seam-turned").nth(1).is_visible()
        assert box.locator("form").is_hidden()
        page.emulate_media(media="screen")
        turned.put("name", 3)
        turned.words()
        page.emulate_media(media="print")
        assert box.locator(".seam-turned").first.is_hidden() and box.locator("select").first.is_visible()
    finally:
        turned.visit.close()


@pytest.fixture(scope="module")
def memory(profile: Any, address: str) -> Iterator[Turned]:
    """An explorer on a page that has Python."""
    turned = Turned(profile, address, "memory")
    try:
        if not turned.visit.page.evaluate("Boolean(window.seambook.live?.available)"):
            pytest.skip("this book was built without Python for its pages")
        yield turned
    finally:
        turned.visit.close()


def test_a_number_that_was_not_computed_is_asked_of_Python(memory: Turned) -> None:
    made, page = explorer_named("memory"), memory.visit.page
    at = list(made.options).index("image")
    control = memory.box.locator(".seam-control").nth(at)
    control.locator("select").select_option(label="another ...")
    field = control.locator("input")
    assert "a whole number from 1 to 496" in memory.box.locator(".seam-said").inner_text()
    field.fill("497")
    page.keyboard.press("Tab")
    assert memory.box.locator(".seam-answer").inner_text() == ""
    field.fill("333")
    page.keyboard.press("Tab")
    page.wait_for_function("document.querySelector('.seam-said').dataset.state === 'answered'", timeout=PYTHON_S * 1000)
    assert memory.words() == memory.plain(made.html_at(image=333))
    memory.visit.quiet()


def test_an_explorer_of_a_cell_that_ran_in_the_page_is_turned_by_Python(memory: Turned) -> None:
    visit, page = memory.visit, memory.visit.page
    cell = page.locator("div.cell", has=page.locator(".seam-explorer"))
    page.evaluate("""() => { const cell = document.querySelector('.seam-explorer').closest('.cell');
        cell.dataset.live = 'busy'; }""")
    source = ("from seamref.show import explorer, paragraph\n"
              "explorer(lambda n, up: paragraph(f'{n} squared is {n * n}' if up else 1 / 0),\n"
              "         n=[3, 4], up=True, key='own')")
    page.evaluate("""async source => {
        const got = await seambook.live.run(source);
        seambook.live.draw(got.outputs, document.querySelector('.seam-explorer').closest('.cell_output'));
    }""", source)
    box = cell.locator('.seam-explorer[data-explorer="own"][data-ready="python"]')
    box.wait_for()
    box.get_by_label("4").check()
    page.wait_for_function("document.querySelector('.seam-said').dataset.state === 'answered'")
    assert box.locator(".seam-answer").inner_text().strip() == "4 squared is 16"
    box.get_by_label("up").uncheck()
    page.wait_for_function("document.querySelector('.seam-said').dataset.state === 'failed'")
    assert "division by zero" in box.locator(".seam-said").inner_text()
    assert box.locator(".seam-answer").inner_text() == ""  # the old answer does not stand beside the new setting
    visit.quiet()


def test_the_answers_of_all_explorers_are_small(built_book: BuiltBook) -> None:
    if not (built_book.html / "index.html").is_file():
        pytest.skip("the book did not build; tests/book/test_rendered.py says why")
    sizes = {path.name: path.stat().st_size for path in (built_book.html / "_static" / "turns").glob("*.js")}
    assert len(sizes) == len(EXPLORERS) and sum(sizes.values()) < MOST_BYTES, sizes


# --- commands in a page


def examples() -> list[str]:
    text = (ROOT / f"{TRY}.md").read_text(encoding="utf-8")
    return [unescape(line) for line in re.findall(r"<td><code>seamref (.*?)</code></td>", text)]


def log() -> str:
    found = re.search(r"```text\n(.*?)```", (ROOT / f"{TRY}.md").read_text(encoding="utf-8"), re.DOTALL)
    assert found is not None
    return found.group(1)


def at_a_shell(line: str, folder: Path) -> tuple[int, str]:
    code = "import sys; sys.argv[0] = 'seamref'; from seamref.cli import main; sys.exit(main(sys.argv[1:]))"
    done = subprocess.run([sys.executable, "-c", code, *shlex.split(line)], cwd=folder, capture_output=True, text=True,
                          check=False)
    return done.returncode, done.stdout


def test_every_example_of_the_page_runs_at_a_shell(tmp_path: Path) -> None:
    (tmp_path / "dmesg.txt").write_text(log(), encoding="utf-8")
    ended = {line: at_a_shell(line, tmp_path)[0] for line in examples()}
    assert len(ended) >= 8 and set(ended.values()) <= {0, 1}, ended


@pytest.fixture(scope="module")
def typing(profile: Any, address: str) -> Iterator[Visit]:
    visit = Visit(profile, address, f"{TRY}.html", "light", WIDE)
    if not visit.page.evaluate("Boolean(window.seambook?.live?.available)"):
        visit.close()
        pytest.skip("this book was built without Python for its pages")
    yield visit
    visit.close()


def answer(visit: Visit, ask: Any) -> tuple[int, str, str]:
    """Exit code and what was printed, once ``ask`` has been done."""
    page = visit.page
    before = page.locator(".seam-try-result").count()
    ask()
    page.wait_for_function("n => document.querySelectorAll('.seam-try-result').length > n && "
                           "document.querySelector('.seam-try-said').dataset.state !== 'busy'", arg=before,
                           timeout=PYTHON_S * 1000)
    one = page.locator(".seam-try-result").first
    out, err = (one.locator(f".seam-try-{kind}") for kind in ("out", "err"))
    return (int(one.get_attribute("data-status")), out.inner_text() if out.count() else "",
            err.inner_text() if err.count() else "")


def type_line(visit: Visit, line: str) -> tuple[int, str, str]:
    def ask() -> None:
        visit.page.locator("#seam-try-line").fill(line)
        visit.page.keyboard.press("Enter")

    return answer(visit, ask)


def test_a_pasted_line_is_explained_as_at_a_shell(typing: Visit, tmp_path: Path) -> None:
    line = 'explain "seamldr: SEAMCALL (0x8000000000000001) failed: 0x8000000000020000"'
    status, out, err = type_line(typing, line)
    assert (status, out.strip(), err) == (0, at_a_shell(line, tmp_path)[1].strip(), "")
    text = "[    1.810945] virt/tdx: BIOS enabled: private KeyID range [32, 64)\n"
    (tmp_path / "pasted.txt").write_text(text, encoding="utf-8")
    page = typing.page
    page.get_by_text("Paste a log instead").click()
    page.locator("#seam-try-paste").fill(text)
    status, out, err = answer(typing, lambda: page.get_by_role("button", name="Explain each line").click())
    assert (status, out.strip()) == (at_a_shell("explain pasted.txt", tmp_path)[0],
                                     at_a_shell("explain pasted.txt", tmp_path)[1].strip())


def test_a_dropped_image_is_inspected_and_verified_as_at_a_shell(typing: Visit, tmp_path: Path) -> None:
    assert at_a_shell("blob mint minted.blob", tmp_path)[0] == 0
    data = list((tmp_path / "minted.blob").read_bytes())
    page = typing.page
    page.evaluate("""bytes => {
      const carried = new DataTransfer();
      carried.items.add(new File([new Uint8Array(bytes)], 'minted.blob'));
      document.querySelector('.seam-try-drop').dispatchEvent(
        new DragEvent('drop', {dataTransfer: carried, bubbles: true, cancelable: true}));
    }""", data)
    page.get_by_role("button", name="inspect minted.blob").wait_for()
    for command in ("inspect", "verify", "blob check"):
        ask = page.get_by_role("button", name=f"{command} minted.blob", exact=True).click
        status, out, _ = answer(typing, ask)
        expected = at_a_shell(f"{command} minted.blob", tmp_path)
        assert (status, out.split()) == (expected[0], expected[1].split()), command


def test_a_chosen_log_goes_to_the_doctor(typing: Visit, tmp_path: Path) -> None:
    (tmp_path / "a log.txt").write_text(log(), encoding="utf-8")
    typing.page.locator("#seam-try-choose").set_input_files(tmp_path / "a log.txt")
    typing.page.get_by_role("button", name="doctor a log.txt").wait_for()
    ask = typing.page.get_by_role("button", name="doctor a log.txt").click
    status, out, _ = answer(typing, ask)
    expected = at_a_shell("doctor 'a log.txt'", tmp_path)
    assert (status, out.split()) == (expected[0], expected[1].split())


def test_a_bad_command_ends_as_at_a_shell_and_what_a_page_cannot_do_is_said_by_name(typing: Visit) -> None:
    status, out, err = type_line(typing, "explian 0")
    assert status == 2 and not out and "no command 'explian'" in err
    page = typing.page
    for line, words in (("doctor", "looks at the machine it runs on"), ("explain -", "standard input"),
                        ("clause X | less", "is for a shell"), ('explain "x', "is not closed")):
        page.locator("#seam-try-line").fill(line)
        page.keyboard.press("Enter")
        assert words in page.locator(".seam-try-said").inner_text(), line
        assert page.locator(".seam-try-said").get_attribute("data-state") == "failed"
    page.locator("#seam-try-line").focus()
    page.keyboard.press("ArrowUp")
    page.keyboard.press("ArrowUp")
    assert page.locator("#seam-try-line").input_value() == "clause X | less"


def test_a_long_command_is_stopped_and_files_are_still_there_afterwards(typing: Visit, tmp_path: Path) -> None:
    (tmp_path / "kept.txt").write_text(log(), encoding="utf-8")
    page = typing.page
    page.locator("#seam-try-choose").set_input_files(tmp_path / "kept.txt")
    page.get_by_role("button", name="doctor kept.txt").wait_for()
    page.locator("#seam-try-line").fill("explore update --cpus 5")
    page.keyboard.press("Enter")
    page.wait_for_function("document.querySelector('.seam-try-said').textContent.startsWith('seamref explore')",
                           timeout=PYTHON_S * 1000)
    page.wait_for_timeout(1500)
    page.get_by_role("button", name="Stop", exact=True).click()
    page.wait_for_function("document.querySelector('.seam-try-said').dataset.state !== 'busy'", timeout=PYTHON_S * 1000)
    status, out, _ = type_line(typing, "doctor kept.txt")
    assert (status, out.split()) == (1, at_a_shell("doctor kept.txt", tmp_path)[1].split())


def test_the_page_of_commands_asks_nobody_and_complains_of_nothing(typing: Visit) -> None:
    assert typing.foreign == [] and typing.complaints == []
    assert violations(typing) == []


def test_from_a_folder_the_page_says_how_commands_can_be_run(browser: Any, built_book: BuiltBook) -> None:
    if not (built_book.html / "index.html").is_file():
        pytest.skip("the book did not build; tests/book/test_rendered.py says why")
    visit = Visit(browser, f"file://{built_book.html}", f"{TRY}.html", "light", PHONE)
    try:
        assert visit.page.locator("article :is(input, textarea)").count() == 0
        how = visit.page.locator(".seam-try-how").inner_text()
        assert "make serve" in how or "at a shell" in how
        assert visit.complaints == [] and visit.foreign == []
    finally:
        visit.close()
