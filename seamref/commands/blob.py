"""TDX-BLOB files: put together, take apart, convert between formats 1.0 and 2.0, check.

Every published image is 1.0; the merged kernel takes only 2.0.  Converting changes the header only and is undone by
converting back.  `check` exits with 1 when a rule of the format, or the kernel asked about, refuses the file.
"""

from __future__ import annotations

import argparse
from pathlib import Path

HELP = "join, split, convert and check TDX-BLOB files (1.0 and 2.0)"
FORMATS = {"1": 0x100, "1.0": 0x100, "2": 0x200, "2.0": 0x200}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the subcommands."""
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="join|split|convert|check|demo")
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
    verbs.add_parser("demo", help="a test image in both formats, before every kernel, and converted there and back")
    check.add_argument("--kernel", metavar="VERSION", help="exit code by this kernel: v1 to v10 or merged")


def run(args: argparse.Namespace) -> int:
    """Do it."""
    from seamref.errors import SeamrefError
    from seamref.host import image

    if args.verb == "join":
        made = image.build(Path(args.sigstruct).read_bytes(), Path(args.module).read_bytes(), FORMATS[args.format])
        Path(args.out).write_bytes(made)
        print(f"{args.out}: {_name(image.format_of(made))}, {len(made)} bytes")
        return 0
    if args.verb == "demo":
        return _demo()
    data = Path(args.blob).read_bytes()
    if args.verb == "check":
        return _check(args.blob, data, args.kernel)
    try:
        version = image.format_of(data)
        blob = image.parse(data)
        if args.verb == "split":
            Path(args.module).write_bytes(blob.module)
            Path(args.sigstruct).write_bytes(blob.sigstruct)
            print(f"{args.module}: {len(blob.module)} bytes; {args.sigstruct}: {len(blob.sigstruct)} bytes")
            return 0
        other = image.V2 if version == image.V1 else image.V1
        made = image.convert(data, FORMATS[args.to] if args.to else other)
        if image.convert(made, blob.version) != data:
            raise SeamrefError("the conversion would not be undone by converting back")
    except SeamrefError as error:
        raise SeamrefError(f"{args.blob}: {error}") from None
    Path(args.out).write_bytes(made)
    print(f"{args.out}: {_name(image.format_of(made))}, {len(made)} bytes; converting back gives {args.blob} again")
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


def _check(name: str, data: bytes, asked: str | None) -> int:
    """The rules of the format, then every kernel."""
    from seamref.host import image

    version = image.format_of(data)
    table = image.FORMATS[image.V1 if version is None else version][1]
    broken = {row.id for row in image.format_problems(data)}
    print(f"{name}: {_name(version)}, {len(data)} bytes")
    for row in table:
        print(f"  {'BAD' if row.id in broken else 'ok '} {row.id}" + (f": {row.says}" if row.id in broken else ""))
    verdict = not broken and version is not None
    for kernel in image.KERNEL_VERSIONS:
        outcome = image.check_image(data, kernel)
        if isinstance(outcome, image.ImageTaken):
            print(f"  kernel {kernel}: taken, {outcome.num_module_pages} module pages")
        else:
            says = f', prints "{outcome.message}"' if outcome.message else ""
            print(f"  kernel {kernel}: {outcome.errno} by {outcome.clause}{says}")
    if asked:
        verdict = isinstance(image.check_image(data, asked), image.ImageTaken)
    return 0 if verdict else 1
