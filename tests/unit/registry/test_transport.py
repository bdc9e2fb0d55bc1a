"""How registries are reached: TLS, proxies, hosts.toml, token servers elsewhere; and whom we do not tell who we are."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import uvloop

from corten.clock import SystemClock
from corten.errors import InvalidArgument, NotFound, SystemFault, Unauthorized, Unavailable
from corten.registry.auth import Credentials
from corten.registry.client import RegistryClient
from corten.registry.endpoints import RegistrySettings
from corten.registry.proxies import Proxies, ProxySettings
from corten.registry.transport import Transport
from corten.specs import digest as digests
from corten.specs import oci_image as oci
from corten.specs import reference
from corten.testing.proxy import FakeProxy
from corten.testing.registry import FakeRegistry, Fault, Place
from tests.certificates import Authority

BLOB = bytes(range(256)) * 300
DIGEST = digests.of(BLOB)
MANIFEST = b'{"schemaVersion":2,"manifests":[]}'
ANN = Credentials("ann", "hunter2")
USERS = {"ann": "hunter2"}
# A name that is no loopback address to us and that every proxy and test resolver may be told about.
NAME = "registry.test:5000"


class EagerClock(SystemClock):
    def __init__(self) -> None:
        self.pauses: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)


@asynccontextmanager
async def transport(clock: SystemClock | None = None, **settings: Any) -> AsyncIterator[Transport]:
    opened = Transport(RegistrySettings(stall_timeout=5, **settings), clock or EagerClock())
    try:
        yield opened
    finally:
        await opened.close()


async def read(sent: Transport, host: str, credentials: Credentials | None = None, name: str = "app") -> bytes:
    client = RegistryClient(sent, reference.parse(f"{host}/{name}"), credentials)
    return b"".join([part async for part in client.blob(DIGEST, len(BLOB))])


def run(script: Coroutine[Any, Any, None]) -> None:
    """On the loop that the daemon has: TLS and tunnels are made in other ways than by asyncio's own."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(script)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    made = Authority(tmp_path_factory.mktemp("authority"))
    made.issue("server", subjects="DNS:registry.test,IP:127.0.0.1,IP:::1")
    made.issue("client")
    return made


def tls(authority: Authority, *, client: bool = False) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority.directory / "server.cert", authority.directory / "server.key")
    if client:
        context.load_verify_locations(authority.ca)
        context.verify_mode = ssl.CERT_REQUIRED
        # With 1.3 the refusal comes after the handshake, and may be lost with the connection.
        context.maximum_version = ssl.TLSVersion.TLSv1_2
    return context


def certs(tmp_path: Path, host: str, **files: Path) -> Path:
    """A certs.d with copies of `files`, ca="…" as ca.crt."""
    place = tmp_path / "certs.d" / host
    place.mkdir(parents=True)
    for name, source in files.items():
        (place / name.replace("_", ".")).write_bytes(source.read_bytes())
    return place.parent


def test_an_authority_of_its_own(authority: Authority, tmp_path: Path) -> None:
    async def script() -> None:
        async with FakeRegistry(place=Place(tls=tls(authority))) as registry:
            registry.add_blob("app", BLOB)
            directories = (certs(tmp_path, registry.host, ca_crt=authority.ca),)
            async with transport(directories=directories) as sent:
                assert await read(sent, registry.host) == BLOB
                Authority(tmp_path, "another").ca.rename(directories[0] / registry.host / "ca.crt")
                with pytest.raises(Unavailable, match="tls: failed to verify certificate"):
                    await read(sent, registry.host)

    run(script())


def test_without_its_authority_a_registry_is_not_believed_at_once(authority: Authority, tmp_path: Path) -> None:
    async def script() -> None:
        async with FakeRegistry(place=Place(tls=tls(authority))) as registry:
            place = certs(tmp_path, registry.host) / registry.host / "hosts.toml"
            place.write_text(f'server = "https://{registry.host}"\n')
            clock = EagerClock()
            async with transport(clock, directories=(tmp_path / "certs.d",)) as sent:
                with pytest.raises(Unavailable, match="tls: failed to verify certificate"):
                    await read(sent, registry.host, ANN)
                assert clock.pauses == []
                place.write_text(f'server = "https://{registry.host}"\nskip_verify = true\n')
                registry.add_blob("app", BLOB)
                assert await read(sent, registry.host) == BLOB

    run(script())


