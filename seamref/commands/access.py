"""Let somebody touch a physical address and say what becomes of it.

The platform is prepared for the experiment: SEAMRR 0x7C000000 to 0x7FFFFFFF, P_SEAMLDR_RANGE its last 4 MiB, six
KeyID bits, of which one is TDX private.
"""

from __future__ import annotations

import argparse

HELP = "who may touch which physical address, and which clause says no"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    from seamref.commands._answer import add_json

    add_json(parser)
    parser.add_argument("agent", nargs="?", help="host, guest, smm, dma, acm, td, module, p_seamldr or cpu")
    parser.add_argument("address", nargs="?", help="physical address, without KeyID bits")
    parser.add_argument("--keyid", type=int, default=0, help="KeyID of the access, default 0")
    parser.add_argument("--size", type=int, default=8, help="bytes, default 8")
    parser.add_argument("--write", action="store_true", help="write instead of read")
    parser.add_argument("--denied", choices=["abort", "fault"], default="abort",
                        help="what SEAM memory answers outside SEAM")
    parser.add_argument("--matrix", action="store_true", help="every agent at a few places")


def run(args: argparse.Namespace) -> int:
    """Judge the access; exit code 1 when it is refused."""
    from dataclasses import replace

    from seamref.arch import lab
    from seamref.arch.memory import Agent, Verdict, fault_of
    from seamref.arch.revision import SILICON, Denied
    from seamref.commands._answer import Rows, hexed, print_json
    from seamref.commands._names import count, pick
    from seamref.errors import SeamrefError

    denied = Denied.FAULT if args.denied == "fault" else Denied.ABORT_PAGE
    platform = lab.platform(revision=replace(SILICON, denied=denied))
    seamrr, p_seamldr = lab.SEAMRR, lab.P_SEAMLDR_RANGE
    if args.matrix:
        if args.agent or args.keyid or args.size != 8:
            raise SeamrefError("--matrix judges every agent at its own places: without an agent, --keyid and --size")
        rows = Rows(args, "access-matrix", "agents")
        places = {"host memory": 0x100000, "MODULE_RANGE": seamrr.base, "P_SEAMLDR_RANGE": p_seamldr.base,
                  "private KeyID": platform.with_keyid(0x100000, 33)}
        for agent in Agent:
            judged = {name: platform.judge(agent, at, 8, args.write) for name, at in places.items()}
            refused = {name: "" if v is Verdict.ALLOWED else clause for name, (v, clause) in judged.items()}
            said = "; ".join(f"{name}: {'no, ' + clause if clause else 'yes'}" for name, clause in refused.items())
            rows.add(f"{agent.name.lower():10} {said}", agent=agent.name.lower(), refused_by=refused)
        return rows.end(write=args.write)
    if args.agent is None or args.address is None:
        raise SeamrefError("access needs an agent and an address, or --matrix")
    agent = Agent[pick(args.agent.replace("-", "_"), [a.name.lower() for a in Agent], "agent").upper()]
    try:
        address = int(args.address, 0)
    except ValueError:
        raise SeamrefError(f"address {args.address!r} is no number") from None
    if not 1 <= args.size <= 4096 or address < 0:
        raise SeamrefError(f"size {args.size}, address {address:#x}: size must be 1 to 4096, the address not negative")
    if address >> platform.keyid_shift:
        raise SeamrefError(f"address {address:#x}: has bits at or above {platform.keyid_shift}, where the KeyID begins")
    count(args.keyid, "--keyid", 0, (1 << platform.config.maxpa - platform.keyid_shift) - 1)
    verdict, clause = platform.judge(agent, platform.with_keyid(address, args.keyid), args.size, args.write)
    fault = fault_of(verdict, denied, args.write, clause)
    private = "private" if platform.is_private(args.keyid) else "shared"
    allowed = verdict is Verdict.ALLOWED
    if args.json:
        print_json("access", {
            "agent": agent.name.lower(), "write": args.write, "size": args.size, "address": hexed(address),
            "keyid": args.keyid, "private": private == "private", "allowed": allowed,
            "verdict": verdict.value, "fault": None if allowed or not fault else str(fault),
            "clause": None if allowed else clause,
        })
        return 0 if allowed else 1
    print(f"{agent.value} {'writes' if args.write else 'reads'} {args.size} bytes at 0x{address:X}, "
          f"{private} KeyID {args.keyid}")
    if allowed:
        print("allowed")
        return 0
    print(f"{verdict.value}: {fault or 'reads all ones, writes dropped'}, decided by {clause}")
    return 1
