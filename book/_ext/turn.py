"""Explorers turn on the rendered page: their answers are computed while the book is built.

For each explorer on a page (``seamref.show.explorers``) every setting runs on the real machine, and the answers are
written as a script beside the page.  Answers depend on the package alone: they are kept between builds under its
digest.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import asdict
from hashlib import sha256
from html import unescape
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
STATIC = Path(__file__).resolve().parent / "turning"
FOLDER = "_static/turns"
EXPLORER = re.compile(r'<div class="seam-explorer" data-explorer="([^"]+)"')


def digest() -> str:
    """Changes with any line of the package."""
    hashed = sha256()
    for file in sorted((ROOT / "seamref").rglob("*.py")):
        hashed.update(file.relative_to(ROOT).as_posix().encode() + b"\0" + file.read_bytes() + b"\0")
    return hashed.hexdigest()[:20]


class Answers:
    """Every answer of the book's explorers, kept in a folder between builds.

    What is missing is computed by another process while this one reads the chapters: it takes a minute or two.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.digest = digest()
        self.worker: subprocess.Popen[str] | None = None

    def file(self, key: str) -> Path:
        return self.folder / f"{key}-{self.digest}.json"

    def begin(self) -> None:
        from seamref.show.precomputed import EXPLORERS

        self.folder.mkdir(parents=True, exist_ok=True)
        for old in self.folder.glob("*.json"):
            if not old.stem.endswith(self.digest):
                old.unlink()
        missing = {key: str(self.file(key)) for key in EXPLORERS if not self.file(key).is_file()}
        if missing:
            self.worker = subprocess.Popen([sys.executable, __file__, json.dumps(missing)], cwd=ROOT, text=True,
                                           stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)

    def of(self, key: str) -> Any:
        """The answers of one explorer (:class:`seamref.show.precomputed.Turns`)."""
        from sphinx.errors import ExtensionError

        from seamref.show.precomputed import Turns

        if not self.file(key).is_file() and self.worker is not None:
            _, said = self.worker.communicate()
            if self.worker.returncode:
                raise ExtensionError(f"the answers of the explorers could not be computed: {said.strip()}")
        return Turns(**json.loads(self.file(key).read_text(encoding="utf-8")))

    def end(self) -> None:
        if self.worker is not None and self.worker.poll() is None:
            self.worker.kill()
            self.worker.communicate()


def compute(wanted: dict[str, str]) -> None:
    """Run every setting of some explorers; a file is there when it is whole."""
    sys.path.insert(0, str(ROOT))
    from seamref.show.precomputed import explorer_named, turns_of

    for key, file in wanted.items():
        part = Path(f"{file}.part")
        part.write_text(json.dumps(asdict(turns_of(explorer_named(key)))), encoding="utf-8")
        part.replace(file)


def write_turns(app: Any, pagename: str, templatename: str, context: dict[str, Any], doctree: Any) -> None:
    """The answers of a page's explorers, in the page's own links; and the script that turns them."""
    body = context.get("body") or ""
    if doctree is None or app.builder.format != "html" or not EXPLORER.search(body):
        return
    from seambook import Writer

    from seamref.show.precomputed import EXPLORERS, script

    def mark(found: re.Match[str]) -> str:
        key = unescape(found.group(1))
        if key not in EXPLORERS:  # an explorer of the chapter's own: a table, until a cell runs in the page
            return found.group(0)
        name = f"{pagename.replace('/', '-')}-{key}.js"
        path = Path(app.outdir) / FOLDER / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(script(app.seam_answers.of(key), Writer(app, pagename).run), encoding="utf-8")
        return f'{found.group(0)} data-turns="{"../" * pagename.count("/")}{FOLDER}/{name}"'

    context["body"] = EXPLORER.sub(mark, body)
    app.add_js_file("explorers.js", loading_method="defer")
    app.add_css_file("explorers.css")


def configure(app: Any, config: Any) -> None:
    config.html_static_path = [*config.html_static_path, str(STATIC)]


def begin(app: Any) -> None:
    if app.builder.format == "html":
        app.seam_answers = Answers(Path(app.doctreedir) / "turns")
        app.seam_answers.begin()


def finish(app: Any, problem: Exception | None) -> None:
    if hasattr(app, "seam_answers"):
        app.seam_answers.end()


def setup(app: Any) -> dict[str, Any]:
    """Hook into the build."""
    app.connect("config-inited", configure)
    app.connect("builder-inited", begin)
    app.connect("html-page-context", write_turns, priority=410)  # when the page's own links are made
    app.connect("build-finished", finish)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}


if __name__ == "__main__":
    compute(json.loads(sys.argv[1]))
