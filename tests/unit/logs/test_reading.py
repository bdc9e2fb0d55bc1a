"""Reading logs back: windows, rotation, following, files that crashes and other programs have left."""

from __future__ import annotations

import asyncio
import json
import struct
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from corten.errors import InvalidArgument
from corten.logs import cursor, jsonread, reader
from corten.logs.jsonfile import JsonFile, encode
from corten.logs.local import Local
from corten.logs.runs import parse_stamp
from corten.logs.types import LogSource
from corten.logs.writer import LogWriter

T = 1_700_000_000_123_456_700
SECOND = 10**9
STAMP = "2023-11-14T22:13:20.123456700Z"


@dataclass(frozen=True)
class Window:
    stdout: bool = True
    stderr: bool = True
    since_ns: int = 0
    until_ns: int = 0
    tail: int | None = None
    timestamps: bool = False
    follow: bool = False
    details: bool = False


def entries(framed: bytes) -> list[tuple[int, str]]:
    found = []
    while framed:
        stream, size = struct.unpack(">BxxxI", framed[:8])
        found.append((stream, framed[8 : 8 + size].decode()))
        framed = framed[8 + size :]
    return found


def read_all(source: LogSource, window: Window) -> bytes:
    async def run() -> bytes:
        ended = asyncio.get_running_loop().create_future()
        ended.set_result(None)
        return b"".join([chunk async for chunk in reader.read(source, window, ended)])

    return asyncio.run(run())


def make(tmp_path: Path, driver: str, max_size: int = 0, max_files: int = 1) -> tuple[LogSource, JsonFile | Local]:
    path = tmp_path / "c.log"
    kind = JsonFile if driver == "json-file" else Local
    return LogSource(driver, path), kind(str(path), max_size, max_files)