@pytest.mark.parametrize("loop", [asyncio.run, uvloop.run])
def test_a_registry_without_tls_that_was_to_have_it_is_told_at_once(loop: Any, tmp_path: Path) -> None:
    async def script() -> None:
        async with FakeRegistry() as registry:
            place = certs(tmp_path, registry.host) / registry.host / "hosts.toml"
            place.write_text(f'server = "https://{registry.host}"\n')
            clock = EagerClock()
            async with transport(clock, directories=(tmp_path / "certs.d",)) as sent:
                with pytest.raises(Unavailable, match="http: server gave HTTP response to HTTPS client"):
                    await read(sent, registry.host)
            assert clock.pauses == []

    loop(script())


def test_a_client_certificate_is_for_the_registry_alone(authority: Authority, tmp_path: Path) -> None:
    async def script() -> None:
        strict = Place(tls=tls(authority, client=True))
        async with FakeRegistry(place=strict) as registry, FakeRegistry(place=strict) as cdn:
            registry.add_blob("app", BLOB)
            cdn.add_blob("x", BLOB)
            mine = {"me_cert": authority.directory / "client.cert", "me_key": authority.directory / "client.key"}
            directories = (certs(tmp_path, registry.host, ca_crt=authority.ca, **mine),)
            async with transport(directories=directories) as sent:
                assert await read(sent, registry.host) == BLOB
                target = {"Location": f"https://{cdn.host}/cdn/{DIGEST}"}
                registry.fail("blobs", *[Fault("status", status=307, headers=target)] * 5)
                with pytest.raises(Unavailable, match=r"the connection was closed|remote error: tls"):
                    await read(sent, registry.host)
                assert cdn.log == []
                (directories[0] / registry.host / "me.key").write_text("nonsense")
                with pytest.raises(InvalidArgument, match=r"me\.cert and .*me\.key are no certificate with its key"):
                    await read(sent, registry.host)

    run(script())


def test_mirrors_for_any_registry_with_their_headers(tmp_path: Path) -> None:
    async def script() -> None:
        async with FakeRegistry() as mirror, FakeRegistry(basic_auth=True, users=USERS) as registry:
            registry.add_manifest("app", MANIFEST, oci.OCI_INDEX, "latest")
            mirror.add_blob("app", BLOB)
            place = certs(tmp_path, registry.host) / registry.host
            (place / "hosts.toml").write_text(
                f'server = "http://{registry.host}"\n[host."http://127.0.0.1:1"]\n'
                f'[host."http://{mirror.host}"]\ncapabilities = ["pull"]\n'
                f'[host."http://{mirror.host}".header]\nx-team = "blue"\n'
            )
            async with transport(directories=(tmp_path / "certs.d",)) as sent:
                client = RegistryClient(sent, reference.parse(f"{registry.host}/app"), ANN)
                await client.manifest()
                assert mirror.log == []  # it may not say what a tag stands for
                assert await read(sent, registry.host, ANN) == BLOB
                (seen,) = mirror.log
                assert seen.path == f"/v2/app/blobs/{DIGEST}?ns={registry.host}"
                assert mirror.headers[0]["x-team"] == "blue"
                assert {fields.get("x-team") for fields in registry.headers} == {None}
                assert seen.authorization == ""
                mirror.repositories.clear()
                with pytest.raises(NotFound, match="blob unknown"):
                    await read(sent, registry.host, ANN)

    run(script())


def test_an_address_of_version_6() -> None:
    async def script() -> None:
        async with FakeRegistry(place=Place("::1"), token_auth=True, users=USERS) as registry, transport() as sent:
            assert registry.host.startswith("[::1]:")
            registry.add_blob("deep/er/app", BLOB)
            assert await read(sent, registry.host, ANN, "deep/er/app") == BLOB

    run(script())


# -- who is told who we are --------------------------------------------------------------------------------------------


