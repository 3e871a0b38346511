"""Recorded vectors, changed by one value: what ``conform`` must name, or see the difference of, and never trip over.

    python tools/mutate_vectors.py [COUNT] [SEED] [ROOM...]

Each mutant is a document with one case in which one value was replaced, left out, added or spelled otherwise.  A
mutant is malformed, differs or agrees; an exception is a finding, and so is a changed expectation that still agrees
(:data:`INFORMATIVE` lists what a format carries for people).  ``tests/conformance`` runs a sample.
"""

from __future__ import annotations

import copy
import json
import pickle
import random
import re
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
VECTORS = ROOT / "tests" / "conformance" / "vectors"
SLOW = 20.0
"""Seconds of processor time that no mutant may take."""

ODD: tuple[Any, ...] = (
    None, True, False, -1, 0, 1, 2, 7, 255, 4095, 4096, 1 << 16, 1 << 31, (1 << 32) - 1, 1 << 32, 10**9, 1 << 52,
    1 << 63, (1 << 64) - 1, 1 << 64, 10**40, 1.5, "", "0x", "0x0", "0xffffffffffffffff", "0x10000000000000000", "10",
    "zz", "-0x1", "00", "ff" * 7, [], [0], [[0, 1]], [1, 2, 3], {}, {"a": 1}, "INSTALL", "k1", "hex", "shake",
)

INFORMATIVE = {
    "pseamldr": ("id", "group", "note", "mutations", "seamdb", "signature_given", "private_hkid_min"),
    "npseamldr": ("id", "group", "note"),
    "tdxmodule": ("name", "group"),
    "linux": ("id", "policy", "seed", "schedule"),
}


OPTIONAL = re.compile(
    r"(mapping\.runs|written\.sha256|written\.hex|vmclear|expect\.range|range\.sha256"  # P-SEAMLDR
    r"|expect\.(fn|loaded|zeroed|params)|rounds\.\d+\.(results|ret_possible|schedule|params)"  # Linux: unobserved
    r"|expect\.(args|loaded\.\d+)\.\w+)\Z"  # Linux: an absent register is 0
)
"""What a recording may leave out of an expectation."""


NOT_STORED = ("memory.pml4_physbase", "memory.current_pt_physbase")
"""What a loader that dies while mapping has not stored yet: the recording holds what lay there."""


@dataclass(frozen=True, slots=True)
class Mutant:
    """A changed document; ``path`` of the change in words, and whether it is below an expectation."""

    document: dict[str, Any]
    path: str
    how: str
    expected: bool


def one_case(document: dict[str, Any], key: str, index: int) -> dict[str, Any]:
    """The document with one case, and only the recipes that it names."""
    case = document[key][index]
    text = json.dumps(case)
    small = {name: value for name, value in document.items() if name != key}
    for name in ("sigstructs", "images", "prefixes"):
        if name in small:
            small[name] = {id: recipe for id, recipe in small[name].items() if f'"{id}"' in text}
    return copy.deepcopy({**small, key: [case]})


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every value below a document."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield (*path, name)
            yield from places(inner, (*path, name))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield (*path, index)
            yield from places(inner, (*path, index))


def other(value: Any, draw: random.Random) -> Any:
    """A value near ``value``, of its kind."""
    if isinstance(value, bool) or value is None:
        return draw.choice(ODD)
    if isinstance(value, int):
        return value ^ 1 << draw.randrange(64)
    if isinstance(value, str) and value.startswith("0x"):
        try:
            return hex(int(value, 16) ^ 1 << draw.randrange(64))
        except ValueError:
            return value + "0"
    if isinstance(value, str) and value:
        at = draw.randrange(len(value))
        return value[:at] + draw.choice("0123456789abcdefz") + value[at + 1 :]
    if isinstance(value, list) and value:
        return draw.choice((value[:-1], value + value[:1], value[::-1]))
    return draw.choice(ODD)


_parts: dict[tuple[int, int], tuple[dict[str, Any], bytes, list[tuple[Any, ...]]]] = {}
"""One-case documents that were cut out before, packed, and the paths in them; by document (which is held) and index."""


def part(document: dict[str, Any], key: str, index: int) -> tuple[dict[str, Any], list[tuple[Any, ...]]]:
    """A document with one case, of one's own, and the path of every value in it."""
    known = _parts.get((id(document), index))
    if known is None:
        small = one_case(document, key, index)
        known = _parts[id(document), index] = document, pickle.dumps(small), list(places(small))
    return pickle.loads(known[1]), known[2]


