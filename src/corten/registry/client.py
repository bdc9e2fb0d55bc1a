"""One repository of one registry, as the distribution specification has it: manifests, blobs, uploads."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, BinaryIO
from urllib.parse import quote

import msgspec

from corten.errors import (
    CortenError,
    DataCorrupt,
    InvalidArgument,
    NotFound,
    SystemFault,
    Unavailable,
    clip,
)
from corten.registry import hosts
from corten.registry.auth import Credentials
from corten.registry.endpoints import Endpoint
from corten.registry.faults import Refused, translate
from corten.registry.transport import BrokenOff, Request, Transport, Waiting, target_of
from corten.registry.uploads import Blob, Upload, Way, mount
from corten.specs import digest as digests
from corten.specs import oci_image as oci
from corten.specs.reference import Reference

if TYPE_CHECKING:
    import aiohttp

MAX_MANIFEST = 8 << 20
"""Bytes of a manifest, an index or an image config."""

MAX_TAG_PAGES = 1000
MAX_TAGS = 1_000_000
CHUNK = 1 << 20

SLOWEST = 64
"""Bytes a second below which a blob's connection counts as broken."""

PROGRESS = 16 << 10
"""Bytes that a connection must have brought to count for more than one that brought none."""

_ACCEPT = ", ".join((*oci.INDEX_TYPES, *oci.MANIFEST_TYPES))


_NEXT_LINK = re.compile(r'<([^<>]+)>\s*;\s*rel="?next"?')
_CONTENT_RANGE = re.compile(r"bytes (\d{1,18})-\d{1,18}/(\*|\d{1,18})")


class _NoRange(Exception):
    """The server does not serve a part of this blob, or not the part that was asked for: all of it is asked for."""


class _Tags(msgspec.Struct):
    tags: list[str] | None


@dataclass(frozen=True, slots=True)
class Fetched:
    """A manifest or index as it came; `digest` is that of `data`."""

    digest: str
    media_type: str
    data: bytes


