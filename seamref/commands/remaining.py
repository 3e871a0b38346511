"""Watch num_remaining_updates fall: one LOAD, then UPDATE after UPDATE until P-SEAMLDR refuses.

The count is P-SEAMLDR's; SEAMDB, the processor's list of module identities, is what it counts.
"""

from __future__ import annotations

import argparse

HELP = "num_remaining_updates, executed: when it falls, what happens at zero, what resets it"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    from seamref.commands._answer import add_json

    add_json(parser)
    parser.add_argument("--seamdb", type=int, default=4, metavar="N", help="entries of SEAMDB (4)")


def run(args: argparse.Namespace) -> int:
    """Print the story step by step."""
    from seamref.commands._answer import Rows
    from seamref.commands._names import count
    from seamref.experiments.loader.updates import story

    count(args.seamdb, "--seamdb", 1, 64)
    rows = Rows(args, "remaining", "steps")
    rows.say(f"{'step':52} {'RAX':12} P-SEAMLDR counts  INFO says  SEAMDB holds")
    for now in story(args.seamdb):
        info = "" if now.info is None else str(now.info)
        rows.add(f"{now.step:52} {now.answer:12} {now.counted:16}  {info:9}  {now.entries} of {now.capacity}",
                 step=now.step, answer=now.answer, counted=now.counted, info=now.info, seamdb_entries=now.entries,
                 seamdb_capacity=now.capacity)
    return rows.end()
