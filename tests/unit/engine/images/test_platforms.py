"""Images of several platforms under one name: loaded, shown, saved and removed together, or one by one."""

from __future__ import annotations

import asyncio
import io
import json
import os
import tarfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest

from corten.engine.images import ImageService
from corten.errors import Conflict, InvalidArgument, NotFound
from corten.specs import digest as digests
from corten.specs import oci_image as oci
from corten.specs import platform as platforms
from tests.unit.engine.images.support import World, collect, describe, index_archive, make_image, pieces, tar_of
from tests.unit.engine.images.test_archives import BASE, TOP, load

HERE = platforms.host().architecture
THERE = "s390x" if HERE != "s390x" else "amd64"
OWN, OTHER = make_image(BASE, architecture=HERE), make_image(BASE, TOP, architecture=THERE)
ARCHIVE, INDEX = index_archive((OTHER, THERE), (OWN, HERE), name="docker.io/library/multi:1", absent=["mips64le"])


THIRD = make_image(TOP, architecture="riscv64")
SECOND, _ = index_archive((OWN, HERE), (THIRD, "riscv64"), name="docker.io/library/second:1")


@asynccontextmanager
async def loaded(world: World) -> AsyncIterator[ImageService]:
    async with world.service() as images:
        assert await load(images, ARCHIVE) == ["Loaded image: multi:1\n"]
        yield images


async def save(images: ImageService, ref: str, *wanted: str) -> bytes:
    return b"".join([part async for part in images.archives.save([ref], [f"linux/{word}" for word in wanted])])


def document(archive: bytes, name: str) -> object:
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        file = tar.extractfile(name)
        assert file is not None
        return json.load(file)


def test_the_name_means_the_platform_of_the_host_and_shows_the_others() -> None:
    async def script() -> None:
        world = World()
        async with loaded(world) as images:
            assert images.get("multi:1").id == OWN.id
            assert images.get(OTHER.id).head == OWN.id
            assert images.get("multi:1").target == digests.of(INDEX)
            assert images.get("multi:1").target_size == len(INDEX)
            assert (await images.details("multi:1", f"linux/{THERE}")).image.id == OTHER.id
            assert (await images.details("multi:1", f"linux/{THERE}")).image.names == ["docker.io/library/multi:1"]
            shown = await images.manifests("multi:1")
            assert [(m.platform, m.available, m.image_id) for m in shown] == [
                (f"linux/{THERE}", True, OTHER.id),
                (f"linux/{HERE}", True, OWN.id),
                ("linux/mips64le", False, ""),
            ]
            assert shown[1].content == sum(map(len, (*OWN.layers, OWN.config, OWN.manifest)))
            assert shown[2].content == shown[2].unpacked == 0

    asyncio.run(script())


def test_a_platform_without_a_name_is_no_dangling_image() -> None:
    async def script() -> None:
        world = World()
        async with loaded(world) as images:
            assert await images.prune({}) == ([], 0)
            assert images.get(OTHER.id).head == OWN.id
            world.users[OWN.id] = [("c" * 64, False)]
            assert (await images.prune({"dangling": ["false"]}))[0] == []
            world.users.clear()
            gone = [step["Deleted"] for step in (await images.prune({"dangling": ["0"]}))[0] if "Deleted" in step]
            assert {OWN.id, OTHER.id} <= set(gone)
            assert images.list() == []

    asyncio.run(script())


def test_the_last_name_takes_all_platforms_along() -> None:
    async def script() -> None:
        world = World()
        async with loaded(world) as images:
            await images.tag("multi:1", "again:1")
            assert await images.remove("multi:1", force=False, prune=True) == [{"Untagged": "multi:1"}]
            world.users[OTHER.id] = [("c" * 64, True)]
            with pytest.raises(Conflict, match="container cccccccccccc is using its referenced image"):
                await images.remove("again:1", force=False, prune=True)
            with pytest.raises(Conflict, match="image is being used by running container cccccccccccc"):
                await images.remove(OWN.id, force=True, prune=True)
            world.users.clear()
            gone = await images.remove("again:1", force=False, prune=True)
            assert {"Deleted": OWN.id} in gone
            assert {"Deleted": OTHER.id} in gone
            assert images.list() == []

    asyncio.run(script())


def test_one_platform_is_removed_and_the_name_goes_over_to_the_other() -> None:
    async def script() -> None:
        world = World()
        async with loaded(world) as images:
            with pytest.raises(NotFound, match="does not provide the specified platform"):
                await images.remove("multi:1", force=False, prune=True, platforms=["linux/mips64le"])
            gone = await images.remove("multi:1", force=False, prune=True, platforms=[f"linux/{HERE}"])
            assert gone[0] == {"Deleted": OWN.id}
            assert images.get("multi:1").id == OTHER.id
            gone = await images.remove("multi:1", force=False, prune=True, platforms=[f"linux/{THERE}"])
            assert gone[0] == {"Untagged": "multi:1"}
            assert images.list() == []

    asyncio.run(script())


