"""Unpacking what `docker cp` sends into a directory of the container. Imported by the workers: keep light."""

from __future__ import annotations

import errno
import os
import stat

from corten.errors import InvalidArgument
from corten.linux.openat2 import RESOLVE_NO_MAGICLINKS, openat2
from corten.storage.tarstream import DIRECTORY, Entry, TarReader
from corten.storage.unpack import Unpacker, clean


def _reach(root: int, path: bytes, flags: int) -> int:
    """Links lead where the container would be led by them: its root is the root of this process."""
    return openat2(root, os.fsdecode(path), flags, RESOLVE_NO_MAGICLINKS)


class Extractor(Unpacker):
    """Names are taken as they are, `.wh.` ones too; the directory itself keeps its owner, mode and time.

    With `keep_kinds` a directory is not replaced by something else, nor the other way round. `owner` (uid, gid) takes
    the place of those in the archive. The root of this process must be the container's (`root.enter`).
    """

    whiteouts = False
    reach = staticmethod(_reach)

    def __init__(self, directory: int, name: str, *, keep_kinds: bool, owner: tuple[int, int] | None = None) -> None:
        """`name` is the directory's, for what is told of failures."""
        super().__init__(directory)
        self.above = name.strip("/") + "/" if name != "/" else ""
        self._name, self._keep_kinds, self._owner = name, keep_kinds, owner

    def path_of(self, directory: int, base: bytes) -> bytes:
        os.fchdir(directory)  # there is no /proc
        return base

    def _top(self, entry: Entry) -> None:
        return

    def _clear(self, entry: Entry, directory: int, base: bytes) -> int:
        if self._keep_kinds:
            status = os.lstat(base, dir_fd=directory)
            if stat.S_ISDIR(status.st_mode) != (entry.kind == DIRECTORY):
                there, new = (
                    ("directory", "non-directory") if entry.kind != DIRECTORY else ("non-directory", "directory")
                )
                name = (clean(entry.name) or b"").decode("utf-8", "replace")
                raise InvalidArgument(f'cannot overwrite {there} "/{self.above}{name}" with {new} "{self._name}"')
        return super()._clear(entry, directory, base)

    def _node(self, entry: Entry, directory: int, base: bytes, path: bytes) -> None:
        try:
            super()._node(entry, directory, base, path)
        except PermissionError as error:
            # In a user namespace nobody makes devices: left out, as Docker does.
            if error.errno != errno.EPERM:
                raise

    def _one(self, entry: Entry, reader: TarReader) -> None:
        if self._owner is not None:
            entry.uid, entry.gid = self._owner
        super()._one(entry, reader)
