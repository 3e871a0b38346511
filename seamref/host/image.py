"""TDX-BLOB: the file in which a TDX module and its sigstruct travel, in its two formats, and who accepts which.

Every published image is version 1.0; the merged kernel takes version 2.0 only.  Both hold the same bytes behind
different headers, so either is made from the other without loss.  What each version of the kernel series checks, in
its order, is a table; so are the rules of the formats themselves, which no kernel checks in full.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from struct import unpack_from
from typing import TypeAlias

from seamref.errors import LayoutError, SeamrefError
from seamref.host import log
from seamref.host.abi import Errno
from seamref.layout import Buffer, Field, Layout, Raw, reserved, u16, u32
from seamref.pseamldr.api import SEAMLDR_PARAMS, Scenario
from seamref.spec import CHOSEN, STATED, Check, CheckTable, implements

PAGE = 4096
MAGIC = b"TDX-BLOB"
V1, V2 = 0x100, 0x200
MAX_MODULE_PAGES, MAX_SIGSTRUCT_PAGES = 496, 1
SIGSTRUCT_SIZE = 2048
M32 = (1 << 32) - 1

TDX_BLOB_V1 = Layout(
    "TDX_BLOB_V1",
    (
        Field("version", u16, "1.0", 0, V1),
        Field("checksum", u16, "makes the sum of all 16-bit words of the file 0", 2),
        Field("offset_of_module", u32, "bytes from the start of the file; 0x2000 in every published file", 4),
        Field("signature", Raw(8), "TDX-BLOB", 8),
        Field("length", u32, "bytes of the whole file", 16),
        reserved("reserved0", 4, 20),
        reserved("reserved1", 4072, 24),
    ),
    size=PAGE,
    source="BIN blob_structure.txt",
    doc="Header of version 1.0; behind it the sigstruct, zero-padded to whole pages, then the module.",
)

TDX_BLOB_V2 = Layout(
    "TDX_BLOB_V2",
    (
        Field("version", u16, "2.0", 0, V2),
        Field("checksum", u16, "not checked by the kernel", 2),
        Field("signature", Raw(8), "TDX-BLOB", 4),
        Field("sigstruct_nr_pages", u32, "4 KiB pages; the kernel takes at most 1", 12),
        Field("module_nr_pages", u32, "4 KiB pages; the kernel takes at most 496", 16),
        reserved("reserved", 4076, 20),
    ),
    size=PAGE,
    source="LNX arch/x86/virt/vmx/tdx/seamldr.c",
    doc="Header of version 2.0; behind it the sigstruct pages, then the module pages.",
)


_SIGNATURE_1, _SIGNATURE_2 = TDX_BLOB_V1.span("signature"), TDX_BLOB_V2.span("signature")
_RESERVED_1, _RESERVED_2 = TDX_BLOB_V1.span("reserved0", "reserved1"), TDX_BLOB_V2.span("reserved")


def checksum(data: Buffer) -> int:
    """Sum of the little-endian 16-bit words modulo 65536; an odd last byte is a word with high byte 0."""
    even = len(data) & ~1
    total: int = sum(unpack_from(f"<{even // 2}H", data))
    return (total + (data[-1] if len(data) & 1 else 0)) & 0xFFFF


def format_of(data: Buffer) -> int | None:
    """0x100 or 0x200 by where the magic stands (offset 8 or 4), ``None`` for anything else."""
    if bytes(data[_SIGNATURE_1]) == MAGIC:
        return V1
    return V2 if bytes(data[_SIGNATURE_2]) == MAGIC else None


# --- the formats themselves -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Header:
    """What the checks look at: the file, and its header read as one format; bytes behind the end read as zero.

    ``length``: bytes of the file when ``data`` are only the first of it.
    """

    data: Buffer
    no_memory: bool = False
    length: int | None = None

    def v1(self, name: str) -> int:
        """A field of TDX_BLOB_V1."""
        return int(TDX_BLOB_V1.peek(self._front(), name))

    def v2(self, name: str) -> int:
        """A field of TDX_BLOB_V2."""
        return int(TDX_BLOB_V2.peek(self._front(), name))

    def raw(self, span: slice) -> bytes:
        """Bytes of the header."""
        return self._front()[span]

    def _front(self) -> bytes:
        return bytes(self.data[:PAGE]).ljust(PAGE, b"\0")

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return len(self.data) if self.length is None else self.length

    @property
    def sig_size(self) -> int:
        """offset_of_module - 4096 as the kernel's signed 32-bit number."""
        return _signed(self.v1("offset_of_module") - PAGE)

    @property
    def module_size(self) -> int:
        """File size - offset_of_module as the kernel's signed 32-bit number."""
        return _signed(self.size - self.v1("offset_of_module"))


