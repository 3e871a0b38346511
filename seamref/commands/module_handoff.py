"""What TDH.SYS.SHUTDOWN leaves behind, and which module may take it."""

from __future__ import annotations

import argparse

HELP = "handoff data as bytes and fields, and which module takes which"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    from seamref.commands._answer import add_json

    add_json(parser)
    parser.add_argument("--module", default="1.5.05", metavar="BUILD", help="module that hands off")
    parser.add_argument("--pairs", action="store_true", help="try every pair of builds of major SVN 1")


def run(args: argparse.Namespace) -> int:
    """Print it."""
    from seamref.commands._answer import Rows
    from seamref.commands._names import pick
    from seamref.commands._progress import at
    from seamref.host import tdx_updates, vmm
    from seamref.tdxmodule.build import BUILDS
    from seamref.tdxmodule.look import Look
    from seamref.tdxmodule.structures import HANDOFF

    if args.pairs:
        pairs = Rows(args, "module-handoff-pairs", "pairs")
        names = [name for name, build in BUILDS.items() if build.major_svn == 1]
        pairs.say(f"{'from / to':16}" + "".join(f"{name:>15}" for name in names))
        for number, old in enumerate(names, 1):
            at(f"from {old}, {number} of {len(names)}")
            met = {new: _outcome(old, new) for new in names}
            pairs.add(f"{old:16}" + "".join(f"{said:>15}" for said in met.values()), old=old, outcomes=met)
        return pairs.end()
    platform, _ = tdx_updates.running(pick(args.module, BUILDS, "build"))
    rows = Rows(args, "module-handoff", "fields")
    hv = vmm.sys_rd(platform, "MODULE_HV")
    vmm.must(platform, platform.lps[0], "TDH.SYS.SHUTDOWN", rcx=hv)
    look = Look(platform)
    header = look.handoff
    first = header.space.read(header.base, 8).hex(" ")
    rows.say(f"TDH.SYS.SHUTDOWN, RCX = {hv}: first bytes of the data region {first}")
    rows.say(f"VALID {header.num('valid')}, HV {header.num('hv')}, SIZE {header.num('size')}")
    layout = HANDOFF[hv]
    for field in layout.fields[1:]:
        where = layout.offset_of(field.name)
        data = header.space.read(header.base + where, field.type.size)
        used = sum(1 for byte in data if byte)
        rows.add(f"  0x{where:04X} {field.type.size:6} bytes  {field.name:18} {used} of them not zero",
                 offset=where, size=field.type.size, name=field.name, bytes=data)
    rows.say("SHUTDOWN checks the version asked for; P-SEAMLDR the header against the new sigstruct;")
    rows.say("INIT the sigstruct against the build; UPDATE the header against the table INIT copied.")
    return rows.end(module=args.module, hv=hv, valid=header.num("valid"), handoff_size=header.num("size"))


def _outcome(old: str, new: str) -> str:
    from seamref.host import tdx_updates, vmm

    platform, _ = tdx_updates.running(old)
    done = vmm.update(platform, new)
    return "ok" if done.ok else done.steps[-1][2].split(",")[0]
