"""A file from anywhere on the web, as `docker import URL` fetches it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from urllib.parse import urlsplit

import aiohttp

from corten.errors import InvalidArgument, Unavailable, clip

CONNECT_TIMEOUT = 30.0
STALL_TIMEOUT = 60.0
CHUNK = 1 << 20


def checked(url: str) -> str:
    """`url` with its scheme, http where it has none. Raises InvalidArgument for what cannot be fetched."""
    full = url if "://" in url else f"http://{url}"
    try:
        parts = urlsplit(full)
        good = parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:
        good = False
    if not good:
        raise InvalidArgument(f"invalid source {clip(url, 200)!r}: neither http nor https, or without a host")
    return full


def shown(url: str) -> str:
    """`url` without a name and a password."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return clip(parts._replace(netloc=host, query="", fragment="").geturl(), 200)


async def fetch(url: str, progress: Callable[[int, int], None]) -> AsyncGenerator[bytes, None]:
    """The body of `url`; `progress` is told bytes so far and in all (0 where the server does not say).

    Proxies are those of the environment. Raises InvalidArgument for an answer that is none, Unavailable for a server
    that is not there or breaks off.
    """
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT, sock_read=STALL_TIMEOUT)
    done = 0
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout, trust_env=True, auto_decompress=False) as session,
            session.get(url, headers={"Accept-Encoding": "identity"}) as response,
        ):
            if response.status >= 400:
                raise InvalidArgument(f"{shown(url)}: got HTTP status code >= 400: {response.status} {response.reason}")
            total = response.content_length or 0
            async for part in response.content.iter_chunked(CHUNK):
                done += len(part)
                progress(done, total)
                yield part
    except (aiohttp.ClientError, TimeoutError) as error:
        text = clip(str(error)) or type(error).__name__
        raise Unavailable(f"{shown(url)}: {text}") from None
