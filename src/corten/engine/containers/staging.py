"""Parts of volumes, and images, mounted on the host for as long as a container is being started.

Runtimes bind paths; whoever writes to a volume could exchange a directory on the way for a link. So what is to be bound
is opened below the volume's root first, and bound from `<exec root>/mounts/<container>.<n>`, where nobody else writes.
The container has a mount of its own when it runs: then these go again.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from corten.engine.containers import imagemounts, layerstage
from corten.engine.models import MountPoint
from corten.errors import SystemFault, clip
from corten.linux.mount import (
    AT_EMPTY_PATH,
    AT_FDCWD,
    MNT_DETACH,
    MS_PRIVATE,
    OPEN_TREE_CLONE,
    mount_setattr,
    move_mount,
    open_tree,
    umount2,
)
from corten.linux.openat2 import open_in_root
from corten.storage.types import Snapshotter


def staged(point: MountPoint) -> bool:
    """Whether it is more than a path to bind."""
    return bool(point.subpath) or point.type == imagemounts.IMAGE


class Staging:
    """Blocking. A container's are its own: the caller holds its entry's lock."""

    def __init__(self, root: Path, snapshotter: Snapshotter) -> None:
        self._root, self._snapshotter = root, snapshotter

    def enter(self, container_id: str, points: Sequence[MountPoint], user_path: str = "") -> dict[str, str]:
        """Where to bind from, by destination, of those that are `staged`.

        `user_path` is the container's user namespace where it is remapped. Raises SystemFault that names what is
        missing. The caller owes `leave`, on failure too.
        """
        found = {}
        for number, point in enumerate(points):
            if staged(point):
                place = self._root / f"{container_id}.{number}"
                try:
                    source = point.source
                    if point.type == imagemounts.IMAGE:
                        self._show(imagemounts.view_key(container_id, number), place, user_path)
                        source = str(place)
                    if point.subpath:
                        self._attach(source, point.subpath, place)
                except OSError as error:
                    reason = (error.strerror or str(error)).lower()
                    path = clip(os.path.join(point.source, point.subpath), 400)
                    raise SystemFault(f"cannot access path {path}: {reason}", errno=error.errno or 0) from error
                found[point.destination] = str(place)
        return found

    def _show(self, view: str, place: Path, user_path: str) -> None:
        (plan,) = self._snapshotter.mounts(view)
        self._root.mkdir(mode=0o711, parents=True, exist_ok=True)
        _remove(place)
        place.mkdir()
        layerstage.show(*imagemounts.layers(plan), str(place), user_path)

    def _attach(self, source: str, subpath: str, place: Path) -> None:
        """Show at `place` what is at `subpath` of `source`, which may be `place` itself."""
        root = os.open(source, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            part = open_in_root(root, subpath)
        finally:
            os.close(root)
        try:
            # Not what is mounted below: it could not be unmounted here and stay there.
            tree = open_tree(part, "", AT_EMPTY_PATH | OPEN_TREE_CLONE)
            directory = stat.S_ISDIR(os.fstat(part).st_mode)
        finally:
            os.close(part)
        try:
            mount_setattr(tree, "", propagation=MS_PRIVATE)
            self._root.mkdir(mode=0o711, parents=True, exist_ok=True)
            _remove(place)
            if directory:
                place.mkdir()
            else:
                place.touch()
            move_mount(tree, AT_FDCWD, str(place))
        finally:
            os.close(tree)

    def leave(self, container_id: str) -> None:
        """Unmount a container's; fine for one that has none."""
        for place in self._root.glob(f"{container_id}.*"):
            _remove(place)

    def clear(self) -> None:
        """Unmount what a daemon has left that was killed amid a start."""
        for place in self._root.glob("*"):
            _remove(place)


def _remove(place: Path) -> None:
    """Never what is in it: a mount that stays is busy, and the directory below it with it."""
    with suppress(OSError):
        while True:
            umount2(str(place), MNT_DETACH)
    with suppress(OSError):
        place.unlink() if place.is_file() else place.rmdir()
