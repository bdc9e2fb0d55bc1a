"""Archives and documents made to do harm: each is refused with a word, or taken for what it is and no more."""

from __future__ import annotations

import asyncio
import bz2
import gzip
import io
import json
import lzma
import tarfile
import time
import tracemalloc
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from corten.engine.images.archive import decompressed
from corten.errors import CortenError, DataCorrupt, InvalidArgument, NotFound, SystemFault
from corten.specs import digest as digests
from corten.specs import oci_image as oci
from corten.storage.types import LayerLimits
from corten.testing.registry import FakeRegistry
from tests.unit.engine.images.support import Made, World, collect, describe, make_image, pieces, publish, tar_of
from tests.unit.engine.images.test_archives import docker_archive, load, oci_archive
from tests.unit.storage.test_hostile_layers import header, padded, record, special

BASE: dict[str, bytes | str] = {"etc/os": "corten"}


def blob_name(data: bytes) -> str:
    return f"blobs/sha256/{digests.hex_of(digests.of(data))}"


def with_links(files: Mapping[str, bytes | str], links: Sequence[tuple[str, bytes, str]]) -> bytes:
    buffer = io.BytesIO(tar_of(files))
    with tarfile.open(fileobj=buffer, mode="a") as tar:
        for name, kind, target in links:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, target
            tar.addfile(info)
    return buffer.getvalue()


def refused(archive: bytes, words: str) -> None:
    async def script() -> None:
        world = World()
        async with world.service() as images:
            with pytest.raises(CortenError, match=words) as caught:
                await load(images, archive)
            assert str(caught.value).isprintable()
            assert (world.blobs(), world.snapshots(), list(images.list())) == (set(), set(), [])

    asyncio.run(script())


# Docker's layout


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE])
@pytest.mark.parametrize("target", ["/etc/passwd", "../../../../etc/passwd", "layer.tar", "x"])
def test_a_layer_or_config_that_is_a_link_reaches_nothing(tmp_path: Path, kind: bytes, target: str) -> None:
    made = make_image(BASE)
    config = digests.hex_of(made.id) + ".json"
    entry = {"Config": config, "RepoTags": ["x:1"], "Layers": ["layer.tar"]}
    document = json.dumps([entry])
    refused(with_links({config: made.config, "manifest.json": document}, [("layer.tar", kind, target)]), "is missing")
    layer: dict[str, bytes | str] = {"layer.tar": gzip.decompress(made.layers[0]), "manifest.json": document}
    refused(with_links(layer, [(config, kind, target)]), "is missing|invalid image config")


@pytest.mark.parametrize(
    "name", ["../../etc/passwd", "/etc/passwd", "/proc/self/environ", "", ".", "a\x00b", "\x1b[2J"]
)
def test_manifest_json_names_only_what_the_archive_holds(name: str) -> None:
    made = make_image(BASE)
    files: dict[str, bytes | str] = {"c.json": made.config, "l.tar": gzip.decompress(made.layers[0])}
    for entry in ({"Config": name, "Layers": ["l.tar"]}, {"Config": "c.json", "Layers": [name]}):
        refused(tar_of({**files, "manifest.json": json.dumps([entry])}), "is missing")


@pytest.mark.parametrize(
    "name", ["", ":", "UPPER", "a:b:c", "../x:1", "x:1\n", "x:\x1b[31m", "a" * 300, "x@sha256:" + "0" * 63, "a//b", "-"]
)
def test_repositories_with_bad_names(name: str) -> None:
    refused(docker_archive(make_image(BASE), [name]), "invalid archive: .*invalid reference format")


