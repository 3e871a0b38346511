"""Tables of the kit: what is declared once as data, as JSON whose types a program can read.

Each table is its rows, and the fields of a row as :mod:`seamref.export.form` declares fields; schema and page follow.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, assert_never

from seamref.arch import smx
from seamref.arch.msr import DECLARED, Access, Scope
from seamref.arch.outcome import ExitReason, Vector, VmxError
from seamref.arch.seamops import SeamopsLeaf, SeamopsStatus
from seamref.arch.vmcs import FIELDS
from seamref.export.declared import import_rooms, layouts
from seamref.export.form import Count, Flag, Group, Hex, Item, ListOf, Maybe, OneOf, Text, Type, hexed
from seamref.firmware.np_seamldr.state import NpStatus
from seamref.host import abi
from seamref.layout import Array, Bit, Bits, Field, FieldType, Int, Layout, Raw
from seamref.pseamldr import api as pseamldr
from seamref.tdxmodule import core, run
from seamref.tdxmodule import status as module

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


# --- MSRs

MSR: tuple[Item, ...] = (
    Item("address", Hex(32), "ECX of RDMSR and WRMSR"), Item("name", Text(), "name"),
    Item("scope", OneOf(tuple(scope.value for scope in Scope)), "which processors share one instance"),
    Item("read", OneOf(tuple(access.value for access in Access)), "who may read it"),
    Item("write", OneOf(tuple(access.value for access in Access)), "who may write it"),
    Item("reset", Maybe(Hex()), "value before anybody writes; null where it depends on the platform"),
    Item("reserved", Hex(), "bits that WRMSR refuses, on a processor with 52 physical-address bits"),
    Item("meaning", Text(), "what it is"), Item("source", Text(), "where it is said"),
    Item("bits", ListOf(Group(BIT_RANGE)), "named bit ranges"),
)


def _msrs() -> Iterator[dict[str, Any]]:
    from seamref.arch.platform import Platform, PlatformConfig

    platform = Platform(PlatformConfig(maxpa=52))
    for msr in DECLARED:
        reserved = msr.reserved if isinstance(msr.reserved, int) else msr.reserved(platform)
        yield {"address": hexed(msr.address), "name": msr.name, "scope": msr.scope.value, "read": msr.read.value,
               "write": msr.write.value, "reset": hexed(msr.reset) if isinstance(msr.reset, int) else None,
               "reserved": hexed(reserved), "meaning": msr.meaning, "source": msr.source,
               "bits": [bit_json(bit) for bit in msr.bits]}


# --- status codes

STATUS: tuple[Item, ...] = (
    Item("component", OneOf(("P-SEAMLDR", "NP-SEAMLDR", "TDX module", "SEAMOPS", "Linux")), "who returns it"),
    Item("name", Text(), "name as the document spells it"),
    Item("value", Hex(), "the whole register; of the TDX module with details 0; of Linux what stands for an outcome "
                         "that "
         "has no status"),
    Item("register", OneOf(("RAX", "R9")), "where it is returned"),
    Item("meaning", Text(), "in words, empty where the name says it"),
    Item("since", Text(), "release of the TDX module that brought it, empty: 1.5.01"),
)


def _statuses() -> Iterator[dict[str, Any]]:
    def row(component: str, name: str, value: int, meaning: str = "", register: str = "RAX", since: str = "",
            ) -> dict[str, Any]:
        return {"component": component, "name": name, "value": hexed(value), "register": register, "meaning": meaning,
                "since": since}

    for loader in pseamldr.Status:
        kind = loader.error_class
        yield row("P-SEAMLDR", loader.name, loader, "" if kind is None else f"about {kind.meaning}")
    for status in NpStatus:
        yield row("NP-SEAMLDR", status.name, status, register="R9")
    for held in module.Status:
        yield row("TDX module", held.name, held, held.means, since=held.since)
    for leaf in SeamopsStatus:
        yield row("SEAMOPS", leaf.name, leaf)
    for name, value in (("TDX_SEAMCALL_VMFAILINVALID", abi.TDX_SEAMCALL_VMFAILINVALID),
                        ("TDX_SEAMCALL_GP", abi.TDX_SEAMCALL_GP), ("TDX_SEAMCALL_UD", abi.TDX_SEAMCALL_UD)):
        yield row("Linux", name, value, "made by software: SEAMCALL did not enter")


# --- leaves

LEAF: tuple[Item, ...] = (
    Item("component", OneOf(("P-SEAMLDR", "TDX module, host side", "TDX module, guest side", "SEAMOPS", "GETSEC")),
         "whose function it is"),
    Item("name", Text(), "name as the document spells it"), Item("number", Hex(), "RAX (GETSEC: EAX), version 0"),
    Item("meaning", Text(), "what it does, empty where the name says it"),
)


def _leaves() -> Iterator[dict[str, Any]]:
    import_rooms()

    def row(component: str, name: str, number: int, meaning: str = "") -> dict[str, Any]:
        return {"component": component, "name": name, "number": hexed(number), "meaning": meaning}

    for leaf in pseamldr.Leaf:
        yield row("P-SEAMLDR", f"SEAMLDR.{leaf.name}", leaf)
    for number, held in sorted(core.LEAVES.items()):
        yield row("TDX module, host side", held.name, number, held.says)
    for number, guest in sorted(run.GUEST_LEAVES.items()):
        yield row("TDX module, guest side", guest.name, number, guest.says)
    for ops in SeamopsLeaf:
        yield row("SEAMOPS", ops.name, ops)
    for name, getsec in (("CAPABILITIES", smx.CAPABILITIES), ("ENTERACCS", smx.ENTERACCS), ("EXITAC", smx.EXITAC),
                         ("PARAMETERS", smx.PARAMETERS)):
        yield row("GETSEC", name, getsec)


# --- VMCS fields

VMCS_FIELD: tuple[Item, ...] = (
    Item("name", Text(), "name in this kit"),
    Item("encoding", Maybe(Hex(32)), "as VMREAD takes it; null: the field has none"),
    Item("size", Count(2, 8), "bytes"),
    Item("read_only", Flag(), "VM-exit information: VMWRITE is refused"),
    Item("offset", Count(0, 4095), "bytes in the 4 KiB region, where this machine keeps it"),
    Item("offset_mark", OneOf(("measured", "chosen")), "measured: published loaders store there; chosen: nobody says"),
)


def _vmcs_fields() -> Iterator[dict[str, Any]]:
    for field in FIELDS:
        yield {"name": field.name, "encoding": None if field.encoding == 0xFFFFFFFF else hexed(field.encoding),
               "size": field.size, "read_only": field.encoding != 0xFFFFFFFF and field.read_only,
               "offset": field.offset, "offset_mark": field.mark.value}


# --- numbers of outcomes

NUMBER: tuple[Item, ...] = (
    Item("kind", OneOf(("exception vector", "exit reason", "VM-instruction error", "TXT.ERRORCODE type", "errno")),
         "what it is a number of"),
    Item("name", Text(), "name"), Item("value", Count(), "number; an errno is returned negative"),
)


def _numbers() -> Iterator[dict[str, Any]]:
    for vector in Vector:
        yield {"kind": "exception vector", "name": vector.mnemonic, "value": int(vector)}
    for reason in ExitReason:
        yield {"kind": "exit reason", "name": reason.name, "value": int(reason)}
    for error in VmxError:
        yield {"kind": "VM-instruction error", "name": error.name, "value": int(error)}
    for cause in smx.CAUSES:
        yield {"kind": "TXT.ERRORCODE type", "name": cause.mnemonic, "value": cause.code}
    for number in abi.Errno:
        if number is not abi.Errno.OK:
            yield {"kind": "errno", "name": number.name, "value": -int(number)}


TABLES: tuple[Table, ...] = (
    Table("layouts", "Structures",
          ("Every structure that processor, loaders, TDX module and host exchange.  Integers are little-endian; there "
           "are no gaps: what a document leaves free is a field of its own.",), LAYOUT, _layouts),
    Table("msrs", "MSRs", ("The MSRs of the loading chain: who may read and write each, and its bits.",), MSR, _msrs),
    Table("status-codes", "Status codes", ("What loaders, TDX module and SEAMOPS return, and the words that Linux "
                                           "puts in "
                                           "the place of an outcome without a status.",), STATUS, _statuses),
    Table("leaves", "Leaf numbers", ("Functions of P-SEAMLDR, of the TDX module as far as it is modelled, of SEAMOPS "
                                     "and "
                                     "of GETSEC.",), LEAF, _leaves),
    Table("vmcs-fields", "VMCS fields",
          ("VMCS fields by encoding.  Where in the region a field lies is the processor's matter: the offsets are "
           "those at "
           "which published loaders store into a transfer VMCS, or, where no source gives one, this machine's.",),
          VMCS_FIELD, _vmcs_fields),
    Table("numbers", "Numbers of outcomes", ("Exception vectors, exit reasons, VM-instruction errors, types of TXT "
                                             "shutdowns and errnos that occur in the sets.",), NUMBER, _numbers),
)


def table(name: str) -> Table:
    """A table by its name."""
    return next(held for held in TABLES if held.name == name)
