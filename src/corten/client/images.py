"""Images."""

from __future__ import annotations

import json

from corten.client.query import filters as as_filters
from corten.client.query import flags, segment
from corten.client.session import raise_stream_errors

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any

    from corten.client.query import Filters
    from corten.client.session import Session

    Json = dict[str, Any]
    Strings = list[str]  # inside the class, `list` is its method
    Jsons = list[Json]


class Images:
    """`ref` is a reference or an id. Progress streams yield the API's messages and raise StreamError at an error."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def list(
        self, *, all: bool = False, digests: bool = False, manifests: bool = False, filters: Filters | None = None
    ) -> Jsons:
        query = flags(all=all, digests=digests, manifests=manifests) | as_filters(filters)
        result: Jsons = self._session.json("GET", "/images/json", query)
        return result

    def inspect(self, ref: str, *, platform: str = "") -> Json:
        result: Json = self._session.json("GET", f"/images/{segment(ref)}/json", as_platform(platform))
        return result

    def pull(self, name: str, tag: str = "", *, platform: str = "", auth: str = "") -> Iterator[Json]:
        """`tag` may be a digest; "" pulls all tags. `auth` is the X-Registry-Auth header's value."""
        query = flags(fromImage=name, tag=tag, platform=platform)
        headers = {"X-Registry-Auth": auth} if auth else {}
        return raise_stream_errors(self._session.request("POST", "/images/create", query, headers=headers).lines())

    def push(self, name: str, tag: str = "", *, platform: str = "", auth: str = "") -> Iterator[Json]:
        """`auth` is the X-Registry-Auth header's value; the API wants one even when there is nothing to say."""
        query = flags(tag=tag) | as_platform(platform)
        headers = {"X-Registry-Auth": auth or "e30="}
        path = f"/images/{segment(name)}/push"
        return raise_stream_errors(self._session.request("POST", path, query, headers=headers).lines())

    def remove(self, ref: str, *, force: bool = False, noprune: bool = False, platforms: Iterable[str] = ()) -> Jsons:
        """What was done: `[{"Untagged": …}, {"Deleted": …}]`. `platforms` alone, of an image with several."""
        query: dict[str, str | Strings] = dict(flags(force=force, noprune=noprune))
        if chosen := [platform_json(text) for text in platforms]:
            query["platforms"] = chosen
        result: Jsons = self._session.json("DELETE", f"/images/{segment(ref)}", query)
        return result

    def tag(self, ref: str, repo: str, tag: str = "") -> None:
        self._session.request("POST", f"/images/{segment(ref)}/tag", flags(repo=repo, tag=tag)).read()

    def history(self, ref: str, *, platform: str = "") -> Jsons:
        result: Jsons = self._session.json("GET", f"/images/{segment(ref)}/history", as_platform(platform))
        return result

    def search(self, term: str, *, limit: int = 0, filters: Filters | None = None, auth: str = "") -> Jsons:
        """Repositories that a registry's index finds: name, description, star_count, is_official, is_automated."""
        query = flags(term=term, limit=limit or None) | as_filters(filters)
        headers = {"X-Registry-Auth": auth} if auth else {}
        response = self._session.request("GET", "/images/search", query, headers=headers)
        result: Jsons = json.loads(response.read())
        return result

    def commit(
        self,
        container: str,
        name: str = "",
        *,
        message: str = "",
        author: str = "",
        changes: Strings | None = None,
        pause: bool = True,
    ) -> str:
        """The id of a new image of what `container` is now."""
        repo, tag = split_tag(name)
        query: dict[str, str | Strings] = dict(
            flags(container=container, repo=repo, tag=tag, comment=message, author=author, pause=pause or "0")
        )
        if changes:
            query["changes"] = changes
        made: Json = self._session.json("POST", "/commit", query)
        return str(made["Id"])

    def prune(self, filters: Filters | None = None) -> Json:
        """`{"ImagesDeleted", "SpaceReclaimed"}`"""
        result: Json = self._session.json("POST", "/images/prune", as_filters(filters))
        return result


def platform_json(text: str) -> str:
    """`os[/arch[/variant]]` as the API wants it. Raises InvalidArgument for what is no platform."""
    from corten.specs import platform

    parsed = platform.parse(text)
    parts = {"architecture": parsed.architecture, "os": parsed.os, "variant": parsed.variant}
    return json.dumps({key: value for key, value in parts.items() if value})


def as_platform(text: str) -> dict[str, str]:
    """The query for a platform; empty without one."""
    return {"platform": platform_json(text)} if text else {}


def split_tag(reference: str) -> tuple[str, str]:
    """Name and tag (or digest) of a reference, "" when it has none: a colon before a slash belongs to the host."""
    name, at, digest = reference.partition("@")
    if at:
        head, colon, tail = name.rpartition(":")
        return (head if colon and "/" not in tail else name), digest
    head, colon, tail = name.rpartition(":")
    return (head, tail) if colon and "/" not in tail else (name, "")


def encode_auth(fields: Json) -> str:
    """The value of X-Registry-Auth: JSON in the URL's base64 alphabet."""
    import base64

    return base64.urlsafe_b64encode(json.dumps(fields).encode()).decode()
