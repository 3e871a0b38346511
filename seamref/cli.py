"""The command line: a registry of the modules in ``seamref.commands``, imported when they are named.

Exit codes: 0; 1 when the answer is "no" (refused, differs); 2 for bad input, with one line that says what is bad;
70 for a mistake in seamref itself; 130 when interrupted; 141 when the reader of the output went away.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

from seamref.errors import SeamrefError

BAD_INPUT, INTERNAL = 2, 70
SIGPIPE_CODE, SIGINT_CODE = 141, 130
TRACEBACK = "SEAMREF_TRACEBACK"


def called_as() -> str:
    """How the user calls this: by its own name where it was started so."""
    own = Path(sys.argv[0]).stem if sys.argv and sys.argv[0] else ""
    return "seamref" if own == "seamref" else "python -m seamref"


class Parser(argparse.ArgumentParser):
    """A parser whose complaint is one line, whose choices have no case, and that guesses what was meant."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong and where help is, on one line; exit code 2."""
        self.exit(BAD_INPUT, f"{self.prog}: {_one_line(message + self._guess(message))} (try --help)\n")

    def add_argument(self, *names: Any, **more: Any) -> argparse.Action:
        """Declare an option; choices that are words are taken in any case."""
        choices = more.get("choices")
        if choices is not None and more.get("type") in (None, str) and all(isinstance(c, str) for c in choices):
            more["type"] = _without_case(tuple(choices))
        return super().add_argument(*names, **more)

    def _print_message(self, message: str, file: Any = None) -> None:
        """Print; argparse itself would say nothing about a disk that is full."""
        if message:
            (file or sys.stderr).write(message)

    def _guess(self, message: str) -> str:
        from seamref.commands._names import guess

        said, _, word = message.partition(": ")
        if said == "unrecognized arguments":
            options = [name for action in self._actions for name in action.option_strings]
            bad = next((part for part in word.split() if part.startswith("-")), "")
            return guess(bad.partition("=")[0], options) if bad else ""
        if "invalid choice: " in message:
            bad = message.partition("invalid choice: ")[2].partition(" (")[0].strip("'")
            said = said.removeprefix("argument ").split("/")[0]
            choices = [str(c) for a in self._actions if a.choices is not None
                       and said in (*a.option_strings, a.dest, a.metavar) for c in a.choices]
            return guess(bad, choices)
        return ""


def _without_case(choices: tuple[str, ...]) -> Callable[[str], str]:
    by_lower = {choice.lower(): choice for choice in choices}
    return lambda text: text if text in choices else by_lower.get(text.lower(), text)


def command_names() -> list[str]:
    """Names of all commands, as typed: a module ``seamcall_table`` is ``seamcall-table``."""
    folder = Path(__file__).parent / "commands"
    return sorted(path.stem.replace("_", "-") for path in folder.glob("*.py") if not path.stem.startswith("_"))


def resolve(typed: str) -> str:
    """The command that a word means, whatever its case, hyphens or age; "" where there is none."""
    from seamref.commands import ALIASES

    name = typed.lower().replace("_", "-")
    name = ALIASES.get(name, name)
    return name if name in command_names() else ""


def load_command(name: str) -> ModuleType:
    """Import one command."""
    return import_module(f"seamref.commands.{name.replace('-', '_')}")


def groups() -> dict[str, list[str]]:
    """What a user wants to do -> the commands for it; every command once."""
    from seamref.commands import GROUPS

    left = command_names()
    found = {title: [name for name in names if name in left] for title, names in GROUPS.items()}
    grouped = {name for names in found.values() for name in names}
    found["more"] = [name for name in left if name not in grouped]
    return {title: names for title, names in found.items() if names}