def _signed(value: int) -> int:
    value &= M32
    return value - (1 << 32) if value >> 31 else value


_FMT = "BIN blob_structure.txt"

FORMAT_V1: CheckTable[Header, str] = CheckTable("TDX_BLOB_V1", (
    Check("BLOB1.size", "the file is shorter than its header and one page of sigstruct",
          lambda c: c.size < 2 * PAGE, "length", _FMT),
    Check("BLOB1.version", "version is not 0x100", lambda c: c.v1("version") != V1, "version", _FMT),
    Check("BLOB1.signature", "the signature is not TDX-BLOB", lambda c: c.raw(_SIGNATURE_1) != MAGIC, "signature",
          _FMT),
    Check("BLOB1.length", "length is not the size of the file", lambda c: c.v1("length") != c.size, "length", _FMT),
    Check("BLOB1.reserved", "a reserved byte of the header is not 0", lambda c: any(c.raw(_RESERVED_1)), "reserved0",
          _FMT),
    Check("BLOB1.offset", "offset_of_module is not 8 KiB + N * 4 KiB inside the file",
          lambda c: c.v1("offset_of_module") % PAGE != 0 or not 2 * PAGE <= c.v1("offset_of_module") <= c.size,
          "offset_of_module", _FMT),
    Check("BLOB1.padding", "the area behind the 2048-byte sigstruct is not 0",
          lambda c: any(c.data[PAGE + SIGSTRUCT_SIZE : c.v1("offset_of_module")]), "offset_of_module", _FMT),
    Check("BLOB1.module", "the module is not 1 to 496 whole pages",
          lambda c: c.module_size % PAGE != 0 or not 0 < c.module_size <= MAX_MODULE_PAGES * PAGE,
          "offset_of_module", _FMT),
    Check("BLOB1.checksum", "the 16-bit words of the file do not sum to 0", lambda c: checksum(c.data) != 0,
          "checksum", _FMT),
), "Rules of format 1.0; the result is the field to look at.")

_FMT2 = "LNX arch/x86/virt/vmx/tdx/seamldr.c"

FORMAT_V2: CheckTable[Header, str] = CheckTable("TDX_BLOB_V2", (
    Check("BLOB2.size", "the file is shorter than its header", lambda c: c.size < PAGE, "module_nr_pages", _FMT2),
    Check("BLOB2.version", "version is not 0x200", lambda c: c.v2("version") != V2, "version", _FMT2),
    Check("BLOB2.signature", "the signature is not TDX-BLOB", lambda c: c.raw(_SIGNATURE_2) != MAGIC, "signature",
          _FMT2),
    Check("BLOB2.length", "header, sigstruct and module pages are not the size of the file",
          lambda c: PAGE * (1 + c.v2("sigstruct_nr_pages") + c.v2("module_nr_pages")) != c.size,
          "module_nr_pages", _FMT2),
    Check("BLOB2.sigstruct", "there is no sigstruct page", lambda c: c.v2("sigstruct_nr_pages") == 0,
          "sigstruct_nr_pages", "SEAMREF errata", CHOSEN),
    Check("BLOB2.module", "the module is not 1 to 496 pages",
          lambda c: not 0 < c.v2("module_nr_pages") <= MAX_MODULE_PAGES, "module_nr_pages", "SEAMREF errata", CHOSEN),
    Check("BLOB2.reserved", "a reserved byte of the header is not 0", lambda c: any(c.raw(_RESERVED_2)), "reserved",
          _FMT2),
    Check("BLOB2.checksum", "the 16-bit words of the file do not sum to 0, as in format 1.0",
          lambda c: checksum(c.data) != 0, "checksum", "SEAMREF errata", CHOSEN),
), "Rules of format 2.0; the result is the field to look at.  The kernel checks fewer.")

