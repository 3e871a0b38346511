"""What the live book is built from: a kernel that gives what Jupyter gives, what is pinned, how large it becomes."""

from __future__ import annotations

import ast
import builtins
import http.client
import json
import os
import re
import sys
import threading
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from IPython.core.interactiveshell import InteractiveShell
from sphinx.errors import ExtensionError

import chapters
import serve
from built import BuiltBook

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "book" / "_ext"))
import live  # noqa: E402
import written  # noqa: E402

KERNEL = live.kernel()
MOST = 45_000_000  # bytes of the whole book, with Python


def cells(name: str) -> list[dict[str, Any]]:
    return [cell for cell in json.loads((ROOT / f"{name}.ipynb").read_text(encoding="utf-8"))["cells"]
            if cell["cell_type"] == "code"]


# ---------------------------------------------------------------- the kernel


class Drawn:
    def _repr_html_(self) -> str:
        return "<b>x</b>"

    def __repr__(self) -> str:
        return "x"


class Bundled:
    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        return {"text/plain": "plain", "image/svg+xml": "<svg/>"}


class Silent:
    def _repr_html_(self) -> None:
        return None


@pytest.mark.parametrize("value", [
    7, "text", b"12", [0x1000] * 40, {"a" * 30: list(range(20)), "b": {1, 2}}, (1,),
    Drawn(), Bundled(), Drawn, Silent(),
], ids=lambda value: type(value).__name__)
def test_a_value_is_the_bundle_that_jupyter_makes(value: Any) -> None:
    data, _ = InteractiveShell.instance().display_formatter.format(value)  # type: ignore[no-untyped-call]
    assert KERNEL.bundle(value) == data


def test_outputs_come_in_the_order_in_which_they_were_made() -> None:
    got = KERNEL.Kernel().run("import sys\nprint('a')\nprint('b')\ndisplay(1)\nprint('c', file=sys.stderr)\n2")
    assert [(one["output_type"], one.get("name"), one.get("text"), one.get("data")) for one in got] == [
        ("stream", "stdout", "a\nb\n", None), ("display_data", None, None, {"text/plain": "1"}),
        ("stream", "stderr", "c\n", None), ("execute_result", None, None, {"text/plain": "2"}),
    ]
    assert not hasattr(builtins, "display") or builtins.display is not KERNEL.KERNEL.display


def test_a_cell_keeps_its_names_and_a_semicolon_or_none_shows_nothing() -> None:
    kernel = KERNEL.Kernel()
    assert kernel.run("held = 4") == [] == kernel.run("held;") == kernel.run("None") == kernel.run("")
    assert kernel.run("held * 2\n")[0]["data"] == {"text/plain": "8"}
    assert kernel.run("_ + 1")[0]["data"] == {"text/plain": "9"}
    [said] = kernel.run("def f():\n    return 1\nimport inspect\nprint(inspect.getsource(f))")
    assert said["text"].startswith("def f")


@pytest.mark.parametrize(("source", "name", "words"), [
    ("1 / 0", "ZeroDivisionError", "division by zero"),
    ("(", "SyntaxError", ""),
    ("import sys\nsys.exit(3)", "SystemExit", "3"),
    ("raise KeyboardInterrupt", "KeyboardInterrupt", ""),
    ("class Odd:\n    def __repr__(self):\n        raise ValueError('no face')\nOdd()", "ValueError", "no face"),
])
def test_an_exception_is_an_output(source: str, name: str, words: str) -> None:
    kernel = KERNEL.Kernel()
    [output] = kernel.run(source)
    assert (output["output_type"], output["ename"]) == ("error", name) and words in output["evalue"]
    assert not any("kernel.py" in line for line in output["traceback"])
    assert kernel.run("1")[0]["data"] == {"text/plain": "1"}


def test_a_digest_is_of_what_is_seen() -> None:
    run = KERNEL.Kernel().run
    stored = [{"output_type": "stream", "name": "stdout", "text": ["a\n", "b\n"]}]
    assert KERNEL.digest(stored) == KERNEL.digest(run("print('a')\nprint('b')"))
    assert KERNEL.digest(stored) != KERNEL.digest(run("print('a')\nprint('c')"))
    assert KERNEL.digest(run("1")) == KERNEL.digest(run("0 + 1"))
    here, there = run("1 / 0"), run("\n\n\ndef f():\n    1 / 0\nf()")
    assert here != there and KERNEL.digest(here) == KERNEL.digest(there)
    assert KERNEL.digest(here) != KERNEL.digest(run("raise ZeroDivisionError('other')"))


