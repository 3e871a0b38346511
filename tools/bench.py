"""Run every benchmark and print one report: figures of this run, and ratios between them.

Benchmarks are modules ``tools/bench_*.py`` with a function ``benchmarks()`` that yields :class:`Bench`, or a
line of text.  Nothing here is a test: a slow machine gives other figures, the ratios are what carries over.

    python tools/bench.py [NAME ...] [--json FILE]

Two checkouts are measured side by side by ``tools/beside.py``.
"""

from __future__ import annotations

import argparse
import importlib
import json
import platform
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Bench:
    """One measurement: ``run`` does the work ``count`` times; ``against`` names another to compare with."""

    name: str
    run: Callable[[], object]
    count: int = 1
    unit: str = "run"
    against: str = ""
    repeat: int = 3


@dataclass(frozen=True)
class Figure:
    """What was measured: best of the repeats, seconds per unit."""

    name: str
    seconds: float
    unit: str
    against: str


def measure(bench: Bench) -> Figure:
    """Best of ``repeat`` runs."""
    best = float("inf")
    for _ in range(bench.repeat):
        start = time.perf_counter()
        bench.run()
        best = min(best, time.perf_counter() - start)
    return Figure(bench.name, best / bench.count, bench.unit, bench.against)


def human(seconds: float) -> str:
    """Seconds with a unit that fits."""
    for factor, unit in ((1, "s"), (1e3, "ms"), (1e6, "us"), (1e9, "ns")):
        if seconds * factor >= 1:
            return f"{seconds * factor:.3g} {unit}"
    return f"{seconds:.3g} s"


def main() -> int:
    """Run the benchmarks whose module name contains one of the arguments."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="only modules bench_NAME")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    args = parser.parse_args()
    sys.path[:0] = [str(HERE), str(HERE.parent)]
    figures: dict[str, Figure] = {}
    print(f"Python {platform.python_version()} on {platform.machine()}\n")
    for path in sorted(HERE.glob("bench_*.py")):
        topic = path.stem.removeprefix("bench_")
        if args.names and topic not in args.names:
            continue
        print(f"{topic}:")
        for bench in importlib.import_module(path.stem).benchmarks():
            if isinstance(bench, str):  # a line of the report that is no measurement of its own
                print(f"  {bench}", flush=True)
                continue
            figure = figures[bench.name] = measure(bench)
            line = f"  {bench.name:58} {human(figure.seconds):>10} per {bench.unit}"
            if figure.seconds < 1:
                line += f"  {1 / figure.seconds:>12,.0f} /s"
            if figure.against in figures:
                line += f"  ({figure.seconds / figures[figure.against].seconds:.2f} x {figure.against})"
            print(line, flush=True)
    if args.json:
        args.json.write_text(json.dumps([asdict(figure) for figure in figures.values()], indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.modules.setdefault("bench", sys.modules["__main__"])
    sys.exit(main())
