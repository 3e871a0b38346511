"""What is built into a P-SEAMLDR image: a block of bytes directly behind the 64-byte stub at its entry point."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from seamref.arch.software import STUB
from seamref.errors import SeamrefError
from seamref.layout import Field, Layout, Raw, reserved, u16, u32
from seamref.pseamldr.sigstruct import PRODUCTION_KEY_HASH

R10, R15 = "1.0", "1.5"
"""The two published generations."""
REVISIONS = (R10, R15)

BUILD_OFFSET = STUB.size
"""Bytes from the entry point to the block."""

P_SEAMLDR_BUILD = Layout(
    "P_SEAMLDR_BUILD",
    (
        Field("revision", Raw(8), "generation in ASCII: 1.0 or 1.5", 0),
        Field("version", u32, "SEAMLDR_INFO.version", 8),
        Field("attributes", u32, "SEAMLDR_INFO.attributes; bit 31 in debug builds", 12),
        Field("vendor_id", u32, "SEAMLDR_INFO.vendor_id", 16),
        Field("build_date", u32, "SEAMLDR_INFO.build_date, decimal YYYYMMDD", 20),
        Field("build_num", u16, "SEAMLDR_INFO.build_num", 24),
        Field("minor", u16, "SEAMLDR_INFO.minor", 26),
        Field("major", u16, "SEAMLDR_INFO.major", 28),
        reserved("reserved", 2, 30),
        Field("signer_key_hash", Raw(48), "SHA-384 of the only accepted signer's modulus", 32),
    ),
    size=80,
    source="SEAMREF",
    doc="Constants that the real loader is compiled with.",
)


@dataclass(frozen=True, slots=True)
class Build:
    """The constants of one build of P-SEAMLDR; the defaults are those of the published 1.5 source."""

    revision: str = R15
    version: int = 0
    attributes: int = 0
    vendor_id: int = 0x8086
    build_date: int = 20240129
    build_num: int = 0
    minor: int = 5
    major: int = 1
    signer_key_hash: bytes = PRODUCTION_KEY_HASH

    def __post_init__(self) -> None:
        if self.revision not in REVISIONS:
            raise SeamrefError(f"P_SEAMLDR_BUILD.revision at 0x0: {self.revision!r}, must be one of {REVISIONS}")
        if len(self.signer_key_hash) != 48:
            size = len(self.signer_key_hash)
            raise SeamrefError(f"P_SEAMLDR_BUILD.signer_key_hash at 0x20: {size} bytes, must be 48")

    def encode(self) -> bytes:
        """The 80 bytes of the block."""
        return P_SEAMLDR_BUILD.encode({
            "revision": self.revision.encode().ljust(8, b"\0"),
            "version": self.version,
            "attributes": self.attributes,
            "vendor_id": self.vendor_id,
            "build_date": self.build_date,
            "build_num": self.build_num,
            "minor": self.minor,
            "major": self.major,
            "signer_key_hash": self.signer_key_hash,
        })


@lru_cache(maxsize=64)
def decode_build(block: bytes) -> Build:
    """The constants that the bytes behind an entry stub hold."""
    held = P_SEAMLDR_BUILD.decode(block)
    return Build(
        bytes(held.revision).rstrip(b"\0").decode("ascii", "replace"), held.version, held.attributes, held.vendor_id,
        held.build_date, held.build_num, held.minor, held.major, held.signer_key_hash,
    )