def mutant(document: dict[str, Any], key: str, draw: random.Random) -> Mutant:
    """One changed copy of a case that ``draw`` picks."""
    small, paths = part(document, key, draw.randrange(len(document[key])))
    path = draw.choice(paths)
    place: Any = small
    for name in path[:-1]:
        place = place[name]
    last, how = path[-1], draw.choice(("near", "near", "near", "odd", "odd", "drop", "add"))
    if how == "drop":
        del place[last]
    elif how == "add" and isinstance(place, dict):
        place[str(last) + "x"] = place[last]
    else:
        old = place[last]
        place[last] = other(old, draw) if how == "near" else copy.deepcopy(draw.choice(ODD))
    return Mutant(small, ".".join(map(str, path)), how, "expect" in path)


def same(a: Any, b: Any) -> bool:
    """Whether two values of a document mean the same (numbers in either spelling, digits of either case)."""
    def plain(v: Any) -> Any:
        if isinstance(v, dict):
            return {name: plain(inner) for name, inner in v.items()}
        if isinstance(v, list):
            return [plain(inner) for inner in v]
        if isinstance(v, str):
            try:
                return int(v, 16) if v.startswith("0x") else v.lower()
            except ValueError:
                return v
        return v
    return bool(plain(a) == plain(b))


def judge(one: Mutant, room: str) -> tuple[str, str]:
    """(``malformed``, ``differs`` or ``agrees``; a finding or nothing).  Exceptions are not caught here."""
    from seamref.conformance.frame import replay_document

    begun = time.process_time()
    report = replay_document(one.document)
    took = time.process_time() - begun
    verdict = "malformed" if report.malformed else "differs" if report.disagreements else "agrees"
    if took > SLOW:
        return verdict, f"{took:.0f} s"
    if report.code == 0 and not report.cases:
        return verdict, "no case, and yet 0"
    return verdict, ""


def run(rooms: list[str], count: int, seed: int, *, say: bool = False) -> tuple[Counter[str], list[str]]:
    """``count`` mutants of each room: verdicts, and findings in words."""
    from seamref.conformance.reading import read_document

    verdicts: Counter[str] = Counter()
    findings: list[str] = []
    for room in rooms:
        draw = random.Random(f"{seed} {room}")
        document = read_document(VECTORS / room / "sample.json.gz")
        key = "vectors" if room == "linux" else "cases"
        for number in range(count):
            one = mutant(document, key, draw)
            label = f"{room} {seed}/{number} {one.path} {one.how}"
            try:
                verdict, finding = judge(one, room)
            except Exception as error:
                verdict, finding = "raised", f"{type(error).__name__}: {error}"
            verdicts[f"{room}: {verdict}"] += 1
            if verdict == "agrees" and one.expected and not is_harmless(one, document, key, room):
                finding = "a changed expectation agrees"
            if finding:
                findings.append(f"{label}: {finding}")
                if say:
                    print(findings[-1][:300], flush=True)
    return verdicts, findings


def is_harmless(one: Mutant, document: dict[str, Any], key: str, room: str) -> bool:
    """Whether the change says nothing else than before, or stands where a format informs people only."""
    case = one.document[key][0] if one.document.get(key) else None
    name = "name" if room == "tdxmodule" else "id"
    was = [old for old in document[key] if isinstance(case, dict) and old.get(name) == case.get(name)]
    if one.how == "drop" and OPTIONAL.search(one.path):
        return True
    if one.path.endswith(NOT_STORED) and isinstance(case, dict) and '"fatal"' in json.dumps(case):
        return True
    return any(same(case, old) for old in was) or any(part in one.path.split(".") for part in INFORMATIVE[room])


def main(args: list[str]) -> int:
    """0: nothing found."""
    from seamref.conformance.registry import replayed

    numbers = [int(arg) for arg in args if arg.isdigit()]
    rooms = [arg for arg in args if not arg.isdigit()] or [row.module for row in replayed()]
    count, seed = (numbers + [1000, 0][len(numbers):])[:2]
    verdicts, findings = run(rooms, count, seed, say=True)
    for name, many in sorted(verdicts.items()):
        print(f"{name:<24} {many:>8}")
    print(f"{'findings':<24} {len(findings):>8}")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    sys.exit(main(sys.argv[1:]))
