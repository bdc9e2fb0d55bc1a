"""Image documents: descriptors, manifests, indexes and configs, OCI's and Docker's (schema 2), as one set of types.

Decoded for reading only: what is stored and sent on is always the original bytes, so that digests hold.
"""

from __future__ import annotations

from typing import Any

from msgspec import Struct, field

from corten.errors import InvalidArgument, clip
from corten.specs import digest as digests
from corten.specs import wire
from corten.specs.container import GoStruct, HealthConfig
from corten.specs.platform import Platform
from corten.specs.times import parse_time

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
OCI_LAYER_GZIP = OCI_LAYER + "+gzip"
OCI_LAYER_ZSTD = OCI_LAYER + "+zstd"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar"
DOCKER_LAYER_GZIP = DOCKER_LAYER + ".gzip"
DOCKER_SCHEMA1 = "application/vnd.docker.distribution.manifest.v1+json"
DOCKER_SCHEMA1_SIGNED = "application/vnd.docker.distribution.manifest.v1+prettyjws"

INDEX_TYPES = (OCI_INDEX, DOCKER_LIST)
MANIFEST_TYPES = (OCI_MANIFEST, DOCKER_MANIFEST)
CONFIG_TYPES = (OCI_CONFIG, DOCKER_CONFIG)
ODD_CONFIG_TYPES = ("", "application/octet-stream", "application/json", "text/html")
"""What old clients and registries have called an image's config; taken for one, as Docker does."""

FOREIGN_LAYER = "application/vnd.oci.image.layer.nondistributable.v1.tar"
DOCKER_FOREIGN_LAYER_GZIP = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
FOREIGN_LAYERS = (FOREIGN_LAYER, FOREIGN_LAYER + "+gzip", FOREIGN_LAYER + "+zstd", DOCKER_FOREIGN_LAYER_GZIP)
"""Layers that registries need not have: their descriptors say from where else they can be had."""

ANNOTATION_REF_NAME = "org.opencontainers.image.ref.name"
ANNOTATION_IMAGE_NAME = "io.containerd.image.name"

MAX_LAYERS = 512
"""More than any builder makes, few enough that a hostile manifest costs nothing."""


class Descriptor(Struct, kw_only=True, rename="camel", omit_defaults=True):
    """What a blob is: its type, digest and size in bytes."""

    media_type: str = ""
    digest: str
    size: int
    urls: list[str] = field(default_factory=list)
    annotations: dict[str, str] = field(default_factory=dict)
    platform: Platform | None = None
    artifact_type: str = ""


class Manifest(Struct, kw_only=True, rename="camel"):
    """One image of one platform; layers lowest first."""

    schema_version: int = 0
    media_type: str = ""
    config: Descriptor
    layers: list[Descriptor] = field(default_factory=list)
    annotations: dict[str, str] = field(default_factory=dict)


class Index(Struct, kw_only=True, rename="camel"):
    """Several manifests under one digest, for several platforms."""

    schema_version: int = 0
    media_type: str = ""
    manifests: list[Descriptor] = field(default_factory=list)
    annotations: dict[str, str] = field(default_factory=dict)


class RunConfig(GoStruct, omit_defaults=True):
    """What an image presets for its containers: the portable half of `specs.container.ContainerConfig`."""

    user: str = ""
    exposed_ports: dict[str, dict[str, Any]] | None = None
    env: list[str] | None = None
    entrypoint: list[str] | None = None
    cmd: list[str] | None = None
    volumes: dict[str, dict[str, Any]] | None = None
    working_dir: str = ""
    labels: dict[str, str] | None = None
    stop_signal: str = ""
    healthcheck: HealthConfig | None = None
    shell: list[str] | None = None
    on_build: list[str] | None = None
    args_escaped: bool = False


class RootFS(Struct, kw_only=True):
    """`diff_ids` are the digests of the uncompressed layers, lowest first."""

    type: str = "layers"
    diff_ids: list[str] = field(default_factory=list)


class History(Struct, kw_only=True, omit_defaults=True):
    """How a layer came to be; `empty_layer` for a step that made none."""

    created: str = ""
    created_by: str = ""
    author: str = ""
    comment: str = ""
    empty_layer: bool = False


