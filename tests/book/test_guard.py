"""The guard catches what nbval lets pass; each test stores one fault in an otherwise sound chapter."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

import chapters

ROOT = Path(__file__).resolve().parents[2]
CHAPTERS = chapters.chapters()


@pytest.mark.parametrize("path", CHAPTERS, ids=chapters.name_of)
def test_stored_chapter_is_sound(path: Path) -> None:
    assert chapters.check_file(path) == []


def test_table_of_contents_and_pages_agree() -> None:
    assert chapters.toc_problems() == []


# ---------------------------------------------------------------- the guard itself


def sound(*outputs: Any, source: str = "print('one')", tags: tuple[str, ...] = ()) -> Any:
    """A chapter of two executed cells; the second has the given outputs."""
    return new_notebook(
        cells=[
            new_markdown_cell("# Title"),
            new_code_cell("x = 1", execution_count=1),
            new_code_cell(source, execution_count=2, outputs=list(outputs), metadata={"tags": list(tags)}),
        ]
    )


def stdout(text: str) -> Any:
    return new_output("stream", name="stdout", text=text)


def shown(**data: str) -> Any:
    return new_output("display_data", data={key.replace("__", "/"): value for key, value in data.items()})


def error() -> Any:
    return new_output("error", ename="ValueError", evalue="no", traceback=["ValueError: no"])


def the_problem(notebook: Any) -> str:
    found = chapters.problems(notebook)
    assert len(found) == 1, found
    return str(found[0])


def test_a_sound_chapter_passes() -> None:
    assert chapters.problems(sound(stdout("one\n"), shown(text__html="<p>", text__plain="p"))) == []


def test_a_cell_that_was_never_executed_is_caught() -> None:
    notebook = sound()
    notebook.cells[2].execution_count = None
    assert the_problem(notebook) == "cell 3: stored without having been executed"


def test_a_gap_in_the_counts_is_caught() -> None:
    notebook = sound()
    notebook.cells[2].execution_count = 7
    assert the_problem(notebook) == "cell 3: execution count 7, must be 2"


def test_stderr_is_caught() -> None:
    assert "writes to stderr" in the_problem(sound(new_output("stream", name="stderr", text="a warning\n")))


def test_an_error_without_its_tag_is_caught() -> None:
    assert "raises ValueError without the tag" in the_problem(sound(error()))


def test_a_tagged_error_passes_and_a_tag_without_an_error_does_not() -> None:
    assert chapters.problems(sound(error(), tags=("raises-exception",))) == []
    assert "raised nothing" in the_problem(sound(stdout("one\n"), tags=("raises-exception",)))


def test_a_picture_of_pixels_is_caught() -> None:
    output = new_output("display_data", data={"image/png": "aGVsbG8=", "text/plain": "plot"})
    assert the_problem(sound(output)) == "cell 3: output of type image/png"


def test_a_drawing_that_would_become_an_image_file_is_caught() -> None:
    drawing = '<svg xmlns="http://www.w3.org/2000/svg"></svg>'
    alone = new_output("display_data", data={"image/svg+xml": drawing, "text/plain": "drawing"})
    assert "cannot follow light and dark" in the_problem(sound(alone))
    inline = new_output("display_data", data={"image/svg+xml": drawing, "text/html": drawing})
    assert chapters.problems(sound(inline)) == []


def test_a_widget_without_a_static_form_is_caught() -> None:
    output = new_output("display_data", data={chapters.WIDGET_VIEW: {"model_id": "1"}})
    found = chapters.problems(sound(output))
    assert "cell 3: holds a widget view" in found
    assert "cell 3: output without a text, HTML or SVG form" in found


def test_widget_state_is_caught() -> None:
    notebook = sound()
    notebook.metadata["widgets"] = {"application/vnd.jupyter.widget-state+json": {}}
    assert "widget state" in the_problem(notebook)


@pytest.mark.parametrize(
    "text",
    ["<object object at 0x7f3a5c0b1e50>", "<function f at 0x7f3a5c0b1e50>", "&lt;a.B object at 0x55d0c8&gt;"],
)
def test_a_memory_address_is_caught(text: str) -> None:
    assert "a memory address" in the_problem(sound(stdout(text)))


@pytest.mark.parametrize(
    "text", ["read at 0x100000000 by VMM", "<td>at 0x1400</td> MSR", "SEAMRR at 0x7f0000000000: denied"]
)
def test_a_physical_address_is_not_a_memory_address(text: str) -> None:
    assert chapters.problems(sound(stdout(text))) == []


@pytest.mark.parametrize(
    "text", ["/home/me/x.py", "File '/tmp/y'", "/root/seamref/a.py", "lib/site-packages/z", "C:\\Users\\me"]
)
def test_an_absolute_path_is_caught(text: str) -> None:
    assert "an absolute path" in the_problem(sound(stdout(text)))
    assert "an absolute path" in the_problem(sound(source=f"open({text!r})"))


@pytest.mark.parametrize(
    "text",
    ["/sys/class/firmware/tdx_module", "https://x.org/home/me/a", "/dev/tdx_guest", "arch/x86/root/a.c"],
)
def test_a_path_of_the_subject_passes(text: str) -> None:
    assert chapters.problems(sound(stdout(text))) == []


def test_a_chapter_without_a_title_is_caught() -> None:
    notebook = sound()
    del notebook.cells[0]
    assert any("title" in finding for finding in chapters.problems(notebook))


# ---------------------------------------------------------------- executing and storing


def test_execution_is_reproducible_byte_for_byte(tmp_path: Path) -> None:
    source = tmp_path / "a.py"
    source.write_text(
        "# %% [markdown]\n# # Title\n\n# %%\nimport sys\nprint('a', flush=True)\nprint('b')\n"
        "\n# %% tags=['raises-exception']\n1 / 0\n\n# %%\n'done'\n"
    )
    stored = []
    for name in ("one.ipynb", "two.ipynb"):
        chapters.execute_file(tmp_path / name, source)
        stored.append((tmp_path / name).read_bytes())
    chapters.execute_file(tmp_path / "one.ipynb")
    stored.append((tmp_path / "one.ipynb").read_bytes())
    assert stored[0] == stored[1] == stored[2]
    assert chapters.check_file(tmp_path / "one.ipynb") == []
    cells = chapters.read(tmp_path / "one.ipynb").cells
    assert [o.text for o in cells[1].outputs] == ["a\nb\n"]
    assert cells[2].outputs[0].traceback == ["ZeroDivisionError: division by zero"]


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("1 / 0", "ZeroDivisionError"),
        ("import sys\nprint('x', file=sys.stderr)", "writes to stderr"),
        ("object()", "memory address"),
    ],
)
def test_an_unfit_chapter_is_not_stored(tmp_path: Path, code: str, why: str) -> None:
    source = tmp_path / "a.py"
    source.write_text(f"# %% [markdown]\n# # Title\n\n# %%\n{code}\n")
    with pytest.raises(chapters.ChapterError, match=why):
        chapters.execute_file(tmp_path / "a.ipynb", source)
    assert not (tmp_path / "a.ipynb").exists()


def test_a_cell_sees_the_package_and_its_own_folder(tmp_path: Path) -> None:
    source = tmp_path / "a.py"
    source.write_text(
        "# %% [markdown]\n# # Title\n\n"
        "# %%\nimport seamref, pathlib\npathlib.Path.cwd().name, seamref.__name__\n"
    )
    chapters.execute_file(tmp_path / "a.ipynb", source)
    output = chapters.read(tmp_path / "a.ipynb").cells[1].outputs[0]
    assert output.data["text/plain"] == f"({tmp_path.name!r}, 'seamref')"


# ---------------------------------------------------------------- the table of contents


def test_a_page_that_is_missing_or_forgotten_is_caught(tmp_path: Path) -> None:
    (tmp_path / "book" / "part").mkdir(parents=True)
    (tmp_path / "book" / "forgotten.ipynb").write_text("{}")
    (tmp_path / "book" / "part" / "there.md").write_text("# There")
    toc = tmp_path / "_toc.yml"
    toc.write_text("format: jb-book\nroot: book/part/there\nparts:\n- chapters:\n  - file: book/missing\n")
    assert chapters.toc_problems(toc, tmp_path) == [
        "_toc.yml: book/missing does not exist",
        "book/forgotten: not in _toc.yml",
    ]
