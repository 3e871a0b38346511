"""How much SEAM memory a module needs: plans, edges found by running, page tables walked, pictures of all that."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from seamref import mint
from seamref.arch.outcome import Shutdown
from seamref.arch.paging import ADDRESS
from seamref.arch.platform import Platform
from seamref.experiments.loader.lab import Attempt, Session
from seamref.pseamldr.api import CODE_REGION, PAGE, Status
from seamref.pseamldr.memory_constants import (
    INSTALL_MEMORY,
    MemoryConstants,
    MemoryState,
    ModuleShape,
    addressable_lps,
    compute_memory_constants,
    shape_of,
)
from seamref.pseamldr.sigstruct import SEAM_SIGSTRUCT


def shape(build: str = "1.5.06", pages: int = 8, **fields: Any) -> ModuleShape:
    """What a minted build of ``pages`` image pages asks for; ``fields`` override its sigstruct."""
    signed = mint.sigstruct(mint.module_image(build, pages=pages), **fields)
    return shape_of(SEAM_SIGSTRUCT.decode(signed), pages)


def plan(wanted: ModuleShape, lps: int = 2, sockets: int = 1, seamrr: int = 64 << 20, held: int = 4 << 20,
         aslr: int = 0, revision: str = "1.5") -> MemoryConstants:
    """The memory constants for a platform of ``lps`` addressable processors on each of ``sockets`` sockets.

    ``seamrr`` and ``held`` (P_SEAMLDR_RANGE) in bytes; SEAMRR ends at 2 GiB.
    """
    base = (2 << 30) - seamrr
    return compute_memory_constants(wanted, addressable_lps(lps, sockets), aslr, base, base + seamrr - held, revision)


def fits(constants: MemoryConstants) -> bool:
    """Whether P-SEAMLDR's size check lets a plan pass."""
    return INSTALL_MEMORY.decide(MemoryState(1, constants), "1.5") is None


def largest_planned(build: str = "1.5.06", **where: Any) -> int:
    """The largest num_global_data_pages that the size check lets pass."""
    wanted = shape(build)
    return _largest(lambda g: fits(plan(replace(wanted, num_global_data_pages=g), **where)))


def _largest(holds: Callable[[int], bool]) -> int:
    low, high = 0, 0xFFFF
    while low < high:
        middle = (low + high + 1) // 2
        if holds(middle):
            low = middle
        else:
            high = middle - 1
    return low


def smallest_seamrr(wanted: ModuleShape, lps: int, sockets: int, held: int = 4 << 20) -> int | None:
    """The smallest SEAMRR (a power of two from 32 MiB) whose module range the size check accepts, up to 4 GiB."""
    for shift in range(25, 33):
        constants = compute_memory_constants(
            wanted, addressable_lps(lps, sockets), 0, 1 << 40, (1 << 40) + (1 << shift) - held
        )
        if fits(constants):
            return 1 << shift
    return None


# --- the edge, executed


@dataclass(frozen=True, slots=True)
class Stage:
    """Neighbouring sizes with the same end: ``first`` to ``last`` num_global_data_pages."""

    answer: str
    first: int
    last: int
    session: Session


def answer_of(session: Session) -> str:
    """How an INSTALL ended, in a word or three."""
    last = session.last
    if isinstance(last.outcome, Shutdown):
        return "UD2: shutdown"
    return last.answer + ("" if last.status is Status.SUCCESS else f", RDX = {last.rdx}")


