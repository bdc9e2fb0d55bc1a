"""Snapshots as whole copies, for file systems that overlayfs cannot lie on.

A snapshot holds the complete tree: preparing one copies its parent (sharing blocks where the file system can), a layer
is unpacked over it with whiteouts that delete, and the mount is a bind.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from corten.storage.snapshots import Row, SnapshotterBase
from corten.storage.treecopy import TreeCopier
from corten.storage.types import MountPlan


class CopySnapshotter(SnapshotterBase):
    """See `storage.types.Snapshotter`. Needs an applier with `delete_whiteouts`."""

    name = "copy"

    def _populate(self, row: Row) -> None:
        base = f"{self.root}/{row.id}"
        os.mkdir(base, 0o700)
        os.mkdir(f"{base}/fs", 0o755)
        # A view is read-only and its parent immutable: the parent's tree serves.
        if row.parent is None or row.kind == "view":
            return
        parent = f"{self.root}/{row.parent.id}/fs"
        self._require(parent)
        source = os.open(parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            target = os.open(f"{base}/fs", os.O_RDONLY | os.O_DIRECTORY)
            try:
                TreeCopier(source, target).run()
            finally:
                os.close(target)
        finally:
            os.close(source)

    def _plan(self, row: Row) -> tuple[MountPlan, ...]:
        if row.kind == "view":
            shown = row.parent or row
            return (MountPlan("bind", f"{self.root}/{shown.id}/fs", ("rbind", "ro")),)
        return (MountPlan("bind", f"{self.root}/{row.id}/fs", ("rbind", "rw")),)

    def _adopt(self, row: Row, parent: Row, implied: Sequence[str]) -> None:
        raise AssertionError("a copy cannot be put on another parent")  # _commit_parent refuses it before
