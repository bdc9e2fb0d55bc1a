"""What the registries have and take, asked by this process itself: the daemon has no part in it, and may be another's.

The only module of the command line that imports the `registry` package, which costs a tenth of a second.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from msgspec.structs import replace

from corten.cli import credentials
from corten.cli.context import Context
from corten.cli.errors import CliError
from corten.cli.manifests.entry import Entry, Part, list_text, list_type, platform_of
from corten.clock import SystemClock
from corten.errors import CortenError, NotFound
from corten.registry import hosts
from corten.registry.auth import Credentials
from corten.registry.client import Fetched, RegistryClient
from corten.registry.endpoints import RegistrySettings
from corten.registry.proxies import Proxies, ProxySettings
from corten.registry.transport import Transport
from corten.specs import digest as digests
from corten.specs import oci_image as oci
from corten.specs import wire
from corten.specs.reference import Reference

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Listed:
    """A list at a registry. `images` are those of `parts` with their manifests, if they were asked for."""

    media_type: str
    parts: list[Part]
    images: list[Entry]


class Registries:
    """With what `context` knows of credentials and certificates; `insecure` as the flag. Methods raise CliError."""

    def __init__(self, context: Context, *, insecure: bool) -> None:
        self._context, self._insecure = context, insecure

    def images(self, references: Sequence[Reference]) -> list[Entry]:
        """The image that each name stands for, in the same order."""

        async def work(transport: Transport) -> list[Entry]:
            return [await self._image(transport, name) for name in references]

        return self._run(references, work)

    def look(self, name: Reference, *, images: bool) -> Entry | Listed:
        """What `name` stands for; the `images` of a list are asked for one by one."""

        async def work(transport: Transport) -> Entry | Listed:
            client = self._client(transport, name)
            found = await _manifest(client)
            if found.media_type not in oci.INDEX_TYPES:
                return await _entry(client, found)
            parts = [
                Part(each.media_type, each.digest, each.size, each.platform)
                for each in oci.parse_index(found.data).manifests
            ]
            return Listed(found.media_type, parts, [await _child(client, part) for part in parts if images])

        return self._run([name], work)

    def push(self, target: Reference, images: Sequence[Entry], told: Callable[[str], None]) -> str:
        """Push a list of `images`, and before it those of them that are in other repositories of the same registry,
        whose blobs the registry takes over itself. Gives the list's digest; `told` hears of each image.
        """

        async def work(transport: Transport) -> str:
            client = self._client(transport, target, push=True)
            others = [image for image in images if image.ref.path != target.path]
            await _mount(client, others)
            for image in others:
                digest = image.part.digest
                await _put(client, digest, Fetched(digest, image.part.media_type, image.raw))
                told(f"Pushed ref {target.name}@{digest} with digest: {digest}")
            parts = [image.part for image in images]
            data = list_text(parts, kind := list_type(parts)).encode()
            await _put(client, target.tag, pushed := Fetched(digests.of(data), kind, data))
            return pushed.digest

        return self._run([target], work)

    async def _image(self, transport: Transport, name: Reference) -> Entry:
        client = self._client(transport, name)
        found = await _manifest(client)
        if found.media_type in oci.INDEX_TYPES:
            raise CliError(f"{name} is a manifest list")
        return await _entry(client, found)

    def _client(self, transport: Transport, name: Reference, *, push: bool = False) -> RegistryClient:
        known = credentials.known_for(str(name), self._context.config) or {}
        who = Credentials(known.get("username", ""), known.get("password", ""), known.get("identitytoken", ""))
        return RegistryClient(transport, name, who, push=push)

    def _run(self, names: Iterable[Reference], work: Callable[[Transport], Awaitable[T]]) -> T:
        async def script() -> T:
            transport = Transport(self._settings(names), SystemClock())
            try:
                return await work(transport)
            finally:
                await transport.close()

        try:
            return asyncio.run(script())
        except CortenError as error:
            raise CliError(str(error)) from None

    def _settings(self, names: Iterable[Reference]) -> RegistrySettings:
        own = Path(self._context.config_dir) / "certs.d"
        return RegistrySettings(
            insecure=tuple({name.domain for name in names}) if self._insecure else (),
            directories=(own, *hosts.DIRECTORIES),
            proxies=Proxies(ProxySettings().over(os.environ)),
        )


async def _manifest(client: RegistryClient) -> Fetched:
    try:
        return await client.manifest()
    except NotFound as error:
        if error.kind != "manifest":
            raise
        raise CliError(f"no such manifest: {client.reference}") from None


async def _entry(client: RegistryClient, found: Fetched) -> Entry:
    """With the platform that the image's config says."""
    config = wire.parse(await client.config(oci.parse_manifest(found.data).config), "image config")
    platform = platform_of(config if isinstance(config, dict) else {})
    return Entry(client.reference, Part(found.media_type, found.digest, len(found.data), platform), found.data)


async def _child(client: RegistryClient, part: Part) -> Entry:
    """With the platform that its list says."""
    found = await client.manifest(part.digest)
    if found.media_type in oci.INDEX_TYPES:
        raise CliError(f"unsupported manifest type: {found.media_type}")
    known = Part(found.media_type, found.digest, len(found.data), part.platform)
    return Entry(replace(client.reference, digest=found.digest), known, found.data)


async def _mount(client: RegistryClient, images: Iterable[Entry]) -> None:
    done: set[str] = set()
    for image in images:
        for digest in image.blobs:
            if digest not in done and not await client.mount(digest, image.ref.path):
                raise CliError(f"error mounting {image.ref.name}@{digest} to {client.reference}")
            done.add(digest)


async def _put(client: RegistryClient, name: str, manifest: Fetched) -> None:
    try:
        await client.put_manifest(name, manifest.media_type, manifest.data)
    except CortenError as error:
        target = f"{client.reference.name}{'@' if ':' in name else ':'}{name}"
        raise CliError(f"failed to put manifest {target}: {error}") from None
