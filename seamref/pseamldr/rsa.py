"""RSA-3072 with PKCS#1 v1.5 and SHA-384, as the loader's crypto library verifies it.

Python integers and :mod:`hashlib`; memoised, because a session of INSTALL on 448 processors verifies one signature
and an explorer verifies the same one a million times.
"""

from __future__ import annotations

from functools import lru_cache
from hashlib import sha384

from seamref.errors import SeamrefError
from seamref.spec import MEASURED, implements

SIZE = 384
"""Bytes of a modulus and of a signature."""

EXPONENT = 0x10001

DIGEST_INFO = bytes.fromhex("3041300d060960864801650304020205000430")
"""DER of the DigestInfo of SHA-384, up to the hash: parameters are an explicit NULL (RFC8017 section 9.2)."""

PREFIX = b"\x00\x01" + b"\xff" * (SIZE - 3 - len(DIGEST_INFO) - 48) + b"\x00" + DIGEST_INFO


@implements("RSA.verify", "s^e mod n, 384 bytes big-endian, is 00 01 FF*314 00, DigestInfo of SHA-384, hash: every "
            "byte compared", "PSL src/common/crypto/rsa.c; RFC8017 section 8.2.2")
def verify(modulus: bytes, signature: bytes, message: bytes, *, exponent: int = EXPONENT, strict: bool = False) -> bool:
    """RSA.verify: whether ``signature`` is the signer's over ``message``.

    ``modulus`` and ``signature`` are 384 bytes, least significant first, as SEAM_SIGSTRUCT stores them.
    ``strict`` refuses a signature at or above the modulus, as RFC8017 demands and Intel's library does not.
    A modulus of zero verifies nothing.
    """
    if len(modulus) != SIZE or len(signature) != SIZE:
        raise SeamrefError(f"RSA-3072: modulus of {len(modulus)}, signature of {len(signature)} bytes, must be {SIZE}")
    n = int.from_bytes(modulus, "little")
    s = int.from_bytes(signature, "little")
    if n == 0:
        return False
    if s >= n:
        if strict:
            return False
        s = reduce_signature(s, n)
    return power(s, exponent, n).to_bytes(SIZE, "big") == encoded_message(message)


@implements("RSA.reduced", "a signature that is not below the modulus is reduced, not refused: s+n below 2^3072 "
            "verifies like s", "PSLV; RFC8017 section 8.2.2", MEASURED)
def reduce_signature(s: int, n: int) -> int:
    """RSA.reduced: the signature that Intel's library goes on with."""
    return s % n


@lru_cache(maxsize=4096)
def power(s: int, e: int, n: int) -> int:
    """s^e mod n, remembered."""
    return pow(s, e, n)


def encoded_message(message: bytes) -> bytes:
    """EMSA-PKCS1-v1_5 of a message for RSA-3072 and SHA-384: 384 bytes, big-endian (RFC8017 section 9.2)."""
    return PREFIX + sha384(message).digest()
