"""My machine does not come up: which link of the chain is broken, by which line, and what now?

FILE is anything one has: dmesg or journal output, rdmsr commands with their values, /proc/cpuinfo, lsmod, the kernel
command line, sysfs values, a report of canonical/tdx, all in one paste or in several files; - is standard input.  A
TDX-BLOB, a sigstruct or TDX-SEAM.so beside them is identified.  Without FILE the doctor looks at this machine,
read-only (Linux; as root it sees more).

Each link is ok, wrong, not shown (with the command that would show it) or skipped because one before it is wrong.
--collect writes a text to take along, without host name and serial numbers.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from seamref.commands._answer import add_json, print_json

HELP = "walk the chain BIOS ... KVM over a log and registers: the first cause, what follows from it, what now"
MAGIC = (b"\x7fELF", b"\x06\0\0\0")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("file", nargs="*", metavar="FILE", help="text with what one has, an image, or -")
    parser.add_argument("--collect", metavar="FILE", help="write what this machine says into FILE (- prints it)")
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Print the tree."""
    from seamref.commands._files import write
    from seamref.diagnose.collect import collect
    from seamref.diagnose.doctor import diagnose
    from seamref.diagnose.evidence import Evidence, gather
    from seamref.diagnose.read import file_lines, stdin_lines
    from seamref.errors import SeamrefError

    if args.collect:
        if args.file:
            raise SeamrefError("--collect looks at this machine: no FILE with it")
        text = "\n".join(collect()) + "\n"
        if args.collect == "-":
            print(text, end="")
        else:
            write(args.collect, text.encode(), force=True)
            print(f"{args.collect}: {len(text.splitlines())} lines")
        return 0
    evidence = Evidence()
    if not args.file:
        gather(collect(), evidence)
    for name in args.file:
        if name == "-":
            gather(stdin_lines(), evidence)
            continue
        path = Path(name)
        with path.open("rb") as stream:
            head = stream.read(16)
        if head[:4] in MAGIC or b"TDX-BLOB" in head:
            evidence.images.append(f"{name}: {_image(path)}")
        else:
            gather(file_lines(path), evidence)
    found = diagnose(evidence)
    if args.json:
        print_json("doctor", {"lines": evidence.lines, **found.to_json()})
    else:
        print(found.text())
    return 0 if found.well else 1


def _image(path: Path) -> str:
    """One line on an image that lies beside the logs."""
    from seamref.commands._files import read
    from seamref.diagnose.identity import identify_bytes
    from seamref.errors import SeamrefError

    try:
        found = identify_bytes(read(path))
    except SeamrefError as error:
        return str(error)
    return f"{found.short}" + (f" ({'; '.join(found.notes)})" if found.notes else "")
