"""RSA-3072 as Intel's library verifies it: against `cryptography`, against Wycheproof, and where it is laxer."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric import rsa as reference
from cryptography.hazmat.primitives.hashes import SHA384
from hypothesis import given, settings
from hypothesis import strategies as st

from seamref.errors import SeamrefError
from seamref.mint.keys import KEY, OTHER_KEY, TestKey
from seamref.pseamldr import rsa

WYCHEPROOF = Path(__file__).resolve().parents[3] / "shared/vectors/wycheproof/rsa_signature_3072_sha384_test.json"

LAX = {
    245: "a signature that is not reduced: s + n below 2^3072 verifies like s, as P-SEAMLDR's recorded calls show",
}
"""tcId of invalid tests that are accepted all the same, and why."""
ACCEPTABLE = {
    8: (False, "DigestInfo without the NULL: the library compares every byte with the one encoding, so it is refused"),
}
"""tcId of the tests that leave the choice: what this verifier does, and why."""


def public(key: TestKey) -> reference.RSAPublicKey:
    return reference.RSAPublicNumbers(key.e, key.n).public_key()


def accepts(key: TestKey, signature: bytes, message: bytes) -> bool:
    try:
        public(key).verify(signature[::-1], message, padding.PKCS1v15(), SHA384())
    except InvalidSignature:
        return False
    return True


def le(value: int) -> bytes:
    return value.to_bytes(rsa.SIZE, "little")


def test_RSA_verify__takes_what_the_key_signed_and_only_that() -> None:
    signature = KEY.sign(b"message")
    assert rsa.verify(KEY.modulus_le, signature, b"message")
    assert rsa.verify(KEY.modulus_le, signature, b"message", strict=True)
    assert not rsa.verify(KEY.modulus_le, signature, b"massage")
    assert not rsa.verify(OTHER_KEY.modulus_le, signature, b"message")
    assert not rsa.verify(KEY.modulus_le, signature, b"message", exponent=3)


@pytest.mark.parametrize("key", [KEY, OTHER_KEY], ids=lambda key: key.name)
def test_signing_makes_what_cryptography_makes(key: TestKey) -> None:
    dp, dq = reference.rsa_crt_dmp1(key.d, key.p), reference.rsa_crt_dmq1(key.d, key.q)
    qinv = reference.rsa_crt_iqmp(key.p, key.q)
    private = reference.RSAPrivateNumbers(
        key.p, key.q, key.d, dp, dq, qinv, reference.RSAPublicNumbers(key.e, key.n)
    ).private_key()
    assert private.sign(b"m" * 1276, padding.PKCS1v15(), SHA384())[::-1] == key.sign(b"m" * 1276)


@settings(max_examples=40, deadline=None)
@given(st.binary(max_size=64), st.integers(0, 383), st.integers(0, 255))
def test_a_changed_signature_is_judged_as_cryptography_judges_it(message: bytes, at: int, flip: int) -> None:
    signature = bytearray(KEY.sign(message))
    signature[at] ^= flip
    if int.from_bytes(signature, "little") < KEY.n:
        assert rsa.verify(KEY.modulus_le, bytes(signature), message) == accepts(KEY, bytes(signature), message)


def signature_below(limit: int) -> tuple[bytes, bytes]:
    """A message whose signature is below a limit."""
    for i in range(10_000):
        message = f"message {i}".encode()
        signature = KEY.sign(message)
        if int.from_bytes(signature, "little") < limit:
            return message, signature
    raise AssertionError("no such signature")


def test_RSA_reduced__s_plus_n_verifies_unless_strict() -> None:
    message, signature = signature_below((1 << 3072) - KEY.n)
    raised = le(int.from_bytes(signature, "little") + KEY.n)
    assert rsa.verify(KEY.modulus_le, raised, message)
    assert not rsa.verify(KEY.modulus_le, raised, message, strict=True)
    assert not accepts(KEY, raised, message)


def test_a_modulus_of_zero_verifies_nothing() -> None:
    assert not rsa.verify(bytes(384), KEY.sign(b""), b"")


@pytest.mark.parametrize(("modulus", "signature"), [(383, 384), (384, 385), (0, 0)])
def test_wrong_lengths_are_the_callers_mistake(modulus: int, signature: int) -> None:
    with pytest.raises(SeamrefError, match="must be 384"):
        rsa.verify(bytes(modulus), bytes(signature), b"")


# --- Wycheproof


@lru_cache
def vectors() -> list[tuple[dict[str, Any], dict[str, Any]]]:
    if not WYCHEPROOF.exists():
        pytest.skip(f"Wycheproof's {WYCHEPROOF.name} is not beside the repository")
    held = json.loads(WYCHEPROOF.read_text(encoding="utf-8"))
    return [(group, test) for group in held["testGroups"] for test in group["tests"]]


def judged(group: dict[str, Any], test: dict[str, Any], *, strict: bool = False) -> bool:
    """A signature of another length than the field's cannot stand in a sigstruct: refused."""
    n, e = int(group["publicKey"]["modulus"], 16), int(group["publicKey"]["publicExponent"], 16)
    signature = bytes.fromhex(test["sig"])
    if len(signature) != rsa.SIZE:
        return False
    return rsa.verify(le(n), signature[::-1], bytes.fromhex(test["msg"]), exponent=e, strict=strict)


def test_the_file_is_the_one_that_was_meant() -> None:
    results = [test["result"] for _, test in vectors()]
    assert {r: results.count(r) for r in ("valid", "invalid", "acceptable")} == {
        "valid": 7, "invalid": 251, "acceptable": 1}


def test_every_valid_signature_is_accepted() -> None:
    refused = [test["tcId"] for group, test in vectors() if test["result"] == "valid" and not judged(group, test)]
    assert refused == []


def test_every_invalid_signature_is_refused_but_the_named_ones() -> None:
    accepted = {test["tcId"] for group, test in vectors() if test["result"] == "invalid" and judged(group, test)}
    assert accepted == set(LAX)


def test_strict_refuses_every_invalid_signature() -> None:
    assert [t["tcId"] for g, t in vectors() if t["result"] == "invalid" and judged(g, t, strict=True)] == []


def test_the_acceptable_one_is_decided() -> None:
    decided = {test["tcId"]: judged(group, test) for group, test in vectors() if test["result"] == "acceptable"}
    assert decided == {id: choice for id, (choice, _) in ACCEPTABLE.items()}
