"""Repositories by words: the index API of old, which Docker Hub and some registries still have."""

from __future__ import annotations

import asyncio
import dataclasses
from urllib.parse import urlencode

import msgspec

from corten.errors import InvalidArgument, SystemFault, clip
from corten.registry.auth import Credentials
from corten.registry.endpoints import HUB, Endpoint
from corten.registry.faults import Refused
from corten.registry.transport import Request, Transport
from corten.specs import wire

HUB_INDEX = "index.docker.io"
DEFAULT_LIMIT, MAX_LIMIT = 25, 100
MAX_ANSWER = 8 << 20


class Found(msgspec.Struct, omit_defaults=False):
    """One repository, as the index tells of it and as the API shows it."""

    name: str = ""
    description: str = ""
    star_count: int = 0
    is_official: bool = False
    is_automated: bool = False


class _Answer(msgspec.Struct):
    results: list[Found] = msgspec.field(default_factory=list)


def split(term: str) -> tuple[str, str]:
    """The registry to ask and what to look for. Raises InvalidArgument for a URL, and for nothing."""
    if "://" in term:
        raise InvalidArgument(f"invalid repository name: repository name ({clip(term, 200)}) should not have a scheme")
    first, slash, rest = term.partition("/")
    host, words = (first, rest) if slash and ("." in first or ":" in first or first == "localhost") else (HUB, term)
    if host == HUB_INDEX:
        host = HUB
    words = words.removeprefix("library/") if host == HUB else words
    if not words:
        raise InvalidArgument("invalid repository name: nothing to search for")
    return host, words


async def search(transport: Transport, term: str, limit: int, credentials: Credentials) -> list[Found]:
    """At most `limit` (0 for 25) repositories. Raises InvalidArgument, Unauthorized, Unavailable, SystemFault."""
    if not 0 <= limit <= MAX_LIMIT:
        raise InvalidArgument(f"limit {limit} is outside the range of [1, {MAX_LIMIT}]")
    limit = limit or DEFAULT_LIMIT
    host, words = split(term)
    endpoint = await _index(transport, host)
    query = urlencode({"q": words, "n": limit})
    try:
        async with transport.send(endpoint, credentials, Request("GET", f"/v1/search?{query}")) as response:
            data = await transport.read(response, MAX_ANSWER)
    except Refused as refused:
        text = f"Unexpected status code {refused.status}"
        raise SystemFault(f"search at {host} failed: {text}: {refused.detail}", step="registry") from None
    try:
        found = wire.read(data, _Answer).results
    except InvalidArgument as error:
        raise SystemFault(f"search at {host} failed: {clip(str(error))}", step="registry") from None
    return found[:limit]


async def _index(transport: Transport, host: str) -> Endpoint:
    endpoint = await asyncio.to_thread(transport.settings.registry, host)
    return dataclasses.replace(endpoint, host=HUB_INDEX) if host == HUB else endpoint
