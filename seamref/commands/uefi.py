"""Install a TDX module before the kernel, as Intel's UEFI loader application does.

IMAGE is a file with a TDX-BLOB of version 1.0 or the name of a module build (1.5.05 unless given).
"""

from __future__ import annotations

import argparse

HELP = "cold installation by the UEFI loader: the walk over the processors, and what it believes"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    from seamref.commands._answer import add_json

    add_json(parser)
    parser.add_argument("image", nargs="?", default="1.5.05", metavar="IMAGE", help="file, or name of a module build")
    parser.add_argument("--cpus", type=int, default=2, metavar="N", help="logical processors of the machine")
    parser.add_argument("--sockets", type=int, default=1, metavar="N", help="packages they are on")
    parser.add_argument("--signer-of", metavar="FILE", help="a TDX-BLOB or sigstruct: this machine's P-SEAMLDR trusts "
                        "its signer")
    parser.add_argument("--not-started", type=int, action="append", default=[], metavar="ID",
                        help="x2APIC id of a processor that answers EFI_NOT_STARTED")
    parser.add_argument("--times-out", type=int, action="append", default=[], metavar="ID",
                        help="x2APIC id of a processor whose start times out")


def run(args: argparse.Namespace) -> int:
    """Print the walk; 1 when no module is ready afterwards."""
    from seamref.commands._answer import Rows
    from seamref.commands._files import read
    from seamref.commands._names import count
    from seamref.commands.upload import foreign_signer
    from seamref.errors import SeamrefError
    from seamref.host.image import V1
    from seamref.host.machine import blob, cold
    from seamref.host.uefi import Efi, Firmware
    from seamref.host.uefi import run as load
    from seamref.host.verify import signer_of, trust_signer
    from seamref.tdxmodule.build import BUILDS

    count(args.cpus, "--cpus", 1, 64)
    count(args.sockets, "--sockets", 1, 8)
    if args.cpus % args.sockets:
        raise SeamrefError(f"--cpus {args.cpus}: cannot be dealt out evenly to {args.sockets} packages")
    known = next((name for name in BUILDS if name.lower() == args.image.lower()), "")
    data = blob(known, version=V1) if known else read(args.image, limit=16 << 20)
    platform = cold(args.cpus, sockets=args.sockets, module=None)
    for option, ids in (("--not-started", args.not_started), ("--times-out", args.times_out)):
        for id in set(ids) - set(platform.lps):
            raise SeamrefError(f"{option} {id}: no such processor; there are {', '.join(map(str, platform.lps))}")
    if args.signer_of:
        trust_signer(platform, signer_of(read(args.signer_of, limit=16 << 20)))
    starts = {id: Efi.NOT_STARTED for id in args.not_started} | {id: Efi.TIMEOUT for id in args.times_out}
    done = load(platform, Firmware(({"\\EFI\\TDX\\TDX-BLOB": data},), start_status=starts))
    rows = Rows(args, "uefi", "walk")
    note = None if args.signer_of else foreign_signer(data)
    if note:
        rows.say(f"note: {note}")
    for result in done.walk:
        rows.add(f"processor {result.apicid:4}  {result.did}", processor=result.apicid, did=result.did)
    rows.say("\n".join(f"says: {line}" for line in done.printed))
    rows.say(f"returns {done.returned.value}; SEAM_READY is {int(platform.SEAM_READY)}")
    return rows.end(0 if platform.SEAM_READY else 1, printed=list(done.printed), returned=done.returned.value,
                    seam_ready=bool(platform.SEAM_READY))
