"""Module updates that go well and that do not: what was refused, by whom, what is left, what helps."""

from __future__ import annotations

import argparse

HELP = "every documented outcome of a module update, executed"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("scenario", nargs="*", help="scenarios by name (default: all)")


def run(args: argparse.Namespace) -> int:
    """Play them."""
    from seamref.host.tdx_updates import SCENARIOS, get_scenario, play

    for name in args.scenario or SCENARIOS:
        scenario = get_scenario(name)
        verdict = play(scenario)
        print(f"{scenario.name}: {scenario.says} (from {scenario.running})")
        print(f"  {verdict.step + ': ' if verdict.step else ''}{verdict.answer}")
        print(f"  {verdict.recoverability}")
        print(f"  module now: {verdict.module}; TD: {verdict.td}")
        if verdict.then:
            print(f"  then: {verdict.then}")
    return 0
