"""TDX-BLOB files: put together, take apart, convert between formats 1.0 and 2.0, check, and mint for tests.

Every published image is 1.0; the merged kernel takes only 2.0.  Converting changes the header only and is undone by
converting back.  `mint` writes a module that runs here, signed by the key that the tests use.  `check` exits with 1
when a rule of the format, or the kernel asked about, refuses the file.

A file is written whole or not at all, never over an input, and over a file that is there only with --force; `-` is
standard input or output.
"""

from __future__ import annotations

import argparse
import sys

HELP = "join, split, convert, check and mint TDX-BLOB files (1.0 and 2.0)"
LARGEST = 16 << 20
"""Bytes of a TDX-BLOB.  496 module pages, the most that INSTALL takes, are 2 MiB; what is far beyond is not read."""
FORMATS = {"1": 0x100, "1.0": 0x100, "2": 0x200, "2.0": 0x200}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the subcommands."""
    from seamref.commands._answer import add_json

    verbs = parser.add_subparsers(dest="verb", required=True, metavar="join|split|convert|check|mint|demo")
    join = verbs.add_parser("join", help="module image and sigstruct to a blob")
    join.add_argument("module", metavar="BIN")
    join.add_argument("sigstruct", metavar="SIGSTRUCT")
    join.add_argument("out", metavar="OUT")
    join.add_argument("--format", choices=sorted(FORMATS), default="1.0")
    split = verbs.add_parser("split", help="a blob to module image and sigstruct")
    split.add_argument("blob", metavar="BLOB")
    split.add_argument("module", metavar="BIN")
    split.add_argument("sigstruct", metavar="SIGSTRUCT")
    convert = verbs.add_parser("convert", help="the same contents in the other format")
    convert.add_argument("blob", metavar="BLOB")
    convert.add_argument("out", metavar="OUT")
    convert.add_argument("--to", choices=sorted(FORMATS), help="default: the other one")
    check = verbs.add_parser("check", help="rules of the format, and what kernels make of it")
    check.add_argument("blob", metavar="BLOB")
    minted = verbs.add_parser("mint", help="a test image, signed by the tests' key: TDX-BLOB, module or sigstruct")
    minted.add_argument("out", metavar="OUT")
    minted.add_argument("--build", default="1.5.16", metavar="BUILD", help="a module build that runs here (1.5.16)")
    minted.add_argument("--as", dest="part", choices=["blob", "module", "sigstruct"], default="blob")
    minted.add_argument("--format", choices=sorted(FORMATS), default="1.0")
    for writer in (join, split, convert, minted):
        writer.add_argument("--force", action="store_true", help="replace a file that is there")
    verbs.add_parser("demo", help="a test image in both formats, before every kernel, and converted there and back")
    add_json(check)
    check.add_argument("--kernel", metavar="VERSION", help="exit code by this kernel: v1 to v10 or merged")


def run(args: argparse.Namespace) -> int:
    """Do it."""
    from seamref.commands import _files as files
    from seamref.errors import SeamrefError
    from seamref.host import image

    if args.verb == "demo":
        return _demo()
    if args.verb == "mint":
        return _mint(args)
    if args.verb == "join":
        made = image.build(files.read(args.sigstruct), files.read(args.module), FORMATS[args.format])
        files.write(args.out, made, force=args.force, inputs=(args.sigstruct, args.module))
        _said(f"{files.named(args.out)}: {_name(image.format_of(made))}, {len(made)} bytes", args.out)
        return 0
    data = files.read(args.blob, limit=LARGEST)
    if args.verb == "check":
        return _check(files.named(args.blob), data, args.kernel, args.json)
    try:
        version = image.format_of(data)
        blob = image.parse(data)
        other = image.V2 if version == image.V1 else image.V1
        made = data if args.verb == "split" else image.convert(data, FORMATS[args.to] if args.to else other)
        if args.verb == "convert" and image.convert(made, blob.version) != data:
            raise SeamrefError("the conversion would not be undone by converting back")
    except SeamrefError as error:
        raise SeamrefError(f"{files.named(args.blob)}: {error}") from None
    if args.verb == "split":
        files.write_all([(args.module, blob.module), (args.sigstruct, blob.sigstruct)], force=args.force,
                        inputs=(args.blob,))
        _said(f"{files.named(args.module)}: {len(blob.module)} bytes; "
              f"{files.named(args.sigstruct)}: {len(blob.sigstruct)} bytes", args.module, args.sigstruct)
        return 0
    files.write(args.out, made, force=args.force, inputs=(args.blob,))
    _said(f"{files.named(args.out)}: {_name(image.format_of(made))}, {len(made)} bytes; "
          f"converting back gives {files.named(args.blob)} again", args.out)
    return 0


def _said(line: str, *outputs: str) -> None:
    """Say what was made; on standard error where an output is standard output."""
    print(line, file=sys.stderr if "-" in outputs else sys.stdout)


def _mint(args: argparse.Namespace) -> int:
    """A module build that this machine can run, as a file."""
    from seamref.commands import _files as files
    from seamref.commands._names import pick
    from seamref.host import image
    from seamref.host.machine import blob
    from seamref.tdxmodule.build import BUILDS

    whole = blob(pick(args.build, BUILDS, "build"), version=FORMATS[args.format])
    held = image.parse(whole)
    data = {"blob": whole, "module": held.module, "sigstruct": held.sigstruct}[args.part]
    files.write(args.out, data, force=args.force)
    _said(f"{files.named(args.out)}: {args.part} of build {args.build}, {len(data)} bytes, signed by the tests' key",
          args.out)
    return 0


def _name(version: int | None) -> str:
    return "no format" if version is None else f"format {version >> 8}.{version & 0xFF}"


def _demo() -> int:
    """What becomes of a published kind of file, and of its conversion."""
    from seamref import mint
    from seamref.host import image

    module = mint.module_image()
    published = image.build(mint.sigstruct(module), module, image.V1)
    converted = image.convert(published, image.V2)
    _check("minted, as published", published, None)
    _check("the same, converted", converted, None)
    changed = [at for at in range(len(published)) if published[at] != converted[at]]
    print(f"converting changed {len(changed)} bytes, all in the header: offsets {changed[0]} to {changed[-1]}")
    back = image.convert(converted, image.V1) == published
    print(f"converting back gives the published file: {'yes' if back else 'no'}")
    return 0 if back else 1


def _check(name: str, data: bytes, asked: str | None, as_json: bool = False) -> int:
    """The rules of the format, then every kernel."""
    from seamref.commands._answer import print_json
    from seamref.commands._names import pick
    from seamref.host import image

    kernel = pick(asked, image.KERNEL_VERSIONS, "version") if asked else None
    version = image.format_of(data)
    table = image.FORMATS[image.V1 if version is None else version][1]
    broken = {row.id for row in image.format_problems(data)}
    verdict = not broken and version is not None
    if kernel:
        verdict = isinstance(image.check_image(data, kernel), image.ImageTaken)
    if as_json:
        met = {v: image.check_image(data, v) for v in image.KERNEL_VERSIONS}
        print_json("blob-check", {
            "file": name, "version": None if version is None else f"{version >> 8}.{version & 0xFF}",
            "bytes": len(data), "good": verdict, "kernel": kernel,
            "rules": [{"clause": row.id, "says": row.says, "broken": row.id in broken} for row in table],
            "kernels": {v: {"taken": True, "num_module_pages": o.num_module_pages}
                        if isinstance(o, image.ImageTaken) else
                        {"taken": False, "errno": str(o.errno), "clause": o.clause, "dmesg": o.message}
                        for v, o in met.items()},
        })
        return 0 if verdict else 1
    print(f"{name}: {_name(version)}, {len(data)} bytes")
    for row in table:
        print(f"  {'BAD' if row.id in broken else 'ok '} {row.id}" + (f": {row.says}" if row.id in broken else ""))
    for series in image.KERNEL_VERSIONS:
        outcome = image.check_image(data, series)
        if isinstance(outcome, image.ImageTaken):
            print(f"  kernel {series}: taken, {outcome.num_module_pages} module pages")
        else:
            says = f', prints "{outcome.message}"' if outcome.message else ""
            print(f"  kernel {series}: {outcome.errno} by {outcome.clause}{says}")
    return 0 if verdict else 1
