"""Sparse DRAM: pages on demand, forked by copy on write, with a canonical fingerprint.

This is storage only.  Who may touch which address, and with which KeyID, is :mod:`seamref.arch.memory`.
A page that was never written reads as zero.  Each 64-byte line remembers the KeyID it was last written with.
"""

from __future__ import annotations

from collections.abc import Container, Iterator
from hashlib import blake2b

PAGE = 4096
LINE = 64
CHUNK = 512  # pages in a chunk: 2 MiB
_ZERO = bytes(PAGE)


class _Page:
    """4096 bytes; ``keys`` is one KeyID for all lines, or a list of 64."""

    __slots__ = ("data", "digest", "keys", "version")

    def __init__(self, data: bytearray, keys: int | list[int]) -> None:
        self.data = data
        self.keys = keys
        self.digest: bytes | None = None
        self.version = 0  # how often it was about to be written

    def copy(self) -> _Page:
        keys = self.keys
        return _Page(bytearray(self.data), keys if isinstance(keys, int) else list(keys))

    def fingerprint(self) -> bytes:
        if self.digest is None:
            if self.keys == 0 and self.data == _ZERO:
                self.digest = b""
            else:
                keys = self.keys
                salt = b"" if keys == 0 else repr(keys).encode()
                self.digest = blake2b(bytes(self.data) + salt, digest_size=16).digest()
        return self.digest


class _Chunk:
    """Up to 512 pages with one owner; a chunk whose owner is not the asking store is copied before writing."""

    __slots__ = ("digest", "note", "owned", "owner", "pages", "parts")

    def __init__(self, owner: object, pages: dict[int, _Page]) -> None:
        self.owner = owner
        self.pages = pages
        self.owned: set[int] = set()
        self.digest: bytes | None = None
        self.note: tuple[object, bytes] | None = None  # what digest_without computed, and for which pages
        self.parts: tuple[object, tuple[bytes, ...]] | None = None  # what somebody else computed from its pages

    def fingerprint(self) -> bytes:
        if self.digest is None:
            parts = [
                index.to_bytes(2, "little") + digest
                for index in sorted(self.pages)
                if (digest := self.pages[index].fingerprint())
            ]
            self.digest = blake2b(b"".join(parts), digest_size=16).digest() if parts else b""
        return self.digest


