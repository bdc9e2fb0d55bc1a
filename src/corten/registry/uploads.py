"""One blob on its way into a repository: mounted from another one, sent as a whole or in pieces, and taken up where it
broke, in pieces then, by registries that kept what had arrived.

```
we                                             registry
  POST …/blobs/uploads/[?mount=…&from=…]  ──►
                                          ◄──  201 (mounted)  or  202 with Location
  PUT <Location>?digest=…  the whole      ──►
                                          ◄──  201
or, for a large blob, again and again
  PATCH <Location>  Content-Range: a-b    ──►
                                          ◄──  202 with Location and Range: 0-b
  (after a broken connection, also that of a PUT)
  GET <Location>                          ──►
                                          ◄──  204 with Location and Range: what has arrived
  PUT <Location>?digest=…  nothing        ──►
```
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, Protocol
from urllib.parse import urlencode

from corten.errors import CortenError, InvalidArgument, NotFound, SystemFault, Unauthorized, Unavailable
from corten.registry.transport import Request, target_of

if TYPE_CHECKING:
    import aiohttp

PIECE = 1 << 20
_RANGE = re.compile(r"(?:bytes[= ])?0-(\d{1,18})")
_TYPE = "application/octet-stream"


class Pausing(Protocol):
    """Waits before another attempt, the longer the more there were."""

    async def pause(self, attempt: int) -> None: ...


@dataclass(frozen=True, slots=True)
class Way:
    """How to reach the repository at `path`: its requests are sent by `send` with `scope`, tried `attempts` times. A
    blob larger than `chunk` bytes goes in pieces of that size.
    """

    send: Callable[[Request], AbstractAsyncContextManager[aiohttp.ClientResponse]]
    pausing: Pausing
    path: str
    scope: str
    attempts: int
    chunk: int


@dataclass(frozen=True, slots=True)
class Blob:
    """What to send. `open` gives a file of it at each attempt; `progress` is told bytes sent so far."""

    digest: str
    size: int
    open: Callable[[], BinaryIO]
    progress: Callable[[int], None]


class _Lost(Exception):
    """The registry knows the upload no more: another one is begun."""


class Upload:
    """Brings in one blob. Used once."""

    def __init__(self, way: Way, blob: Blob) -> None:
        self._way, self._blob = way, blob

    async def run(self, mount_from: str = "") -> bool:
        """True when the blob was mounted from repository `mount_from` (a path in the same registry) instead."""
        location, offset = "", 0
        for attempt in range(1, self._way.attempts + 1):
            if not offset:
                begun = await _begin(self._way, self._blob.digest, mount_from)
                if begun is None:
                    return True
                location = begun
            try:
                await self._send(location, offset)
            except (Unavailable, NotFound, InvalidArgument, _Lost) as error:
                if isinstance(error, InvalidArgument) and not offset:
                    raise
                # The answer may be all that was lost.
                if await _has(self._way, self._blob.digest):
                    return False
                if attempt == self._way.attempts and isinstance(error, _Lost):
                    raise SystemFault("the registry loses uploads that it had begun", step="registry") from None
                if attempt == self._way.attempts:
                    raise
                await self._way.pausing.pause(attempt)
                location, offset = await self._kept(location) if isinstance(error, Unavailable) else ("", 0)
            else:
                return False
        raise AssertionError("the last attempt returns or raises")

    async def _send(self, location: str, offset: int) -> None:
        """What comes after `offset`, and the end of the upload."""
        if offset or self._blob.size > self._way.chunk:
            location = await self._in_pieces(location, offset)
            await self._finish(location, 0)
        else:
            await self._finish(location, self._blob.size)

    async def _kept(self, location: str) -> tuple[str, int]:
        """Where to go on with an upload that broke, and how much of it has arrived: 0 when it is to be begun anew, as
        where the registry knows it no more or cannot say (Docker's own, up to 2.8, gives such uploads up).
        """
        try:
            return await self._where(location)
        except (CortenError, _Lost):
            return "", 0

    async def _finish(self, location: str, length: int) -> None:
        """Close the upload, with the whole blob or what was sent before."""
        join = "&" if "?" in location else "?"
        request = self._request("PUT", f"{location}{join}{urlencode({'digest': self._blob.digest})}", length=length)
        async with self._way.send(request):
            self._blob.progress(self._blob.size)

    async def _in_pieces(self, location: str, offset: int) -> str:
        """The blob from `offset` on; where to close the upload. Raises _Lost when it has to be begun anew."""
        failures, furthest = 0, offset
        while offset < self._blob.size:
            length = min(self._way.chunk, self._blob.size - offset)
            request = self._request("PATCH", location, offset=offset, length=length)
            request.headers["Content-Range"] = f"{offset}-{offset + length - 1}"
            try:
                async with self._way.send(request) as response:
                    location = _location(response)
                    offset = self._arrived(response, offset + length)
                failures = 0 if offset > furthest else failures + 1
                furthest = max(furthest, offset)
                if failures >= self._way.attempts:
                    raise SystemFault("the registry takes no more of what it is sent", step="registry")
            except NotFound:
                raise _Lost from None
            except (Unavailable, InvalidArgument):
                # Broken off, or the registry has another amount than we think: it says how much.
                failures += 1
                if failures >= self._way.attempts:
                    raise
                await self._way.pausing.pause(failures)
                location, offset = await self._where(location)
        return location

    async def _where(self, location: str) -> tuple[str, int]:
        """Where to go on, and how many bytes have arrived."""
        request = Request("GET", location, self._way.scope, {}, missing="BLOB_UPLOAD_UNKNOWN")
        try:
            async with self._way.send(request) as response:
                arrived = self._arrived(response, 0)
                return target_of(str(response.url), response.headers.get("Location", location)), arrived
        except NotFound:
            raise _Lost from None

    def _arrived(self, response: aiohttp.ClientResponse, default: int) -> int:
        match = _RANGE.fullmatch(response.headers.get("Range", "").strip())
        if match is None:
            return default
        # Of nothing registries say "0-0", as of one byte; a byte that is sent again does no harm to the others.
        arrived = int(match[1]) + 1 if int(match[1]) else 0
        if arrived > self._blob.size:
            text = f"the registry says that it has {arrived} of the {self._blob.size} bytes of {self._blob.digest}"
            raise SystemFault(text, step="registry")
        return arrived

    def _request(self, method: str, path: str, *, offset: int = 0, length: int) -> Request:
        headers = {"Content-Length": str(length), "Content-Type": _TYPE}
        body = self._part(offset, length) if length else None
        return Request(method, path, self._way.scope, headers, body, missing="BLOB_UPLOAD_UNKNOWN", attempts=1)

    def _part(self, offset: int, length: int) -> Callable[[], AsyncIterator[bytes]]:
        async def body() -> AsyncIterator[bytes]:
            file = await asyncio.to_thread(self._blob.open)
            try:
                file.seek(offset)
                left = length
                while left and (part := await asyncio.to_thread(file.read, min(PIECE, left))):
                    yield part
                    left -= len(part)
                    self._blob.progress(offset + length - left)
            finally:
                file.close()

        return body


async def mount(way: Way, digest: str, source: str) -> bool:
    """Have the registry take a blob over from its repository `source` (a path). False when it wants to be sent it."""
    location = await _begin(way, digest, source)
    if location is None:
        return True
    with contextlib.suppress(CortenError):
        async with way.send(Request("DELETE", location, way.scope, {}, missing="BLOB_UPLOAD_UNKNOWN", attempts=1)):
            pass
    return await _has(way, digest)


async def _begin(way: Way, digest: str, mount_from: str) -> str | None:
    """Where to send the blob; None when it was mounted."""
    query, scope = "", way.scope
    if mount_from:
        query = "?" + urlencode({"mount": digest, "from": mount_from})
        scope = f"{scope} repository:{mount_from}:pull"
    path = f"/v2/{way.path}/blobs/uploads/{query}"
    try:
        async with way.send(Request("POST", path, scope, {}, missing="NAME_UNKNOWN")) as response:
            if response.status == 201 and mount_from:
                return None
            return _location(response)
    except (Unauthorized, NotFound):
        # A repository that we may not read is no reason not to send the blob.
        if not mount_from:
            raise
    return await _begin(way, digest, "")


async def _has(way: Way, digest: str) -> bool:
    request = Request("HEAD", f"/v2/{way.path}/blobs/{digest}", way.scope, {}, missing="BLOB_UNKNOWN")
    try:
        async with way.send(request):
            return True
    except NotFound:
        return False


def _location(response: aiohttp.ClientResponse) -> str:
    location = response.headers.get("Location", "")
    if not location:
        raise SystemFault("the registry took an upload without saying where", step="registry")
    return target_of(str(response.url), location)
