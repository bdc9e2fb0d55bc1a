"""What flows out of and into a container: attach, logs, stats, processes, archives; and changing its limits."""

from __future__ import annotations

from corten.client.query import filters as as_filters
from corten.client.query import flags, segment

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from corten.client.query import Filters
    from corten.client.session import Response, Session

    Json = dict[str, Any]

# The daemon answers 101 to these and leaves HTTP; without them an old one answers 200 and does the same.
UPGRADE = {"Connection": "Upgrade", "Upgrade": "tcp"}


class LogOptions:
    """`since` and `until` are Unix times with a fraction, or "" for none; `tail` a number of lines or "all"."""

    __slots__ = ("details", "follow", "since", "tail", "timestamps", "until")

    def __init__(
        self, *, follow: bool = False, tail: str = "all", timestamps: bool = False, details: bool = False
    ) -> None:
        self.follow, self.tail, self.timestamps, self.details = follow, tail, timestamps, details
        self.since = self.until = ""


class ContainerIO:
    """`ref` is a container's name, id or a unique prefix of the id."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def attach(
        self, ref: str, *, stdin: bool, stdout: bool, stderr: bool, logs: bool = False, detach_keys: str = ""
    ) -> Response:
        """The hijacked connection, to be `detach`ed: raw with a TTY, else in frames (client.frames)."""
        query = flags(stream=True, stdin=stdin, stdout=stdout, stderr=stderr, logs=logs, detachKeys=detach_keys)
        headers = {**UPGRADE, "Content-Type": "text/plain"}
        return self._session.request("POST", f"/containers/{segment(ref)}/attach", query, headers=headers)

    def logs(self, ref: str, options: LogOptions) -> Response:
        """The log as a body: raw when the container has a TTY, else in frames (client.frames)."""
        query = flags(
            stdout=True,
            stderr=True,
            follow=options.follow,
            tail=options.tail,
            timestamps=options.timestamps,
            details=options.details,
            since=options.since,
            until=options.until,
        )
        return self._session.request("GET", f"/containers/{segment(ref)}/logs", query)

    def resize(self, ref: str, *, height: int, width: int) -> None:
        query = {"h": str(height), "w": str(width)}
        self._session.request("POST", f"/containers/{segment(ref)}/resize", query).read()

    def top(self, ref: str, ps_args: str = "") -> Json:
        """`{"Titles": […], "Processes": [[…]]}`"""
        result: Json = self._session.json("GET", f"/containers/{segment(ref)}/top", flags(ps_args=ps_args))
        return result

    def stats(self, ref: str, *, stream: bool) -> Iterator[Json]:
        """Samples, one a second while the container runs; without `stream` a single one with a rate to compute from."""
        query = {"stream": "1" if stream else "0"}
        yield from self._session.request("GET", f"/containers/{segment(ref)}/stats", query).lines()

    def update(self, ref: str, body: Json) -> Json:
        """`{"Warnings"}`"""
        result: Json = self._session.json("POST", f"/containers/{segment(ref)}/update", body=body)
        return result

    def changes(self, ref: str) -> list[Json]:
        """`[{"Path", "Kind"}]`, kind 0 changed, 1 added, 2 deleted."""
        result: list[Json] | None = self._session.json("GET", f"/containers/{segment(ref)}/changes")
        return result or []

    def export(self, ref: str) -> Iterator[bytes]:
        """The file system as a tar."""
        return self._session.request("GET", f"/containers/{segment(ref)}/export").chunks()

    def prune(self, filters: Filters | None = None) -> Json:
        """`{"ContainersDeleted", "SpaceReclaimed"}`"""
        result: Json = self._session.json("POST", "/containers/prune", as_filters(filters))
        return result
