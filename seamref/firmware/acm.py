"""The authenticated code module (ACM) that carries NP-SEAMLDR, as bytes: header, tables, what is signed.

Header version 3 is the one of NP-SEAMLDR 1.0 and 1.5.  No public document says byte by byte what the signature of a
version 3 header covers and with which hash; the rule is *chosen* here, once, in :func:`signed_bytes`.
"""

from __future__ import annotations

from seamref.errors import LayoutError
from seamref.layout import Array, Bit, Bits, Buffer, Field, Layout, Raw, reserved, u8, u16, u32, u64
from seamref.spec import CHOSEN, implements

_HDR = "NPS Core/Include/Header.h"

ACM_HEADER = Layout(
    "ACM_HEADER",
    (
        Field("ModuleType", u16, "2: chipset ACM", 0, 2, _HDR),
        Field("ModuleSubType", u16, "0", 2, None, _HDR),
        Field("HeaderLen", u32, "dwords without scratch (896 bytes)", 4, 224, _HDR),
        Field("HeaderVersion", u32, "3.0", 8, 0x30000, _HDR),
        Field("ModuleID", u16, "chipset id", 12, None, _HDR),
        Field("Flags", Bits(2, (
            Bit("preproduction", 14, 14, "1: not production-worthy"),
            Bit("debug_signed", 15, 15, "1: signed for debug"),
        )), "0: production", 14, None, _HDR),
        Field("ModuleVendor", u32, "Intel", 16, 0x8086, _HDR),
        Field("Date", u32, "BCD YYYYMMDD", 20, None, _HDR),
        Field("Size", u32, "dwords of the whole module", 24, None, _HDR),
        Field("AcmSvn", u16, "TXT security version", 28, None, _HDR),
        Field("SeSvn", u16, "SE security version; the low byte becomes the SEAMLDR SVN", 30, None, _HDR),
        Field("CodeControl", u32, "", 32, None, _HDR),
        Field("ErrorEntryPoint", u32, "", 36, None, _HDR),
        Field("GDTLimit", u32, "", 40, None, _HDR),
        Field("GDTBasePtr", u32, "offset in the module", 44, None, _HDR),
        Field("SegSel", u32, "selector of the code segment; data is the next", 48, None, _HDR),
        Field("EntryPoint", u32, "offset in the module", 52, None, _HDR),
        reserved("Reserved", 64, 56, checked=False),
        Field("KeySize", u32, "dwords (384 bytes)", 120, 96, _HDR),
        Field("ScratchSize", u32, "dwords (832 bytes)", 124, 208, _HDR),
        Field("RSAPubKey", Raw(384, number=True), "RSA-3072 modulus, least significant byte first", 128, None, _HDR),
        Field("RSASig", Raw(384, number=True), "least significant byte first", 512, None, _HDR),
        Field("Scratch", Raw(832), "used by the processor while it authenticates; not signed", 896, None, _HDR),
    ),
    size=1728,
    source="MLE appendix A; NPS Core/Include/Header.h",
    doc="Header version 3 of an authenticated code module.",
)

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

@implements("ACM.signed", "the signature covers the whole module of Size dwords except RSAPubKey, RSASig and Scratch",
            "MLE appendix A; SDM vol. 2D GETSEC[ENTERACCS]", CHOSEN)
def signed_bytes(acm: Buffer) -> bytes:
    """ACM.signed: the bytes that are hashed with SHA-384 for the signature; the key is known by its own hash.

    ``acm`` shorter than its header or than Size says: a LayoutError that names the field.
    """
    size = 4 * ACM_HEADER.peek(acm, "Size")
    if not ACM_HEADER.size <= size <= len(acm):
        raise LayoutError("ACM_HEADER", "Size", ACM_HEADER.offset_of("Size"),
                          f"0x{size // 4:X} dwords, the header has 0x{ACM_HEADER.size // 4:X}, the file "
                          f"0x{len(acm) // 4:X}")
    return bytes(acm[: ACM_HEADER.offset_of("RSAPubKey")]) + bytes(acm[ACM_HEADER.end_of("Scratch") : size])
