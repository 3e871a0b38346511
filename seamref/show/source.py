"""The code of the specification, with its clause beside it."""

from __future__ import annotations

import inspect
import textwrap
from html import escape
from typing import Any

from seamref.layout import Layout, Record
from seamref.show.html import Html, clause_ref, mark_of, marked_up, scrolling
from seamref.show.tables import check_table, clause_table, layout_table, msr_table, record_table
from seamref.spec import CLAUSES, SOURCES, CheckTable, Clause

TOKENS = {
    "kw": ("k kn kd kr ow kc", "keyword", "#7928a1"),
    "str": ("s s1 s2 sd si se sa", "string", "#3a7a1f"),
    "com": ("c1 c cm", "comment", "#6b6b6b"),
    "num": ("mi mh mf m", "number", "#a3541a"),
    "def": ("nf nc nd fm", "def", "#0b66b2"),
    "bi": ("nb bp ne", "builtin", "#0b7285"),
}
"""Colour of each kind of token: CSS variable, pygments classes, JupyterLab's variable, tone without either."""

STYLE = "<style>" + "".join(
    ",".join(f".seam-src .{name}" for name in classes.split())
    + f"{{color:var(--seam-tok-{kind},var(--jp-mirror-editor-{theirs}-color,{middle}))}}"
    for kind, (classes, theirs, middle) in TOKENS.items()
) + "</style>"


def show(*things: Any, clause: str | None = None, doc: bool = True) -> Html:
    """Code of the package with its clauses beside it; several things below each other.

    A function or class shows its source, a check table its rows, a layout its offsets, a record its values, an MSR
    its rules, a clause id the clause.  ``clause`` adds one to those that the code itself names; ``doc=False``
    leaves the docstring out.
    """
    parts = [_show(thing, clause, doc) for thing in things]
    return Html("".join(p.html for p in parts), "\n\n".join(p.text for p in parts))


def _show(thing: Any, clause: str | None, doc: bool) -> Html:
    from seamref.arch.msr import Msr

    if isinstance(thing, CheckTable):
        return check_table(thing)
    if isinstance(thing, Layout):
        return layout_table(thing)
    if isinstance(thing, Record):
        return record_table(thing)
    if isinstance(thing, Msr):
        return msr_table(thing)
    if isinstance(thing, str):
        return clause_table(thing)
    return _code(thing, clause, doc)


def source_of(thing: Any) -> str:
    """The source of a function or class as it stands in the package, without the clause decorators' indentation."""
    return textwrap.dedent(inspect.getsource(_bare(thing))).rstrip()


def _bare(thing: Any) -> Any:
    """The function behind decorators and properties."""
    return inspect.unwrap(thing.fget if isinstance(thing, property) and thing.fget is not None else thing)


def clauses_of(thing: Any, extra: str | None = None) -> list[Clause]:
    """The clauses a function carries: those it is tied to, and those its docstring begins with."""
    ids = [*getattr(thing, "__clauses__", ()), *([extra] if extra else [])]
    first = (inspect.getdoc(thing) or "").split(":")[0].split(".\n")[0].strip().rstrip(".")
    if first in CLAUSES:
        ids.append(first)
    return [CLAUSES[id] for id in dict.fromkeys(ids)]


def _code(thing: Any, extra: str | None, doc: bool) -> Html:
    code = source_of(thing)
    if not doc:
        code = _without_docstring(code)
    where = _bare(thing)
    title = f"{where.__module__.replace('.', '/')}.py · {where.__qualname__}"
    beside = clauses_of(thing, extra)
    pre = f'<pre class="seam-code"><code>{_highlighted(code)}</code></pre>'
    block = scrolling(pre, f"Source of {where.__qualname__}")
    aside = "".join(_card(c) for c in beside)
    html = (
        f'{STYLE}<div class="seam-src"><div class="seam-src-title">{escape(title)}</div>'
        f'<div class="seam-src-body">{block}'
        + (f'<div class="seam-clauses">{aside}</div>' if aside else "")
        + "</div></div>"
    )
    notes = "".join(f"\n# {c.id}: {c.says} [{c.source}, {c.mark.value}]" for c in beside)
    return Html(html, f"# {title}{notes}\n{code}")


def _card(clause: Clause) -> str:
    tag = clause.source.split()[0].rstrip(",;")
    title = escape(SOURCES[tag].title) if tag in SOURCES else ""
    return (
        f'<div class="seam-clause"><div>{clause_ref(clause.id)} {mark_of(clause)}</div>'
        f'<div>{marked_up(clause.says)}</div>'
        f'<div class="seam-cite" title="{title}">{escape(clause.source)}</div></div>'
    )


def _highlighted(code: str) -> str:
    from pygments import highlight
    from pygments.formatters import HtmlFormatter
    from pygments.lexers import PythonLexer

    return str(highlight(code, PythonLexer(stripnl=False), HtmlFormatter(nowrap=True))).rstrip("\n")


def _without_docstring(code: str) -> str:
    import ast

    (node,) = ast.parse(code).body
    if not isinstance(node, ast.FunctionDef | ast.ClassDef) or ast.get_docstring(node) is None or len(node.body) < 2:
        return code
    lines, said = code.splitlines(), node.body[0]
    return "\n".join(lines[: said.lineno - 1] + lines[said.end_lineno :])
