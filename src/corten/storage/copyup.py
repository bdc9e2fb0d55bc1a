"""Filling an empty volume with what the image has at its place, as Docker does for the first container that uses it.

The image is mounted, read-only, in a mount namespace of the worker alone, and the place is resolved inside that root,
so that no link of the image leads to the host's files. `main` is the worker; the daemon's end
is `storage.workers.CopyUp`.
"""

from __future__ import annotations

import os

from corten.errors import SystemFault
from corten.linux.mount import (
    AT_FDCWD,
    MNT_DETACH,
    MS_PRIVATE,
    MS_RDONLY,
    MS_REC,
    fsconfig_create,
    fsconfig_set,
    fsmount,
    fsopen,
    mount,
    move_mount,
    umount2,
)
from corten.linux.process import CLONE_NEWNS, unshare
from corten.storage.apply import serve
from corten.storage.faults import words
from corten.storage.syscalls import open_in_root
from corten.storage.treecopy import TreeCopier

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_PAGE = 4096  # mount(2) takes no more options than this
_READ_DIR = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


def copy_up(layers: list[str], path: str, target: str) -> bool:
    """Copy the directory `path` of the image made of `layers` (topmost first) into the directory `target`.

    False when there was nothing to do: the image has no directory there, or `target` holds something already. Only in
    a process with a mount namespace of its own. Raises OSError.
    """
    volume = os.open(target, _READ_DIR)
    try:
        if os.listdir(volume):
            return False
        if len(layers) == 1:
            return _copy(layers[0], path, volume)
        # The merged tree covers the volume's path meanwhile; `volume` still leads to what is below. It stays attached
        # while it is read: in a detached mount the kernel resolves no `..` after a link (EAGAIN, for ever).
        _mount_layers(layers, target)
        try:
            return _copy(target, path, volume)
        finally:
            umount2(target, MNT_DETACH)
    finally:
        os.close(volume)


def _copy(root_path: str, path: str, volume: int) -> bool:
    root = os.open(root_path, _READ_DIR)
    try:
        place = open_in_root(root, os.fsencode(path), _READ_DIR)
    except (FileNotFoundError, NotADirectoryError):
        return False
    finally:
        os.close(root)
    try:
        TreeCopier(place, volume).run()
        return True
    finally:
        os.close(place)


def _mount_layers(layers: list[str], place: str) -> None:
    common = os.path.commonpath([os.path.dirname(layer) for layer in layers])
    os.chdir(common)  # short names, so that many layers fit in the page that mount(2) takes
    options = "lowerdir=" + ":".join(os.path.relpath(layer, common) for layer in layers)
    if len(options) < _PAGE:
        mount("overlay", place, "overlay", MS_RDONLY, options)
        return
    context = fsopen("overlay")
    try:
        for layer in layers:
            fsconfig_set(context, "lowerdir+", layer)
        fsconfig_create(context)
        merged = fsmount(context)
    finally:
        os.close(context)
    try:
        move_mount(merged, AT_FDCWD, place)
    finally:
        os.close(merged)


def _handle(request: dict[str, Any], send: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    path, target = request["path"], request["target"]
    try:
        return {"done": True, "copied": copy_up(request["layers"], path, target)}
    except OSError as error:
        number = error.errno or 0
        message = f"failed to copy {path} of the image into the volume: {words(number)}"
        raise SystemFault(message, step="copy up", errno=number) from error


def main() -> None:
    """The worker's process."""
    unshare(CLONE_NEWNS)
    mount("none", "/", flags=MS_REC | MS_PRIVATE)
    os.umask(0)
    serve(_handle)
