"""Call every P-SEAMLDR leaf with a mark in each register, and say which registers came back changed.

Each call is a SEAMCALL on a platform where P-SEAMLDR is loaded; RAX and RDX are printed, and memory that was written.
"""

from __future__ import annotations

import argparse

HELP = "what each P-SEAMLDR leaf returns, in registers and in memory, executed"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    from seamref.commands._answer import add_json

    add_json(parser)
    parser.add_argument("--seamldr", choices=("1.0", "1.5"), default="1.5", help="generation of P-SEAMLDR (1.5)")


def run(args: argparse.Namespace) -> int:
    """Print one line for each call."""
    from seamref.commands._answer import Rows, hexed
    from seamref.experiments.loader.abi import leaf_calls

    rows = Rows(args, "leaves", "calls")
    for made in leaf_calls(args.seamldr):
        changed = ", ".join(name.upper() for name in made.called.changed) or "none"
        rows.add(f"{made.title:46} RAX = 0x{made.called.rax:016X} {made.called.answer}\n"
                 f"{'':46} registers changed: {changed}; memory written: {made.written}",
                 call=made.title, rax=hexed(made.called.rax), answer=made.called.answer,
                 registers_changed=list(made.called.changed), memory_written=made.written)
    return rows.end(seamldr=args.seamldr)
