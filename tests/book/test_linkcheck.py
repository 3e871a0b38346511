"""External links: their form always, their places on demand (``make linkcheck``), asked here of a server of our own."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from built import BuiltBook

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tools"))
import linkcheck  # noqa: E402
from linkcheck import Answer, ask, check, form, links, spellings  # noqa: E402


@pytest.mark.parametrize(
    ("address", "wrong"),
    [
        ("https://lore.kernel.org/all/aO-oIRBhSIZo9mef@google.com/", ""),
        ("https://en.wikipedia.org/wiki/Trap_(computing)", ""),
        ("https://www.intel.com/content/www/us/en/search.html?ws=text#q=343755", ""),
        ("http://www.intel.com/sdm", "not https"),
        ("https://localhost/x", "no host"),
        ("https://example.org/a b", "a character that must be escaped"),
        ("https://example.org/a.", "ends with a mark of the sentence around it"),
        ("https://example.org/a)", "ends with a mark of the sentence around it"),
        ("https://github.com/a/b/blob/v1//c.c", "an empty step in its path"),
        ("https://github.com/a/b/blob/HEAD/c.c", "a file at no tag and no commit"),
    ],
)
def test_the_form_of_an_address(address: str, wrong: str) -> None:
    assert form(address) == wrong


def test_one_place_written_in_two_ways_is_found() -> None:
    assert spellings(["https://a.org/x", "https://a.org/x/", "https://a.org/y"]) == [
        ("https://a.org/x", "https://a.org/x/")]
    assert spellings(["https://a.org/x#1", "https://a.org/x#2"]) == []


class Host(BaseHTTPRequestHandler):
    """One page of each kind.  /shy answers GET only."""

    def do_HEAD(self) -> None:
        self.answer(head=True)

    def do_GET(self) -> None:
        self.answer(head=False)

    def answer(self, *, head: bool) -> None:
        status, where = {
            "/here": (200, ""), "/gone": (404, ""), "/wall": (403, ""), "/broken": (500, ""),
            "/old": (301, "/here"), "/today": (302, "/here"), "/today-then-old": (302, "/old"),
            "/round": (302, "/round"), "/old-gone": (301, "/gone"), "/shy": (405 if head else 200, ""),
        }[self.path]
        self.send_response(status)
        if where:
            self.send_header("Location", where)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *args: object) -> None:
        """Quiet."""


@pytest.fixture(scope="module")
def host() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Host)
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/here", "ok"), ("/here#part", "ok"), ("/gone", "gone"), ("/old-gone", "gone"), ("/wall", "refused"),
        ("/broken", "no answer"), ("/old", "moved"), ("/today", "ok"), ("/today-then-old", "ok"),
        ("/round", "no answer"), ("/shy", "ok"),
    ],
)
def test_what_a_place_answers(host: str, path: str, kind: str) -> None:
    answer = ask(host + path)
    assert answer.kind == kind
    assert kind != "moved" or answer.detail == f"{host}/here"


def test_a_host_that_is_not_there_is_no_answer_and_no_ok(host: str) -> None:
    assert ask("http://127.0.0.1:1/", timeout=2).kind == "no answer"
    assert ask("https://no-such-host.invalid/", timeout=2).kind == "no answer"


def test_a_wrong_form_is_not_asked() -> None:
    asked: list[str] = []

    def asking(address: str) -> Answer:
        asked.append(address)
        return Answer("ok")

    made = check({"https://a.org/x": ["p"], "http://a.org/y": ["p"]}, asking, pause=0)
    assert asked == ["https://a.org/x"]
    assert {address: answer.kind for address, answer in made.items()} == {
        "https://a.org/x": "ok", "http://a.org/y": "form"}


def rendered(folder: Path, *addresses: str) -> Path:
    (folder / "index.html").write_text("".join(f'<a class="x" href="{one}">y</a>' for one in addresses))
    return folder


def test_exit_codes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert linkcheck.main(["--html", str(tmp_path)]) == 2
    html = rendered(tmp_path, "https://a.org/x")
    for kind, code in (("ok", 0), ("moved", 0), ("refused", 0), ("gone", 1), ("no answer", 3)):
        monkeypatch.setattr(linkcheck, "ask", lambda address, kind=kind: Answer(kind, "why"))
        assert linkcheck.main(["--html", str(html), "--json", str(tmp_path / "found.json")]) == code
    assert "no answer: https://a.org/x (why), in index.html" in capsys.readouterr().out
    assert linkcheck.main(["--html", str(html), "--offline"]) == 0
    assert linkcheck.main(["--html", str(html), "--only", "("]) == 2
    assert linkcheck.main(["--html", str(rendered(tmp_path, "http://a.org/x")), "--offline"]) == 1


def test_the_book_s_links_have_the_right_form_and_name_no_place_twice(built_book: BuiltBook) -> None:
    found = links(built_book.html)
    assert len(found) > 150
    assert {address: answer.detail for address, answer in check(found, None).items() if answer.kind == "form"} == {}
    assert spellings(sorted(found)) == []