def test_one_image_of_two_indexes_stands_for_the_others_of_both() -> None:
    async def script() -> None:
        world = World()
        async with loaded(world) as images:
            await load(images, SECOND)
        async with world.service() as images:
            assert images.get("multi:1").id == images.get("second:1").id == OWN.id
            assert [images.get(made.id).head for made in (OTHER, THIRD)] == [OWN.id] * 2
            here, there, third, absent = f"linux/{HERE}", f"linux/{THERE}", "linux/riscv64", "linux/mips64le"
            for ref, expected in (
                ("multi:1", [(there, True), (here, True), (absent, False)]),
                ("second:1", [(here, True), (third, True)]),
                (OWN.id, [(here, True), (third, True), (there, True), (absent, False)]),
            ):
                assert [(m.platform, m.available) for m in await images.manifests(ref)] == expected
            assert await images.prune({}) == ([], 0)
            assert (await images.details("multi:1", there)).image.id == OTHER.id
            world.users[OTHER.id] = [("c" * 64, True)]
            await images.tag("multi:1", "again:1")
            assert await images.remove("multi:1", force=False, prune=True) == [{"Untagged": "multi:1"}]
            assert await images.remove("again:1", force=False, prune=True) == [{"Untagged": "again:1"}]
            assert images.get(OTHER.id).head == "", "a container needs it, and no name stands for it"
            world.users.clear()
            gone = await images.remove("second:1", force=False, prune=True)
            assert {"Deleted": OWN.id} in gone
            assert {"Deleted": THIRD.id} in gone
            assert {image.id for image in images.list()} == {OTHER.id}
            assert {"Deleted": OTHER.id} in (await images.prune({}))[0]

    asyncio.run(script())


def test_a_name_that_goes_takes_along_what_it_alone_stood_for() -> None:
    async def script() -> None:
        async with loaded(World()) as images:
            await load(images, SECOND)
            gone = await images.remove("multi:1", force=False, prune=True)
            assert gone[:2] == [{"Untagged": "multi:1"}, {"Deleted": OTHER.id}]
            assert {image.id for image in images.list()} == {OWN.id, THIRD.id}
            await load(images, ARCHIVE)
            assert {"Deleted": OTHER.id} in await images.remove(OWN.id, force=True, prune=True)
            assert images.list() == []

    asyncio.run(script())


def test_a_name_that_moves_leaves_what_it_alone_stood_for_to_the_next_prune() -> None:
    async def script() -> None:
        async with loaded(World()) as images:
            again, _ = index_archive((OWN, HERE), (THIRD, "riscv64"), name="docker.io/library/multi:1")
            await load(images, again)
            assert images.get(OTHER.id).head == ""
            gone = [step["Deleted"] for step in (await images.prune({}))[0] if "Deleted" in step]
            assert OTHER.id in gone
            assert not {OWN.id, THIRD.id} & set(gone)

    asyncio.run(script())


def test_names_and_families_outlive_a_restart() -> None:
    async def script() -> None:
        world = World()
        async with loaded(world):
            pass
        async with world.service() as images:
            assert images.get(OTHER.id).head == OWN.id
            assert {"Deleted": OTHER.id} in await images.remove("multi:1", force=False, prune=True)

    asyncio.run(script())


@pytest.mark.parametrize(
    ("wanted", "top", "kept"),
    [
        ([], digests.of(INDEX), {OWN.id, OTHER.id}),
        ([THERE], OTHER.digest, {OTHER.id}),
        ([HERE, THERE], digests.of(INDEX), {OWN.id, OTHER.id}),
    ],
    ids=["all", "one", "both"],
)
def test_what_is_saved_of_several_platforms_loads_again(wanted: Sequence[str], top: str, kept: set[str]) -> None:
    async def script() -> None:
        first, second = World(), World()
        async with loaded(first) as images, second.service() as others:
            archive = await save(images, "multi:1", *wanted)
            assert document(archive, "index.json")["manifests"][0]["digest"] == top  # type: ignore[index]
            assert await load(others, archive) == ["Loaded image: multi:1\n"]
            assert {image.id for image in others.list()} == kept
            assert others.get("multi:1").target == top
            with pytest.raises(NotFound):
                await save(images, "multi:1", "mips64le")

    asyncio.run(script())


def test_only_the_platforms_that_were_asked_for_are_loaded() -> None:
    async def script() -> None:
        world = World()
        async with world.service() as images:
            await collect(images.archives.load(pieces(ARCHIVE), quiet=True, platforms=[f"linux/{THERE}"]))
            assert [image.id for image in images.list()] == [OTHER.id]
            with pytest.raises(NotFound, match="no image for platform linux/mips64le"):
                await collect(images.archives.load(pieces(ARCHIVE), quiet=True, platforms=["linux/mips64le"]))

    asyncio.run(script())


