"""Replace the module while a TD is being built: the MRTD that comes out, and what newer modules do instead."""

from __future__ import annotations

import argparse

HELP = "an update during a TD build: right, spoilt, detected, or refused"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """No options."""


def run(args: argparse.Namespace) -> int:
    """Try it with each kind of module."""
    from seamref.host import tdx_updates

    for row in tdx_updates.interrupted_builds():
        print(f"{row.old:8} -> {row.new:14} {row.how:26} update: {row.update:28} build: {row.build}")
    return 0
