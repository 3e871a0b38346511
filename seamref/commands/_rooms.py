"""Every room of the machine, imported, so that every clause, table and layout has registered itself."""

from __future__ import annotations

from importlib import import_module
from pkgutil import walk_packages

import seamref
from seamref.layout import Layout

ROOMS = ("arch", "firmware", "pseamldr", "tdxmodule", "mint", "bootchain", "host", "explore",
         "diagnose", "conformance")


def import_rooms() -> list[object]:
    """The modules of all rooms, in the order of their names."""
    modules: list[object] = []
    for info in walk_packages(seamref.__path__, "seamref."):
        if info.name.split(".")[1] in ROOMS:
            modules.append(import_module(info.name))
    return modules


def layouts() -> dict[str, Layout]:
    """Every declared layout by its name; of two with one name the first in the order of modules."""
    found: dict[str, Layout] = {}
    for module in import_rooms():
        for value in vars(module).values():
            if isinstance(value, Layout):
                found.setdefault(value.name, value)
    return dict(sorted(found.items()))
