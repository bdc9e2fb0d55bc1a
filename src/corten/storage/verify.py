"""The verifying worker: compares a layer's directory with what its blob says, entry by entry.

A request and its answer, one JSON object a line, with the protocol of `storage.apply`:
```
  {"blobs", "target", "delete", "lower"}  ──►     blobs: one for overlay, all from the lowest up with "delete"
                                          ◄──   {"read": bytes so far}
                                          ◄──   {"done", "diff_ids", "damage": [[path, what is wrong]…], "count"}
```
Compared are names, types, owners, modes, device numbers, link targets, hard links, sizes, contents (by SHA-256),
extended attributes and marks of overlayfs; times are not. Reading goes through the page cache, as a container's does.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat

from corten.linux.openat2 import RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS, openat2
from corten.storage.apply import serve
from corten.storage.decompress import CHUNK, chunks
from corten.storage.faults import fault, words
from corten.storage.layermodel import LayerModel, Node
from corten.storage.tarstream import BLOCK_DEVICE, CHAR, DIRECTORY, FIFO, REGULAR, SYMLINK, TarReader

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

MAX_NAMED = 50
"""Damaged paths of one layer that are named; the rest is counted."""

_REPORT_EVERY = 4 << 20
_OPAQUE = "trusted.overlay.opaque"
_FORMS = {
    REGULAR: (stat.S_IFREG, "a file"),
    DIRECTORY: (stat.S_IFDIR, "a directory"),
    SYMLINK: (stat.S_IFLNK, "a symbolic link"),
    CHAR: (stat.S_IFCHR, "a character device"),
    BLOCK_DEVICE: (stat.S_IFBLK, "a block device"),
    FIFO: (stat.S_IFIFO, "a fifo"),
}
_WORDS = dict(_FORMS.values()) | {stat.S_IFSOCK: "a socket"}
# Others may be refused or changed by the host (security modules), which is no damage.
_COMPARED_XATTRS = (b"user.", b"security.capability")


def verify_layer(
    blobs: list[str],
    target: str,
    *,
    delete: bool = False,
    lower: list[str] | None = None,
    progress: Callable[[int], None] | None = None,
) -> dict[str, Any]:
    """Compare the directory `target` with the layer `blobs[-1]`. `lower` are the directories of the layers below,
    topmost first, which lend owners and modes to directories that the archive does not describe.

    Raises InvalidArgument for a blob that cannot be read, SystemFault when there is none.
    """
    model, diff_ids = LayerModel(delete=delete), []
    for blob in blobs:
        diff_ids.append(_apply(model, blob, progress))
    comparison = Comparison(target, lower or [])
    comparison.run(model.root)
    return {"done": True, "diff_ids": diff_ids, "damage": comparison.damage, "count": comparison.count}


def _apply(model: LayerModel, blob: str, progress: Callable[[int], None] | None) -> str:
    digest, read, told = hashlib.sha256(), 0, 0

    def consumed(count: int) -> None:
        nonlocal read, told
        read += count
        if progress is not None and (read - told >= _REPORT_EVERY or not count):
            told = read
            progress(read)

    def hashed(source: Iterator[bytes]) -> Iterator[bytes]:
        for piece in source:
            digest.update(piece)
            yield piece

    try:
        fd = os.open(blob, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise fault("open blob", error) from error
    try:
        model.apply(TarReader(hashed(chunks(lambda: os.read(fd, CHUNK), consumed))))
    except OSError as error:
        raise fault("read blob", error) from error
    finally:
        os.close(fd)
    return "sha256:" + digest.hexdigest()


class Comparison:
    """Collects what is wrong in a directory: `damage` has the first MAX_NAMED [path, words], `count` all of them."""

    def __init__(self, target: str, lower: list[str]) -> None:
        self.damage: list[list[str]] = []
        self.count = 0
        self._target, self._lower = target, lower
        self._inodes: dict[int, tuple[int, bytes]] = {}  # of a node's id: its file, and the first of its names

    def run(self, root: Node) -> None:
        try:
            fd = os.open(self._target, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError as error:
            self._say(b"", words(error.errno or 0))
            return
        try:
            if not root.implied:
                self._attributes(b"", root, os.fstat(fd))
            self._tree(fd, root)
        finally:
            os.close(fd)

    def _tree(self, root: int, top: Node) -> None:
        # Directories are opened by their whole path, not kept open: a layer may be deeper than descriptors reach.
        waiting = [(b"", top)]
        while waiting:
            path, node = waiting.pop()
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
            try:
                fd = openat2(root, os.fsdecode(path) or ".", flags, RESOLVE_NO_SYMLINKS | RESOLVE_BENEATH)
            except OSError as error:
                self._say(path, words(error.errno or 0))
                continue
            try:
                waiting += self._directory(fd, path, node)
            except OSError as error:
                self._say(path, words(error.errno or 0))
            finally:
                os.close(fd)

    def _directory(self, fd: int, path: bytes, node: Node) -> list[tuple[bytes, Node]]:
        """Compare what is in one directory; those below it that are to be compared next."""
        if (_getxattr(fd, _OPAQUE) == b"y") != node.opaque:
            self._say(path, "is not marked as opaque" if node.opaque else "is marked as opaque and should not be")
        self._xattrs(fd, path, node)
        names = {os.fsencode(name) for name in os.listdir(fd)}
        for name in sorted(names - node.children.keys()):
            self._say(_join(path, name), "does not belong to the layer")
        below = []
        for name, child in node.children.items():
            place = _join(path, name)
            if name not in names:
                self._say(place, "is missing")
                continue
            try:
                if self._entry(fd, name, place, child):
                    below.append((place, child))
            except OSError as error:
                self._say(place, words(error.errno or 0))
        return below

    def _entry(self, fd: int, name: bytes, path: bytes, node: Node) -> bool:
        """Compare one entry; whether it is a directory to go into."""
        status = os.lstat(name, dir_fd=fd)
        form, word = _FORMS[node.kind]
        if stat.S_IFMT(status.st_mode) != form:
            self._say(path, f"is {_WORDS.get(stat.S_IFMT(status.st_mode), 'something else')} and should be {word}")
            return False
        self._attributes(path, node, status)
        if node.kind == DIRECTORY:
            return True
        inode, first = self._inodes.setdefault(id(node), (status.st_ino, path))
        if inode != status.st_ino:
            self._say(path, f"is no hard link to {_show(b'/' + first)}")
        if node.kind == REGULAR and first == path:
            self._content(fd, name, path, node, status)
        elif node.kind == SYMLINK and os.readlink(name, dir_fd=fd) != node.link:
            self._say(path, "points elsewhere than it should")
        return False

    def _attributes(self, path: bytes, node: Node, status: os.stat_result) -> None:
        if node.kind in (CHAR, BLOCK_DEVICE) and status.st_rdev != node.device:
            self._say(path, "is another device than it should be")
        if node.whiteout:
            return
        mode, uid, gid = node.mode, node.uid, node.gid
        if node.implied:
            found = self._below(node.implied)
            if found is None:
                return  # made as its parent wanted it
            mode, uid, gid = stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid
        if (status.st_uid, status.st_gid) != (uid, gid):
            self._say(path, f"belongs to {status.st_uid}:{status.st_gid} and should belong to {uid}:{gid}")
        if node.kind != SYMLINK and stat.S_IMODE(status.st_mode) != mode:
            self._say(path, f"has mode {stat.S_IMODE(status.st_mode):04o} and should have {mode:04o}")

    def _below(self, path: bytes) -> os.stat_result | None:
        """The directory of that name in the layers below, topmost first; never through a link."""
        for layer in self._lower:
            current: bytes = os.fsencode(layer)
            for part in path.split(b"/"):
                current += b"/" + part
                try:
                    status = os.lstat(current)
                except OSError:
                    break
                if not stat.S_ISDIR(status.st_mode):
                    break
            else:
                return status
        return None

    def _content(self, fd: int, name: bytes, path: bytes, node: Node, status: os.stat_result) -> None:
        if status.st_size != node.size:
            self._say(path, f"has {status.st_size} bytes and should have {node.size}")
            return
        file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, dir_fd=fd)
        try:
            same = _digest(file, node.segments or [(0, node.size)]) == node.digest
            if not same or (node.segments is not None and not _empty_between(file, node.segments, node.size)):
                self._say(path, "has another content than it should")
            self._xattrs(file, path, node)
        finally:
            os.close(file)

    def _xattrs(self, fd: int, path: bytes, node: Node) -> None:
        for name, value in node.xattrs.items():
            if name.startswith(_COMPARED_XATTRS) and _getxattr(fd, os.fsdecode(name), value) != value:
                self._say(path, f"has another attribute {_show(name)} than it should")

    def _say(self, path: bytes, what: str) -> None:
        self.count += 1
        if len(self.damage) < MAX_NAMED:
            self.damage.append([_show(b"/" + path), what])


def _digest(fd: int, segments: list[tuple[int, int]]) -> bytes:
    hasher = hashlib.sha256()
    for offset, length in segments:
        end = offset + length
        while offset < end and (data := os.pread(fd, min(1 << 20, end - offset), offset)):
            hasher.update(data)
            offset += len(data)
    return hasher.digest()


def _empty_between(fd: int, segments: list[tuple[int, int]], size: int) -> bool:
    """Whether a sparse file has only zeros outside of `segments`; holes are not read."""
    at = 0
    for offset, length in [*segments, (size, 0)]:
        while at < offset:
            try:
                at = os.lseek(fd, at, os.SEEK_DATA)
            except OSError as error:
                if error.errno != errno.ENXIO:
                    raise
                break  # a hole to the end
            data = os.pread(fd, min(1 << 20, max(offset - at, 0)), at)
            if data.count(0) != len(data):
                return False
            at += len(data) or 1
        at = offset + length
    return True


def _getxattr(fd: int, name: str, refused: bytes | None = None) -> bytes | None:
    """None for one that is not there; `refused` where the host keeps none of its kind: unpacking passes over that."""
    try:
        return os.getxattr(fd, name)
    except OSError as error:
        if error.errno == errno.ENODATA:
            return None
        if error.errno in (errno.ENOTSUP, errno.EPERM):
            return refused
        raise


def _join(path: bytes, name: bytes) -> bytes:
    return path + b"/" + name if path else name


def _show(path: bytes) -> str:
    text = path.decode("utf-8", "replace")
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text[:1024])


def _handle(request: dict[str, Any], send: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    return verify_layer(
        request["blobs"],
        request["target"],
        delete=request["delete"],
        lower=request["lower"],
        progress=lambda total: send({"read": total}),
    )


def main() -> None:
    """The worker's process."""
    serve(_handle)
