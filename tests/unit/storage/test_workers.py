"""Layer workers: answers, errors, cancelling, and that they go when there is nothing to do."""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from corten.errors import InvalidArgument, SystemFault, Unavailable
from corten.storage.workers import WorkerApplier, WorkerPool
from tests.unit.storage.tars import archive, directory, file
from tests.waiting import until_async


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
