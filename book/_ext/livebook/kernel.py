"""The page's Python: runs a chapter's cells and gives what Jupyter would give, without IPython.

One :class:`Kernel` has one namespace.  :meth:`Kernel.run` takes a cell's source and returns its outputs in nbformat's
own form: ``stream``, ``display_data``, ``execute_result`` and ``error``, the data as a bundle of MIME types in which
``text/plain`` is printed by IPython's pretty printer (the one file of it that is needed stands beside this one).  The
same file runs under CPython, where the book's build and the tests use it.

The worker (``worker.js``) calls the functions at the end; what goes through them is JSON.
"""

from __future__ import annotations

import ast
import builtins
import contextlib
import functools
import hashlib
import importlib
import io
import json
import linecache
import os
import sys
import time
import traceback
import types
from collections.abc import Callable, Sequence
from typing import Any

try:
    from IPython.lib.pretty import pretty
except ImportError:  # the page's Python: live.py puts that one file here
    from ipython_pretty import pretty  # type: ignore[import-not-found,no-redef]

Output = dict[str, Any]

REPRS = {
    "text/html": "_repr_html_", "image/svg+xml": "_repr_svg_", "text/markdown": "_repr_markdown_",
    "text/latex": "_repr_latex_", "application/json": "_repr_json_",
}
"""What an object may say of itself, besides ``_repr_mimebundle_``."""


def bundle(value: Any) -> dict[str, Any]:
    """A value as Jupyter's bundle: MIME type -> data."""
    made: dict[str, Any] = {}
    if not isinstance(value, type):
        whole = getattr(value, "_repr_mimebundle_", None)
        if callable(whole):
            given = whole(include=None, exclude=None)
            made.update(given[0] if isinstance(given, tuple) else given or {})
        for mime, name in REPRS.items():
            one = getattr(value, name, None)
            if mime not in made and callable(one) and (data := one()) is not None:
                made[mime] = data
    if "text/plain" not in made:
        made["text/plain"] = pretty(value)
    return made


class _Said(io.TextIOBase):
    """Standard output or error of a cell, in order with what it displays."""

    def __init__(self, name: str, outputs: list[Output]) -> None:
        self.name, self.outputs = name, outputs

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        last = self.outputs[-1] if self.outputs else {}
        if last.get("output_type") == "stream" and last["name"] == self.name:
            last["text"] += text
        elif text:
            self.outputs.append({"output_type": "stream", "name": self.name, "text": text})
        return len(text)


class Kernel:
    """One Python session: a namespace, and a count of the cells that ran in it."""

    def __init__(self) -> None:
        self.module = types.ModuleType("__main__")
        self.space = self.module.__dict__
        self.count = 0
        self.outputs: list[Output] = []

    def display(self, *values: Any) -> None:
        """What a cell calls to show something before its end."""
        for value in values:
            self.outputs.append({"output_type": "display_data", "data": bundle(value), "metadata": {}})

    def run(self, source: str) -> list[Output]:
        """Run one cell; an exception is an output, and never leaves this function."""
        self.count += 1
        name = f"<cell {self.count}>"
        linecache.cache[name] = (len(source), None, source.splitlines(True), name)  # for inspect and tracebacks
        self.outputs = outputs = []
        out, err = _Said("stdout", outputs), _Said("stderr", outputs)
        held = getattr(builtins, "display", None)
        builtins.display = self.display  # type: ignore[attr-defined]
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                tree = ast.parse(source, name)
                last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
                exec(compile(tree, name, "exec", dont_inherit=True), self.space)
                if isinstance(last, ast.Expr):
                    value = eval(compile(ast.Expression(last.value), name, "eval", dont_inherit=True), self.space)
                    if value is not None and not source.rstrip().endswith(";"):
                        self.space["_"] = value
                        outputs.append({
                            "output_type": "execute_result", "execution_count": self.count, "data": bundle(value),
                            "metadata": {},
                        })
            except BaseException as error:  # also an interrupt and sys.exit(): the session goes on
                outputs.append(failure(error))
            finally:
                if held is None:
                    del builtins.display  # type: ignore[attr-defined]
                else:
                    builtins.display = held  # type: ignore[attr-defined]
        return outputs


def failure(error: BaseException) -> Output:
    """An exception as an output: its name, what it says, and the way to it without this file's own frames."""
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename == __file__:
        trace = trace.tb_next
    lines = "".join(traceback.format_exception(type(error), error, trace)).splitlines()
    return {"output_type": "error", "ename": type(error).__name__, "evalue": str(error), "traceback": lines}


