"""Tables: pandas behind, one look in front, scrolling where the page is narrow."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from html import escape
from typing import TYPE_CHECKING, Any

from seamref.arch.msr import DECLARED, Msr
from seamref.arch.platform import Platform, PlatformConfig
from seamref.errors import SeamrefError
from seamref.layout import Array, Bits, Int, Layout, Raw, Record
from seamref.show.html import Hex, Html, Id, anchor, as_mapping, cell, marked_up, plain, scrolling
from seamref.spec import CLAUSES, IMPLEMENTED_BY, SOURCES, CheckTable, Mark

if TYPE_CHECKING:
    import pandas


class Table(Html):
    """Rows to look at.  ``records`` are the same as plain values, ``frame`` as a DataFrame: to be counted further.

    In both numbers are numbers (also those shown in hex), clause ids and marked-up words plain text.
    """

    def __init__(
        self, columns: Sequence[str], rows: Sequence[Sequence[Any]], caption: str = "", ids: Sequence[str] = ()
    ) -> None:
        self.columns = tuple(columns)
        self.rows = [tuple(row) for row in rows]
        self.caption = caption
        self.ids = tuple(ids)
        super().__init__(self._html(), self._text())

    def _names(self) -> list[str]:
        return [name.replace("`", "") for name in self.columns]

    @property
    def records(self) -> list[dict[str, Any]]:
        """The rows, column by name, without markup."""
        return [dict(zip(self._names(), map(_value_of, row), strict=True)) for row in self.rows]

    @property
    def frame(self) -> pandas.DataFrame:
        """The table as a DataFrame, without markup.  Where pandas is missing, ``records`` are the same."""
        try:
            import pandas
        except ModuleNotFoundError:
            raise SeamrefError("pandas is not installed here; records has the same rows as plain values") from None
        return pandas.DataFrame([list(map(_value_of, row)) for row in self.rows], columns=self._names())

    def __len__(self) -> int:
        return len(self.rows)

    def _html(self) -> str:
        head = "".join(f'<th scope="col">{escape(name, quote=False)}</th>' for name in self.columns)
        head = f"<thead><tr>{head}</tr></thead>" if any(self.columns) else ""
        body = []
        for index, row in enumerate(self.rows):
            place = f' id="{self.ids[index]}"' if self.ids else ""
            body.append(f"<tr{place}>" + "".join(f"<td>{cell(value)}</td>" for value in row) + "</tr>")
        caption = f"<caption>{marked_up(self.caption)}</caption>" if self.caption else ""
        inner = (
            f'<table class="dataframe seam-table">{caption}{head}'
            f'<tbody>{"".join(body)}</tbody></table>'
        )
        return scrolling(inner, self.caption.replace("`", "") or f"Table: {', '.join(filter(None, self.columns))}")

    def _text(self) -> str:
        cells = [[_text_of(v) for v in row] for row in self.rows]
        widths = [
            max([len(name), *(min(len(row[i]), 60) for row in cells)]) for i, name in enumerate(self.columns)
        ]
        lines = [self.caption.replace("`", "")] if self.caption else []
        for line in [*([list(self.columns)] if any(self.columns) else []), *cells]:
            lines.append("  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip())
        return "\n".join(lines)


def _value_of(value: Any) -> Any:
    """What a cell holds, to go on with: no markup, no looks."""
    match value:
        case bool() | None:
            return value
        case int():
            return int(value)
        case Html():
            return value.text
        case str():
            return str(value).replace("`", "")
    return value


def _text_of(value: Any) -> str:
    return value.text.replace("\n", " ") if isinstance(value, Html) else plain(value)


def table(
    rows: Iterable[Any], columns: Sequence[str] | str | None = None, caption: str = "", ids: Sequence[str] = ()
) -> Table:
    """A table of mappings, dataclasses or tuples.

    ``columns`` names the columns, as a list or as "one | two" (and picks them, where rows have names); tuples need it.
    In a cell, backticks set code, :class:`Hex` shows a number in hex, :class:`Id` links a clause.  ``ids`` gives each
    row an anchor.
    """
    taken = list(rows)
    if isinstance(columns, str):
        columns = [name.strip() for name in columns.split("|")]
    if columns is None:
        columns = list(as_mapping(taken[0])) if taken else []
    made = [
        tuple(row) if isinstance(row, tuple | list) else tuple(as_mapping(row).get(name, "") for name in columns)
        for row in taken
    ]
    return Table(columns, made, caption, ids)


def pairs(*rows: tuple[str, Any], caption: str = "", columns: tuple[str, str] = ("", "")) -> Table:
    """A two-column table of names and values."""
    return Table(columns, rows, caption)


def result_text(result: Any) -> str:
    """A check row's result in words: outcomes print themselves, enums by name, markers by their docstring.

    Nothing where the row only says that it stops.
    """
    from enum import Enum

    if isinstance(result, Enum) and not isinstance(result.value, str):
        number = f"0x{int(result.value):X}" if isinstance(result.value, int) and result.value > 255 else result.value
        return f"{result.name} ({number})"
    if isinstance(result, Enum):
        return str(result.value)
    text = "" if result is None else str(result)
    if is_dataclass(result) and not isinstance(result, type) and text.startswith(f"{type(result).__qualname__}("):
        return f"{type(result).__name__}: {', '.join(plain(getattr(result, field.name)) for field in fields(result))}"
    if text.startswith("<"):
        text = (type(result).__doc__ or type(result).__name__).strip().rstrip(".").split(": ")[-1]
    return text


def check_table(table: CheckTable[Any, Any], revision: Any = None, caption: str | None = None) -> Table:
    """The rows of a check table in the order in which the machine asks them.

    With ``revision``, only the rows that this revision has; without, a column says which rows depend on it.
    """
    rows = [row for row in table if revision is None or row.applies is None or row.applies(revision)]
    varies = revision is None and any(row.applies is not None for row in rows)
    columns = ["#", "clause", "stops when", "result", "source", *(["revisions"] if varies else [])]
    made = [
        [
            number, Id(row.id), row.says, result_text(row.result), sourced(row.source, row.mark),
            *(["" if row.applies is None else _revisions(row.applies)] if varies else []),
        ]
        for number, row in enumerate(rows, start=1)
    ]
    return Table(columns, made, table.doc if caption is None else caption)


def sourced(source: str, mark: Mark) -> str:
    """Where a clause is from, and how it is known where that is not simply *stated*."""
    return source if mark is Mark.STATED else f"{source} ({mark.value})"


def _revisions(applies: Callable[[Any], bool]) -> str:
    """The revisions that have a row: of the processor's documents, of the loader, or of the kernel's series."""
    names = [name for name, revision in _kinds(applies.__module__).items() if applies(revision)]
    return "a knob only" if not names else ", ".join(names)


def _kinds(module: str) -> Mapping[str, Any]:
    """What a table of this module is asked with, by name."""
    from seamref.arch.revision import REVISIONS
    from seamref.host.series import SERIES
    from seamref.pseamldr.build import REVISIONS as LOADERS

    if module.startswith("seamref.pseamldr."):
        return {f"P-SEAMLDR {name}": name for name in LOADERS}
    if module == "seamref.host.image":
        return {name: name for name in SERIES}
    return SERIES if module.startswith("seamref.host.") else REVISIONS


def layout_table(layout: Layout, caption: str | None = None) -> Table:
    """The offset table of a structure."""
    rows = [
        (f"`0x{row.offset:X}`", row.size, f"`{row.name}`", row.type, row.must_be, row.meaning)
        for row in layout.table()
    ]
    if caption is None:
        parts = [f"{layout.name}, {layout.size} bytes", layout.doc.rstrip("."), layout.source]
        caption = ". ".join(filter(None, parts))
    return Table(("offset", "bytes", "field", "type", "must be", "meaning"), rows, caption)


def record_table(record: Record, *fields: str, zero: bool = False, caption: str | None = None) -> Table:
    """Decoded values of one structure; ``fields`` picks some, ``zero`` also shows fields that are all zero."""
    layout = record.layout
    rows: list[tuple[Any, ...]] = []
    for name in fields or tuple(record):
        value, kind = record[name], layout.field(name).type
        if not fields and not zero and not _nonzero(value):
            continue
        offset = f"`0x{layout.offset_of(name):X}`"
        match kind:
            case Bits(bits=bits):
                split = ", ".join(f"{b.name}={b.get(value):#x}" for b in bits if b.get(value))
                rows.append((offset, f"`{name}`", Hex(value), split or layout.field(name).meaning))
            case Int():
                rows.append((offset, f"`{name}`", Hex(value), layout.field(name).meaning))
            case Raw():
                rows.append((offset, f"`{name}`", value, layout.field(name).meaning))
            case Array():
                shown = [i for i, v in enumerate(value) if _nonzero(v)]
                text = "; ".join([*(f"[{i}] {_element(value[i])}" for i in shown[:4]), *(["..."] if shown[4:] else [])])
                rows.append((offset, f"`{name}`", text, layout.field(name).meaning))
            case _:
                inner = ", ".join(f"{k}={_element(v)}" for k, v in value.items() if _nonzero(v))
                rows.append((offset, f"`{name}`", inner, layout.field(name).meaning))
    return Table(("offset", "field", "value", "meaning"), rows, layout.name if caption is None else caption)


def _nonzero(value: Any) -> bool:
    match value:
        case int():
            return value != 0
        case bytes() | bytearray():
            return any(value)
        case list():
            return any(_nonzero(part) for part in value)
        case Record():
            return any(_nonzero(part) for part in value.values())
        case _:
            return bool(value)


def _element(value: Any) -> str:
    if isinstance(value, int):
        return f"0x{value:X}"
    if isinstance(value, Record):
        return "{" + ", ".join(f"{k}={_element(v)}" for k, v in value.items() if _nonzero(v)) + "}"
    return plain(value)


def msr_table(*which: int | str | Msr, caption: str = "") -> Table:
    """MSRs with who may read and write them; without arguments, all that are declared."""
    rows = [
        (Hex(msr.address), f"`{msr.name}`", msr.scope.value, msr.read.value, msr.write.value, msr.meaning, msr.source)
        for msr in _msrs(which)
    ]
    return Table(("MSR", "name", "scope", "RDMSR", "WRMSR", "meaning", "source"), rows, caption)


def msr_bits(which: int | str | Msr, value: int | None = None, platform: Platform | None = None) -> Table:
    """The bit ranges of one MSR; with ``value`` also what they hold."""
    (msr,) = _msrs((which,))
    rows: list[tuple[Any, ...]] = []
    explained = any(bit.meaning for bit in msr.bits)
    for bit in sorted(msr.bits, key=lambda b: -b.high):
        span = f"{bit.high}:{bit.low}" if bit.high != bit.low else f"{bit.low}"
        holds = [Hex(bit.get(value))] if value is not None else []
        rows.append((span, f"`{bit.name}`", *holds, *([bit.meaning] if explained else [])))
    asked = platform or Platform(PlatformConfig())
    mask = msr.reserved if isinstance(msr.reserved, int) else msr.reserved(asked)
    shown = f" = `0x{value:X}`" if value is not None else ""
    fixed = f"; reserved bits `0x{mask:016X}`" if mask else ""
    caption = f"`{msr.name}` (`0x{msr.address:X}`){shown}{fixed}"
    columns = ("bits", "name", *(["holds"] if value is not None else []), *(["meaning"] if explained else []))
    return Table(columns, rows, caption)


def _msrs(which: Sequence[int | str | Msr]) -> list[Msr]:
    from seamref.arch.msr import BY_NAME, MSRS

    found: list[Msr] = []
    for one in which or DECLARED:
        if isinstance(one, Msr):
            found.append(one)
            continue
        msr = MSRS.get(one) if isinstance(one, int) else BY_NAME.get(one)
        if msr is None:
            raise SeamrefError(f"no MSR {one if isinstance(one, str) else hex(one)} is declared")
        found.append(msr)
    return found


def clause_table(*prefixes: str, anchors: bool = False, caption: str = "") -> Table:
    """Clauses whose id starts with one of ``prefixes`` (without: all), with source and who implements them."""
    ids = [id for id in sorted(CLAUSES) if not prefixes or id.startswith(prefixes)]
    rows = [
        (
            f"`{id}`" if anchors else Id(id), CLAUSES[id].says, sourced(CLAUSES[id].source, CLAUSES[id].mark),
            ", ".join(dict.fromkeys(f"`{where}`" for where in implementers(id))),
        )
        for id in ids
    ]
    places = [anchor(id) for id in ids] if anchors else ()
    return Table(("clause", "says", "source", "carried by"), rows, caption, places)


def implementers(clause_id: str) -> list[str]:
    """Where a clause is carried: function names, or the table whose row it is."""
    from seamref.spec import TABLES

    rows = [f"{name} row {i}" for name, t in TABLES.items() for i, row in enumerate(t, 1) if row.id == clause_id]
    if rows:
        return rows
    return [f"{f.__module__}.{f.__qualname__}" for f in IMPLEMENTED_BY.get(clause_id, [])]


def source_table(caption: str = "") -> Table:
    """Every public source that clauses cite."""
    rows = [(f"`{s.tag}`", s.title, s.where) for s in SOURCES.values()]
    return Table(("tag", "title", "where"), rows, caption)
