"""From method and path to a handler."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from aiohttp import web

if TYPE_CHECKING:
    from corten.api.docker.call import Call

Handler = Callable[["Call"], Awaitable[web.StreamResponse]]


class Router:
    """Paths are written as in the API's description: `/containers/{id}/json`; `{name...}` may contain slashes, as
    the names of images do. A path without a parameter goes before one with; else the first that was added wins.
    """

    def __init__(self) -> None:
        self._static: dict[tuple[str, str], Handler] = {}
        self._patterns: dict[tuple[str, str], list[tuple[re.Pattern[str], Handler]]] = {}
        self.templates: list[tuple[str, str]] = []

    def add(self, method: str, path: str, handler: Handler) -> None:
        self.templates.append((method, path))
        if "{" not in path:
            self._static[method, path] = handler
            return
        pattern = re.sub(r"\\\{\w+\\\.\\\.\\\.\\\}", "(.+)", re.escape(path))
        pattern = re.sub(r"\\\{\w+\\\}", "([^/]+)", pattern)
        self._patterns.setdefault((method, path.split("/", 2)[1]), []).append((re.compile(pattern), handler))

    def find(self, method: str, path: str) -> tuple[Handler, tuple[str, ...]] | None:
        """`path` decoded and without its version. None when nothing lives there."""
        handler = self._static.get((method, path))
        if handler is not None:
            return handler, ()
        first = path[1:].partition("/")[0]
        for pattern, handler in self._patterns.get((method, first), ()):
            if match := pattern.fullmatch(path):
                return handler, match.groups()
        return None