def test_what_is_said_about_an_image_is_kept_with_it() -> None:
    async def script() -> None:
        world = World()
        about = make_image({"statement": "x" * 100})
        entries = [
            describe(OWN.manifest, oci.OCI_MANIFEST, platform={"os": "linux", "architecture": HERE}),
            describe(
                about.manifest,
                oci.OCI_MANIFEST,
                platform={"os": "unknown", "architecture": "unknown"},
                annotations={
                    "vnd.docker.reference.type": "attestation-manifest",
                    "vnd.docker.reference.digest": OWN.digest,
                },
            ),
        ]
        index = json.dumps({"schemaVersion": 2, "mediaType": oci.OCI_INDEX, "manifests": entries}).encode()
        top = json.dumps({"schemaVersion": 2, "manifests": [describe(index, oci.OCI_INDEX)]})
        blobs = [index, *OWN.layers, OWN.config, OWN.manifest, *about.layers, about.config, about.manifest]
        files: dict[str, bytes | str] = {f"blobs/sha256/{digests.of(blob)[7:]}": blob for blob in blobs}
        async with world.service() as images:
            await load(images, tar_of({"index.json": top, **files}))
            assert [image.id for image in images.list()] == [OWN.id]
            shown = await images.manifests(OWN.id)
            assert [(m.kind, m.available, m.describes) for m in shown[1:]] == [("attestation", True, OWN.digest)]
            assert digests.of(about.layers[0]) in world.blobs()

    asyncio.run(script())


def legacy_archive(**replace: str) -> bytes:
    lower = {"id": "a" * 64, "created": "2014-01-01T00:00:00Z", "container_config": {"Cmd": ["/bin/sh", "-c", "ADD x"]}}
    upper = {
        "id": "b" * 64,
        "parent": "a" * 64,
        "created": "2014-01-02T00:00:00Z",
        "author": "somebody",
        "config": {"Cmd": ["sh"], "Env": ["A=b"]},
        "architecture": "amd64",
        "os": "linux",
    }
    files: dict[str, bytes | str] = {"repositories": json.dumps({"old": {"1": "b" * 64}})}
    for step, layer in ((lower, BASE), (upper, TOP)):
        files[f"{step['id']}/VERSION"] = "1.0"
        files[f"{step['id']}/json"] = json.dumps(step)
        files[f"{step['id']}/layer.tar"] = tar_of(layer)
    return tar_of({**files, **replace})


def test_an_archive_from_before_manifest_json() -> None:
    async def script() -> None:
        world = World()
        async with world.service() as images:
            assert await load(images, legacy_archive()) == ["Loaded image: old:1\n"]
            details = await images.details("old:1")
            assert details.config["config"]["Env"] == ["A=b"]
            assert details.config["history"][0]["created_by"] == "/bin/sh -c ADD x"
            layers = [digests.of(tar_of(layer)) for layer in (BASE, TOP)]
            assert details.config["rootfs"]["diff_ids"] == layers

    asyncio.run(script())


@pytest.mark.parametrize(
    ("replace", "words"),
    [
        ({"b" * 64 + "/json": '{"parent": "' + "b" * 64 + '"}'}, "chained without an end"),
        ({"b" * 64 + "/json": '{"parent": "../../etc"}'}, "is missing"),
        ({"b" * 64 + "/json": "[]"}, "Expected `object`"),
        ({"repositories": '{"old": 1}'}, "repositories"),
    ],
)
def test_a_broken_archive_from_before_manifest_json(replace: dict[str, str], words: str) -> None:
    async def script() -> None:
        world = World()
        async with world.service() as images:
            with pytest.raises(InvalidArgument, match=words):
                await load(images, legacy_archive(**replace))
            assert images.list() == []
            assert world.blobs() == set()

    asyncio.run(script())


def test_a_name_that_moves_is_told() -> None:
    async def script() -> None:
        world = World()
        one, _ = index_archive((OWN, HERE), name="docker.io/library/x:1")
        two, _ = index_archive((make_image(TOP), HERE), name="docker.io/library/x:1")
        async with world.service() as images:
            await load(images, one)
            words = f"The image x:1 already exists, renaming the old one with ID {OWN.id} to empty string\n"
            assert await load(images, two) == [words, "Loaded image: x:1\n"]

    asyncio.run(script())


def test_saving_holds_no_more_than_a_piece_in_memory() -> None:
    async def script() -> None:
        world, made = World(), make_image({"large": os.urandom(3 << 20)}, architecture=HERE)
        archive, _ = index_archive((made, HERE), name="docker.io/library/large:1")
        async with world.service() as images:
            await load(images, archive)
            sizes = [len(part) async for part in images.archives.save(["large:1"])]
            assert max(sizes) <= 1 << 20
            assert sum(sizes) > 3 << 20

    asyncio.run(script())
