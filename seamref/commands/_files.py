"""Files that commands read and write: sized before they are read, written whole or not at all.

``-`` is standard input and standard output.  Everything that goes wrong is a SeamrefError that names the file.
"""

from __future__ import annotations

import os
import stat
import sys
import tempfile
import zlib
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from seamref.errors import SeamrefError

LIMIT = 64 << 20
"""Bytes of one input.  The largest thing that anybody loads is SEAMRR's module range, and images are below 1 MiB."""
STDIO = "-"


def named(path: str | os.PathLike[str]) -> str:
    """A file's name as a message may show it: control characters and undecodable bytes escaped."""
    text = os.fspath(path)
    return "".join(c if c.isprintable() else c.encode("utf-8", "surrogateescape").hex(" ").join("<>") for c in text)


def size_text(size: int) -> str:
    """A size for a message."""
    return f"{size >> 20} MiB" if size >= 1 << 20 and not size & (1 << 20) - 1 else f"{size} bytes"


def read(path: str | os.PathLike[str], *, limit: int = LIMIT) -> bytes:
    """All bytes of a file, or of standard input for ``-``; a file of more than ``limit`` bytes is refused unread."""
    text = os.fspath(path)
    if text == STDIO:
        return _bounded(_stdin(), "standard input", limit)
    try:
        with open(text, "rb") as file:
            found = os.fstat(file.fileno())
            if stat.S_ISREG(found.st_mode) and found.st_size > limit:
                raise SeamrefError(f"{named(text)}: {found.st_size} bytes, at most {size_text(limit)} are read")
            return _bounded(file, named(text), limit)
    except OSError as error:
        raise SeamrefError(f"{named(text)}: {error.strerror or error}") from None
    except ValueError as error:
        if isinstance(error, SeamrefError):
            raise
        raise SeamrefError(f"{named(text)}: no file can have this name") from None


def read_text(path: str | os.PathLike[str], *, limit: int = LIMIT) -> str:
    """The same as UTF-8 text; bytes that are no UTF-8 are refused with their offset."""
    data = read(path, limit=limit)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        where = "standard input" if os.fspath(path) == STDIO else named(path)
        raise SeamrefError(f"{where}: byte 0x{data[error.start]:02X} at offset {error.start} is no UTF-8") from None


def expand(data: bytes, what: str, *, limit: int = LIMIT) -> bytes:
    """gzip data expanded, every member; more than ``limit`` bytes are refused, and never held."""
    out: list[bytes] = []
    left, rest = limit, data
    while rest:
        member = zlib.decompressobj(31)
        try:
            made = member.decompress(rest, left + 1)
        except zlib.error as error:
            raise SeamrefError(f"{what}: not gzip ({error})") from None
        if len(made) > left:
            raise SeamrefError(f"{what}: expands to more than {size_text(limit)}")
        if not member.eof:
            raise SeamrefError(f"{what}: the gzip data end in the middle")
        out.append(made)
        left -= len(made)
        rest = member.unused_data.lstrip(b"\0")
    return b"".join(out)


def _stdin() -> BinaryIO:
    if sys.stdin is None or sys.stdin.closed:
        raise SeamrefError("standard input is closed")
    return sys.stdin.buffer


def _bounded(file: BinaryIO, name: str, limit: int) -> bytes:
    parts: list[bytes] = []
    left = limit + 1
    while left:
        part = file.read(min(left, 1 << 20))
        if not part:
            return b"".join(parts)
        parts.append(part)
        left -= len(part)
    raise SeamrefError(f"{name}: more than {size_text(limit)}")


# --- writing


def write(path: str, data: bytes, *, force: bool = False, inputs: Iterable[str] = ()) -> None:
    """Write one file whole or not at all; see :func:`write_all`."""
    write_all([(path, data)], force=force, inputs=inputs)


