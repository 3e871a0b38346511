"""CPUID configuration of a TD: which bits TD_PARAMS may set, as data, and what TDH.MNG.INIT makes of them.

Facts of TDXM and TDXN include/auto_gen/cpuid_configurations.c.
"""

from __future__ import annotations

from typing import NamedTuple

from seamref.arch.cpuid import Cpuid
from seamref.tdxmodule.demands import CPUID_SAME, LEVEL_TYPES, WHOLE


class Configurable(NamedTuple):
    """A leaf that TD_PARAMS configures: bits taken as given (``direct``), bits that may be switched off (``allow``)."""

    leaf: int
    subleaf: int
    direct: Cpuid
    allow: Cpuid

    @property
    def id(self) -> int:
        """Leaf and subleaf as metadata and RCX have them."""
        return self.leaf | self.subleaf << 32


_NONE = Cpuid(0, 0, 0, 0)
_CACHE = Cpuid(0xFFFFC3FF, 0xFFFFF000, 0xFFFFFFFF, 0xFFFFFFFB)
_LEVEL = Cpuid(0x1F, 0xFFFF, 0xFFFF, 0)
CONFIGURABLE: tuple[Configurable, ...] = (
    Configurable(1, WHOLE, Cpuid(0xFFF3FFF, 0xFF0000, 0, 0), Cpuid(0, 0, 0x31044D88, 0xB8440000)),
    *(Configurable(4, sub, _CACHE, _NONE) for sub in (0, 1, 2)),
    Configurable(4, 3, _CACHE._replace(edx=7), _NONE),
    Configurable(7, 0, _NONE, Cpuid(0, 0xDC2B9B18, 0x2417F65, 0x5411C)),
    Configurable(7, 1, _NONE, Cpuid(0x4001D30, 0, 0, 0x430)),
    Configurable(0xA, WHOLE, _NONE, _NONE),
    Configurable(0x1C, WHOLE, _NONE, Cpuid(0xFF, 0, 0, 0)),
    Configurable(0x80000008, WHOLE, _NONE, Cpuid(0, 0x200, 0, 0)),
    Configurable(7, 2, _NONE, Cpuid(0, 0, 0, 0x28)),
    Configurable(0x23, 0, _NONE, Cpuid(0xF, 0, 0, 0)),
    *(Configurable(0x1F, sub, _LEVEL, _NONE) for sub in range(6)),
)
"""In the order of TD_PARAMS.CPUID_CONFIG and of the metadata fields CPUID_CONFIG_LEAVES and CPUID_CONFIG_VALUES."""
TOPOLOGY_AT = 12
"""Index of leaf 1FH subleaf 0: 1.5.01 has the leaves before it."""
_ALLOW_7_1_IN_1_5_01 = Cpuid(0x1D30, 0, 0, 0)


def configurable(later: bool) -> tuple[Configurable, ...]:
    """The leaves of 1.5.05 and later, or of 1.5.01."""
    if later:
        return CONFIGURABLE
    return tuple(row._replace(allow=_ALLOW_7_1_IN_1_5_01) if (row.leaf, row.subleaf) == (7, 1) else row
                 for row in CONFIGURABLE[:TOPOLOGY_AT])


def levels_wrong(levels: tuple[Cpuid, ...]) -> bool:
    """Whether a virtual leaf 1FH is not understood: it is all 0, or its levels ascend and a core level is there."""
    if not any(levels[0]):
        return any(any(level) for level in levels)
    before, core = 0, False
    for level in levels:
        kind = level.ecx >> 8 & 0xFF
        if kind:
            if kind <= before or kind >= LEVEL_TYPES:
                return True
            core = core or kind == 2
        elif not core:
            return True
        before = kind
    return False


LOOKED_UP = tuple((leaf, subleaf) for leaf, subleaf, _ in CPUID_SAME)
"""The order in which TDH.MNG.INIT comes to the leaves: the module's table of leaves, not TD_PARAMS'."""


def in_lookup_order(later: bool) -> list[tuple[int, Configurable]]:
    """Index in TD_PARAMS.CPUID_CONFIG and row, as TDH.MNG.INIT comes to them."""
    return sorted(enumerate(configurable(later)), key=lambda one: LOOKED_UP.index((one[1].leaf, one[1].subleaf)))


ALLOWED_FMS = (0xD06D0, 0xA06E0, 0xA06D0, 0xA06F0, 0xC06F2, 0x806F8)
"""Family, model and latest stepping that a migratable TD may ask for, the newest first (TDXM cpuid_fms.c)."""
STEPPING = 0xF


def fms_allowed(platform: int, asked: int) -> bool | None:
    """Whether a migratable TD may have this FMS: the platform's model or an older one of the table, no later stepping.

    ``None``: the platform is no model of the table, on which the module stops.
    """
    if asked & ~STEPPING == platform & ~STEPPING and asked & STEPPING > platform & STEPPING:
        return False
    start = next((i for i, fms in enumerate(ALLOWED_FMS) if not (fms ^ platform) & ~STEPPING), None)
    if start is None:
        return None
    return any(not (fms ^ asked) & ~STEPPING and asked & STEPPING <= fms & STEPPING for fms in ALLOWED_FMS[start:])


ARCH_CAPABILITIES_CONFIG = 1 << 4 | 1 << 19 | 1 << 20 | 1 << 24
"""IA32_ARCH_CAPABILITIES bits that TD_PARAMS may configure: SSB_NO, RRSBA, BHI_NO, PBRSB_NO."""
