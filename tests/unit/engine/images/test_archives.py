"""Load, save and import."""

from __future__ import annotations

import asyncio
import bz2
import gzip
import io
import json
import lzma
import tarfile
from collections.abc import Mapping

import pytest
import zstandard

from corten.engine.images import ImageService
from corten.errors import CortenError, DataCorrupt, InvalidArgument, NotFound
from corten.specs import digest as digests
from corten.specs import oci_image as oci
from tests.unit.engine.images.support import Made, World, collect, describe, make_image, pieces, tar_of

BASE: dict[str, bytes | str] = {"etc/os": "corten", "bin/sh": b"#!" * 4000}
TOP: dict[str, bytes | str] = {"app/main": "print()"}


def docker_archive(made: Made, tags: list[str] | None, **replace: bytes) -> bytes:
    """As `docker save` before 25 wrote it: plain layers in folders of their own."""
    config = digests.hex_of(made.id) + ".json"
    layers = {f"{at:064x}/layer.tar": gzip.decompress(layer) for at, layer in enumerate(made.layers)}
    entry = {"Config": config, "RepoTags": tags, "Layers": list(layers)}
    files: dict[str, bytes | str] = {config: made.config, **layers, "manifest.json": json.dumps([entry])}
    return tar_of({**files, **{name.replace("__", "."): data for name, data in replace.items()}})


def oci_archive(made: Made, name: str, extra: Mapping[str, bytes | str] | None = None) -> bytes:
    annotations = {oci.ANNOTATION_IMAGE_NAME: name} if name else {}
    top = describe(made.manifest, oci.OCI_MANIFEST, annotations=annotations)
    files: dict[str, bytes | str] = {
        f"blobs/sha256/{digests.hex_of(digests.of(blob))}": blob for blob in (*made.layers, made.config, made.manifest)
    }
    index = json.dumps({"schemaVersion": 2, "manifests": [top]})
    return tar_of({"oci-layout": "{}", "index.json": index, **files, **(extra or {})})


async def load(images: ImageService, archive: bytes, platform: str = "") -> list[str]:
    told = await collect(images.archives.load(pieces(archive), quiet=True, platforms=[platform] if platform else []))
    return [message["stream"] for message in told]


async def save(images: ImageService, *refs: str) -> bytes:
    return b"".join([part async for part in images.archives.save(refs)])


@pytest.mark.parametrize(
    "pack",
    [bytes, gzip.compress, zstandard.compress, bz2.compress, lzma.compress],
    ids=["plain", "gzip", "zstd", "bzip2", "xz"],
)
def test_a_docker_archive_is_loaded(pack: type[bytes]) -> None:
    async def script() -> None:
        world, made = World(), make_image(BASE, TOP)
        async with world.service() as images:
            archive = pack(docker_archive(made, ["x:1", "y:latest"]))
            assert await load(images, archive) == ["Loaded image: x:1\n", "Loaded image: y:latest\n"]
            assert images.get("x:1").id == images.get("y").id == made.id
            resolved = await images.resolve("x:1")
            assert resolved.chain_id == digests.chain_ids(made.diff_ids)[-1]
            assert world.blobs() == {made.id, images.get("y").manifest, *made.diff_ids}
            assert world.events.seen[-1][0] == "load"

    asyncio.run(script())


def test_an_image_without_a_name_is_told_by_its_id() -> None:
    async def script() -> None:
        world, made = World(), make_image(BASE)
        async with world.service() as images:
            assert await load(images, docker_archive(made, None)) == [f"Loaded image ID: {made.id}\n"]
            assert images.get(made.id[7:19]).names == []

    asyncio.run(script())


def test_layers_that_are_links_to_each_other() -> None:
    async def script() -> None:
        world, made = World(), make_image(BASE, BASE)
        buffer = io.BytesIO()
        config = digests.hex_of(made.id) + ".json"
        with tarfile.open(fileobj=buffer, mode="w") as tar:
            entry = {"Config": config, "RepoTags": ["x:1"], "Layers": ["a/layer.tar", "b/layer.tar"]}
            for name, data in (
                (config, made.config),
                ("real.tar", gzip.decompress(made.layers[0])),
                ("manifest.json", json.dumps([entry]).encode()),
            ):
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
            for name, kind, target in (
                ("a/layer.tar", tarfile.SYMTYPE, "../real.tar"),
                ("b/layer.tar", tarfile.LNKTYPE, "a/layer.tar"),
            ):
                link = tarfile.TarInfo(name)
                link.type, link.linkname = kind, target
                tar.addfile(link)
        async with world.service() as images:
            assert await load(images, buffer.getvalue()) == ["Loaded image: x:1\n"]
            assert len(images.get("x:1").chain_ids) == 2

    asyncio.run(script())


