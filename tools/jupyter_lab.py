"""The chapters in JupyterLab, their MyST rendered and their links alive: ``python tools/jupyter_lab.py [OPTION ...]``.

JupyterLab knows Markdown, and the chapters say a little more: citations, labels, a glossary.  ``book/_ext/lab`` has an
extension for that, written by hand.  This puts into ``_build/lab`` what it must know of the book, and starts JupyterLab
with it; options are JupyterLab's own.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any

import chapters

ROOT = Path(__file__).resolve().parents[1]
OWN = ROOT / "book" / "_ext" / "lab"
LAB = ROOT / "_build" / "lab"
NAME = "seambook"
CITE = re.compile(r"\{cite\}`([^`]+)`")
TITLE = re.compile(r"^# (.+)$", re.MULTILINE)
LABEL = re.compile(r"^\(([\w.-]+)\)=\s*$", re.MULTILINE)
# Markdown is read, no other host is asked, and a label is there before one scrolls to it.
SETTINGS = {
    "@jupyterlab/docmanager-extension:plugin": {"defaultViewers": {"markdown": "Markdown Preview"}},
    "@jupyterlab/apputils-extension:notification": {"fetchNews": "false", "checkForUpdates": False},
    "@jupyterlab/notebook-extension:tracker": {"windowingMode": "none"},
}


def pages() -> dict[str, Path]:
    """Page -> its file, in the order of the book."""
    found = {}
    for name in dict.fromkeys(chapters.toc_entries()):
        for path in (ROOT / f"{name}.ipynb", ROOT / f"{name}.md"):
            if path.is_file():
                found[name] = path
    return found


def markdown(path: Path) -> Iterator[str]:
    """The Markdown of a page."""
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".ipynb":
        yield text
        return
    for cell in json.loads(text)["cells"]:
        if cell["cell_type"] == "markdown":
            yield "".join(cell["source"])


def citation(text: str) -> str:
    """A citation as the rendered book has it; a source that nobody declared is left as it was typed."""
    from seamref.spec import address, cited

    parts = []
    for part, source in cited(text):
        place = address(part) if source is not None else ""
        parts.append(f'<a href="{escape(place)}" title="{escape(source.title)}">{escape(part)}</a>'
                     if place and source is not None else escape(part))
    return f"&#91;{'; '.join(parts)}&#93;"


def facts() -> dict[str, Any]:
    """What the extension must know: paths are seen from the folder ``book``."""
    sys.path.append(str(ROOT / "book" / "_ext"))
    import seambook

    known = seambook.known()
    place = {name: path.relative_to(ROOT / "book").as_posix() for name, path in pages().items()}
    cites: dict[str, str] = {}
    labels = {Path(path).stem: path for path in place.values()}  # a page by its name, where no label has that name
    titles: dict[str, str] = {}
    for name, path in pages().items():
        for text in markdown(path):
            cites |= {said: citation(said) for said in CITE.findall(text)}
            labels |= dict.fromkeys(LABEL.findall(text), place[name])
            if (found := TITLE.search(text)):
                titles.setdefault(place[name], found.group(1))
    anchors = {target.anchor: [place[target.page], target.anchor]
               for target in known.targets.values() if target.page in place}
    anchors |= {old: anchors[known.targets[id].anchor] for old, id in known.old.items()
                if id in known.targets and known.targets[id].anchor in anchors}
    return {"cites": cites, "labels": labels, "titles": titles, "pages": place, "anchors": anchors}


def prepare(folder: Path = LAB) -> Path:
    """The extension with its facts, and the settings, in a folder of their own."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(OWN / NAME, folder / "extensions" / NAME)
    script = folder / "extensions" / NAME / "static" / "remoteEntry.js"
    text, count = re.subn(r"/\* facts \*/ \{.*?\};",
                          lambda _: json.dumps(facts(), ensure_ascii=False).replace("</", "<\\/") + ";",
                          script.read_text(encoding="utf-8"), count=1)
    assert count == 1
    script.write_text(text, encoding="utf-8")
    (folder / "settings").mkdir()
    (folder / "settings" / "overrides.json").write_text(json.dumps(SETTINGS), encoding="utf-8")
    return folder


def command(folder: Path, options: list[str]) -> list[str]:
    """How JupyterLab is started."""
    return [
        sys.executable, "-m", "jupyter", "lab", "--custom-css",
        f"--ServerApp.tornado_settings={{'static_custom_path': [{str(OWN)!r}]}}",
        f"--LabApp.extra_labextensions_path={folder / 'extensions'}",
        f"--LabApp.app_settings_dir={folder / 'settings'}",
        *options, str(ROOT / "book"),
    ]


def main(options: list[str]) -> int:
    """Start JupyterLab, and stay until it ends."""
    try:
        return subprocess.call(command(prepare(), options), cwd=ROOT)
    except KeyboardInterrupt:
        return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
