"""The client against a registry in this process: tokens, redirects, mirrors, uploads."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from corten.clock import SystemClock
from corten.errors import DataCorrupt, Forbidden, SystemFault, Unauthorized
from corten.registry.auth import Credentials
from corten.registry.client import RegistryClient
from corten.registry.endpoints import RegistrySettings
from corten.registry.transport import Transport
from corten.specs import digest as digests
from corten.specs import oci_image as oci
from corten.specs import reference
from corten.testing.registry import FakeRegistry, Fault

BLOB = bytes(range(256)) * 300
DIGEST = digests.of(BLOB)
ANN = Credentials("ann", "pw")


class EagerClock(SystemClock):
    async def sleep(self, seconds: float) -> None:
        return


@asynccontextmanager
async def transport(settings: RegistrySettings | None = None) -> AsyncIterator[Transport]:
    opened = Transport(settings or RegistrySettings(stall_timeout=0.3), EagerClock())
    try:
        yield opened
    finally:
        await opened.close()


async def read(client: RegistryClient, size: int = len(BLOB), offset: int = 0) -> bytes:
    return b"".join([part async for part in client.blob(DIGEST, size, offset)])


def test_one_token_serves_many_requests_and_is_renewed_when_it_is_spent() -> None:
    async def script() -> None:
        async with FakeRegistry(token_auth=True, token_uses=3) as registry, transport() as sent:
            registry.add_blob("team/app", BLOB)
            client = RegistryClient(sent, reference.parse(f"{registry.host}/team/app"))
            for _ in range(5):
                assert await read(client) == BLOB
            assert len(registry.seen("GET", "/token")) == 2

    asyncio.run(script())


def test_requests_at_once_ask_for_one_token() -> None:
    async def script() -> None:
        async with FakeRegistry(token_auth=True) as registry, transport() as sent:
            registry.add_blob("app", BLOB)
            client = RegistryClient(sent, reference.parse(f"{registry.host}/app"))
            assert await asyncio.gather(*(read(client) for _ in range(8))) == [BLOB] * 8
            assert len(registry.seen("GET", "/token")) == 1

    asyncio.run(script())


def test_who_may_not_is_told_so() -> None:
    async def script() -> None:
        async with FakeRegistry(token_auth=True, users={"ann": "pw"}) as registry, transport() as sent:
            name = reference.parse(f"{registry.host}/app")
            wrong = RegistryClient(sent, name, Credentials("ann", "no"))
            with pytest.raises(Unauthorized, match="incorrect username or password"):
                await wrong.manifest()
            anonymous = RegistryClient(sent, name, push=True)
            with pytest.raises(Forbidden, match=r"^denied: requested access to the resource is denied$"):
                await anonymous.upload(DIGEST, len(BLOB), lambda: io.BytesIO(BLOB))
        async with FakeRegistry(basic_auth=True, users={"ann": "pw"}) as registry, transport() as sent:
            registry.add_blob("app", BLOB)
            name = reference.parse(f"{registry.host}/app")
            with pytest.raises(Unauthorized, match=r"^no basic auth credentials$"):
                await read(RegistryClient(sent, name))
            assert await read(RegistryClient(sent, name, ANN)) == BLOB

    asyncio.run(script())


def test_an_identity_token_is_enough() -> None:
    async def script() -> None:
        async with FakeRegistry(token_auth=True, private=True, users={"ann": "pw"}) as registry, transport() as sent:
            registry.add_blob("app", BLOB)
            name = reference.parse(f"{registry.host}/app")
            assert await read(RegistryClient(sent, name, Credentials(identity_token="identity-of-ann"))) == BLOB

    asyncio.run(script())


def test_authorization_does_not_follow_a_redirect_to_another_host() -> None:
    async def script() -> None:
        async with FakeRegistry(basic_auth=True, users={"ann": "pw"}) as registry, FakeRegistry() as cdn:
            async with transport() as sent:
                registry.add_blob("app", BLOB)
                cdn.add_blob("x", BLOB)
                target = {"Location": f"http://{cdn.host}/cdn/{DIGEST}"}
                registry.fail("blobs", *[Fault("status", status=307, headers=target)] * 2)
                client = RegistryClient(sent, reference.parse(f"{registry.host}/app"), ANN)
                assert await read(client) == BLOB
                assert registry.log[-1].authorization.startswith("Basic")
                assert [entry.authorization for entry in cdn.log] == [""]

    asyncio.run(script())


@pytest.mark.parametrize("location", ["file:///etc/passwd", "gopher://x/", "ftp://x/y"])
def test_redirects_to_where_nobody_should_go(location: str) -> None:
    async def script() -> None:
        async with FakeRegistry() as registry, transport() as sent:
            registry.fail("blobs", Fault("status", status=302, headers={"Location": location}))
            with pytest.raises(SystemFault, match="unsafe address"):
                await read(RegistryClient(sent, reference.parse(f"{registry.host}/app")))

    asyncio.run(script())


def test_a_redirect_in_a_circle_ends() -> None:
    async def script() -> None:
        async with FakeRegistry() as registry, transport() as sent:
            here = {"Location": f"/v2/app/blobs/{DIGEST}"}
            registry.fail("blobs", *[Fault("status", status=302, headers=here)] * 50)
            with pytest.raises(SystemFault, match="stopped after 10 redirects"):
                await read(RegistryClient(sent, reference.parse(f"{registry.host}/app")))

    asyncio.run(script())


def test_a_blob_from_the_middle_and_one_that_is_too_long() -> None:
    async def script() -> None:
        async with FakeRegistry() as registry, transport() as sent:
            registry.add_blob("app", BLOB)
            client = RegistryClient(sent, reference.parse(f"{registry.host}/app"))
            assert await read(client, offset=1000) == BLOB[1000:]
            assert await read(client, offset=len(BLOB)) == b""
            with pytest.raises(DataCorrupt, match="is longer than"):
                await read(client, size=len(BLOB) - 1)

    asyncio.run(script())


def test_mirrors_are_asked_in_order_and_are_not_told_who_the_user_is() -> None:
    async def script() -> None:
        async with FakeRegistry() as empty, FakeRegistry() as full:
            settings = RegistrySettings(mirrors=("http://127.0.0.1:1", f"http://{empty.host}", f"http://{full.host}"))
            async with transport(settings) as sent:
                full.add_blob("library/alpine", BLOB)
                full.fail("blobs", Fault("reset", after=1000))
                client = RegistryClient(sent, reference.parse("alpine"), ANN)
                assert await read(client) == BLOB
                assert {entry.authorization for entry in (*empty.log, *full.log)} == {""}
                assert [entry.range for entry in full.log] == ["", "bytes=1000-"]

    asyncio.run(script())


def test_manifests_are_bounded_and_compared() -> None:
    async def script() -> None:
        async with FakeRegistry() as registry, transport() as sent:
            name = reference.parse(f"{registry.host}/app")
            huge = b'{"schemaVersion":2,"manifests":[' + b" " * (9 << 20) + b"]}"
            registry.add_manifest("app", huge, oci.OCI_INDEX, "latest")
            with pytest.raises(SystemFault, match="longer than"):
                await RegistryClient(sent, name).manifest()
            small = b'{"schemaVersion":2,"manifests":[]}'
            wanted = registry.add_manifest("app", small, oci.OCI_INDEX)
            registry.fail(wanted, Fault("alter"))
            with pytest.raises(DataCorrupt, match="manifest verification failed"):
                await RegistryClient(sent, name).manifest(wanted)
            fetched = await RegistryClient(sent, name).manifest(wanted)
            assert (fetched.digest, fetched.media_type, fetched.data) == (wanted, oci.OCI_INDEX, small)

    asyncio.run(script())


def test_old_manifests_are_named() -> None:
    async def script() -> None:
        async with FakeRegistry() as registry, transport() as sent:
            registry.add_manifest("app", b'{"schemaVersion":1,"name":"app"}', oci.DOCKER_SCHEMA1_SIGNED, "latest")
            with pytest.raises(SystemFault, match="schema 1, which is no longer supported"):
                await RegistryClient(sent, reference.parse(f"{registry.host}/app")).manifest()

    asyncio.run(script())


def test_a_blob_is_uploaded_mounted_and_tried_again() -> None:
    async def script() -> None:
        async with FakeRegistry(token_auth=True, users={"ann": "pw"}) as registry, transport() as sent:
            client = RegistryClient(sent, reference.parse(f"{registry.host}/app"), ANN, push=True)
            registry.fail("blobs/uploads/upload", Fault("reset"))
            told: list[int] = []
            mounted = await client.upload(DIGEST, len(BLOB), lambda: io.BytesIO(BLOB), progress=told.append)
            assert not mounted
            assert registry.repositories["app"].blobs == {DIGEST: BLOB}
            assert told[-1] == len(BLOB)
            assert await client.has_blob(DIGEST)
            other = RegistryClient(sent, reference.parse(f"{registry.host}/other"), ANN, push=True)
            assert not await other.has_blob(DIGEST)
            assert await other.upload(DIGEST, len(BLOB), lambda: io.BytesIO(BLOB), mount_from="app")
            assert registry.repositories["other"].blobs == {DIGEST: BLOB}

    asyncio.run(script())
