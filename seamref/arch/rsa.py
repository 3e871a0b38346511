"""RSA-3072 with PKCS#1 v1.5 and SHA-384: the arithmetic that the processor and the loaders share.

Memoised, because an explorer verifies the same signature a million times.
"""

from __future__ import annotations

from functools import lru_cache
from hashlib import sha384

SIZE = 384
"""Bytes of a modulus and of a signature."""

EXPONENT = 0x10001

DIGEST_INFO = bytes.fromhex("3041300d060960864801650304020205000430")
"""DER of the DigestInfo of SHA-384, up to the hash: parameters are an explicit NULL (RFC8017 section 9.2)."""

PREFIX = b"\x00\x01" + b"\xff" * (SIZE - 3 - len(DIGEST_INFO) - 48) + b"\x00" + DIGEST_INFO


@lru_cache(maxsize=4096)
def power(s: int, e: int, n: int) -> int:
    """s^e mod n, remembered."""
    return pow(s, e, n)


def encoded_message(message: bytes) -> bytes:
    """EMSA-PKCS1-v1_5 of a message for RSA-3072 and SHA-384: 384 bytes, big-endian (RFC8017 section 9.2)."""
    return PREFIX + sha384(message).digest()


def is_signed(modulus: bytes, signature: bytes, message: bytes) -> bool:
    """Whether ``signature`` (below the modulus, both least significant byte first) is the signer's over ``message``."""
    n, s = int.from_bytes(modulus, "little"), int.from_bytes(signature, "little")
    return s < n and power(s, EXPONENT, n).to_bytes(SIZE, "big") == encoded_message(message)
