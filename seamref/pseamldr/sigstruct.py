"""SEAM_SIGSTRUCT: who signed a TDX module, what it is, and how much memory it wants.

The layout, what every field must be, which bytes the signature covers, and the hash of the key that signs.  The
order in which P-SEAMLDR looks at all this is the manifest table of the INSTALL leaf; the demands themselves stand
here, once.
"""

from __future__ import annotations

from hashlib import sha384

from seamref.layout import Array, Bit, Bits, Buffer, Field, Layout, Raw, reserved, u8, u16, u32, u64
from seamref.spec import MEASURED, implements

_API = "PSL include/seam_sigstruct.h"

MODULE_TYPE = Bits(4, (
    Bit("reserved", 30, 0, "reserved", 0),
    Bit("debug_signed", 31, 31, "1: signed for debug, runs only on a debug-unlocked part"),
))

_HEADER = (
    Field("header_type", u32, "6: a signed SEAM module", 0, 6, _API),
    Field("header_length", u32, "dwords up to seamhash (900 bytes)", 4, 0xE1, _API),
    Field("header_version", u32, "1.0", 8, 0x10000, _API),
    Field("module_type", MODULE_TYPE, "how it is signed", 12, None, _API),
    Field("module_vendor", u32, "Intel", 16, 0x8086, _API),
    Field("date", u32, "of signing, BCD YYYYMMDD; not checked", 20, None, _API),
    Field("size", u32, "dwords of this structure (2048 bytes)", 24, 0x200, _API),
    Field("key_size", u32, "dwords (384 bytes)", 28, 0x60, _API),
    Field("modulus_size", u32, "dwords", 32, 0x60, _API),
    Field("exponent_size", u32, "dwords", 36, 1, _API),
    reserved("reserved0", 88, 40),
    Field("modulus", Raw(384, number=True), "of the signer, least significant byte first; its SHA-384 must be the "
          "signer key hash", 128, None, _API),
    Field("exponent", u32, "65537", 512, 0x10001, _API),
    Field("signature", Raw(384, number=True), "RSA-3072, PKCS#1 v1.5, SHA-384 over [0,128) and [900,2048)", 516, None,
          _API),
    Field("seamhash", Raw(48), "SHA-384 of the module image; becomes MRSEAM", 900, None, _API),
)
_SIZES = (
    Field("attributes", u64, "of the module", 950, 0, _API),
    Field("rip_offset", u32, "entry point, bytes from the start of the image; not bounded", 958, None, _API),
    Field("num_stack_pages", u8, "data stack pages of one processor, minus 1", 962, None, _API),
    Field("num_tls_pages", u8, "local data pages of one processor, minus 1", 963, None, _API),
    Field("num_keyhole_pages", u16, "keyhole pages of one processor, minus 1", 964, None, _API),
    Field("num_global_data_pages", u16, "global data pages, minus 1", 966, None, _API),
    Field("max_tdmrs", u16, "not checked; 0 in every released module", 968, None, _API),
    Field("max_rsvd_per_tdmr", u16, "not checked; 0 in every released module", 970, None, _API),
    Field("pamt_entry_size_4k", u16, "not checked; 0 in every released module", 972, None, _API),
    Field("pamt_entry_size_2m", u16, "not checked; 0 in every released module", 974, None, _API),
    Field("pamt_entry_size_1g", u16, "not checked; 0 in every released module", 976, None, _API),
)
_CPUIDS = (
    Field("cpuid_table_size", u32, "entries, at most 255; 0 only in a debug-signed module", 1024, None, _API),
    Field("cpuid_table", Array(u32, 255), "CPUID.1:EAX of the processors it is for; stepping is ignored", 1028, None,
          _API),
)

