"""The tools of mutation testing: what is changed, how it is put in, and the lists that stand in the repository."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest
from mutant_runs import Live, spans
from mutants import EQUIVALENT, ROOMS, ROOT, STORED, equivalents, files_of

SOURCE = '''"""A file to change."""
LIMIT = 4


def early(value):
    return value + 1


KEPT = early(1)


class Box:
    size = 2

    def room(self, value):
        return [v for v in range(value) if v < self.size]


def fits(value):
    return value < LIMIT


ROWS = (
    ("low", lambda value: value < 1),
    ("high", lambda value: value > LIMIT),
)
'''


@pytest.fixture
def loaded(tmp_path: Path) -> tuple[Path, ModuleType, Live]:
    path = tmp_path / "changed_file.py"
    path.write_text(SOURCE)
    live = Live(tmp_path, ["changed_file.py"])
    spec = importlib.util.spec_from_file_location("changed_file", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    before = sys.getprofile()
    sys.setprofile(live.watch)
    try:
        spec.loader.exec_module(module)
    finally:
        sys.setprofile(before)
    live.gather()
    return path, module, live


@pytest.mark.parametrize(("before", "after", "ask", "was", "becomes"), [
    ("return value < LIMIT", "return value <= LIMIT", lambda m: m.fits(4), False, True),
    ("if v < self.size", "if v <= self.size", lambda m: m.Box().room(9), [0, 1], [0, 1, 2]),
    ("lambda value: value > LIMIT", "lambda value: value >= LIMIT", lambda m: m.ROWS[1][1](4), False, True),
    ("lambda value: value < 1", "lambda value: value < 2", lambda m: m.ROWS[0][1](1), False, True),
])
def test_put__a_change_within_a_function_acts_in_the_live_module(
    loaded: tuple[Path, ModuleType, Live], before: str, after: str, ask: object, was: object, becomes: object
) -> None:
    path, module, live = loaded
    assert before in SOURCE and ask(module) == was  # type: ignore[operator]
    assert live.put(str(path), SOURCE, SOURCE.replace(before, after))
    assert ask(module) == becomes  # type: ignore[operator]


@pytest.mark.parametrize(("before", "after"), [
    ("LIMIT = 4", "LIMIT = 5"), ("size = 2", "size = 3"), ("value + 1", "value - 1"), ("early(1)", "early(2)"),
    ('"low"', '"lower"'),
])
def test_put__what_acts_on_import_needs_a_new_import(
    loaded: tuple[Path, ModuleType, Live], before: str, after: str
) -> None:
    path, module, live = loaded
    assert not live.put(str(path), SOURCE, SOURCE.replace(before, after))
    assert module.KEPT == 2 and module.early(1) == 2


def test_spans__the_lambda_or_statement_around_a_place() -> None:
    lines = SOURCE.split("\n")
    high = next(n for n, line in enumerate(lines, 1) if "high" in line)
    assert spans(SOURCE)(high, lines[high - 1].index(">")) == (high, high)
    assert spans(SOURCE)(high, lines[high - 1].index("high")) == (high - 2, high + 1)


def test_make__nothing_is_changed_in_annotations_words_and_for_the_type_checker(tmp_path: Path) -> None:
    pytest.importorskip("cosmic_ray")
    from mutants import difference, make, mutate

    source = '''from typing import TYPE_CHECKING
if TYPE_CHECKING:
    LIMIT = 7
def say(value: int | None = None) -> str | None:
    kept: "int" = 3
    if value is None or value != 0:
        return f"{value + 1} or {value - 1}"
    return str(value == kept)
'''
    (tmp_path / "said.py").write_text(source)
    made = make(tmp_path, "said.py")
    changed = {" ".join(difference(source, mutate(source, m))[1]) for m in made}
    assert {m.line for m in made} == {5, 6, 8} and len({m.key for m in made}) == len(made)
    assert "if value is not None or value != 0:" in changed and "return str(value <= kept)" in changed
    assert not any("value > 0" in text or "value == None" in text for text in changed)


def test_equivalent_mutants__each_names_a_line_that_is_there_and_says_why() -> None:
    listed = equivalents()
    sources = {file: {line.strip() for line in (ROOT / file).read_text().split("\n")}
               for file in {entry["file"] for entry in listed}}
    rooms = {file for room in ROOMS.values() for file in files_of(ROOT, room.sources)}
    for entry in listed:
        assert set(entry) == {"file", "line", "changed", "reason"} and entry["file"] in rooms
        assert entry["line"] in sources[entry["file"]], entry
        assert entry["changed"] not in sources[entry["file"]] and len(entry["reason"].split()) > 4, entry
    keys = [(entry["file"], entry["line"], entry["changed"]) for entry in listed]
    assert len(set(keys)) == len(keys) and EQUIVALENT.exists()


def test_figures__of_the_mutants_that_were_tried_95_of_100_are_noticed() -> None:
    found = json.loads(STORED.read_text())
    assert set(found) == {source for room in ROOMS.values() for source in room.sources}
    for source, row in found.items():
        assert row["killed"] + row["equivalent"] + len(row["alive"]) == row["tried"] <= row["mutants"], source
        assert row["killed"] >= 0.95 * (row["tried"] - row["equivalent"]), source
