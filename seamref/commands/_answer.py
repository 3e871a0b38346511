"""What commands say to programs: one JSON object with a format id and the version of seamref that made it.

Numbers that a document writes in hexadecimal (registers, addresses, masks, MSRs) are strings "0x..."; counts, sizes
and offsets are numbers.  A format keeps its number while fields are only added.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from pathlib import PurePath
from typing import Any


def add_json(parser: argparse.ArgumentParser) -> None:
    """Declare ``--json``."""
    parser.add_argument("--json", action="store_true", help="as JSON, with a format id and the version of seamref")


def hexed(value: int | None) -> str | None:
    """A register, address or mask as JSON holds it."""
    return None if value is None else f"0x{value:X}"


def plain(value: Any) -> Any:
    """A value as JSON holds it: records as objects, enumerations by name, bytes as hex digits, the rest as text."""
    match value:
        case None | bool() | str() | float():
            return value
        case Enum():
            return value.name
        case int():
            return int(value)
        case bytes() | bytearray() | memoryview():
            return bytes(value).hex()
        case Mapping():
            return {str(plain(key)): plain(held) for key, held in value.items()}
        case list() | tuple():
            return [plain(held) for held in value]
        case set() | frozenset():
            return sorted(plain(held) for held in value)
        case PurePath():
            return value.as_posix()
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    return str(value)


def format_id(kind: str, version: int = 1) -> str:
    """The id of a format: ``seamref-KIND/VERSION``."""
    return f"seamref-{kind}/{version}"


def envelope(kind: str, body: Mapping[str, Any], version: int = 1) -> dict[str, Any]:
    """A whole answer."""
    from seamref import __version__

    return {"format": format_id(kind, version), "seamref": __version__, **plain(body)}


def print_json(kind: str, body: Mapping[str, Any], version: int = 1) -> None:
    """Print a whole answer; lone surrogates of file names stay escaped."""
    print(json.dumps(envelope(kind, body, version), indent=1))


class Rows:
    """An answer that is a list: lines as they come for a reader, one JSON object in the end for a program."""

    def __init__(self, args: argparse.Namespace, kind: str, name: str = "rows") -> None:
        self.json: bool = args.json
        self.kind, self.name = kind, name
        self.rows: list[dict[str, Any]] = []

    def say(self, line: str) -> None:
        """A line for a reader only."""
        if not self.json:
            print(line)

    def add(self, line: str, **fields: Any) -> None:
        """One element: its line, and its fields."""
        if self.json:
            self.rows.append(fields)
        else:
            print(line)

    def end(self, code: int = 0, **more: Any) -> int:
        """Everything was said; ``more`` are fields beside the list.  Gives the exit code."""
        if self.json:
            print_json(self.kind, {**more, self.name: self.rows})
        return code
