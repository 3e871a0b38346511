"""Platforms at the stages of a module's life, made once; fork what you get."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from seamref.arch.platform import Platform
from seamref.host import vmm


@lru_cache(maxsize=32)
def staged(stage: str, module: str = "1.5.05", sockets: int = 1, lps: int = 2) -> Platform:
    """Installed, or brought up until behind a step of BRING_UP.  Fork it."""
    if stage == "installed":
        return vmm.boot(sockets, lps, module)
    before = {"init": "installed", "lp.init": "init", "config": "lp.init", "key.config": "config",
              "tdmr.init": "key.config"}[stage]
    platform = staged(before, module, sockets, lps).fork()
    vmm.bring_up(platform, until=stage, start=stage)
    return platform


@lru_cache(maxsize=32)
def with_td(until: str = "", module: str = "1.5.05", sockets: int = 1, lps: int = 2, **more: Any) -> tuple[Platform,
            vmm.Td]:
    """A ready platform with a TD built until behind a step (empty: finished).  Fork and copy."""
    platform = staged("tdmr.init", module, sockets, lps).fork()
    return platform, vmm.build_td(platform, until=until, **more)
