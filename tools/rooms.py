"""The map of the rooms, printed from the code: each folder of ``seamref`` with its own first sentence.

    python tools/rooms.py            print the map
    python tools/rooms.py write      put it between the marks in CONTRIBUTING.md
    python tools/rooms.py check      exit code 1 where CONTRIBUTING.md holds another one

The order is that of the layers in ``pyproject.toml``, lowest first: a room may import those above it in the map.
"""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "CONTRIBUTING.md"
BEGIN, END = "<!-- rooms: begin (tools/rooms.py) -->", "<!-- rooms: end -->"


def layers() -> list[list[str]]:
    """Rooms of each layer, lowest first, as import-linter holds them."""
    tool = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]
    rows = next(contract["layers"] for contract in tool["importlinter"]["contracts"] if contract["id"] == "layers")
    return [re.findall(r"\w+", row) for row in reversed(rows)]


def says(path: Path) -> str:
    """First sentence of a module's docstring, without reStructuredText marks."""
    doc = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    first = " ".join(doc.split("\n\n")[0].split()).replace("``", "`")
    first = re.sub(r":\w+:`", "`", first)
    return re.split(r"(?<=[.?!])\s+(?=[A-Z])", first)[0].replace("|", "\\|").rstrip(".")


def room_map() -> str:
    """The map as a table of Markdown."""
    lines = ["| Layer | Room | What is in it |", "|---|---|---|"]
    for level, names in enumerate(layers(), 1):
        for name in names:
            for path, shown in _parts(name):
                lines.append(f"| {level} | `seamref/{shown}` | {says(path)} |")
    return "\n".join(lines)


def _parts(name: str) -> list[tuple[Path, str]]:
    """A room's file, and the files of the rooms in it."""
    folder = ROOT / "seamref" / name
    if not folder.is_dir():
        file = folder.with_suffix(".py")
        return [(file, file.name)] if file.exists() else []
    inner = sorted(folder.glob("*/__init__.py"))
    return [(folder / "__init__.py", f"{name}/"), *((path, f"{name}/{path.parent.name}/") for path in inner)]


def main(verb: str = "") -> int:
    """Print, write or check."""
    text = room_map()
    if not verb:
        print(text)
        return 0
    page = PAGE.read_text(encoding="utf-8")
    head, _, rest = page.partition(BEGIN)
    held, _, tail = rest.partition(END)
    if verb == "write":
        PAGE.write_text(f"{head}{BEGIN}\n{text}\n{END}{tail}", encoding="utf-8")
        return 0
    if held.strip() != text:
        print("CONTRIBUTING.md: the map of the rooms is not what the code says; python tools/rooms.py write")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:2]))
