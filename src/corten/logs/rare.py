"""Drivers that work in a helper: those that send lines away, and those of files in `mode=non-blocking`.

Loaded by shims that use one.
"""

from __future__ import annotations

from corten.logs.helper import FileSender
from corten.logs.relay import QUEUE, Cached, Relay
from corten.logs.writer import CannotOpen, open_files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from corten.logs.helper import Sender
    from corten.logs.writer import Driver, Settings, Watching


def open_rare(settings: Settings, complain: Callable[[str], None], loop: Watching) -> Driver:
    """Raises CannotOpen when the driver's other end is not there, as Docker does."""
    _, path, _, _, more = settings
    buffer = more.get("buffer", -1)
    try:
        relay = Relay(_sender(settings), loop, complain, buffer if buffer >= 0 else QUEUE, blocking=buffer < 0)
    except OSError as error:
        raise CannotOpen(str(error)) from None
    if not path or "remote" not in more:
        return relay
    return Cached(relay, open_files(settings))


def _sender(settings: Settings) -> Callable[[], Sender]:
    """What makes the sender: called in the helper, which alone pays for what a sender imports."""
    driver, _, _, _, more = settings

    def make() -> Sender:
        if driver == "syslog":
            from corten.logs.syslog import Syslog

            return Syslog(more["remote"])
        if driver == "journald":
            from corten.logs.journald import Journald

            return Journald(more["remote"])
        return FileSender(lambda: open_files(settings))

    return make
