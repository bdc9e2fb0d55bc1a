"""Pushing what was pulled or loaded, as it was."""

from __future__ import annotations

import asyncio
import json
import os
from typing import Any

import pytest

from corten.engine.images import ImageService
from corten.errors import Forbidden, NotFound
from corten.registry.endpoints import RegistrySettings
from corten.specs import digest as digests
from corten.specs import oci_image as oci
from corten.testing.registry import FakeRegistry, Fault
from tests.unit.engine.images.support import World, collect, describe, index_archive, make_image, publish, statuses
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


CHUNKED = RegistrySettings(stall_timeout=0.3, upload_chunk=1000)
LARGE: dict[str, bytes | str] = {"large": os.urandom(5000)}


def uploads(registry: FakeRegistry) -> list[str]:
    return [entry.method for entry in registry.log if "/blobs/uploads" in entry.path]


@pytest.mark.parametrize(
    ("faults", "lost", "expected"),
    [
        ([], 0, "POST PATCH PATCH PATCH PATCH PATCH PATCH PUT"),
        # Broken off at the third piece, of which a part has arrived: taken up where it broke.
        ([None, None, Fault("reset", after=300)], 0, "POST PATCH PATCH PATCH GET PATCH PATCH PATCH PUT"),
        # The registry has forgotten the upload: it is begun anew.
        ([None, Fault("reset", after=10)], 1, "POST PATCH PATCH GET POST PATCH PATCH PATCH PATCH PATCH PATCH PUT"),
        ([Fault("status", status=503)], 0, "POST PATCH GET PATCH PATCH PATCH PATCH PATCH PATCH PUT"),
    ],
    ids=["whole", "resumed", "lost", "busy"],
)
def test_a_large_blob_goes_in_pieces(faults: list[Fault | None], lost: int, expected: str) -> None:
    async def script() -> None:
        world, made = World(), make_image(LARGE)
        async with FakeRegistry() as source, FakeRegistry() as target, world.service(CHUNKED) as images:
            await collect(images.pull(publish(source, "app", made), "", None))
            await images.tag(f"{source.host}/app", f"{target.host}/app")
            # The config is small and there already.
            target.add_blob("app", made.config)
            target.losing_uploads = lost
            target.fail("/blobs/uploads/upload", *(fault or Fault("no-range") for fault in faults))
            told = await collect(images.push(f"{target.host}/app:latest", None))
            assert " ".join(uploads(target)) == expected
            assert target.repositories["app"].blobs[digests.of(made.layers[0])] == made.layers[0]
            assert statuses(told, digests.short(digests.of(made.layers[0])))[-1] == "Pushed"

    asyncio.run(script())


@pytest.mark.parametrize(
    ("fault", "lost", "expected"),
    [
        # A part of it has arrived: the rest goes after it.
        (Fault("reset", after=300), 0, "POST PUT GET PATCH PUT"),
        # Nothing has, or the registry has forgotten it, or does not say: all of it again.
        (Fault("reset"), 0, "POST PUT GET POST PUT"),
        (Fault("reset", after=300), 1, "POST PUT GET POST PUT"),
        (Fault("status", status=503), 0, "POST PUT GET POST PUT"),
    ],
    ids=["resumed", "nothing", "lost", "busy"],
)
def test_a_blob_in_one_piece_is_taken_up_where_it_broke(fault: Fault, lost: int, expected: str) -> None:
    async def script() -> None:
        world, made = World(), make_image(LARGE)
        async with FakeRegistry() as source, FakeRegistry() as target, world.service() as images:
            await collect(images.pull(publish(source, "app", made), "", None))
            await images.tag(f"{source.host}/app", f"{target.host}/app")
            target.add_blob("app", made.config)
            target.losing_uploads = lost
            target.fail("/blobs/uploads/upload", fault)
            told = await collect(images.push(f"{target.host}/app:latest", None))
            assert " ".join(uploads(target)) == expected
            assert target.repositories["app"].blobs[digests.of(made.layers[0])] == made.layers[0]
            assert statuses(told, digests.short(digests.of(made.layers[0])))[-1] == "Pushed"

    asyncio.run(script())


