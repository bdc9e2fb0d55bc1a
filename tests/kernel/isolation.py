"""A place for a test that changes links, rules and mounts: a child process in network and mount namespaces of its own.

Everything that the test makes ends with the child, so that a failing test leaves nothing on the host either.
"""

from __future__ import annotations

import os
import subprocess
import traceback
from collections.abc import Callable

from corten.linux.mount import MS_PRIVATE, MS_REC, mount
from corten.linux.process import CLONE_NEWNET, unshare

CLONE_NEWNS = 0x20000


def isolated(work: Callable[[], None]) -> None:
    """Run `work` in a child with fresh namespaces, `lo` up. Raises AssertionError with the child's traceback."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        _child(work, writer)
    os.close(writer)
    with open(reader, "rb") as file:
        report = file.read().decode(errors="replace")
    _, status = os.waitpid(pid, 0)
    if status or report:
        raise AssertionError(report or f"the isolated test ended with status {status}")


def _child(work: Callable[[], None], writer: int) -> None:
    status = 1
    try:
        unshare(CLONE_NEWNET | CLONE_NEWNS)
        mount("", "/", "", MS_REC | MS_PRIVATE)
        run("ip", "link", "set", "lo", "up")
        work()
        status = 0
    except BaseException:
        os.write(writer, traceback.format_exc().encode()[-60000:])
    finally:
        os._exit(status)


def run(*argv: str) -> str:
    """Output of a command that must succeed."""
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode:
        raise AssertionError(f"{' '.join(argv)}: {done.stderr or done.stdout}")
    return done.stdout
