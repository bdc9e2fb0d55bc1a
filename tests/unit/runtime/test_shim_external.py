"""What the shim makes of the answers of a foreign runtime's program."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest

from corten.linux.process import pidfd_open
from corten.runtime.shim.control import Refusal
from corten.runtime.shim.external import External
from corten.runtime.shim.process import Process
from corten.runtime.shim.stdio import Stdio
from tests.waiting import until


@pytest.fixture
def child() -> Iterator[int]:
    pid = os.fork()
    if pid == 0:
        while True:
            signal.pause()
    yield pid
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def test_a_signal_that_comes_too_late_is_no_error(tmp_path: Path, child: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """runc says "container not running" of a process that has ended and that the shim has not reaped yet."""
    monkeypatch.chdir(tmp_path)  # a shim goes to its run directory and then to /: not the tests after this one
    settings = {"id": "c", "runtime": "/bin/false", "runtime_args": (), "run_dir": str(tmp_path), "cgroup": ""}
    runtime = External({**settings, "root_steps": [], "root_users": None, "root_volumes": [], "config": (b"", {})})
    process = Process("", cast(Stdio, None))
    process.started(child, pidfd_open(child))
    with pytest.raises(Refusal):
        runtime.signal(process, signal.SIGTERM)
    os.kill(child, signal.SIGKILL)
    until(lambda: not process.alive(), what="the process's end")
    runtime.signal(process, signal.SIGTERM)
    os.close(process.pidfd)
