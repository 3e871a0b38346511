"""What no platform and no module can be, asked before anything is made: one place for all who ask."""

from __future__ import annotations

from seamref.arch.platform import Topology
from seamref.errors import SeamrefError
from seamref.pseamldr.api import MAX_MODULE_PAGES, PAGE

MIB = 1 << 20
SEAMRR_MIN, SEAMRR_MAX = 32 * MIB, 1024 * MIB


def check_platform(
    sockets: int, lps: int, addressable: int = 0, *, seamrr: int = 64 * MIB, held: int = 4 * MIB,
) -> None:
    """Refuse a platform that cannot be: packages and processors as Topology, SEAMRR and P_SEAMLDR_RANGE in bytes."""
    Topology(sockets, lps, addressable)
    if seamrr < SEAMRR_MIN or seamrr > SEAMRR_MAX or seamrr & (seamrr - 1):
        raise SeamrefError(f"SEAMRR: 0x{seamrr:X} bytes, must be a power of two, 32 MiB to 1 GiB")
    if held % PAGE or not 0 < held < seamrr:
        raise SeamrefError(f"P_SEAMLDR_RANGE: 0x{held:X} bytes, must be pages in SEAMRR")


def check_pages(pages: int) -> None:
    """Refuse an image that INSTALL can never take (clause INSTALL.params.num_module_pages)."""
    if not 1 <= pages <= MAX_MODULE_PAGES:
        raise SeamrefError(f"num_module_pages: {pages}, must be 1 to {MAX_MODULE_PAGES} "
                           "(clause INSTALL.params.num_module_pages)")
