"""RSA-3072 with PKCS#1 v1.5 and SHA-384, as the loader's crypto library verifies it.

Memoised (:mod:`seamref.arch.rsa`), because a session of INSTALL on 448 processors verifies one signature.
"""

from __future__ import annotations

from seamref.arch.rsa import DIGEST_INFO, EXPONENT, PREFIX, SIZE, encoded_message, power
from seamref.errors import SeamrefError
from seamref.spec import MEASURED, implements

__all__ = [
    "DIGEST_INFO", "EXPONENT", "PREFIX", "SIZE", "encoded_message", "power", "reduce_signature", "verify",
]


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
