"""The command line: a registry of the modules in ``seamref.commands``, imported when they are named.

Exit codes: 0; 1 when the answer is "no" (refused, differs); 2 for bad input, with one line that says what is bad.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import NoReturn

from seamref.errors import SeamrefError

PROG = "python -m seamref"
BAD_INPUT = 2
SIGPIPE_CODE, SIGINT_CODE = 141, 130


class Parser(argparse.ArgumentParser):
    """A parser whose complaint is one line."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong and where help is, on one line; exit code 2."""
        self.exit(BAD_INPUT, f"{self.prog}: {message} (try --help)\n")


def command_names() -> list[str]:
    """Names of all commands, as typed: a module ``seamcall_table`` is ``seamcall-table``."""
    folder = Path(__file__).parent / "commands"
    return sorted(path.stem.replace("_", "-") for path in folder.glob("*.py") if not path.stem.startswith("_"))


def load_command(name: str) -> ModuleType:
    """Import one command."""
    return import_module(f"seamref.commands.{name.replace('-', '_')}")


def overview() -> Parser:
    """The parser that lists every command."""
    from seamref import __version__

    names = command_names()
    width = max(map(len, names), default=0)
    lines = [f"  {name:{width}}  {load_command(name).HELP}" for name in names]
    parser = Parser(
        prog=PROG,
        description="An executable specification of Intel TDX's SEAM loading chain.",
        epilog="commands:\n" + "\n".join(lines) + f"\n\n{PROG} COMMAND --help says more about one.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"seamref {__version__}")
    parser.add_argument("command", metavar="COMMAND", help="one of those below")
    return parser


def command_parser(name: str) -> tuple[Parser, ModuleType]:
    """The parser of one command, and its module."""
    module = load_command(name)
    parser = Parser(prog=f"{PROG} {name}", description=(module.__doc__ or module.HELP).strip(),
                    formatter_class=argparse.RawDescriptionHelpFormatter)
    module.add_arguments(parser)
    return parser, module


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; what it returns is the exit code."""
    args = list(sys.argv[1:] if argv is None else argv)
    try:
        code = _run(args)
        sys.stdout.flush()
        return code
    except SystemExit as done:  # argparse: help, version or a complaint
        return done.code if isinstance(done.code, int) else 0
    except BrokenPipeError:
        # Whoever read our output has gone; what is still buffered must not complain at exit either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return SIGPIPE_CODE
    except KeyboardInterrupt:
        return SIGINT_CODE
    except SeamrefError as error:
        return _complain(" ".join(str(error).split()))
    except OSError as error:
        return _complain(f"{error.filename}: {error.strerror}" if error.filename else str(error))


def _complain(what: str) -> int:
    print(f"seamref: {what}", file=sys.stderr)
    return BAD_INPUT


def _run(args: list[str]) -> int:
    name = args[0].replace("_", "-") if args else ""
    if name not in command_names():
        parser = overview()
        if not args:
            parser.print_help()
            return BAD_INPUT
        given = parser.parse_args(args[:1] if not args[0].startswith("-") else args)
        parser.error(f"no command {given.command!r}; there are {', '.join(command_names())}")
    parser, module = command_parser(name)
    result: int = module.run(parser.parse_args(args[1:]))
    return result
