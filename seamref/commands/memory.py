"""How much SEAM memory a module needs, and what happens where it does not fit.

Prints the size formula term by term; --edge executes INSTALL for every size around the limit of the range.
"""

from __future__ import annotations

import argparse

HELP = "how much SEAM memory a module needs on N processors, and INSTALL executed at the edge"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    from seamref.commands._answer import add_json

    add_json(parser)
    parser.add_argument("--lps", type=int, default=2, metavar="N", help="logical processors of each socket (2)")
    parser.add_argument("--sockets", type=int, default=1, metavar="N", help="sockets (1)")
    parser.add_argument("--seamrr", default="64M", metavar="SIZE", help="bytes of SEAMRR, a power of two (64M)")
    parser.add_argument("--build", default="1.5.06", metavar="BUILD", help="module (1.5.06)")
    parser.add_argument("--pages", type=int, default=102, metavar="N", help="pages of its image (102, as 1.5.01)")
    parser.add_argument("--edge", action="store_true", help="execute INSTALL around the limit")


def run(args: argparse.Namespace) -> int:
    """Print the plan, or the edge."""
    from seamref.commands._answer import hexed, print_json
    from seamref.commands._names import pick
    from seamref.commands.install import number
    from seamref.experiments.loader.lab import Attempt
    from seamref.experiments.loader.memory import edge, fits, needs, plan, shape, smallest_seamrr
    from seamref.pseamldr.limits import check_pages, check_platform
    from seamref.tdxmodule.build import BUILDS

    build = pick(args.build, BUILDS, "build")
    check_pages(args.pages)
    check_platform(args.sockets, args.lps, seamrr=number(args.seamrr))
    wanted = shape(build, args.pages)
    made = plan(wanted, args.lps, args.sockets, number(args.seamrr))
    have = made.module_physlimit - made.seamrr_base
    least = smallest_seamrr(wanted, args.lps, args.sockets)
    if args.json:
        stages = edge(Attempt(build=build), lps=args.lps, sockets=args.sockets, seamrr=number(args.seamrr)) \
            if args.edge and fits(made) else []
        print_json("memory", {
            "build": build, "num_module_pages": args.pages, "sockets": args.sockets, "lps": args.lps,
            "seamrr": hexed(number(args.seamrr)), "addressable": made.num_addressable_lps,
            "parts": [{"name": name, "bytes": size} for name, size in needs(made)],
            "needed": made.minimum_size, "module_range": have, "fits": fits(made), "smallest_seamrr": hexed(least),
            "edge": [{"first": s.first, "last": s.last, "answer": s.answer, "old_module": s.session.survives}
                     for s in stages],
        })
        return 0 if fits(made) else 1
    print(f"{build}, {args.pages} pages, {made.num_addressable_lps} addressable processors:")
    for name, size in needs(made):
        print(f"    {size // 4096:7} pages  {size / (1 << 20):9.3f} MiB  {name}")
    print(f"    {made.minimum_size // 4096:7} pages  {made.minimum_size / (1 << 20):9.3f} MiB  needed, of "
          f"{have / (1 << 20):.0f} MiB in the module range")
    print("smallest SEAMRR: " + (f"{least >> 20} MiB" if least else "above 4 GiB"))
    if not fits(made):
        return 1
    if args.edge:
        print(f"INSTALL as num_global_data_pages grows, {args.lps} x {args.sockets} processors, SEAMRR {args.seamrr}:")
        for stage in edge(Attempt(build=build), lps=args.lps, sockets=args.sockets, seamrr=number(args.seamrr)):
            print(f"    {stage.first:6} to {stage.last:6}: {stage.answer:16} old module: {stage.session.survives}")
    return 0
