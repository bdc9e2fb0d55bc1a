"""The client against a registry in this process: tokens, redirects, mirrors, uploads."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from corten.clock import SystemClock
from corten.errors import DataCorrupt, Forbidden, InvalidArgument, NotFound, SystemFault, Unauthorized, Unavailable
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


@pytest.mark.parametrize("fault", [Fault("status", status=416), Fault("wrong-range"), Fault("no-range")])
def test_a_range_that_is_not_to_be_had_is_cut_out_of_the_whole(fault: Fault) -> None:
    async def script() -> None:
        async with FakeRegistry() as registry, transport() as sent:
            registry.add_blob("app", BLOB)
            registry.fail("blobs", fault)
            assert await read(RegistryClient(sent, reference.parse(f"{registry.host}/app")), offset=1000) == BLOB[1000:]
            again = [] if fault.kind == "no-range" else [""]
            assert [entry.range for entry in registry.log] == ["bytes=1000-", *again]

    asyncio.run(script())


def test_what_breaks_is_named_by_where_it_broke_but_not_by_its_signature() -> None:
    async def script() -> None:
        async with FakeRegistry() as registry, FakeRegistry() as cdn, transport() as sent:
            registry.add_blob("app", BLOB)
            cdn.add_blob("x", BLOB)
            client = RegistryClient(sent, reference.parse(f"{registry.host}/app"))
            registry.fail("blobs", *[Fault("reset")] * 9)
            with pytest.raises(Unavailable, match=f'^Get "http://{registry.host}/v2/app/blobs/{DIGEST}": '):
                await read(client)
            registry._faults.clear()
            target = {"Location": f"http://{cdn.host}/cdn/{DIGEST}?signature=secret"}
            registry.fail("blobs", *[Fault("status", status=307, headers=target)] * 9)
            cdn.fail("cdn", *[Fault("reset")] * 9)
            with pytest.raises(Unavailable, match=f'^Get "http://{cdn.host}/cdn/{DIGEST}": ') as caught:
                await read(client)
            assert "secret" not in str(caught.value)

    asyncio.run(script())


def test_nobody_but_the_registry_is_told_who_we_are() -> None:
    """A host that the registry sends us on to may say 401 and name a token server: its own."""

    async def script() -> None:
        async with FakeRegistry(basic_auth=True, users={"ann": "pw"}) as registry, FakeRegistry() as evil:
            async with transport() as sent:
                registry.add_blob("app", BLOB)
                evil.add_blob("x", BLOB)
                target = {"Location": f"http://{evil.host}/cdn/{DIGEST}"}
                registry.fail("blobs", *[Fault("status", status=307, headers=target)] * 9)
                for ask in ('Basic realm="x"', f'Bearer realm="http://{evil.host}/token"'):
                    evil.fail("cdn", Fault("status", status=401, headers={"Www-Authenticate": ask}))
                    with pytest.raises(Unauthorized):
                        await read(RegistryClient(sent, reference.parse(f"{registry.host}/app"), ANN))
                assert {(entry.path, entry.authorization) for entry in evil.log} == {(f"/cdn/{DIGEST}", "")}

    asyncio.run(script())


def test_a_blob_that_the_registry_has_not_comes_from_its_urls() -> None:
    async def script() -> None:
        async with FakeRegistry(basic_auth=True, users={"ann": "pw"}) as registry, FakeRegistry() as other:
            async with transport() as sent:
                registry.add_blob("app", b"something else")
                other.add_blob("x", BLOB)
                client = RegistryClient(sent, reference.parse(f"{registry.host}/app"), ANN)
                urls = ["file:///etc/passwd", f"http://{other.host}/nothing", f"http://{other.host}/cdn/{DIGEST}"]
                other.fail("cdn", Fault("reset", after=1000))
                assert b"".join([part async for part in client.blob(DIGEST, len(BLOB), urls=urls)]) == BLOB
                assert {entry.authorization for entry in other.log} == {""}
                with pytest.raises(NotFound):
                    await read(client)

    asyncio.run(script())


def test_all_tags_page_by_page() -> None:
    async def script() -> None:
        async with FakeRegistry(token_auth=True) as registry, transport() as sent:
            registry.tags_page = 2
            for tag in ("c", "a", "b", "e", "d"):
                registry.add_manifest("app", b"{}", oci.OCI_INDEX, tag)
            assert await RegistryClient(sent, reference.parse(f"{registry.host}/app")).tags() == list("abcde")
            assert len(registry.seen("GET", "tags/list")) == 4  # the first one was without a token
            with pytest.raises(NotFound, match="repository name not known"):
                await RegistryClient(sent, reference.parse(f"{registry.host}/nothing")).tags()

    asyncio.run(script())


def test_a_manifest_that_is_another_than_the_registry_says() -> None:
    async def script() -> None:
        async with FakeRegistry() as registry, transport() as sent:
            said = registry.add_manifest("app", b'{"schemaVersion":2,"manifests":[]}', oci.OCI_INDEX, "latest")
            registry.fail("latest", Fault("alter"))
            with pytest.raises(DataCorrupt, match=f"manifest verification failed for digest {said}: the registry sent"):
                await RegistryClient(sent, reference.parse(f"{registry.host}/app")).manifest()

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
            with pytest.raises(InvalidArgument, match="schema 1, which is no longer supported"):
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


def test_a_blob_is_taken_over_or_the_upload_is_given_up() -> None:
    async def script() -> None:
        async with FakeRegistry(token_auth=True, users={"ann": "pw"}) as registry, transport() as sent:
            registry.add_blob("app", BLOB)
            client = RegistryClient(sent, reference.parse(f"{registry.host}/other"), ANN, push=True)
            registry.mounting = False
            assert not await client.mount(DIGEST, "app")
            assert len({entry.path for entry in registry.seen("DELETE", "/v2/other/blobs/uploads/")}) == 1
            registry.mounting = True
            assert not await client.mount(DIGEST, "nothing")
            assert await client.mount(DIGEST, "app")
            assert registry.repositories["other"].blobs == {DIGEST: BLOB}
            registry.mounting = False
            assert await client.mount(DIGEST, "app"), "it has it already"
            assert len({entry.path for entry in registry.seen("DELETE", "/v2/other/blobs/uploads/")}) == 3
            assert not registry.seen("PUT", "")
            scopes = {scope for scope, _ in registry.tokens.values()}
            assert any("repository:app:pull" in scope and "repository:other:pull,push" in scope for scope in scopes)

    asyncio.run(script())
