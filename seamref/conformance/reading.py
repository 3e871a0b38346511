"""Vector files, and strict readers of their values.

A reader takes a value and its path (``cases[3].steps[1].lp``) and returns it typed, or raises a :class:`FormatError`
that names the path and what was there.  Nothing is masked, defaulted or guessed: a number is a JSON integer or a
string ``"0x..."``, within its range; a key that the format does not know is an error; so is a key that stands twice.

Sizes are bounded before memory is taken: of a file, of what a gzip file expands to, of a count before it is a list.
"""

from __future__ import annotations

import json
import re
import sys
import zlib
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

from seamref.errors import SeamrefError

FILE_LIMIT = 64 << 20
"""Bytes of a vector file as it lies on the disk."""
TEXT_LIMIT = 128 << 20
"""Bytes of JSON text, after a gzip file was expanded."""
DEPTH_LIMIT = 64
M64 = (1 << 64) - 1
_CHUNK = 1 << 20
_NUMBER = re.compile(r"0x[0-9a-fA-F]+\Z")
_HEX = re.compile(r"(?:[0-9a-fA-F]{2})*\Z")


class FormatError(SeamrefError):
    """A value that is not of the format: ``path`` names it (empty: the document itself), ``problem`` says why."""

    def __init__(self, path: str, problem: str) -> None:
        self.path = path
        self.problem = problem
        super().__init__(f"{path}: {problem}" if path else problem)


def shown(value: Any, limit: int = 60) -> str:
    """A value of a document in one short line of printable characters."""
    if isinstance(value, bool) or value is None:
        return json.dumps(value)
    if isinstance(value, int):
        text = hex(value) if abs(value) > 9 else str(value)
    elif isinstance(value, str):
        text = json.dumps(value[: limit + 1])
    elif isinstance(value, dict):
        text = f"an object of {len(value)} keys"
    elif isinstance(value, list | tuple):
        text = f"a list of {len(value)}"
    else:
        text = repr(value)
    return text if len(text) <= limit else text[:limit] + "..."


# --- files


def vector_files(path: Path) -> list[Path]:
    """The file itself; of a folder, every .json and .json.gz file in it and below, by name."""
    if str(path) == "-" or not path.is_dir():
        return [path]
    return sorted(file for file in path.rglob("*") if file.name.endswith((".json", ".json.gz")) and file.is_file())


def read_document(path: Path) -> dict[str, Any]:
    """The object in a file, plain or gzipped; ``-`` is the standard input.  Raises :class:`FormatError`."""
    try:
        if str(path) == "-":
            return parse_document(_read_bounded(sys.stdin.buffer))
        with path.open("rb") as file:
            return parse_document(_read_bounded(file))
    except OSError as error:
        raise FormatError("", error.strerror or str(error)) from None


def _read_bounded(file: BinaryIO) -> bytes:
    """What a file holds; one that cannot be a vector file is not read to its end."""
    data = file.read(_CHUNK)
    if data[:2] != b"\x1f\x8b" and data.lstrip()[:1] not in (b"{", b"\xef", b""):
        raise FormatError("", "not a JSON object, plain or gzipped")
    parts = [data]
    size = len(data)
    while data:
        if size > FILE_LIMIT:
            raise FormatError("", f"more than {FILE_LIMIT >> 20} MiB")
        data = file.read(_CHUNK)
        parts.append(data)
        size += len(data)
    return b"".join(parts)


def expand(data: bytes) -> bytes:
    """A gzip file's content, at most TEXT_LIMIT bytes of it."""
    out, size = [], 0
    while data:
        member = zlib.decompressobj(wbits=31)
        try:
            while not member.eof:
                part = member.decompress(data, _CHUNK)
                data = member.unconsumed_tail
                if not part and not data and not member.eof:
                    raise FormatError("", "the gzip file is cut off")
                size += len(part)
                if size > TEXT_LIMIT:
                    raise FormatError("", f"the gzip file expands to more than {TEXT_LIMIT >> 20} MiB")
                out.append(part)
        except zlib.error as error:
            raise FormatError("", f"a broken gzip file: {error}") from None
        data = member.unused_data
    return b"".join(out)


