"""The writing half of the logs: from chunks of output to a driver. Runs in the shim."""

from __future__ import annotations

import time

from corten.logs.jsonfile import JsonFile
from corten.logs.lines import LineCutter
from corten.logs.local import Local

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

DRIVERS: dict[str, type[JsonFile] | type[Local]] = {"json-file": JsonFile, "local": Local}


class LogWriter:
    """One container's log. A write that fails (a full disk) loses those lines, says so once, and never the container.

    `complain` takes the error of the first failed write after a good one.
    """

    __slots__ = ("_complain", "_cutters", "_driver", "_failing")

    def __init__(self, driver: JsonFile | Local, complain: Callable[[OSError], None]) -> None:
        self._driver = driver
        self._complain = complain
        self._cutters: dict[int, LineCutter] = {1: LineCutter(), 2: LineCutter()}
        self._failing = False

    def write(self, stream: int, chunk: bytes) -> None:
        """`stream` is 1 or 2. A line is kept until its newline comes; whole lines are in the file on return."""
        now = time.time_ns()
        self._write(stream, self._cutters[stream].feed(chunk, now))

    def close(self) -> None:
        """Write what has come without its newline, and close the file."""
        now = time.time_ns()
        for stream, cutter in self._cutters.items():
            self._write(stream, cutter.finish(now))
        self._driver.close()

    def _write(self, stream: int, pieces: Iterator[tuple[bytes, bool, int]]) -> None:
        for data, terminated, stamp in pieces:
            try:
                self._driver.write(data, terminated, stream, stamp)
                self._failing = False
            except OSError as error:
                if not self._failing:
                    self._complain(error)
                self._failing = True


def open_writer(
    driver: str, path: str, max_size: int, max_files: int, complain: Callable[[OSError], None]
) -> LogWriter | None:
    """The writer for a driver; None for `none`. Raises KeyError for an unknown one, OSError if it cannot be opened."""
    if driver == "none":
        return None
    return LogWriter(DRIVERS[driver](path, max_size, max_files), complain)
