"""TDX-BLOB files before every version of the kernel series: taken, or which errno, and what is printed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import product
from typing import Any

from seamref.export.form import Answer, Case, Count, Flag, Group, Item, ListOf, Maybe, Octets, OneOf, Text, VectorSet
from seamref.host.abi import Errno
from seamref.host.image import (
    FORMATS,
    KERNEL_VERSIONS,
    MAGIC,
    PAGE,
    TDX_BLOB_V1,
    TDX_BLOB_V2,
    V1,
    V2,
    ImageRefused,
    build,
    check_image,
    checksum,
    format_of,
    format_problems,
)

SIGSTRUCT, MODULE = bytes(2048), bytes(2 * PAGE)
CHECKSUM = TDX_BLOB_V1.span("checksum")
assert TDX_BLOB_V2.span("checksum") == CHECKSUM
RULES = "the rules of the format"
LAYOUTS = {V1: TDX_BLOB_V1, V2: TDX_BLOB_V2}


def _case(id: str, comment: str, data: bytes, *, size: int | None = None, no_memory: bool = False,
          summed: bool = True) -> Case:
    """A file: its first bytes, zeros behind them; ``summed``: its checksum is made right again."""
    file = bytearray(data if size is None else data.ljust(size, b"\0")[:size])
    if summed and len(file) >= CHECKSUM.stop:
        file[CHECKSUM] = bytes(2)
        file[CHECKSUM] = (-checksum(bytes(file)) & 0xFFFF).to_bytes(2, "little")
    return Case(f"blob-{id}", comment, {"size": len(file), "start": bytes(file).rstrip(b"\0").hex(),
                                        "no_memory": no_memory})


def _cases() -> Iterator[Case]:
    for version in (V1, V2):
        name = f"v{version >> 8}"
        good = build(SIGSTRUCT, MODULE, version)
        layout = LAYOUTS[version]
        yield _case(f"{name}-good", f"a good file of format {version >> 8}.0", good)
        yield _case(f"{name}-no-memory", "the allocation of SEAMLDR_PARAMS fails", good, no_memory=True)
        yield _case(f"{name}-checksum", "the checksum is off by one", _changed(good, 2, good[2] ^ 1), summed=False)
        for size in (0, 1, 4, 8, 16, 20, 24, PAGE - 1, PAGE, PAGE + 1, 2 * PAGE - 1, 2 * PAGE, 2 * PAGE + 1,
                     len(good) - 1, len(good) + 1, len(good) - PAGE, len(good) + PAGE):
            yield _case(f"{name}-size-{size}", f"the file cut or filled to {size} bytes", good, size=size)
        for at in range(8):
            where = layout.offset_of("signature") + at
            yield _case(f"{name}-magic-{at}", f"byte {at} of the signature "
                                              f"changed", _changed(good, where, good[where] ^ 1))
        for at in (20, 21, 24, 100, 2000, PAGE - 1):
            yield _case(f"{name}-reserved-{at}", f"byte {at} of the header is 1", _changed(good, at, good[at] ^ 1))
        if version == V1:
            yield _case("v1-padding", "a byte behind the sigstruct is 1", _changed(good, PAGE + 3000, 1))
        for value in (0, 0x100, 0x101, 0x200, 0x201, 0x1FF, 0x300, 0xFFFF):
            yield _case(f"{name}-version-{value:x}", f"version = 0x{value:X}", _poked(good, version, version=value))
    yield from _offsets()
    yield from _counts()
    for text in (b"", b"\x7fELF", b"TDX-BLOB", bytes(4) + MAGIC, bytes(8) + MAGIC):
        for size in (len(text), PAGE, 3 * PAGE):
            yield _case(f"other-{text.hex() or 'empty'}-{size}", "no such file at all", text, size=size, summed=False)


def _changed(data: bytes, at: int, value: int) -> bytes:
    out = bytearray(data)
    out[at] = value
    return bytes(out)


def _poked(data: bytes, kind: int, **values: int) -> bytes:
    out = bytearray(data)
    for name, value in values.items():
        LAYOUTS[kind].poke(out, name, value)
    return bytes(out)


def _offsets() -> Iterator[Case]:
    """Format 1.0: offset_of_module and length."""
    good = build(SIGSTRUCT, MODULE, V1)
    for offset in (0, 1, PAGE - 1, PAGE, PAGE + 1, 2 * PAGE - 1, 2 * PAGE, 2 * PAGE + 64, 3 * PAGE, len(good) - 1,
                   len(good), len(good) + 1, len(good) + PAGE, 1 << 31, (1 << 32) - 1):
        yield _case(f"v1-offset-{offset:x}", f"offset_of_module = "
                                             f"0x{offset:X}", _poked(good, V1, offset_of_module=offset))
    for length in (0, len(good) - 1, len(good) + 1, 1 << 31, (1 << 32) - 1):
        yield _case(f"v1-length-{length:x}", f"length = 0x{length:X}", _poked(good, V1, length=length))
    for pages in (1, 495, 496, 497, 498):
        size = 2 * PAGE + pages * PAGE
        yield _case(f"v1-module-{pages}", f"a module of {pages} pages", _poked(good, V1, length=size), size=size)
    for area in (1, 2, 3, 4, 5):
        size = PAGE + area * PAGE + len(MODULE)
        yield _case(f"v1-area-{area}", f"a sigstruct area of {area} pages",
                    _poked(good, V1, offset_of_module=PAGE + area * PAGE, length=size), size=size)


def _counts() -> Iterator[Case]:
    """Format 2.0: both page counts, with a file of the size that they ask for, and products that wrap."""
    good = build(SIGSTRUCT, MODULE, V2)
    for sigs, mods in product((0, 1, 2, 4), (0, 1, 2, 495, 496, 497)):
        size = PAGE * (1 + sigs + mods)
        data = _poked(good[:PAGE], V2, sigstruct_nr_pages=sigs, module_nr_pages=mods)
        yield _case(f"v2-pages-{sigs}-{mods}", f"{sigs} sigstruct pages, {mods} module pages", data, size=size)
    most = (1 << 32) - 1
    for sigs, mods in ((1 << 20, 2), (1, 1 << 20), (1 << 20 | 1, 2), (1, 1 << 20 | 2), (most, 4), (1, most)):
        yield _case(f"v2-wraps-{sigs:x}-{mods:x}", "page counts whose product with 4096 does not fit 32 bits",
                    _poked(good, V2, sigstruct_nr_pages=sigs, module_nr_pages=mods))


def _answer(given: Mapping[str, Any], revision: str) -> Answer:
    data = bytes.fromhex(given["start"]).ljust(given["size"], b"\0")
    if revision == "format":
        broken = tuple(row.id for row in format_problems(data))
        tables = {row.id for _, table in FORMATS.values() for row in table}
        return Answer({"taken": not broken, "errno": None, "prints": None, "pages": None},
                      broken or tuple(sorted(id for id in tables if id.startswith(_prefix(data)))))
    outcome = check_image(data, revision, no_memory=given["no_memory"])
    if isinstance(outcome, ImageRefused):
        refused = {"taken": False, "errno": f"-{outcome.errno.name}", "prints": outcome.message or None, "pages": None}
        return Answer(refused, (outcome.clause,))
    listed = outcome.module_pages
    return Answer({"taken": True, "errno": None, "prints": None, "pages": {
        "params_version": outcome.params_version, "num_module_pages": outcome.num_module_pages,
        "sigstruct": list(outcome.sigstruct_pages), "module_first": listed[0] if listed else None,
        "module_listed": len(listed)}}, ("IMAGE.check",))


def _prefix(data: bytes) -> str:
    return "BLOB2" if format_of(data) == V2 else "BLOB1"


_PAGES = Group((
    Item("params_version", Count(), "version written to SEAMLDR_PARAMS"),
    Item("num_module_pages", Count(), "count written there"),
    Item("sigstruct", ListOf(Count()), "offsets in the file of the sigstruct pages that are listed"),
    Item("module_first", Maybe(Count()), "offset of the first module page that is listed; the others follow"),
    Item("module_listed", Count(), "module pages that are listed"),
))

SET = VectorSet(
    "blob", "TDX-BLOB files and what kernels make of them",
    ("Files of both formats, whole and cut, with each header field at its borders, before every version of the kernel "
     "series, and before the rules of the format itself (revision `format`: `taken` says that no rule is broken, the "
     "flags "
     "are the rules that are).",
     "A file is `start` and zeros behind it up to `size` bytes; its 16-bit words sum to 0 unless the test is about "
     "that.  "
     "What versions v1 to v3 and v9 read behind the end of a short file is taken to be zero."),
    (Item("size", Count(), "bytes of the file"), Item("start", Octets(), "its first bytes; all behind them are 0"),
     Item("no_memory", Flag(), "the kernel gets no page for SEAMLDR_PARAMS")),
    (Item("taken", Flag(), "the kernel goes on with the file"),
     Item("errno", Maybe(OneOf(tuple(f"-{e.name}" for e in (Errno.EINVAL, Errno.ENOMEM)))), "what it returns "
                                                                                            "otherwise"),
     Item("prints", Maybe(Text()), "the line it prints then, without its prefix"),
     Item("pages", Maybe(_PAGES), "what it hands to P-SEAMLDR")),
    {**{name: f"version {name} of the series" for name in KERNEL_VERSIONS if name != "merged"},
     "merged": "the merged kernel", "format": RULES}, _cases, _answer, small=2,
)
