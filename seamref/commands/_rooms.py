"""The rooms of the machine, imported as far as a question needs: what a module declares is found in its text first."""

from __future__ import annotations

import gc
import re
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from types import ModuleType

import seamref
from seamref.layout import Layout

ROOMS = ("arch", "firmware", "pseamldr", "tdxmodule", "mint", "bootchain", "host", "explore",
         "diagnose", "conformance")
CLAUSES, LAYOUTS = r"\bclause\(|\bCheck\(|\bimplements\b", r"\bLayout\("
"""What the text of a module has that declares clauses, or structures."""


@lru_cache(maxsize=1)
def _texts() -> dict[str, str]:
    """Module -> its source, in the order of names."""
    folder = Path(seamref.__file__).parent
    found = {}
    for room in ROOMS:
        for path in [folder / f"{room}.py", *(folder / room).rglob("*.py")]:
            if path.is_file():
                parts = path.relative_to(folder.parent).with_suffix("").parts
                found[".".join(parts).removesuffix(".__init__")] = path.read_text(encoding="utf-8")
    return dict(sorted(found.items()))


def import_rooms(having: str = "") -> list[ModuleType]:
    """The modules of all rooms whose text has this pattern, imported, in the order of their names."""
    was = gc.isenabled()
    gc.disable()  # declarations stay: looking for garbage among them costs a fifth of the time
    try:
        return [import_module(name) for name, text in _texts().items() if re.search(having, text)]
    finally:
        if was:
            gc.enable()


def import_clauses(id: str | None) -> None:
    """Import what declares or carries a clause; without an id, or where nobody writes it as it is, every clause."""
    from seamref.spec import CLAUSES as known

    if id is not None:
        import_rooms(rf'\b(?:Check|clause|implements)\([^()]*"{re.escape(id)}"')
    if id is None or id not in known:
        import_rooms(CLAUSES)


def layouts(name: str | None = None) -> dict[str, Layout]:
    """Every declared layout by its name, or only those of modules that write this name, where there are some.

    Of two with one name the first in the order of modules.
    """
    found: dict[str, Layout] = {}
    wanted = import_rooms(rf'(?i:Layout\(\s*"{re.escape(name)}")') if name else []
    for module in wanted or import_rooms(LAYOUTS):
        for value in vars(module).values():
            if isinstance(value, Layout):
                found.setdefault(value.name, value)
    return dict(sorted(found.items()))
