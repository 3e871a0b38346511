"""Show a file field by field: a .sigstruct, a module image, a TDX-BLOB (1.0 or 2.0), an ACM.

Every field with its offset, value, meaning, rule and verdict.  Exit code 1: some rule is broken.
"""

from __future__ import annotations

import argparse

HELP = "a sigstruct, module, TDX-BLOB or ACM, field by field, with each field's rule and verdict"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    from seamref.commands._answer import add_json

    parser.add_argument("file", metavar="FILE", help="a file, or - for standard input")
    parser.add_argument("--as", dest="kind", metavar="KIND", help="sigstruct, module, blob or acm; default: what it is")
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Print the fields."""
    from seamref.commands._answer import print_json
    from seamref.commands._files import named, read
    from seamref.errors import SeamrefError
    from seamref.host.inspection import inspect_file

    data = read(args.file)
    try:
        found = inspect_file(data, args.kind)
    except SeamrefError as error:
        raise SeamrefError(f"{named(args.file)}: {error}") from None
    if args.json:
        print_json("inspection", found.to_json())
        return 0 if found.good else 1
    for section in found.sections:
        print(section.title)
        for line in section.lines:
            value = line.value if len(line.value) <= 40 else line.value[:37] + "..."
            verdict = f": {line.verdict}" if line.verdict else ""
            rule = f" [{line.rule}{verdict}]" if line.rule else ""
            print(f"  {line.offset:>6X} {line.size:>5}  {line.name:<22} {value:<40} {line.decoded}{rule}".rstrip())
        for finding in section.findings:
            mark = {True: "ok ", False: "BAD", None: "   "}[finding.good]
            print(f"  {mark} {finding.text}" + (f" ({finding.clause})" if finding.clause else ""))
    return 0 if found.good else 1