class ImageConfig(Struct, kw_only=True, omit_defaults=True):
    """The document whose digest is the image's id. Times are RFC 3339."""

    created: str = ""
    author: str = ""
    architecture: str = ""
    os: str = ""
    variant: str = ""
    os_version: str = field(default="", name="os.version")
    os_features: list[str] = field(default_factory=list, name="os.features")
    config: RunConfig | None = None
    rootfs: RootFS = field(default_factory=RootFS)
    history: list[History] = field(default_factory=list)
    comment: str = ""
    docker_version: str = ""
    container: str = ""
    parent: str = ""

    @property
    def run(self) -> RunConfig:
        """`config`, an empty one where the image has none."""
        return self.config or RunConfig()

    @property
    def platform(self) -> Platform:
        return Platform(self.architecture, self.os, self.variant, self.os_version, tuple(self.os_features))

    @property
    def created_ns(self) -> int:
        """Nanoseconds since the epoch; 0 for an image that does not say."""
        return parse_time(self.created)


def parse_manifest(data: bytes) -> Manifest:
    """Raises InvalidArgument for what is no manifest of schema 2, or names something that is no digest."""
    raw = _parse(data, "manifest")
    if "manifests" in raw or "fsLayers" in raw:
        raise InvalidArgument("invalid manifest: it is something else too")  # CVE-2021-41190
    manifest = wire.convert(raw, Manifest, "manifest")
    if manifest.media_type not in ("", *MANIFEST_TYPES):
        raise InvalidArgument(f"invalid manifest: it says that it is {clip(manifest.media_type, 100)}")
    if manifest.schema_version != 2:
        raise InvalidArgument(f"unsupported manifest schema version {manifest.schema_version}")
    if len(manifest.layers) > MAX_LAYERS:
        raise InvalidArgument(f"invalid manifest: {len(manifest.layers)} layers, at most {MAX_LAYERS} are supported")
    for descriptor in (manifest.config, *manifest.layers):
        _check(descriptor)
    return manifest


def parse_index(data: bytes) -> Index:
    """Raises InvalidArgument for what is no index, or names something that is no digest."""
    raw = _parse(data, "image index")
    if "layers" in raw or "config" in raw or "fsLayers" in raw:
        raise InvalidArgument("invalid image index: it is something else too")  # CVE-2021-41190
    index = wire.convert(raw, Index, "image index")
    if index.media_type not in ("", *INDEX_TYPES):
        raise InvalidArgument(f"invalid image index: it says that it is {clip(index.media_type, 100)}")
    if index.schema_version != 2:
        raise InvalidArgument(f"unsupported image index schema version {index.schema_version}")
    for descriptor in index.manifests:
        _check(descriptor)
    return index


def parse_config(data: bytes) -> ImageConfig:
    """Raises InvalidArgument for what is no image config. Commands given as one string become a list of one."""
    raw = _parse(data, "image config")
    run = raw.get("config")
    if isinstance(run, dict):
        for key in ("Cmd", "Entrypoint", "Shell", "OnBuild"):
            if isinstance(run.get(key), str):
                run[key] = [run[key]]
    config = wire.convert(raw, ImageConfig, "image config")
    for diff_id in config.rootfs.diff_ids:
        digests.parse(diff_id)
    return config


def kind_of(data: bytes) -> str:
    """The media type of a manifest or index that does not say or was not asked; "" for neither.

    An index has manifests, a manifest has layers and a config; both together are refused (the confusion of types that
    CVE-2021-41190 is about).
    """
    try:
        raw = wire.parse(data)
    except InvalidArgument:
        return ""
    if not isinstance(raw, dict) or ("manifests" in raw and ("layers" in raw or "config" in raw)):
        return ""
    said = raw.get("mediaType")
    if "manifests" in raw:
        return said if said in INDEX_TYPES else OCI_INDEX
    if "config" in raw and raw.get("schemaVersion") == 2:
        return said if said in MANIFEST_TYPES else OCI_MANIFEST
    return DOCKER_SCHEMA1 if raw.get("schemaVersion") == 1 else ""


def _parse(data: bytes, what: str) -> dict[str, Any]:
    raw = wire.parse(data, what)
    if not isinstance(raw, dict):
        raise InvalidArgument(f"invalid {what}: it is no object")
    return raw


def _check(descriptor: Descriptor) -> None:
    digests.parse(descriptor.digest)
    if not 0 <= descriptor.size < 1 << 63:
        raise InvalidArgument(f"invalid descriptor: {descriptor.digest} has {descriptor.size} bytes")