FORMATS: dict[int, tuple[Layout, CheckTable[Header, str]]] = {
    V1: (TDX_BLOB_V1, FORMAT_V1), V2: (TDX_BLOB_V2, FORMAT_V2),
}


@dataclass(frozen=True, slots=True)
class Blob:
    """A file taken apart: ``area`` is the sigstruct with its padding (whole pages), ``module`` the ELF image."""

    version: int
    area: bytes
    module: bytes

    @property
    def sigstruct(self) -> bytes:
        """The 2048 bytes of SEAM_SIGSTRUCT."""
        return self.area[:SIGSTRUCT_SIZE]


def is_blob_checksum_row(id: str) -> bool:
    """Whether a format row judges the checksum only: the file can be taken apart all the same."""
    return id.endswith(".checksum")


def parse(data: Buffer, *, ignore_checksum: bool = False) -> Blob:
    """Take a file apart; one that breaks a rule of its format is a LayoutError that names field and rule."""
    version = format_of(data)
    if version is None:
        start = bytes(data[:16]).hex()
        raise LayoutError("TDX_BLOB", "signature", 8, f"file starts {start}, no TDX-BLOB at offset 8 (1.0) or 4 (2.0)")
    layout, table = FORMATS[version]
    row = table.decide(Header(data))
    if row is not None and not (ignore_checksum and is_blob_checksum_row(row.id)):
        field = row.result
        value = layout.peek(bytes(data[:PAGE]).ljust(PAGE, b"\0"), field)
        shown = f"0x{value:X}" if isinstance(value, int) else bytes(value[:8]).hex()
        raise LayoutError(layout.name, field, layout.offset_of(field), f"{shown}: {row.says} (clause {row.id})")
    header = Header(data)
    if version == V1:
        end = header.v1("offset_of_module")
    else:
        end = PAGE * (1 + header.v2("sigstruct_nr_pages"))
    return Blob(version, bytes(data[PAGE:end]), bytes(data[end:]))


def format_problems(data: Buffer) -> list[Check[Header, str]]:
    """Every rule of its format that a file breaks, in order; without the magic the version field says which format."""
    version = format_of(data)
    if version is None:
        version = V2 if Header(data).v2("version") == V2 else V1
    return FORMATS[version][1].all_stopping(Header(data))


def build(sigstruct: Buffer, module: Buffer, version: int = V1) -> bytes:
    """A file of either format.  ``sigstruct``: 2048 bytes, or its area of whole pages; ``module``: whole pages.

    The checksum of 2.0 follows the rule of 1.0 (*chosen*: no document says, no kernel looks).
    """
    area = bytes(sigstruct)
    area += bytes(-len(area) % PAGE)
    if len(sigstruct) < SIGSTRUCT_SIZE or (len(sigstruct) != SIGSTRUCT_SIZE and len(sigstruct) % PAGE):
        raise SeamrefError(f"SEAM_SIGSTRUCT: {len(sigstruct)} bytes, must be {SIGSTRUCT_SIZE} or whole pages")
    if not module or len(module) % PAGE or len(module) > MAX_MODULE_PAGES * PAGE:
        raise SeamrefError(f"TDX module: {len(module)} bytes, must be 1 to {MAX_MODULE_PAGES} whole pages of {PAGE}")
    total = PAGE + len(area) + len(module)
    if version == V1:
        header = TDX_BLOB_V1.new(signature=MAGIC, offset_of_module=PAGE + len(area), length=total)
    elif version == V2:
        header = TDX_BLOB_V2.new(signature=MAGIC, sigstruct_nr_pages=len(area) // PAGE,
                                 module_nr_pages=len(module) // PAGE)
    else:
        raise SeamrefError(f"TDX_BLOB.version: 0x{version:X}, must be 0x100 or 0x200")
    rest = area + bytes(module)
    header.checksum = -(checksum(header.encode()) + checksum(rest)) & 0xFFFF
    return header.encode() + rest


@implements("BLOB.convert", "both formats hold the same pages behind different headers", "BIN blob_structure.txt; "
            "LNX seamldr.c", STATED)
def convert(data: Buffer, version: int, *, ignore_checksum: bool = False) -> bytes:
    """BLOB.convert: the same sigstruct and module in the other (or the same) format."""
    blob = parse(data, ignore_checksum=ignore_checksum)
    return build(blob.area, blob.module, version)


# --- what the kernel checks -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Refusal:
    """What a failing check gives: an errno and the line it prints, ``{version}`` and ``{version:x}`` filled in.

    ``quiet`` are versions of the series that print nothing.
    """

    errno: Errno = Errno.EINVAL
    message: str = ""
    quiet: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.errno}" + (f', "{self.message}"' if self.message else "")