def edge(attempt: Attempt | None = None, around: int = 16, **on: Any) -> list[Stage]:
    """INSTALL for growing num_global_data_pages across the edge of a platform: where the answer changes.

    ``around`` pages to each side of what the size check lets pass are executed, one INSTALL for each.
    """
    tried = attempt or Attempt(old=None)
    where = {"lps": on.get("lps", 2), "sockets": on.get("sockets", 1), "seamrr": on.get("seamrr", 64 << 20),
             "held": on.get("range_size", 4 << 20)}
    middle = largest_planned(tried.build, **where)
    stages: list[Stage] = []
    for size in range(middle - around, middle + around // 4 + 1):
        session = replace(tried, sig={**tried.sig, "num_global_data_pages": size}, on=on).run()
        answer = answer_of(session)
        if stages and stages[-1].answer == answer:
            stages[-1] = replace(stages[-1], last=size)
        else:
            stages.append(Stage(answer, size, size, session))
    return stages


# --- the parts of a plan


@dataclass(frozen=True, slots=True)
class Part:
    """A stretch of the module range: where it lies and what it is for."""

    name: str
    base: int
    size: int
    tone: str
    what: str


def parts(constants: MemoryConstants, tables_end: int | None = None) -> list[Part]:
    """The module range of a plan, ascending.  ``tables_end`` is the next free table page after an INSTALL."""
    c = constants
    low = tables_end + PAGE if tables_end is not None else c.stack_region_physbase - c.paging_structure_size
    found = [
        Part("SYS_INFO_TABLE", c.seamrr_base, PAGE, "teal", "for the module: where everything lies"),
        Part("VMCSs", c.seamrr_base + PAGE, c.vmcs_region_size, "violet", "one page for each addressable processor"),
        Part("handoff data", c.data_region_physbase, c.handoff_data_size, "amber", "the only bytes an UPDATE keeps"),
        Part("global data", c.data_region_physbase + c.handoff_data_size + c.local_data_size * c.num_addressable_lps,
             c.global_data_size, "green", "shared by all processors"),
        Part("local data", c.data_region_physbase + c.handoff_data_size, c.local_data_size * c.num_addressable_lps,
             "teal", "of each processor"),
        Part("free", c.data_region_end, low - c.data_region_end, "quiet", "never mapped"),
        Part("page tables", low, c.stack_region_physbase - low, "red", "PML4 on top, the others downward"),
        Part("stacks", c.stack_region_physbase, c.stack_region_size, "blue", "data stack and shadow stack of each"),
        Part("code", c.code_region_physbase, c.code_region_size, "violet", "the image"),
        Part("rest of 2 MiB", c.code_region_physbase + c.code_region_size, CODE_REGION - c.code_region_size, "quiet",
             "set aside for code"),
    ]
    return sorted((part for part in found if part.size > 0), key=lambda part: part.base)


def needs(constants: MemoryConstants) -> list[tuple[str, int]]:
    """The terms of the size formula, in its order."""
    c = constants
    return [
        ("SYS_INFO_TABLE", c.seamcfg_region_size), ("VMCSs", c.vmcs_region_size), ("stacks", c.stack_region_size),
        ("data", c.data_region_size), ("page tables, estimated", c.paging_structure_size), ("code", CODE_REGION),
    ]


# --- page tables, walked


@dataclass(frozen=True, slots=True)
class Run:
    """Consecutive 4 KiB leaves with the same attributes: linear and physical start, count, attribute bits."""

    linear: int
    physical: int
    count: int
    attributes: int


def runs(platform: Platform, root: int) -> list[Run]:
    """Every leaf below a PML4, neighbours joined, as the processor would find them."""
    from seamref.arch.paging import leaves

    found: list[Run] = []
    for linear, entry, _ in leaves(platform, root):
        physical, attributes = entry & ADDRESS, entry & ~ADDRESS
        if found:
            last = found[-1]
            if (linear, physical, attributes) == (
                last.linear + last.count * PAGE, last.physical + last.count * PAGE, last.attributes
            ):
                found[-1] = replace(last, count=last.count + 1)
                continue
        found.append(Run(linear, physical, 1, attributes))
    return found


def table_pages_used(platform: Platform, session: Session) -> int:
    """Page-table pages taken, the PML4 among them."""
    constants = session.plan
    assert constants is not None
    after: int = session.last.computed["current_pt_physbase"]
    return (constants.pml4_physbase - after) // PAGE


def attributes_text(attributes: int) -> str:
    """P RW U A D XD of an entry."""
    names = [(1 << 0, "P"), (1 << 1, "RW"), (1 << 2, "U"), (1 << 5, "A"), (1 << 6, "D"), (1 << 63, "XD")]
    return " ".join(name for bit, name in names if attributes & bit)


__all__ = [
    "Part", "Run", "Stage", "answer_of", "attributes_text", "edge", "fits", "largest_planned", "needs", "parts", "plan",
    "runs", "shape", "smallest_seamrr", "table_pages_used",
]
