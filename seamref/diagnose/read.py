"""Lines of files and of standard input, whatever they hold: bounded in memory, never an encoding error.

A line longer than :data:`LIMIT` is cut, its rest is skipped.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from seamref.errors import SeamrefError

LIMIT = 1 << 14
"""Bytes of one line."""
MOST = 1 << 30
"""Bytes of one log: what never ends is refused."""


def lines_of(stream: IO[bytes], name: str = "standard input") -> Iterator[str]:
    """Lines of a binary stream, without their ends; bytes that are no UTF-8 become U+FFFD."""
    total = 0
    while line := stream.readline(LIMIT):
        yield line.decode("utf-8", "replace").rstrip("\r\n")
        total += len(line)
        while len(line) == LIMIT and not line.endswith(b"\n"):
            line = stream.readline(LIMIT)
            total += len(line)
            if total > MOST:
                break
        if total > MOST:
            raise SeamrefError(f"{name}: more than {MOST >> 20} MiB, which no log has")


def file_lines(path: Path) -> Iterator[str]:
    """Lines of a file."""
    with path.open("rb") as stream:
        yield from lines_of(stream, str(path))


def stdin_lines() -> Iterator[str]:
    """Lines of standard input; one that is closed is an error that says so."""
    stream = sys.stdin
    if stream is None or getattr(stream, "closed", False):
        raise SeamrefError("standard input is closed")
    binary = getattr(stream, "buffer", None)
    if binary is None:
        return iter(line.rstrip("\r\n") for line in io.StringIO(stream.read()))
    return lines_of(binary)
