"""What TDH.SYS.SHUTDOWN leaves behind, and which module may take it."""

from __future__ import annotations

import argparse

HELP = "handoff data as bytes and fields, and which module takes which"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--module", default="1.5.05", metavar="BUILD", help="module that hands off")
    parser.add_argument("--pairs", action="store_true", help="try every pair of builds of major SVN 1")


def run(args: argparse.Namespace) -> int:
    """Print it."""
    from seamref.host import tdx_updates, vmm
    from seamref.tdxmodule.build import BUILDS
    from seamref.tdxmodule.look import Look
    from seamref.tdxmodule.structures import HANDOFF

    if args.pairs:
        names = [name for name, build in BUILDS.items() if build.major_svn == 1]
        print(f"{'from / to':16}" + "".join(f"{name:>15}" for name in names))
        for old in names:
            print(f"{old:16}" + "".join(f"{_outcome(old, new):>15}" for new in names))
        return 0
    platform, _ = tdx_updates.running(args.module)
    hv = vmm.sys_rd(platform, "MODULE_HV")
    vmm.must(platform, platform.lps[0], "TDH.SYS.SHUTDOWN", rcx=hv)
    look = Look(platform)
    header = look.handoff
    print(f"TDH.SYS.SHUTDOWN, RCX = {hv}: first bytes of the data region {header.space.read(header.base, 8).hex(' ')}")
    print(f"VALID {header.num('valid')}, HV {header.num('hv')}, SIZE {header.num('size')}")
    layout = HANDOFF[hv]
    for field in layout.fields[1:]:
        at = layout.offset_of(field.name)
        data = header.space.read(header.base + at, field.type.size)
        used = sum(1 for byte in data if byte)
        print(f"  0x{at:04X} {field.type.size:6} bytes  {field.name:18} {used} of them not zero")
    print("SHUTDOWN checks the version asked for; P-SEAMLDR the header against the new sigstruct;")
    print("INIT the sigstruct against the build; UPDATE the header against the table INIT copied.")
    return 0


def _outcome(old: str, new: str) -> str:
    from seamref.host import tdx_updates, vmm

    platform, _ = tdx_updates.running(old)
    done = vmm.update(platform, new)
    return "ok" if done.ok else done.steps[-1][2].split(",")[0]
