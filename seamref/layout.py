"""Binary layouts, declared once.

A :class:`Layout` lists fields the way a document prints them: name, type, offset, required value, meaning.
From that one declaration come the decoder, the encoder, the offset table of the book, JSON, and error texts
that name structure, field, offset and value.  A stated offset that disagrees with the computed one fails when
the declaration is imported.

All integers are little-endian; offsets and sizes are bytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from struct import Struct
from typing import Any, TypeAlias

from seamref.errors import LayoutError, SeamrefError

Buffer: TypeAlias = bytes | bytearray | memoryview


@dataclass(frozen=True, slots=True)
class Int:
    """An unsigned integer of ``size`` bytes (1, 2, 4 or 8)."""

    size: int

    @property
    def name(self) -> str:
        return f"u{self.size * 8}"


@dataclass(frozen=True, slots=True)
class Raw:
    """``size`` bytes in memory order; ``number`` says they are a little-endian number when shown."""

    size: int
    number: bool = False

    @property
    def name(self) -> str:
        return f"{self.size} bytes"


@dataclass(frozen=True, slots=True)
class Array:
    """``count`` elements of one type, consecutive."""

    of: FieldType
    count: int

    @property
    def size(self) -> int:
        return self.of.size * self.count

    @property
    def name(self) -> str:
        return f"{self.of.name}[{self.count}]"


@dataclass(frozen=True, slots=True)
class Bit:
    """A named bit range ``high:low`` inside an integer field."""

    name: str
    high: int
    low: int
    meaning: str = ""
    must_be: int | None = None

    @property
    def mask(self) -> int:
        """The bits of this range, in place."""
        return ((1 << (self.high - self.low + 1)) - 1) << self.low

    def get(self, value: int) -> int:
        """This range of ``value``, shifted down."""
        return (value & self.mask) >> self.low

    def put(self, value: int, part: int) -> int:
        """``value`` with this range replaced by ``part``."""
        return (value & ~self.mask) | ((part << self.low) & self.mask)


@dataclass(frozen=True, slots=True)
class Bits:
    """An integer of ``size`` bytes that documents split into named bit ranges."""

    size: int
    bits: tuple[Bit, ...]

    @property
    def name(self) -> str:
        return f"u{self.size * 8}"

    def __post_init__(self) -> None:
        seen = 0
        for bit in self.bits:
            if bit.high >= self.size * 8 or bit.low > bit.high or seen & bit.mask:
                raise SeamrefError(f"bit range {bit.name} {bit.high}:{bit.low} overlaps or leaves the integer")
            seen |= bit.mask

    def bit(self, name: str) -> Bit:
        """The named range."""
        for bit in self.bits:
            if bit.name == name:
                return bit
        raise SeamrefError(f"no bit range {name!r}")


FieldType: TypeAlias = "Int | Raw | Array | Bits | Layout"

u8, u16, u32, u64 = Int(1), Int(2), Int(4), Int(8)


@dataclass(frozen=True, slots=True)
class Field:
    """One row of a structure.

    ``must_be``  the required value (an integer; for bytes and reserved areas 0 means all zero), or ``None``
    ``offset``   as the document prints it; ``None`` means "follows the previous field"
    """

    name: str
    type: FieldType
    meaning: str = ""
    offset: int | None = None
    must_be: int | None = None
    source: str = ""


def reserved(name: str, size: int, offset: int | None = None, meaning: str = "reserved", checked: bool = True) -> Field:
    """A reserved area; ``checked`` says that a consumer demands zero."""
    return Field(name, Raw(size), meaning, offset, 0 if checked else None)


@dataclass(frozen=True, slots=True)
class Row:
    """A row of the offset table that the book prints."""

    offset: int
    size: int
    name: str
    type: str
    must_be: str
    meaning: str


@dataclass(frozen=True, slots=True)
class Problem:
    """A field that is not what it must be."""

    structure: str
    field: str
    offset: int
    value: str
    demand: str

    def __str__(self) -> str:
        return f"{self.structure}.{self.field} at 0x{self.offset:X}: {self.value}, {self.demand}"


class Record(Mapping[str, Any]):
    """Decoded values of one structure, in layout order; read as attributes or keys, changed by attribute."""

    __slots__ = ("_layout", "_values")
    _layout: Layout
    _values: dict[str, Any]

    def __init__(self, layout: Layout, values: dict[str, Any]) -> None:
        object.__setattr__(self, "_layout", layout)
        object.__setattr__(self, "_values", values)

    @property
    def layout(self) -> Layout:
        """The declaration these values follow."""
        return self._layout

    def __getattr__(self, name: str) -> Any:
        try:
            return self._values[name]
        except KeyError:
            raise AttributeError(f"{self._layout.name} has no field {name!r}") from None

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in self._values:
            raise AttributeError(f"{self._layout.name} has no field {name!r}")
        self._values[name] = value

    def __getitem__(self, name: str) -> Any:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Record):
            return self._layout.name == other._layout.name and self._values == other._values
        return NotImplemented

    __hash__ = None  # type: ignore[assignment]

    def __reduce__(self) -> tuple[Any, ...]:
        return (Record, (self._layout, self._values))

    def __deepcopy__(self, memo: dict[int, Any]) -> Record:
        return self._layout.decode(self.encode())

    def __repr__(self) -> str:
        return f"{self._layout.name}({', '.join(f'{k}={_shown(v)}' for k, v in self._values.items())})"

    def encode(self) -> bytes:
        """The bytes of this record."""
        return self._layout.encode(self._values)

    def to_json(self) -> dict[str, Any]:
        """Plain data: integers as ``0x`` strings, bytes as hex, nested records as objects."""
        return {name: _plain(value) for name, value in self._values.items()}


class Layout:
    """A structure: ``name``, fields in order, total ``size`` in bytes, ``source`` and what it is for."""

    __slots__ = ("_by_name", "_resolved", "_where", "doc", "fields", "name", "size", "source")

    def __init__(self, name: str, fields: Sequence[Field], *, size: int, source: str = "", doc: str = "") -> None:
        self.name = name
        self.fields = tuple(fields)
        self.size = size
        self.source = source
        self.doc = doc
        self._where: dict[str, int] = {}
        self._by_name: dict[str, Field] = {}
        self._resolved: dict[str, tuple[FieldType, int]] = {}
        at = 0
        for field in self.fields:
            if field.offset is not None and field.offset != at:
                raise LayoutError(name, field.name, at, f"stated offset 0x{field.offset:X}, computed 0x{at:X}")
            if field.name in self._where:
                raise LayoutError(name, field.name, at, "declared twice")
            self._where[field.name] = at
            self._by_name[field.name] = field
            at += field.type.size
        if at != size:
            raise LayoutError(name, self.fields[-1].name, at, f"fields end at 0x{at:X}, stated size is 0x{size:X}")

    def __repr__(self) -> str:
        return f"Layout({self.name}, {self.size} bytes)"

    def __reduce__(self) -> tuple[Any, ...]:
        return (_rebuild, (self.name, self.fields, self.size, self.source, self.doc))

    # --- looking things up

    def resolve(self, path: str) -> tuple[FieldType, int]:
        """Type and offset of ``a``, ``a.b``, ``a[3]`` or ``a[3].b``.

        An index outside a declared array, or an unknown name, is a :class:`SeamrefError` that names it.
        """
        found = self._resolved.get(path)
        if found is None:
            found = self._resolved[path] = self._resolve(path)
        return found

    def _resolve(self, path: str) -> tuple[FieldType, int]:
        head, _, rest = path.partition(".")
        head, _, index = head.partition("[")
        if head not in self._where:
            raise SeamrefError(f"{self.name} has no field {head!r}")
        kind, at = self._by_name[head].type, self._where[head]
        if index:
            if not isinstance(kind, Array) or not 0 <= int(index[:-1]) < kind.count:
                raise SeamrefError(f"{self.name}.{head} has no element {index[:-1]}")
            at += int(index[:-1]) * kind.of.size
            kind = kind.of
        if rest:
            if not isinstance(kind, Layout):
                raise SeamrefError(f"{self.name}.{head} has no parts")
            kind, inner = kind.resolve(rest)
            at += inner
        return kind, at

    def offset_of(self, path: str) -> int:
        """Byte offset of a field (see :meth:`resolve` for the path)."""
        return self.resolve(path)[1]

    def field(self, name: str) -> Field:
        """The declaration of a top-level field."""
        if name not in self._by_name:
            raise SeamrefError(f"{self.name} has no field {name!r}")
        return self._by_name[name]

    def end_of(self, path: str) -> int:
        """First byte after a field."""
        kind, at = self.resolve(path)
        return at + kind.size

    # --- single fields of a buffer

    def span(self, path: str, last: str = "", base: int = 0) -> slice:
        """Where a field lies (or a run of fields, up to and with ``last``) in bytes that start at ``base``."""
        return slice(base + self.offset_of(path), base + self.end_of(last or path))

    def peek(self, data: Buffer, path: str, base: int = 0) -> Any:
        """One field of the structure that starts at ``data[base]``."""
        kind, at = self.resolve(path)
        self._need(data, base, path, at, kind.size)
        return _decode(kind, data, base + at)

    def poke(self, data: bytearray, path: str, value: Any, base: int = 0) -> None:
        """Replace one field in place."""
        kind, at = self.resolve(path)
        self._need(data, base, path, at, kind.size)
        data[base + at : base + at + kind.size] = _encode(kind, value, self.name, path, at)

    def _need(self, data: Buffer, base: int, name: str, at: int, size: int) -> None:
        left = len(data) - base - at
        if left < size:
            raise LayoutError(self.name, name, at, f"needs {size} bytes, {max(left, 0)} left")

    # --- whole structures

    def decode(self, data: Buffer, base: int = 0) -> Record:
        """Decode ``size`` bytes at ``base``.

        Too few bytes: :class:`LayoutError` that names the first field that is cut.  Values are not judged
        here: what a field must be is asked with :meth:`problems`, because who refuses it, and with which
        status, is the architecture's matter.
        """
        values: dict[str, Any] = {}
        for field in self.fields:
            at = self._where[field.name]
            self._need(data, base, field.name, at, field.type.size)
            values[field.name] = _decode(field.type, data, base + at)
        return Record(self, values)

    def new(self, **values: Any) -> Record:
        """A record with every field at its required value, else zero, overridden by ``values``."""
        record = self.decode(bytes(self.size))
        for field in self.fields:
            if field.must_be and not isinstance(field.type, Array | Layout | Raw):
                record._values[field.name] = field.must_be
        for name, value in values.items():
            if name not in self._where:
                raise SeamrefError(f"{self.name} has no field {name!r}")
            record._values[name] = value
        return record

    def encode(self, values: Mapping[str, Any]) -> bytes:
        """The bytes of ``values``; a missing field is zero, a value that does not fit a :class:`LayoutError`."""
        for name in values:
            if name not in self._where:
                raise SeamrefError(f"{self.name} has no field {name!r}")
        out = bytearray(self.size)
        for field in self.fields:
            if field.name in values:
                at = self._where[field.name]
                out[at : at + field.type.size] = _encode(field.type, values[field.name], self.name, field.name, at)
        return bytes(out)

    def problems(self, data: Buffer, base: int = 0) -> list[Problem]:
        """Fields whose value is not what the declaration says it must be, in order of offset."""
        found: list[Problem] = []
        for field in self.fields:
            at = self._where[field.name]
            self._need(data, base, field.name, at, field.type.size)
            value = _decode(field.type, data, base + at)
            if field.must_be is not None and not _is(value, field.must_be):
                found.append(Problem(self.name, field.name, at, _shown(value), f"must be {_demand(field)}"))
            if isinstance(field.type, Bits):
                found += [
                    Problem(self.name, f"{field.name}.{bit.name}", at, hex(bit.get(value)), f"must be {bit.must_be}")
                    for bit in field.type.bits
                    if bit.must_be is not None and bit.get(value) != bit.must_be
                ]
            if isinstance(field.type, Layout):
                found += [
                    Problem(self.name, f"{field.name}.{p.field}", at + p.offset, p.value, p.demand)
                    for p in field.type.problems(data, base + at)
                ]
        return found

    def table(self) -> list[Row]:
        """The offset table, one row for each field, bit ranges below their integer."""
        rows: list[Row] = []
        for field in self.fields:
            at = self._where[field.name]
            must = "" if field.must_be is None else _demand(field)
            rows.append(Row(at, field.type.size, field.name, field.type.name, must, field.meaning))
            if isinstance(field.type, Bits):
                for bit in field.type.bits:
                    span = f"{bit.high}:{bit.low}" if bit.high != bit.low else f"{bit.low}"
                    must = "" if bit.must_be is None else str(bit.must_be)
                    rows.append(Row(at, field.type.size, f"{field.name}.{bit.name}", f"bit {span}", must, bit.meaning))
        return rows


def _rebuild(name: str, fields: tuple[Field, ...], size: int, source: str, doc: str) -> Layout:
    return Layout(name, fields, size=size, source=source, doc=doc)


_INT = {1: Struct("<B"), 2: Struct("<H"), 4: Struct("<I"), 8: Struct("<Q")}


def _decode(kind: FieldType, data: Buffer, at: int) -> Any:
    match kind:
        case Int(size=size) | Bits(size=size):
            return _INT[size].unpack_from(data, at)[0]
        case Raw(size=size):
            return bytes(data[at : at + size])
        case Array(of=of, count=count):
            if isinstance(of, Int):
                return list(Struct(f"<{count}{'BHIQ'[of.size.bit_length() - 1]}").unpack_from(data, at))
            return [_decode(of, data, at + i * of.size) for i in range(count)]
        case _:
            return kind.decode(data, at)


def _encode(kind: FieldType, value: Any, structure: str, name: str, at: int) -> bytes:
    match kind:
        case Int(size=size) | Bits(size=size):
            if not isinstance(value, int) or not 0 <= value < 1 << (8 * size):
                raise LayoutError(structure, name, at, f"{_shown(value)} does not fit in {8 * size} bits")
            return value.to_bytes(size, "little")
        case Raw(size=size):
            if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << (8 * size):
                return value.to_bytes(size, "little")
            if not isinstance(value, bytes | bytearray | memoryview) or len(value) != size:
                raise LayoutError(structure, name, at, f"{_shown(value)} is not {size} bytes")
            return bytes(value)
        case Array(of=of, count=count):
            if len(value) > count:
                raise LayoutError(structure, name, at, f"{len(value)} elements, room for {count}")
            parts = [_encode(of, v, structure, f"{name}[{i}]", at + i * of.size) for i, v in enumerate(value)]
            return b"".join(parts).ljust(kind.size, b"\0")
        case _:
            return kind.encode(value) if not isinstance(value, bytes) else _whole(kind, value, structure, name, at)


def _whole(kind: Layout, value: bytes, structure: str, name: str, at: int) -> bytes:
    if len(value) != kind.size:
        raise LayoutError(structure, name, at, f"{len(value)} bytes, {kind.name} has {kind.size}")
    return value


def _is(value: Any, demand: int) -> bool:
    if isinstance(value, bytes):
        return int.from_bytes(value, "little") == demand
    if isinstance(value, list):
        return all(_is(v, demand) for v in value)
    return bool(value == demand)


def _demand(field: Field) -> str:
    if field.must_be == 0:
        return "0"
    return f"0x{field.must_be:X}"


def _shown(value: Any) -> str:
    if isinstance(value, int):
        return f"0x{value:X}"
    if isinstance(value, bytes | bytearray):
        text = bytes(value[:16]).hex()
        return "all zero" if not any(value) else f"{text}{'...' if len(value) > 16 else ''}"
    return repr(value)


def _plain(value: Any) -> Any:
    match value:
        case int():
            return hex(value)
        case bytes() | bytearray():
            return value.hex()
        case list():
            return [_plain(v) for v in value]
        case Record():
            return value.to_json()
        case _:
            return value
