"""Replace the module while a TD is being built: the MRTD that comes out, and what newer modules do instead."""

from __future__ import annotations

import argparse

HELP = "an update during a TD build: right, spoilt, detected, or refused"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the option."""
    from seamref.commands._answer import add_json

    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Try it with each kind of module."""
    from seamref.commands._answer import Rows
    from seamref.host import tdx_updates

    rows = Rows(args, "module-build", "builds")
    for row in tdx_updates.interrupted_builds():
        rows.add(f"{row.old:8} -> {row.new:14} {row.how:26} update: {row.update:28} build: {row.build}",
                 old=row.old, new=row.new, how=row.how, update=row.update, build=row.build)
    return rows.end()
