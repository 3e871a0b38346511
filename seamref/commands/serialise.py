"""Two processors call P-SEAMLDR at once: what the second one sees, with and without the kernel's lock.

Also what a caller in an interrupt handler meets, and what a sleeping lock does on PREEMPT_RT.  Without options: a line
for every version of the kernel series and two that nobody posted (no lock; a spinlock_t).
"""

from __future__ import annotations

import argparse

HELP = "why Linux serialises P-SEAMLDR calls although the processor has a mutex, and why with a raw spinlock"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    from seamref.commands._answer import add_json

    add_json(parser)
    parser.add_argument("--series", metavar="NAME", help="only this version, step by step")
    parser.add_argument("--no-lock", action="store_true", help="the merged kernel without its lock, step by step")


def run(args: argparse.Namespace) -> int:
    """Print the table, or one run."""
    from dataclasses import replace

    from seamref.commands._answer import Rows
    from seamref.commands._names import pick
    from seamref.host.scenarios import interrupt_caller, sleeping_lock, two_callers
    from seamref.host.series import MERGED, SERIES, Lock

    if args.series or args.no_lock:
        chosen = SERIES[pick(args.series or "merged", SERIES, "version")]
        steps = Rows(args, "serialise-steps", "steps")
        series = replace(chosen, lock=Lock.NONE) if args.no_lock else chosen
        met = two_callers(series)
        for cpu, did in met.log:
            steps.add(f"CPU {cpu}  {did}", cpu=cpu, did=did)
        steps.say(f"CPU 0: {met.first}, CPU 1: {met.second}")
        return steps.end(series=series.name, lock=series.lock, first=str(met.first), second=str(met.second))
    rows = [*((s.name, s) for s in SERIES.values()), ("no lock", replace(MERGED, lock=Lock.NONE)),
            ("spinlock_t", replace(MERGED, lock=Lock.SPINLOCK))]
    told = Rows(args, "serialise", "versions")
    told.say(f"{'':11} {'second caller':22} {'caller in an interrupt handler':48} with interrupts off on PREEMPT_RT")
    for name, series in rows:
        met = two_callers(series)
        second = f"{'waits, then ' if met.waited else ''}{met.second}"
        told.add(f"{name:11} {second:22} {interrupt_caller(series):48} {sleeping_lock(series)[:40]}",
                 name=name, waited=met.waited, second=str(met.second), interrupt=interrupt_caller(series),
                 preempt_rt=sleeping_lock(series))
    return told.end()
