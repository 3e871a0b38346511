"""Benchmarks of the explorer: time to the full verdict of the merged update, beside a hand-written Promela model.

``benchmarks()`` is for ``tools/bench.py``.  Run as a program it prints the two side by side, N = 2 to 6 for Spin (if it
is installed) and 2 to 16 for the explorer:

    python tools/bench_explore.py [--cpus N ...] [--spin N ...] [--store]
    python tools/bench_explore.py --verdicts 8 16 [--scenarios NAME ...] [--limit SECONDS]

With ``--store`` Spin's counts go to the file that the book's plot reads; counts do not depend on the machine.  With
``--verdicts`` every scenario is explored with so many CPUs, each in a process of its own that may use ``--limit``
seconds of CPU time: verdict, counts, CPU time and memory are kept in book/proofs/speed.jsonl, line by line as they come
(a case that is there already is not run again; delete the file to begin anew).
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
MODEL = ROOT / "book" / "proofs" / "update.pml"
STORED = ROOT / "book" / "proofs" / "spin.json"
VERDICTS = ROOT / "book" / "proofs" / "speed.jsonl"

CASE = """
import json, resource, sys, time
name, cpus = sys.argv[1], int(sys.argv[2])
from seamref.explore.engine import explore
from seamref.explore.scenarios import get_scenario
get_scenario(name).make(cpus)
began = time.process_time()
found = explore(name, cpus)
spent = time.process_time() - began
memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
print(json.dumps({"scenario": name, "cpus": cpus, "verdict": found.verdict if found.broken or found.complete else "",
                  "states": found.states, "transitions": found.transitions, "cpu_seconds": round(spent, 1),
                  "MiB": memory}))
"""


class Spun(NamedTuple):
    """What Spin found: states stored, errors, seconds of the verifier alone."""

    states: int
    errors: int
    seconds: float


def spin(cpus: int, *, reduce: bool = False, defines: tuple[str, ...] = ()) -> Spun | None:
    """Verify the Promela model with Spin; ``None`` where Spin or a C compiler is missing."""
    if shutil.which("spin") is None or shutil.which("cc") is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["spin", f"-DN={cpus}", *(f"-D{d}" for d in defines), "-a", str(MODEL)], cwd=folder, check=True,
                       stdout=subprocess.DEVNULL)
        flags = ["-O2", "-w", "-DSAFETY", *(() if reduce else ("-DNOREDUCE",))]
        subprocess.run(["cc", *flags, "-o", "pan", "pan.c"], cwd=folder, check=True)
        began = time.perf_counter()
        out = subprocess.run(["./pan", "-m1000000", "-w26"], cwd=folder, check=True, capture_output=True,
                             text=True).stdout
        seconds = time.perf_counter() - began
    states = next(int(line.split()[0]) for line in out.splitlines() if "states, stored" in line)
    errors = next(int(line.rsplit(":", 1)[1]) for line in out.splitlines() if "errors:" in line)
    return Spun(states, errors, seconds)


def verdicts(sizes: list[int], names: list[str], limit: int) -> None:
    """Every scenario with so many CPUs, from boot to verdict, in at most ``limit`` s of CPU time behind the boot."""
    import resource

    known = [json.loads(line) for line in VERDICTS.read_text().splitlines()] if VERDICTS.exists() else []
    done = {(row["scenario"], row["cpus"]) for row in known}
    for cpus in sizes:
        for name in names:
            if (name, cpus) in done:
                continue
            ran = subprocess.run(
                [sys.executable, "-c", CASE, name, str(cpus)], cwd=ROOT, capture_output=True, text=True, check=False,
                preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_CPU, (limit + 20, limit + 20)))
            if ran.returncode > 0:
                print(f"{name}, {cpus} CPUs: {ran.stderr.strip().splitlines()[-1]}", flush=True)
                continue
            row = json.loads(ran.stdout) if ran.returncode == 0 else {
                "scenario": name, "cpus": cpus, "verdict": "", "cpu_seconds": limit}
            with VERDICTS.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
            print(row, flush=True)


def benchmarks() -> Iterator[object]:
    """For tools/bench.py: full verdicts, and states per second."""
    from bench import Bench

    from seamref.explore.engine import explore
    from seamref.explore.scenarios import booted

    for cpus in (2, 4, 8):
        booted(cpus)
        states = explore("update", cpus).states
        yield Bench(f"explore: merged update, {cpus} CPUs, per state", partial(explore, "update", cpus), states,
                    "state", repeat=2)
    yield Bench("explore: merged update, 2 CPUs, unreduced",
                partial(explore, "update", 2, symmetry=False, por=False), 1, "verdict", repeat=1)


def main() -> int:
    """The table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cpus", type=int, nargs="*", default=[2, 3, 4, 5, 6, 7, 8, 16])
    parser.add_argument("--spin", type=int, nargs="*", default=[2, 3, 4, 5, 6])
    parser.add_argument("--plain", type=int, nargs="*", default=[2, 3], help="also without any reduction")
    parser.add_argument("--store", action="store_true", help="keep Spin's counts for the book")
    parser.add_argument("--verdicts", type=int, nargs="*", help="explore every scenario with so many CPUs")
    parser.add_argument("--scenarios", nargs="*", default=[], help="only these (for --verdicts)")
    parser.add_argument("--limit", type=int, default=300, help="s of CPU time for one case of --verdicts")
    args = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    if args.verdicts:
        from seamref.explore.scenarios import SCENARIOS

        verdicts(args.verdicts, args.scenarios or list(SCENARIOS), args.limit)
        return 0
    from seamref.explore.engine import explore
    from seamref.explore.scenarios import booted

    print(f"{'N':>3} {'explorer: states':>17} {'stands for':>12} {'s':>7} {'states/s':>9} {'unreduced':>10} {'s':>7} "
          f"{'Promela: states':>16} {'s':>7} {'its own por':>16} {'s':>7}")
    counts: dict[str, dict[str, int]] = {"without reduction": {}, "partial order": {}}
    for cpus in args.cpus:
        booted(cpus)
        result = explore("update", cpus)
        assert result.holds, result.verdict
        line = (f"{cpus:3} {result.states:17,} {result.worlds:12,} {result.seconds:7.1f} "
                f"{result.states / result.seconds:9,.0f}")
        if cpus in args.plain:
            plain = explore("update", cpus, symmetry=False, por=False)
            line += f" {plain.states:10,} {plain.seconds:7.1f}"
        else:
            line += f" {'':10} {'':7}"
        spun = spin(cpus) if cpus in args.spin else None
        if spun is not None:
            counts["without reduction"][str(cpus)] = spun.states
            line += f" {spun.states:16,} {spun.seconds:7.1f}"
            own = spin(cpus, reduce=True)
            assert own is not None
            counts["partial order"][str(cpus)] = own.states
            line += f" {own.states:16,} {own.seconds:7.1f}"
        print(line.rstrip(), flush=True)
    if args.store:
        STORED.write_text(json.dumps(counts) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
