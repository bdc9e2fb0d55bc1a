"""Rotation beside readers: compressed files, and followers that are slower than the files turn."""

from __future__ import annotations

import asyncio
import fcntl
import gzip
import os
from pathlib import Path

import pytest

from corten.logs import compress, cursor, files, reader
from corten.logs.jsonfile import JsonFile
from corten.logs.local import Local
from corten.logs.types import LogSource
from tests.unit.logs.test_reading import T, Window, entries, read_all
from tests.waiting import until

SECOND = 10**9
# The tests' own process has threads; what is forked here ends in os._exit.
pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


@pytest.fixture(params=["json-file", "local"])
def driver(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def make(
    tmp_path: Path, driver: str, max_size: int, max_files: int, *, compress: bool = False
) -> tuple[LogSource, JsonFile | Local]:
    path = tmp_path / "c.log"
    kind = JsonFile if driver == "json-file" else Local
    return LogSource(driver, path), kind(str(path), max_size, max_files, compress=compress)


def say(log: JsonFile | Local, start: int, end: int) -> str:
    """Lines of 50 bytes, ten in a chunk."""
    said = ""
    for n in range(start, end, 10):
        text = "".join(f"line {line:044d}\n" for line in range(n, min(end, n + 10)))
        log.write(text.encode(), True, 1, T + n)
        said += text
    return said


def text(framed: bytes) -> str:
    return "".join(line for _, line in entries(framed))


def names(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in tmp_path.iterdir())


def packed(tmp_path: Path, log: JsonFile | Local) -> None:
    """Wait until all is compressed; a file that was rotated away at the wrong moment waits for the next rotation."""
    compressor = log._file._compressor
    assert compressor is not None

    def done() -> bool:
        if compressor.busy:
            return False
        if all(name.endswith(".gz") for name in names(tmp_path) if name != "c.log"):
            return True
        compressor.start()
        return False

    until(done, what="the compressing")


def test_local_files_are_cut_where_they_are_full(tmp_path: Path) -> None:
    _, log = make(tmp_path, "local", 1000, 50)
    log.write(b"".join(b"%049d\n" % n for n in range(200)), True, 1, T)
    log.close()
    sizes = [path.stat().st_size for path in tmp_path.iterdir()]
    assert len(sizes) == 10
    assert max(sizes) < 1100
    assert sorted(sizes)[1] >= 1000


def test_rotated_files_are_compressed_and_read_back(tmp_path: Path, driver: str) -> None:
    source, log = make(tmp_path, driver, 2000, 20, compress=True)
    said = say(log, 0, 100)
    packed(tmp_path, log)
    said += say(log, 100, 150)
    packed(tmp_path, log)
    assert text(read_all(source, Window())) == said
    lines = said.splitlines(keepends=True)
    for tail in (1, 7, 60, 149, 500):
        assert text(read_all(source, Window(tail=tail))) == "".join(lines[-tail:])
    log.close()
    assert not list(tmp_path.glob("*.tmp"))


def test_a_compressed_file_is_a_gzip_file_with_its_time_and_its_old_inode(tmp_path: Path) -> None:
    path = tmp_path / "c.log.1"
    path.write_bytes(b"text\n" * 1000)
    os.utime(path, ns=(T, T))
    inode = path.stat().st_ino
    compress.compress_all(str(tmp_path / "c.log"))
    assert names(tmp_path) == ["c.log.1.gz"]
    with gzip.open(tmp_path / "c.log.1.gz") as file:
        assert file.read() == b"text\n" * 1000
    assert (tmp_path / "c.log.1.gz").stat().st_mtime_ns == T
    fd = os.open(tmp_path / "c.log.1.gz", os.O_RDONLY)
    assert compress.origin(fd) == inode
    os.close(fd)


def test_closing_ends_the_compressing(tmp_path: Path) -> None:
    path = tmp_path / "c.log"
    log = JsonFile(str(path), 40_000_000, 3, compress=True)
    (tmp_path / "c.log.1").write_bytes(os.urandom(30_000_000))
    log._file.rotate()
    log.close()
    assert names(tmp_path) == ["c.log", "c.log.1", "c.log.2"]
    compressor = log._file._compressor
    assert compressor is not None
    with pytest.raises(ChildProcessError):
        os.waitpid(compressor._pid, os.WNOHANG)


def test_a_file_that_is_followed_is_compressed_later(tmp_path: Path) -> None:
    path = tmp_path / "c.log.1"
    path.write_bytes(b"text\n")
    follower = os.open(path, os.O_RDONLY)
    assert files.lock(follower, fcntl.LOCK_SH)
    compress.compress_all(str(tmp_path / "c.log"))
    assert names(tmp_path) == ["c.log.1"]
    os.close(follower)
    compress.compress_all(str(tmp_path / "c.log"))
    assert names(tmp_path) == ["c.log.1.gz"]


def test_reading_skips_files_that_are_older_than_since(tmp_path: Path) -> None:
    source, log = make(tmp_path, "json-file", 2000, 20, compress=True)
    say(log, 0, 100)
    packed(tmp_path, log)
    for path in tmp_path.glob("*.gz"):
        os.truncate(path, 5)  # whoever reads it finds nothing
        os.utime(path, ns=(T - 5 * SECOND, T - 5 * SECOND))
    late = "late" * 10 + "\n"
    log.write(late.encode(), True, 1, T + SECOND)
    assert text(read_all(source, Window(since_ns=T + SECOND))) == late


def test_half_a_compressed_file_gives_what_it_has(tmp_path: Path) -> None:
    source, log = make(tmp_path, "json-file", 100_000, 3, compress=True)
    said = say(log, 0, 1000)
    packed(tmp_path, log)
    (found,) = tmp_path.glob("*.gz")
    os.truncate(found, found.stat().st_size - 100)
    assert said.endswith(text(read_all(source, Window()))[-50:])


class Follower:
    """A follower that is read from one chunk at a time."""

    def __init__(self, source: LogSource, **window: int | None) -> None:
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        wanted = Window(follow=True, **window)  # type: ignore[arg-type]
        self._chunks = reader.read(source, wanted, self.ended)
        self.found = ""

    async def take(self) -> None:
        async with asyncio.timeout(20):
            self.found += text(await anext(self._chunks))

    async def finish(self) -> str:
        self.ended.set_result(None)
        async with asyncio.timeout(20):
            async for chunk in self._chunks:
                self.found += text(chunk)
        return self.found


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("count", [1, 3])
def test_a_follower_that_stands_still_loses_nothing(
    tmp_path: Path, driver: str, count: int, compressed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cursor, "BLOCK", 1000)

    async def run() -> None:
        source, log = make(tmp_path, driver, 2000, count, compress=compressed and count > 1)
        said = say(log, 0, 10)
        slow, quick = Follower(source), Follower(source)
        await slow.take()
        await quick.take()
        said += say(log, 10, 500)  # dozens of rotations
        await quick.take()
        assert list(tmp_path.glob("c.log.kept.*"))
        assert await slow.finish() == said
        assert await quick.finish() == said
        assert not list(tmp_path.glob("c.log.kept.*"))
        log.close()

    asyncio.run(run())
    assert len(text(read_all(LogSource(driver, tmp_path / "c.log"), Window()))) < 10_000


def test_what_was_kept_goes_with_the_writer_or_the_follower(tmp_path: Path) -> None:
    async def run() -> None:
        source, log = make(tmp_path, "json-file", 500, 2)
        said = say(log, 0, 10)
        follower = Follower(source)
        await follower.take()
        said += say(log, 10, 50)
        log.close()  # does not take away what somebody reads
        assert list(tmp_path.glob("c.log.kept.*"))
        assert await follower.finish() == said
        assert names(tmp_path) == ["c.log", "c.log.1"]

    asyncio.run(run())


def test_a_follower_that_is_left_behind_for_good_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "KEPT_LIMIT", 3000)
    monkeypatch.setattr(cursor, "BLOCK", 1000)

    async def run() -> None:
        source, log = make(tmp_path, "json-file", 1000, 2)
        say(log, 0, 10)
        follower = Follower(source)
        await follower.take()
        last = say(log, 10, 300)[-400:]
        assert sum(path.stat().st_size for path in tmp_path.iterdir()) < 6500
        found = await follower.finish()
        assert found.count("log lines were deleted before they were read") == 1
        assert found.endswith(last)
        log.close()

    asyncio.run(run())


def test_a_follower_with_tail_goes_on_from_there(tmp_path: Path, driver: str) -> None:
    async def run() -> None:
        source, log = make(tmp_path, driver, 2000, 5)
        said = say(log, 0, 95)
        follower = Follower(source, tail=33)
        await follower.take()
        said += say(log, 95, 400)
        assert await follower.finish() == "".join(said.splitlines(keepends=True)[95 - 33 :])
        log.close()

    asyncio.run(run())


def test_without_follow_reading_ends_where_the_log_was(tmp_path: Path, driver: str) -> None:
    source, log = make(tmp_path, driver, 0, 1)
    said = say(log, 0, 10)
    here = cursor.Cursor(source, Window())
    say(log, 10, 20)
    found = b""
    while chunk := here.step():
        found += chunk
    here.close()
    assert text(found) == said


def test_a_reader_that_was_stopped_does_not_stop_the_writer(tmp_path: Path) -> None:
    """It holds the directory as a reader does while it opens files."""
    source, log = make(tmp_path, "json-file", 1000, 3)
    holder = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    assert files.lock(holder, fcntl.LOCK_SH)
    said = say(log, 0, 30)
    os.close(holder)
    assert said.endswith(text(read_all(source, Window())))
    log.close()
