"""An image's layers as one read-only file system, mounted on the host while a container is being started.

The ids of its files are those inside: for a remapped container the layers are shifted one by one, as overlayfs itself
cannot be.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from corten.linux.mount import (
    AT_FDCWD,
    MNT_DETACH,
    MOUNT_ATTR_RDONLY,
    MS_PRIVATE,
    MS_RDONLY,
    OPEN_TREE_CLONE,
    idmap,
    mount,
    mount_setattr,
    move_mount,
    open_tree,
    umount2,
)
from corten.linux.process import CLONE_FS, unshare


def show(layers: Sequence[str], options: Sequence[str], place: str, user_path: str) -> None:
    """Mount `layers`, topmost first, on the directory `place`, for the user namespace at `user_path` ("" for ours).

    `options` are the overlay's. Blocking. Raises OSError; what is mounted then is for the caller to unmount.
    """
    if len(layers) == 1:
        _attach(layers[0], place, user_path)
    elif not user_path:
        _overlay(layers, options, place)
    else:
        with _shifted(layers, f"{place}.layers", user_path) as shifted:
            _overlay(shifted, options, place)
    mount_setattr(AT_FDCWD, place, attr_set=MOUNT_ATTR_RDONLY, propagation=MS_PRIVATE)


def _attach(layer: str, place: str, user_path: str) -> None:
    tree = open_tree(AT_FDCWD, layer, OPEN_TREE_CLONE)
    try:
        mount_setattr(tree, "", attr_set=MOUNT_ATTR_RDONLY, propagation=MS_PRIVATE)
        if user_path:
            user = os.open(user_path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                idmap(tree, user)
            finally:
                os.close(user)
        move_mount(tree, AT_FDCWD, place)
    finally:
        os.close(tree)


@contextmanager
def _shifted(layers: Sequence[str], place: str, user_path: str) -> Iterator[list[str]]:
    """The layers as a user namespace is to see them, below `place`; an overlay keeps what it needs of them."""
    os.mkdir(place, 0o700)
    mount("tmpfs", place, "tmpfs", 0, "mode=700")
    try:
        mount_setattr(AT_FDCWD, place, propagation=MS_PRIVATE)
        shifted = [f"{place}/{number}" for number in range(len(layers))]
        for layer, at in zip(layers, shifted, strict=True):
            os.mkdir(at)
            _attach(layer, at, user_path)
        yield shifted
    finally:
        umount2(place, MNT_DETACH)  # with all that is mounted in it
        os.rmdir(place)


def _overlay(layers: Sequence[str], options: Sequence[str], place: str) -> None:
    """In a thread with a working directory of its own: short names, so that many layers fit in the page that mount(2)
    takes.
    """
    common = os.path.commonpath([os.path.dirname(layer) for layer in layers])
    lower = ":".join(os.path.relpath(layer, common) for layer in layers)
    failed: list[OSError] = []

    def run() -> None:
        try:
            unshare(CLONE_FS)
            os.chdir(common)
            mount("overlay", place, "overlay", MS_RDONLY, ",".join([f"lowerdir={lower}", *options]))
        except OSError as error:
            failed.append(error)

    thread = threading.Thread(target=run, name="overlay")
    thread.start()
    thread.join()
    if failed:
        raise failed[0]
