"""One image of a manifest list, as Docker's command line files it, and the list that is made of several.

The file is JSON: `Ref`, `Descriptor` (with the platform), `Raw` (the manifest as it came, in base64), and the manifest
once more, as `SchemaV2Manifest` or `OCIManifest`, for people to read.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from corten.cli.errors import CliError
from corten.specs import digest as digests
from corten.specs import oci_image as oci
from corten.specs import reference
from corten.specs.gotemplate.values import escape_html
from corten.specs.platform import Platform
from corten.specs.reference import Reference

Json = dict[str, Any]

_64 = frozenset("amd64 arm64".split())
_MORE = frozenset("386 arm".split())
# What programs are built for; anything else in an image's platform is a slip of the pen.
_ARCHITECTURES: dict[str, frozenset[str]] = {
    "aix": frozenset(("ppc64",)),
    "android": _64 | _MORE,
    "darwin": _64 | _MORE,
    "dragonfly": frozenset(("amd64",)),
    "freebsd": _64 | _MORE | {"riscv64"},
    "illumos": frozenset(("amd64",)),
    "ios": _64,
    "js": frozenset(("wasm",)),
    "linux": _64 | _MORE | frozenset("loong64 mips mips64 mips64le mipsle ppc64 ppc64le riscv64 s390x".split()),
    "netbsd": _64 | _MORE,
    "openbsd": _64 | _MORE | {"mips64", "ppc64", "riscv64"},
    "plan9": frozenset("386 amd64 arm".split()),
    "solaris": frozenset(("amd64",)),
    "wasip1": frozenset(("wasm",)),
    "windows": _64 | _MORE,
}


@dataclass(frozen=True, slots=True)
class Part:
    """What a list says of one of its images. `platform` None: nothing."""

    media_type: str
    digest: str
    size: int
    platform: Platform | None

    def to_json(self) -> Json:
        """As a member of a list, in the order in which Docker writes it."""
        platform = platform_json(self.platform or Platform())
        return {"mediaType": self.media_type, "size": self.size, "digest": self.digest, "platform": platform}


@dataclass(frozen=True, slots=True)
class Entry:
    """An image's manifest, `raw` as its registry had it, under the name `ref` by which it was added."""

    ref: Reference
    part: Part
    raw: bytes

    @property
    def blobs(self) -> list[str]:
        """The digests of config and layers, without those layers that registries need not have."""
        manifest = oci.parse_manifest(self.raw)
        layers = [layer for layer in manifest.layers if layer.media_type not in oci.FOREIGN_LAYERS]
        return list(dict.fromkeys(descriptor.digest for descriptor in (manifest.config, *layers)))

    def to_json(self) -> Json:
        part = self.part
        descriptor: Json = {"mediaType": part.media_type, "digest": part.digest, "size": part.size}
        if part.platform is not None:
            descriptor["platform"] = platform_json(part.platform)
        key = "OCIManifest" if part.media_type == oci.OCI_MANIFEST else "SchemaV2Manifest"
        raw = base64.b64encode(self.raw).decode()
        return {"Ref": str(self.ref), "Descriptor": descriptor, "Raw": raw, key: json.loads(self.raw)}


def read(data: bytes) -> Entry:
    """What was filed. Raises ValueError, or what derives from it, for what was not."""
    value = json.loads(data)
    if not isinstance(value, dict) or not isinstance(value.get("Descriptor"), dict):
        raise ValueError("it is no image of a manifest list")
    said = value["Descriptor"]
    digest = str(said.get("digest"))
    raw = next((text for text in _texts(value) if digests.of(text) == digest), b"")
    if not raw:
        raise ValueError("the manifest in it is not the one of its digest")
    platform = platform_of(said["platform"]) if isinstance(said.get("platform"), dict) else None
    part = Part(str(said.get("mediaType") or ""), digest, len(raw), platform)
    return Entry(reference.parse(str(value.get("Ref"))), part, raw)


def _texts(value: Json) -> Iterable[bytes]:
    """What the manifest's bytes may be: files of old have no `Raw`, and the manifest's white space was lost in them."""
    if raw := value.get("Raw"):
        yield base64.b64decode(raw)
        return
    manifest = value.get("OCIManifest") or value.get("SchemaV2Manifest")
    for indent, separators in ((3, None), (2, None), (None, (",", ":"))):
        yield json.dumps(manifest, ensure_ascii=False, indent=indent, separators=separators).encode()


def platform_of(value: Json) -> Platform:
    """The platform in a descriptor or in an image's config; what is no word there counts as not said."""

    def word(key: str) -> str:
        found = value.get(key)
        return found if isinstance(found, str) else ""

    features = value.get("os.features")
    words = [feature for feature in features if isinstance(feature, str)] if isinstance(features, list) else []
    return Platform(word("architecture"), word("os"), word("variant"), word("os.version"), tuple(words))


def platform_json(platform: Platform) -> Json:
    value: Json = {"architecture": platform.architecture, "os": platform.os}
    if platform.os_version:
        value["os.version"] = platform.os_version
    if platform.os_features:
        value["os.features"] = list(platform.os_features)
    if platform.variant:
        value["variant"] = platform.variant
    return value


def annotated(entry: Entry, wanted: Platform) -> Entry:
    """`entry` with what `wanted` says of its platform; features are added to those that are there.

    Raises CliError for a combination that is none.
    """
    known = entry.part.platform or Platform()
    platform = Platform(
        wanted.architecture or known.architecture,
        wanted.os or known.os,
        wanted.variant or known.variant,
        wanted.os_version or known.os_version,
        tuple(dict.fromkeys((*known.os_features, *wanted.os_features))),
    )
    if platform.architecture not in _ARCHITECTURES.get(platform.os, ()):
        pair = f"{platform.os}/{platform.architecture}"
        raise CliError(f"manifest entry for image has unsupported os/arch combination: {pair}")
    return replace(entry, part=replace(entry.part, platform=platform))


def list_type(parts: Iterable[Part]) -> str:
    """An OCI index when all of its images are OCI's, Docker's manifest list when they are not."""
    kinds = {part.media_type for part in parts}
    return oci.OCI_INDEX if kinds == {oci.OCI_MANIFEST} else oci.DOCKER_LIST


def list_text(parts: Sequence[Part], media_type: str) -> str:
    """The list as it is pushed, byte for byte as Docker writes it."""
    value = {"schemaVersion": 2, "mediaType": media_type, "manifests": [part.to_json() for part in parts]}
    return escape_html(json.dumps(value, ensure_ascii=False, indent=3))


def check_registry(entries: Iterable[Entry], target: Reference) -> None:
    """Raises CliError when `target` is to be at another registry than one of its images."""
    for entry in entries:
        if entry.ref.domain != target.domain:
            both = f"{entry.ref.domain} != {target.domain}"
            raise CliError(f"cannot use source images from a different registry than the target image: {both}")


def check_platforms(entries: Iterable[Entry]) -> None:
    """Raises CliError for an image that nobody could choose."""
    for entry in entries:
        platform = entry.part.platform or Platform()
        if not platform.os or not platform.architecture:
            raise CliError(f"manifest {entry.ref} must have an OS and Architecture to be pushed to a registry")
