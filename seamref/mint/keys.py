"""Test keys.  Anybody can read their private halves here: they sign test images and must never guard anything.

Made once with `cryptography` and stored as their primes, so that an image signed with them is the same everywhere.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from math import lcm

from seamref.pseamldr import rsa
from seamref.pseamldr.sigstruct import key_hash


@dataclass(frozen=True, slots=True)
class TestKey:
    """An RSA-3072 key pair: ``n`` modulus, ``e`` public and ``d`` private exponent, ``p`` and ``q`` its primes."""

    __test__ = False  # not a class of tests

    name: str
    p: int = field(repr=False)
    q: int = field(repr=False)
    e: int = rsa.EXPONENT

    @property
    def n(self) -> int:
        """The modulus."""
        return self.p * self.q

    @property
    def d(self) -> int:
        """The private exponent."""
        return pow(self.e, -1, lcm(self.p - 1, self.q - 1))

    @property
    def modulus_le(self) -> bytes:
        """384 bytes as SEAM_SIGSTRUCT stores them: least significant first."""
        return self.n.to_bytes(rsa.SIZE, "little")

    @property
    def key_hash(self) -> bytes:
        """SHA-384 of ``modulus_le``: the name by which a loader knows this signer."""
        return key_hash(self.modulus_le)

    def sign(self, message: bytes) -> bytes:
        """PKCS#1 v1.5 with SHA-384: 384 bytes, least significant first."""
        return _sign(self, int.from_bytes(rsa.encoded_message(message), "big")).to_bytes(rsa.SIZE, "little")


@lru_cache(maxsize=1024)
def _sign(key: TestKey, m: int) -> int:
    """m^d mod n by the Chinese remainder theorem, remembered."""
    d = key.d
    a, b = pow(m % key.p, d % (key.p - 1), key.p), pow(m % key.q, d % (key.q - 1), key.q)
    return b + key.q * ((a - b) * pow(key.q, -1, key.p) % key.p)


KEY = TestKey(
    "KEY",
    int(
        "EB4EC343DBC5FD4C60C869567EF8B10D6EE5C2FDA9C778311E4450B747EA045CCEA3F6BE15B5C3C326C2C3C7176D9DED"
        "6C23307F8E26E516F7C5E6CBC47E998982C946D5ECD7850E6924586D2D6711FCD40DBF37509DAE496CE6325DDE94AD61"
        "5351834109BBFE009CC865C957FB5BB27E01C1C29F97D5D09D5B78477B1A7C5705725FF980E4AFD542BD4BBC9ACE9368"
        "D293C093657D7309F6F0344DCACE9EB4E5760085E49B2A559F3178C4779B2BAB8A6D309D29BFC5C400DC37030839E6E9",
        16,
    ),
    int(
        "C34E076EDB67767F9120221C461F06B78DE2FD67C2163666B91868448412F149A57AAC93D1EA94D98A4DA839988C4877"
        "9FE3B90DA3BEFCB0D7C25BFF24FCDF3A2011994BF1C4C8D372C373ABBFC1EC53834762B8A766F27EA73C1A5C69BBCF40"
        "A51AD451F649D813ED40D74C2AE8A0AD9150232A18FA9D2E57F39B766E5237D92AD590F0FE8244A1BE0F4F78791C62BD"
        "A7B651BC17529AE15A8C84FC6995AABC9F50C22C8F8FE7D9F8833D5A720FA75CD83D5872E3ACCD011322A08F5489C53F",
        16,
    ),
)
"""The signer that minted loaders accept."""

OTHER_KEY = TestKey(
    "OTHER_KEY",
    int(
        "ECCF9C1052C7A7920DBD85EC4F6463C1B2A3A905A08709CEEC2AE80802859A095D39BC2F4D685E94ED15D111B2036AD7"
        "CE28BAF38AE52DE5092BA86E4A33B2154F87E442384D559B710EF869CE1D64B9871E72CFB20085C9BB442DC99F5DC596"
        "7B78E800C818619DC2794EA6BC46CE683894E16077B1CA7181CD6CA341EA238E5F40A57C13AE859AA6741FE10D117E18"
        "CBD8342812799DD4DF669073148D85E5D66653FF2FC03212C851E708CC7DA78C501674FE82271E9932450A568535247D",
        16,
    ),
    int(
        "D3245C4253DD0F241829DA341D2238F797C4FD2E5A4E6FC1879F03ECCCFCFDAA389473B871E5AA3472465DB7657CF8F9"
        "6F4614451F76A625492898F0AB5A869725978F5CED1AAF5894FAB19602CE713F0ABC4B90A79ED55BABE2AAEA600AE608"
        "330919F1712A97B04EC66ED096DE037F8E72ADCC32E394EDEE3141272A12576398A3744EFA52B2C68B20F9D047D3B3EA"
        "8C34354DACBE94899701CF833D190B4617BEFFAA5B8FE67A3F10BEC17BD479435AEAC87DC226332A645C9EA9CB7BC787",
        16,
    ),
)
"""A signer that nobody accepts unless told to."""
