"""My machine does not come up: which link of the chain is broken, by which line, and what now?

FILE is anything one has: dmesg or journal output, rdmsr commands with their values, /proc/cpuinfo, lsmod, the kernel
command line, sysfs values, a report of canonical/tdx, all in one paste or in several files; - is standard input.  A
TDX-BLOB, a sigstruct or TDX-SEAM.so beside them is identified.  Without FILE the doctor looks at this machine,
read-only (Linux; as root it sees more).

    dmesg | python -m seamref doctor -
    python -m seamref doctor dmesg.txt rdmsr.txt
    python -m seamref doctor --collect bundle.txt      a text to take along, without host name and serial numbers

Each link is ok, wrong, not shown (with the command that would show it) or skipped because one before it is wrong.
Exit code 0: all is well; 1: something is wrong, or it is not shown that all is well; 2: bad input.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

HELP = "walk the chain BIOS ... KVM over a log and registers: the first cause, what follows from it, what now"
MAGIC = (b"\x7fELF", b"\x06\0\0\0")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("file", nargs="*", metavar="FILE", help="text with what one has, an image, or -")
    parser.add_argument("--collect", metavar="FILE", help="write what this machine says into FILE (- prints it)")
    parser.add_argument("--json", action="store_true", help="as JSON")


def run(args: argparse.Namespace) -> int:
    """Print the tree."""
    from seamref import __version__
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
            Path(args.collect).write_text(text, encoding="utf-8")
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
        print(json.dumps({"format": "seamref-doctor/1", "seamref": __version__, "lines": evidence.lines,
                          **found.to_json()}, indent=1))
    else:
        print(found.text())
    return 0 if found.well else 1


def _image(path: Path) -> str:
    """One line on an image that lies beside the logs."""
    from seamref.diagnose.identity import MAX_FILE, identify_bytes
    from seamref.errors import SeamrefError

    with path.open("rb") as stream:
        data = stream.read(MAX_FILE)
    try:
        found = identify_bytes(data)
    except SeamrefError as error:
        return str(error)
    return f"{found.short}" + (f" ({'; '.join(found.notes)})" if found.notes else "")