def _since(*names: str) -> Callable[[object], bool]:
    return lambda revision: revision in names


_V2_V3 = ("v2", "v3")
_V5_V6 = ("v5", "v6")
_EINVAL = Refusal()
_SER = "LNX series v1 to v8, patch \"Allocate and populate a module update request\""

KERNEL_V1: CheckTable[Header, Refusal] = CheckTable("KERNEL_IMAGE_V1", (
    Check("IMAGE1.header_v4", "the file is shorter than the header, or ends before the module",
          lambda c: c.size < PAGE or c.v1("offset_of_module") >= c.size, _EINVAL, _SER, applies=_since("v4")),
    Check("IMAGE1.header", "the file is not longer than the header, or ends before the module",
          lambda c: c.size <= PAGE or c.size <= c.v1("offset_of_module"), _EINVAL, _SER,
          applies=_since(*_V5_V6, "v7")),
    Check("IMAGE1.version_v2", "version is not 0x100 (printed in decimal)", lambda c: c.v1("version") != V1,
          Refusal(message=log.BLOB_VERSION.text), _SER, applies=_since("v2")),
    Check("IMAGE1.version", "version is not 0x100", lambda c: c.v1("version") != V1,
          Refusal(message=log.BLOB_VERSION_HEX.text, quiet=("v7",)), _SER,
          applies=_since("v3", "v4", *_V5_V6, "v7")),
    Check("IMAGE1.reserved", "a reserved byte is not 0", lambda c: any(c.raw(_RESERVED_1)),
          Refusal(message=log.BLOB_RESERVED.text, quiet=("v7",)), _SER, applies=_since(*_V2_V3, "v4", "v7")),
    Check("IMAGE1.sizes", "no sigstruct, no module, or length is not the size of the file",
          lambda c: c.sig_size <= 0 or c.module_size <= 0 or c.v1("length") != c.size, _EINVAL, _SER),
    Check("IMAGE1.signature", "the signature is not TDX-BLOB", lambda c: c.raw(_SIGNATURE_1) != MAGIC,
          Refusal(message=log.BLOB_SIGNATURE.text, quiet=("v7",)), _SER, applies=_since("v1", *_V2_V3, "v4", "v7")),
    Check("IMAGE1.checksum", "the 16-bit words of the file do not sum to 0", lambda c: checksum(c.data) != 0,
          Refusal(message=log.BLOB_CHECKSUM.text), _SER, applies=_since("v1", *_V2_V3)),
    Check("IMAGE1.module_pages", "the module has more than 496 pages",
          lambda c: c.module_size > MAX_MODULE_PAGES * PAGE, _EINVAL, _SER),
    Check("IMAGE1.sigstruct_page", "the sigstruct area is not exactly one page", lambda c: c.sig_size != PAGE, _EINVAL,
          _SER, applies=_since("v1", "v2")),
    Check("IMAGE1.sigstruct_pages", "the sigstruct area has more than 4 pages", lambda c: c.sig_size > 4 * PAGE,
          _EINVAL, _SER, applies=_since("v3", "v4", *_V5_V6, "v7")),
    Check("IMAGE1.alignment", "module or sigstruct area is not whole pages on page boundaries",
          lambda c: c.module_size % PAGE != 0 or c.sig_size % PAGE != 0, _EINVAL, _SER,
          applies=_since(*_V2_V3, "v4", "v7")),
    Check("IMAGE1.memory", "no page for SEAMLDR_PARAMS", lambda c: c.no_memory, Refusal(Errno.ENOMEM), _SER),
), "Format 1.0 as versions v1 to v7 of the series check it.")

