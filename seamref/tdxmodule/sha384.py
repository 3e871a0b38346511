"""SHA-384 whose unfinished state can be packed into bytes, as a TD's MRTD needs while the TD is being built.

The result is that of :func:`hashlib.sha384`; only the packing is the module's own business, and a module linked with
another library packs differently.  That is what an update during a TD build can stumble over.
"""

from __future__ import annotations

from math import isqrt
from struct import Struct

from seamref.errors import SeamrefError

BLOCK = 128
_MASK = (1 << 64) - 1
_WORDS = Struct(">16Q")
_PACK_1 = Struct("<8QQI4x128s48x")
_PACK_2 = Struct(">Q8QI4x128s48x")
PACKED = 256


def _primes(count: int) -> list[int]:
    found: list[int] = []
    n = 2
    while len(found) < count:
        if all(n % p for p in found):
            found.append(n)
        n += 1
    return found


def _cube_root(n: int) -> int:
    """Floor of the cube root."""
    low, high = 0, 1 << (n.bit_length() // 3 + 1)
    while low < high:
        middle = (low + high + 1) // 2
        if middle**3 <= n:
            low = middle
        else:
            high = middle - 1
    return low


_K = tuple(_cube_root(p << 192) & _MASK for p in _primes(80))
"""Fractions of the cube roots of the first 80 primes (FIPS 180-4)."""
_H0 = tuple(isqrt(p << 128) & _MASK for p in _primes(16)[8:])
"""Fractions of the square roots of the ninth to sixteenth prime."""


def _compress(h: tuple[int, ...], block: bytes) -> tuple[int, ...]:
    w = list(_WORDS.unpack(block))
    for t in range(16, 80):
        x, y = w[t - 15], w[t - 2]
        s0 = (x >> 1 | x << 63) ^ (x >> 8 | x << 56) ^ (x >> 7)
        s1 = (y >> 19 | y << 45) ^ (y >> 61 | y << 3) ^ (y >> 6)
        w.append((w[t - 16] + (s0 & _MASK) + w[t - 7] + (s1 & _MASK)) & _MASK)
    a, b, c, d, e, f, g, hh = h
    for k, wt in zip(_K, w, strict=True):
        s1 = (e >> 14 | e << 50) ^ (e >> 18 | e << 46) ^ (e >> 41 | e << 23)
        t1 = hh + (s1 & _MASK) + (e & f ^ ~e & g) + k + wt
        s0 = (a >> 28 | a << 36) ^ (a >> 34 | a << 30) ^ (a >> 39 | a << 25)
        t2 = (s0 & _MASK) + (a & b ^ a & c ^ b & c)
        hh, g, f, e, d, c, b, a = g, f, e, (d + t1) & _MASK, c, b, a, (t1 + t2) & _MASK
    return tuple((x + y) & _MASK for x, y in zip(h, (a, b, c, d, e, f, g, hh), strict=True))


class Sha384:
    """An unfinished SHA-384."""

    __slots__ = ("buffer", "h", "total")

    def __init__(self) -> None:
        self.h: tuple[int, ...] = _H0
        self.total = 0
        self.buffer = b""

    def update(self, data: bytes) -> None:
        """Take more message bytes."""
        self.total = (self.total + len(data)) & _MASK
        data = self.buffer + data
        while len(data) >= BLOCK:
            self.h = _compress(self.h, data[:BLOCK])
            data = data[BLOCK:]
        self.buffer = data

    def digest(self) -> bytes:
        """The 48 bytes, without changing the state."""
        tail = self.buffer + b"\x80"
        tail += bytes(-(len(tail) + 16) % BLOCK) + (self.total * 8).to_bytes(16, "big")
        h = self.h
        for at in range(0, len(tail), BLOCK):
            h = _compress(h, tail[at : at + BLOCK])
        return b"".join(x.to_bytes(8, "big") for x in h[:6])

    def pack(self, format: int) -> bytes:
        """The state in 256 bytes, in the packed format of a library."""
        match format:
            case 1:
                return _PACK_1.pack(*self.h, self.total, len(self.buffer), self.buffer)
            case 2:
                return _PACK_2.pack(self.total, *self.h, len(self.buffer), self.buffer)
            case _:
                raise SeamrefError(f"packed hash format {format}: there are 1 and 2")

    @classmethod
    def unpack(cls, packed: bytes, format: int) -> Sha384:
        """Read a packed state; bytes of another format are misread without any error, as a library would."""
        if len(packed) != PACKED:
            raise SeamrefError(f"packed hash state: {len(packed)} bytes, must be {PACKED}")
        made = cls()
        match format:
            case 1:
                *h, total, held, buffer = _PACK_1.unpack(packed)
            case 2:
                total, *h, held, buffer = _PACK_2.unpack(packed)
            case _:
                raise SeamrefError(f"packed hash format {format}: there are 1 and 2")
        made.h, made.total, made.buffer = tuple(h), total, buffer[: held % BLOCK]
        return made