@pytest.fixture(params=["json-file", "local"])
def driver(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_lines_come_back_one_frame_each(tmp_path: Path, driver: str) -> None:
    source, log = make(tmp_path, driver)
    log.write(b'plain\nquote "x"\nback \\n slash\\\n\ttab\n', True, 1, T)
    log.write(b"err\n", True, 2, T + 1)
    log.write(b"piece", False, 1, T + 2)
    log.write(b" end\n", True, 1, T + 2)
    assert entries(read_all(source, Window())) == [
        (1, "plain\n"),
        (1, 'quote "x"\n'),
        (1, "back \\n slash\\\n"),
        (1, "\ttab\n"),
        (2, "err\n"),
        *([(1, "piece end\n")] if driver == "json-file" else [(1, "piece"), (1, " end\n")]),
    ]
    assert entries(read_all(source, Window(stdout=False))) == [(2, "err\n")]
    assert read_all(replace_tty(source), Window(stderr=False)).startswith(b'plain\nquote "x"\n')


def replace_tty(source: LogSource) -> LogSource:
    return replace(source, tty=True)


def test_timestamps_stand_before_each_line(tmp_path: Path, driver: str) -> None:
    source, log = make(tmp_path, driver)
    log.write(b'a\nb "\n', True, 1, T)
    log.write(b"c", False, 1, T)
    assert read_all(replace_tty(source), Window(timestamps=True)).decode() == (f'{STAMP} a\n{STAMP} b "\n{STAMP} c')


@pytest.mark.parametrize("tail", [0, 1, 3, 10, 11, 12, 25, 99])
def test_tail_counts_entries_over_all_files(tmp_path: Path, driver: str, tail: int) -> None:
    source, log = make(tmp_path, driver, 400, 9)
    said = []
    for start in range(0, 24, 2):
        log.write(b"line %d\nline %d\n" % (start, start + 1), True, 1 + start % 4 // 2, T + start)
        said += [f"line {start}\n", f"line {start + 1}\n"]
    found = [text for _, text in entries(read_all(source, Window(tail=tail)))]
    assert found == (said[-tail:] if tail else [])


def test_tail_does_not_read_a_big_file_from_its_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, log = make(tmp_path, "json-file")
    for n in range(30):
        log.write(b"".join(b"line %d\n" % (1000 * n + i) for i in range(1000)), True, 1, T + n)
    read = []
    real = cursor.os.pread  # type: ignore[attr-defined]

    def count(fd: int, size: int, offset: int) -> bytes:
        data: bytes = real(fd, size, offset)
        read.append(len(data))
        return data

    monkeypatch.setattr("os.pread", count)
    assert len(entries(read_all(source, Window(tail=5)))) == 5
    assert sum(read) < 300_000


def test_since_and_until_bound_the_time(tmp_path: Path, driver: str) -> None:
    source, log = make(tmp_path, driver)
    for n in range(5):
        log.write(b"%d\n" % n, True, 1, T + n * SECOND)
    window = Window(since_ns=T + SECOND, until_ns=T + 3 * SECOND)
    assert [text for _, text in entries(read_all(source, window))] == ["1\n", "2\n", "3\n"]


def test_a_docker_file_with_attributes_is_read(tmp_path: Path) -> None:
    path = tmp_path / "c.log"
    path.write_text(
        "".join(
            json.dumps(
                {
                    "log": f"<{n}>\n",
                    "stream": "stdout",
                    "attrs": {"k": "v", "a": "b"},
                    "time": f"2024-01-0{n}T00:00:00Z",
                }
            )
            .replace(": ", ":")
            .replace(", ", ",")
            + "\n"
            for n in range(1, 4)
        )
    )
    source = LogSource("json-file", path)
    assert read_all(replace_tty(source), Window(details=True)) == b"a=b,k=v <1>\na=b,k=v <2>\na=b,k=v <3>\n"
    assert read_all(replace_tty(source), Window(timestamps=True, tail=1)) == b"2024-01-03T00:00:00.000000000Z <3>\n"


def test_what_a_crash_has_left_is_skipped(tmp_path: Path) -> None:
    path = tmp_path / "c.log"
    good = encode(b"good\n", True, 1, T)
    path.write_bytes(good + b"\0" * 50 + b"\n" + good[:20] + b"\n" + b'{"log":"x"}\n' + good + good[:-5])
    source = LogSource("json-file", path)
    assert entries(read_all(source, Window())) == [(1, "good\n")] * 2
    assert entries(read_all(source, Window(tail=1))) == [(1, "good\n")]


def test_two_streams_within_one_time_stay_in_order(tmp_path: Path) -> None:
    source, log = make(tmp_path, "json-file")
    for _ in range(3):
        log.write(b"o\no\n", True, 1, T)
        log.write(b"e\n", True, 2, T)
    assert entries(read_all(source, Window())) == [(1, "o\n"), (1, "o\n"), (2, "e\n")] * 3


@pytest.mark.parametrize("text", ["back\\", "n\\n", 'q"', "\\\\n", "\x01\x7f", "ümlaut \u2028 \U0001f600", ""])
def test_a_run_gives_back_what_was_written(text: str) -> None:
    line = text.encode() + b"\n"
    block = encode(line * 5, True, 1, T) + encode(text.encode(), False, 1, T) + encode(line * 2, True, 2, T)
    runs = [(run.mark.stream, run.data) for run in jsonread.runs(block, False, False)]
    assert runs == [(1, line * 5 + text.encode()), (2, line * 2)]


def test_times_are_parsed() -> None:
    assert parse_stamp(b"2023-11-14T22:13:20.1234567Z") == T
    assert parse_stamp(b"2023-11-14T23:13:20.1234567+01:00") == T
    assert parse_stamp(b"2023-11-14T22:13:20Z") == T // SECOND * SECOND


def test_no_log_is_empty_and_other_drivers_are_refused(tmp_path: Path) -> None:
    assert read_all(LogSource("json-file", tmp_path / "none"), Window()) == b""
    with pytest.raises(InvalidArgument, match="does not support reading"):
        read_all(LogSource("none", None), Window())


async def follow(source: LogSource, window: Window, act: Callable[[asyncio.Future[None]], None], count: int) -> str:
    """What a follower sees while `act` is called after each of its chunks."""
    ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    found = ""
    asyncio.get_running_loop().call_soon(act, ended)
    async with asyncio.timeout(20):
        async for chunk in reader.read(source, window, ended):
            found += "".join(text for _, text in entries(chunk))
            if found.count("\n") < count:
                act(ended)
            elif not ended.done():
                ended.set_result(None)
    return found


@pytest.mark.parametrize("files", [1, 3])
def test_following_goes_over_rotations(tmp_path: Path, driver: str, files: int) -> None:
    source, log = make(tmp_path, driver, 300, files)
    said: list[str] = []

    def say(ended: asyncio.Future[None]) -> None:
        said.append(f"line {len(said)}\n")
        log.write(said[-1].encode(), True, 1, T + len(said))

    found = asyncio.run(follow(source, Window(follow=True), say, 30))
    assert found == "".join(said)


def test_following_ends_with_the_container_and_misses_nothing(tmp_path: Path) -> None:
    source, log = make(tmp_path, "json-file")
    log.write(b"old\nbefore\n", True, 1, T)

    def say(ended: asyncio.Future[None]) -> None:
        log.write(b"last\n", True, 1, T + 1)
        ended.set_result(None)

    assert asyncio.run(follow(source, Window(follow=True, tail=3), say, 0)) == "old\nbefore\nlast\n"


def test_a_follower_may_come_before_the_log(tmp_path: Path) -> None:
    source = LogSource("json-file", tmp_path / "c.log")

    def say(ended: asyncio.Future[None]) -> None:
        log = LogWriter(lambda: JsonFile(str(source.path), 0, 1), print)
        log.write(1, b"born\n")
        log.close()

    assert asyncio.run(follow(source, Window(follow=True, tail=10), say, 1)) == "born\n"
