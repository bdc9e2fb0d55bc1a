"""Usage texts, from the tables of commands and flags."""

from __future__ import annotations

import textwrap

from corten.cli.context import PROGRAM, say
from corten.cli.flags import Command, Flag
from corten.cli.table import ALIASES, COMMANDS, GROUPS, at_the_top, in_group

_COMMON = ("run", "exec", "ps", "pull", "push", "images", "version", "info")
_WIDTH = 80


def print_top(flags: tuple[Flag, ...]) -> None:
    short = at_the_top()
    say(f"Usage:  {PROGRAM} [OPTIONS] COMMAND\n\nContainers from images, as Docker runs them, in Python\n")
    _commands("Common Commands", {name: short[name] for name in _COMMON})
    _commands("Management Commands", GROUPS)
    _commands("Commands", {name: short[name] for name in sorted(short) if name not in _COMMON})
    say("Global Options:")
    say(_flags(flags))
    say(f"\nRun '{PROGRAM} COMMAND --help' for more information on a command.")


def print_group(group: str) -> None:
    say(f"Usage:  {PROGRAM} {group} COMMAND\n\n{GROUPS[group]}\n")
    _commands("Commands", in_group(group))
    say(f"Run '{PROGRAM} {group} COMMAND --help' for more information on a command.")


def print_command(command: Command, called: str) -> None:
    say(f"Usage:  {PROGRAM} {called} {command.usage}".rstrip())
    say(f"\n{COMMANDS[command.path][2]}")
    names = [name for name, path in ALIASES.items() if path == command.path]
    if names:
        say(f"\nAliases:\n  {', '.join(f'{PROGRAM} {name}' for name in sorted([command.path, *names]))}")
    if any(flag.help for flag in command.flags):
        say(f"\nOptions:\n{_flags(command.flags)}")


def _commands(title: str, entries: dict[str, str]) -> None:
    say(f"{title}:")
    for name, short in entries.items():
        say(f"  {name:<11} {short}")
    say("")


def _flags(flags: tuple[Flag, ...]) -> str:
    shown = sorted((flag for flag in flags if flag.help), key=lambda flag: flag.name)
    heads = [_head(flag) for flag in shown]
    column = max(len(head) for head in heads) + 3
    lines = []
    for flag, head in zip(shown, heads, strict=True):
        text = flag.help
        if flag.default not in (None, "", 0, False):
            text += f' (default "{flag.default}")' if isinstance(flag.default, str) else f" (default {_default(flag)})"
        wrapped = textwrap.wrap(text, max(24, _WIDTH - column)) or [""]
        lines.append(head.ljust(column) + wrapped[0])
        lines += [" " * column + part for part in wrapped[1:]]
    return "\n".join(lines)


def _head(flag: Flag) -> str:
    head = f"  -{flag.short}, --{flag.name}" if flag.short else f"      --{flag.name}"
    return f"{head} {flag.word}".rstrip()


def _default(flag: Flag) -> str:
    return str(flag.default).lower() if isinstance(flag.default, bool) else str(flag.default)
