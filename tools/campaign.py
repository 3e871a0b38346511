#!/usr/bin/env python3
"""The campaign that a page of the book shows: run it again, and store what it finds beside the chapter.

    python tools/campaign.py [--jobs N]

It goes on where it was when it is started again; start from nothing by removing book/proofs/campaign.jsonl (verdicts
belong to one state of the code, and the command refuses to mix two).
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
STORE = ROOT / "book" / "proofs" / "campaign.jsonl"
SMALL = ("info-callers", "info-callers-v3", "loader-reload", "loader-reload-any-order", "uefi-cold", "uefi-together",
         "uefi-disabled")
PLAN: tuple[tuple[str, str, str], ...] = (
    (",".join(SMALL), "none,all", "2,3"),
    ("all", "none", "2"),
    ("update", "all", "2"),
)
"""Scenarios, faults, numbers of CPUs: one run of the command each, into one file."""
BOUNDS = ("--states", "6000", "--seconds", "900")


def main() -> int:
    """Run what is left of the plan."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=2, help="processes (default: 2)")
    args = parser.parse_args()
    worst = 0
    for scenarios, faults, cpus in PLAN:
        done = subprocess.run([
            sys.executable, "-m", "seamref", "campaign", "--scenarios", scenarios, "--faults", faults, "--cpus", cpus,
            "--targets", "together", "--jobs", str(args.jobs), *BOUNDS, "--store", str(STORE),
        ], cwd=ROOT, check=False, stdout=subprocess.DEVNULL)
        if done.returncode not in (0, 1, 3):
            return done.returncode
        worst = max(worst, done.returncode)
    return worst


if __name__ == "__main__":
    sys.exit(main())