SEAM_SIGSTRUCT = Layout(
    "SEAM_SIGSTRUCT",
    (
        *_HEADER,
        Field("seam_minor_svn", u8, "security version, minor", 948, None, _API),
        Field("seam_major_svn", u8, "security version, major; 0: a module that hands nothing off", 949, None, _API),
        *_SIZES,
        reserved("reserved1", 6, 978),
        Field("module_hv", u16, "handoff version it writes; at least min_update_hv", 984, None, _API),
        Field("min_update_hv", u16, "oldest handoff version it reads", 986, None, _API),
        Field("no_downgrade", u8, "only copied to SYS_INFO_TABLE", 988, None, _API),
        reserved("reserved2", 1, 989),
        Field("num_handoff_pages", u16, "handoff pages minus 1; ignored when the major SVN is 0", 990, None, _API),
        Field("gdt_idt_offset", u32, "page of the image with IDT and GDT; 0 exactly when fault_wrapper_offset is", 992,
              None, _API),
        Field("fault_wrapper_offset", u32, "32 handlers of 16 bytes", 996, None, _API),
        reserved("reserved3", 24, 1000),
        *_CPUIDS,
    ),
    size=2048,
    source=_API,
    doc="Identity card of a TDX module, as P-SEAMLDR 1.5 reads it.",
)

SEAM_SIGSTRUCT_1_0 = Layout(
    "SEAM_SIGSTRUCT_1_0",
    (*_HEADER, Field("seamsvn", u16, "security version, one number", 948, None, _API), *_SIZES,
     reserved("reserved1", 46, 978), *_CPUIDS),
    size=2048,
    source="PSL10 include/seam_sigstruct.h",
    doc="The same as P-SEAMLDR 1.0 reads it: no handoff, no IDT.",
)

RESERVED = ("reserved0", "reserved1", "reserved2", "reserved3")

RESERVED3_SEEN = Layout("RESERVED3_SEEN", (
    Field("update", u8, "UPDATE_VERSION", 0), Field("byte_1", u8, "0 in all that were seen", 1),
    Field("minor", u8, "MINOR_VERSION", 2), Field("major", u8, "MAJOR_VERSION", 3), Field("build", u16, "BUILD_NUM", 4),
    Field("byte_6", u8, "not known", 6), Field("rest", Raw(17), "0 in all that were seen", 7),
), size=24, source="SEAMREF errata", doc="reserved3 of SEAM_SIGSTRUCT as released 2.0 modules fill it (inferred).")
"""The reserved areas of 1.5, in the order P-SEAMLDR looks at them."""

SIGNED = ((0, 128), (900, 2048))
"""[start, end) of the bytes that are signed: modulus, exponent and signature are cut out, not zeroed."""

PRODUCTION_KEY_HASH = bytes.fromhex(
    "c8572f548869a0beca19376b81c2dffc2a23b5a5f71da0b87579b43f408daa1a33bad9c149eb56c634f883737968a34c"
)
"""SHA-384 of the modulus, as stored, of the key that signs Intel's released modules (PSL intel_key_hash.h; BIN)."""

FORMER_KEY_HASHES = {
    "v0": bytes.fromhex(
        "d294229c92ba645e16a5998c2e231fd7392360d40fd0279994c76aa45b0c2e728864dc09c03782cd189d645158487f88"),
    "v1": bytes.fromhex(
        "8d5646b26cabd9e991598c55c6bc46602f4545354aeedf81c25c778b6b8d6e64b49ae3233042a3c5655ba65fa41a2222"),
}
"""Constants that stand unused beside the production one (PSL intel_key_hash.h)."""


@implements("SIG.signed", "the signature covers bytes [0,128) and [900,2048); modulus, exponent and signature are cut "
            "out", "PSL src/common/crypto/rsa.c; BIN 11 releases", MEASURED)
def signed_bytes(sigstruct: Buffer) -> bytes:
    """SIG.signed: the 1276 bytes of a 2048-byte SEAM_SIGSTRUCT that are signed."""
    return b"".join(bytes(sigstruct[start:end]) for start, end in SIGNED)


@implements("SIG.key_hash", "the signer is known by the SHA-384 of the 384 modulus bytes in stored order",
            "PSL src/common/crypto/intel_key_hash.h; BIN 11 releases", MEASURED)
def key_hash(modulus: Buffer) -> bytes:
    """SIG.key_hash: 48 bytes that name a signer; ``modulus`` is little-endian, as stored."""
    return sha384(modulus).digest()


@implements("SIG.seamhash", "seamhash is the SHA-384 of all pages of the image",
            "PSL seamldr_install.c; BIN 11 releases", MEASURED)
def image_hash(image: Buffer) -> bytes:
    """SIG.seamhash: 48 bytes over an image of whole pages, as it is before relocation."""
    return sha384(image).digest()
