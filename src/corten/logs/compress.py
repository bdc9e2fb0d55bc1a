"""Compressing what was rotated away, in a process of its own, so that the container never waits for it.

A file becomes `NAME.gz`, which any gzip reads; its header says, in a field of ours, which inode the file had, so that
a follower that is still reading the old one finds its place. A file that a follower is reading is left for later.

Loaded by shims that compress only.
"""

from __future__ import annotations

import fcntl
import os

from corten.logs.files import followed, lock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

SUFFIX = ".gz"
_WORK = ".gz.tmp"
_BLOCK = 256 * 1024
# RFC 1952: magic, deflate, FLG with FEXTRA alone, no time, XFL 0, Unix; then one subfield "CT" with the inode.
_HEAD = b"\x1f\x8b\x08\x04\0\0\0\0\0\x03" + (12).to_bytes(2, "little") + b"CT" + (8).to_bytes(2, "little")


class Compressor:
    """At most one process at a time; it takes all that there is to compress, so a rotation in between is not lost."""

    __slots__ = ("_path", "_pid", "_watch")

    def __init__(self, path: str) -> None:
        self._path = path
        self._pid, self._watch = 0, -1

    @property
    def busy(self) -> bool:
        """Whether the process is there. It holds the other end of a pipe."""
        if self._watch < 0:
            return False
        try:
            os.read(self._watch, 1)
        except BlockingIOError:
            return True
        os.close(self._watch)
        self._watch = -1
        self._wait(os.WNOHANG)
        return False

    def start(self) -> None:
        if self.busy:
            return
        self._watch, theirs = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._pid = os.fork()
        if not self._pid:
            _run(self._path, theirs)
        os.close(theirs)

    def stop(self) -> None:
        """End the process if it is still at work: whoever deletes the directory next is not to meet it."""
        if not self.busy:
            return
        os.kill(self._pid, 9)  # not waited for yet, so it is ours
        self._wait(0)
        os.close(self._watch)
        self._watch = -1
        if os.path.exists(self._path + _WORK):
            os.unlink(self._path + _WORK)

    def _wait(self, options: int) -> None:
        try:
            os.waitpid(self._pid, options)
        except ChildProcessError:  # the shim waits for whoever ends
            return


def _run(path: str, keep: int) -> NoReturn:
    """Code after fork: ends in os._exit on every path."""
    try:
        os.closerange(3, keep)
        os.closerange(keep + 1, 1 << 20)
        os.nice(5)
        compress_all(path)
    except OSError as error:
        os.write(2, f"log files stay uncompressed: {error}\n".encode())
        os.unlink(path + _WORK)
    finally:
        os._exit(0)


def compress_all(path: str) -> None:
    """Compress every rotated file of the log `path` that is not compressed yet and that nobody follows."""
    directory = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    passed: set[int] = set()
    while (found := _next(path, passed)) is not None:
        fd, inode = found
        passed.add(inode)
        try:
            _compress(fd, inode, path + _WORK)
            _replace(directory, path, inode)
        finally:
            os.close(fd)
    os.close(directory)


def _rotated(path: str) -> list[str]:
    directory, base = os.path.split(path)
    names = [name for name in os.listdir(directory) if name.startswith(base + ".") and name[len(base) + 1 :].isdigit()]
    return [f"{directory}/{name}" for name in sorted(names, key=lambda name: int(name[len(base) + 1 :]))]


def _next(path: str, passed: set[int]) -> tuple[int, int] | None:
    """The newest file that is not compressed: its descriptor, which keeps its inode from being used again."""
    for name in _rotated(path):
        try:
            fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:  # a rotation came in between
            continue
        inode = os.fstat(fd).st_ino
        if inode not in passed:
            return fd, inode
        os.close(fd)
    return None


def _compress(fd: int, inode: int, target: str) -> None:
    import zlib

    packer = zlib.compressobj(6, zlib.DEFLATED, -15)
    check, size = 0, 0
    stat = os.fstat(fd)
    out = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, stat.st_mode & 0o777)
    with open(out, "wb", buffering=_BLOCK) as file:
        file.write(_HEAD + inode.to_bytes(8, "little"))
        while block := os.read(fd, _BLOCK):
            check, size = zlib.crc32(block, check), size + len(block)
            file.write(packer.compress(block))
        file.write(packer.flush() + check.to_bytes(4, "little") + (size & 0xFFFFFFFF).to_bytes(4, "little"))
    os.utime(target, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def _replace(directory: int, path: str, inode: int) -> None:
    """Put the compressed file in the place of the one with this inode, under the name that it has by now."""
    locked = lock(directory, fcntl.LOCK_EX)
    try:
        for name in _rotated(path):
            if locked and os.stat(name).st_ino == inode and not followed(name):
                os.rename(path + _WORK, name + SUFFIX)
                os.unlink(name)
                return
        os.unlink(path + _WORK)
    finally:
        if locked:
            fcntl.flock(directory, fcntl.LOCK_UN)


def origin(fd: int) -> int:
    """The inode that a compressed file had before; 0 for one that others have compressed."""
    head = os.pread(fd, len(_HEAD) + 8, 0)
    return int.from_bytes(head[len(_HEAD) :], "little") if head.startswith(_HEAD) else 0
