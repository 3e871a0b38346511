"""Offset tables of every declared structure: a list of names, or one table, as text or JSON."""

from __future__ import annotations

import argparse

HELP = "offset table of a declared structure, or the list of structures"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("name", metavar="NAME", nargs="?", help="a structure, such as SEAM_SIGSTRUCT")
    parser.add_argument("--json", action="store_true", help="as JSON")


def run(args: argparse.Namespace) -> int:
    """Print the list or the table."""
    from seamref.commands._answer import print_json
    from seamref.commands._rooms import layouts
    from seamref.errors import SeamrefError

    if args.name is None:
        from seamref.commands import _declared

        listed = _declared.layouts()
        if args.json:
            print_json("layouts", {"layouts": listed})
        else:
            for one in listed:
                print(f"{one['name']:<28} {one['size']:>6}  {one['doc']}")
        return 0
    known = layouts(args.name)
    chosen = next((v for k, v in known.items() if k.upper() == args.name.upper()), None)
    if chosen is None:
        near = [k for k in known if args.name.upper() in k.upper()]
        raise SeamrefError(f"no structure {args.name!r}" + (f"; did you mean {', '.join(near)}" if near else
                                                            " (without a name, all are listed)"))
    if args.json:
        print_json("layout", {
            "name": chosen.name, "size": chosen.size, "doc": chosen.doc, "source": chosen.source,
            "fields": [{"offset": r.offset, "size": r.size, "name": r.name, "type": r.type, "must_be": r.must_be,
                        "meaning": r.meaning} for r in chosen.table()],
        })
        return 0
    print(f"{chosen.name}, {chosen.size} bytes ({chosen.source})\n{chosen.doc}")
    for row in chosen.table():
        must = f"  [{row.must_be}]" if row.must_be else ""
        where = f"{row.offset:>6} 0x{row.offset:<5X} {row.size:>5}"
        print(f"{where}  {row.name:<34} {row.type:<12} {row.meaning}{must}".rstrip())
    return 0
