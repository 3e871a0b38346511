"""Measure two checkouts of the project side by side, in turns, in one run: CPU time, best of the turns, and ratios.

Absolute figures are the machine's; what carries over are the ratios.  The same properties and scenarios are asked on
both sides, and the explorer's counts are printed, because a reduction is no speed.

    git worktree add /tmp/before COMMIT
    python tools/beside.py /tmp/before [--turns N] [--store]

With ``--store`` the ratios go to book/proofs/beside.json.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
STORED = ROOT / "book" / "proofs" / "beside.json"

PROBE = """
import json, sys, time
sys.path.insert(0, "tools")
import bench_arch, bench_pseamldr
from seamref.explore.engine import explore
from seamref.explore.scenarios import get_scenario

ASKED = ("one-in-p-seamldr", "nobody-collides", "session-ends", "entered-only-when-ready", "nobody-left-behind",
         "svn-never-falls", "vmcs-kept", "no-deadlock", "success-means-alive", "recoverable-means-untouched",
         "one-identity", "tds-preserved", "callers-succeed")
found = {}
for name, cpus, por in (("update", 8, True), ("tds-during-update", 2, True), ("update", 2, False)):
    get_scenario(name).make(cpus)
    began = time.process_time()
    result = explore(name, cpus, properties=ASKED, shortest=False, por=por)
    spent = time.process_time() - began
    found[f"{name}, {cpus} CPUs{'' if por else ', unreduced'}: s per transition"] = (
        spent / result.transitions, f"{result.states} states, {result.transitions} transitions")
wanted = ("SEAMCALL, program, SEAMRET", "INSTALL, 2 ", "SHA-384", "hash")
for module in (bench_arch, bench_pseamldr):
    for bench in module.benchmarks():
        if not isinstance(bench, str) and any(word in bench.name for word in wanted):
            began = time.process_time()
            bench.run()
            found[f"{bench.name}: s per {bench.unit}"] = (time.process_time() - began) / bench.count, ""
print(json.dumps(found))
"""


def probe(checkout: Path) -> dict[str, tuple[float, str]]:
    """What one checkout takes."""
    done = subprocess.run([sys.executable, "-c", PROBE], cwd=checkout, check=True, capture_output=True, text=True,
                          env={**os.environ, "PYTHONPATH": str(checkout)})
    found: dict[str, tuple[float, str]] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> int:
    """The table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", type=Path, help="another checkout")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--store", action="store_true", help="keep the ratios")
    args = parser.parse_args()
    best: list[dict[str, tuple[float, str]]] = [{}, {}]
    for _ in range(args.turns):
        for side, checkout in enumerate((args.before.resolve(), ROOT)):
            for name, (seconds, counts) in probe(checkout).items():
                held = best[side].get(name)
                if held is None or seconds < held[0]:
                    best[side][name] = seconds, counts
    print(f"{'CPU time':58} {'before':>10} {'now':>10} {'ratio':>6}")
    rows = []
    for name, (before, counted) in best[0].items():
        if name in best[1]:
            now, counts = best[1][name]
            more = f"  {counted} -> {counts}" if counts != counted else f"  {counts}" if counts else ""
            print(f"{name:58} {before * 1e6:8.0f}us {now * 1e6:8.0f}us {before / now:6.2f}{more}", flush=True)
            rows.append({"what": name, "before_us": round(before * 1e6, 1), "now_us": round(now * 1e6, 1),
                         "ratio": round(before / now, 2), "counts": [counted, counts]})
    if args.store:
        STORED.write_text(json.dumps({"turns": args.turns, "rows": rows}, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
