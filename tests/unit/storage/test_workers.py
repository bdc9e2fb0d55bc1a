"""Layer workers: answers, errors, cancelling, and that they go when there is nothing to do."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable
from dataclasses import astuple
from pathlib import Path

import pytest

from corten.errors import InvalidArgument, SystemFault, Unavailable
from corten.storage.types import LayerLimits
from corten.storage.workers import WorkerApplier, WorkerPool
from tests.unit.storage.tars import archive, directory, file
from tests.waiting import patience, until_async


def run(script: Callable[[WorkerApplier], Awaitable[None]], **options: float) -> None:
    async def main() -> None:
        applier = WorkerApplier(limit=2, **options)  # type: ignore[arg-type]  # idle_seconds
        try:
            await script(applier)
        finally:
            await applier.close()
        assert applier._pool.pids == []

    asyncio.run(main())


@pytest.fixture
def blob(tmp_path: Path) -> Path:
    path = tmp_path / "blob"
    path.write_bytes(archive(directory("d"), file("d/f", b"x" * 3_000_000), file("e/g")))
    return path


def target(tmp_path: Path, name: str) -> Path:
    path = tmp_path / name
    path.mkdir()
    return path


def test_apply_with_progress(tmp_path: Path, blob: Path) -> None:
    async def script(applier: WorkerApplier) -> None:
        told: list[int] = []
        applied = await applier.apply(blob, "", target(tmp_path, "t"), told.append)
        assert applied.diff_id == "sha256:" + hashlib.sha256(blob.read_bytes()).hexdigest()
        assert applied.implied == ("e",)
        assert applied.usage.inodes == 4
        assert told == sorted(told)
        assert told[-1] == blob.stat().st_size
        assert (tmp_path / "t/d/f").stat().st_size == 3_000_000

    run(script)


class Growing:
    """A blob that grows when told; `storage.types.GrowingBlob`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._steps: asyncio.Queue[tuple[int, bool]] = asyncio.Queue()
        path.write_bytes(b"")

    def grow(self, data: bytes, *, whole: bool = False) -> None:
        with self.path.open("ab") as file:
            file.write(data)
        self._steps.put_nowait((self.path.stat().st_size, whole))

    async def beyond(self, known: int) -> tuple[int, bool]:
        return await self._steps.get()


def test_a_blob_is_unpacked_as_it_grows(tmp_path: Path, blob: Path) -> None:
    async def script(applier: WorkerApplier) -> None:
        data, growing = blob.read_bytes(), Growing(tmp_path / "growing")
        into = target(tmp_path, "t")
        work = asyncio.gather(applier.apply_growing(growing, tmp_path / "final", "", into))
        growing.grow(data[:3])
        growing.grow(data[3:1_500_000])
        await until_async(lambda: (into / "d/f").exists() and (into / "d/f").stat().st_size > 1_000_000)
        os.rename(growing.path, tmp_path / "elsewhere")
        growing.path = tmp_path / "elsewhere"
        growing.grow(data[1_500_000:])
        growing.grow(b"", whole=True)
        (applied,) = await work
        assert applied is not None
        assert applied.diff_id == "sha256:" + hashlib.sha256(data).hexdigest()
        pids = applier._pool.pids
        await applier.apply(blob, "", target(tmp_path, "t2"))
        assert applier._pool.pids == pids

    run(script)


def test_a_blob_that_has_its_final_name_already(tmp_path: Path, blob: Path) -> None:
    async def script(applier: WorkerApplier) -> None:
        growing = Growing(tmp_path / "growing")
        growing.grow(blob.read_bytes(), whole=True)
        os.rename(growing.path, tmp_path / "final")
        applied = await applier.apply_growing(growing, tmp_path / "final", "", target(tmp_path, "t"))
        assert applied is not None
        assert applied.usage.inodes == 4

    run(script)


def test_a_growing_blob_that_is_bad_does_not_wait_for_its_end(tmp_path: Path, blob: Path) -> None:
    async def script(applier: WorkerApplier) -> None:
        growing = Growing(tmp_path / "growing")
        growing.grow(archive(file("../x", bytes(5000)))[:3000])
        with pytest.raises(InvalidArgument, match="outside"):
            await applier.apply_growing(growing, tmp_path / "final", "", target(tmp_path, "t"))
        assert applier._pool.pids == []

    run(script)


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        (LayerLimits(size=2_000_000), "larger than 2000000 bytes unpacked"),
        (LayerLimits(entries=2), "more than 2 entr"),
        (LayerLimits(ratio=10, ratio_from=1000), "10 times as large"),
    ],
)
def test_a_bomb_ends_at_the_limits(tmp_path: Path, blob: Path, limits: LayerLimits, words: str) -> None:
    packed = tmp_path / "packed"
    packed.write_bytes(gzip.compress(blob.read_bytes()))

    async def script() -> None:
        applier = WorkerApplier(limit=1, limits=limits)
        with pytest.raises(InvalidArgument, match=words):
            await applier.apply(packed, "", target(tmp_path, "t"))
        growing = Growing(tmp_path / "growing")
        growing.grow(packed.read_bytes())
        with pytest.raises(InvalidArgument, match=words):
            await applier.apply_growing(growing, tmp_path / "final", "", target(tmp_path, "t2"))
        await applier.close()

    asyncio.run(script())


