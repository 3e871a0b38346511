"""What the rooms declare: every layout, wherever it stands."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from importlib import import_module
from pkgutil import walk_packages

import seamref
from seamref.errors import SeamrefError
from seamref.layout import Array, FieldType, Layout

ROOMS = ("arch", "firmware", "pseamldr", "tdxmodule", "bootchain", "host")
"""The rooms that declare what others share with us; the others make test images, or only look."""


@lru_cache(maxsize=1)
def import_rooms() -> tuple[str, ...]:
    """Import every module of the rooms; their names in order."""
    names = [found.name for room in ROOMS
             for found in walk_packages([f"{seamref.__path__[0]}/{room}"], f"seamref.{room}.")]
    for name in names:
        import_module(name)
    return tuple(sorted(names))


def layouts() -> dict[str, Layout]:
    """Every layout by its name, those inside others too; one name for two different structures is a mistake."""
    found: dict[str, Layout] = {}
    for module in import_rooms():
        for value in vars(import_module(module)).values():
            if isinstance(value, Layout):
                for layout in _with_parts(value):
                    known = found.setdefault(layout.name, layout)
                    if known.fields != layout.fields or known.size != layout.size:
                        raise SeamrefError(f"{module}: structure {layout.name} is declared differently elsewhere")
    return dict(sorted(found.items()))


def _with_parts(layout: Layout) -> Iterator[Layout]:
    for field in layout.fields:
        inner: FieldType = field.type
        while isinstance(inner, Array):
            inner = inner.of
        if isinstance(inner, Layout):
            yield from _with_parts(inner)
    yield layout
