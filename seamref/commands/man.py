"""The manual page, made from the same declarations as the help."""

from __future__ import annotations

import argparse

HELP = "the manual page, as troff"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """No options."""


def run(args: argparse.Namespace) -> int:
    """Print the page."""
    from seamref import __version__
    from seamref.cli import command_parser, groups
    from seamref.commands import ALIASES, EXAMPLES, NO

    out = [f'.TH SEAMREF 1 "" "seamref {__version__}" "User Commands"', ".SH NAME",
           "seamref \\- an executable specification of Intel TDX's SEAM loading chain", ".SH SYNOPSIS",
           ".B seamref", ".I COMMAND", "[\\fIOPTION\\fR ...]", ".SH COMMANDS"]
    for title, names in groups().items():
        out.append(f".SS {_text(title)}")
        for name in names:
            parser, module = command_parser(name)
            out += [".TP", f".B seamref {_text(name)}", _text(module.HELP)]
            for action in parser._actions:
                if isinstance(action, argparse._HelpAction):
                    continue
                shown = action.metavar if isinstance(action.metavar, str) else None
                if action.choices is not None and shown is None:
                    shown = "|".join(str(choice) for choice in action.choices)
                value = shown or action.dest.upper()
                what = ", ".join(action.option_strings) + (f" {value}" if action.nargs != 0 else "")
                says = (action.help or "").replace("%(default)s", str(action.default)).replace("%%", "%")
                out += [".RS", ".TP", f".B {_text(what if action.option_strings else value)}", _text(says), ".RE"]
            if name in NO:
                out += [".IP", f"Exit code 1: {_text(NO[name])}."]
    out.append(".SH EXAMPLES")
    for lines in EXAMPLES.values():
        for line in lines:
            out += [".PP", ".nf", f"seamref {_text(line)}", ".fi"]
    old = "; ".join(f"{one} is {other}" for one, other in ALIASES.items())
    out += [".SH EXIT STATUS", "0; 1 the answer is no; 2 bad input, said in one line; 70 a mistake in seamref itself; "
            "130 interrupted; 141 the reader of the output went away.", ".SH NAMES GIVEN UP", _text(old) + "."]
    print("\n".join(line for line in out if line))
    return 0


def _text(text: str) -> str:
    """Text that troff takes as it is."""
    text = text.replace("\\", "\\e").replace("-", "\\-")
    return "\\&" + text if text[:1] in (".", "'") else text
