"""`docker login` against registries of each kind."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from corten.clock import SystemClock
from corten.errors import InvalidArgument, SystemFault, Unauthorized, Unavailable
from corten.registry.auth import Credentials
from corten.registry.client import RegistryClient
from corten.registry.endpoints import RegistrySettings
from corten.registry.login import login
from corten.registry.transport import Transport
from corten.specs import oci_image as oci
from corten.specs import reference
from corten.testing.registry import FakeRegistry, Fault

USERS = {"ann": "hunter2"}
ANN = Credentials("ann", "hunter2")


class EagerClock(SystemClock):
    async def sleep(self, seconds: float) -> None:
        return


@asynccontextmanager
async def transport() -> AsyncIterator[Transport]:
    opened = Transport(RegistrySettings(stall_timeout=0.5), EagerClock())
    try:
        yield opened
    finally:
        await opened.close()


def test_by_name_and_password() -> None:
    async def script() -> None:
        async with FakeRegistry(basic_auth=True, users=USERS) as registry, transport() as sent:
            assert await login(sent, registry.host, ANN) == ""
            assert await login(sent, f"http://{registry.host}/v1/", ANN) == ""
            assert {entry.path for entry in registry.log} == {"/v2/"}
            said = rf"^login attempt to http://{registry.host}/v2/ failed with status: 401 Unauthorized$"
            with pytest.raises(Unauthorized, match=said):
                await login(sent, registry.host, Credentials("ann", "wrong"))
            with pytest.raises(Unauthorized, match="no basic auth credentials"):
                await login(sent, registry.host, Credentials())

    asyncio.run(script())


def test_a_token_server_gives_an_identity_token_that_serves_from_then_on() -> None:
    async def script() -> None:
        async with FakeRegistry(token_auth=True, users=USERS, private=True) as registry, transport() as sent:
            token = await login(sent, registry.host, ANN)
            assert token == "identity-of-ann"
            kept = Credentials(identity_token=token)
            assert await login(sent, registry.host, kept) == token
            registry.add_manifest("app", b'{"schemaVersion":2,"manifests":[]}', oci.OCI_INDEX, "latest")
            await RegistryClient(sent, reference.parse(f"{registry.host}/app"), kept).manifest()
            with pytest.raises(Unauthorized, match="unauthorized: incorrect username or password"):
                await login(sent, registry.host, Credentials("ann", "wrong"))
            with pytest.raises(Unauthorized, match="unauthorized: incorrect username or password"):
                await login(sent, registry.host, Credentials(identity_token="identity-of-bob"))

    asyncio.run(script())


def test_a_password_that_was_good_yesterday_is_asked_about_anew() -> None:
    async def script() -> None:
        users = dict(USERS)
        async with FakeRegistry(token_auth=True, users=users) as registry, transport() as sent:
            await login(sent, registry.host, ANN)
            users["ann"] = "changed"
            with pytest.raises(Unauthorized):
                await login(sent, registry.host, ANN)

    asyncio.run(script())


def test_whoever_asks_nobody_lets_everybody_in() -> None:
    async def script() -> None:
        async with FakeRegistry() as registry, transport() as sent:
            assert await login(sent, registry.host, Credentials("any", "thing")) == ""

    asyncio.run(script())


def test_where_nobody_can_say() -> None:
    async def script() -> None:
        async with FakeRegistry() as registry, transport() as sent:
            registry.fail("/v2/", *[Fault("status", status=404)])
            with pytest.raises(SystemFault, match="failed with status: 404 Not Found"):
                await login(sent, registry.host, ANN)
            registry.fail("/v2/", *[Fault("status", status=503)] * 2)
            with pytest.raises(SystemFault, match="failed with status: 503 Service Unavailable"):
                await login(sent, registry.host, ANN)
            with pytest.raises(Unavailable, match=r"connection refused"):
                await login(sent, "127.0.0.1:1", ANN)
            with pytest.raises(InvalidArgument, match="unable to parse server address"):
                await login(sent, "http://ann:hunter2@x/", ANN)

    asyncio.run(script())
