"""The daemon as a whole."""

from __future__ import annotations

from corten.client.query import filters as as_filters
from corten.client.query import flags
from corten.client.session import raise_stream_errors

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from corten.client.query import Filters
    from corten.client.session import Session

    Json = dict[str, Any]


class System:
    def __init__(self, session: Session) -> None:
        self._session = session

    def ping(self) -> dict[str, str]:
        """The headers of the answer, in lower case: `api-version`, `ostype`, …"""
        response = self._session.request("GET", "/_ping")
        response.read()
        return response.head.headers

    def version(self) -> Json:
        result: Json = self._session.json("GET", "/version")
        return result

    def info(self) -> Json:
        result: Json = self._session.json("GET", "/info")
        return result

    def login(self, auth: Json) -> Json:
        """`{"IdentityToken", "Status"}` when the registry lets `auth` in, which are the API's AuthConfig members."""
        result: Json = self._session.json("POST", "/auth", body=auth)
        return result

    def disk_usage(self, *, verbose: bool = False) -> Json:
        """From API 1.52 `{"ImageUsage": {"TotalCount", "ActiveCount", "TotalSize", "Reclaimable", "Items"}, …}`.

        Items only when `verbose`. Before it `{"LayersSize", "Images", "Containers", "Volumes", "BuildCache"}`.
        """
        result: Json = self._session.json("GET", "/system/df", flags(verbose=verbose))
        return result

    def check(self, *, repair: bool = False, auths: str = "") -> Iterator[Json]:
        """Corten's own: progress, `{"aux": {"Finding"}}` for each damaged thing, `{"aux": {"Summary"}}` at last.

        `auths` is the X-Registry-Config header's value. Raises StreamError where the check itself fails.
        """
        headers = {"X-Registry-Config": auths} if auths else {}
        response = self._session.request("POST", "/system/check", flags(repair=repair), headers=headers)
        return raise_stream_errors(response.lines())

    def events(self, *, since: str = "", until: str = "", filters: Filters | None = None) -> Iterator[Json]:
        """Events as they come; ends at `until` (a Unix time with a fraction), never without it."""
        query = flags(since=since, until=until) | as_filters(filters)
        return self._session.request("GET", "/events", query).lines()
