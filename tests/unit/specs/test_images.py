"""Digests, platforms and image documents."""

from __future__ import annotations

import json

import pytest

from corten.errors import InvalidArgument
from corten.specs import digest as digests
from corten.specs import oci_image as oci
from corten.specs import platform as platforms
from corten.specs.platform import Platform

D = "sha256:" + "0" * 64


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "invalid checksum digest format"),
        ("sha256:", "invalid checksum digest format"),
        ("sha256:" + "0" * 63, "invalid checksum digest length"),
        ("sha256:" + "A" * 64, "invalid checksum digest format"),
        ("sha256:" + "0" * 64 + "\n", "invalid checksum digest format"),
        ("md5:" + "0" * 32, "unsupported digest algorithm: md5"),
    ],
)
def test_what_is_no_digest(text: str, words: str) -> None:
    with pytest.raises(InvalidArgument, match=words):
        digests.parse(text)


def test_a_manifest_has_so_many_layers_at_most() -> None:
    def manifest(count: int) -> bytes:
        layer = {"mediaType": oci.OCI_LAYER, "digest": D, "size": 1}
        return json.dumps({"schemaVersion": 2, "config": layer, "layers": [layer] * count}).encode()

    assert len(oci.parse_manifest(manifest(512)).layers) == 512
    with pytest.raises(InvalidArgument, match="513 layers, at most 512"):
        oci.parse_manifest(manifest(513))


def test_chain_ids_are_the_specification_s() -> None:
    a, b = "sha256:" + "a" * 64, "sha256:" + "b" * 64
    assert digests.chain_ids([]) == []
    assert digests.chain_ids([a, b]) == [a, digests.of(f"{a} {b}".encode())]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("linux/amd64", "linux/amd64"),
        ("linux/x86_64", "linux/amd64"),
        ("linux/aarch64", "linux/arm64"),
        ("linux/arm64/v8", "linux/arm64"),
        ("linux/arm", "linux/arm/v7"),
        ("linux/arm/6", "linux/arm/v6"),
        ("armhf", "linux/arm/v7"),
        ("riscv64", "linux/riscv64"),
        ("Linux/ARM64", "linux/arm64"),
    ],
)
def test_platforms_are_normalised(text: str, said: str) -> None:
    assert str(platforms.parse(text)) == said


@pytest.mark.parametrize("text", ["", "linux/", "a/b/c/d", "nonsense", "linux/amd64/v8/x", "lin ux/amd64"])
def test_platforms_that_are_none(text: str) -> None:
    with pytest.raises(InvalidArgument):
        platforms.parse(text)


def test_the_best_platform_is_the_nearest() -> None:
    offers = [Platform(a, "linux", v) for a, v in (("386", ""), ("arm", "v5"), ("arm", "v7"), ("arm64", "v8"))]
    assert platforms.best(platforms.parse("linux/arm64"), offers) == 3
    assert platforms.best(platforms.parse("linux/arm/v6"), offers) == 1
    assert platforms.best(platforms.parse("linux/arm/v8"), offers) == 2
    assert platforms.best(platforms.parse("linux/amd64"), offers) == 0
    assert platforms.best(platforms.parse("linux/s390x"), offers) is None
    assert platforms.best(platforms.parse("windows/arm64"), offers) is None
    assert platforms.best(platforms.parse("linux/arm64"), offers[:3]) == 2


def manifest(**more: object) -> bytes:
    document = {"schemaVersion": 2, "config": {"mediaType": oci.OCI_CONFIG, "digest": D, "size": 1}, "layers": []}
    return json.dumps(document | more).encode()


def test_the_kind_of_a_document_is_in_its_members() -> None:
    assert oci.kind_of(manifest()) == oci.OCI_MANIFEST
    assert oci.kind_of(manifest(mediaType=oci.DOCKER_MANIFEST)) == oci.DOCKER_MANIFEST
    assert oci.kind_of(b'{"schemaVersion":2,"manifests":[]}') == oci.OCI_INDEX
    assert oci.kind_of(b'{"schemaVersion":1,"fsLayers":[]}') == oci.DOCKER_SCHEMA1
    assert oci.kind_of(manifest(manifests=[])) == ""
    assert oci.kind_of(b"<html>") == oci.kind_of(b"[]") == oci.kind_of(b"\xff") == ""


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"\xff",
        manifest(schemaVersion=1),
        manifest(config={"digest": "sha256:../../etc", "size": 1}),
        manifest(config={"digest": D, "size": -1}),
        manifest(layers=[{"digest": D, "size": 1}] * 1000),
    ],
)
def test_manifests_that_are_refused(data: bytes) -> None:
    with pytest.raises(InvalidArgument):
        oci.parse_manifest(data)


def test_a_config_as_docker_writes_it() -> None:
    document = {
        "architecture": "amd64",
        "os": "linux",
        "os.version": "1",
        "created": "2024-01-02T03:04:05.123456789Z",
        "container_config": {"Cmd": ["x"]},
        "config": {
            "Cmd": None,
            "Entrypoint": "run me",
            "Env": ["A=b"],
            "ExposedPorts": {"80/tcp": {}},
            "Healthcheck": {"Test": ["CMD", "true"], "Interval": 5},
            "OnBuild": ["RUN x"],
            "ArgsEscaped": True,
        },
        "rootfs": {"type": "layers", "diff_ids": [D]},
        "history": [{"created_by": "x", "empty_layer": True}],
    }
    config = oci.parse_config(json.dumps(document).encode())
    assert config.run.entrypoint == ["run me"]
    assert config.run.cmd is None
    assert config.run.healthcheck is not None
    assert config.run.healthcheck.interval == 5
    assert config.run.on_build == ["RUN x"]
    assert config.run.args_escaped
    assert config.created_ns == 1_704_164_645_123_456_789
    assert str(config.platform) == "linux/amd64"
    for bad in (b"[]", b"", b'{"rootfs":{"diff_ids":["x"]}}', b'{"config":{"Env":5}}'):
        with pytest.raises(InvalidArgument):
            oci.parse_config(bad)
