"""Tables of the kit: what is declared once as data, as JSON whose types a program can read.

Each table is its rows, and the fields of a row as :mod:`seamref.export.form` declares fields; schema and page follow.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, assert_never

from seamref.export.declared import layouts
from seamref.export.form import Count, Group, Hex, Item, ListOf, Maybe, OneOf, Text, Type, hexed
from seamref.layout import Array, Bit, Bits, Field, FieldType, Int, Layout, Raw

FORMAT = "seamref-table/1"


@dataclass(frozen=True)
class Table:
    """A table: its name (the file), heading, paragraphs, the fields of a row, the rows."""

    name: str
    title: str
    about: tuple[str, ...]
    row: tuple[Item, ...]
    rows: Callable[[], Iterator[Mapping[str, Any]]]


# --- layouts

BIT_RANGE: tuple[Item, ...] = (
    Item("name", Text(), "name of the range"),
    Item("high", Count(0, 63), "highest bit"),
    Item("low", Count(0, 63), "lowest bit"),
    Item("must_be", Maybe(Hex()), "the value that is demanded, null where none is"),
    Item("meaning", Text(), "what it says"),
)


def _type_items(depth: int) -> Type:
    """The type of a field: arrays hold a type again, which no structure here does more than twice."""
    items = [
        Item("kind", OneOf(("uint", "bytes", "bits", "array", "struct")),
             "uint: little-endian unsigned integer; bytes: in the order of memory; bits: integer split into ranges; "
             "array: count elements of one type; struct: another structure of this table"),
        Item("size", Count(), "bytes"),
        Item("ranges", ListOf(Group(BIT_RANGE)), "of bits", True),
        Item("count", Count(1), "of an array", True),
        Item("struct", Text(), "name of the structure", True),
    ]
    if depth:
        items.append(Item("of", _type_items(depth - 1), "type of an array's elements", True))
    return Group(tuple(items))


LAYOUT: tuple[Item, ...] = (
    Item("name", Text(), "the structure"),
    Item("size", Count(1), "bytes"),
    Item("doc", Text(), "what it is for"),
    Item("source", Text(), "where it is said, by the tags of the sources"),
    Item("fields", ListOf(Group((
        Item("name", Text(), "the field"),
        Item("offset", Count(), "bytes from the start of the structure"),
        Item("size", Count(), "bytes"),
        Item("type", _type_items(2), "its type"),
        Item("must_be", Maybe(Hex(4096)), "the value that a consumer demands (bytes: as a little-endian number), "
                                          "null where none is"),
        Item("meaning", Text(), "what it says"),
    ))), "in the order of memory, without gaps"),
)


def type_json(kind: FieldType) -> dict[str, Any]:
    """The type of a field as data."""
    match kind:
        case Int(size=size):
            return {"kind": "uint", "size": size}
        case Raw(size=size):
            return {"kind": "bytes", "size": size}
        case Bits(size=size, bits=bits):
            return {"kind": "bits", "size": size, "ranges": [bit_json(bit) for bit in bits]}
        case Array(of=of, count=count):
            return {"kind": "array", "size": kind.size, "count": count, "of": type_json(of)}
        case Layout():
            return {"kind": "struct", "size": kind.size, "struct": kind.name}
        case _ as never:
            assert_never(never)


def bit_json(bit: Bit) -> dict[str, Any]:
    """A bit range as data."""
    return {"name": bit.name, "high": bit.high, "low": bit.low,
            "must_be": None if bit.must_be is None else hexed(bit.must_be), "meaning": bit.meaning}


def _field_json(layout: Layout, field: Field) -> dict[str, Any]:
    return {"name": field.name, "offset": layout.offset_of(field.name), "size": field.type.size,
            "type": type_json(field.type), "must_be": None if field.must_be is None else hexed(field.must_be),
            "meaning": field.meaning}


def _layouts() -> Iterator[dict[str, Any]]:
    for layout in layouts().values():
        yield {"name": layout.name, "size": layout.size, "doc": layout.doc, "source": layout.source,
               "fields": [_field_json(layout, field) for field in layout.fields]}


TABLES: tuple[Table, ...] = (
    Table("layouts", "Structures",
          ("Every structure that processor, loaders, TDX module and host exchange.  Integers are little-endian; there "
           "are no gaps: what a document leaves free is a field of its own.",), LAYOUT, _layouts),
)


def table(name: str) -> Table:
    """A table by its name."""
    return next(held for held in TABLES if held.name == name)
