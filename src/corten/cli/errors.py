"""How a command ends early. `main` turns each into text on stderr and an exit code."""

from __future__ import annotations


class CliError(Exception):
    """A message for the user and the exit code of the process.

    `prefix` puts "corten: " before the message, and `hint` the reference to the command's help after it.
    """

    def __init__(self, message: str, code: int = 1, *, prefix: bool = False, hint: bool = False) -> None:
        super().__init__(message)
        self.code, self.prefix, self.hint = code, prefix, hint


class UsageError(CliError):
    """A flag that cannot be understood: its message is followed by the command's usage, exit code 125."""

    def __init__(self, message: str) -> None:
        super().__init__(message, 125)


class ArgumentError(CliError):
    """Too few or too many arguments: as UsageError, exit code 1."""


class Exit(Exception):
    """Ends the process with `code`, all that was to be said having been said."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code
