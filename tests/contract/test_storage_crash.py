"""SIGKILL at any step: what was acknowledged is there and whole, nothing half made is left, and work goes on."""

from __future__ import annotations

import os
import random
import select
import subprocess
import sys
import time
from pathlib import Path

import pytest

from corten.storage.content import LocalContentStore
from corten.storage.database import Database
from corten.storage.documents import Documents
from corten.storage.overlay import OverlaySnapshotter

RUNS = 30
LONGEST_SECONDS = 0.08


def run_and_kill(root: Path, seed: int, seconds: float) -> list[list[str]]:
    """Start the victim, kill it `seconds` after it is ready; what it said."""
    command = [sys.executable, "-m", "tests.contract.storage_victim", str(root), str(seed)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as victim:
        assert victim.stdout is not None
        assert victim.stdout.readline() == b"ready\n"
        said = b""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            if select.select([victim.stdout], [], [], left)[0]:
                said += os.read(victim.stdout.fileno(), 65536)
        victim.kill()
        said += victim.stdout.read()
    return [line.split() for line in said.decode().splitlines()]


class Expected:
    """What the victims have acknowledged."""

    def __init__(self) -> None:
        self.blobs: set[str] = set()
        self.layers: set[str] = set()
        self.containers: set[str] = set()
        self.removing: set[str] = set()

    def note(self, said: list[list[str]]) -> None:
        kinds = {"blob": self.blobs, "layer": self.layers, "container": self.containers, "removing": self.removing}
        for kind, name in said:
            kinds[kind].add(name)


def check(root: Path, expected: Expected) -> None:
    content, database = LocalContentStore(root / "content"), Database(root / "meta.db")
    try:
        snapshots = OverlaySnapshotter(root / "snapshots", database)
        found = {info.digest for info in content.walk()}
        assert found >= expected.blobs
        for digest in found:
            content.verify(digest)
        infos = {info.key: info for info in snapshots.walk()}
        committed = {key for key, info in infos.items() if info.kind == "committed"}
        assert committed >= expected.layers
        for key in committed:
            layer = snapshots.layer_dir(key)
            assert len(list(layer.glob("d?/*"))) == 20
            assert all(path.stat().st_size == 3000 for path in layer.glob("d?/*"))
            assert infos[key].parent in committed | {""}
        assert set(Documents(database, "container").all()) >= expected.containers
        assert {key.removeprefix("container-") for key in infos} >= expected.containers - expected.removing
        for info in list(infos.values()):
            if info.key.startswith("unpack-"):
                snapshots.remove(info.key)  # as the image service does at start
        snapshots.settle()
        numbers = {name for name in os.listdir(root / "snapshots") if name != "trash"}
        assert len(numbers) == len(list(snapshots.walk()))
        assert os.listdir(root / "snapshots" / "trash") == []
        assert list((root / "snapshots").glob("*/fs/.*")) == []
    finally:
        database.close()


def test_kill_at_any_step(tmp_path: Path) -> None:
    expected = Expected()
    choose, longest = random.Random(20261124), LONGEST_SECONDS
    for seed in range(RUNS):
        expected.note(run_and_kill(tmp_path, seed, choose.uniform(0, longest)))
        check(tmp_path, expected)
        if len(expected.containers) <= seed:
            longest *= 1.2  # a slow machine gets as far, with more time
    assert len(expected.containers) >= RUNS


@pytest.mark.parametrize("cut", [0, 1])
def test_an_ingest_that_was_killed_goes_on(tmp_path: Path, cut: int) -> None:
    program = (
        "import sys, os, pathlib; from corten.storage.content import LocalContentStore;"
        f"i = LocalContentStore(pathlib.Path({str(tmp_path)!r})).ingest('x'); i.write(b'a' * 70000 * {cut});"
        "os.kill(os.getpid(), 9)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == -9
    ingest = LocalContentStore(tmp_path).ingest("x")
    assert ingest.offset == 70000 * cut
    ingest.abort()


def test_workers_die_with_the_daemon(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "layer").mkdir()
    program = """
import asyncio, os, pathlib, sys
from corten.storage.workers import WorkerApplier
async def main():
    applier = WorkerApplier()
    task = asyncio.ensure_future(applier.apply(*(pathlib.Path(sys.argv[1]), "", pathlib.Path(sys.argv[2]))))
    while not applier._pool.pids:
        await asyncio.sleep(0)
    print(applier._pool.pids[0], flush=True)
    await task
asyncio.run(main())
"""
    command = [sys.executable, "-c", program, str(tmp_path / "fifo"), str(tmp_path / "layer")]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as daemon:
        assert daemon.stdout is not None
        worker = int(daemon.stdout.readline())
        pidfd = os.pidfd_open(worker)
        # The worker opens the fifo once it has asked to die with its parent; the other end tells us that it has.
        writer = os.open(tmp_path / "fifo", os.O_WRONLY)
        daemon.kill()
        daemon.wait()
        try:
            assert select.select([pidfd], [], [], 10)[0]
        finally:
            os.close(writer)
            os.close(pidfd)
