"""Unpacking what comes out of a container, which chooses the names and links in it."""

from __future__ import annotations

import os
import stat
from contextlib import suppress

from corten.cli.errors import CliError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import tarfile
    from collections.abc import Iterator

_READ_DIR = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def unpack(chunks: Iterator[bytes], top: str, place: str) -> int:
    """Put the archive, whose first name is `top`, at the path `place`. Bytes that came. Raises CliError.

    Below `place` no link is followed, neither one that the archive has brought nor one that was there.
    """
    import tarfile

    source = _Stream(chunks)
    try:
        with tarfile.open(fileobj=source, mode="r|", bufsize=1 << 18) as tar:  # type: ignore[call-overload]  # not in typeshed
            _Unpacker(place).run(tar, top.strip("/") or "")
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        raise CliError(f"{where}{(error.strerror or str(error)).lower()}") from None
    except tarfile.TarError as error:
        raise CliError(f"the archive cannot be read: {error}") from None
    for _ in chunks:
        pass
    return source.size


class _Stream:
    """Chunks as a file that is read in order."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks, self._rest = chunks, b""
        self.size = 0

    def read(self, size: int) -> bytes:
        parts, left = [], size
        while left:
            if not self._rest:
                self._rest = next(self._chunks, b"")
                self.size += len(self._rest)
                if not self._rest:
                    break
            part, self._rest = self._rest[:left], self._rest[left:]
            parts.append(part)
            left -= len(part)
        return b"".join(parts)


class _Unpacker:
    def __init__(self, place: str) -> None:
        self._place = place
        self._times: list[tuple[list[str], tarfile.TarInfo]] = []

    def run(self, tar: tarfile.TarFile, top: str) -> None:
        for info in tar:
            parts = [part for part in info.name.split("/") if part not in ("", ".")]
            if top not in ("", ".") and parts[:1] == [top]:
                del parts[0]
            if ".." in parts:
                raise CliError(f"the archive names {info.name!r}, outside of what was asked for")
            self._one(tar, info, parts, top)
        for parts, info in reversed(self._times):
            fd = self._open(parts)
            try:
                os.fchmod(fd, info.mode & 0o7777)
                os.utime(fd, (info.mtime, info.mtime))
            finally:
                os.close(fd)

    def _open(self, parts: list[str]) -> int:
        """The directory `parts` below the place."""
        fd = os.open(self._place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        for part in parts:
            inner = os.open(part, _READ_DIR, dir_fd=fd)
            os.close(fd)
            fd = inner
        return fd

    def _one(self, tar: tarfile.TarFile, info: tarfile.TarInfo, parts: list[str], top: str) -> None:
        if parts:
            directory, name = self._open(parts[:-1]), parts[-1]
        else:  # the thing itself
            directory = os.open(os.path.dirname(self._place) or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            name = os.path.basename(self._place) or "."
        try:
            if info.isdir():
                with suppress(FileExistsError):
                    os.mkdir(name, 0o700, dir_fd=directory)
                self._times.append((parts, info))
            else:
                self._leaf(tar, info, directory, name, top)
        finally:
            os.close(directory)

    def _leaf(self, tar: tarfile.TarFile, info: tarfile.TarInfo, directory: int, name: str, top: str) -> None:
        with suppress(FileNotFoundError):
            if stat.S_ISDIR(os.lstat(name, dir_fd=directory).st_mode):
                raise CliError(f"cannot overwrite directory {name!r} with a file")
            os.unlink(name, dir_fd=directory)
        if info.issym():
            os.symlink(info.linkname, name, dir_fd=directory)
            return
        if info.islnk():
            self._link(info, directory, name, top)
            return
        if info.isreg():
            self._regular(tar, info, directory, name)
            return
        kind = stat.S_IFIFO if info.isfifo() else stat.S_IFCHR if info.ischr() else stat.S_IFBLK
        os.mknod(name, kind | info.mode & 0o7777, os.makedev(info.devmajor, info.devminor), dir_fd=directory)

    def _link(self, info: tarfile.TarInfo, directory: int, name: str, top: str) -> None:
        parts = [part for part in info.linkname.split("/") if part not in ("", ".")]
        if top not in ("", ".") and parts[:1] == [top]:
            del parts[0]
        if ".." in parts or not parts:
            raise CliError(f"the archive links to {info.linkname!r}, outside of what was asked for")
        source = self._open(parts[:-1])
        try:
            os.link(parts[-1], name, src_dir_fd=source, dst_dir_fd=directory, follow_symlinks=False)
        finally:
            os.close(source)

    def _regular(self, tar: tarfile.TarFile, info: tarfile.TarInfo, directory: int, name: str) -> None:
        fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=directory)
        try:
            file = tar.extractfile(info)
            assert file is not None
            at = 0
            while piece := file.read(1 << 18):
                if piece.count(0) == len(piece):
                    at += len(piece)  # a hole, as it may have been one
                    continue
                while piece:
                    written = os.pwrite(fd, piece, at)
                    piece, at = piece[written:], at + written
            os.ftruncate(fd, info.size)
            os.fchmod(fd, info.mode & 0o7777)
            os.utime(fd, (info.mtime, info.mtime))
        finally:
            os.close(fd)
