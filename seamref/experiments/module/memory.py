"""The module's data region: its parts, and how much of each holds something."""

from __future__ import annotations

from seamref.arch.platform import Platform
from seamref.tdxmodule.look import Look
from seamref.tdxmodule.structures import PAGE


def data_parts(platform: Platform) -> list[tuple[str, int, int]]:
    """(name, base, size) of the parts of the module's data region."""
    look = Look(platform)
    parts = [("handoff", look.data, look.handoff_size)] if look.handoff_size else []
    parts += [(f"processor {i}", look.data + look.handoff_size + i * look.local_size, look.local_size)
              for i in range(look.n)]
    at = look.glob.base
    end = look.data + look.table.num("data_rgn_size")
    parts += [("global data", at, end - PAGE - at), ("canary page", end - PAGE, PAGE)]
    return parts


def filled(platform: Platform, base: int, size: int) -> int:
    """Bytes of a range that are not zero."""
    return size - Look(platform).dram.read(base, size).count(0)
