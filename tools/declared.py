"""The index of what is declared, by which commands list it without importing every room.

    python tools/declared.py write      after clauses, their functions, structures or sets of the kit have changed
    python tools/declared.py check      says whether it is what the code declares
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from seamref.commands._declared import FILE, carrier, clauses_of_rooms, layouts_of_rooms
from seamref.commands._rooms import import_clauses
from seamref.export import kit


def declared() -> dict[str, Any]:
    """The index, from the code."""
    import_clauses(None)
    return {"clauses": clauses_of_rooms(carrier), "layouts": layouts_of_rooms(), "export": kit.titles()}


def text(found: dict[str, Any]) -> str:
    """The file: a line for each thing, so that two changes seldom meet."""
    def rows(name: str) -> str:
        return f'"{name}": [\n' + ",\n".join(json.dumps(row, ensure_ascii=False) for row in found[name]) + "\n]"

    sets = json.dumps(found["export"], ensure_ascii=False, indent=1)
    return f'{{{rows("clauses")},\n{rows("layouts")},\n"export": {sets}}}\n'


def main(what: str) -> int:
    """Write or check."""
    made = text(declared())
    if what == "write":
        FILE.write_text(made, encoding="utf-8")
        return 0
    if FILE.exists() and FILE.read_text(encoding="utf-8") == made:
        return 0
    print("seamref/commands/declared.json is not what the code declares: run tools/declared.py write", file=sys.stderr)
    return 1


if __name__ == "__main__":
    if sys.argv[1:] not in (["write"], ["check"]):
        sys.exit(__doc__)
    sys.exit(main(sys.argv[1]))
