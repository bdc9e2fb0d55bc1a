"""The writing half of the logs: from chunks of output to a driver. Runs in the shim."""

from __future__ import annotations

import time

from corten.logs.jsonfile import JsonFile
from corten.logs.lines import LineCutter
from corten.logs.local import Local

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any, Protocol

    class Driver(Protocol):
        """`write` takes what LineCutter yields, and raises OSError when it is lost. There is none after `close`."""

        def write(self, data: bytes, terminated: bool, stream: int, stamp_ns: int) -> None: ...
        def close(self) -> None: ...

    class Watching(Protocol):
        """The shim's loop, as far as a driver needs it."""

        def watch(self, fd: int, events: int, handler: Callable[[int], None]) -> None: ...
        def unwatch(self, fd: int) -> None: ...

    # What `logs.prepare` makes of a driver and its options: the driver, the live file of what it keeps ("" when it
    # keeps nothing), that file's limits as RotatingFile takes them, and the rest by name, of which most have nothing.
    Settings = tuple[str, str, int, int, dict[str, Any]]


class CannotOpen(Exception):
    """The driver cannot be used; says why."""


class LogWriter:
    """One container's log. A write that fails (a full disk) loses those lines, says so once, and never the container.

    `open_driver` opens it, at once and after each `suspend`; `complain` takes the error of the first failed write after
    a good one. Raises OSError if it cannot be opened.
    """

    __slots__ = ("_complain", "_cutters", "_driver", "_failing", "_open_driver")

    def __init__(self, open_driver: Callable[[], Driver], complain: Callable[[str], None]) -> None:
        self._open_driver = open_driver
        self._driver: Driver | None = open_driver()
        self._complain = complain
        self._cutters: dict[int, LineCutter] = {1: LineCutter(), 2: LineCutter()}
        self._failing = False

    def write(self, stream: int, chunk: bytes, now_ns: int = 0) -> None:
        """`stream` is 1 or 2. A line is kept until its newline comes; whole lines are in the file on return.

        `now_ns` is when the chunk came, if that was not now.
        """
        self._write(stream, self._cutters[stream].feed(chunk, now_ns or time.time_ns()))

    def suspend(self) -> tuple[Any, ...]:
        """Close the driver, so that another process can go on with what is returned here: pass it to its `resume`."""
        self._close_driver()
        return tuple((stream, *cutter.state) for stream, cutter in self._cutters.items())

    def resume(self, state: tuple[Any, ...]) -> None:
        """Go on after `suspend`, from its result or from what another process has made of it; () knows of no line.

        The driver is opened by the next write.
        """
        self._cutters = {1: LineCutter(), 2: LineCutter()}
        for stream, *line in state:
            self._cutters[stream].state = tuple(line)

    def close(self) -> None:
        """Write what has come without its newline, and close the file."""
        now = time.time_ns()
        for stream, cutter in self._cutters.items():
            self._write(stream, cutter.finish(now))
        self._close_driver()

    def _close_driver(self) -> None:
        if self._driver is not None:
            self._driver.close()
            self._driver = None

    def _write(self, stream: int, pieces: Iterator[tuple[bytes, bool, int]]) -> None:
        for data, terminated, stamp in pieces:
            try:
                if self._driver is None:
                    self._driver = self._open_driver()
                self._driver.write(data, terminated, stream, stamp)
                self._failing = False
            except OSError as error:
                if not self._failing:
                    self._complain(f"log lines are lost: {error}")
                self._failing = True


def open_log(settings: Settings, complain: Callable[[str], None], loop: Watching) -> LogWriter | None:
    """The writer for a driver; None for `none`. Raises CannotOpen, or OSError for a file that cannot be opened."""
    if settings[0] == "none":
        return None
    if not keeps_files(settings):
        from corten.logs.rare import open_rare  # a helper process: none of it for all others

        return LogWriter(lambda: open_rare(settings, complain, loop), complain)
    return LogWriter(lambda: open_files(settings), complain)


def keeps_files(settings: Settings) -> bool:
    """Whether the log is nothing but files that this process writes: only such a writer can be suspended."""
    return bool(settings[1]) and "remote" not in settings[4] and "buffer" not in settings[4]


def open_files(settings: Settings) -> JsonFile | Local:
    """A driver that keeps files; the format of `local` for all but json-file."""
    driver, path, max_size, max_files, more = settings
    compress = "compress" in more
    if driver == "json-file":
        return JsonFile(path, max_size, max_files, compress=compress, attributes=more.get("attributes", b""))
    return Local(path, max_size, max_files, compress=compress)
