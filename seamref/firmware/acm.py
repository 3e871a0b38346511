"""The authenticated code module that carries NP-SEAMLDR, as bytes: tables behind the header, parsing, fitness.

The header itself, and which bytes are signed, belong to the processor: :mod:`seamref.arch.acm`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from seamref.arch.acm import ACM_HEADER, ACM_HEADER_V0, ACM_HEADER_V4, HEADERS, signed_bytes
from seamref.arch.software import ENDBR64_JMP, STUB
from seamref.errors import LayoutError
from seamref.layout import Array, Buffer, Field, Layout, Raw, Record, reserved, u8, u16, u32, u64
from seamref.spec import CHOSEN, Check, CheckTable, implements

if TYPE_CHECKING:
    from seamref.arch.platform import Platform

__all__ = [
    "ACM_HEADER", "ACM_HEADER_V0", "ACM_HEADER_V4", "HEADERS", "signed_bytes",
    "ACM_INFO_TABLE", "ACM_UUID", "CHIPSET_ID", "PROCESSOR_ID", "P_SEAMLDR_CONSTS", "NP_SEAMLDR_BUILD",
    "NP_SEAMLDR_PROGRAM", "ACM_MATCH", "Acm", "Misfit", "parse_acm", "fits",
]

ACM_INFO_TABLE = Layout(
    "ACM_INFO_TABLE",
    (
        Field("UUID", Array(u32, 4), "7FC03AAA 18DB46A7 8F69AC2E 5A7F418D", 0),
        Field("ChipsetACMType", u8, "0: BIOS ACM (1.5), 1: SINIT (1.0)", 16),
        Field("Version", u8, "of this table", 17, 7),
        Field("Length", u16, "bytes", 18),
        Field("ChipsetIDList", u32, "offset in the module", 20),
        Field("OsSinitTableVer", u32, "", 24),
        Field("MinMleHeaderVer", u32, "", 28),
        Field("Capabilities", u32, "", 32),
        Field("AcmVersion", u8, "", 36),
        Field("AcmRevision", Raw(3), "0.4.5 (1.5), 1.7.4 (1.0)", 37),
        Field("ProcessorIDList", u32, "offset in the module", 40),
        Field("TPMInfoList", u32, "offset in the module; 0: none", 44),
        Field("GenerationInfo", u32, "offset in the module; 0: none (1.5 only)", 48),
    ),
    size=52,
    source="MLE appendix A; NPS Core/Common/Header.c",
    doc="Directly behind the scratch area of the header.",
)
ACM_UUID = (0x7FC03AAA, 0x18DB46A7, 0x8F69AC2E, 0x5A7F418D)

CHIPSET_ID = Layout(
    "ACM_CHIPSET_ID",
    (
        Field("Flags", u32, "bit 0: RevisionID is a mask", 0),
        Field("VendorID", u16, "", 4, 0x8086),
        Field("DeviceID", u16, "0xB00A (1.0), 0 (1.5)", 6),
        Field("RevisionID", u16, "", 8),
        reserved("Reserved", 6, 10, checked=False),
    ),
    size=16,
    source="MLE appendix A",
    doc="One chipset the module is for; a u32 count stands before the first.",
)

PROCESSOR_ID = Layout(
    "ACM_PROCESSOR_ID",
    (
        Field("FMS", u32, "CPUID.1:EAX", 0),
        Field("FMSMask", u32, "bits of it that count", 4),
        Field("PlatformID", u64, "IA32_PLATFORM_ID", 8),
        Field("PlatformMask", u64, "bits of it that count; 0: any", 16),
    ),
    size=24,
    source="MLE appendix A",
    doc="One processor the module is for; a u32 count stands before the first.",
)

P_SEAMLDR_CONSTS = Layout(
    "P_SEAMLDR_CONSTS",
    (
        Field("CDataStackSize", u64, "bytes: 3 pages", 0),
        Field("CCodeRgnSize", u64, "bytes of the padded image file", 8),
        Field("CDataRgnSize", u64, "bytes: 6 pages", 16),
        Field("CKeyholeRgnSize", u64, "bytes: 512 pages", 24),
        Field("CKeyholeEditRgnSize", u64, "bytes: 1 page", 32),
        Field("CEntryPointOffset", u64, "e_entry of the image", 40),
    ),
    size=48,
    source="NPS Core/Include/Header.h; NPS putPseamldr.py",
    doc="Sizes of P-SEAMLDR, built with it and patched into the ACM beside its image.",
)

NP_SEAMLDR_BUILD = Layout(
    "NP_SEAMLDR_BUILD",
    (
        Field("image_offset", u32, "embedded P-SEAMLDR image, offset in the module", 0),
        Field("image_size", u32, "bytes", 4),
        Field("consts", P_SEAMLDR_CONSTS, "", 8),
        Field("revision_major", u16, "of NP-SEAMLDR", 56),
        Field("revision_minor", u16, "of NP-SEAMLDR", 58),
        reserved("reserved", 4, 60),
    ),
    size=64,
    source="SEAMREF",
    doc="What the build tool patches into the linked ACM; lies directly behind the stub at EntryPoint (chosen).",
)

NP_SEAMLDR_PROGRAM = b"seamref.npseamld"
"""Id that the stub at EntryPoint carries."""

# --- parsing


@dataclass(frozen=True, slots=True)
class Acm:
    """A parsed module.

    ``build`` is ``None`` when the code at EntryPoint is not this book's NP-SEAMLDR; ``image`` is the embedded
    P-SEAMLDR image then empty.
    """

    data: bytes
    header: Record
    info: Record
    chipsets: tuple[Record, ...]
    processors: tuple[Record, ...]
    gdt: tuple[int, ...]
    build: Record | None

    @property
    def image(self) -> bytes:
        """The embedded P-SEAMLDR image, padded to whole pages."""
        if self.build is None:
            return b""
        at = self.build.image_offset
        return self.data[at : at + self.build.image_size]


def _list(data: Buffer, at: int, layout: Layout, name: str, most: int = 256) -> tuple[Record, ...]:
    """A u32 count and that many records at ``at``; offset 0 is "no list"."""
    if at == 0:
        return ()
    if at + 4 > len(data):
        raise LayoutError(name, "count", at, f"needs 4 bytes, {max(len(data) - at, 0)} left")
    count = int.from_bytes(bytes(data[at : at + 4]), "little")
    if count > most:
        raise LayoutError(name, "count", at, f"{count} entries, at most {most}")
    return tuple(layout.decode(data, at + 4 + i * layout.size) for i in range(count))


@implements("ACM.parse", "header by its version, information table behind the scratch area, lists where it points",
            "MLE appendix A")
def parse_acm(data: Buffer) -> Acm:
    """ACM.parse: decode a module; a part that is not there is a LayoutError that names structure, field and offset.

    Values are not judged: what the processor demands is the ENTERACCS table, what a loader demands is ACM_MATCH.
    """
    data = bytes(data)
    version = ACM_HEADER.peek(data, "HeaderVersion")
    layout = HEADERS.get(version)
    if layout is None:
        known = ", ".join(hex(v) for v in HEADERS)
        raise LayoutError("ACM_HEADER", "HeaderVersion", 8, f"0x{version:X}, known are {known}")
    header = layout.decode(data)
    if 4 * header.Size > len(data):
        raise LayoutError(layout.name, "Size", layout.offset_of("Size"),
                          f"0x{header.Size:X} dwords, the file has 0x{len(data) // 4:X}")
    info_at = 4 * (header.HeaderLen + header.ScratchSize)
    info = ACM_INFO_TABLE.decode(data, info_at)
    if tuple(info.UUID) != ACM_UUID:
        raise LayoutError("ACM_INFO_TABLE", "UUID", info_at, "is not that of an ACM information table")
    gdt_size = header.GDTLimit + 1 & ~7
    if header.GDTBasePtr + gdt_size > len(data):
        raise LayoutError("ACM_HEADER", "GDTBasePtr", ACM_HEADER.offset_of("GDTBasePtr"),
                          f"0x{header.GDTBasePtr:X} and 0x{gdt_size:X} bytes leave the module")
    gdt = tuple(
        int.from_bytes(data[at : at + 8], "little") for at in range(header.GDTBasePtr, header.GDTBasePtr + gdt_size, 8)
    )
    chipsets = _list(data, info.ChipsetIDList, CHIPSET_ID, "ACM_CHIPSET_ID_LIST")
    processors = _list(data, info.ProcessorIDList, PROCESSOR_ID, "ACM_PROCESSOR_ID_LIST")
    return Acm(data, header, info, chipsets, processors, gdt, build_at(data, header.EntryPoint))


def build_at(data: Buffer, entry: int) -> Record | None:
    """NP_SEAMLDR_BUILD behind the stub at ``entry``, ``None`` when other code stands there."""
    if entry + STUB.size + NP_SEAMLDR_BUILD.size > len(data):
        return None
    stub = STUB.decode(data, entry)
    if stub.code != ENDBR64_JMP or stub.program != NP_SEAMLDR_PROGRAM:
        return None
    return NP_SEAMLDR_BUILD.decode(data, entry + STUB.size)


# --- whether a module is for this platform


class Misfit(Enum):
    """Why a loader does not launch a module."""

    TYPE = "not a chipset ACM"
    VENDOR = "not Intel's"
    SIGNED_FOR_DEBUG = "debug or pre-production module on a production platform"
    CHIPSET = "not for this chipset"
    PROCESSOR = "not for this processor"


@dataclass(frozen=True, slots=True)
class MatchState:
    """What a loader looks at before it launches."""

    platform: Platform
    acm: Acm

    def is_for_chipset(self) -> bool:
        """Some entry of the chipset list has the chipset's ids; with flag bit 0 RevisionID is a mask."""
        device = self.platform.txt.get("DEVICE_ID", 0)
        revision = self.platform.txt.get("REVISION_ID", 1)
        return any(
            entry.VendorID == 0x8086 and entry.DeviceID == device
            and (entry.RevisionID & revision if entry.Flags & 1 else entry.RevisionID == revision)
            for entry in self.acm.chipsets
        )

    def is_for_processor(self) -> bool:
        """Some entry of the processor list has this family, model and stepping under its mask."""
        fms = self.platform.config.fms_of(0)
        platform_id = self.platform.txt.get("PLATFORM_ID", 0)
        return any(
            fms & entry.FMSMask == entry.FMS & entry.FMSMask
            and platform_id & entry.PlatformMask == entry.PlatformID & entry.PlatformMask
            for entry in self.acm.processors
        )


