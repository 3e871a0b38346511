"""RSA-3072 signatures as loaders verify them, and where the standard says something else."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from hashlib import sha384
from typing import Any

from seamref import mint
from seamref.arch.rsa import DIGEST_INFO, EXPONENT, SIZE, encoded_message
from seamref.export.form import Answer, Case, Flag, Hex, Item, Octets, VectorSet, hexed, number
from seamref.mint.keys import _sign
from seamref.pseamldr.rsa import verify

MESSAGE = b"seamref kit"
KEY = mint.KEY


def _raw(encoded: bytes) -> int:
    """The number whose e-th power is this encoded message."""
    return _sign(KEY, int.from_bytes(encoded, "big"))


def _le(value: int) -> bytes:
    return value.to_bytes(SIZE, "little")


def _case(id: str, comment: str, signature: int | bytes, *, modulus: int = KEY.n, exponent: int = EXPONENT,
          message: bytes = MESSAGE) -> Case:
    given = signature if isinstance(signature, bytes) else _le(signature)
    return Case(f"rsa-{id}", comment, {
        "modulus": _le(modulus).hex(), "exponent": hexed(exponent), "signature": given.hex(), "message": message.hex()})


def _encodings() -> Iterator[tuple[str, str, bytes]]:
    """Encoded messages that are not as EMSA-PKCS1-v1_5 makes them, signed all the same."""
    good = encoded_message(MESSAGE)
    digest = sha384(MESSAGE).digest()

    def padded(info: bytes, fill: bytes = b"\xff", head: bytes = b"\x00\x01") -> bytes:
        return head + fill * (SIZE - 3 - len(info)) + b"\x00" + info

    yield "good", "as the standard encodes it", good
    for at in (0, 1, 2, 100, SIZE - len(DIGEST_INFO) - 48 - 2, SIZE - len(DIGEST_INFO) - 49, SIZE - 60, SIZE - 48,
               SIZE - 1):
        changed = bytearray(good)
        changed[at] ^= 1
        if changed[0] == 0:
            yield f"byte-{at}", f"bit 0 of byte {at} changed", bytes(changed)
    yield "type-2", "block type 02", padded(DIGEST_INFO + digest, head=b"\x00\x02")
    yield "zero-fill", "padded with 00", padded(DIGEST_INFO + digest, fill=b"\x00")
    yield "no-null", "DigestInfo without the NULL parameter", padded(
        bytes.fromhex("303f300b0609608648016503040202") + bytes.fromhex("0430") + digest)
    yield "sha256", "DigestInfo of SHA-256 before a SHA-384 hash", padded(
        bytes.fromhex("3041300d060960864801650304020105000430") + digest)
    yield "long-length", "DER length in the long form", padded(
        bytes.fromhex("308141300d060960864801650304020205000430") + digest)
    short = b"\x00\x01" + b"\xff" * 8 + b"\x00" + DIGEST_INFO + digest
    yield "short-padding", "8 bytes of padding, garbage behind the hash", short + bytes(SIZE - len(short))
    yield "no-separator", "no 00 before DigestInfo", b"\x00\x01" + b"\xff" * (SIZE - 2 - len(DIGEST_INFO) - 48) + \
        DIGEST_INFO + digest
    yield "hash-of-other", "the hash of another message", padded(DIGEST_INFO + sha384(b"other").digest())


def _cases() -> Iterator[Case]:
    for id, comment, encoded in _encodings():
        yield _case(id, comment, _raw(encoded))
    good = _raw(encoded_message(MESSAGE))
    if good + KEY.n < 1 << 8 * SIZE:
        yield _case("plus-n", "signature plus modulus: the same number modulo n", good + KEY.n)
    for message in (b"", b"a", bytes(range(256)), b"x" * 5000):
        small = next((m for m in _variants(message) if _raw(encoded_message(m)) + KEY.n < 1 << 8 * SIZE), None)
        yield _case(f"message-{len(message)}", f"a message of {len(message)} bytes", _raw(encoded_message(message)),
                    message=message)
        if small is not None:
            yield _case(f"message-{len(small)}-plus-n", "its signature plus the modulus",
                        _raw(encoded_message(small)) + KEY.n, message=small)
    for name, value in {"zero": 0, "one": 1, "n-1": KEY.n - 1, "n": KEY.n, "n+1": KEY.n + 1,
                        "all-ones": (1 << 8 * SIZE) - 1}.items():
        yield _case(f"signature-{name}", f"signature {name}", value)
    yield _case("minus", "n minus the signature", KEY.n - good)
    yield _case("big-endian", "the signature in the other byte order", _le(good)[::-1])
    yield _case("other-key", "signed by another key", int.from_bytes(mint.OTHER_KEY.sign(MESSAGE), "little"))
    yield _case("other-modulus", "verified with another key", good, modulus=mint.OTHER_KEY.n)
    for name, modulus in {"zero": 0, "one": 1, "even": KEY.n - 1}.items():
        yield _case(f"modulus-{name}", f"modulus {name}", good, modulus=modulus)
    for exponent in (0, 1, 3, 0x10000):
        yield _case(f"exponent-{exponent:x}", f"exponent 0x{exponent:X}", good, exponent=exponent)
    yield _case("exponent-1-encoded", "exponent 1, the encoded message itself as the signature",
                int.from_bytes(encoded_message(MESSAGE), "big"), exponent=1)


def _variants(message: bytes) -> Iterator[bytes]:
    """The message with a byte behind it, which makes another signature."""
    for suffix in range(64):
        yield message + bytes([suffix])


def _answer(given: Mapping[str, Any], revision: str) -> Answer:
    modulus, signature = bytes.fromhex(given["modulus"]), bytes.fromhex(given["signature"])
    good = verify(modulus, signature, bytes.fromhex(given["message"]), exponent=number(given["exponent"]),
                  strict=revision == "RFC8017")
    n, s = int.from_bytes(modulus, "little"), int.from_bytes(signature, "little")
    return Answer({"verifies": good}, ("RSA.verify", *(("RSA.reduced",) if n and s >= n else ())))


SET = VectorSet(
    "rsa", "RSA-3072 signatures",
    ("RSASSA-PKCS1-v1_5 with SHA-384 and a 3072-bit modulus, as P-SEAMLDR verifies SEAM_SIGSTRUCT: good signatures, "
     "encodings that are almost right, numbers at and beyond the modulus, other exponents.",
     "Modulus and signature are 384 bytes, least significant byte first, as SEAM_SIGSTRUCT stores them.  The standard "
     "refuses a signature that is not below the modulus; the loader reduces it."),
    (Item("modulus", Octets(SIZE), "n"), Item("exponent", Hex(32), "e"), Item("signature", Octets(SIZE), "s"),
     Item("message", Octets(), "what was signed")),
    (Item("verifies", Flag(), "whether the signature is good"),),
    {"P-SEAMLDR": "as the loader's library does", "RFC8017": "as section 8.2.2 says"}, _cases, _answer, small=10,
)
