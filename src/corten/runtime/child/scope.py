"""Having systemd make and end the scope that a container's control group is.

The calls are made by a fork that ends after one of them: what D-Bus takes of modules and memory is not to stay in a
shim, of which there is one a container. `Settings` are what the fork needs: the bus's address, the unit's name, its
properties, and where the library is.
"""

from __future__ import annotations

import os
import sys

from corten.runtime.child.parent import reap

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Settings = dict[str, Any]


def start(settings: Settings, pid: int) -> None:
    """Put a process into a new scope; it is there when this returns. Raises OSError with systemd's reason."""
    _call(settings, "start_scope", settings["unit"], settings["properties"], pid)


def stop(settings: Settings) -> None:
    """End the scope. One that is gone is no error. Raises OSError."""
    _call(settings, "stop_scope", settings["unit"])


def _call(settings: Settings, function: str, *arguments: Any) -> None:
    reader, writer = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        _work(writer, settings, function, arguments)
    os.close(writer)
    answer = b""
    while piece := os.read(reader, 4096):
        answer += piece
    os.close(reader)
    reap(pid)
    if answer != b"ok":
        raise OSError(0, answer.decode("utf-8", "replace") or "the call of systemd has died")


def _work(writer: int, settings: Settings, function: str, arguments: tuple[Any, ...]) -> None:
    """The fork. Never returns."""
    answer = "the call of systemd has failed"
    try:
        sys.path.append(settings["site"])
        from corten.runtime import cgroups_systemd

        getattr(cgroups_systemd, function)(settings["address"], *arguments)
        answer = "ok"
    except BaseException as error:
        answer = str(error) or type(error).__name__
    finally:
        os.write(writer, answer.encode("utf-8", "replace")[:4000])
        os._exit(0)
