"""A disk that can lose power: an ext4 file system in a file on tmpfs, mounted by a loop device.

What was synced is in the file, what was not is in memory only: a copy of the file is what a power cut leaves. It lives
in the mount namespace of its process (see `lab`), and nothing of it outlives that.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
from pathlib import Path

from corten.linux.mount import MNT_DETACH, umount2

SIZE = 40 << 20
# Its own timers must not write anything: what is on the disk is what was asked for.
_OPTIONS = "loop,commit=300,noatime"
_CHUNK = 1 << 20


class NoDisk(Exception):
    """This machine gives us no loop device, or has no mkfs.ext4."""


class Disk:
    """`place` is a directory on tmpfs; the disk is mounted on `place`/mnt, one image at a time."""

    def __init__(self, place: Path) -> None:
        self._place = place
        self.mnt = place / "mnt"
        self.mnt.mkdir()
        self._mounted = False

    def format(self, name: str) -> None:
        """A new, empty file system in the file `name`."""
        image = self._place / name
        with image.open("wb") as file:
            file.truncate(SIZE)
        options = ["-q", "-F", "-m", "0", "-J", "size=4", "-N", "4000", "-E", "lazy_itable_init=0,nodiscard"]
        _command("mkfs.ext4", *options, str(image))

    def mount(self, name: str) -> None:
        try:
            _command("mount", "-t", "ext4", "-o", _OPTIONS, str(self._place / name), str(self.mnt))
        except subprocess.CalledProcessError as error:
            if b"loop" in error.stderr:
                raise NoDisk(f"no loop device: {error.stderr.decode(errors='replace').strip()}") from None
            raise
        self._mounted = True

    def umount(self) -> None:
        if not self._mounted:
            return
        self._mounted = False
        try:
            umount2(str(self.mnt))
        except OSError:
            # A process that was killed just now may hold it for a moment more.
            umount2(str(self.mnt), MNT_DETACH)

    def copy(self, source: str, target: str) -> None:
        """Copy an image, holes as holes. Of one that is mounted: what is on the disk now."""
        with (self._place / source).open("rb") as inner, (self._place / target).open("wb") as outer:
            os.ftruncate(outer.fileno(), SIZE)
            at = 0
            while True:
                try:
                    at = os.lseek(inner.fileno(), at, os.SEEK_DATA)
                except OSError:
                    return
                end = os.lseek(inner.fileno(), at, os.SEEK_HOLE)
                while at < end:
                    data = os.pread(inner.fileno(), min(_CHUNK, end - at), at)
                    os.pwrite(outer.fileno(), data, at)
                    at += len(data)

    def write_journal(self) -> None:
        """Have the file system write its journal: what fsync of any file does."""
        fd = os.open(self.mnt / "other", os.O_WRONLY | os.O_CREAT, 0o600)
        try:
            os.write(fd, b"x")
            os.fsync(fd)
        finally:
            os.close(fd)

    def fill(self) -> None:
        """Take all room that there is."""
        fd = os.open(self.mnt / "filler", os.O_WRONLY | os.O_CREAT, 0o600)
        try:
            at, step = 0, 8 << 20
            while step >= 4096:
                try:
                    os.posix_fallocate(fd, at, step)
                    at += step
                except OSError:
                    step //= 2
        finally:
            os.close(fd)

    def clear(self) -> None:
        """Give back what `fill` took."""
        if self._mounted:
            with contextlib.suppress(FileNotFoundError):
                (self.mnt / "filler").unlink()


def _command(*words: str) -> None:
    try:
        subprocess.run(words, check=True, capture_output=True)
    except FileNotFoundError:
        raise NoDisk(f"{words[0]} is not installed") from None