def test_a_name_given_twice_is_what_came_last() -> None:
    async def script() -> None:
        world, first, last = World(), make_image(BASE), make_image({"etc/os": "other"})
        config = digests.hex_of(last.id) + ".json"
        entry = {"Config": config, "RepoTags": ["x:1"], "Layers": ["l.tar"]}
        files: dict[str, bytes | str] = {"l.tar": gzip.decompress(first.layers[0])}
        more = {"l.tar": gzip.decompress(last.layers[0]), config: last.config}
        more["manifest.json"] = json.dumps([entry]).encode()
        async with world.service() as images:
            buffer = io.BytesIO(tar_of(files))
            with tarfile.open(fileobj=buffer, mode="a") as tar:
                for name, data in more.items():
                    info = tarfile.TarInfo(name)
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))
            await load(images, buffer.getvalue())
            assert images.get("x:1").id == last.id
            assert world.blobs() == {last.id, images.get("x:1").manifest, *last.diff_ids}

    asyncio.run(script())


@pytest.mark.parametrize(
    ("documents", "words"),
    [
        ({"manifest.json": "[" * 100_000}, "nested too deep"),
        ({"manifest.json": '{"a":' * 300 + "1" + "}" * 300}, "nested too deep"),
        ({"manifest.json": "[" + '{"Config":"c.json"},' * 5000 + "{}]"}, "invalid archive"),
        ({"manifest.json": json.dumps([{"Config": "c.json"}] * 5000)}, "more than 4096 images"),
        ({"manifest.json": json.dumps([{"Config": "c.json", "Layers": ["l"] * 600}])}, "missing|600 layers"),
        ({"manifest.json": "{}"}, "invalid archive: manifest.json"),
        ({"manifest.json": b"\xff\xfe"}, "invalid archive: manifest.json"),
        ({"manifest.json": '[{"Config":1e999}]'}, "invalid archive: manifest.json"),
        ({"manifest.json": '[{"Config":null}]'}, "invalid archive: manifest.json"),
        ({"repositories": '{"a":{"b":"../../etc"}}'}, "missing"),
        ({"repositories": "[" * 100_000}, "nested too deep"),
        ({"repositories": '{"a":{"1":""}}'}, "without an id"),
        ({"repositories": '{"a":{"1":"x/.."}}'}, "without an id"),
        ({"repositories": '{"a":{"1":"i"}}', "i/json": '{"parent":"i"}'}, "without an end"),
        ({"index.json": "[" * 100_000}, "nested too deep"),
        ({"index.json": "[]"}, "no object"),
        ({"index.json": '{"schemaVersion":2,"manifests":[],"layers":[]}'}, "something else too"),
    ],
)
def test_documents_that_are_none(documents: dict[str, bytes | str], words: str) -> None:
    refused(tar_of({"c.json": make_image(BASE).config, **documents}), words)


def test_an_image_of_too_many_layers() -> None:
    made = make_image(BASE)
    document = json.dumps([{"Config": "c.json", "Layers": ["l.tar"] * 600}])
    layer = gzip.decompress(made.layers[0])
    refused(tar_of({"c.json": made.config, "l.tar": layer, "manifest.json": document}), "an image of 600 layers")


# OCI's layout


def test_an_archive_of_very_many_members(monkeypatch: pytest.MonkeyPatch) -> None:
    good = docker_archive(make_image(BASE), ["x:1"])
    with tarfile.open(fileobj=io.BytesIO(good)) as tar:
        count = len(tar.getnames())
    monkeypatch.setattr("corten.engine.images.archive.MAX_MEMBERS", count - 1)
    refused(good, f"more than {count - 1} members")


def test_blobs_that_are_others_than_their_names() -> None:
    made = make_image(BASE)
    refused(oci_archive(made, "x:1", {blob_name(made.config): b"{}"}), "unexpected commit digest")


@pytest.mark.parametrize("where", ["sha512/" + "0" * 128, "sha256/../../../etc/passwd", "sha256/" + "0" * 63, "md5/x"])
def test_blobs_by_other_names_are_never_found(where: str) -> None:
    top = {"mediaType": oci.OCI_MANIFEST, "digest": "sha256:" + "0" * 64, "size": 2}
    index = json.dumps({"schemaVersion": 2, "manifests": [top]})
    refused(tar_of({"index.json": index, f"blobs/{where}": "{}"}), "is missing")


