"""Which release of the TDX module is this?

VALUE is an MRSEAM (96 hex digits), TEE_TCB_SVN (32 hex digits), SEAMSVN (0x0107), a version with three or four parts,
a build date, a line with build_date and build_num, or a file: TDX-BLOB, sigstruct, TDX-SEAM.so.  Without VALUE all
releases are listed with their sources.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from seamref.commands._answer import add_json, print_json

HELP = "the release behind an MRSEAM, a TCB SVN, a version, a build number or a file"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("value", nargs="*", metavar="VALUE|FILE", help="what to identify")
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Print what is known."""
    from seamref.commands._files import read
    from seamref.diagnose.identity import Identity, everything, identify_bytes, identify_text
    from seamref.errors import SeamrefError

    found: list[Identity] = []
    if not args.value:
        found = [Identity(f"release {m.version}", (m,)) for m in everything()]
    for value in args.value:
        known = identify_text(value)
        if known is None:
            path = Path(value)
            if not path.is_file():
                shown = value if len(value) <= 60 else value[:57] + "..."
                raise SeamrefError(f"{shown!r} is no file, MRSEAM, TEE_TCB_SVN, SEAMSVN, version or build")
            try:
                known = identify_bytes(read(path))
            except SeamrefError as error:
                raise SeamrefError(f"{value}: {error}") from None
        found.append(known)
    if args.json:
        print_json("identify", {"answers": [i.to_json() for i in found]})
    else:
        print("\n\n".join(identity.text() for identity in found))
    return 0 if all(identity.known for identity in found) else 1
