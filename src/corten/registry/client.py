"""One repository of one registry, as the distribution specification has it: manifests, blobs, uploads."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, BinaryIO
from urllib.parse import quote, urlencode, urljoin

from corten.errors import CortenError, DataCorrupt, NotFound, SystemFault, Unauthorized, clip
from corten.registry.auth import Credentials
from corten.registry.endpoints import Endpoint
from corten.registry.faults import Refused, translate
from corten.registry.transport import Body, BrokenOff, NoAnswer, Request, Transport, read_bounded
from corten.specs import digest as digests
from corten.specs import oci_image as oci
from corten.specs.reference import Reference

if TYPE_CHECKING:
    import aiohttp

MAX_MANIFEST = 8 << 20
"""Bytes of a manifest, an index or an image config."""

CHUNK = 1 << 20
_ACCEPT = ", ".join((*oci.INDEX_TYPES, *oci.MANIFEST_TYPES))


@dataclass(frozen=True, slots=True)
class Fetched:
    """A manifest or index as it came; `digest` is that of `data`."""

    digest: str
    media_type: str
    data: bytes


class RegistryClient:
    """Access to the repository of `reference` with one set of credentials.

    Reading asks the mirrors first and falls back, request by request. Errors: Unauthorized, Forbidden, NotFound,
    Unavailable, SystemFault and DataCorrupt, with the name of the reference in Docker's words.
    """

    def __init__(
        self, transport: Transport, reference: Reference, credentials: Credentials | None = None, *, push: bool = False
    ) -> None:
        self.reference = reference
        self._transport = transport
        self._credentials = credentials or Credentials()
        self._push = push
        self._scope = f"repository:{reference.path}:{'pull,push' if push else 'pull'}"
        self._endpoints = transport.settings.endpoints(reference.domain, push=push)

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
        data, said = await self._read_whole(request)
        found = digests.of(data)
        if wanted and found != wanted:
            raise DataCorrupt(f"manifest verification failed for digest {wanted}: the registry sent {found}")
        return Fetched(found, self._media_type(data, said), data)

    def _media_type(self, data: bytes, said: str) -> str:
        real = oci.kind_of(data)
        if real == oci.DOCKER_SCHEMA1 or said in (oci.DOCKER_SCHEMA1, oci.DOCKER_SCHEMA1_SIGNED):
            text = f"{self.reference.familiar} has a manifest of schema 1, which is no longer supported"
            raise SystemFault(f"{text}: push it again with a newer client", step="registry")
        if not real:
            text = f"the registry sent no manifest for {self.reference.familiar}, but {clip(said, 100) or 'garbage'}"
            raise SystemFault(text, step="registry")
        both = (oci.INDEX_TYPES, oci.MANIFEST_TYPES)
        return said if any(said in types and real in types for types in both) else real

    async def _read_whole(self, request: Request) -> tuple[bytes, str]:
        """Body and media type, begun again when the connection breaks."""
        for attempt in range(1, self._transport.settings.attempts + 1):
            try:
                async with self._send(request) as response:
                    data = await read_bounded(response, MAX_MANIFEST)
                    return data, response.headers.get("Content-Type", "").partition(";")[0].strip()
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

    async def blob(self, digest: str, size: int, offset: int = 0) -> AsyncGenerator[bytes, None]:
        """The bytes of a blob from `offset` on, `size` being the whole.

        A connection that breaks is taken up where it broke, several times in a row without a byte at most. The
        caller compares the digest. Raises DataCorrupt for a blob that is longer than `size`.
        """
        failures = 0
        while offset < size:
            try:
                async with aclosing(self._blob_once(digest, size, offset)) as parts:
                    async for part in parts:
                        offset += len(part)
                        failures = 0
                        yield part
                if offset < size:
                    raise BrokenOff(f"unexpected EOF: {digest} ended after {offset} of {size} bytes")
            except BrokenOff:
                failures += 1
                if failures >= self._transport.settings.attempts:
                    raise
                await self._transport.pause(failures)

    async def _blob_once(self, digest: str, size: int, offset: int) -> AsyncGenerator[bytes, None]:
        request = self._request("GET", f"blobs/{digest}", missing="BLOB_UNKNOWN")
        if offset:
            request.headers["Range"] = f"bytes={offset}-"
        async with self._send(request) as response:
            # A server that does not know ranges starts again at the beginning: pass over what we have.
            skip = (
                offset - _range_start(response.headers.get("Content-Range", "")) if response.status == 206 else offset
            )
            if skip < 0:
                raise SystemFault(f"the registry sent another range of {digest} than was asked for", step="registry")
            left = size - offset
            async for data in response.content.iter_any():
                part = data[skip:] if skip else data
                skip = max(0, skip - len(data))
                left -= len(part)
                if left < 0:
                    raise DataCorrupt(f"{digest} is longer than the {size} bytes that its descriptor says")
                if part:
                    yield part

    async def has_blob(self, digest: str) -> bool:
        try:
            async with self._send(self._request("HEAD", f"blobs/{digest}", missing="BLOB_UNKNOWN")):
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
        for attempt in range(1, self._transport.settings.attempts + 1):
            location = await self._begin_upload(digest, mount_from)
            if location is None:
                return True
            join = "&" if "?" in location else "?"
            request = Request(
                "PUT",
                f"{location}{join}{urlencode({'digest': digest})}",
                self._scope,
                {"Content-Length": str(size), "Content-Type": "application/octet-stream"},
                _file_body(open_blob, progress),
                missing="BLOB_UPLOAD_UNKNOWN",
                attempts=1,
            )
            try:
                async with self._send(request):
                    return False
            except (NoAnswer, NotFound):
                if attempt == self._transport.settings.attempts:
                    raise
                await self._transport.pause(attempt)
        raise AssertionError("the last attempt returns or raises")

    async def _begin_upload(self, digest: str, mount_from: str) -> str | None:
        query = ""
        scope = self._scope
        if mount_from:
            query = "?" + urlencode({"mount": digest, "from": mount_from})
            scope = f"{scope} repository:{mount_from}:pull"
        request = self._request("POST", f"blobs/uploads/{query}", missing="NAME_UNKNOWN", scope=scope)
        try:
            async with self._send(request) as response:
                if response.status == 201 and mount_from:
                    return None
                location = response.headers.get("Location", "")
                if not location:
                    raise SystemFault("the registry began an upload without saying where", step="registry")
                return urljoin(str(response.url), location)
        except (Unauthorized, NotFound):
            # A repository that we may not read is no reason not to send the blob.
            if not mount_from:
                raise
        return await self._begin_upload(digest, "")

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
        for mirror in self._endpoints[:-1]:
            try:
                async with self._sending(mirror, replace(request, attempts=1)) as response:
                    yield response
                    return
            except CortenError:
                if response is not None:
                    raise  # it broke off in the middle, or the caller could not use it
        async with self._sending(self._endpoints[-1], request) as response:
            yield response

    @asynccontextmanager
    async def _sending(self, endpoint: Endpoint, request: Request) -> AsyncIterator[aiohttp.ClientResponse]:
        mirror = endpoint is not self._endpoints[-1]
        # What a user logged in with is for the registry itself, and none of a mirror's business.
        credentials = Credentials() if mirror else self._credentials
        try:
            async with self._transport.send(endpoint, credentials, request) as response:
                yield response
        except Refused as refused:
            raise translate(refused, self.reference, push=self._push) from None


def _file_body(open_blob: Callable[[], BinaryIO], progress: Callable[[int], None] | None) -> Body:
    async def body() -> AsyncIterator[bytes]:
        sent = 0
        file = await asyncio.to_thread(open_blob)
        try:
            while part := await asyncio.to_thread(file.read, CHUNK):
                yield part
                sent += len(part)
                if progress is not None:
                    progress(sent)
        finally:
            file.close()

    return body


def _range_start(header: str) -> int:
    start = header.removeprefix("bytes ").partition("-")[0]
    return int(start) if start.isdigit() and len(start) < 19 else 0