@pytest.mark.parametrize(
    "digest",
    ["", "sha256:", "sha512:" + "0" * 128, "sha256:" + "0" * 63 + "G", "md5:" + "0" * 32, "../x", "sha256:../x"],
)
def test_digests_that_are_none(digest: str) -> None:
    index = {"schemaVersion": 2, "manifests": [{"mediaType": oci.OCI_MANIFEST, "digest": digest, "size": 2}]}
    refused(tar_of({"index.json": json.dumps(index)}), "digest")


def nest(made: Made, depth: int, width: int) -> bytes:
    """A layout whose indexes hold each the next one `width` times."""
    files: dict[str, bytes | str] = {blob_name(blob): blob for blob in (*made.layers, made.config, made.manifest)}
    below, kind = made.manifest, oci.OCI_MANIFEST
    for level in range(depth):
        entries = [describe(below, kind, annotations={"n": str(at)}) for at in range(width)]
        below = json.dumps({"schemaVersion": 2, "manifests": entries, "annotations": {"level": str(level)}}).encode()
        kind = oci.OCI_INDEX
        files[blob_name(below)] = below
    return tar_of({"index.json": below, **files})


def test_indexes_too_deep() -> None:
    refused(nest(make_image(BASE), 8, 1), "too deep to follow")


def test_indexes_that_hold_each_other_many_times() -> None:
    """Each of 1000 names the same 1000 below it: by the thousandfold of the thousandfold there is no end."""

    async def script() -> None:
        world, made = World(), make_image(BASE)
        async with world.service() as images:
            begin = time.process_time()
            await load(images, nest(made, 3, 1000))
            assert b"".join([part async for part in images.archives.save([made.id])])
            assert time.process_time() - begin < 10
            assert images.get(made.id).id == made.id

    asyncio.run(script())


@pytest.mark.parametrize(
    "extra",
    [{"manifests": []}, {"manifests": [{}]}, {"fsLayers": []}, {"mediaType": oci.OCI_INDEX}, {"mediaType": "x"}],
)
def test_a_manifest_that_is_an_index_too(extra: dict[str, object]) -> None:
    """CVE-2021-41190: one digest that one program takes for an image and the next for a list of others."""
    made = make_image(BASE)
    manifest = json.dumps({**json.loads(made.manifest), **extra}).encode()
    refused(oci_archive(Made(made.layers, made.config, manifest), "x:1"), "it is something else too|it says that it is")

    async def script() -> None:
        world = World()
        async with FakeRegistry() as registry, world.service() as images:
            for said in (oci.OCI_MANIFEST, oci.OCI_INDEX):
                for blob in (*made.layers, made.config):
                    registry.add_blob("app", blob)
                registry.add_manifest("app", manifest, said, "latest")
                if extra == {"mediaType": "x"} and said == oci.OCI_INDEX:
                    continue
                with pytest.raises(CortenError):
                    await collect(images.pull(f"{registry.host}/app", "", None))
                assert list(images.list()) == []

    asyncio.run(script())


# Bombs and lies of the tar around


@pytest.mark.parametrize("pack", [bytes, gzip.compress, bz2.compress, lzma.compress])
def test_a_header_that_would_fill_the_memory(pack: type[bytes]) -> None:
    """A pax header of 96 MB, of which a few kilobytes are sent; tarfile would have read it into memory at once."""
    body = bytes(96 << 20) if pack is not bytes else bytes(2 << 20)
    start = header(b"h", b"x", size=b"%011o" % (96 << 20))
    packed = pack(start + body)
    del body
    tracemalloc.start()
    try:
        refused(packed, "header field too long")
        assert tracemalloc.get_traced_memory()[1] < 24 << 20
    finally:
        tracemalloc.stop()


def test_names_are_counted_as_documents_are() -> None:
    blob = b"".join(
        special(b"x", record(b"path", b"n%d" % at + b"x" * 1_000_000)) + header(b"n", b"2", link=b"t")
        for at in range(70)
    )
    refused(gzip.compress(blob, 1), "documents are too large")


