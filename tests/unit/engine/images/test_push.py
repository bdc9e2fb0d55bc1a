"""Pushing what was pulled or loaded, as it was."""

from __future__ import annotations

import asyncio
import json

import pytest

from corten.errors import Forbidden, NotFound
from corten.specs import digest as digests
from corten.specs import oci_image as oci
from corten.testing.registry import FakeRegistry, Fault
from tests.unit.engine.images.support import World, collect, describe, make_image, publish, statuses
from tests.unit.engine.images.test_archives import BASE, TOP, docker_archive, load


def test_what_was_pulled_is_pushed_byte_for_byte() -> None:
    async def script() -> None:
        world, made = World(), make_image(BASE, TOP, docker=True)
        async with FakeRegistry() as source, FakeRegistry() as target, world.service() as images:
            await collect(images.pull(publish(source, "app", made), "", None))
            name = f"{target.host}/team/app"
            await images.tag(f"{source.host}/app", f"{name}:1")
            target.fail("/blobs/uploads/upload", Fault("reset"))
            told = await collect(images.push(f"{name}:1", None))
            assert told[0] == {"status": f"The push refers to repository [{name}]"}
            for layer in made.layers:
                assert statuses(told, digests.short(digests.of(layer)))[-1] == "Pushed"
            size = len(made.manifest)
            assert told[-2] == {"status": f"1: digest: {made.digest} size: {size}"}
            assert told[-1]["aux"] == {"Tag": "1", "Digest": made.digest, "Size": size}
            pushed = target.repositories["team/app"]
            assert pushed.manifests["1"] == (oci.DOCKER_MANIFEST, made.manifest)
            assert pushed.blobs == source.repositories["app"].blobs
            target.log.clear()
            again = await collect(images.push(f"{name}:1", None))
            assert statuses(again, digests.short(digests.of(made.layers[0])))[-1] == "Layer already exists"
            assert not target.seen("POST", "")
            await images.tag(f"{name}:1", f"{target.host}/other")
            mounted = await collect(images.push(f"{target.host}/other", None))
            assert statuses(mounted, digests.short(digests.of(made.layers[0])))[-1] == "Mounted from team/app"

    asyncio.run(script())


def test_an_index_is_pushed_when_all_of_it_is_here() -> None:
    async def script() -> None:
        world, made = World(), make_image(BASE)
        other = make_image(TOP, architecture="arm64")
        async with FakeRegistry() as source, FakeRegistry() as target, world.service() as images:
            publish(source, "app", made, "one")
            publish(source, "app", other, "two")
            entries = [
                describe(m.manifest, oci.OCI_MANIFEST, platform={"os": "linux", "architecture": a})
                for m, a in ((made, "amd64"), (other, "arm64"))
            ]
            index = json.dumps({"schemaVersion": 2, "mediaType": oci.OCI_INDEX, "manifests": entries}).encode()
            source.add_manifest("app", index, oci.OCI_INDEX, "latest")
            await collect(images.pull(f"{source.host}/app", "linux/amd64", None))
            await images.tag(f"{source.host}/app", f"{target.host}/app")
            await collect(images.push(f"{target.host}/app", None))
            assert target.repositories["app"].manifests["latest"][1] == made.manifest
            await collect(images.pull(f"{source.host}/app", "linux/arm64", None))
            await images.tag(f"{source.host}/app", f"{target.host}/app")
            await collect(images.push(f"{target.host}/app", None))
            assert target.repositories["app"].manifests["latest"][1] == index

    asyncio.run(script())


def test_what_cannot_be_pushed() -> None:
    async def script() -> None:
        world, made = World(), make_image(BASE)
        async with FakeRegistry(token_auth=True) as registry, world.service() as images:
            await load(images, docker_archive(made, [f"{registry.host}/x:1"]))
            with pytest.raises(NotFound, match=r"^An image does not exist locally with the tag: nope$"):
                await collect(images.push("nope", None))
            with pytest.raises(Forbidden, match=r"^denied: requested access to the resource is denied$"):
                await collect(images.push(f"{registry.host}/x:1", None))

    asyncio.run(script())