def test_an_oci_layout_keeps_its_digests() -> None:
    async def script() -> None:
        world, made = World(), make_image(BASE, TOP)
        async with world.service() as images:
            stray: dict[str, bytes | str] = {
                "blobs/sha256/" + digests.hex_of(digests.of(b"stray")): b"stray",
                "../../etc/passwd": "root",
            }
            archive = oci_archive(made, "docker.io/library/x:1", stray)
            assert await load(images, archive) == ["Loaded image: x:1\n"]
            assert images.get("x:1").target == made.digest
            assert world.content.read(made.digest) == made.manifest
            assert world.blobs() == {made.id, made.digest, *(digests.of(layer) for layer in made.layers)}

    asyncio.run(script())


def test_what_is_saved_loads_as_the_same_image() -> None:
    async def script() -> None:
        first, second = World(), World()
        one, two = make_image(BASE, TOP), make_image(BASE)
        async with first.service() as images, second.service() as others:
            await load(images, oci_archive(one, "docker.io/library/x:1"))
            await load(images, oci_archive(two, "quay.io/a/b:2"))
            await images.tag("x:1", "x:2")
            archive = await save(images, "x", "quay.io/a/b:2", one.id[7:19])
            assert len(await save(images, "x:1")) < len(archive)
            told = await load(others, archive)
            assert told == ["Loaded image: x:1\n", "Loaded image: x:2\n", "Loaded image: quay.io/a/b:2\n"]
            assert [others.get("x:2").target, others.get("quay.io/a/b:2").target] == [one.digest, two.digest]
            with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
                names = tar.getnames()
                assert len(names) == len(set(names))
                file = tar.extractfile("manifest.json")
                assert file is not None
                entries = json.loads(file.read())
            assert [entry["RepoTags"] for entry in entries] == [["x:1", "x:2"], ["quay.io/a/b:2"]]
            assert all(layer in names for entry in entries for layer in entry["Layers"])
            with pytest.raises(NotFound, match=r"^No such image: nope:latest$"):
                await save(images, "x", "nope")

    asyncio.run(script())


def wrong_blob(made: Made) -> bytes:
    name = f"blobs/sha256/{digests.hex_of(digests.of(made.layers[0]))}"
    return oci_archive(made, "x:1", {name: b"other bytes"})


@pytest.mark.parametrize(
    ("archive", "error", "words"),
    [
        (b"", InvalidArgument, "invalid archive"),
        (b"no tar at all", InvalidArgument, "invalid archive"),
        (b"\x1f\x8bgarbage that is no gzip", InvalidArgument, "invalid archive"),
        (b"\x28\xb5\x2f\xfdgarbage that is no zstd", InvalidArgument, "invalid archive"),
        (bytes(10240), InvalidArgument, "does not contain a manifest.json"),
        (tar_of({"a": "b"}), InvalidArgument, "does not contain a manifest.json"),
        (tar_of({"manifest.json": "[{"}), InvalidArgument, "manifest.json"),
        (tar_of({"manifest.json": '[{"Config":"../../etc/passwd"}]'}), InvalidArgument, "etc/passwd is missing"),
        (tar_of({"index.json": '{"schemaVersion":2,"manifests":[]}'}), InvalidArgument, "names no image"),
        (docker_archive(make_image(BASE, TOP), ["x:1"])[:8192], InvalidArgument, "unexpected EOF"),
        (gzip.compress(docker_archive(make_image(BASE), ["x:1"]))[:-20], InvalidArgument, "invalid archive"),
        (docker_archive(make_image(BASE), ["Bad Name"]), InvalidArgument, "invalid reference format"),
        (docker_archive(make_image(BASE, diff_ids=["sha256:" + "1" * 64]), ["x:1"]), DataCorrupt, "diff id mismatch"),
        (docker_archive(make_image({"../up": "x"}), ["x:1"]), InvalidArgument, "climbs out"),
        (wrong_blob(make_image(BASE)), DataCorrupt, "unexpected commit digest"),
    ],
)
def test_a_bad_archive_is_refused_and_leaves_nothing(archive: bytes, error: type[CortenError], words: str) -> None:
    async def script() -> None:
        world, good = World(), make_image(TOP)
        async with world.service() as images:
            await load(images, docker_archive(good, ["good:1"]))
            before = (world.blobs(), world.snapshots())
            with pytest.raises(error, match=words):
                await load(images, archive)
            assert (world.blobs(), world.snapshots()) == before
            assert world.content.ingests.kept == {}
            assert [image.names for image in images.list()] == [["docker.io/library/good:1"]]

    asyncio.run(script())


