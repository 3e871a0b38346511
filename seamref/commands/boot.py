"""Boot a platform from reset to a callable P-SEAMLDR, whole, step by step, or with something broken."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from seamref.arch.platform import Topology
    from seamref.bootchain import BootRecord, BootResult

HELP = "from reset to a callable P-SEAMLDR: whole, step by step, or with something broken"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    from seamref.commands._answer import add_json

    add_json(parser)
    parser.add_argument("--sockets", type=int, metavar="N", help="packages (1)")
    parser.add_argument("--lps", type=int, metavar="N", help="logical processors in each (2)")
    parser.add_argument("--break", dest="breaks", action="append", default=[], metavar="NAME",
                        help="break one thing (may be repeated; --every-break lists the names)")
    parser.add_argument("--until", metavar="STEP", help="last step to take (info)")
    parser.add_argument("--trace", action="store_true", help="also what each step does inside")
    parser.add_argument("--every-break", action="store_true", help="break one thing at a time; where the chain stops")
    parser.add_argument("--update", type=int, metavar="SVN",
                        help="then install a module, and reload P-SEAMLDR from a module with this SE SVN")
    parser.add_argument("--last", type=int, metavar="LP", help="with --update: the processor that calls SHUTDOWN last")
    parser.add_argument("--on", type=int, metavar="LP", help="with --update: the processor that launches")
    parser.add_argument("--attacks", choices=["bios", "os", "all"], help="what BIOS or an OS can try, executed")


def run(args: argparse.Namespace) -> int:
    """Boot."""
    from seamref.arch.platform import Topology
    from seamref.bootchain import BREAKS, STEP_NAMES, make_boot, run_boot
    from seamref.commands._answer import hexed, print_json
    from seamref.commands._names import pick

    _refuse_together(args)
    if args.attacks:
        return _attacks(args)
    topology = Topology(1 if args.sockets is None else args.sockets, 2 if args.lps is None else args.lps)
    if args.every_break:
        return _every_break(args, topology)
    breaks = [pick(name, BREAKS, "break") for name in args.breaks]
    until = pick(args.until or "info", STEP_NAMES, "step")
    result = run_boot(make_boot(topology), breaks=breaks, until=until, trace=args.trace)
    if args.json:
        print_json("boot", {
            "sockets": topology.sockets, "lps": topology.lps_per_socket, "breaks": breaks, "until": until,
            "steps": [{"step": r.step.name, "who": r.step.who, "does": r.step.does, "answer": str(r.answer),
                       "clause": r.answer.clause, "stopped": r.stopped,
                       "events": [str(e) for e in r.events] if args.trace else []} for r in result.records],
            "stopped_at": result.stopped_at and result.stopped_at.step.name,
            "errorcode": hexed(result.platform.txt.get("ERRORCODE")) if result.stopped_at else None,
        })
        return 0 if result.stopped_at is None else 1
    for record in result.records:
        _print(record)
    if result.stopped_at is not None:
        code = result.platform.txt.get("ERRORCODE")
        kept = f"; TXT.ERRORCODE = 0x{code:X}" if code is not None else ""
        print(f"stopped at {result.stopped_at.step.name}{kept}")
        return 1
    if args.update is not None:
        return _update(result, args)
    return 0


def _refuse_together(args: argparse.Namespace) -> None:
    """Options that contradict each other; a number that no platform has."""
    from seamref.commands._names import count
    from seamref.errors import SeamrefError

    count(args.sockets, "--sockets", 1, 8)
    count(args.lps, "--lps", 1, 1024)
    count(args.update, "--update", 0, 255)
    alone = {"--attacks": args.attacks, "--every-break": args.every_break}
    others = {"--break": args.breaks, "--until": args.until, "--trace": args.trace,
              "--update": args.update is not None, **alone}
    for one, value in alone.items():
        bad = [name for name, given in others.items() if given and name != one]
        if value and bad:
            raise SeamrefError(f"{one} does not go together with {', '.join(bad)}")
    if args.attacks and (args.sockets or args.lps):
        raise SeamrefError("--attacks has platforms of its own: without --sockets and --lps")
    if args.update is None and (args.last is not None or args.on is not None):
        raise SeamrefError("--last and --on belong to --update")
    if args.update is not None and (args.json or args.until):
        raise SeamrefError(f"--update does not go together with {'--json' if args.json else '--until'}")


def _print(record: BootRecord) -> None:
    from seamref.arch.trace import MsrWritten, SeamextendWritten, Step

    sign = "x" if record.stopped else "."
    print(f"{sign} {record.step.name:11} {record.step.who:10} {record.step.does}")
    for event in record.events:
        match event:
            case Step(lp=lp, component=component, name=name, detail=detail):
                print(f"      LP {lp:3}  {component}: {name}{' -> ' + detail if detail else ''}")
            case MsrWritten(lp=lp, address=address, value=value):
                print(f"      LP {lp:3}  WRMSR 0x{address:X} := 0x{value:X}")
            case SeamextendWritten(lp=lp, value=value):
                print(f"      LP {lp:3}  SEAMEXTEND: SEAM_READY={value[128]} P_SEAMLDR_READY={value[130]}")
            case _:
                pass
    if str(record.answer) != "done":
        print(f"  {'':22} -> {record.answer} ({record.answer.clause})")


def _every_break(args: argparse.Namespace, topology: Topology) -> int:
    from seamref.bootchain import BREAKS
    from seamref.commands._answer import Rows
    from seamref.commands._progress import at
    from seamref.experiments.boot.breaks import break_one

    rows = Rows(args, "boot-breaks", "breaks")
    for number, name in enumerate(BREAKS, 1):
        at(f"{name}, {number} of {len(BREAKS)}")
        made = break_one(name, topology)
        last = made.result.records[-1]
        rows.add(f"{name:17} {made.says:50} {made.where or '-':11} {last.answer} ({last.answer.clause})", name=name,
                 says=made.says, stops_at=made.where or None, answer=str(last.answer), clause=last.answer.clause)
    return rows.end()


def _update(result: BootResult, args: argparse.Namespace) -> int:
    from seamref.bootchain import (
        SHUTDOWN,
        default_acm,
        did_stop,
        install,
        read_info,
        relaunch,
        seamldr_call,
        shut_down_loader,
    )

    platform = result.platform
    install(platform)
    print(f"module installed; updates left: {read_info(platform).num_remaining_updates}")
    last = platform.lps[0] if args.last is None else args.last
    platform.lp(last)  # an unknown processor is an error that says so
    for record in shut_down_loader(platform, order=[*(i for i in platform.lps if i != last), last]):
        print(f"LP {record.lp:3}  {record.action}: {record.answer}")
    if platform.P_SEAMLDR_READY:
        called = seamldr_call(platform, platform.lps[0], SHUTDOWN)
        print(f"LP {platform.lps[0]:3}  SEAMLDR.SHUTDOWN again, where NP-SEAMLDR was launched: {called}")
    records = relaunch(platform, default_acm(args.update), lp_id=args.on)
    for record in records:
        print(f"LP {record.lp:3}  {record.action}: {record.answer} ({record.answer.clause})")
    if did_stop(records[-1].answer):
        return 1
    info = read_info(platform)
    print(f"P-SEAMLDR answers: launched on LP {info.acm_x2apic}, updates left: {info.num_remaining_updates}, "
          f"SEAMLDR SVN 0x{platform.bios_se_svn >> 56:X}")
    return 0


def _attacks(args: argparse.Namespace) -> int:
    from seamref.commands._answer import Rows
    from seamref.experiments.boot.breaks import attempts

    rows = Rows(args, "boot-attacks", "attacks")
    for attack, made in attempts(args.attacks):
        rows.add(f"{attack.by:4} {attack.name:15} {attack.tries}\n"
                 f"     {'':15} -> {made.answer} ({made.clause}); gained: {made.gain.value}",
                 by=attack.by, name=attack.name, tries=attack.tries, answer=str(made.answer), clause=made.clause,
                 gained=made.gain.value)
    return rows.end()