class Store:
    """Bytes by address.  Addresses carry no KeyID bits; the KeyID is an argument."""

    __slots__ = ("_chunks", "_token")

    def __init__(self) -> None:
        self._chunks: dict[int, _Chunk] = {}
        self._token = object()

    def fork(self) -> Store:
        """An independent copy that shares every page until one side writes it."""
        other = Store()
        other._chunks = dict(self._chunks)
        self._token = object()  # what was ours is now shared: both sides copy before writing
        return other

    # --- reading

    def read(self, address: int, size: int) -> bytes:
        """``size`` bytes as they lie in DRAM after decryption with the KeyID they were written with."""
        page, at = divmod(address, PAGE)
        if at + size <= PAGE:
            chunk = self._chunks.get(page // CHUNK)
            if chunk is None:
                return bytes(size)
            found = chunk.pages.get(page % CHUNK)
            if found is None:
                return bytes(size)
            return bytes(found.data) if size == PAGE else bytes(found.data[at : at + size])
        parts = []
        while size:
            part = min(size, PAGE - address % PAGE)
            parts.append(self.read(address, part))
            address += part
            size -= part
        return b"".join(parts)

    def read_owned(self, address: int, size: int, key: int) -> bytes | None:
        """The bytes, if they lie in one page all of whose lines were last written with KeyID ``key``; else ``None``."""
        page, at = divmod(address, PAGE)
        if at + size > PAGE:
            return None
        chunk = self._chunks.get(page // CHUNK)
        held = chunk.pages.get(page % CHUNK) if chunk is not None else None
        if held is None:
            return bytes(size) if key == 0 else None
        if held.keys != key:
            return None
        return bytes(held.data) if size == PAGE else bytes(held.data[at : at + size])

    def keys(self, address: int, size: int) -> set[int]:
        """The KeyIDs with which the lines of a range were last written (0 where never)."""
        found: set[int] = set()
        line = address // LINE
        last = (address + max(size, 1) - 1) // LINE
        while line <= last:
            page, index = divmod(line, PAGE // LINE)
            chunk = self._chunks.get(page // CHUNK)
            held = chunk.pages.get(page % CHUNK) if chunk is not None else None
            until = min(last, page * (PAGE // LINE) + PAGE // LINE - 1)
            if held is None:
                found.add(0)
            elif isinstance(held.keys, int):
                found.add(held.keys)
            else:
                found.update(held.keys[index : index + until - line + 1])
            line = until + 1
        return found

    # --- writing

    def _chunk(self, number: int) -> _Chunk:
        """The chunk, ready to be written by this store."""
        chunk = self._chunks.get(number)
        if chunk is None:
            chunk = self._chunks[number] = _Chunk(self._token, {})
        elif chunk.owner is not self._token:
            chunk = self._chunks[number] = _Chunk(self._token, dict(chunk.pages))
        chunk.digest = chunk.note = chunk.parts = None
        return chunk

    def _page(self, page: int) -> _Page:
        """The page, ready to be written by this store."""
        number, index = divmod(page, CHUNK)
        chunk = self._chunk(number)
        held = chunk.pages.get(index)
        if held is None:
            held = chunk.pages[index] = _Page(bytearray(PAGE), 0)
            chunk.owned.add(index)
        elif index not in chunk.owned:
            held = chunk.pages[index] = held.copy()
            chunk.owned.add(index)
        held.digest = None
        held.version += 1
        return held

    def held(self, page: int) -> tuple[_Page | None, int]:
        """What tells a page's contents from any other: the object, and its version."""
        chunk = self._chunks.get(page // CHUNK)
        found = chunk.pages.get(page % CHUNK) if chunk is not None else None
        return found, 0 if found is None else found.version

    def write(self, address: int, data: bytes | bytearray | memoryview, key: int = 0) -> None:
        """Write ``data``; every line touched is now owned by KeyID ``key``."""
        size = len(data)
        page, at = divmod(address, PAGE)
        if at + size <= PAGE:
            if size == PAGE:  # nothing of it stays
                number, index = divmod(page, CHUNK)
                chunk = self._chunk(number)
                chunk.pages[index] = _Page(bytearray(data), key)
                chunk.owned.add(index)
            elif size:
                held = self._page(page)
                held.data[at : at + size] = data
                if held.keys != key:
                    self._own(held, at, size, key)
            return
        view = memoryview(data)
        done = 0
        while done < size:
            part = min(size - done, PAGE - (address + done) % PAGE)
            self.write(address + done, view[done : done + part], key)
            done += part

    @staticmethod
    def _own(page: _Page, at: int, size: int, key: int) -> None:
        first, last = at // LINE, (at + size - 1) // LINE
        if first == 0 and last == PAGE // LINE - 1:
            page.keys = key
            return
        keys = [page.keys] * (PAGE // LINE) if isinstance(page.keys, int) else page.keys
        keys[first : last + 1] = [key] * (last - first + 1)
        page.keys = keys[0] if len(set(keys)) == 1 else keys

    def zero(self, address: int, size: int) -> None:
        """Write zeros with KeyID 0; whole pages and chunks are simply forgotten."""
        end = address + size
        head = min(size, -address % PAGE)
        if head:
            self.write(address, bytes(head))
        address += head
        tail = (end - address) % PAGE if end > address else 0
        if tail:
            self.write(end - tail, bytes(tail))
            end -= tail
        page, last = address // PAGE, end // PAGE
        while page < last:
            number, index = divmod(page, CHUNK)
            count = min(CHUNK - index, last - page)
            if number in self._chunks:
                if count == CHUNK:
                    del self._chunks[number]
                else:
                    chunk = self._chunks[number]
                    if any(index <= i < index + count for i in chunk.pages):
                        if chunk.owner is not self._token:
                            chunk = self._chunks[number] = _Chunk(self._token, dict(chunk.pages))
                        chunk.digest = chunk.note = chunk.parts = None
                        for i in [i for i in chunk.pages if index <= i < index + count]:
                            del chunk.pages[i]
                            chunk.owned.discard(i)
            page += count

    # --- looking at all of it

    def pages(self, first: int = 0, last: int = 1 << 52) -> Iterator[tuple[int, bytes]]:
        """(address, 4096 bytes) of each page in [first, last) that is not all zero, ascending."""
        for number in sorted(self._chunks):
            base = number * CHUNK
            if (base + CHUNK) * PAGE <= first or base * PAGE >= last:
                continue
            pages = self._chunks[number].pages
            for index in sorted(pages):
                at = (base + index) * PAGE
                if first <= at < last and pages[index].data != _ZERO:
                    yield at, bytes(pages[index].data)

    def page_digest(self, page: int) -> bytes:
        """Digest of one page (by number), empty for a page of zeros; equal digests: equal bytes and line KeyIDs."""
        chunk = self._chunks.get(page // CHUNK)
        found = chunk.pages.get(page % CHUNK) if chunk is not None else None
        return b"" if found is None else found.fingerprint()

    def digest_without(self, left_out: Container[int]) -> bytes:
        """Like :meth:`fingerprint`, without some pages (by number).

        The same container object is answered from what is known.
        """
        parts: list[bytes] = []
        for number in sorted(self._chunks):
            chunk = self._chunks[number]
            if chunk.note is None or chunk.note[0] is not left_out:
                base = number * CHUNK
                pages = [
                    index.to_bytes(2, "little") + digest
                    for index in sorted(chunk.pages)
                    if base + index not in left_out and (digest := chunk.pages[index].fingerprint())
                ]
                chunk.note = left_out, blake2b(b"".join(pages), digest_size=16).digest() if pages else b""
            if chunk.note[1]:
                parts.append(number.to_bytes(6, "little") + chunk.note[1])
        return blake2b(b"".join(parts), digest_size=16).digest()

    def fingerprint(self) -> bytes:
        """16 bytes that depend on contents and line KeyIDs only, not on how they came about."""
        parts = [
            number.to_bytes(6, "little") + digest
            for number in sorted(self._chunks)
            if (digest := self._chunks[number].fingerprint())
        ]
        return blake2b(b"".join(parts), digest_size=16).digest()
