"""Which module may replace the running one.

Lists every release with what speaks against it, newest first, and says where Intel's published script
(version_select_and_load.py) would answer differently.  Exit code 1: no release qualifies.
"""

from __future__ import annotations

import argparse

HELP = "which published module may replace the running one on this CPU and this P-SEAMLDR"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--running", metavar="VERSION", help="running TDX module, such as 1.5.05 or 1.5.05.0000; "
                        "none: a cold load")
    parser.add_argument("--seamldr", metavar="VERSION", required=True, help="P-SEAMLDR, such as 1.5.00")
    parser.add_argument("--cpu", metavar="EAX", action="append", required=True,
                        help="CPUID.1:EAX such as 0x806F8; once for each package that differs")
    parser.add_argument("--remaining", metavar="N", type=int, help="num_remaining_updates, if known")
    parser.add_argument("--allow-debug", action="store_true", help="take debug-signed modules")
    parser.add_argument("--mapping", metavar="FILE", help="a mapping_file.json instead of the eleven measured releases")
    parser.add_argument("--all-flaws", action="store_true", help="list every flaw of the published script")
    parser.add_argument("--json", action="store_true", help="as JSON")


def run(args: argparse.Namespace) -> int:
    """Print the plan."""
    from seamref.commands._answer import print_json
    from seamref.commands._files import read
    from seamref.commands._names import count
    from seamref.errors import SeamrefError
    from seamref.host.releases import NOTED, platform_name
    from seamref.host.select import (
        FLAWS,
        best,
        flaws_that_show,
        make_situation,
        parse_mapping,
        parse_version,
        plan,
        script_installs,
        script_newest,
        what_is_known,
    )

    count(args.remaining, "--remaining", 0, 0xFFFF_FFFF)
    try:
        cpus = [int(text, 0) for text in args.cpu]
    except ValueError:
        raise SeamrefError(f"--cpu: {' '.join(args.cpu)}, must be numbers such as 0x806F8") from None
    for cpu in cpus:
        if not 0 <= cpu < 1 << 32:
            raise SeamrefError(f"--cpu: {cpu}, must be 32 bits")
    releases = None
    if args.mapping is not None:
        text = read(args.mapping).decode("utf-8", "replace")
        releases = tuple(parse_mapping(text, args.mapping).values())
    situation = make_situation(args.running, args.seamldr, cpus, remaining=args.remaining,
                               allow_debug=args.allow_debug, releases=releases)
    candidates, choice = plan(situation), best(situation)
    newest, installs = script_newest(situation), script_installs(situation)
    flaws = list(FLAWS) if args.all_flaws else flaws_that_show(situation)
    if args.json:
        print_json("plan", {
            "choice": choice.version if choice else None,
            "running_not_known": what_is_known(situation.running, situation.releases) or None,
            "candidates": [
                {"version": c.release.version, "good": c.good,
                 "against": [{"clause": row.id, "says": row.says, "because": row.result.value} for row in c.against]}
                for c in candidates
            ],
            "script": {"newest": newest and newest.version, "installs": installs and installs.version},
            "flaws": [{"number": f.number, "says": f.says, "consequence": f.consequence} for f in flaws],
        })
        return 0 if choice else 1
    parts = ", ".join(f"0x{cpu:X} {platform_name(cpu)}".strip() for cpu in cpus)
    print(f"running {args.running or 'none (cold load)'}, P-SEAMLDR {args.seamldr}, CPU {parts}")
    unsure = what_is_known(situation.running, situation.releases)
    if unsure:
        print(f"note: {unsure}")
    for candidate in candidates:
        release = candidate.release
        note = "" if release.measured else "  (only the mapping file names it: CPU table and SVN not known)"
        if candidate.good:
            print(f"{release.version:>8}  {'choice' if release is choice else 'possible'}{note}")
        for i, row in enumerate(candidate.against):
            print(f"{release.version if i == 0 else '':>8}  {'no' if i == 0 else '  '}  {row.id}: {row.says}")
    later = [n for n in NOTED if situation.running and parse_version(n.version).line == situation.running.line]
    for noted in later:
        print(f"  known from release notes only: {noted.version} {noted.platform}".rstrip())
    print(f"published script: newest {newest.version if newest else 'none'}, "
          f"installs {installs.version if installs else 'nothing'}")
    for flaw in flaws:
        print(f"  flaw {flaw.number}: {flaw.says}; {flaw.consequence}")
    return 0 if choice else 1
