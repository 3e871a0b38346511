"""Linear-address translation with 4-level paging, as a processor in SEAM root (or an ACM) does it.

Only what the loaders' page tables use: 4 KiB and 2 MiB leaves, P, RW, U, XD.  5-level paging, protection keys and
shadow-stack attributes are not modelled.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from seamref.arch.areas import is_canonical
from seamref.arch.lp import Lp
from seamref.arch.memory import MEMORY, Agent, get_agent
from seamref.arch.outcome import Fault, Vector
from seamref.spec import clause, implements

if TYPE_CHECKING:
    from seamref.arch.platform import Platform

P, RW, US, A, D, PS, XD = 1 << 0, 1 << 1, 1 << 2, 1 << 5, 1 << 6, 1 << 7, 1 << 63
ADDRESS = 0x000FFFFFFFFFF000


@dataclass(frozen=True, slots=True)
class Translation:
    """A successful walk: physical address, the entries from PML4 down, bytes left to the end of the page."""

    physical: int
    entries: tuple[int, ...]
    page_size: int

    @property
    def writable(self) -> bool:
        return all(entry & RW for entry in self.entries)

    @property
    def executable(self) -> bool:
        return not any(entry & XD for entry in self.entries)


clause("PAGING.walk", "4-level walk: P in every entry, canonical address", "SDM vol. 3A ch. 5")


@implements("PAGING.walk")
def walk(
    platform: Platform, root: int, linear: int, *, agent: Agent, lp: Lp | None = None, write: bool = False,
    fetch: bool = False,
) -> Translation | Fault:
    """PAGING.walk: translate ``linear`` through the PML4 at ``root``; #PF with its error code, #GP if not canonical."""
    if not is_canonical(linear):
        return Fault(Vector.GP, 0, "PAGING.walk")
    if platform.listeners or MEMORY.observers or lp is None or platform.config.keyid_separate:
        return _walk(platform, root, linear, agent, lp, write, fetch)[0]
    # The same tables give the same answer to the same software: remembered until a page of them is written.
    get = lp.msrs.get
    key = (root, linear >> 12, id(agent), write, fetch, platform.p_seamldr_range, get(_BASE, 0),
           get(_MASK, 0), platform.keyid_bits, platform.tdx_keyid_bits, id(MEMORY._counted))
    held = platform.store_.held
    known = _WALKED.get(key)
    if known is not None:
        rows, pages, at, entries, size = known
        if rows is MEMORY._counted and all(held(number) == (page, version) for number, page, version in pages):
            platform.walked(at)
            return Translation((entries[-1] & ADDRESS & ~(size - 1)) | linear & (size - 1), entries, size)
    found, places = _walk(platform, root, linear, agent, lp, write, fetch)
    if isinstance(found, Translation):
        if len(_WALKED) > 20_000:
            _WALKED.clear()
        numbers = [platform.split(place)[1] >> 12 for place in places]
        _WALKED[key] = MEMORY._counted, [(number, *held(number)) for number in numbers], places, found.entries, \
            found.page_size
    return found


_BASE, _MASK = 0x1400, 0x1401  # IA32_SEAMRR_PHYS_BASE, _MASK (seamref.arch.msr imports this package's walk)
_WALKED: dict[tuple[Any, ...], tuple[Any, list[tuple[int, Any, int]], tuple[int, ...], tuple[int, ...], int]] = {}


def _walk(
    platform: Platform, root: int, linear: int, agent: Agent, lp: Lp | None, write: bool, fetch: bool
) -> tuple[Translation | Fault, tuple[int, ...]]:
    """The walk itself, and where the entries lie."""
    table = root & ADDRESS
    places: list[int] = []
    entries: list[int] = []
    for level in (39, 30, 21, 12):
        places.append(table + (linear >> level & 0x1FF) * 8)
        data = platform.load(agent, places[-1], 8, lp)
        if isinstance(data, Fault):
            return data, ()
        entry = int.from_bytes(data, "little")
        entries.append(entry)
        if not entry & P:
            return Fault(Vector.PF, write << 1 | fetch << 4, "PAGING.walk"), ()
        if level == 12 or (level == 21 and entry & PS):
            size = 1 << level
            found = Translation((entry & ADDRESS & ~(size - 1)) | linear & (size - 1), tuple(entries), size)
            if (write and not found.writable) or (fetch and not found.executable):
                return Fault(Vector.PF, 1 | write << 1 | fetch << 4, "PAGING.walk"), ()
            return found, tuple(places)
        table = entry & ADDRESS
    raise AssertionError("the last level returns")


def translate(
    platform: Platform, lp: Lp, linear: int, *, write: bool = False, fetch: bool = False
) -> Translation | Fault:
    """Translate as the processor is now: its CR3, its agent."""
    return walk(platform, lp.cr3, linear, agent=get_agent(lp), lp=lp, write=write, fetch=fetch)


def leaves(platform: Platform, root: int, *, agent: Agent = Agent.CPU) -> Iterator[tuple[int, int, int]]:
    """(linear, entry, page size) of every non-zero leaf below a PML4, ascending by the 48-bit address.

    A leaf is a non-zero 4 KiB entry, present or not, or a present 2 MiB entry.
    """

    def table(at: int) -> Iterator[tuple[int, int]]:
        data = platform.bytes_at(agent, at, 4096)
        if any(data):
            for index in range(512):
                entry = int.from_bytes(data[index * 8 : index * 8 + 8], "little")
                if entry:
                    yield index, entry

    for i, pml4e in table(root & ADDRESS):
        for j, pdpte in table(pml4e & ADDRESS):
            for k, pde in table(pdpte & ADDRESS):
                base = i << 39 | j << 30 | k << 21
                if i >= 256:
                    base |= 0xFFFF << 48
                if pde & PS:
                    yield base, pde, 1 << 21
                    continue
                for m, pte in table(pde & ADDRESS):
                    yield base | m << 12, pte, 1 << 12
