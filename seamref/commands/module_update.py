"""Module updates that go well and that do not: what was refused, by whom, what is left, what helps."""

from __future__ import annotations

import argparse

HELP = "every documented outcome of a module update, executed"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    from seamref.commands._answer import add_json

    add_json(parser)
    parser.add_argument("scenario", nargs="*", help="scenarios by name (default: all)")


def run(args: argparse.Namespace) -> int:
    """Play them."""
    from seamref.commands._answer import Rows
    from seamref.commands._names import pick
    from seamref.commands._progress import at
    from seamref.host.tdx_updates import SCENARIOS, play

    rows = Rows(args, "module-update", "updates")
    chosen = [pick(name, SCENARIOS, "scenario") for name in args.scenario] or list(SCENARIOS)
    for number, name in enumerate(chosen, 1):
        at(f"{name}, {number} of {len(chosen)}")
        scenario = SCENARIOS[name]
        verdict = play(scenario)
        lines = [f"{scenario.name}: {scenario.says} (from {scenario.running})",
                 f"  {verdict.step + ': ' if verdict.step else ''}{verdict.answer}", f"  {verdict.recoverability}",
                 f"  module now: {verdict.module}; TD: {verdict.td}"]
        if verdict.then:
            lines.append(f"  then: {verdict.then}")
        rows.add("\n".join(lines), scenario=scenario.name, says=scenario.says, running=scenario.running,
                 stopped_at=verdict.step, answer=verdict.answer, recoverability=verdict.recoverability,
                 module=verdict.module, td=verdict.td, then=verdict.then)
    return rows.end()
