"""`corten logs`."""

from __future__ import annotations

import sys

from corten.cli.context import Context
from corten.cli.flags import Command, Flag, Options
from corten.cli.streams import write_all, write_pieces
from corten.cli.times import unix_time
from corten.client.container_io import LogOptions
from corten.client.frames import FrameReader

TYPE_CHECKING = False
if TYPE_CHECKING:
    from corten.client.session import Response


def _logs(context: Context, options: Options) -> None:
    window = LogOptions(
        follow=options["follow"], tail=options["tail"], timestamps=options["timestamps"], details=options["details"]
    )
    window.since, window.until = unix_time(options["since"], "since"), unix_time(options["until"], "until")
    client = context.client
    response = client.container_io.logs(options.args[0], window)
    raw = _is_raw(response)
    if raw is None:
        # A daemon before API 1.42 does not say in its answer whether the container has a TTY.
        raw = bool(client.containers.inspect(options.args[0])["Config"]["Tty"])
    sys.stdout.flush()
    frames = None if raw else FrameReader()
    for chunk in response.chunks():
        if frames is None:
            write_all(1, chunk)
        else:
            write_pieces(frames.feed(chunk))


def _is_raw(response: Response) -> bool | None:
    kind = response.head.headers.get("content-type", "")
    if kind == "application/vnd.docker.multiplexed-stream":
        return False
    return True if kind == "application/vnd.docker.raw-stream" else None


LOGS = Command(
    "container logs",
    "[OPTIONS] CONTAINER",
    _logs,
    (
        Flag("details", "", "bool", "Show extra details provided to logs"),
        Flag("follow", "f", "bool", "Follow log output"),
        Flag("since", "", "string", 'Show logs since a time (e.g. "2013-01-02T13:23:37Z" or "42m" for 42 minutes ago)'),
        Flag("tail", "n", "string", "Number of lines to show from the end", default="all"),
        Flag("timestamps", "t", "bool", "Show timestamps"),
        Flag("until", "", "string", "Show logs before a time (as --since)"),
    ),
    least=1,
    most=1,
)
