"""One daemon to one data root, and the pid file."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from corten.errors import Conflict


@contextmanager
def data_root_lock(root: Path) -> Iterator[None]:
    """Hold the data root.

    The kernel lets go of it however the daemon ends. Raises Conflict naming the daemon that has it.
    """
    path = root / "lock"
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(fd, 32, 0).decode(errors="replace").strip() or "unknown"
            raise Conflict(
                f"another cortend (pid {holder}) runs on the data root {root}; stop it, or give this one another"
                " place with --data-root and --exec-root"
            ) from None
        with suppress(OSError):  # on a full disk the pid is not told to others, and the lock holds
            os.pwrite(fd, f"{os.getpid()}\n".ljust(16).encode(), 0)
        yield
    finally:
        os.close(fd)


@contextmanager
def pidfile(path: Path | None) -> Iterator[None]:
    """Write our pid where it was asked for, and take it away again. A live process named there is refused."""
    if path is None:
        yield
        return
    _refuse_live(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{os.getpid()}\n")
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def _refuse_live(path: Path) -> None:
    try:
        pid = int(path.read_text())
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except (OSError, ValueError):
        return
    # A pid is used again by others: only one that is a cortend counts.
    if pid != os.getpid() and (b"cortend" in command or b"corten.daemon" in command):
        raise Conflict(f"process with PID {pid} is still running (found in {path})")