KERNEL_V8: CheckTable[Header, Refusal] = CheckTable("KERNEL_IMAGE_V8", (
    Check("IMAGE8.header", "the file is not longer than the header", lambda c: c.size <= PAGE, _EINVAL, _SER),
    Check("IMAGE8.signature", "the signature is not TDX-BLOB", lambda c: c.raw(_SIGNATURE_1) != MAGIC, _EINVAL, _SER),
    Check("IMAGE8.offset", "the module does not begin behind the header and inside the file",
          lambda c: not PAGE < c.v1("offset_of_module") < c.size, _EINVAL, _SER),
    Check("IMAGE8.alignment", "the module does not begin on a page boundary",
          lambda c: c.v1("offset_of_module") % PAGE != 0, _EINVAL, _SER),
    Check("IMAGE8.version", "version is not 0x100", lambda c: c.v1("version") != V1, _EINVAL, _SER),
    Check("IMAGE8.reserved", "a reserved byte is not 0", lambda c: any(c.raw(_RESERVED_1)), _EINVAL, _SER),
    Check("IMAGE8.memory", "no page for SEAMLDR_PARAMS", lambda c: c.no_memory, Refusal(Errno.ENOMEM), _SER),
), "Format 1.0 as version v8 checks it: no lengths; surplus pages are left out silently.")

_LNX = "LNX arch/x86/virt/vmx/tdx/seamldr.c b2128290c299"
_ZEROS = bytes(TDX_BLOB_V2.field("reserved").type.size)

KERNEL_V2: CheckTable[Header, Refusal] = CheckTable("KERNEL_IMAGE_V2", (
    Check("IMAGE2.header", "the file is shorter than the header", lambda c: c.size < PAGE, _EINVAL, _LNX,
          applies=_since("v10", "merged")),
    Check("IMAGE2.memory", "no memory for SEAMLDR_PARAMS", lambda c: c.no_memory, Refusal(Errno.ENOMEM), _LNX),
    Check("IMAGE2.length", "header and both page counts (products in 32 bits) are not the size of the file",
          lambda c: PAGE + (c.v2("sigstruct_nr_pages") * PAGE & M32) + (c.v2("module_nr_pages") * PAGE & M32) != c.size,
          _EINVAL, _LNX),
    Check("IMAGE2.version", "version is not 0x200", lambda c: c.v2("version") != V2, _EINVAL, _LNX),
    Check("IMAGE2.pages", "more than 1 sigstruct page or more than 496 module pages",
          lambda c: c.v2("sigstruct_nr_pages") > MAX_SIGSTRUCT_PAGES or c.v2("module_nr_pages") > MAX_MODULE_PAGES,
          _EINVAL, _LNX, applies=_since("v10", "merged")),
    Check("IMAGE2.signature", "the signature is not TDX-BLOB", lambda c: c.raw(_SIGNATURE_2) != MAGIC, _EINVAL, _LNX),
    Check("IMAGE2.reserved", "a reserved byte is not 0", lambda c: c.raw(_RESERVED_2) != _ZEROS, _EINVAL, _LNX),
), "Format 2.0 as versions v9, v10 and the merged kernel check it.")

