"""Paths through the book, and through its source, that count for themselves.  A Sphinx extension: see ``_config.yml``.

A page of ``book/paths`` says what to read in which order and why; how long it takes follows from the chapters::

    ```{reading}
    boot/chain: from reset to the first call
    ```

and how large a file is, and what it is for, from the file::

    ```{source-files}
    seamref/spec: begin here
    ```

A name that is not there is an error of the build.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

ROOT = Path(__file__).resolve().parents[2]
BOOK = ROOT / "book"

# What a reader takes.  Words are those of the text; code is looked through, outputs are looked at.
WORDS_A_MINUTE = 180
SECONDS_A_LINE_OF_CODE = 1.5
SECONDS_AN_OUTPUT = 20
WORD = re.compile(r"[A-Za-z][\w'-]*")


def file_of(page: str) -> Path:
    """The chapter `page` ("boot/chain") as a file.  Raises LookupError where there is none."""
    for suffix in (".ipynb", ".md"):
        path = BOOK / f"{page}{suffix}"
        if path.is_file():
            return path
    raise LookupError(f"no chapter {page!r}")


def minutes(page: str) -> int:
    """How long one chapter takes, to be read once without its exercises' solutions being worked out."""
    path = file_of(page)
    if path.suffix == ".md":
        return max(1, round(len(WORD.findall(path.read_text(encoding="utf-8"))) / WORDS_A_MINUTE))
    import json

    seconds = 0.0
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        text = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            seconds += len(WORD.findall(text)) / WORDS_A_MINUTE * 60
        else:
            folded = {"hide-input", "hide-cell", "remove-input"} & set(cell.get("metadata", {}).get("tags", []))
            seconds += 0 if folded else SECONDS_A_LINE_OF_CODE * len(text.splitlines())
            seconds += SECONDS_AN_OUTPUT if cell.get("outputs") and "hide-cell" not in folded else 0
    return max(1, round(seconds / 60))


def title(page: str) -> str:
    path = file_of(page)
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".ipynb":
        import json

        text = "\n\n".join("".join(c["source"]) for c in json.loads(text)["cells"] if c["cell_type"] == "markdown")
    found = re.search(r"^# (.+)$", text, re.MULTILINE)
    if found is None:
        raise LookupError(f"{page}: no title")
    return found.group(1)


def spoken(whole: int) -> str:
    """Minutes as a person says them, rounded to what the estimate is worth."""
    if whole < 90:
        return f"{max(5, round(whole / 5) * 5)} minutes"
    halves = round(whole / 30)
    return "an hour and a half" if halves == 3 else f"{halves // 2}{' and a half' if halves % 2 else ''} hours"


def source_file(name: str) -> Path:
    """The file or package `name` ("seamref/arch/seam").  Raises LookupError where there is none."""
    for path in (ROOT / f"{name}.py", ROOT / name / "__init__.py"):
        if path.is_file():
            return path
    raise LookupError(f"no file {name}.py and no package {name}")


def source_lines(name: str) -> int:
    """Lines of a file, or of all files of a package."""
    path = source_file(name)
    files = sorted(path.parent.rglob("*.py")) if path.name == "__init__.py" else [path]
    return sum(len(file.read_text(encoding="utf-8").splitlines()) for file in files)


def source_purpose(name: str) -> str:
    said = ast.get_docstring(ast.parse(source_file(name).read_text(encoding="utf-8"))) or ""
    words = said.split("\n\n")[0].replace("\n", " ").replace("``", "`").replace(":mod:", "").replace(":func:", "")
    parts = words.split("`")  # what is not code keeps its asterisks and underscores
    return "`".join(re.sub(r"([*_{}])", r"\\\1", part) if at % 2 == 0 else part for at, part in enumerate(parts))


def entries(content: Any) -> list[tuple[str, str]]:
    return [(name.strip(), why.strip()) for line in content if line.strip() for name, _, why in [line.partition(":")]]


class _Table(SphinxDirective):
    has_content = True

    def made(self) -> list[str]:
        raise NotImplementedError

    def run(self) -> list[nodes.Node]:
        try:
            lines = self.made()
        except LookupError as problem:
            return [self.state_machine.reporter.error(str(problem), line=self.lineno)]
        holder = nodes.container()
        self.state.nested_parse(StringList(lines, self.env.docname), self.content_offset, holder)
        return holder.children


class Reading(_Table):
    """Chapters in reading order with their minutes, and the sum."""

    def made(self) -> list[str]:
        listed = entries(self.content)
        for page, _ in listed:
            self.env.note_dependency(str(file_of(page)))
        rows = [
            f"| {at} | [{title(page)}](../{page}{file_of(page).suffix}) | {minutes(page)} | {why} |"
            for at, (page, why) in enumerate(listed, 1)
        ]
        whole = sum(minutes(page) for page, _ in listed)
        return ["| | chapter | minutes | what for |", "|---|---|---|---|", *rows, "",
                f"Together about {spoken(whole)}, exercises not counted."]


class SourceFiles(_Table):
    """Files in reading order with their size and purpose."""

    def made(self) -> list[str]:
        up = "../" * self.env.docname.count("/")
        rows = []
        for name, why in entries(self.content):
            shown = source_file(name).relative_to(ROOT)
            place = f"{up}source/{shown.with_suffix('').as_posix()}.html"
            label = f"{name}/" if shown.name == "__init__.py" else shown.as_posix()
            label = f'<code style="white-space:nowrap">{label.removeprefix("seamref/")}</code>'
            self.env.note_dependency(str(ROOT / shown))
            rows.append(f'| <a href="{place}">{label}</a> | {source_lines(name)} | '
                        f"{source_purpose(name)} {why} |")
        return ["| in seamref | lines | what it is, and what to look at |", "|---|---|---|", *rows]


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_directive("reading", Reading)
    app.add_directive("source-files", SourceFiles)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