def test_a_sparse_member_is_no_blob() -> None:
    records = (
        record(b"GNU.sparse.major", b"0")
        + record(b"GNU.sparse.minor", b"1")
        + record(b"GNU.sparse.map", b"0,1")
        + record(b"GNU.sparse.size", b"%d" % (1 << 60))
    )
    refused(special(b"x", records) + header(b"l.tar", size=b"1") + padded(b"x"), "sparse member")


def test_a_negative_size_does_not_turn_the_reader_round() -> None:
    """CVE-2025-8194, of tarfile: a member that ends before it begins was read for ever."""
    refused(header(b"x", size=b"\xff" * 12) + header(b"y"), "invalid tar header")


class _Zeros:
    """Far more than anybody has room for, in very little."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def read(self, size: int = -1, /) -> bytes:
        data, self._data = self._data, b""
        return data


def test_an_archive_that_is_a_bomb_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("corten.engine.images.archive.LayerLimits", lambda: LayerLimits(ratio_from=1 << 20))
    for packed in (bz2.compress(bytes(64 << 20)), lzma.compress(bytes(64 << 20)), gzip.compress(bytes(64 << 20))):
        with pytest.raises(InvalidArgument, match="200 times as large"):
            for _ in decompressed(_Zeros(packed)):
                pass


@pytest.mark.parametrize("pack", [bz2.compress, lzma.compress])
def test_an_import_does_not_unpack_into_memory(pack: type[bytes]) -> None:
    packed = pack(bytes(96 << 20))

    async def script() -> None:
        world = World()
        async with world.service() as images:
            stream = images.archives.import_rootfs(pieces(packed, 1 << 20), "x", message="", changes=[], platform="")
            tracemalloc.start()
            try:
                taken = 0

                def store(source: object, expected: str = "") -> str:
                    nonlocal taken
                    for part in source:  # type: ignore[attr-defined]
                        taken += len(part)
                    raise InvalidArgument("enough")

                with pytest.MonkeyPatch.context() as patch:
                    patch.setattr("corten.engine.images.intake.Intake.store", lambda self, source: store(source))
                    with pytest.raises(InvalidArgument, match="enough"):
                        await collect(stream)
                assert taken == 96 << 20
                assert tracemalloc.get_traced_memory()[1] < 32 << 20
            finally:
                tracemalloc.stop()

    asyncio.run(script())


def test_an_xz_that_asks_for_gigabytes_of_dictionary() -> None:
    compressor = lzma.LZMACompressor(format=lzma.FORMAT_XZ, filters=[{"id": lzma.FILTER_LZMA2, "dict_size": 1 << 20}])
    packed = bytearray(compressor.compress(b"x") + compressor.flush())
    # The dictionary's size is the byte after the filter's id and the size of its properties; the header's CRC follows.
    at = packed.index(b"\x21\x01", 12) + 2
    packed[at] = 40  # 4 GiB
    length = (packed[12] + 1) * 4
    packed[12 + length - 4 : 12 + length] = zlib.crc32(packed[12 : 12 + length - 4]).to_bytes(4, "little")
    refused(bytes(packed), "invalid compressed data")


# At a registry


ONES = "sha256:" + "1" * 64


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"layers": [{"mediaType": oci.OCI_CONFIG, "digest": ONES, "size": 1}]}, "no container image"),
        (
            {"config": {"mediaType": oci.OCI_LAYER_GZIP, "digest": ONES, "size": 1}},
            "no container image",
        ),
        ({"config": {"mediaType": oci.OCI_CONFIG, "digest": "sha512:" + "1" * 128, "size": 1}}, "unsupported digest"),
        ({"config": {"mediaType": oci.OCI_CONFIG, "digest": ONES, "size": -1}}, "bytes"),
        ({"config": {"mediaType": oci.OCI_CONFIG, "digest": ONES, "size": 1 << 70}}, "size|bytes"),
        ({"config": {"mediaType": oci.OCI_CONFIG, "digest": ONES, "size": 1 << 40}}, "bytes"),
        ({"layers": [{"digest": ONES, "size": 1}] * 600}, "600 layers"),
        ({"schemaVersion": 3}, "no container image"),
        ({"annotations": {"a": 1}}, "annotations"),
        ({"annotations": {"\x1b]0;owned\x07": 1}}, "annotations"),
    ],
)
def test_manifests_that_lie(change: dict[str, object], words: str) -> None:
    async def script() -> None:
        world, made = World(), make_image(BASE)
        manifest = json.dumps({**json.loads(made.manifest), **change}).encode()
        async with FakeRegistry() as registry, world.service() as images:
            ref = publish(registry, "app", Made(made.layers, made.config, manifest))
            with pytest.raises(CortenError, match=words) as caught:
                await collect(images.pull(ref, "", None))
            assert str(caught.value).isprintable()
            assert (world.snapshots(), list(images.list())) == (set(), [])

    asyncio.run(script())


@pytest.mark.parametrize(
    "data", [b"[" * 200_000, b'{"a":' * 200_000, b'{"schemaVersion":2,"config":' + b"[" * 5000, b"1" * 9000]
)
def test_json_that_is_deep_or_long(data: bytes) -> None:
    async def script() -> None:
        world = World()
        async with FakeRegistry() as registry, world.service() as images:
            for kind in (oci.OCI_MANIFEST, oci.OCI_INDEX, "text/html"):
                registry.add_manifest("app", data, kind, "latest")
                with pytest.raises(CortenError):
                    await collect(images.pull(f"{registry.host}/app", "", None))

    asyncio.run(script())


@pytest.mark.parametrize("value", [b"[]", b"{}", b"0", b'""', b'{"a":[1]}', b"[[[[]]]]"])
def test_very_many_values(value: bytes) -> None:
    """Eight megabytes of `[]` held the daemon up for seconds, and took half a gigabyte."""
    data = (
        b'{"schemaVersion":2,"config":{},"annotations":[' + b",".join([value] * ((7 << 20) // (len(value) + 1))) + b"]}"
    )

    async def script() -> None:
        world = World()
        async with FakeRegistry() as registry, world.service() as images:
            registry.add_manifest("app", data, oci.OCI_MANIFEST, "latest")
            begin = time.process_time()
            with pytest.raises(CortenError, match="no container image"):  # it was not read
                await collect(images.pull(f"{registry.host}/app", "", None))
            assert time.process_time() - begin < 2

    asyncio.run(script())


@pytest.mark.parametrize("change", [{"architecture": "a b"}, {"architecture": "\x1b[2J"}, {"variant": "a/b/c"}])
def test_a_config_that_calls_its_platform_what_it_likes(change: dict[str, str]) -> None:
    """It was pulled and then in the way of its own next pull, and of `--platform` for all others of its index."""

    async def script() -> None:
        world, made = World(), make_image(BASE)
        config = json.dumps({**json.loads(made.config), **change}).encode()
        manifest = json.dumps({**json.loads(made.manifest), "config": describe(config, oci.OCI_CONFIG)}).encode()
        platform = {"os": "linux", "architecture": "amd64"}
        entries = [describe(manifest, oci.OCI_MANIFEST, platform=platform)]
        index = json.dumps({"schemaVersion": 2, "mediaType": oci.OCI_INDEX, "manifests": entries}).encode()
        async with FakeRegistry() as registry, world.service() as images:
            publish(registry, "app", Made(made.layers, config, manifest))
            registry.add_manifest("app", index, oci.OCI_INDEX, "latest")
            for _ in range(2):
                await collect(images.pull(f"{registry.host}/app", "linux/amd64", None))
            with pytest.raises(NotFound, match="does not provide the specified platform"):
                await images.details(f"{registry.host}/app", "linux/amd64")

    asyncio.run(script())


def test_indexes_too_deep_at_a_registry() -> None:
    async def script() -> None:
        world, made = World(), make_image(BASE)
        platform = {"os": "linux", "architecture": "amd64"}
        async with FakeRegistry() as registry, world.service() as images:
            publish(registry, "app", made)
            below, kind = made.manifest, oci.OCI_MANIFEST
            for level in range(4):
                entry = describe(below, kind, platform=platform)
                below = json.dumps({"schemaVersion": 2, "mediaType": oci.OCI_INDEX, "manifests": [entry]}).encode()
                kind = oci.OCI_INDEX
                registry.add_manifest("app", below, kind, f"deep{level}")
            await collect(images.pull(f"{registry.host}/app:deep2", "linux/amd64", None))
            with pytest.raises(SystemFault, match="too deep to follow"):
                await collect(images.pull(f"{registry.host}/app:deep3", "linux/amd64", None))

    asyncio.run(script())


def test_a_registry_whose_index_names_itself() -> None:
    """By its digest no document can name itself; a registry can say so all the same."""

    async def script() -> None:
        world, ones = World(), "sha256:" + "1" * 64
        platform = {"os": "linux", "architecture": "amd64"}
        entry = {"mediaType": oci.OCI_INDEX, "digest": ones, "size": 1, "platform": platform}
        index = json.dumps({"schemaVersion": 2, "mediaType": oci.OCI_INDEX, "manifests": [entry]}).encode()
        async with FakeRegistry() as registry, world.service() as images:
            registry.add_manifest("app", index, oci.OCI_INDEX, "latest")
            registry.add_manifest("app", index, oci.OCI_INDEX, ones)
            with pytest.raises(DataCorrupt, match="verification failed"):
                await collect(images.pull(f"{registry.host}/app", "linux/amd64", None))
            assert list(images.list()) == []

    asyncio.run(script())


def test_a_manifest_of_ten_megabytes() -> None:
    async def script() -> None:
        world, made = World(), make_image(BASE)
        padding = json.dumps({**json.loads(made.manifest), "annotations": {"a": "x" * (10 << 20)}}).encode()
        async with FakeRegistry() as registry, world.service() as images:
            ref = publish(registry, "app", Made(made.layers, made.config, padding))
            with pytest.raises(CortenError, match="longer than"):
                await collect(images.pull(ref, "", None))

    asyncio.run(script())


def test_an_index_of_ten_thousand() -> None:
    async def script() -> None:
        world, made = World(), make_image(BASE)
        other = {"os": "linux", "architecture": "s390x"}
        entries = [describe(b"%d" % at, oci.OCI_MANIFEST, platform=other) for at in range(10_000)]
        entries.append(describe(made.manifest, oci.OCI_MANIFEST, platform={"os": "linux", "architecture": "amd64"}))
        index = json.dumps({"schemaVersion": 2, "mediaType": oci.OCI_INDEX, "manifests": entries}).encode()
        async with FakeRegistry() as registry, world.service() as images:
            publish(registry, "app", made)
            registry.add_manifest("app", index, oci.OCI_INDEX, "latest")
            await collect(images.pull(f"{registry.host}/app", "linux/amd64", None))
            assert images.get(f"{registry.host}/app").id == made.id

    asyncio.run(script())


def test_of_two_keys_the_last_counts_everywhere() -> None:
    """As in Go; who checks one and uses the other is deceived."""
    first, last = "sha256:" + "1" * 64, "sha256:" + "2" * 64
    config = '"config":{"mediaType":"%s","digest":"%s","size":1}'
    data = (
        f'{{"schemaVersion":1,"schemaVersion":2,{config % (oci.OCI_CONFIG, first)},{config % (oci.OCI_CONFIG, last)}}}'
    )
    assert oci.kind_of(data.encode()) == oci.OCI_MANIFEST
    assert oci.parse_manifest(data.encode()).config.digest == last
