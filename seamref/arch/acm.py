"""The authenticated code module (ACM) format as far as GETSEC[ENTERACCS] looks at it: header, what is signed.

No public document says byte by byte what the signature of a version 3 header covers and with which hash; the rule is
*chosen* here, once, in :func:`signed_bytes`.
"""

from __future__ import annotations

from seamref.errors import LayoutError
from seamref.layout import Bit, Bits, Buffer, Field, Layout, Raw, reserved, u16, u32
from seamref.spec import CHOSEN, implements

_HDR = "NPS Core/Include/Header.h"

_COMMON = (
    Field("ModuleType", u16, "2: chipset ACM", 0, 2, _HDR),
    Field("ModuleSubType", u16, "0", 2, None, _HDR),
    Field("HeaderLen", u32, "dwords without scratch", 4, None, _HDR),
    Field("HeaderVersion", u32, "0, 0x30000 or 0x40000", 8, None, _HDR),
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
    Field("CodeControl", Bits(4, (
        Bit("snoop", 1, 0, "10: a modified-line hit while loading shuts down; 11: it enters at ErrorEntryPoint"),
    )), "", 32, None, _HDR),
    Field("ErrorEntryPoint", u32, "offset in the module", 36, None, _HDR),
    Field("GDTLimit", u32, "", 40, None, _HDR),
    Field("GDTBasePtr", u32, "offset in the module", 44, None, _HDR),
    Field("SegSel", u32, "selector of the code segment; data is the next", 48, None, _HDR),
    Field("EntryPoint", u32, "offset in the module", 52, None, _HDR),
    reserved("Reserved", 64, 56, checked=False),
    Field("KeySize", u32, "dwords", 120, None, _HDR),
    Field("ScratchSize", u32, "dwords", 124, None, _HDR),
)


def _with(**must_be: int) -> tuple[Field, ...]:
    """The common fields, some with the value that this version demands."""
    return tuple(
        Field(f.name, f.type, f.meaning, f.offset, must_be.get(f.name, f.must_be), f.source) for f in _COMMON
    )


ACM_HEADER_V0 = Layout(
    "ACM_HEADER_V0",
    (
        *_with(HeaderLen=161, HeaderVersion=0, KeySize=64, ScratchSize=143),
        Field("RSAPubKey", Raw(256, number=True), "RSA-2048 modulus", 128),
        Field("RSAPubExp", u32, "public exponent", 384),
        Field("RSASig", Raw(256, number=True), "", 388),
        Field("Scratch", Raw(572), "", 644),
    ),
    size=1216,
    source="MLE appendix A",
    doc="Header version 0: RSA-2048.",
)

ACM_HEADER = Layout(
    "ACM_HEADER",
    (
        *_with(HeaderLen=224, HeaderVersion=0x30000, KeySize=96, ScratchSize=208),
        Field("RSAPubKey", Raw(384, number=True), "RSA-3072 modulus, least significant byte first", 128, None, _HDR),
        Field("RSASig", Raw(384, number=True), "least significant byte first", 512, None, _HDR),
        Field("Scratch", Raw(832), "used by the processor while it authenticates; not signed", 896, None, _HDR),
    ),
    size=1728,
    source="MLE appendix A; NPS Core/Include/Header.h",
    doc="Header version 3 of an authenticated code module.",
)

ACM_HEADER_V4 = Layout(
    "ACM_HEADER_V4",
    (
        *_with(HeaderLen=928, HeaderVersion=0x40000, KeySize=96, ScratchSize=896),
        Field("RSAPubKey", Raw(384, number=True), "RSA-3072 modulus", 128),
        Field("RSASig", Raw(384, number=True), "", 512),
        Field("XmssPubKey", Raw(64), "hash-based signature's key", 896),
        Field("XmssSig", Raw(2692), "hash-based signature", 960),
        reserved("Reserved2", 60, 3652, "fills the stated header length (chosen place)", checked=False),
        Field("Scratch", Raw(3584), "", 3712),
    ),
    size=7296,
    source="MLE appendix A; NPS Core/Include/Header.h",
    doc="Header version 4: RSA-3072 and XMSS.",
)

HEADERS: dict[int, Layout] = {0: ACM_HEADER_V0, 0x30000: ACM_HEADER, 0x40000: ACM_HEADER_V4}
"""HeaderVersion -> layout."""


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
