"""The files of hosts.toml and certs.d are read beside the event loop: their disk may take its time."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from corten.clock import SystemClock
from corten.errors import CortenError, InvalidArgument
from corten.registry import hosts, trust
from corten.registry.auth import Credentials
from corten.registry.client import RegistryClient
from corten.registry.endpoints import RegistrySettings
from corten.registry.login import login
from corten.registry.search import search
from corten.registry.transport import Transport
from corten.specs import oci_image as oci
from corten.specs import reference
from corten.testing.registry import FakeRegistry

PATIENCE = 20.0
Work = Callable[[Transport, str], Awaitable[Any]]


class SlowDisk:
    """Stands before a function that reads: it goes on when the event loop has said so, which a blocked one cannot."""

    def __init__(self, real: Callable[..., Any]) -> None:
        self._real = real
        self.loop: asyncio.AbstractEventLoop | None = None
        self.waited = 0

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        assert self.loop is not None
        self.waited += 1
        go = threading.Event()
        self.loop.call_soon_threadsafe(go.set)
        assert go.wait(PATIENCE), "the event loop stands still while files are read"
        return self._real(*args, **kwargs)

    def run(self, script: Coroutine[Any, Any, None]) -> None:
        async def main() -> None:
            self.loop = asyncio.get_running_loop()
            await script

        asyncio.run(main())


@asynccontextmanager
async def transport(directory: Path) -> AsyncIterator[Transport]:
    opened = Transport(RegistrySettings(directories=(directory,)), SystemClock())
    try:
        yield opened
    finally:
        await opened.close()


async def pull(sent: Transport, host: str) -> None:
    await RegistryClient(sent, reference.parse(f"{host}/app")).tags()


async def push(sent: Transport, host: str) -> None:
    client = RegistryClient(sent, reference.parse(f"{host}/app"), push=True)
    await client.put_manifest("1", oci.OCI_MANIFEST, b"{}")


async def log_in(sent: Transport, host: str) -> None:
    await login(sent, host, Credentials())


async def look(sent: Transport, host: str) -> None:
    await search(sent, f"{host}/app", 5, Credentials())


@pytest.mark.parametrize("work", [pull, push, log_in, look])
def test_what_is_written_about_a_registry(work: Work, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = SlowDisk(hosts.read)
    monkeypatch.setattr(hosts, "read", disk)

    async def script() -> None:
        async with FakeRegistry() as registry, transport(tmp_path) as sent:
            registry.add_blob("app", b"x")
            with suppress(CortenError):  # what the registry answers is another matter: it was asked
                await work(sent, registry.host)
            assert registry.log

    disk.run(script())
    assert disk.waited


def test_it_is_read_once_for_many_requests_of_one_pull(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = SlowDisk(hosts.read)
    monkeypatch.setattr(hosts, "read", disk)

    async def script() -> None:
        async with transport(tmp_path) as sent:
            client = RegistryClient(sent, reference.parse("r.example/app"))
            found = await asyncio.gather(*(client.locate() for _ in range(5)))
            assert [endpoint.host for endpoint in found[0]] == ["r.example"]

    disk.run(script())
    assert disk.waited == 1


def test_whether_certificates_have_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = SlowDisk(trust._stamp)
    monkeypatch.setattr(trust, "_stamp", disk)
    missing = str(tmp_path / "missing.crt")

    async def script() -> None:
        contexts = trust.TlsContexts()
        with pytest.raises(InvalidArgument, match="cannot read"):
            await contexts.of(hosts.Trust((missing,)), verify=True)

    disk.run(script())
