"""Registries as such, without an image: what `api.docker.backends.RegistryBackend` asks for."""

from __future__ import annotations

from typing import Any

import msgspec

from corten.engine.models import RegistryAuth
from corten.registry.auth import Credentials
from corten.registry.client import Fetched, RegistryClient
from corten.registry.login import login
from corten.registry.search import search
from corten.registry.transport import Transport
from corten.specs import oci_image as oci
from corten.specs import reference as references

INDEX_SERVER = "https://index.docker.io/v1/"
"""Docker Hub's, by its name of old: what clients file credentials under."""


class RegistryService:
    """Stands on the transport that pulls and pushes use; its owner closes it."""

    def __init__(self, registries: Transport) -> None:
        self._registries = registries

    async def login(self, auth: RegistryAuth) -> str:
        return await login(self._registries, auth.server_address or INDEX_SERVER, _credentials(auth))

    async def distribution(self, ref: str, auth: RegistryAuth | None) -> dict[str, Any]:
        """What `ref` stands for at its registry: its descriptor and platforms, in the API's shape."""
        client = RegistryClient(self._registries, references.parse(ref), _credentials(auth))
        top = await client.manifest()
        descriptor = {"mediaType": top.media_type, "digest": top.digest, "size": len(top.data)}
        return {"Descriptor": descriptor, "Platforms": await _platforms(client, top)}

    async def search(self, term: str, limit: int, auth: RegistryAuth | None) -> list[dict[str, Any]]:
        """Repositories, in the API's shape."""
        found = await search(self._registries, term, limit, _credentials(auth))
        return [msgspec.structs.asdict(entry) for entry in found]


def _credentials(auth: RegistryAuth | None) -> Credentials:
    auth = auth or RegistryAuth()
    return Credentials(auth.username, auth.password, auth.identity_token, auth.registry_token)


async def _platforms(client: RegistryClient, top: Fetched) -> list[dict[str, Any]]:
    """Of an index what it says, of a manifest what its config says; nothing of what is no image."""
    if top.media_type in oci.INDEX_TYPES:
        found = [entry.platform for entry in oci.parse_index(top.data).manifests if entry.platform is not None]
    else:
        config = oci.parse_manifest(top.data).config
        if config.media_type not in oci.CONFIG_TYPES:
            return []
        found = [oci.parse_config(await client.config(config)).platform]
    shown = [msgspec.to_builtins(platform) for platform in found]
    return [platform for platform in shown if platform]