@pytest.mark.parametrize("name", ["book/foundations/oracle", "book/processor/tdcall"])
def test_a_chapter_s_cells_give_what_is_stored(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir((ROOT / name).parent)
    kernel = KERNEL.Kernel()
    for cell, told in zip(cells(name), live.cells_of(ROOT / f"{name}.ipynb"), strict=True):
        assert KERNEL.digest(kernel.run("".join(cell["source"]))) == told["digest"], cell["source"]


def test_a_command_is_its_status_and_what_it_says() -> None:
    said = KERNEL.command("clause", "SEAMCALL.cpl")
    assert said["status"] == 0 and "SEAMCALL.cpl" in said["out"] and said["err"] == ""
    refused = KERNEL.command("nosuch")
    assert refused["status"] == 2 and refused["out"] == "" and "nosuch" in refused["err"]


def test_a_call_gives_plain_data_or_what_it_shows() -> None:
    assert json.loads(KERNEL.call("math:gcd", "[12, 18]")) == 6
    assert json.loads(KERNEL.call("builtins:dict", '{"a": 1}')) == {"a": 1}
    assert json.loads(KERNEL.call("fractions:Fraction", "[1, 2]"))["data"] == {"text/plain": "Fraction(1, 2)"}


def test_what_a_live_cell_shows_is_written_as_the_build_writes_it(
        built_book: BuiltBook, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page's Python has ``targets.json`` for what the build collects; from it must come the same HTML."""
    held = json.loads(live.tree()["targets.json"])
    known = written.Known(targets={row[1]: written.Target(*row) for row in held["targets"]}, old=held["old"])
    monkeypatch.setattr(KERNEL, "_known", lambda: known)
    monkeypatch.setattr(KERNEL, "PAGE", "book/processor/seamcall")
    page = (built_book.html / "book/processor/seamcall.html").read_text(encoding="utf-8")
    html = "".join(cells("book/processor/seamcall")[0]["outputs"][0]["data"]["text/html"])
    made = KERNEL.written(html)
    assert 'href="../appendices/clauses_processor.html#SEAMCALL.cpl"' in made and 'role="group"' in made
    rows = re.findall(r"<tr>.*?</tr>", made, re.DOTALL)
    assert len(rows) == 5 and all(row in page for row in rows)


# ---------------------------------------------------------------- what is put beside the pages


MISSING = {"pandas", "numpy", "IPython", "ipywidgets", "matplotlib", "cryptography"}


def lacks(source: str) -> bool:
    """Whether a cell asks for what the page's Python has not."""
    for node in ast.walk(ast.parse(source)):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else (
            [node.module or ""] if isinstance(node, ast.ImportFrom) else [])
        if isinstance(node, ast.Attribute) and node.attr == "frame":
            return True  # a table as a DataFrame
        if any(name.partition(".")[0] in MISSING for name in names):
            return True
    return False


def test_no_cell_needs_what_the_page_s_Python_has_not() -> None:
    assert lacks("rows = table(x).frame") and lacks("import pandas as pd") and lacks("from IPython.display import HTML")
    assert not lacks("frame = 1\nframes(frame)")
    assert [(name, source) for name in chapters.toc_entries() if (ROOT / f"{name}.ipynb").is_file()
            for cell in cells(name) if lacks(source := "".join(cell["source"]))] == []


def test_cells_that_need_what_lies_in_the_repository_only_are_few_and_say_so() -> None:
    """Each is a hole in the live book."""
    lacking = {name: row["needs"] for name in chapters.toc_entries() if (ROOT / f"{name}.ipynb").is_file()
               for row in live.cells_of(ROOT / f"{name}.ipynb") if "needs" in row}
    assert lacking == {"book/appendices/measured": live.NEEDS["all-recordings"]}


def test_the_pack_is_the_tree_and_equal_for_equal_trees() -> None:
    tree = live.tree()
    made = live.pack(tree)
    assert made == live.pack(dict(reversed(tree.items()))) and live.unpack(made) == tree
    assert {"seamref/__init__.py", "seambook_kernel.py", "ipython_pretty.py", "pygments/lexers/python.py",
            "written.py", "targets.json", "book/appendices/coverage.json"} <= set(tree)
    assert not any("__pycache__" in name or name.endswith(".ipynb") for name in tree)
    for path in (ROOT / "seamref").rglob("*.py"):
        assert path.relative_to(ROOT).as_posix() in tree


def test_every_file_from_npm_is_pinned_by_the_lock_and_by_its_digest() -> None:
    lock = json.loads((live.OWN / "package-lock.json").read_text(encoding="utf-8"))["packages"]
    assert all(package.get("integrity", "").startswith("sha512-") for name, package in lock.items() if name)
    wanted = json.loads((live.OWN / "package.json").read_text(encoding="utf-8"))["dependencies"]
    assert wanted == {name: lock[f"node_modules/{name}"]["version"] for name in wanted}
    assert set(live.pins()) == set(live.FILES)


def test_a_spoilt_cache_is_noticed(tmp_path: Path) -> None:
    for name in live.FILES:
        (tmp_path / name).write_bytes(b"something else")
    assert live.wrong(tmp_path) == list(live.FILES)
    assert live.wrong(tmp_path / "nowhere") == list(live.FILES)


@pytest.fixture
def no_registry(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[list[str]]:
    """An empty cache, no npm, and a pip that reaches nothing."""
    asked: list[list[str]] = []

    def said(command: list[str], folder: Path) -> None:
        asked.append(command)
        raise live.Unreachable("pip failed: no network")

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(live.shutil, "which", lambda name: None)
    monkeypatch.setattr(live, "_said", said)
    return asked


def builder() -> Any:
    return SimpleNamespace(builder=SimpleNamespace(name="html"), seambook_live=None)


def test_without_a_registry_the_book_is_rendered_without_run_buttons(
        no_registry: list[list[str]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("CI", raising=False)
    said: list[str] = []
    monkeypatch.setattr(live, "logger", SimpleNamespace(info=said.append))
    app = builder()
    live.prepare(app)
    assert app.seambook_live is None
    assert len(said) == 1 and "no Run buttons" in said[0] and "no network" in said[0]
    assert [command[1:4] for command in no_registry] == [["-m", "pip", "install"]] and live.NODE in no_registry[0]
    assert [path.name for path in (tmp_path / "seamref-book").iterdir()] == []  # nothing half made is left


def test_where_ci_is_set_it_is_an_error(no_registry: list[list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    with pytest.raises(ExtensionError, match="no Run buttons"):
        live.prepare(builder())


def test_the_built_book_has_its_python_or_says_why_not(built_book: BuiltBook) -> None:
    found = list(built_book.html.glob("_static/live/*/worker.js"))
    if not found:
        assert not os.environ.get("CI") and "no Run buttons" in built_book.log
        return
    [worker] = found
    folder = worker.parent
    assert live.wrong(folder, live.UNCHANGED) == []
    packed = live.unpack((folder / "python.pack").read_bytes())
    sources = {name for name in packed if name.endswith(".py")}
    assert sources == {name for name in live.tree() if name.endswith(".py")}
    code = {name: data for name, data in packed.items() if name.endswith(".pyc")}
    with zipfile.ZipFile(folder / "stdlib.zip") as library:
        names = set(library.namelist())
        code |= {name: library.read(name) for name in names if name.endswith(".pyc")}
    assert {live._beside(name) for name in sources} <= set(code) and {"json/__init__.pyc", "ast.pyc"} <= names
    assert all(live.RARE.match(name) for name in names if name.endswith(".py"))
    assert {data[4:8] for data in code.values()} == {b"\1\0\0\0"}  # taken without a look at the source
    assert len({data[:4] for data in code.values()}) == 1
    assert "MPL" in (text := (folder / "licences.txt").read_text(encoding="utf-8")) or "Mozilla Public" in text
    assert all(name in text for name in ("@codemirror/view", "Pygments", "ipython"))
    page = (built_book.html / "book/processor/seamcall.html").read_text(encoding="utf-8")
    assert f'data-live="live/{folder.name}/"' in page
    told = json.loads(page.partition('id="seam-cells">')[2].partition("</script>")[0])
    assert told["page"] == "book/processor/seamcall" and len(told["cells"]) == len(cells("book/processor/seamcall"))


def test_the_server_isolates_pages_and_lets_browsers_keep_what_is_named_after_its_content(tmp_path: Path) -> None:
    (tmp_path / "_static" / "live" / "ab").mkdir(parents=True)
    for name in ("index.html", "_static/live/ab/x.wasm", "_static/live/ab/x.mjs"):
        (tmp_path / name).write_text("x")
    server = serve.server(tmp_path)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        def get(path: str) -> tuple[int, Any]:
            connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=30)
            connection.request("GET", path)
            answer = connection.getresponse()
            answer.read()
            connection.close()
            return answer.status, answer.headers

        status, page = get("/index.html")
        assert status == 200 and page["Cache-Control"] == "no-cache"
        assert {name: page[name] for name in serve.ISOLATED} == serve.ISOLATED
        for name, kind in (("x.wasm", "application/wasm"), ("x.mjs", "text/javascript")):
            status, file = get(f"/_static/live/ab/{name}")
            assert (status, file["Content-Type"]) == (200, kind) and "immutable" in file["Cache-Control"]
        status, missing = get("/_static/live/ab/y.wasm")
        assert status == 404 and missing["Cache-Control"] == "no-cache"
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(("arguments", "code", "words"), [
    (["x"], 2, "a port is a number"), (["70000"], 2, "a port is a number"), (["0", "/nowhere"], 1, "make book"),
])
def test_the_server_says_in_a_line_what_is_wrong(
        arguments: list[str], code: int, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert serve.main(arguments) == code
    [line] = capsys.readouterr().err.splitlines()
    assert words in line


def test_the_built_book_stays_small(built_book: BuiltBook) -> None:
    size = sum(path.stat().st_size for path in built_book.html.rglob("*") if path.is_file())
    assert size < MOST