SHOWN = ("text/html", "image/svg+xml", "text/markdown", "text/plain")


def digest(outputs: Sequence[Output]) -> str:
    """What a reader sees of outputs, as one short word: equal exactly where the page would look the same.

    Takes outputs as :meth:`Kernel.run` gives them and as a notebook stores them, where text may be a list of lines.
    Of an error its name and words count, not the way to it: paths and line numbers belong to one machine.
    """

    def joined(data: Any) -> str:
        return "".join(data) if isinstance(data, list) else str(data)

    seen: list[list[str]] = []
    for output in outputs:
        match output["output_type"]:
            case "stream":
                text = joined(output["text"])
                if seen and seen[-1][:2] == ["stream", output["name"]]:
                    seen[-1][2] += text
                else:
                    seen.append(["stream", output["name"], text])
            case "error":
                seen.append(["error", output["ename"], output["evalue"]])
            case _:
                data = output["data"]
                seen.append(["data", *(f"{mime} {joined(data[mime])}" for mime in SHOWN if mime in data)])
    return hashlib.sha256(json.dumps(seen, ensure_ascii=False).encode()).hexdigest()[:16]


# ---------------------------------------------------------------- what the worker calls

KERNEL = Kernel()
PAGE = "book/index"


def begin(root: str, page: str) -> str:
    """A new session: the interpreter's main module, in the folder where the page's chapter stands.

    Say which Python it is.
    """
    global KERNEL, PAGE
    KERNEL, PAGE = Kernel(), page
    sys.modules["__main__"] = KERNEL.module
    folder = os.path.dirname(f"{root}/{page}")
    os.makedirs(folder, exist_ok=True)
    os.chdir(folder)
    return f"Python {sys.version.split()[0]}"


def run(source: str, printed: str = "") -> str:
    """A cell's outputs, their digest and the seconds that they took, as JSON.

    Where the digest is not that of the printed outputs, HTML is written as the book's build writes it (links of
    clauses and sources), under ``written``.
    """
    started = time.perf_counter()
    outputs = KERNEL.run(source)
    seconds = time.perf_counter() - started
    found = digest(outputs)
    if found != printed:
        for output in outputs:
            if "text/html" in output.get("data", {}):
                output["written"] = written(str(output["data"]["text/html"]))
    return json.dumps({
        "outputs": outputs, "digest": found, "seconds": seconds,
        "failed": any(output["output_type"] == "error" for output in outputs),
    }, default=str)


@functools.cache
def _known() -> Any:
    """What can be linked to; the build leaves it beside the package, for it takes long to collect."""
    from written import Known, Target, root

    held = json.loads((root() / "targets.json").read_text(encoding="utf-8"))
    return Known(targets={row[1]: Target(*row) for row in held["targets"]}, old=held["old"])


def written(html: str) -> str:
    """HTML that something shows, as it stands on this page."""
    from written import Writer, relative

    return Writer(PAGE, relative, _known()).run(html)


def call(name: str, arguments: str) -> str:
    """Call ``module:function`` with a JSON list of arguments (or an object: keywords).

    What it returns comes back as JSON where it can, else as ``{"data": bundle}`` of what it shows.  A name without a
    colon is a function of the session: what a cell of the page defined.
    """
    module, _, path = name.rpartition(":")
    target: Any = importlib.import_module(module) if module else KERNEL.module
    for part in path.split("."):
        target = getattr(target, part)
    function: Callable[..., Any] = target
    given = json.loads(arguments)
    value = function(**given) if isinstance(given, dict) else function(*given)
    try:
        return json.dumps(value)
    except TypeError:
        return json.dumps({"data": bundle(value)}, default=str)


def command(*arguments: str) -> dict[str, Any]:
    """``seamref ARGUMENTS`` as typed: exit status, standard output and standard error."""
    from seamref.cli import main

    out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", newline="", write_through=True) for _ in range(2))
    held, sys.argv = sys.argv, ["seamref", *arguments]
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            status: Any = main(list(arguments))
    except SystemExit as end:
        status = end.code
    finally:
        sys.argv = held
    if isinstance(status, str):
        err.write(status + "\n")
        status = 1
    said = [pipe.buffer.getvalue().decode("utf-8", "replace") for pipe in (out, err)]  # type: ignore[attr-defined]
    return {"status": int(status or 0), "out": said[0], "err": said[1]}
