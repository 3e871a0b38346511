"""Boot a platform from reset to a callable P-SEAMLDR, whole, step by step, or with something broken."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from seamref.bootchain import BootRecord, BootResult

HELP = "from reset to a callable P-SEAMLDR: whole, step by step, or with something broken"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--sockets", type=int, default=1, help="packages, default 1")
    parser.add_argument("--lps", type=int, default=2, help="logical processors in each, default 2")
    parser.add_argument("--break", dest="breaks", action="append", default=[], metavar="NAME",
                        help="break one thing (may be repeated; --every-break lists the names)")
    parser.add_argument("--until", metavar="STEP", default="info", help="last step to take, default info")
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
    from seamref.bootchain import make_boot, run_boot

    if args.attacks:
        return _attacks(args.attacks)
    topology = Topology(args.sockets, args.lps)
    if args.every_break:
        return _every_break(topology)
    result = run_boot(make_boot(topology), breaks=args.breaks, until=args.until, trace=args.trace)
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


def _every_break(topology: object) -> int:
    from seamref.arch.platform import Topology
    from seamref.bootchain import BREAKS, make_boot, run_boot

    assert isinstance(topology, Topology)
    for name, one in BREAKS.items():
        result = run_boot(make_boot(topology), breaks=[name])
        last = result.records[-1]
        where = last.step.name if last.stopped else "-"
        print(f"{name:17} {one.says:50} {where:11} {last.answer} ({last.answer.clause})")
    return 0


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


def _attacks(who: str) -> int:
    from seamref.bootchain.attacks import ATTACKS

    for attack in ATTACKS:
        if who in ("all", attack.by.lower()):
            attempt = attack.run()
            print(f"{attack.by:4} {attack.name:15} {attack.tries}")
            print(f"     {'':15} -> {attempt.answer} ({attempt.clause}); gained: {attempt.gain.value}")
    return 0