def test_what_a_registry_kept_wrong_is_sent_again() -> None:
    """It says that it has the beginning, and then that the whole is not what it should be."""

    async def script() -> None:
        world, made = World(), make_image(LARGE)
        async with FakeRegistry() as source, FakeRegistry() as target, world.service() as images:
            await collect(images.pull(publish(source, "app", made), "", None))
            await images.tag(f"{source.host}/app", f"{target.host}/app")
            target.add_blob("app", made.config)
            invalid = Fault("status", status=400, body='{"errors": [{"code": "DIGEST_INVALID", "message": "no"}]}')
            passed = Fault("no-range")
            target.fail("/blobs/uploads/upload", Fault("reset", after=300), passed, passed, invalid)
            await collect(images.push(f"{target.host}/app:latest", None))
            assert " ".join(uploads(target)) == "POST PUT GET PATCH PUT POST PUT"
            assert target.repositories["app"].blobs[digests.of(made.layers[0])] == made.layers[0]

    asyncio.run(script())


def test_all_tags_are_pushed_and_each_blob_once() -> None:
    async def script() -> None:
        world, made, other = World(), make_image(BASE), make_image(BASE, TOP)
        async with FakeRegistry() as source, FakeRegistry() as target, world.service() as images:
            await collect(images.pull(publish(source, "app", made, "1"), "", None))
            await collect(images.pull(publish(source, "app", other, "2"), "", None))
            for tag in ("1", "2"):
                await images.tag(f"{source.host}/app:{tag}", f"{target.host}/team/app:{tag}")
            world.events.seen.clear()
            told = await collect(images.push(f"{target.host}/team/app", None))
            tags = [message["aux"]["Tag"] for message in told if "aux" in message]
            assert tags == ["1", "2"]
            assert set(target.repositories["team/app"].manifests) == {"1", "2", made.digest, other.digest}
            assert uploads(target).count("POST") == 4  # two layers, two configs
            assert [attributes["name"] for action, _, attributes in world.events.seen if action == "push"] == [
                f"{target.host}/team/app"
            ] * 2
            # Known from now on by the digests that the registry has them under, without having been tagged anew.
            for tag, pushed in (("1", made), ("2", other)):
                name = f"{target.host}/team/app"
                assert f"{name}@{pushed.digest}" in images.get(f"{name}:{tag}").digests
                assert images.get(f"{name}@{pushed.digest}").id == pushed.id
            with pytest.raises(NotFound, match=f"^tag does not exist: {target.host}/team/app:3$"):
                await collect(images.push(f"{target.host}/team/app:3", None))
            with pytest.raises(NotFound, match="An image does not exist locally with the tag: nothing/here"):
                await collect(images.push("nothing/here", None))

    asyncio.run(script())


async def pushed(images: ImageService, registry: FakeRegistry, platform: str = "") -> list[dict[str, Any]]:
    await images.tag("multi:1", f"{registry.host}/multi:1")
    told = await collect(images.push(f"{registry.host}/multi:1", None, platform))
    return [message["aux"] for message in told if "aux" in message]


def test_one_platform_is_pushed_where_the_others_are_missing_and_that_is_told() -> None:
    async def script() -> None:
        world, made = World(), make_image(BASE, architecture="arm64")
        archive, index = index_archive((made, "arm64"), name="docker.io/library/multi:1", absent=["s390x"])
        async with FakeRegistry() as target, world.service() as images:
            await load(images, archive)
            told = await pushed(images, target)
            assert told[0]["Digest"] == made.digest
            assert told[1]["manifestPushedInsteadOfIndex"] is True
            assert told[1]["originalIndex"]["digest"] == digests.of(index)
            assert told[1]["selectedManifest"]["digest"] == made.digest
            assert target.repositories["multi"].manifests["1"][1] == made.manifest

    asyncio.run(script())


def test_several_platforms_but_not_all() -> None:
    async def script() -> None:
        world, made, other = World(), make_image(BASE, architecture="arm64"), make_image(TOP, architecture="amd64")
        archive, index = index_archive(
            (made, "arm64"), (other, "amd64"), name="docker.io/library/multi:1", absent=["s390x"]
        )
        async with FakeRegistry() as target, world.service() as images:
            await load(images, archive)
            with pytest.raises(NotFound, match="missing content"):
                await pushed(images, target)
            assert (await pushed(images, target, "linux/arm64"))[0]["Digest"] == made.digest
            assert target.repositories["multi"].manifests["1"][1] == made.manifest
            # What is not here may be there already.
            target.add_manifest("multi", b"s390x", oci.OCI_MANIFEST)
            assert (await pushed(images, target))[0]["Digest"] == digests.of(index)
            assert target.repositories["multi"].manifests["1"] == (oci.OCI_INDEX, index)
            assert {made.digest, other.digest} <= set(target.repositories["multi"].manifests)
            with pytest.raises(NotFound, match="does not provide the specified platform"):
                await pushed(images, target, "linux/riscv64")

    asyncio.run(script())