class RegistryClient:
    """Access to the repository of `reference` with one set of credentials.

    Where the registry is, and its mirrors, is read from disk at the first request, beside the event loop, and kept for
    all that follow. Reading asks the mirrors first and falls back, request by request. Errors: Unauthorized, Forbidden,
    NotFound, Unavailable, SystemFault and DataCorrupt, with the name of the reference in Docker's words, and
    InvalidArgument for settings on disk that make no sense.
    """

    def __init__(
        self, transport: Transport, reference: Reference, credentials: Credentials | None = None, *, push: bool = False
    ) -> None:
        self.reference = reference
        self._transport = transport
        self._credentials = credentials or Credentials()
        self._push = push
        self._scope = f"repository:{reference.path}:{'pull,push' if push else 'pull'}"
        self._settings = transport.settings
        self._endpoints: tuple[Endpoint, ...] = ()
        self._locating = asyncio.Lock()

    def at(self, reference: Reference) -> RegistryClient:
        """The same access to another name in the same repository."""
        return RegistryClient(self._transport, reference, self._credentials, push=self._push)

    async def locate(self) -> tuple[Endpoint, ...]:
        """Where to ask, in order. Requests do it themselves; whoever wants to hear of an InvalidArgument before that
        calls it.
        """
        async with self._locating:
            if not self._endpoints:
                # The files may lie on a disk that sleeps, or on another machine's.
                find = self._settings.endpoints
                self._endpoints = await asyncio.to_thread(find, self.reference.domain, push=self._push)
        return self._endpoints

    async def resolve(self) -> str | None:
        """The digest that the reference stands for now, by HEAD; None where the registry does not say."""
        if self.reference.digest:
            return self.reference.digest
        request = self._request("HEAD", f"manifests/{self.reference.tag}", missing="MANIFEST_UNKNOWN")
        request.headers["Accept"] = _ACCEPT
        async with self._send(request) as response:
            digest = response.headers.get("Docker-Content-Digest", "")
            return digest if digests.is_digest(digest) else None

    async def manifest(self, digest: str = "") -> Fetched:
        """The manifest or index at `digest`, else what the reference names, compared with its digest.

        Raises DataCorrupt when the bytes are others, NotFound, SystemFault for an answer that is no manifest.
        """
        wanted = digest or self.reference.digest
        request = self._request("GET", f"manifests/{wanted or self.reference.tag}", missing="MANIFEST_UNKNOWN")
        request.headers["Accept"] = _ACCEPT
        data, said, promised = await self._read_whole(request)
        found = digests.of(data)
        # Of a tag the registry says the digest itself; it may be of another algorithm than ours.
        expected = wanted or (promised if digests.is_digest(promised) else found)
        if found != expected:
            raise DataCorrupt(f"manifest verification failed for digest {expected}: the registry sent {found}")
        return Fetched(found, self._media_type(data, said), data)

    def _media_type(self, data: bytes, said: str) -> str:
        real = oci.kind_of(data)
        if real == oci.DOCKER_SCHEMA1 or said in (oci.DOCKER_SCHEMA1, oci.DOCKER_SCHEMA1_SIGNED):
            text = f"{self.reference.familiar} has a manifest of schema 1, which is no longer supported"
            raise InvalidArgument(f"{text}: its author has to build it anew, as an OCI image or as one of schema 2")
        if not real and said.startswith("application/vnd."):
            raise InvalidArgument(f"unsupported media type {clip(said, 100)}: this is no container image")
        if not real:
            text = f"the registry sent no manifest for {self.reference.familiar}, but {clip(said, 100) or 'garbage'}"
            raise SystemFault(text, step="registry")
        both = (oci.INDEX_TYPES, oci.MANIFEST_TYPES)
        return said if any(said in types and real in types for types in both) else real

    async def _read_whole(self, request: Request) -> tuple[bytes, str, str]:
        """Body, media type and the digest that the registry says it has, begun again when the connection breaks."""
        for attempt in range(1, self._transport.settings.attempts + 1):
            try:
                async with self._send(request) as response:
                    data = await self._transport.read(response, MAX_MANIFEST)
                    said = response.headers.get("Content-Type", "").partition(";")[0].strip()
                    return data, said, response.headers.get("Docker-Content-Digest", "")
            except BrokenOff:
                if attempt == self._transport.settings.attempts:
                    raise
                await self._transport.pause(attempt)
        raise AssertionError("the last attempt returns or raises")

    async def config(self, descriptor: oci.Descriptor) -> bytes:
        """A small blob as a whole, compared with its digest."""
        if descriptor.size > MAX_MANIFEST:
            raise SystemFault(f"the image config has {descriptor.size} bytes, at most {MAX_MANIFEST} are read")
        data = b"".join([part async for part in self.blob(descriptor.digest, descriptor.size)])
        if (found := digests.of(data)) != descriptor.digest:
            raise DataCorrupt(f"image config verification failed for digest {descriptor.digest}: got {found}")
        return data

    async def tags(self) -> list[str]:
        """All tags of the repository, sorted. Raises NotFound for one that is not there."""
        request = self._request("GET", "tags/list?n=1000", missing="NAME_UNKNOWN")
        found: set[str] = set()
        for _ in range(MAX_TAG_PAGES):
            data, link = await self._tags_page(request)
            known = len(found)
            try:
                found.update(msgspec.json.decode(data, type=_Tags).tags or ())
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                text = f"the registry's list of tags of {self.reference.familiar_name} cannot be read"
                raise SystemFault(text, step="registry") from None
            if not link:
                return sorted(found)
            if not known < len(found) < MAX_TAGS:
                break  # it goes in circles, or has no end
            request = Request("GET", link, self._scope, {}, missing="NAME_UNKNOWN")
        raise SystemFault(f"{self.reference.familiar_name} has too many tags to list", step="registry")

    async def _tags_page(self, request: Request) -> tuple[bytes, str]:
        """One page of tags, and the URL of the next ("" for none)."""
        async with self._send(request) as response:
            data = await self._transport.read(response, MAX_MANIFEST)
            match = _NEXT_LINK.search(", ".join(response.headers.getall("Link", [])))
            return data, target_of(str(response.url), match[1]) if match else ""

    async def blob(
        self,
        digest: str,
        size: int,
        offset: int = 0,
        *,
        urls: Sequence[str] = (),
        waiting: Waiting | None = None,
    ) -> AsyncGenerator[bytes, None]:
        """The bytes of a blob from `offset` on, `size` being the whole.

        A connection that breaks, or crawls, is taken up where it broke, several times in a row without much at most;
        `waiting` hears of the pauses before that. The caller compares the digest. A blob that the registry has not is
        looked for at `urls`, without credentials. Raises DataCorrupt for a blob that is longer than `size`.
        """
        places = ["", *(url for url in urls if url.startswith(("http://", "https://")))]
        while True:
            try:
                async with aclosing(self._blob_at(places[0], digest, size, offset, waiting)) as parts:
                    async for part in parts:
                        offset += len(part)
                        yield part
                return
            except (NotFound, Unavailable):
                if len(places) == 1:
                    raise
                places.pop(0)

    async def _blob_at(
        self, place: str, digest: str, size: int, offset: int, waiting: Waiting | None
    ) -> AsyncGenerator[bytes, None]:
        """`blob` from the registry, or from the URL `place`."""
        failures, ranged = 0, True
        while offset < size:
            try:
                request = self._blob_request(place, digest, waiting)
                start = offset if ranged else 0
                began = offset
                async with aclosing(self._blob_once(request, digest, size, offset, start)) as parts:
                    async for part in parts:
                        offset += len(part)
                        if offset - began >= PROGRESS:
                            failures = 0
                        yield part
                if offset < size:
                    raise BrokenOff(f"unexpected EOF: {digest} ended after {offset} of {size} bytes")
            except _NoRange:
                if not ranged:
                    raise SystemFault(f"the registry sends a part of {digest} for the whole", step="registry") from None
                ranged = False
            except BrokenOff:
                failures += 1
                if failures >= self._transport.settings.attempts:
                    raise
                await self._transport.pause(failures, waiting=waiting)

    def _blob_request(self, place: str, digest: str, waiting: Waiting | None) -> Request:
        request = self._request("GET", f"blobs/{digest}", missing="BLOB_UNKNOWN")
        return replace(request, path=place or request.path, waiting=waiting)

    async def _blob_once(
        self, request: Request, digest: str, size: int, offset: int, start: int
    ) -> AsyncGenerator[bytes, None]:
        """What comes after `offset`, asked for from `start` on. Raises _NoRange for a range that was not understood."""
        if start:
            request.headers["Range"] = f"bytes={start}-"
        async with self._send(request) as response:
            # A server that does not know ranges starts again at the beginning: pass over what we have.
            begins = _range_start(response.headers.get("Content-Range", ""), size) if response.status == 206 else 0
            skip = offset - begins
            if skip < 0 and start:
                raise _NoRange
            if skip < 0:
                raise SystemFault(f"the registry sent another range of {digest} than was asked for", step="registry")
            left = size - offset
            # What the head says already is not waited for.
            if begins + (response.content_length or 0) > size:
                raise _too_long(digest, size)
            async for data in self._at_a_pace(response):
                part = data[skip:] if skip else data
                skip = max(0, skip - len(data))
                left -= len(part)
                if left < 0:
                    raise _too_long(digest, size)
                if part:
                    yield part

    async def _at_a_pace(self, response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
        """The body in pieces. Raises BrokenOff when so little comes that it would never end."""
        window = self._transport.settings.stall_timeout
        now = asyncio.get_running_loop().time
        waited, came = 0.0, 0
        pieces = aiter(response.content.iter_any())
        while True:
            begin = now()
            data = await anext(pieces, b"")
            waited += now() - begin  # only that: whoever takes the pieces may be slow as well
            if not data:
                return
            yield data
            came += len(data)
            if waited >= window:
                if came < SLOWEST * window:
                    raise BrokenOff(f"{response.url.host}: only {came} bytes came in {waited:.0f} seconds")
                waited, came = 0.0, 0

    async def has_blob(self, digest: str) -> bool:
        try:
            async with self._send(self._request("HEAD", f"blobs/{digest}", missing="BLOB_UNKNOWN")):
                return True
        except NotFound:
            return False

    async def has_manifest(self, digest: str) -> bool:
        request = self._request("HEAD", f"manifests/{digest}", missing="MANIFEST_UNKNOWN")
        request.headers["Accept"] = _ACCEPT
        try:
            async with self._send(request):
                return True
        except NotFound:
            return False

    async def upload(
        self,
        digest: str,
        size: int,
        open_blob: Callable[[], BinaryIO],
        *,
        mount_from: str = "",
        progress: Callable[[int], None] | None = None,
    ) -> bool:
        """Bring a blob into the repository. True when it was mounted from repository `mount_from` (a path in the same
        registry) instead. `progress` is told bytes sent so far, starting anew with an attempt.
        """
        return await Upload(self._way, Blob(digest, size, open_blob, progress or _ignore)).run(mount_from)

    async def mount(self, digest: str, source: str) -> bool:
        """Take a blob over from `source`, a path in the same registry. False when the registry wants to be sent it."""
        return await mount(self._way, digest, source)

    @property
    def _way(self) -> Way:
        settings, path = self._transport.settings, self.reference.path
        return Way(self._send, self._transport, path, self._scope, settings.attempts, settings.upload_chunk)

    async def put_manifest(self, reference: str, media_type: str, data: bytes) -> None:
        """Store `data` under a tag or its digest, byte for byte."""

        async def body() -> AsyncIterator[bytes]:
            yield data

        headers = {"Content-Type": media_type, "Content-Length": str(len(data))}
        path = f"/v2/{self.reference.path}/manifests/{quote(reference, safe=':')}"
        async with self._send(Request("PUT", path, self._scope, headers, body)):
            return

    def _request(self, method: str, tail: str, *, missing: str, scope: str = "") -> Request:
        path = f"/v2/{self.reference.path}/{tail}"
        return Request(method, path, scope or self._scope, {}, missing=missing)

    @asynccontextmanager
    async def _send(self, request: Request) -> AsyncIterator[aiohttp.ClientResponse]:
        response = None
        *mirrors, last = self._places(request, await self.locate())
        for mirror in mirrors:
            try:
                async with self._sending(mirror, replace(request, attempts=1)) as response:
                    yield response
                    return
            except CortenError:
                if response is not None:
                    raise  # it broke off in the middle, or the caller could not use it
        async with self._sending(last, request) as response:
            yield response

    def _places(self, request: Request, endpoints: tuple[Endpoint, ...]) -> list[Endpoint]:
        """Where to ask, in order: what a name stands for now is not every mirror's to say."""
        if self._push:
            return list(endpoints)
        _, manifest, name = request.path.rpartition("/manifests/")
        by_name = "/tags/list" in request.path or (bool(manifest) and ":" not in name)
        needed = hosts.RESOLVE if by_name else hosts.PULL
        places = [endpoint for endpoint in endpoints if needed in endpoint.capabilities]
        if not places:
            domain = self.reference.domain
            raise InvalidArgument(f"nothing may be pulled from {domain}: hosts.toml gives none of its hosts the right")
        return places

    @asynccontextmanager
    async def _sending(self, endpoint: Endpoint, request: Request) -> AsyncIterator[aiohttp.ClientResponse]:
        # What a user logged in with is for the registry itself, and none of a mirror's business.
        credentials = self._credentials if endpoint.own else Credentials()
        try:
            async with self._transport.send(endpoint, credentials, request) as response:
                yield response
        except Refused as refused:
            if refused.status == 416 and "Range" in request.headers:
                raise _NoRange from None
            raise translate(refused, self.reference, push=self._push) from None


def _too_long(digest: str, size: int) -> DataCorrupt:
    return DataCorrupt(f"{digest} is longer than the {size} bytes that its descriptor says")


def _ignore(sent: int) -> None:
    """For those who only want the result."""


def _range_start(header: str, size: int) -> int:
    """Where a Content-Range begins. Raises _NoRange for one that cannot be read, or is of another thing's size."""
    match = _CONTENT_RANGE.fullmatch(header.strip())
    if match is None or match[2] not in ("*", str(size)):
        raise _NoRange
    return int(match[1])
