"""Layers for tests: built with tarfile, owned by whoever runs them, so that they unpack without root."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path
from typing import Any

from corten.storage.apply import apply_layer

MTIME = 1_700_000_000


def member(name: str, type: bytes = tarfile.REGTYPE, **attributes: Any) -> tarfile.TarInfo:
    """A header; `attributes` are TarInfo's."""
    info = tarfile.TarInfo(name)
    info.type, info.mtime = type, MTIME
    info.mode = 0o755 if type == tarfile.DIRTYPE else 0o644
    info.uid, info.gid = os.getuid(), os.getgid()
    for key, value in attributes.items():
        setattr(info, key, value)
    return info


def file(name: str, data: bytes = b"data", **attributes: Any) -> tuple[tarfile.TarInfo, bytes]:
    return member(name, size=len(data), **attributes), data


def directory(name: str, **attributes: Any) -> tarfile.TarInfo:
    return member(name, tarfile.DIRTYPE, **attributes)


def symlink(name: str, target: str) -> tarfile.TarInfo:
    return member(name, tarfile.SYMTYPE, linkname=target)


def hard_link(name: str, target: str) -> tarfile.TarInfo:
    return member(name, tarfile.LNKTYPE, linkname=target)


def archive(*members: tarfile.TarInfo | tuple[tarfile.TarInfo, bytes], format: int = tarfile.PAX_FORMAT) -> bytes:
    """The members as a tar archive."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=format) as tar:
        for one in members:
            info, data = one if isinstance(one, tuple) else (one, b"")
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def unpack(blob: bytes, base: Path, *, delete: bool = False) -> dict[str, Any]:
    """Unpack into `base / "layer"`, which may hold something already; the answer of the worker."""
    (base / "blob").write_bytes(blob)
    (base / "layer").mkdir(exist_ok=True)
    return apply_layer(str(base / "blob"), str(base / "layer"), delete=delete)