def write_all(outputs: Sequence[tuple[str, bytes]], *, force: bool = False, inputs: Iterable[str] = ()) -> None:
    """Write files, all of them whole or none of them at all.

    Each is written beside its place under another name, flushed to the disk, and given its name last; whatever goes
    wrong before leaves what was there.  Refused: an output that is one of the ``inputs``, two outputs that are one
    file, and without ``force`` an output that is there already.  ``-`` is standard output; what is no regular file (a
    terminal, a pipe) is written directly.
    """
    _check(outputs, force, list(inputs))
    made: list[tuple[str, str]] = []
    try:
        for path, data in outputs:
            if _direct(path):
                _write_direct(path, data)
            else:
                made.append((_beside(path, data), os.path.realpath(path)))
        while made:
            held, place = made[0]
            _name(held, place, force)
            made.pop(0)
    finally:
        for held, _ in made:
            with suppress(OSError):
                os.unlink(held)


def _check(outputs: Sequence[tuple[str, bytes]], force: bool, inputs: list[str]) -> None:
    seen: dict[str, str] = {}
    for path, _ in outputs:
        real = STDIO if path == STDIO else os.path.realpath(path)
        if real in seen or any(_same(path, other) for other in seen.values()):
            raise SeamrefError(f"{named(path)}: named for two outputs")
        seen[real] = path
        if path == STDIO or _direct(path):
            continue
        if any(_same(path, given) for given in inputs):
            raise SeamrefError(f"{named(path)}: is an input, and would be overwritten")
        if os.path.isdir(path):
            raise SeamrefError(f"{named(path)}: Is a directory")
        if os.path.lexists(path) and not force:
            raise SeamrefError(f"{named(path)}: exists already (--force replaces it)")


def _same(one: str, other: str) -> bool:
    if STDIO in (one, other):
        return False
    try:
        return os.path.samefile(one, other)
    except OSError:
        return os.path.realpath(one) == os.path.realpath(other)


def _direct(path: str) -> bool:
    """Whether this is written as it is: standard output, a device, a pipe."""
    if path == STDIO:
        return True
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def _write_direct(path: str, data: bytes) -> None:
    try:
        if path == STDIO:
            sys.stdout.flush()
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()
            return
        with open(path, "wb") as file:
            file.write(data)
    except BrokenPipeError:
        raise
    except OSError as error:
        shown = "standard output" if path == STDIO else named(path)
        raise SeamrefError(f"{shown}: {error.strerror or error}") from None


def _beside(path: str, data: bytes) -> str:
    """The data in a new file in the same folder, on the disk; its name."""
    place = Path(os.path.realpath(path))
    held = ""
    try:
        number, held = tempfile.mkstemp(prefix=f".{place.name[:40]}.", suffix=".part", dir=place.parent)
        with os.fdopen(number, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(held, _mode(place))
    except BaseException as error:
        if held:
            with suppress(OSError):
                os.unlink(held)
        if not isinstance(error, OSError | ValueError):
            raise
        said = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise SeamrefError(f"{named(path)}: {said}") from None
    return held


def _mode(place: Path) -> int:
    """What a new file gets, or the one that is replaced had."""
    with suppress(OSError):
        return stat.S_IMODE(place.stat().st_mode)
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask


def _name(held: str, place: str, force: bool) -> None:
    """Give a finished file its name; without ``force`` not the name of one that somebody else has made meanwhile."""
    try:
        if force or not hasattr(os, "link"):
            os.replace(held, place)
        else:
            try:
                os.link(held, place)
            except FileExistsError:
                raise SeamrefError(f"{named(place)}: exists already (--force replaces it)") from None
            except OSError:  # a file system without links
                if os.path.lexists(place):
                    raise SeamrefError(f"{named(place)}: exists already (--force replaces it)") from None
                os.replace(held, place)
            else:
                os.unlink(held)
        if hasattr(os, "O_DIRECTORY"):
            folder = os.open(os.path.dirname(place) or ".", os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
    except OSError as error:
        raise SeamrefError(f"{named(place)}: {error.strerror or error}") from None
