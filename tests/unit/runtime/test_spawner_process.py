from __future__ import annotations

import asyncio
import signal
import socket
import subprocess
from pathlib import Path

import pytest

from corten.runtime import spawner_process
from corten.runtime.spawner_process import SpawnerProcess


def test_a_spawner_that_does_not_end_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was left running, with nobody to reap it, when the machine was too slow for its two seconds."""
    processes = []

    def start(log_file: Path, limit: tuple[int, int]) -> tuple[subprocess.Popen[bytes], socket.socket]:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            processes.append(subprocess.Popen(["sleep", "1000"], pass_fds=(theirs.fileno(),)))
        ours.setblocking(False)
        return processes[0], ours

    async def scenario() -> None:
        spawner = SpawnerProcess(tmp_path / "log")
        await spawner.start()
        await spawner.close()

    monkeypatch.setattr(spawner_process, "start_process", start)
    monkeypatch.setattr(spawner_process, "GOODBYE", 0.05)
    asyncio.run(scenario())
    assert processes[0].returncode == -signal.SIGKILL
