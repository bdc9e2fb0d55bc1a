"""The exit file: what remains of a container when its shim has gone. Written here, read by the client."""

from __future__ import annotations

import os


def write_exit(path: str, code: int, finished_ns: int, started_ns: int, oom_killed: bool) -> None:
    """Durably: on return the file is on disk under its name, whole. A crash leaves the old state or the new one."""
    text = (
        f'{{"code":{code},"finished_ns":{finished_ns},"started_ns":{started_ns},'
        f'"oom_killed":{"true" if oom_killed else "false"}}}\n'
    )
    directory, name = os.path.split(path)
    temporary = f"{directory}/.{name}.tmp"
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        os.write(fd, text.encode())
        os.fsync(fd)
    finally:
        os.close(fd)
    os.rename(temporary, path)
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