ACM_MATCH: CheckTable[MatchState, Misfit] = CheckTable("ACM_MATCH", (
    Check("ACM_MATCH.type", "ModuleType is not 2", lambda c: c.acm.header.ModuleType != 2, Misfit.TYPE,
          "MLE appendix A"),
    Check("ACM_MATCH.vendor", "ModuleVendor is not 8086H", lambda c: c.acm.header.ModuleVendor != 0x8086,
          Misfit.VENDOR, "MLE appendix A"),
    Check("ACM_MATCH.flags", "debug-signed or not production-worthy, and the platform is not unlocked for debug",
          lambda c: bool(c.acm.header.Flags & 0xC000) and not c.platform.config.debug_unlocked,
          Misfit.SIGNED_FOR_DEBUG, "MLE appendix A", CHOSEN),
    Check("ACM_MATCH.chipset", "no entry of the chipset list is for this chipset", lambda c: not c.is_for_chipset(),
          Misfit.CHIPSET, "MLE appendix A"),
    Check("ACM_MATCH.processor", "no entry of the processor list is for this processor",
          lambda c: not c.is_for_processor(), Misfit.PROCESSOR, "MLE appendix A"),
), "Whether a loader may launch a module on this platform.  GETSEC[ENTERACCS] itself asks none of this in the SDM.")


def fits(platform: Platform, acm: Acm) -> Misfit | None:
    """The first reason not to launch ``acm`` on this platform, ``None`` when it fits."""
    row = ACM_MATCH.decide(MatchState(platform, acm), platform.revision)
    return None if row is None else row.result
