"""Images as archives: saved, loaded, imported."""

from __future__ import annotations

from corten.client.images import platform_json, split_tag
from corten.client.query import flags
from corten.client.session import raise_stream_errors

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any

    from corten.client.session import Response, Session

    Json = dict[str, Any]


class Archives:
    """Archives are tars, in pieces; progress is a stream of the API's messages that raises StreamError at an error."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def save(self, refs: list[str], *, platforms: Iterable[str] = ()) -> Iterator[bytes]:
        """A tar with all of `refs`."""
        query: dict[str, str | list[str]] = {"names": refs}
        if chosen := [platform_json(text) for text in platforms]:
            query["platform"] = chosen
        return self._session.request("GET", "/images/get", query).chunks()

    def load(self, tar: Iterable[bytes], *, quiet: bool = False, platforms: Iterable[str] = ()) -> Response:
        """The daemon's account of it: a progress stream when its content type is JSON, plain text else."""
        query: dict[str, str | list[str]] = {"quiet": "1" if quiet else "0"}
        if chosen := [platform_json(text) for text in platforms]:
            query["platform"] = chosen
        return self._session.request("POST", "/images/load", query, body=tar)

    def import_tar(
        self,
        tar: Iterable[bytes],
        *,
        name: str = "",
        message: str = "",
        changes: list[str] | None = None,
        platform: str = "",
    ) -> Iterator[Json]:
        """A new image with the one layer `tar`; `changes` are Dockerfile instructions. The last `status` is its id."""
        query: dict[str, str | list[str]] = dict(flags(fromSrc="-", message=message, platform=platform))
        repo, tag = split_tag(name)
        query |= flags(repo=repo, tag=tag)
        if changes:
            query["changes"] = changes
        headers = {"Content-Type": "text/plain"}
        response = self._session.request("POST", "/images/create", query, body=tar, headers=headers)
        return raise_stream_errors(response.lines())

    def import_from(
        self, url: str, *, name: str = "", message: str = "", changes: list[str] | None = None, platform: str = ""
    ) -> Iterator[Json]:
        """As `import_tar`, from a URL that the daemon fetches."""
        repo, tag = split_tag(name)
        query: dict[str, str | list[str]] = dict(
            flags(fromSrc=url, message=message, repo=repo, tag=tag, platform=platform)
        )
        if changes:
            query["changes"] = changes
        return raise_stream_errors(self._session.request("POST", "/images/create", query).lines())
