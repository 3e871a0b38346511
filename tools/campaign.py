#!/usr/bin/env python3
"""The campaign that a page of the book shows: run it again, and store what it finds beside the chapter.

    python tools/campaign.py [--jobs N] [--passes N]

It goes on where it was when it is started again; start from nothing by removing book/proofs/campaign.jsonl (verdicts
belong to one state of the code, and the command refuses to mix two).
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
STORE = ROOT / "book" / "proofs" / "campaign.jsonl"


@dataclass(frozen=True)
class Pass:
    """One run of the command: scenarios, faults, numbers of CPUs, and how many states a case may store."""

    faults: str
    cpus: str
    states: int
    scenarios: str = "all"


SMALL = ("info-callers,info-callers-v3,loader-reload,loader-reload-any-order,uefi-cold,uefi-together,uefi-disabled,"
         "kexec-under-td")
PLAN = (
    Pass("none", "2", 2_500),
    Pass("all", "2", 4_000, "update"),
    Pass("none,all", "2,3", 1_500, SMALL),
    Pass("none", "3", 600),
    Pass("all", "2", 300),
    Pass("all", "3", 300),
    Pass("none,all", "2", 1_500),
    Pass("none,all", "3", 1_500),
    Pass("none,all", "2", 8_000),
    Pass("none,all", "3", 8_000),
    Pass("none,all", "2,3", 60_000),
)
"""In this order: what says most for its time first, so that stopping after any of them leaves a table with as many
answers as there was time for.  A later pass tries again what an earlier one cut short."""
SECONDS = 1_800


def main() -> int:
    """Run what is left of the plan."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--passes", type=int, default=len(PLAN), help=f"how many of the {len(PLAN)} (default: all)")
    parser.add_argument("--jobs", type=int, default=2, help="processes (default: 2)")
    args = parser.parse_args()
    worst = 0
    for part in PLAN[: args.passes]:
        print(part, file=sys.stderr)
        done = subprocess.run([
            sys.executable, "-m", "seamref", "campaign", "--scenarios", part.scenarios, "--faults", part.faults,
            "--cpus", part.cpus, "--targets", "together", "--jobs", str(args.jobs), "--states", str(part.states),
            "--seconds", str(SECONDS), "--again", "--store", str(STORE),
        ], cwd=ROOT, check=False, stdout=subprocess.DEVNULL)
        if done.returncode not in (0, 1, 3):
            return done.returncode
        worst = max(worst, done.returncode)
    return worst


if __name__ == "__main__":
    sys.exit(main())
