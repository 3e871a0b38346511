"""A completion script for your shell, made from the same declarations as the help.

For bash, put `source <(seamref completion bash)` into ~/.bashrc; for zsh, the same with zsh into ~/.zshrc after
compinit; for fish, `seamref completion fish > ~/.config/fish/completions/seamref.fish`.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

HELP = "a completion script for bash, zsh or fish"

Words = dict[str, list[tuple[str, list[str]]]]
"""Command -> its options, each with its choices."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the shell."""
    parser.add_argument("shell", choices=["bash", "zsh", "fish"])


def words_of(parser: argparse.ArgumentParser) -> Iterator[tuple[str, list[str]]]:
    """(option, its choices) of a parser and its subparsers; positional arguments have the option ""."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            yield "", list(action.choices)
            for inner in action.choices.values():
                yield from words_of(inner)
            continue
        choices = [str(choice) for choice in action.choices or ()]
        for option in action.option_strings or [""]:
            yield option, choices


def run(args: argparse.Namespace) -> int:
    """Print the script."""
    from seamref.cli import command_names, command_parser

    found = {name: list(words_of(command_parser(name)[0])) for name in command_names()}
    print({"bash": _bash, "zsh": _zsh, "fish": _fish}[args.shell](found))
    return 0


def _bash(found: Words) -> str:
    lines = ["# bash completion of seamref; made by: seamref completion bash", "_seamref() {",
             '  local cur="${COMP_WORDS[COMP_CWORD]}" prev="${COMP_WORDS[COMP_CWORD-1]}" words=""',
             "  COMPREPLY=()", '  if [ "$COMP_CWORD" -eq 1 ]; then',
             f'    words="help --help --version {" ".join(found)}"', "  else",
             '    case "${COMP_WORDS[1]} $prev" in']
    for name, words in found.items():
        for option, choices in words:
            if option and choices:
                lines.append(f'      "{name} {option}") words="{" ".join(choices)}" ;;')
    lines += ["    esac", '    if [ -z "$words" ]; then case "${COMP_WORDS[1]}" in',
              f'      help) words="{" ".join(found)}" ;;']
    for name, words in found.items():
        every = dict.fromkeys([o for o, _ in words if o] + [c for o, cs in words if not o for c in cs])
        lines.append(f'      {name}) words="{" ".join(every)}" ;;')
    lines += ["    esac; fi", "  fi", '  COMPREPLY=($(compgen -W "$words" -- "$cur"))',
              '  [ "${#COMPREPLY[@]}" -gt 0 ] || COMPREPLY=($(compgen -f -- "$cur"))', "}",
              "complete -o filenames -F _seamref seamref"]
    return "\n".join(lines)


def _zsh(found: Words) -> str:
    head = "# zsh completion of seamref; made by: seamref completion zsh\nautoload -U +X bashcompinit && bashcompinit\n"
    return head + _bash(found)


def _fish(found: Words) -> str:
    from seamref.cli import load_command

    lines = ["# fish completion of seamref; made by: seamref completion fish"]
    for name, words in found.items():
        lines.append(f"complete -c seamref -n __fish_use_subcommand -a {name} -d {_quoted(load_command(name).HELP)}")
        for option, choices in words:
            given = f" -xa '{' '.join(choices)}'" if choices else ""
            seen = f"complete -c seamref -n '__fish_seen_subcommand_from {name}'"
            if option.startswith("--"):
                lines.append(f"{seen} -l {option[2:]}{given}")
            elif choices:
                lines.append(f"{seen}{given}")
    return "\n".join(lines)


def _quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
