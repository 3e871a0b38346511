#!/usr/bin/env python3
"""Write, execute and guard the chapters of the book.

    python tools/chapters.py from-py SOURCE.py book/part/name.ipynb   script -> executed chapter
    python tools/chapters.py execute [PATH ...] [-j N]                execute in place and store the outputs
    python tools/chapters.py check [PATH ...]                         the guard: what nbval cannot see

Without PATH, every chapter below book/ is meant.  A stored chapter is a function of its cells and of
the package: no times, no random identifiers, no widget state, so that two executions give the same bytes.

The guard exists because nbval passes a cell that was stored without being executed (it has nothing to
compare), and ignores images, widget views and tracebacks.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
BOOK = ROOT / "book"
TOC = ROOT / "_toc.yml"

KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}
CELL_TIMEOUT_S = 600
ERROR_TAG = "raises-exception"
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
ALLOWED_MIME = frozenset({"text/plain", "text/html", "text/markdown", "image/svg+xml"})
KEPT_CELL_METADATA = frozenset({"tags", "mystnb"})

MEMORY_ADDRESS = re.compile(
    r"(?:<|&lt;)[^<>\n]{1,200}? at 0x[0-9a-fA-F]{6,}(?:>|&gt;)|\bobject at 0x[0-9a-fA-F]+"
)
ABSOLUTE_PATH = re.compile(
    r"(?<![\w.:/~-])/(?:home|root|tmp|work|Users|mnt|private|var/folders|opt|builds?)/[\w.-]+"
    r"|\b[A-Z]:\\+(?:Users|Windows|Temp)\\|\bsite-packages\b|\bipykernel_\d+"
)


class ChapterError(Exception):
    """A chapter could not be executed or stored; the message names the chapter and the cell."""


# --------------------------------------------------------------------------- finding chapters


def chapters(paths: Sequence[Path] = ()) -> list[Path]:
    """The notebooks meant by `paths` (files or folders), or every chapter of the book, in stable order."""
    found: list[Path] = []
    for path in paths or [BOOK]:
        path = path.resolve()
        if path.is_dir():
            found += sorted(p for p in path.rglob("*.ipynb") if not _is_scratch(p))
        elif path.suffix == ".ipynb" and path.is_file():
            found.append(path)
        else:
            raise ChapterError(f"{path}: neither a notebook nor a folder")
    return found


def _is_scratch(path: Path) -> bool:
    return any(part == "_build" or part.startswith(".") for part in path.relative_to(ROOT).parts)


def name_of(path: Path) -> str:
    """The chapter's path as a reader of the repository would write it."""
    try:
        return path.resolve().relative_to(ROOT).as_posix()
    except ValueError:
        return str(path)


# --------------------------------------------------------------------------- reading and writing


def read(path: Path) -> Any:
    import nbformat

    return nbformat.read(path, as_version=4)


def write(notebook: Any, path: Path) -> None:
    """Write in nbformat's stable form, newline at end, and only ever a whole file."""
    import nbformat

    nbformat.validate(notebook)
    text = nbformat.writes(notebook, version=4).rstrip("\n") + "\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, scratch = tempfile.mkstemp(dir=path.parent, prefix=".chapter-", suffix=".tmp")
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(text)
    os.chmod(scratch, 0o644)
    os.replace(scratch, path)


# --------------------------------------------------------------------------- normal form


def normalise(notebook: Any) -> Any:
    """Bring a notebook into the one form in which it is stored."""
    from nbformat.notebooknode import NotebookNode, from_dict

    notebook.nbformat, notebook.nbformat_minor = 4, 5
    notebook.metadata = from_dict({"kernelspec": KERNEL, "language_info": {"name": "python"}})
    seen: dict[str, int] = {}
    count = 0
    for cell in notebook.cells:
        kept = {key: value for key, value in sorted(cell.metadata.items()) if key in KEPT_CELL_METADATA}
        cell.metadata = NotebookNode(kept)
        if not cell.metadata.get("tags", True):
            del cell.metadata["tags"]
        cell.pop("attachments", None)
        cell.id = _cell_id(cell, seen)
        if cell.cell_type != "code":
            continue
        count += 1
        cell.execution_count = count if cell.execution_count is not None else None
        cell.outputs = [_normal_output(o, cell.execution_count) for o in _merged_streams(cell.outputs)]
    return notebook


def _cell_id(cell: Any, seen: dict[str, int]) -> str:
    """An identifier that follows from the cell's content, so that regenerating a chapter changes nothing."""
    stem = hashlib.sha256(f"{cell.cell_type}\n{cell.source}".encode()).hexdigest()[:12]
    seen[stem] = seen.get(stem, 0) + 1
    return stem if seen[stem] == 1 else f"{stem}-{seen[stem]}"


