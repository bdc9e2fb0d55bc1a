"""Where `corten-runtime` says what went wrong: its stderr, and the file of `--log`."""

from __future__ import annotations

import sys
import time

from msgspec.json import encode


class Log:
    """`path` "" for no file; `style` is "text" or "json", runc's two."""

    def __init__(self, path: str = "", style: str = "text", *, verbose: bool = False) -> None:
        self._path, self._style, self._verbose = path, style, verbose

    def error(self, message: str) -> None:
        """On stderr, and in the file."""
        sys.stderr.write(f"corten-runtime: {message}\n")
        self._write("error", message)

    def warning(self, message: str) -> None:
        """In the file; without one on stderr if a person reads that, as else it is the container's too."""
        if self._path:
            self._write("warning", message)
        elif self._verbose or sys.stderr.isatty():
            sys.stderr.write(f"corten-runtime: warning: {message}\n")

    def debug(self, message: str) -> None:
        """Only when asked for; where warnings go."""
        if self._verbose and self._path:
            self._write("debug", message)
        elif self._verbose:
            sys.stderr.write(f"corten-runtime: debug: {message}\n")

    def _write(self, level: str, message: str) -> None:
        if not self._path:
            return
        stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        if self._style == "json":
            line = encode({"level": level, "msg": message, "time": stamp})
        else:
            line = b'time="' + stamp.encode() + b'" level=' + level.encode() + b" msg=" + encode(message)
        with open(self._path, "ab") as file:
            file.write(line + b"\n")
