"""What a name stands for at its registry, and searching one."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from corten.engine.models import RegistryAuth
from corten.engine.registries import RegistryService
from corten.errors import InvalidArgument, NotFound, SystemFault
from corten.registry.endpoints import RegistrySettings
from corten.registry.search import split
from corten.registry.transport import Transport
from corten.specs import digest as digests
from corten.specs import oci_image as oci
from corten.testing.registry import FakeRegistry
from tests.unit.engine.images.support import EagerClock, index_archive, make_image, publish


@asynccontextmanager
async def service() -> AsyncIterator[RegistryService]:
    transport = Transport(RegistrySettings(stall_timeout=0.3), EagerClock())
    try:
        yield RegistryService(transport)
    finally:
        await transport.close()


def test_what_a_name_stands_for() -> None:
    async def script() -> None:
        one, two = make_image({"a": "1"}, architecture="arm64"), make_image({"b": "2"}, architecture="amd64")
        async with FakeRegistry() as registry, service() as registries:
            told = await registries.distribution(publish(registry, "app", one), None)
            assert told == {
                "Descriptor": {"mediaType": oci.OCI_MANIFEST, "digest": one.digest, "size": len(one.manifest)},
                "Platforms": [{"architecture": "arm64", "os": "linux"}],
            }
            _, index = index_archive((one, "arm64"), (two, "amd64"))
            registry.add_manifest("app", index, oci.OCI_INDEX, "both")
            told = await registries.distribution(f"{registry.host}/app:both", None)
            assert told["Descriptor"]["digest"] == digests.of(index)
            assert [platform["architecture"] for platform in told["Platforms"]] == ["arm64", "amd64"]
            chart = json.loads(one.manifest)
            chart["config"]["mediaType"] = "application/vnd.cncf.helm.config.v1+json"
            registry.add_manifest("app", json.dumps(chart).encode(), oci.OCI_MANIFEST, "chart")
            assert (await registries.distribution(f"{registry.host}/app:chart", None))["Platforms"] == []
            with pytest.raises(NotFound, match="manifest unknown"):
                await registries.distribution(f"{registry.host}/app:none", None)

    asyncio.run(script())


ENTRIES = [
    {"name": "busybox", "description": "small", "star_count": 30, "is_official": True},
    {"name": "me/busybox", "description": "", "star_count": 3, "is_official": False, "is_automated": True},
]


@pytest.mark.parametrize(("limit", "names"), [(0, ["busybox", "me/busybox"]), (1, ["busybox"])])
def test_search(limit: int, names: list[str]) -> None:
    async def script() -> None:
        async with FakeRegistry(basic_auth=True, users={"me": "secret"}) as registry, service() as registries:
            registry.found = list(ENTRIES)
            auth = RegistryAuth("me", "secret")
            found = await registries.search(f"{registry.host}/busy box", limit, auth)
            assert [entry["name"] for entry in found] == names
            assert f"/v1/search?q=busy+box&n={limit or 25}" in {entry.path for entry in registry.log}

    asyncio.run(script())


def test_a_search_for_too_many() -> None:
    async def script() -> None:
        async with FakeRegistry() as registry, service() as registries:
            with pytest.raises(InvalidArgument, match=r"limit 101 is outside the range of \[1, 100\]"):
                await registries.search(f"{registry.host}/x", 101, None)
            assert registry.log == []

    asyncio.run(script())


def test_a_registry_that_cannot_search() -> None:
    async def script() -> None:
        async with FakeRegistry() as registry, service() as registries:
            registry.found = [{"name": 1}]
            with pytest.raises(SystemFault, match="search at"):
                await registries.search(f"{registry.host}/x", 0, None)

    asyncio.run(script())


def test_where_a_term_is_looked_for() -> None:
    assert split("busybox") == ("docker.io", "busybox")
    assert split("library/busybox") == ("docker.io", "busybox")
    assert split("me/busybox") == ("docker.io", "me/busybox")
    assert split("index.docker.io/me/x") == ("docker.io", "me/x")
    assert split("localhost/x") == ("localhost", "x")
    assert split("registry.example:5000/a/b") == ("registry.example:5000", "a/b")
    for bad in ("https://x/y", "registry.example/"):
        with pytest.raises(InvalidArgument):
            split(bad)