def _merged_streams(outputs: Sequence[Any]) -> Iterator[Any]:
    """Consecutive pieces of one stream become one output: where the kernel cuts it is a matter of timing."""
    pending: Any = None
    for output in outputs:
        if output.output_type == "stream" and pending is not None and pending.name == output.name:
            pending.text += output.text
            continue
        if pending is not None:
            yield pending
        pending = output if output.output_type == "stream" else None
        if pending is None:
            yield output
    if pending is not None:
        yield pending


def _normal_output(output: Any, count: int | None) -> Any:
    if output.output_type == "execute_result":
        output.execution_count = count
    if "data" in output:
        # The static page shows the HTML that stands in the same bundle; live, JupyterLab shows the widget.
        output.data.pop(WIDGET_VIEW, None)
    if "metadata" in output:
        output.metadata = type(output.metadata)()
    if output.output_type == "error":
        # A traceback names files of the machine that ran it; the error itself is what the text is about.
        output.traceback = [f"{output.ename}: {output.evalue}"]
    return output


# --------------------------------------------------------------------------- executing


def execute(notebook: Any, folder: Path, name: str) -> Any:
    """Run every cell in a fresh kernel whose working directory is the chapter's folder."""
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

    if notebook.metadata.get("kernelspec", {}).get("name") != "python3":
        notebook.metadata["kernelspec"] = KERNEL
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    folder.mkdir(parents=True, exist_ok=True)
    client = NotebookClient(
        notebook,
        timeout=CELL_TIMEOUT_S,
        kernel_name="python3",
        resources={"metadata": {"path": str(folder)}},
        record_timing=False,
        store_widget_state=False,
        allow_error_names=[],
    )
    try:
        client.execute(env={**os.environ, "PYTHONPATH": _python_path()})
    except CellExecutionError as error:
        raise ChapterError(f"{name}: a cell failed\n{error}") from None
    except (CellTimeoutError, DeadKernelError) as error:
        raise ChapterError(f"{name}: {error}") from None
    return normalise(notebook)


def _python_path() -> str:
    return os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])


def execute_file(path: Path, source: Path | None = None) -> tuple[Path, list[str]]:
    """Execute one chapter (from `source` if given), store it, and return what the guard says about it."""
    if source is not None:
        notebook = _from_percent(source)
    else:
        notebook = read(path)
    notebook = execute(notebook, path.parent, name_of(path))
    findings = problems(notebook)
    if findings:
        listed = "\n".join(f"  {finding}" for finding in findings)
        raise ChapterError(f"{name_of(path)}: executed, but not fit to be stored\n{listed}")
    write(notebook, path)
    return path, findings


def _from_percent(source: Path) -> Any:
    import jupytext

    notebook = jupytext.read(source, fmt="py:percent")
    notebook.metadata.pop("jupytext", None)
    return notebook


# --------------------------------------------------------------------------- the guard


def problems(notebook: Any) -> list[str]:
    """Everything about a stored chapter that nbval would let pass."""
    found: list[str] = []
    if "widgets" in notebook.metadata:
        found.append("notebook metadata holds widget state")
    if not notebook.cells:
        return [*found, "no cells"]
    first = notebook.cells[0]
    if first.cell_type != "markdown" or not re.search(r"^# \S", first.source, re.MULTILINE):
        found.append("the first cell is not a markdown cell with the chapter's title")
    count = 0
    for index, cell in enumerate(notebook.cells, start=1):
        where = f"cell {index}"
        found += [f"{where}: its text holds {what}" for what in _machine_traces(cell.source)]
        if cell.cell_type != "code":
            continue
        if not cell.source.strip():
            found.append(f"{where}: empty code cell")
            continue
        count += 1
        if cell.execution_count is None:
            found.append(f"{where}: stored without having been executed")
        elif cell.execution_count != count:
            found.append(f"{where}: execution count {cell.execution_count}, must be {count}")
        if "execution" in cell.metadata:
            found.append(f"{where}: holds execution times")
        tags = cell.metadata.get("tags", [])
        found += [f"{where}: {finding}" for finding in _output_problems(cell.outputs, tags)]
    return found


def _output_problems(outputs: Sequence[Any], tags: Sequence[str]) -> Iterator[str]:
    errors = 0
    for output in outputs:
        if output.output_type == "stream":
            if output.name != "stdout":
                yield f"writes to {output.name}: {output.text.strip().splitlines()[-1:] or ['']}"
            texts = {"stdout": output.text}
        elif output.output_type == "error":
            errors += 1
            if ERROR_TAG not in tags:
                yield f"raises {output.ename} without the tag {ERROR_TAG}"
            texts = {"error": "\n".join([output.evalue, *output.traceback])}
        else:
            if WIDGET_VIEW in output.data:
                yield "holds a widget view"
            foreign = sorted(set(output.data) - ALLOWED_MIME - {WIDGET_VIEW})
            if foreign:
                yield f"output of type {', '.join(foreign)}"
            if "image/svg+xml" in output.data and "text/html" not in output.data:
                yield "an SVG alone becomes an <img>, which cannot follow light and dark: use text/html"
            if not set(output.data) & ALLOWED_MIME:
                yield "output without a text, HTML or SVG form"
            texts = {mime: _joined(data) for mime, data in output.data.items() if mime in ALLOWED_MIME}
        for kind, text in texts.items():
            for what in _machine_traces(text):
                yield f"{kind} output holds {what}"
    if ERROR_TAG in tags and not errors:
        yield f"tagged {ERROR_TAG} but raised nothing"


