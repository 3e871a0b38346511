"""How much SEAM memory a module needs, and what happens where it does not fit.

Prints the size formula term by term; --edge executes INSTALL for every size around the limit of the range.
"""

from __future__ import annotations

import argparse

HELP = "how much SEAM memory a module needs on N processors, and INSTALL executed at the edge"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--lps", type=int, default=2, metavar="N", help="logical processors of each socket (2)")
    parser.add_argument("--sockets", type=int, default=1, metavar="N", help="sockets (1)")
    parser.add_argument("--seamrr", default="64M", metavar="SIZE", help="bytes of SEAMRR, a power of two (64M)")
    parser.add_argument("--build", default="1.5.06", metavar="BUILD", help="module (1.5.06)")
    parser.add_argument("--pages", type=int, default=102, metavar="N", help="pages of its image (102, as 1.5.01)")
    parser.add_argument("--edge", action="store_true", help="execute INSTALL around the limit")


def run(args: argparse.Namespace) -> int:
    """Print the plan, or the edge."""
    from seamref.commands.install import number
    from seamref.errors import SeamrefError
    from seamref.experiments.loader.lab import Attempt
    from seamref.experiments.loader.memory import edge, fits, needs, plan, shape, smallest_seamrr
    from seamref.tdxmodule.build import BUILDS

    if args.build not in BUILDS:
        raise SeamrefError(f"no build {args.build!r}; there are {', '.join(BUILDS)}")
    wanted = shape(args.build, args.pages)
    made = plan(wanted, args.lps, args.sockets, number(args.seamrr))
    have = made.module_physlimit - made.seamrr_base
    print(f"{args.build}, {args.pages} pages, {made.num_addressable_lps} addressable processors:")
    for name, size in needs(made):
        print(f"    {size // 4096:7} pages  {size / (1 << 20):9.3f} MiB  {name}")
    print(f"    {made.minimum_size // 4096:7} pages  {made.minimum_size / (1 << 20):9.3f} MiB  needed, of "
          f"{have / (1 << 20):.0f} MiB in the module range")
    least = smallest_seamrr(wanted, args.lps, args.sockets)
    print("smallest SEAMRR: " + (f"{least >> 20} MiB" if least else "above 4 GiB"))
    if not fits(made):
        return 1
    if args.edge:
        print(f"INSTALL as num_global_data_pages grows, {args.lps} x {args.sockets} processors, SEAMRR {args.seamrr}:")
        for stage in edge(Attempt(build=args.build), lps=args.lps, sockets=args.sockets, seamrr=number(args.seamrr)):
            print(f"    {stage.first:6} to {stage.last:6}: {stage.answer:16} old module: {stage.session.survives}")
    return 0