def overview() -> Parser:
    """The parser that lists every command, by what one wants to do."""
    from seamref import __version__

    prog = called_as()
    width = max(map(len, command_names()), default=0)
    lines: list[str] = []
    for title, names in groups().items():
        lines += ["", f"{title}:", *(f"  {name:{width}}  {load_command(name).HELP}" for name in names)]
    parser = Parser(
        prog=prog,
        usage=f"{prog} COMMAND [OPTION ...]",
        description="An executable specification of Intel TDX's SEAM loading chain.",
        epilog="\n".join(lines).strip() + f"\n\n{prog} help COMMAND says more about one, with examples.\n"
        "Exit codes: 0; 1 the answer is no; 2 bad input, said in one line; 70 a mistake in seamref itself;\n"
        "130 interrupted; 141 the reader of the output went away.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("-V", "--version", action="version", version=f"seamref {__version__}")
    parser.add_argument("command", metavar="COMMAND", nargs="?", help="one of those below")
    return parser


def command_parser(name: str) -> tuple[Parser, ModuleType]:
    """The parser of one command, and its module."""
    from seamref.commands import EXAMPLES, NO

    module, prog = load_command(name), called_as()
    text = (module.__doc__ or module.HELP).strip().replace("python -m seamref", prog)
    examples = [f"{prog} {line}" for line in EXAMPLES.get(name, ())]
    end = ["examples:", *(f"    {line}" for line in examples), ""] if examples else []
    no = f"1 {NO[name]}; " if name in NO else ""
    end.append(f"exit codes: 0; {no}2 bad input, said in one line")
    parser = Parser(prog=f"{prog} {name}", description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    module.add_arguments(parser)
    parser.epilog = "\n\n".join(part for part in (parser.epilog or "", "\n".join(end)) if part)
    return parser, module


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; what it returns is the exit code."""
    args = list(sys.argv[1:] if argv is None else argv)
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    if sys.stdout is None:
        return _complain("standard output is closed")
    if sys.stdin is None:
        sys.stdin = _ClosedInput()
    try:
        code = _guarded(args)
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        _drop_output()
        return SIGPIPE_CODE
    except KeyboardInterrupt:
        return _interrupted()
    except OSError as error:
        _drop_output()
        return _complain(f"{error.filename or 'standard output'}: {error.strerror or error}")


def _guarded(args: list[str]) -> int:
    """Run; everything that can go wrong is a line and a code."""
    try:
        return _run(args)
    except SystemExit as done:  # argparse: help, version or a complaint
        return done.code if isinstance(done.code, int) else 0
    except BrokenPipeError:
        raise
    except SeamrefError as error:
        return _complain(str(error))
    except OSError as error:
        if error.filename is None:
            raise
        return _complain(f"{error.filename}: {error.strerror}")
    except MemoryError:
        return _complain("not enough memory for this")
    except RecursionError:
        return _complain("nested too deeply")
    except Exception as error:
        if os.environ.get(TRACEBACK):
            raise
        _complain(f"a mistake in seamref, please report it: {type(error).__name__}: {error} ({TRACEBACK}=1 says where)")
        return INTERNAL


class _ClosedInput:
    """Standard input where there is none: whoever reads it is told."""

    closed = True

    def __getattr__(self, name: str) -> NoReturn:
        raise SeamrefError("standard input is closed")

    def isatty(self) -> bool:
        """It is no terminal."""
        return False


def _drop_output() -> None:
    """What is still buffered must not complain at exit either."""
    with suppress(OSError, ValueError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _interrupted() -> int:
    with suppress(OSError, ValueError):
        print("seamref: interrupted", file=sys.stderr)
    return SIGINT_CODE


def _one_line(text: str) -> str:
    """A message as a terminal may get it: one line, nothing that it would obey."""
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" if ord(c) < 0xD800 else "?"
                   for c in " ".join(text.split()))


def _complain(what: str) -> int:
    with suppress(OSError, ValueError):
        print(f"seamref: {_one_line(what)}", file=sys.stderr)
    return BAD_INPUT


def _run(args: list[str]) -> int:
    if args and args[0].lower() == "help" and len(args) <= 2:
        args = [*args[1:], "--help"]
    name = resolve(args[0]) if args else ""
    if not name:
        return _no_command(args)
    parser, module = command_parser(name)
    options = parser.parse_args(args[1:])
    with ExitStack() as stack:
        if hasattr(sys.stdout, "reconfigure"):
            sys.stdout.reconfigure(line_buffering=True, errors="backslashreplace")
        if sys.stderr.isatty():
            from seamref.commands._progress import Waiting

            stack.enter_context(Waiting(f"seamref {name}"))
        result: int = module.run(options)
    return result


def _no_command(args: list[str]) -> int:
    from seamref.commands import ALIASES
    from seamref.commands._names import guess

    parser = overview()
    if not args:
        parser.print_help()
        return BAD_INPUT
    if args[0].startswith("-"):
        given, unknown = parser.parse_known_args(args)
        if unknown:
            parser.error(f"unrecognized arguments: {' '.join(unknown)}")
        parser.error("a command is missing" if given.command is None else f"{args[0]!r} stands before the command")
    near = guess(args[0], [*command_names(), *ALIASES])
    parser.error(f"no command {args[0]!r}" + (near or f"; there are {', '.join(command_names())}"))
