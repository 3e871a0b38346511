"""What a step may touch, as three bit sets, and when two steps commute.

Shared things have names (:data:`THINGS`).  A step reads some, writes some, and does to some an operation that commutes
with itself and with nothing else (adding one to a counter, taking a lock as one more reader).  Two steps of different
actors are independent when nothing that one writes or adds to is touched by the other in another way.
"""

from __future__ import annotations

from functools import lru_cache, reduce
from typing import NamedTuple

from seamref.errors import SeamrefError

THINGS = {
    "update.state": "the state that stop_machine's workers follow",
    "update.acks": "how many workers acknowledged it",
    "update.failed": "whether any worker failed",
    "update.results": "what the workers returned, in order",
    "update": "that an update is under way, and which CPUs take part",
    "kernel": "tdx_module_state and what else the kernel knows of the module",
    "kernel.cpus": "other CPUs' flags",
    "seamldr_lock": "the raw spinlock around P-SEAMLDR calls",
    "sysinit_lock": "the raw spinlock around TDH.SYS.INIT",
    "p_seamldr": "P-SEAMLDR: its mutex, its transfer VMCS, its data",
    "ready": "the SEAMEXTEND register",
    "seamdb": "SEAMDB",
    "entropy": "RDRAND",
    "module": "the TDX module's image, tables and everything not named below",
    "module.state": "SYS_STATE",
    "module.lock": "GLOBAL_LOCK",
    "module.busy": "the busy flags of all processors' local data",
    "module.lps": "NUM_INIT_LPS",
    "tds": "TDs' control structures and memory",
    "image": "SEAMLDR_PARAMS, sigstruct and module pages in host memory",
    "hotplug": "which CPUs are online, and who holds that off",
}
"""Everything that two actors can both touch."""

_BIT = {name: 1 << index for index, name in enumerate(THINGS)}
_MODULE = sum(bit for name, bit in _BIT.items() if name.startswith("module"))


class Accesses(NamedTuple):
    """Sets of things: read, written, added to."""

    reads: int = 0
    writes: int = 0
    adds: int = 0

    def __or__(self, other: tuple[int, ...]) -> Accesses:
        return Accesses(self[0] | other[0], self[1] | other[1], self[2] | other[2])

    def conflicts(self, other: Accesses) -> bool:
        """Whether the order of two such steps can matter."""
        ours, theirs = self.reads | self.adds, other.reads | other.adds
        return bool(
            self.writes & (theirs | other.writes) or other.writes & ours
            or self.adds & other.reads or other.adds & self.reads
        )

    def covers(self, other: Accesses) -> bool:
        """Whether these say at least as much (a write says everything)."""
        return not (other.writes & ~self.writes or other.adds & ~(self.adds | self.writes)
                    or other.reads & ~(self.reads | self.writes))

    def words(self) -> str:
        """Names, for people."""
        parts = []
        for verb, bits in (("reads", self.reads), ("writes", self.writes), ("adds to", self.adds)):
            names = [name for name, bit in _BIT.items() if bits & bit]
            if names:
                parts.append(f"{verb} {', '.join(names)}")
        return "; ".join(parts) or "nothing shared"


def _bits(names: str) -> int:
    total = 0
    for name in names.split():
        if name not in _BIT:
            raise SeamrefError(f"no shared thing is called {name!r}")
        total |= _MODULE if name == "module" else _BIT[name]
    return total


@lru_cache(maxsize=256)
def touch(*, reads: str = "", writes: str = "", adds: str = "") -> Accesses:
    """Accesses by names, separated by spaces; ``module`` stands for all of the module."""
    return Accesses(_bits(reads), _bits(writes), _bits(adds))


def union(*several: Accesses) -> Accesses:
    """All of them."""
    return reduce(Accesses.__or__, several, NOTHING)


NOTHING = Accesses()
EVERYTHING = Accesses(0, sum(_BIT.values()), 0)
