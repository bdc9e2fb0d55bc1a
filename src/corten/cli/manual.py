"""Manual pages in roff, from the tables of commands and flags: the words are those of `--help`."""

from __future__ import annotations

from corten.cli.context import PROGRAM
from corten.cli.flags import Command, Flag
from corten.cli.table import ALIASES, COMMANDS, GROUPS, at_the_top, hidden, in_group

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SECTION = 1


def pages(globals_: tuple[Flag, ...], load: Callable[[str], Command]) -> Iterator[tuple[str, str]]:
    """The name of each page's file and its text: one for the program, one for each group, one for each command."""
    yield f"{PROGRAM}.{SECTION}", top_page(globals_)
    for group in GROUPS:
        yield f"{PROGRAM}-{group}.{SECTION}", group_page(group)
    for path in COMMANDS:
        if not hidden(path):
            yield f"{page_name(path)}.{SECTION}", command_page(load(path))


def page_name(path: str) -> str:
    return f"{PROGRAM}-{path.replace(' ', '-')}"


def top_page(globals_: tuple[Flag, ...]) -> str:
    commands = [(f"{PROGRAM} {name}", short) for name, short in sorted((at_the_top() | GROUPS).items())]
    return _page(
        PROGRAM,
        "containers from images, as Docker runs them",
        f"{PROGRAM} [OPTIONS] COMMAND",
        ("DESCRIPTION", "The command line of Corten. It speaks the Docker Engine API to the daemon, cortend(8)."),
        ("COMMANDS", _terms(commands)),
        ("OPTIONS", _options(globals_)),
        ("SEE ALSO", _escape(", ".join(f"{PROGRAM}-{group}({SECTION})" for group in GROUPS))),
    )


def group_page(group: str) -> str:
    found = [(f"{PROGRAM} {group} {name}", short) for name, short in in_group(group).items()]
    pages = [f"{page_name(f'{group} {name}')}({SECTION})" for name in in_group(group)]
    return _page(
        f"{PROGRAM}-{group}",
        GROUPS[group],
        f"{PROGRAM} {group} COMMAND",
        ("COMMANDS", _terms(found)),
        ("SEE ALSO", _escape(", ".join(pages))),
    )


def command_page(command: Command) -> str:
    short = COMMANDS[command.path][2]
    names = sorted(name for name, path in ALIASES.items() if path == command.path)
    sections = [("DESCRIPTION", _escape(f"{short}."))]
    if names:
        sections.append(("ALIASES", _escape(", ".join(f"{PROGRAM} {name}" for name in names))))
    if any(flag.help for flag in command.flags):
        sections.append(("OPTIONS", _options(command.flags)))
    group = command.path.partition(" ")[0]
    above = f"{PROGRAM}-{group}({SECTION})" if group in GROUPS else f"{PROGRAM}({SECTION})"
    sections.append(("SEE ALSO", _escape(above)))
    return _page(page_name(command.path), short, f"{PROGRAM} {command.path} {command.usage}".rstrip(), *sections)


def _page(name: str, short: str, usage: str, *sections: tuple[str, str]) -> str:
    head = f'.TH "{name.upper()}" "{SECTION}" "" "Corten" "User Commands"\n'
    named = f".SH NAME\n{_escape(name)} \\- {_escape(short)}\n.SH SYNOPSIS\n.B {_escape(usage)}\n"
    return head + named + "".join(f".SH {title}\n{text}\n" for title, text in sections)


def _options(flags: tuple[Flag, ...]) -> str:
    shown = sorted((flag for flag in flags if flag.help), key=lambda flag: flag.name)
    return _terms([(_label(flag), flag.help) for flag in shown])


def _label(flag: Flag) -> str:
    return f"{flag.label} {flag.word}".rstrip()


def _terms(entries: list[tuple[str, str]]) -> str:
    return "\n".join(f".TP\n.B {_escape(term)}\n{_escape(text)}" for term, text in entries)


def _escape(text: str) -> str:
    """As text of roff: no backslash escapes, no line is a request, hyphens stay hyphens when they are copied."""
    text = text.replace("\\", "\\e").replace("-", "\\-")
    return f"\\&{text}" if text[:1] in (".", "'") else text