def test_what_follows_an_archive_counts_too(tmp_path: Path, blob: Path) -> None:
    """It is read to the end, for its digest: terabytes of zeros would keep a worker for hours."""
    packed = tmp_path / "packed"
    packed.write_bytes(gzip.compress(archive(file("f")) + bytes(3_000_000)))

    async def script() -> None:
        applier = WorkerApplier(limit=1, limits=LayerLimits(size=2_000_000))
        with pytest.raises(InvalidArgument, match="larger than 2000000 bytes unpacked"):
            await applier.apply(packed, "", target(tmp_path, "t"))
        await applier.close()

    asyncio.run(script())


def test_errors_arrive_and_the_worker_goes_on(tmp_path: Path, blob: Path) -> None:
    async def script(applier: WorkerApplier) -> None:
        bad = tmp_path / "bad"
        bad.write_bytes(archive(file("../x")))
        with pytest.raises(InvalidArgument, match="outside"):
            await applier.apply(bad, "", target(tmp_path, "t1"))
        with pytest.raises(SystemFault) as caught:
            await applier.apply(blob, "", tmp_path / "missing")
        assert (caught.value.step, caught.value.errno) == ("open", 2)
        pids = applier._pool.pids
        await applier.apply(blob, "", target(tmp_path, "t2"))
        assert applier._pool.pids == pids

    run(script)


def test_more_layers_than_workers(tmp_path: Path, blob: Path) -> None:
    async def script(applier: WorkerApplier) -> None:
        done = await asyncio.gather(*(applier.apply(blob, "", target(tmp_path, f"t{i}")) for i in range(6)))
        assert len({applied.diff_id for applied in done}) == 1
        assert len(applier._pool.pids) == 2

    run(script)


def test_cancelling_kills_the_work(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)

    async def script(applier: WorkerApplier) -> None:
        # Nobody writes to the fifo, so the worker waits in open().
        task = asyncio.gather(applier.apply(fifo, "", target(tmp_path, "t")))
        await until_async(lambda: bool(applier._pool.pids))
        (pid,) = applier._pool.pids
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert applier._pool.pids == []
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)

    run(script)


def test_a_worker_that_is_killed_is_an_error_and_replaced(tmp_path: Path, blob: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)

    async def script(applier: WorkerApplier) -> None:
        task = asyncio.gather(applier.apply(fifo, "", target(tmp_path, "t1")))
        await until_async(lambda: bool(applier._pool.pids))
        os.kill(applier._pool.pids[0], signal.SIGKILL)
        with pytest.raises(SystemFault, match="ended unexpectedly"):
            await task
        await applier.apply(blob, "", target(tmp_path, "t2"))

    run(script)


def test_a_worker_that_died_while_idle_is_replaced(tmp_path: Path, blob: Path) -> None:
    async def script(applier: WorkerApplier) -> None:
        await applier.apply(blob, "", target(tmp_path, "t1"))
        (pid,) = applier._pool.pids
        os.kill(pid, signal.SIGKILL)
        (process,) = applier._pool._all
        await process.wait()
        await applier.apply(blob, "", target(tmp_path, "t2"))
        assert applier._pool.pids != [pid]

    run(script)


def test_idle_workers_end(tmp_path: Path, blob: Path) -> None:
    async def script(applier: WorkerApplier) -> None:
        await applier.apply(blob, "", target(tmp_path, "t1"))
        await until_async(lambda: not applier._pool.pids)

    run(script, idle_seconds=0.01)


def test_after_close_nothing_is_started() -> None:
    async def script() -> None:
        pool = WorkerPool("corten.storage.apply", limit=1)
        await pool.close()
        with pytest.raises(Unavailable):
            await pool.call({}, lambda _: None)

    asyncio.run(script())


def test_a_worker_whose_daemon_is_gone_ends_silently(tmp_path: Path, blob: Path) -> None:
    """Its pipe breaks a moment before the kernel kills it: that is no failure of the layer."""
    target(tmp_path, "t")
    request = {"blob": str(blob), "target": str(tmp_path / "t"), "delete": False, "bounds": astuple(LayerLimits())}
    command = [sys.executable, "-I", "-c", "from corten.storage.apply import main; main()"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as worker:
        assert worker.stdout is not None
        worker.stdout.close()
        assert worker.communicate(json.dumps(request).encode() + b"\n", timeout=patience(20))[1] == b""
    assert worker.returncode == 0