class _Twice(Exception):
    """A key stands twice in one object."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                raise _Twice(name)
            seen.add(name)
    return made


def _constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is no JSON number")


def parse_document(data: bytes) -> dict[str, Any]:
    """The JSON object that bytes hold, plain or gzipped; a key that stands twice in an object is an error."""
    if data[:2] == b"\x1f\x8b":
        data = expand(data)
    if len(data) > TEXT_LIMIT:
        raise FormatError("", f"more than {TEXT_LIMIT >> 20} MiB of text")
    try:
        text = data.decode("utf-8")
        document = json.loads(text, object_pairs_hook=_object, parse_constant=_constant)
    except _Twice as twice:
        raise FormatError("", f"the key {shown(str(twice))} stands twice in one object") from None
    except UnicodeDecodeError as error:
        raise FormatError("", f"not UTF-8 at byte {error.start}") from None
    except RecursionError:
        raise FormatError("", "nested too deep") from None
    except ValueError as error:  # JSONDecodeError, and integers of more digits than Python reads
        raise FormatError("", f"not JSON: {error}") from None
    if not isinstance(document, dict):
        raise FormatError("", f"{shown(document)}, must be an object")
    return document


# --- strict readers


def mapping(value: Any, path: str, required: Collection[str] = (), optional: Collection[str] = ()) -> dict[str, Any]:
    """An object with every required key, and no key but those and the optional ones."""
    if not isinstance(value, dict):
        raise FormatError(path, f"{shown(value)}, must be an object")
    for name in required:
        if name not in value:
            raise FormatError(path, f"{name} is missing")
    if len(value) > len(required):
        for name in value:
            if name not in required and name not in optional:
                raise FormatError(path, f"the format knows no key {shown(name)} here")
    return value


def any_mapping(value: Any, path: str) -> dict[str, Any]:
    """An object with keys of its own."""
    if not isinstance(value, dict):
        raise FormatError(path, f"{shown(value)}, must be an object")
    return value


def array(value: Any, path: str, least: int = 0, most: int | None = None) -> list[Any]:
    """A list of ``least`` to ``most`` elements."""
    if not isinstance(value, list):
        raise FormatError(path, f"{shown(value)}, must be a list")
    if len(value) < least or (most is not None and len(value) > most):
        wanted = f"{least}" if least == most else f"{least} or more" if most is None else f"{least} to {most}"
        raise FormatError(path, f"{len(value)} elements, must be {wanted}")
    return value


def elements(value: Any, path: str, least: int = 0, most: int | None = None) -> Iterator[tuple[str, Any]]:
    """Path and value of each element of a list."""
    return ((f"{path}[{index}]", inner) for index, inner in enumerate(array(value, path, least, most)))


def integer(value: Any, path: str, least: int = 0, most: int = M64) -> int:
    """A number: a JSON integer or ``"0x..."``, from ``least`` to ``most``."""
    if type(value) is int:
        if least <= value <= most:
            return value
    elif isinstance(value, str):
        if not _NUMBER.match(value):
            raise FormatError(path, f'{shown(value)}, must be a number or "0x..."')
        value = int(value, 16)
    elif isinstance(value, bool) or not isinstance(value, int):
        raise FormatError(path, f'{shown(value)}, must be a number or "0x..."')
    if not least <= value <= most:
        raise FormatError(path, f"{shown(value)}, must be {shown(least)} to {shown(most)}")
    return int(value)


def u64(value: Any, path: str) -> int:
    """A number of 64 bits."""
    return integer(value, path)


def u32(value: Any, path: str) -> int:
    """A number of 32 bits."""
    return integer(value, path, 0, (1 << 32) - 1)


def u16(value: Any, path: str) -> int:
    """A number of 16 bits."""
    return integer(value, path, 0, (1 << 16) - 1)


def u8(value: Any, path: str) -> int:
    """A number of 8 bits."""
    return integer(value, path, 0, 255)


def bit(value: Any, path: str) -> int:
    """0 or 1."""
    return integer(value, path, 0, 1)


def flag(value: Any, path: str) -> bool:
    """true or false."""
    if not isinstance(value, bool):
        raise FormatError(path, f"{shown(value)}, must be true or false")
    return value


def text(value: Any, path: str, most: int | None = None) -> str:
    """A string."""
    if not isinstance(value, str):
        raise FormatError(path, f"{shown(value)}, must be a text")
    if most is not None and len(value) > most:
        raise FormatError(path, f"a text of {len(value)} characters, must be at most {most}")
    return value


def one_of(value: Any, path: str, allowed: Collection[Any]) -> Any:
    """One of a few values."""
    if not any(type(value) is type(item) and value == item for item in allowed):
        raise FormatError(path, f"{shown(value)}, must be one of {', '.join(map(shown, allowed))}")
    return value


def hex_bytes(value: Any, path: str, size: int | None = None, most: int | None = None) -> bytes:
    """Bytes in memory order, two hexadecimal digits each: exactly ``size``, or at most ``most``."""
    if not isinstance(value, str) or not _HEX.match(value):
        raise FormatError(path, f"{shown(value)}, must be bytes in hexadecimal, two digits each")
    if size is not None and len(value) != 2 * size:
        raise FormatError(path, f"{len(value) // 2} bytes, must be {size}")
    if most is not None and len(value) > 2 * most:
        raise FormatError(path, f"{len(value) // 2} bytes, must be at most {most}")
    return bytes.fromhex(value)


def digest(value: Any, path: str, bits: int = 256) -> str:
    """A digest of ``bits`` bits in hexadecimal, as text in lower case."""
    return hex_bytes(value, path, bits // 8).hex()


def numbers(value: Any, path: str, count: int | None = None, most: int | None = None) -> list[int]:
    """A list of numbers of 64 bits: exactly ``count``, or at most ``most``."""
    least = 0 if count is None else count
    return [integer(inner, where) for where, inner in elements(value, path, least, most if count is None else count)]


def hex_key(name: str, path: str, most: int = M64) -> int:
    """A number that is the key of an object: ``"0x..."`` or decimal digits."""
    if name.isascii() and name.isdigit() and len(name) <= 20:
        return integer(int(name), path, 0, most)
    return integer(name, path, 0, most)


def fields(value: Any, path: str, known: Collection[str], most: int = M64) -> dict[str, int]:
    """An object of numbers under known names."""
    return {name: integer(inner, f"{path}.{name}", 0, most)
            for name, inner in mapping(value, path, (), known).items()}