def test_a_token_server_elsewhere() -> None:
    async def script() -> None:
        async with FakeRegistry(token_auth=True, users=USERS, private=True) as server:
            async with FakeRegistry(token_auth=True, place=Place(realm=server.realm)) as registry, transport() as sent:
                registry.tokens = server.tokens
                registry.add_blob("app", BLOB)
                assert await read(sent, registry.host, ANN) == BLOB
                assert [entry.authorization[:7] for entry in registry.log] == ["", "Bearer "]
                assert [entry.authorization[:6] for entry in server.log] == ["Basic "]

    run(script())


def test_what_goes_with_tls_does_not_go_without(authority: Authority) -> None:
    """An insecure registry that was reached by TLS may name a token server without, or redirect to itself without."""

    async def script() -> None:
        async with FakeRegistry(token_auth=True, users=USERS) as plain:
            place = Place(tls=tls(authority), realm=plain.realm)
            async with FakeRegistry(token_auth=True, place=place) as registry, transport() as sent:
                with pytest.raises(Unauthorized, match="unsafe token server"):
                    await read(sent, registry.host, ANN)
                assert plain.log == []
        async with FakeRegistry(basic_auth=True, users=USERS, place=Place(tls=tls(authority))) as registry:
            async with transport() as sent:
                location = {"Location": f"http://{registry.host}/v2/app/blobs/{DIGEST}"}
                registry.fail("blobs", *[Fault("status", status=307, headers=location)] * 5)
                with pytest.raises(Unavailable):
                    await read(sent, registry.host, ANN)
                assert len(registry.log) == 6

    run(script())


def test_a_plain_redirect_from_a_registry_with_tls_is_refused(authority: Authority, tmp_path: Path) -> None:
    async def script() -> None:
        async with FakeRegistry(place=Place(tls=tls(authority))) as registry, FakeRegistry() as plain:
            directories = (certs(tmp_path, registry.host, ca_crt=authority.ca),)
            location = {"Location": f"http://{plain.host}/cdn/{DIGEST}"}
            registry.fail("blobs", Fault("status", status=307, headers=location))
            async with transport(directories=directories) as sent:
                with pytest.raises(SystemFault, match="redirects to an unsafe address"):
                    await read(sent, registry.host)
            assert plain.log == []

    run(script())


def test_a_token_server_that_sends_us_on_hears_no_secret_twice() -> None:
    async def script() -> None:
        async with FakeRegistry(token_auth=True, users=USERS) as registry, FakeRegistry(token_auth=True) as other:
            async with transport() as sent:
                registry.add_blob("app", BLOB)
                registry.fail("/token", *[Fault("status", status=302, headers={"Location": f"{other.realm}?x"})] * 3)
                with pytest.raises(Unauthorized):
                    await read(sent, registry.host, ANN)
                assert {entry.authorization for entry in other.log} == {""}
                other.log.clear()
                registry.fail("/token", Fault("status", status=307, headers={"Location": other.realm}))
                with pytest.raises(Unauthorized, match="sends us on to another one"):
                    await read(sent, registry.host, Credentials(identity_token="identity-of-ann"))
                assert other.log == []
                registry.fail(
                    "/token", Fault("status", status=307, headers={"Location": "/token?scope=repository:app:pull"})
                )
                assert await read(sent, registry.host, ANN) == BLOB

    run(script())


def test_a_token_server_that_is_busy() -> None:
    async def script() -> None:
        busy = Fault("status", status=429, headers={"Retry-After": "7"})
        async with FakeRegistry(token_auth=True) as registry:
            registry.add_blob("app", BLOB)
            registry.fail("/token", busy, busy)
            clock = EagerClock()
            async with transport(clock) as sent:
                assert await read(sent, registry.host) == BLOB
            assert clock.pauses == [7.0, 7.0]
            registry.fail("/token", Fault("status", status=429, headers={"Retry-After": "99999999"}))
            clock = EagerClock()
            async with transport(clock) as sent:
                with pytest.raises(Unavailable, match=r"failed to fetch a token.*unexpected status 429"):
                    await read(sent, registry.host)
            assert clock.pauses == []

    run(script())


