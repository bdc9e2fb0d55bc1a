"""Command-line flags as Docker's users know them, from a table.

click is not used: importing it costs 32 ms, more than all of `corten ps`, and its options differ from pflag's in what
users rely on: `-p8080:80`, `-it`, `--rm=false`, a list flag that may be given many times, flags of the container's own
command passing through. dataclasses would cost another 10 ms, hence the plain classes.
"""

from __future__ import annotations

from corten.cli.errors import ArgumentError, UsageError
from corten.cli.values import KINDS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from corten.cli.context import Context


_WORDS = {"filter": "filter", "map": "map", "swap": "bytes"}


class Flag:
    """One flag. `kind` is a name of `values.KINDS` (or "bool"); `many` collects a list, every value converted alone.

    `help` "" hides it from the help; `says` is the word for its value there.
    """

    __slots__ = ("default", "help", "kind", "many", "name", "says", "short")

    def __init__(
        self, name: str, short: str = "", kind: str = "string", help: str = "", *, default: Any = None, says: str = ""
    ) -> None:
        self.many = kind.endswith("*")
        self.kind = kind.rstrip("*")
        self.name, self.short, self.help, self.says = name, short, help, says
        zero: Any = False if self.kind == "bool" else 0 if self.kind in ("int", "uint16", "bytes", "duration") else ""
        self.default = default if default is not None else None if self.many else zero

    @property
    def word(self) -> str:
        """What stands for its value in the help; "" where it takes none."""
        if self.kind == "bool":
            return ""
        return self.says or _WORDS.get(self.kind) or ("list" if self.many else self.kind)

    @property
    def label(self) -> str:
        return f"-{self.short}, --{self.name}" if self.short else f"--{self.name}"


class Command:
    """A command: its flags, how many arguments it takes, and the function that runs it.

    `path` is "container ls"; `usage` its synopsis after the path. `most` None: no upper limit. `pass_through`: what
    follows the first argument belongs to the container's command.
    """

    __slots__ = ("flags", "least", "most", "pass_through", "path", "run", "short", "usage")

    def __init__(
        self,
        path: str,
        usage: str,
        run: Callable[[Context, Options], None],
        flags: tuple[Flag, ...] = (),
        *,
        short: str = "",
        least: int = 0,
        most: int | None = None,
        pass_through: bool = False,
    ) -> None:
        self.path, self.usage, self.run, self.flags, self.short = path, usage, run, flags, short
        self.least, self.most, self.pass_through = least, most, pass_through


class Options:
    """What was given: `opts["name"]` is a flag's value, its default when it was not given; `args` the rest."""

    __slots__ = ("args", "changed", "values")

    def __init__(self, flags: tuple[Flag, ...]) -> None:
        self.values: dict[str, Any] = {flag.name: [] if flag.many else flag.default for flag in flags}
        self.changed: set[str] = set()
        self.args: list[str] = []

    def __getitem__(self, name: str) -> Any:
        return self.values[name]

    def get(self, name: str) -> Any:
        return self.values.get(name)

    def optional(self, name: str) -> Any:
        """The value when the flag was given, else None."""
        return self.values[name] if name in self.changed else None


HELP = Flag("help", "", "bool", "Print usage")


def parse(flags: tuple[Flag, ...], argv: list[str], *, pass_through: bool = False) -> Options:
    """Raises UsageError, worded as pflag's."""
    return _Parse((*flags, HELP), argv, pass_through).run()


def check_count(command: Command, args: list[str], called: str) -> None:
    """Raises ArgumentError unless `args` are as many as `command` takes, which it names `called`."""
    least, most = command.least, command.most
    if len(args) >= least and (most is None or len(args) <= most):
        return
    name = f"'{called}'"
    if most == 0:
        raise ArgumentError(f"{name} accepts no arguments")
    if most is None:
        text = f"requires at least {least} argument{'s' if least > 1 else ''}"
    elif least == most:
        text = f"requires {least} argument{'s' if least > 1 else ''}"
    elif least == 0:
        text = f"requires at most {most} argument{'s' if most > 1 else ''}"
    else:
        text = f"requires at least {least} and at most {most} arguments"
    raise ArgumentError(f"{name} {text}")


class _Parse:
    def __init__(self, flags: tuple[Flag, ...], argv: list[str], pass_through: bool) -> None:
        self._long = {flag.name: flag for flag in flags}
        self._short = {flag.short: flag for flag in flags if flag.short}
        self._argv, self._at, self._pass_through = argv, 0, pass_through
        self._options = Options(flags)

    def run(self) -> Options:
        while self._at < len(self._argv):
            word = self._argv[self._at]
            self._at += 1
            if word == "--":
                break
            if word.startswith("--"):
                self._one_long(word[2:])
            elif word.startswith("-") and word != "-":
                self._cluster(word[1:])
            else:
                self._options.args.append(word)
                if self._pass_through:
                    break
        self._options.args += self._argv[self._at :]
        return self._options

    def _one_long(self, word: str) -> None:
        name, equals, value = word.partition("=")
        if not name or name.startswith("-"):
            raise UsageError(f"bad flag syntax: --{word}")
        flag = self._long.get(name)
        if flag is None:
            raise UsageError(f"unknown flag: --{name}")
        if not equals:
            value = "true" if flag.kind == "bool" else self._argument(f"--{name}")
        self._set(flag, value)

    def _cluster(self, letters: str) -> None:
        rest = letters
        while rest:
            letter, rest = rest[0], rest[1:]
            flag = self._short.get(letter)
            if flag is None:
                if letter == "h":
                    self._options.values["help"] = True
                    continue
                raise UsageError(f"unknown shorthand flag: {letter!r} in -{letters}")
            if rest.startswith("="):
                self._set(flag, rest[1:])
                return
            if flag.kind == "bool":
                self._set(flag, "true")
                continue
            self._set(flag, rest or self._argument(f"{letter!r} in -{letters}"))
            return

    def _argument(self, flag: str) -> str:
        if self._at >= len(self._argv):
            raise UsageError(f"flag needs an argument: {flag}")
        self._at += 1
        return self._argv[self._at - 1]

    def _set(self, flag: Flag, text: str) -> None:
        try:
            value = KINDS[flag.kind](text)
        except ValueError as error:
            raise UsageError(f'invalid argument {_quoted(text)} for "{flag.label}" flag: {error}') from None
        self._options.changed.add(flag.name)
        if flag.many:
            self._options.values[flag.name].append(value)
        else:
            self._options.values[flag.name] = value


def _quoted(text: str) -> str:
    from corten.specs.gotemplate.literals import quote

    return quote(text)
