"""Install a TDX module before the kernel, as Intel's UEFI loader application does.

IMAGE is a file with a TDX-BLOB of version 1.0 or the name of a module build (1.5.05 unless given).
"""

from __future__ import annotations

import argparse
from pathlib import Path

HELP = "cold installation by the UEFI loader: the walk over the processors, and what it believes"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("image", nargs="?", default="1.5.05", metavar="IMAGE", help="file, or name of a module build")
    parser.add_argument("--cpus", type=int, default=2, metavar="N", help="logical processors of the machine")
    parser.add_argument("--sockets", type=int, default=1, metavar="N", help="packages they are on")
    parser.add_argument("--not-started", type=int, action="append", default=[], metavar="ID",
                        help="x2APIC id of a processor that answers EFI_NOT_STARTED")
    parser.add_argument("--times-out", type=int, action="append", default=[], metavar="ID",
                        help="x2APIC id of a processor whose start times out")


def run(args: argparse.Namespace) -> int:
    """Print the walk; 1 when no module is ready afterwards."""
    from seamref.host.image import V1
    from seamref.host.machine import blob, cold
    from seamref.host.uefi import Efi, Firmware
    from seamref.host.uefi import run as load
    from seamref.tdxmodule.build import BUILDS

    platform = cold(args.cpus, sockets=args.sockets, module=None)
    data = blob(args.image, version=V1) if args.image in BUILDS else Path(args.image).read_bytes()
    starts = {id: Efi.NOT_STARTED for id in args.not_started} | {id: Efi.TIMEOUT for id in args.times_out}
    done = load(platform, Firmware(({"\\EFI\\TDX\\TDX-BLOB": data},), start_status=starts))
    for result in done.walk:
        print(f"processor {result.apicid:4}  {result.did}")
    print("\n".join(f"says: {line}" for line in done.printed))
    print(f"returns {done.returned.value}; SEAM_READY is {int(platform.SEAM_READY)}")
    return 0 if platform.SEAM_READY else 1
