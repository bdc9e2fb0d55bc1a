"""What a layer's directory has to look like, worked out from its archive without writing anything.

A tree of nodes in memory that `apply` changes as `storage.unpack` changes the disk: the last entry of a name wins,
parents are looked up through links with the layer as root, whiteouts are marks (`overlay`) or deletions (`delete`).
File contents are kept as digests. Imported by the verifying workers: keep light.
"""

from __future__ import annotations

import hashlib
import os
from collections import deque

from corten.errors import InvalidArgument
from corten.storage.tarstream import CHAR, DIRECTORY, FIFO, HARD_LINK, REGULAR, SYMLINK, Entry, TarReader
from corten.storage.unpack import clean

_WHITEOUT = b".wh."
_OPAQUE = b".wh..wh..opq"
_RESERVED_XATTR = b"trusted.overlay."
_MAX_LINKS = 40


class Node:
    """One file. `implied` is the path of a directory that no entry has described (yet), b"" for all else.

    A regular file has `size` and the `digest` of its content, or of its `segments` where it is sparse. Names that are
    hard links of each other share their node.
    """

    __slots__ = (
        "children",
        "device",
        "digest",
        "gid",
        "implied",
        "kind",
        "link",
        "mode",
        "opaque",
        "segments",
        "size",
        "uid",
        "xattrs",
    )

    def __init__(self, kind: bytes, mode: int = 0) -> None:
        self.kind, self.mode = kind, mode
        self.uid = self.gid = self.size = self.device = 0
        self.digest = self.link = self.implied = b""
        self.opaque = False
        self.segments: list[tuple[int, int]] | None = None
        self.xattrs: dict[bytes, bytes] = {}
        self.children: dict[bytes, Node] = {}

    @property
    def whiteout(self) -> bool:
        return self.kind == CHAR and self.device == 0


class LayerModel:
    """The tree that unpacking one layer gives or, with `delete`, several over each other, the lowest first."""

    def __init__(self, *, delete: bool = False) -> None:
        self.root = Node(DIRECTORY)
        self.root.implied = b"."
        self._delete = delete
        self._written: set[bytes] = set()

    def apply(self, reader: TarReader) -> None:
        """Put one layer on. Raises InvalidArgument for an archive that could not have been unpacked."""
        self._written.clear()
        for entry in reader:
            self._one(entry, reader)
        reader.drain()

    def _one(self, entry: Entry, reader: TarReader) -> None:
        path = clean(entry.name)
        if path is None:
            raise _impossible(entry)
        parent, _, base = path.rpartition(b"/")
        if not base:
            _describe(self.root, entry)
            return
        if base.startswith(_WHITEOUT):
            self._whiteout(parent, base)
            return
        directory = self._parent(parent)
        self._written.add(path)
        if entry.kind == DIRECTORY:
            self._directory(entry, directory, base)
        elif entry.kind == HARD_LINK:
            directory.children[base] = self._linked(entry)
        else:
            directory.children[base] = _file(entry, reader)

    def _directory(self, entry: Entry, directory: Node, base: bytes) -> None:
        present = directory.children.get(base)
        if present is None or present.kind != DIRECTORY:
            made = directory.children[base] = Node(DIRECTORY)
            made.opaque = present is not None and present.whiteout and not self._delete
            present = made
        _describe(present, entry)

    def _linked(self, entry: Entry) -> Node:
        target = clean(entry.link)
        parent, _, name = (target or b"").rpartition(b"/")
        directory = self._find(parent)
        node = directory.children.get(name) if directory is not None else None
        if node is None or node.kind == DIRECTORY:
            raise _impossible(entry)
        return node

    # Whiteouts

    def _whiteout(self, parent: bytes, base: bytes) -> None:
        if base == _OPAQUE:
            directory = self._parent(parent)
            if self._delete:
                self._empty(directory, parent)
            else:
                directory.opaque = True
            return
        if base.startswith(b".wh..wh."):
            return
        directory, name = self._parent(parent), base[len(_WHITEOUT) :]
        if self._delete:
            if (parent + b"/" + name if parent else name) not in self._written:
                directory.children.pop(name, None)
        elif name not in directory.children:
            directory.children[name] = Node(CHAR)

    def _empty(self, directory: Node, path: bytes) -> None:
        for name in list(directory.children):
            below = path + b"/" + name if path else name
            if below in self._written:
                continue
            if any(written.startswith(below + b"/") for written in self._written):
                self._empty(directory.children[name], below)
            else:
                del directory.children[name]

    # Directories

    def _parent(self, path: bytes) -> Node:
        """The directory at `path`, made with those above it where it is missing."""
        if (found := self._find(path)) is not None:
            return found
        made = b""
        for part in path.split(b"/"):
            above, made = made, made + b"/" + part if made else part
            directory = self._find(above)
            if directory is not None and part not in directory.children:
                directory.children[part] = Node(DIRECTORY, 0o755)
                directory.children[part].implied = made
        if (found := self._find(path)) is None:
            raise InvalidArgument("the archive cannot have been unpacked: a parent is a link to nowhere")
        return found

    def _find(self, path: bytes) -> Node | None:
        """The directory at `path`, links followed with the layer as root; None where something is missing."""
        trail, links = [self.root], 0
        parts = deque(path.split(b"/"))
        while parts:
            part = parts.popleft()
            if part in (b"", b"."):
                continue
            if part == b"..":
                trail = trail[:-1] or [self.root]
                continue
            child = trail[-1].children.get(part)
            if child is None:
                return None
            if child.kind == SYMLINK and links < _MAX_LINKS:
                links += 1
                if child.link.startswith(b"/"):
                    trail = [self.root]
                parts.extendleft(reversed(child.link.split(b"/")))
            elif child.kind == DIRECTORY:
                trail.append(child)
            else:
                raise InvalidArgument("the archive cannot have been unpacked: a parent is no directory")
        return trail[-1]


def _file(entry: Entry, reader: TarReader) -> Node:
    """Anything but a directory and a hard link."""
    node = Node(entry.kind)
    _describe(node, entry)
    if entry.kind == REGULAR:
        hasher = hashlib.sha256()
        for piece in reader.data():
            hasher.update(piece)
        node.digest, node.segments = hasher.digest(), entry.sparse
        node.size = entry.size if entry.sparse is None else entry.real_size
    elif entry.kind == SYMLINK:
        node.link = entry.link
    elif entry.kind != FIFO:
        node.device = os.makedev(*entry.device)
    return node


def _describe(node: Node, entry: Entry) -> None:
    node.mode, node.uid, node.gid, node.implied = entry.mode, entry.uid, entry.gid, b""
    for name, value in (entry.xattrs or {}).items():
        if not name.startswith(_RESERVED_XATTR):
            node.xattrs[name] = value


def _impossible(entry: Entry) -> InvalidArgument:
    return InvalidArgument(f"the archive cannot have been unpacked: {entry.name.decode('utf-8', 'replace')[:300]}")
