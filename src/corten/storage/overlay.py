"""Snapshots as overlayfs layers: `<root>/<id>/fs` holds a layer's files, `work` is the kernel's while it is writable.

Nothing is mounted here; the plans are executed in the container's own mount namespace.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Sequence

from corten.errors import InvalidArgument
from corten.storage.placement import make_quick_place
from corten.storage.snapshots import Row, SnapshotterBase
from corten.storage.types import MountPlan

# index: an upper directory would be tied to its lower ones by file handle, and a copied data root would not mount.
# metacopy, redirect_dir: layers must hold whole files under their own names, as they are read for diffs.
# xino: inode numbers that do not fit make a mount noisy and buy nothing here.
_COMMON = ("index=off", "metacopy=off", "xino=off")


class OverlaySnapshotter(SnapshotterBase):
    """See `storage.types.Snapshotter`. Several snapshotters may share a database; a root belongs to one."""

    name = "overlayfs"
    rebases = True

    def _populate(self, row: Row) -> None:
        base = f"{self.root}/{row.id}"
        files = f"{base}/fs"
        if row.parent is None and row.kind == "active":
            make_quick_place(base)
        else:
            os.mkdir(base, 0o700)
        os.mkdir(files, 0o755)
        if row.kind == "active":
            os.mkdir(f"{base}/work", 0o711)
        if row.parent is not None:
            _copy_owner_and_mode(self._require(f"{self.root}/{row.parent.id}/fs"), files)

    def _plan(self, row: Row) -> tuple[MountPlan, ...]:
        lower = self._chain(row.parent)
        own = f"{self.root}/{row.id}"
        if row.kind == "view":
            if len(lower) < 2:
                source = lower[0] if lower else f"{own}/fs"
                return (MountPlan("bind", source, ("rbind", "ro")),)
            return (MountPlan("overlay", "overlay", ("lowerdir=" + ":".join(lower), *_COMMON)),)
        if not lower:
            return (MountPlan("bind", f"{own}/fs", ("rbind", "rw")),)
        paths = ("lowerdir=" + ":".join(lower), f"upperdir={own}/fs", f"workdir={own}/work")
        return (MountPlan("overlay", "overlay", (*paths, *_COMMON, "redirect_dir=off")),)

    def _freeze(self, row: Row) -> None:
        shutil.rmtree(f"{self.root}/{row.id}/work", ignore_errors=True)

    def _adopt(self, row: Row, parent: Row, implied: Sequence[str]) -> None:
        """An upper directory hides the attributes of the lower one, so one that only stands for it must copy them."""
        own, layers = f"{self.root}/{row.id}/fs", self._chain(parent)
        for path in implied:
            if path.startswith("/") or ".." in path.split("/"):
                raise InvalidArgument(f"implied directory {path!r} is not inside its layer")
            found = next((s for layer in layers if (s := _directory_status(layer, path)) is not None), None)
            if found is not None and _directory_status(own, path) is not None:
                _copy_owner_and_mode(found, f"{own}/{path}")


def _directory_status(layer: str, path: str) -> os.stat_result | None:
    """The status of a real directory in a layer; None where it is something else, or reached through a link."""
    current = layer
    for part in path.split("/"):
        current = f"{current}/{part}"
        try:
            status = os.lstat(current)
        except (FileNotFoundError, NotADirectoryError):
            return None
        if not stat.S_ISDIR(status.st_mode):
            return None
    return status


def _copy_owner_and_mode(source: os.stat_result, target: str) -> None:
    if source.st_uid or source.st_gid:
        os.chown(target, source.st_uid, source.st_gid)
    os.chmod(target, stat.S_IMODE(source.st_mode))