def test_a_client_that_stops_sending_leaves_nothing() -> None:
    async def script() -> None:
        world, made = World(), make_image(BASE, TOP)
        hanging = asyncio.Event()

        async def body() -> object:
            async for part in pieces(docker_archive(made, ["x:1"])[:9000]):
                yield part
            hanging.set()
            await asyncio.Event().wait()

        async with world.service() as images:
            loading = asyncio.ensure_future(collect(images.archives.load(body(), quiet=True)))  # type: ignore[arg-type] # noqa: TID251
            await hanging.wait()
            loading.cancel()
            with pytest.raises(asyncio.CancelledError):
                await loading
            assert world.blobs() == set()
            assert world.content.ingests.kept == {}

    asyncio.run(script())


@pytest.mark.parametrize(
    "pack",
    [bytes, gzip.compress, zstandard.compress, bz2.compress, lzma.compress],
    ids=["plain", "gzip", "zstd", "bzip2", "xz"],
)
def test_import_makes_an_image_of_one_layer(pack: type[bytes]) -> None:
    async def script() -> None:
        world = World()
        async with world.service() as images:
            changes = ['CMD ["sh", "-c", "x"]', "LABEL a=b", "ENV A=1 B='2 3'\nEXPOSE 80 53/udp\nWORKDIR /srv"]
            archive = pack(tar_of(BASE))
            told = await collect(
                images.archives.import_rootfs(pieces(archive), "mine:1", message="hello", changes=changes, platform="")
            )
            image = images.get("mine:1")
            assert told == [{"status": image.id}]
            details = await images.details("mine:1")
            assert details.config["config"] == {
                "Cmd": ["sh", "-c", "x"],
                "Labels": {"a": "b"},
                "Env": ["A=1", "B=2 3"],
                "ExposedPorts": {"80/tcp": {}, "53/udp": {}},
                "WorkingDir": "/srv",
            }
            assert details.config["history"][0]["comment"] == "hello"
            assert details.config["rootfs"]["diff_ids"] == [digests.of(tar_of(BASE))] == image.chain_ids
            assert details.layer_sizes == [image.size]
            assert (world.snapshotter.layer_dir(image.chain_ids[0]) / "etc/os").read_text() == "corten"
            assert len(world.blobs()) == 3
            assert world.events.seen == [("import", image.id, {"a": "b", "name": "mine:1"})]

    asyncio.run(script())


@pytest.mark.parametrize(
    ("body", "changes", "platform"),
    [
        (b"", [], ""),
        (b"no tar", [], ""),
        (bz2.compress(tar_of(BASE))[:-9], [], ""),
        (tar_of({"../up": "x"}), [], ""),
        (tar_of(BASE), ["NONSENSE x"], ""),
        (tar_of(BASE), [], "windows/amd64"),
    ],
)
def test_a_bad_import_leaves_nothing(body: bytes, changes: list[str], platform: str) -> None:
    async def script() -> None:
        world = World()
        async with world.service() as images:
            stream = images.archives.import_rootfs(pieces(body), "x", message="", changes=changes, platform=platform)
            with pytest.raises(InvalidArgument):
                await collect(stream)
            assert (world.blobs(), world.snapshots(), list(images.list())) == (set(), set(), [])

    asyncio.run(script())


def test_two_loads_of_one_image_do_not_take_it_from_each_other() -> None:
    async def script() -> None:
        world, made = World(), make_image(BASE, TOP)
        archive = docker_archive(made, ["x:1"])
        bad_name = docker_archive(made, ["Bad Name"])
        async with world.service() as images:
            results = await asyncio.gather(
                *(load(images, data) for data in (bad_name, archive, bad_name, archive)), return_exceptions=True
            )
            assert [type(result) for result in results] == [InvalidArgument, list, InvalidArgument, list]
            image = images.get("x:1")
            assert world.blobs() == {made.id, image.manifest, *made.diff_ids}

    asyncio.run(script())
