"""Images for the tests, made of the busybox that every daemon under test has."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from pathlib import Path
from typing import Any

OCI_INDEX = "application/vnd.oci.image.index.v1+json"


def describe(data: bytes, media_type: str, **more: Any) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": "sha256:" + hashlib.sha256(data).hexdigest(), "size": len(data), **more}


def two_platforms(path: Path, name: str, architectures: tuple[str, str], *, absent: str = "") -> Path:
    """An OCI layout in a tar: an index of two images that differ in their platform, and of `absent` that is not here.

    Each has one layer with the file /platform.
    """
    blobs: list[bytes] = []
    entries = []
    for architecture in architectures:
        layer = _layer({"platform": architecture.encode() + b"\n" * 2000})
        diff_id = "sha256:" + hashlib.sha256(layer).hexdigest()
        config = json.dumps(
            {
                "architecture": architecture,
                "os": "linux",
                "created": "2024-01-02T03:04:05Z",
                "config": {"Cmd": ["sh"], "Labels": {"test": "platforms"}},
                "rootfs": {"type": "layers", "diff_ids": [diff_id]},
            }
        ).encode()
        manifest = json.dumps(
            {
                "schemaVersion": 2,
                "mediaType": "application/vnd.oci.image.manifest.v1+json",
                "config": describe(config, "application/vnd.oci.image.config.v1+json"),
                "layers": [describe(layer, "application/vnd.oci.image.layer.v1.tar")],
            },
            indent=1,
        ).encode()
        blobs += [layer, config, manifest]
        platform = {"os": "linux", "architecture": architecture}
        entries.append(describe(manifest, "application/vnd.oci.image.manifest.v1+json", platform=platform))
    if absent:
        gone = describe(b"absent", "application/vnd.oci.image.manifest.v1+json")
        entries.append({**gone, "platform": {"os": "linux", "architecture": absent}})
    index = json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}, indent=2).encode()
    top = describe(index, OCI_INDEX, annotations={"io.containerd.image.name": name})
    files = {f"blobs/sha256/{hashlib.sha256(blob).hexdigest()}": blob for blob in (*blobs, index)}
    files["index.json"] = json.dumps({"schemaVersion": 2, "manifests": [top]}).encode()
    files["oci-layout"] = b'{"imageLayoutVersion":"1.0.0"}'
    path.write_bytes(_layer(files))
    return path


def _layer(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()
