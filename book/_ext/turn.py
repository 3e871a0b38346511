"""Explorers turn on the rendered page, and commands run there: a Sphinx extension, see ``_config.yml``.

For each explorer on a page (``seamref.show.explorers``) every setting runs on the real machine, and the answers are
written as a script beside the page.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from hashlib import sha256
from html import unescape
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
STATIC = Path(__file__).resolve().parent / "turning"
FOLDER = "_static/turns"
KEPT = 12  # versions of an explorer's answers, for trees that are built by turns
EXPLORER = re.compile(r'<div class="seam-explorer" data-explorer="([^"]+)"')


def cache_folder() -> Path:
    """Where answers are kept: outside the build, which a failure deletes."""
    base = os.environ.get("XDG_CACHE_HOME") or (Path.home() / ".cache")
    return Path(base) / "seamref-book" / "turns"


def file_digest(path: str) -> str:
    """Of a file of this tree; "" where it is no longer there."""
    file = ROOT / path
    return sha256(file.read_bytes()).hexdigest()[:20] if file.is_file() else ""


class Answers:
    """Every answer of the book's explorers, kept between builds.

    An answer holds as long as every module that was loaded to compute it is the same.  What is missing is computed by
    another process while this one reads the chapters: it takes a minute or two.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or cache_folder()
        self.worker: subprocess.Popen[str] | None = None

    def kept(self, key: str) -> dict[str, Any] | None:
        """What an earlier build left, where it still holds."""
        for file in sorted(self.folder.glob(f"{key}-*.json"), key=lambda one: one.stat().st_mtime, reverse=True):
            with suppress(OSError, ValueError, KeyError, TypeError):
                held = json.loads(file.read_text(encoding="utf-8"))
                if all(file_digest(path) == digest for path, digest in held["modules"].items()):
                    turns: dict[str, Any] = held["turns"]
                    return turns
        return None

    def begin(self) -> None:
        from seamref.show.precomputed import EXPLORERS

        missing = [key for key in EXPLORERS if self.kept(key) is None]
        if missing:
            self.worker = subprocess.Popen([sys.executable, __file__, str(self.folder), *missing], cwd=ROOT, text=True,
                                           stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)

    def of(self, key: str) -> Any:
        """The answers of one explorer (:class:`seamref.show.precomputed.Turns`)."""
        from sphinx.errors import ExtensionError

        from seamref.show.precomputed import Turns

        while (held := self.kept(key)) is None and self.worker is not None and self.worker.poll() is None:
            time.sleep(0.5)
        if held is None and self.worker is not None and self.worker.returncode:
            said = self.worker.communicate()[1]
            raise ExtensionError(f"the answers of the explorers could not be computed: {said.strip()}")
        if held is None and (held := self.kept(key)) is None:
            raise ExtensionError(f"the answers of the explorer {key!r} are not there: did a file change meanwhile?")
        return Turns(**held)

    def end(self) -> None:
        if self.worker is not None and self.worker.poll() is None:
            self.worker.kill()
            self.worker.communicate()


def compute(folder: Path, keys: list[str]) -> None:
    """Run every setting of some explorers; a file appears when it is whole."""
    sys.path.insert(0, str(ROOT))
    # Taken first: what changes while this runs must not pass for what ran.
    digests = {path: file_digest(path) for path in (
        file.relative_to(ROOT).as_posix() for file in sorted((ROOT / "seamref").rglob("*.py")))}
    from seamref.show.precomputed import explorer_named, turns_of

    folder.mkdir(parents=True, exist_ok=True)
    for key in keys:
        with one_at_a_time(folder / f"{key}.lock"):
            if Answers(folder).kept(key) is not None:
                continue  # another build has done it meanwhile
            turns = turns_of(explorer_named(key))
            files = {Path(str(module.__file__)) for name, module in sys.modules.items()
                     if name.partition(".")[0] == "seamref" and getattr(module, "__file__", None)}
            names = sorted(file.relative_to(ROOT).as_posix() for file in files)
            modules = {path: digests.get(path, "") for path in names}
            name = sha256(json.dumps(modules).encode()).hexdigest()[:16]
            part = folder / f"{key}-{name}.{os.getpid()}.part"
            part.write_text(json.dumps({"modules": modules, "turns": asdict(turns)}), encoding="utf-8")
            part.replace(folder / f"{key}-{name}.json")
            for old in sorted(folder.glob(f"{key}-*.json"), key=lambda one: one.stat().st_mtime)[:-KEPT]:
                old.unlink(missing_ok=True)


@contextmanager
def one_at_a_time(lock: Path) -> Iterator[None]:
    """Builds wait for each other rather than do the same work twice; not where files have no locks."""
    try:
        import fcntl
    except ImportError:
        yield
        return
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def write_turns(app: Any, pagename: str, templatename: str, context: dict[str, Any], doctree: Any) -> None:
    """The answers of a page's explorers, in the page's own links; and the script that turns them."""
    body = context.get("body") or ""
    if doctree is None or app.builder.format != "html" or not EXPLORER.search(body):
        return
    from seambook import known
    from written import Writer

    from seamref.show.precomputed import EXPLORERS, script

    dress = Writer(pagename, app.builder.get_relative_uri, known()).run

    def mark(found: re.Match[str]) -> str:
        key = unescape(found.group(1))
        if key not in EXPLORERS:  # an explorer of the chapter's own: a table, until a cell runs in the page
            return found.group(0)
        name = f"{pagename.replace('/', '-')}-{key}.js"
        path = Path(app.outdir) / FOLDER / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(script(app.seam_answers.of(key), dress), encoding="utf-8")
        return f'{found.group(0)} data-turns="{"../" * pagename.count("/")}{FOLDER}/{name}"'

    context["body"] = EXPLORER.sub(mark, body)
    app.add_js_file("explorers.js", loading_method="defer")
    app.add_css_file("explorers.css")


def add_command_line(app: Any, pagename: str, templatename: str, context: dict[str, Any], doctree: Any) -> None:
    """The script of the page on which commands are typed."""
    if doctree is not None and app.builder.format == "html" and '<div class="seam-try">' in (context.get("body") or ""):
        app.add_js_file("try.js", loading_method="defer", priority=900)  # after the page's Python (live.js)
        app.add_css_file("try.css")


def configure(app: Any, config: Any) -> None:
    config.html_static_path = [*config.html_static_path, str(STATIC)]


def begin(app: Any) -> None:
    if app.builder.format == "html":
        app.seam_answers = Answers()
        app.seam_answers.begin()


def finish(app: Any, problem: Exception | None) -> None:
    if hasattr(app, "seam_answers"):
        app.seam_answers.end()


def setup(app: Any) -> dict[str, Any]:
    """Hook into the build."""
    app.connect("config-inited", configure)
    app.connect("builder-inited", begin)
    app.connect("html-page-context", write_turns, priority=410)  # when the page's own links are made
    app.connect("html-page-context", add_command_line, priority=410)
    app.connect("build-finished", finish)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}


if __name__ == "__main__":
    compute(Path(sys.argv[1]), sys.argv[2:])
