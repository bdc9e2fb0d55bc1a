"""Files in memory that nobody can change any more."""

from __future__ import annotations

import fcntl
import os

# linux/fcntl.h
F_ADD_SEALS = 1033
F_GET_SEALS = 1034
F_SEAL_SEAL = 1
F_SEAL_SHRINK = 2
F_SEAL_GROW = 4
F_SEAL_WRITE = 8

# linux/memfd.h
MFD_CLOEXEC = 1
MFD_ALLOW_SEALING = 2
MFD_EXEC = 16

_ALL_SEALS = F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE


def is_sealed(path: str) -> bool:
    """Whether the file can never change again. Raises OSError when it cannot be opened."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return fcntl.fcntl(fd, F_GET_SEALS) & _ALL_SEALS == _ALL_SEALS
    except OSError:  # EINVAL: no file in memory
        return False
    finally:
        os.close(fd)


def sealed_copy(path: str, name: str) -> int:
    """A read-only copy of the file at `path`; its descriptor, close-on-exec.

    A process executed from it cannot have its program overwritten through /proc/PID/exe (CVE-2019-5736).
    """
    try:
        fd = os.memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_EXEC)
    except OSError as error:
        if error.errno != 22:  # EINVAL: MFD_EXEC is unknown before Linux 6.3, where every memfd is executable
            raise
        fd = os.memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING)
    try:
        source = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            while os.sendfile(fd, source, None, 1 << 24):
                pass
        finally:
            os.close(source)
        os.fchmod(fd, 0o555)
        fcntl.fcntl(fd, F_ADD_SEALS, _ALL_SEALS)
    except BaseException:
        os.close(fd)
        raise
    return fd