KERNEL_VERSIONS = ("v1", "v2", "v3", "v4", "v5", "v6", "v7", "v8", "v9", "v10", "merged")


@dataclass(frozen=True, slots=True)
class ImageTaken:
    """The kernel goes on: offsets in the file of the pages it will name in SEAMLDR_PARAMS.

    ``num_module_pages`` is the count it writes, which v9 does not limit to the pages it lists.
    """

    params_version: int
    sigstruct_pages: tuple[int, ...]
    module_pages: tuple[int, ...]
    num_module_pages: int

    def params(self, address_of: Callable[[int], int]) -> bytes:
        """The 4096 bytes of SEAMLDR_PARAMS; ``address_of`` gives the physical address of an offset in the file.

        Versions v3 to v8 write up to four sigstruct addresses, over bytes that P-SEAMLDR 1.5 reserves.
        """
        page = bytearray(SEAMLDR_PARAMS.encode({
            "version": self.params_version, "scenario": Scenario.UPDATE, "num_module_pages": self.num_module_pages}))
        for name, offsets in (("sigstruct_pa", self.sigstruct_pages), ("mod_pages_pa_list", self.module_pages)):
            at = SEAMLDR_PARAMS.offset_of(name)
            for i, offset in enumerate(offsets):
                page[at + 8 * i : at + 8 * i + 8] = address_of(offset).to_bytes(8, "little")
        return bytes(page)


@dataclass(frozen=True, slots=True)
class ImageRefused:
    """The kernel refuses the file: ``errno``, the line it prints ("" for none), and the row that decided."""

    errno: Errno
    message: str
    clause: str


ImageOutcome: TypeAlias = ImageTaken | ImageRefused


def kernel_table(version: str) -> CheckTable[Header, Refusal]:
    """The checks of a version of the series."""
    if version not in KERNEL_VERSIONS:
        raise SeamrefError(f"no version {version!r} of the series; there are {', '.join(KERNEL_VERSIONS)}")
    if version in ("v9", "v10", "merged"):
        return KERNEL_V2
    return KERNEL_V8 if version == "v8" else KERNEL_V1


@implements("IMAGE.check", "the kernel checks the file's header and lists its pages for P-SEAMLDR; it looks at no "
            "hash, signature or compatibility", _LNX)
def check_image(
    data: Buffer, version: str = "merged", *, no_memory: bool = False, length: int | None = None
) -> ImageOutcome:
    """IMAGE.check: what ``seamldr_install_module`` makes of a file before anything is shut down.

    ``version`` of the series; ``no_memory``: the allocation of SEAMLDR_PARAMS fails; ``length``: bytes of the file,
    when ``data`` are only its first.  What v1 to v3 and v9 read
    behind the end of a short file is taken to be zero (*chosen*: the buffer is whole pages).
    """
    header = Header(data, no_memory, length)
    row = kernel_table(version).decide(header, version)
    if row is not None:
        message = "" if version in row.result.quiet else row.result.message.format(version=header.v1("version"))
        return ImageRefused(row.result.errno, message, row.id)
    if version in ("v9", "v10", "merged"):
        sig, mod = header.v2("sigstruct_nr_pages"), header.v2("module_nr_pages")
        at = PAGE + (sig * PAGE & M32)
        return ImageTaken(0, _pages(PAGE, min(sig, MAX_SIGSTRUCT_PAGES)), _pages(at, min(mod, MAX_MODULE_PAGES)), mod)
    offset = header.v1("offset_of_module")
    sig = header.sig_size // PAGE
    mod = -(-header.module_size // PAGE) if version == "v1" else header.module_size // PAGE
    if version == "v8":
        mod = min((header.size - offset) // PAGE, MAX_MODULE_PAGES)
    params_version = int(version in ("v5", "v6", "v7", "v8") and header.sig_size > PAGE)
    return ImageTaken(params_version, _pages(PAGE, min(sig, 4)), _pages(offset, mod), mod)


def _pages(start: int, count: int) -> tuple[int, ...]:
    return tuple(start + PAGE * i for i in range(count))
