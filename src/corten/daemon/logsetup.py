"""The daemon's own log: one line a message, to standard error, as journald and container logs like it."""

from __future__ import annotations

import logging
import sys
from types import TracebackType

_LEVELS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warn": logging.WARNING,
    "error": logging.ERROR,
    "fatal": logging.CRITICAL,
}


def _escaped(text: str) -> str:
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


class OneLine(logging.Formatter):
    """Names and words of containers, images and registries are in messages: none makes a line that looks like ours.

    Control characters are written out; the lines of a traceback are indented.
    """

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  # the library's spelling
        record.message = _escaped(record.message)
        return super().formatMessage(record)

    def formatException(  # noqa: N802  # the library's spelling
        self, ei: tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]
    ) -> str:
        return "\n".join("  " + _escaped(line) for line in super().formatException(ei).splitlines())


def set_up(level: str) -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(OneLine("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    set_level(level)


def set_level(level: str) -> None:
    logging.getLogger().setLevel(_LEVELS[level])
    # Other libraries' chatter is of use only when somebody asked for all of it.
    logging.getLogger("asyncio").setLevel(logging.DEBUG if level == "debug" else logging.WARNING)
