"""The life cycle of containers."""

from __future__ import annotations

from corten.client.query import filters as as_filters
from corten.client.query import flags, segment

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from corten.client.query import Filters
    from corten.client.session import Response, Session

    Json = dict[str, Any]


class Containers:
    """`ref` is a container's name, id or a unique prefix of the id."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def list(
        self, *, all: bool = False, limit: int = 0, size: bool = False, filters: Filters | None = None
    ) -> list[Json]:
        """Summaries, newest first; only running ones unless `all`, or `limit` > 0 newest whatever their state."""
        query = flags(all=all, limit=limit or None, size=size) | as_filters(filters)
        result: list[Json] = self._session.json("GET", "/containers/json", query)
        return result

    def create(self, body: Json, *, name: str = "", platform: str = "") -> Json:
        """`{"Id", "Warnings"}`. Raises NotFound when the image is not here, Conflict when the name is taken."""
        query = flags(name=name, platform=platform)
        result: Json = self._session.json("POST", "/containers/create", query, body=body)
        return result

    def inspect(self, ref: str, *, size: bool = False) -> Json:
        result: Json = self._session.json("GET", f"/containers/{segment(ref)}/json", flags(size=size))
        return result

    def start(self, ref: str, *, detach_keys: str = "") -> None:
        self._post(ref, "start", flags(detachKeys=detach_keys))

    def stop(self, ref: str, *, timeout: int | None = None, signal: str = "") -> None:
        """Returns when it has stopped; at once when it was not running. `timeout` in seconds, -1 waits for ever."""
        self._post(ref, "stop", flags(t=timeout, signal=signal))

    def restart(self, ref: str, *, timeout: int | None = None, signal: str = "") -> None:
        self._post(ref, "restart", flags(t=timeout, signal=signal))

    def kill(self, ref: str, *, signal: str = "") -> None:
        self._post(ref, "kill", flags(signal=signal))

    def pause(self, ref: str) -> None:
        self._post(ref, "pause", {})

    def unpause(self, ref: str) -> None:
        self._post(ref, "unpause", {})

    def rename(self, ref: str, name: str) -> None:
        self._post(ref, "rename", {"name": name})

    def wait(self, ref: str, *, condition: str = "") -> Response:
        """The pending answer: its head has come, so the wait is registered; `.json()` blocks until the condition.

        `condition` is not-running (default), next-exit or removed; the answer `{"StatusCode", "Error"}`.
        """
        return self._session.request("POST", f"/containers/{segment(ref)}/wait", flags(condition=condition))

    def remove(self, ref: str, *, force: bool = False, volumes: bool = False, link: bool = False) -> None:
        self._session.request("DELETE", f"/containers/{segment(ref)}", flags(force=force, v=volumes, link=link)).read()

    def _post(self, ref: str, action: str, query: dict[str, str]) -> None:
        self._session.request("POST", f"/containers/{segment(ref)}/{action}", query).read()