def test_tokens_of_one_host_are_kept_apart_by_its_paths(tmp_path: Path) -> None:
    async def script() -> None:
        async with transport() as sent:
            first = sent.settings.registry("r.example")
            from dataclasses import replace

            assert sent._auth(first, ANN) is sent._auth(first, ANN)
            assert sent._auth(first, ANN) is not sent._auth(replace(first, prefix="/other"), ANN)
            assert sent._auth(first, ANN) is not sent._auth(first, Credentials("bob", "pw"))

    run(script())


# -- proxies -----------------------------------------------------------------------------------------------------------


def through(proxy: str, no_proxy: str = "") -> Proxies:
    return Proxies(ProxySettings(proxy, proxy, no_proxy))


def test_through_a_proxy_that_wants_to_know_us(authority: Authority, tmp_path: Path) -> None:
    async def script() -> None:
        async with FakeRegistry(place=Place(tls=tls(authority))) as secure, FakeRegistry() as plain:
            secure.add_blob("app", BLOB)
            plain.add_blob("app", BLOB)
            names = {NAME: secure.host, "plain.test": plain.host}
            directories = (certs(tmp_path, NAME, ca_crt=authority.ca),)
            async with FakeProxy(user="me:p@ss", names=names) as proxy:
                options: dict[str, Any] = {"directories": directories, "insecure": ("plain.test:80",)}
                async with transport(proxies=through(f"http://me:p%40ss@{proxy.host}"), **options) as sent:
                    assert await read(sent, NAME) == BLOB
                    assert proxy.seen == [("CONNECT", NAME)]
                async with transport(proxies=through(f"http://me:wrong@{proxy.host}"), **options) as sent:
                    with pytest.raises(
                        Unavailable, match=r'"https://registry\.test:5000/v2/.*": Proxy Auth.* Req'
                    ) as caught:
                        await read(sent, NAME)
                    assert "wrong" not in str(caught.value)
                    assert sent._clock.pauses == []  # type: ignore[attr-defined]

    run(script())


def test_a_tunnel_through_a_proxy_with_tls(authority: Authority, tmp_path: Path) -> None:
    async def script() -> None:
        async with FakeRegistry(place=Place(tls=tls(authority))) as registry:
            registry.add_blob("app", BLOB)
            directories = (certs(tmp_path, NAME, ca_crt=authority.ca),)
            async with FakeProxy(user="me:pw", names={NAME: registry.host}, tls=tls(authority)) as proxy:
                async with transport(proxies=through(f"https://me:pw@{proxy.host}"), directories=directories) as sent:
                    assert await read(sent, NAME) == BLOB
                assert proxy.seen == [("CONNECT", NAME)]

    run(script())


def test_plain_requests_go_through_a_proxy_too(tmp_path: Path) -> None:
    async def script() -> None:
        async with FakeRegistry() as registry, FakeProxy(user="me:pw", names={"plain.test": registry.host}) as proxy:
            registry.add_blob("app", BLOB)
            place = certs(tmp_path, "plain.test") / "plain.test"
            (place / "hosts.toml").write_text('server = "http://plain.test:80"\n')
            async with transport(proxies=through(f"me:pw@{proxy.host}"), directories=(tmp_path / "certs.d",)) as sent:
                assert await read(sent, "plain.test") == BLOB
            assert proxy.seen == [("GET", f"http://plain.test/v2/app/blobs/{DIGEST}")]
            assert not any("proxy-authorization" in fields for fields in registry.headers)

    run(script())


def test_a_proxy_that_is_not_there_and_one_that_is_passed_by() -> None:
    async def script() -> None:
        clock = EagerClock()
        async with transport(clock, proxies=through("http://me:hunter2@127.0.0.1:1")) as sent:
            with pytest.raises(Unavailable, match=r"proxyconnect tcp: dial tcp 127\.0\.0\.1:1: connect: ") as caught:
                await read(sent, NAME)
            assert "hunter2" not in str(caught.value)
            assert clock.pauses == []
            async with FakeRegistry() as registry:
                registry.add_blob("app", BLOB)
                assert await read(sent, registry.host) == BLOB

    run(script())
