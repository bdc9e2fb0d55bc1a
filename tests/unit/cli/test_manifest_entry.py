"""Manifest lists without any registry: their images, what is said of them, and the files that they wait in."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path

import pytest

from corten.cli.errors import CliError
from corten.cli.manifests import entry as entries
from corten.cli.manifests.entry import Entry, Part
from corten.cli.manifests.store import Store, UnknownManifest
from corten.specs import digest as digests
from corten.specs import oci_image as oci
from corten.specs import reference
from corten.specs.platform import Platform

CONFIG, LAYER, FOREIGN = (digests.of(name) for name in (b"config", b"layer", b"foreign"))
AMD64 = Platform("amd64", "linux")
LIST = reference.parse("r.example:5000/team/app:1")


def image(
    name: str = "r.example:5000/team/app:amd64",
    kind: str = oci.OCI_MANIFEST,
    platform: Platform | None = AMD64,
    indent: int | None = None,
) -> Entry:
    """Of two layers, one of which registries need not have."""
    foreign = oci.FOREIGN_LAYERS[0]
    layers = [{"mediaType": oci.OCI_LAYER, "digest": LAYER, "size": 5}] * 2
    layers.append({"mediaType": foreign, "digest": FOREIGN, "size": 7})
    config = {"mediaType": oci.OCI_CONFIG, "digest": CONFIG, "size": 6}
    value = {"schemaVersion": 2, "mediaType": kind, "config": config, "layers": layers, "annotations": {"a": "<é>"}}
    raw = json.dumps(value, indent=indent, ensure_ascii=False).encode()
    return Entry(reference.parse(name), Part(kind, digests.of(raw), len(raw), platform), raw)


def test_what_is_annotated_comes_before_what_was_known_and_features_are_added() -> None:
    known = image(platform=Platform("arm", "linux", "v7", "", ("a",)))
    same = entries.annotated(known, Platform())
    assert same == known
    found = entries.annotated(known, Platform("arm64", "", "v8", "10", ("b", "a", "b")))
    assert found.part.platform == Platform("arm64", "linux", "v8", "10", ("a", "b"))
    assert (found.raw, found.part.digest, found.ref) == (known.raw, known.part.digest, known.ref)
    assert entries.annotated(image(platform=None), Platform("s390x", "linux")).part.platform == Platform(
        "s390x", "linux"
    )


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        (Platform("amd46"), "linux/amd46"),
        (Platform(os="linus"), "linus/amd64"),
        (Platform("s390x", "windows"), "windows/s390x"),
    ],
)
def test_a_platform_that_is_none_is_refused(wanted: Platform, said: str) -> None:
    with pytest.raises(CliError, match=f"^manifest entry for image has unsupported os/arch combination: {said}$"):
        entries.annotated(image(), wanted)


@pytest.mark.parametrize(
    ("kinds", "expected"),
    [
        ((oci.OCI_MANIFEST, oci.OCI_MANIFEST), oci.OCI_INDEX),
        ((oci.DOCKER_MANIFEST, oci.DOCKER_MANIFEST), oci.DOCKER_LIST),
        ((oci.OCI_MANIFEST, oci.DOCKER_MANIFEST), oci.DOCKER_LIST),
        ((oci.DOCKER_MANIFEST, oci.OCI_MANIFEST), oci.DOCKER_LIST),
    ],
)
def test_images_of_oci_make_an_index_and_all_others_a_list_of_dockers(kinds: tuple[str, ...], expected: str) -> None:
    assert entries.list_type(image(kind=kind).part for kind in kinds) == expected


def test_a_list_is_written_as_docker_writes_it() -> None:
    part = Part(oci.DOCKER_MANIFEST, CONFIG, 6, Platform("arm", "linux", "v7", "10", ("a",)))
    assert entries.list_text([part], oci.DOCKER_LIST) == (
        '{\n   "schemaVersion": 2,\n'
        '   "mediaType": "application/vnd.docker.distribution.manifest.list.v2+json",\n'
        '   "manifests": [\n      {\n'
        '         "mediaType": "application/vnd.docker.distribution.manifest.v2+json",\n'
        '         "size": 6,\n'
        f'         "digest": "{CONFIG}",\n'
        '         "platform": {\n            "architecture": "arm",\n            "os": "linux",\n'
        '            "os.version": "10",\n            "os.features": [\n               "a"\n            ],\n'
        '            "variant": "v7"\n         }\n      }\n   ]\n}'
    )
    assert '"platform": {\n            "architecture": "",\n            "os": ""\n' in entries.list_text(
        [Part(oci.DOCKER_MANIFEST, CONFIG, 6, None)], oci.DOCKER_LIST
    )


def test_what_a_registry_needs_of_an_image() -> None:
    assert image().blobs == [CONFIG, LAYER]
    assert image(kind=oci.DOCKER_MANIFEST).blobs == [CONFIG, LAYER]


def test_what_cannot_be_pushed_is_said_before() -> None:
    entries.check_registry([image()], LIST)
    elsewhere = image("q.example/app:1")
    with pytest.raises(CliError, match=r"than the target image: q\.example != r\.example:5000$"):
        entries.check_registry([image(), elsewhere], LIST)
    entries.check_platforms([image()])
    for platform in (None, Platform("amd64"), Platform(os="linux")):
        with pytest.raises(CliError, match=r"^manifest r\.example:5000/team/app:amd64 must have an OS and Arch"):
            entries.check_platforms([image(), image(platform=platform)])


@pytest.mark.parametrize("kind", oci.MANIFEST_TYPES)
def test_an_images_file(tmp_path: Path, kind: str) -> None:
    """Its place and its content are what docker reads."""
    store, filed = Store(str(tmp_path / "manifests")), image(kind=kind)
    store.save(LIST, filed)
    path = tmp_path / "manifests" / "r.example-5000_team_app-1" / "r.example-5000_team_app-amd64"
    assert [found for found in tmp_path.rglob("*") if found.is_file()] == [path]
    text = path.read_text()
    value = json.loads(text)
    key = "OCIManifest" if kind == oci.OCI_MANIFEST else "SchemaV2Manifest"
    assert list(value) == ["Ref", "Descriptor", "Raw", key]
    assert value["Ref"] == "r.example:5000/team/app:amd64"
    assert value["Descriptor"] == {
        "mediaType": kind,
        "digest": filed.part.digest,
        "size": len(filed.raw),
        "platform": {"architecture": "amd64", "os": "linux"},
    }
    assert base64.b64decode(value["Raw"]) == filed.raw
    assert value[key] == json.loads(filed.raw)
    assert "\\u003cé\\u003e" in text
    assert store.get(LIST, filed.ref) == filed


def test_a_list_has_the_order_of_its_files_and_is_removed_whole(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    with pytest.raises(UnknownManifest, match=r"^No such manifest: r\.example:5000/team/app:1$"):
        store.images(LIST)
    assert not store.has(LIST)
    filed = [image(f"r.example:5000/{name}") for name in ("b:1", "a:1", "z.example/c:1")]
    for each in filed:
        store.save(LIST, each)
    assert [str(each.ref).partition("/")[2] for each in store.images(LIST)] == ["a:1", "b:1", "z.example/c:1"]
    again = entries.annotated(filed[0], Platform("s390x"))
    store.save(LIST, again)
    assert store.get(LIST, again.ref) == again
    assert len(store.images(LIST)) == 3
    with pytest.raises(UnknownManifest, match=r"^No such manifest: r\.example:5000/a:2$"):
        store.get(LIST, reference.parse("r.example:5000/a:2"))
    store.remove(LIST)
    assert os.listdir(tmp_path) == []
    with pytest.raises(UnknownManifest):
        store.remove(LIST)


def test_two_names_of_one_file_are_not_put_over_each_other(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    store.save(LIST, first := image("r.example/a:b-c"))
    with pytest.raises(CliError, match="cannot be in one list"):
        store.save(LIST, image("r.example/a-b:c"))
    with pytest.raises(UnknownManifest):
        store.get(LIST, reference.parse("r.example/a-b:c"))
    assert store.images(LIST) == [first]


@pytest.mark.parametrize("indent", [3, 2])
def test_a_file_of_old_without_the_manifests_bytes(tmp_path: Path, indent: int) -> None:
    store, filed = Store(str(tmp_path)), image(indent=indent)
    store.save(LIST, filed)
    path = next(found for found in tmp_path.rglob("*") if found.is_file())
    value = json.loads(path.read_text())
    del value["Raw"]
    path.write_text(json.dumps(value))
    assert store.get(LIST, filed.ref) == filed


@pytest.mark.parametrize(
    "damage",
    [b"", b"{", b"[]", b"{}", b'{"Ref":"a","Descriptor":{"digest":"sha256:x","size":1}}', b"\xff", b"Raw", b"Ref"],
)
def test_a_damaged_file_is_named_and_can_be_made_anew(tmp_path: Path, damage: bytes) -> None:
    store, filed = Store(str(tmp_path)), image()
    store.save(LIST, filed)
    path = next(found for found in tmp_path.rglob("*") if found.is_file())
    value = json.loads(path.read_text())
    if damage == b"Raw":
        damage = json.dumps({**value, "Raw": base64.b64encode(b"{}").decode()}).encode()
    elif damage == b"Ref":
        damage = json.dumps({**value, "Ref": "../UPPER"}).encode()
    path.write_bytes(damage)
    with pytest.raises(CliError, match=f"^invalid manifest file {path}: "):
        store.images(LIST)
    store.save(LIST, filed)
    assert store.images(LIST) == [filed]