def _joined(data: Any) -> str:
    return data if isinstance(data, str) else "".join(data)


def _machine_traces(text: str) -> Iterator[str]:
    """What differs from one machine or run to the next."""
    for kind, pattern in (("a memory address", MEMORY_ADDRESS), ("an absolute path", ABSOLUTE_PATH)):
        match = pattern.search(text)
        if match:
            yield f"{kind}: {match.group(0)[:80]!r}"
    if str(ROOT) in text:
        yield "the path of this checkout"


def toc_problems(toc: Path = TOC, root: Path = ROOT) -> list[str]:
    """Every page of the table of contents exists once, and every page below book/ is in it."""
    listed = list(toc_entries(toc))
    repeated = sorted({name for name in listed if listed.count(name) > 1})
    found = [f"{toc.name}: {name} is listed twice" for name in repeated]
    pages: dict[str, list[Path]] = {}
    for path in sorted((root / "book").rglob("*")):
        place = path.relative_to(root)
        if place.suffix in {".ipynb", ".md"} and not any(part.startswith((".", "_")) for part in place.parts):
            pages.setdefault(place.with_suffix("").as_posix(), []).append(path)
    found += [f"{toc.name}: {name} does not exist" for name in dict.fromkeys(listed) if name not in pages]
    found += [f"{name}: not in {toc.name}" for name in pages if name not in listed]
    found += [f"{name}: is both notebook and markdown" for name, files in pages.items() if len(files) > 1]
    return found


def toc_entries(toc: Path = TOC) -> Iterator[str]:
    """The pages of the table of contents, without suffix, in reading order."""
    import yaml

    def walk(node: Any) -> Iterator[str]:
        if isinstance(node, dict):
            for key in ("root", "file"):
                if key in node:
                    yield re.sub(r"\.(ipynb|md)$", "", node[key])
            for key in ("parts", "chapters", "sections", "subtrees", "entries"):
                yield from walk(node.get(key))
        elif isinstance(node, list):
            for child in node:
                yield from walk(child)

    yield from walk(yaml.safe_load(toc.read_text(encoding="utf-8")))


def check_file(path: Path) -> list[str]:
    """The guard for one stored chapter, with the form of the file itself."""
    text = path.read_text(encoding="utf-8")
    notebook = read(path)
    found = problems(notebook)
    if not text.endswith("}\n") or notebook.nbformat_minor < 5:
        found.append("not in the stored form (run tools/chapters.py execute)")
    ids = [cell.get("id") for cell in notebook.cells]
    if len(set(ids)) != len(ids) or None in ids:
        found.append("cell identifiers are missing or repeated")
    return found


# --------------------------------------------------------------------------- command line


def _run_execute(paths: list[Path], jobs: int) -> int:
    failed = 0
    with ProcessPoolExecutor(max_workers=max(1, jobs)) as pool:
        waiting = [(path, pool.submit(execute_file, path)) for path in paths]
        for path, future in waiting:
            try:
                future.result()
                print(f"executed {name_of(path)}", flush=True)
            except ChapterError as error:
                failed += 1
                print(error, file=sys.stderr, flush=True)
    return 1 if failed else 0


def _run_check(paths: list[Path], with_toc: bool) -> int:
    lines = [f"{name_of(path)}: {finding}" for path in paths for finding in check_file(path)]
    if with_toc:
        lines += toc_problems()
    for line in lines:
        print(line, file=sys.stderr)
    print(f"{len(paths)} chapters checked, {len(lines)} problems")
    return 1 if lines else 0


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="tools/chapters.py", description=__doc__.partition("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("from-py", help="percent-format script to executed chapter")
    command.add_argument("source", type=Path)
    command.add_argument("dest", type=Path)
    command = commands.add_parser("execute", help="execute in place and store the outputs")
    command.add_argument("paths", nargs="*", type=Path)
    command.add_argument("-j", "--jobs", type=int, default=min(4, os.cpu_count() or 1))
    command = commands.add_parser("check", help="the guard")
    command.add_argument("paths", nargs="*", type=Path)
    args = parser.parse_args(argv)
    try:
        if args.command == "from-py":
            execute_file(args.dest.resolve(), args.source)
            print(f"wrote {name_of(args.dest)}")
            return 0
        paths = chapters(args.paths)
        if args.command == "execute":
            return _run_execute(paths, args.jobs)
        return _run_check(paths, with_toc=not args.paths)
    except ChapterError as error:
        print(error, file=sys.stderr)
        return 1


if __name__ == "__main__":
    raise SystemExit(main())
