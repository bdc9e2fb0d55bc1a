"""The exit file: what remains of a container when its shim has gone. Written here, read by the client."""

from __future__ import annotations

import os

RESERVED = 4096  # bytes, a block


def reserve_exit(path: str) -> None:
    """Take the place that `write_exit` will need, so that an exit is recorded on a full disk too. Raises OSError."""
    fd = os.open(_temporary(path), os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.posix_fallocate(fd, 0, RESERVED)
    finally:
        os.close(fd)


def _temporary(path: str) -> str:
    directory, name = os.path.split(path)
    return f"{directory}/.{name}.tmp"


def write_exit(path: str, code: int, finished_ns: int, started_ns: int, oom_killed: bool) -> None:
    """Durably: on return the file is on disk under its name, whole. A crash leaves the old state or the new one.

    The disk is waited for although it costs a fraction of a millisecond: once somebody was told how a container ended,
    a power cut must not take it back.
    """
    text = (
        f'{{"code":{code},"finished_ns":{finished_ns},"started_ns":{started_ns},'
        f'"oom_killed":{"true" if oom_killed else "false"}}}\n'
    )
    temporary = _temporary(path)
    # Not O_TRUNC: it would give back what `reserve_exit` took.
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        data = text.encode()
        os.write(fd, data)
        os.ftruncate(fd, len(data))
        os.fsync(fd)
    finally:
        os.close(fd)
    os.rename(temporary, path)
    fd = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
