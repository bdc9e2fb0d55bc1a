"""Registries as such, without an image: what `api.docker.backends.RegistryBackend` asks for."""

from __future__ import annotations

from corten.engine.models import RegistryAuth
from corten.registry.auth import Credentials
from corten.registry.login import login
from corten.registry.transport import Transport

INDEX_SERVER = "https://index.docker.io/v1/"
"""Docker Hub's, by its name of old: what clients file credentials under."""


class RegistryService:
    """Stands on the transport that pulls and pushes use; its owner closes it."""

    def __init__(self, registries: Transport) -> None:
        self._registries = registries

    async def login(self, auth: RegistryAuth) -> str:
        credentials = Credentials(auth.username, auth.password, auth.identity_token, auth.registry_token)
        return await login(self._registries, auth.server_address or INDEX_SERVER, credentials)
