"""Would INSTALL accept this module on that platform?

Walks P-SEAMLDR's checks in its order and says which one stops the installation and whether the old module survives,
or prints the memory plan.  FILE is a TDX-BLOB, or a module image or a sigstruct; the other one of these two is named
by --sigstruct or --image, or lies beside FILE under the same name (.bin, .sigstruct).  Exit code 1: refused.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

SIGSTRUCT = ".sigstruct"
HELP = "whether INSTALL would accept a module on a described platform: the check that stops it, or the memory plan"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    from seamref.commands._answer import add_json

    parser.add_argument("file", metavar="FILE", help="TDX-BLOB, module image or sigstruct; - is standard input")
    parser.add_argument("--sigstruct", metavar="FILE", help="SEAM_SIGSTRUCT of the image (as FILE, .sigstruct)")
    parser.add_argument("--image", metavar="FILE", help="module image of the sigstruct (as FILE, .bin)")
    parser.add_argument("--seamldr", metavar="VERSION", default="1.5.00", help="P-SEAMLDR: 1.0.x, 1.5.x or 2.0.x")
    parser.add_argument("--scenario", choices=("load", "update"), default="load")
    parser.add_argument("--running-svn", metavar="SVN", help="of the running module: 0x0105 or 1.5; none: nothing runs")
    parser.add_argument("--remaining", metavar="N", type=int, default=15, help="updates that remain")
    parser.add_argument("--signer", metavar="WHO", default="intel", help="accepted key: intel, test, or a hash in hex")
    parser.add_argument("--debug", action="store_true", help="a debug-unlocked part")
    parser.add_argument("--platform", metavar="FILE", help="the options below from a JSON object of the same names")
    for name, what in (
        ("sockets", "packages (2)"), ("lps", "logical processors of a socket (128)"),
        ("addressable", "addressable processors of a socket, CPUID(4,3) (as lps)"),
        ("seamrr-size", "bytes, such as 128M (128M)"), ("range-size", "P_SEAMLDR_RANGE, bytes (4M)"),
    ):
        parser.add_argument(f"--{name}", metavar="N", help=what)
    parser.add_argument("--fms", metavar="EAX", action="append", help="CPUID.1:EAX, once for each socket (0xC06F2)")
    parser.add_argument("--all", action="store_true", help="print the rows that were silent too")
    add_json(parser)


def number(value: object, what: str) -> int:
    """A number with an optional K, M or G behind it."""
    from seamref.errors import SeamrefError

    text = str(value).strip()
    shift = {"K": 10, "M": 20, "G": 30}.get(text[-1:].upper(), 0)
    try:
        return int(text[:-1] if shift else text, 0) << shift
    except ValueError:
        raise SeamrefError(f"{what}: {text!r}, must be a number such as 4, 0x806F8 or 128M") from None


def svn(text: str) -> tuple[int, int]:
    """ "1.5" or 0x0105 as (major, minor)."""
    from seamref.commands._names import count

    if "." in text:
        major, _, minor = text.partition(".")
        found = number(major, "--running-svn"), number(minor, "--running-svn")
    else:
        found = divmod(number(text, "--running-svn"), 256)
    count(found[0], "--running-svn, major", 0, 255)
    count(found[1], "--running-svn, minor", 0, 255)
    return found


def partner(file: str, named: str | None, suffix: str, missing: str) -> bytes:
    """The other half of a module: the file that was named, or the one beside ``file`` with another suffix."""
    from seamref.commands._files import read
    from seamref.errors import SeamrefError

    if named:
        return read(named)
    path = Path(file)
    whole = path.with_name(path.name + suffix)  # TDX-SEAM.so.sigstruct beside TDX-SEAM.so
    bare = path.with_suffix("")  # and TDX-SEAM.so beside TDX-SEAM.so.sigstruct
    beside = [path.with_suffix(suffix), whole] if suffix == SIGSTRUCT else [path.with_suffix(suffix), bare,
                                                                            path.with_suffix(".so")]
    for other in beside:
        if other != path and other.is_file():
            return read(other)
    raise SeamrefError(missing)


def run(args: argparse.Namespace) -> int:
    """Print the verdict."""
    from seamref.commands._answer import print_json
    from seamref.commands._files import read
    from seamref.commands._names import count
    from seamref.errors import SeamrefError
    from seamref.host import image as images
    from seamref.host.verify import Target, plan_lines, verify
    from seamref.mint.keys import KEY
    from seamref.pseamldr.api import Scenario
    from seamref.pseamldr.sigstruct import PRODUCTION_KEY_HASH, SEAM_SIGSTRUCT

    count(args.remaining, "--remaining", 0, 0xFFFF_FFFF)
    given = {name: getattr(args, name.replace("-", "_")) for name in
             ("sockets", "lps", "addressable", "seamrr-size", "range-size", "fms")}
    if args.platform is not None:
        try:
            described = json.loads(read(args.platform, limit=1 << 20))
        except (ValueError, RecursionError) as error:
            raise SeamrefError(f"{args.platform}: not JSON ({error})") from None
        if not isinstance(described, dict) or set(described) - set(given):
            raise SeamrefError(f"{args.platform}: must be an object with {', '.join(given)}")
        given = {name: given[name] if given[name] is not None else described.get(name) for name in given}
    where = {"seamrr-size": "seamrr_size", "range-size": "p_seamldr_range_size"}
    fields = {where.get(name, name): number(value, f"--{name}") for name, value in given.items()
              if value is not None and name != "fms"}
    if given["fms"] is not None:
        listed = given["fms"] if isinstance(given["fms"], list) else [given["fms"]]
        fields["fms"] = tuple(number(value, "--fms") for value in listed)  # type: ignore[assignment]
    signers = {"intel": PRODUCTION_KEY_HASH, "test": KEY.key_hash}
    try:
        signer = signers.get(args.signer.lower()) or bytes.fromhex(args.signer)
        if len(signer) != len(KEY.key_hash):
            raise ValueError(args.signer)
    except ValueError:
        raise SeamrefError(f"--signer: {args.signer!r}, must be intel, test or 96 hex digits") from None
    target = Target(
        debug_unlocked=args.debug, seamldr=args.seamldr, signer_key_hash=signer, remaining=args.remaining,
        running_svn=None if args.running_svn in (None, "none") else svn(args.running_svn),
        scenario=Scenario.UPDATE if args.scenario == "update" else Scenario.LOAD, **fields,  # type: ignore[arg-type]
    )
    data = read(args.file)
    try:
        if images.format_of(data) is not None:
            blob = images.parse(data, ignore_checksum=True)
            sigstruct, image = blob.sigstruct, blob.module
            if args.sigstruct:
                sigstruct = read(args.sigstruct)[: SEAM_SIGSTRUCT.size]
        elif args.image or len(data) == SEAM_SIGSTRUCT.size:
            sigstruct, image = data, partner(args.file, args.image, ".bin", "a sigstruct needs its module: --image")
        else:
            held = partner(args.file, args.sigstruct, SIGSTRUCT, "no TDX-BLOB: a module image needs --sigstruct")
            sigstruct, image = held[: SEAM_SIGSTRUCT.size], data
        found = verify(sigstruct, image, target)
    except SeamrefError as error:
        raise SeamrefError(f"{args.file}: {error}") from None
    lines = plan_lines(found.plan, found.tables) if found.plan is not None else []
    if args.json:
        print_json("verification", {
            "accepted": found.accepted, "rax": f"0x{found.status:X}", "status": found.status.name,
            "rdx": int(found.rdx), "fatal": found.fatal, "stopped": found.stopped and found.stopped.id,
            "asked": [{"table": a.table, "clause": a.id, "says": a.says, "stopped": a.stopped} for a in found.path],
            "notes": list(found.notes),
            "plan": [{"region": n, "physical": f"0x{p:X}", "size": f"0x{s:X}",
                      "linear": None if lin is None else f"0x{lin:X}"} for n, p, s, lin in lines],
        })
        return 0 if found.accepted else 1
    for asked in found.path:
        if args.all or asked.stopped:
            print(f"{'stops ' if asked.stopped else 'silent'}  {asked.id}: {asked.says}")
    print(f"{len(found.path)} checks asked" + ("" if args.all else " (--all lists them)"))
    for note in found.notes:
        print(f"note: {note}")
    if found.fatal:
        print(f"fatal: {found.fatal}: P-SEAMLDR executes UD2 or faults, the processor shuts down")
    else:
        print(f"RAX = 0x{found.status:016X} {found.status.name}, RDX = {int(found.rdx)}")
    if not found.accepted and target.running_svn is None:
        print("no module ran before (--running-svn says what runs); " + (
            "nothing was changed" if found.rdx == 0 and not found.fatal else "the module range was wiped"))
        return 1
    if not found.accepted:
        print("the module that ran before " + ("still runs" if found.rdx == 0 and not found.fatal else "is gone"))
        return 1
    assert found.plan is not None
    have = found.plan.module_physlimit - found.plan.seamrr_base
    print(f"memory plan for {found.plan.num_addressable_lps} addressable processors (without address randomisation):")
    for name, physical, size, linear in lines:
        print(f"  {physical:>12X} {size:>10X}  {name:<30} " + ("" if linear is None else f"linear {linear:016X}"))
    counted = found.plan.paging_structure_size // 4096
    print(f"the size formula demands 0x{found.plan.minimum_size:X} of 0x{have:X} bytes; {found.tables} table pages "
          f"are used where it counts {counted}")
    return 0
