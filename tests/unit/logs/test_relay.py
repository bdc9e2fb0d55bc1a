"""Drivers in a helper: nothing is lost while it can be delivered, and the container waits for nobody for ever."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from corten.logs import helper, relay
from corten.logs.local import Local
from corten.logs.rare import open_rare
from corten.logs.relay import Cached, Relay
from corten.logs.types import LogSource
from corten.logs.writer import CannotOpen, LogWriter, open_log
from corten.runtime.shim.loop import Loop
from tests.unit.logs.test_reading import T, Window, entries, read_all
from tests.waiting import patience, until

if TYPE_CHECKING:
    from corten.logs.writer import Settings

# The tests' own process has threads; what is forked here ends in os._exit.
pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


class Gate:
    """A sender that writes lines to a file while another file says "go"."""

    def __init__(self, directory: Path) -> None:
        self.go, self.file, self.broken = directory / "go", directory / "lines", directory / "broken"

    def open(self) -> None:
        if self.broken.exists():
            raise OSError("it is broken")

    def send(self, data: bytes, terminated: bool, stream: int, stamp_ns: int) -> tuple[bytes, OSError | None]:
        until(self.go.exists, what="the word to go")
        if self.broken.exists():
            return data, OSError("it is broken")
        with open(self.file, "ab") as file:
            file.write(b"%d %d " % (stream, stamp_ns) + data + (b"" if terminated else b"|"))
        return b"", None

    def close(self) -> None:
        return


class Stage:
    """A relay, the loop that it needs, and what it has complained of."""

    def __init__(self, directory: Path, *, limit: int = 1_000_000, blocking: bool = True) -> None:
        self.gate = Gate(directory)
        self.loop = Loop()
        self.said: list[str] = []
        self.relay = Relay(lambda: self.gate, self.loop, self.said.append, limit, blocking)

    def turn_until(self, probe: Callable[[], object], what: str) -> None:
        def turned() -> object:
            self.loop.after(0.01, "turn", lambda: None)
            self.loop.turn()
            return probe()

        until(turned, what=what)

    def delivered(self) -> bytes:
        return self.gate.file.read_bytes() if self.gate.file.exists() else b""


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    made = Stage(tmp_path)
    yield made
    made.gate.go.touch()
    made.relay.close()
    made.loop.close()


def fill(log: Relay, line: bytes, count: int) -> float:
    start = time.monotonic()
    for _ in range(count):
        log.write(line, True, 1, T)
    return time.monotonic() - start


def test_lines_arrive_as_they_were_said(stage: Stage) -> None:
    stage.gate.go.touch()
    stage.relay.write(b"one\ntwo\n", True, 1, T)
    stage.relay.write(b"piece", False, 2, T + 1)
    stage.relay.close()
    assert stage.delivered() == b"1 %d one\ntwo\n2 %d piece|" % (T, T + 1)
    assert stage.said == []


def test_what_is_not_taken_yet_is_sent_when_it_can_be(stage: Stage) -> None:
    line = b"x" * 9_999 + b"\n"
    fill(stage.relay, line, 80)  # more than the kernel holds for a socket
    assert stage.delivered() == b""
    stage.gate.go.touch()
    stage.turn_until(lambda: stage.delivered().count(line) == 80, "all lines")
    assert stage.said == []


def test_a_non_blocking_log_drops_what_is_too_much_counts_it_and_never_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay, "STALL", 60)
    stage = Stage(tmp_path, limit=100_000, blocking=False)
    took = fill(stage.relay, b"x" * 999 + b"\n", 2000)
    assert took < patience(20)
    assert stage.said == ["log lines are dropped: whoever takes them is too slow, or away"]
    stage.gate.go.touch()
    stage.relay.close()
    assert stage.said[1:] == [f"{2000 - stage.delivered().count(b'x' * 999)} log lines were dropped"]
    assert 100 <= stage.delivered().count(b"x" * 999) < 1000
    stage.loop.close()


def test_of_a_chunk_what_fits_is_taken(tmp_path: Path) -> None:
    stage = Stage(tmp_path, limit=1000, blocking=False)
    while not stage.relay._queue:  # until the socket is full
        stage.relay.write(b"y" * 99_999 + b"\n", True, 1, T)
    stage.relay._limit = stage.relay._queued + 500
    stage.relay.write(b"1234567\n" * 100, True, 1, T)
    stage.gate.go.touch()
    stage.relay.close()
    assert stage.said[1:] == [f"{100 - 62} log lines were dropped"]
    assert stage.delivered().endswith(b"\n1 %d " % T + b"1234567\n" * 62)
    stage.loop.close()


def test_a_blocking_log_waits_but_not_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay, "STALL", 0.3)
    stage = Stage(tmp_path, limit=100_000)
    took = fill(stage.relay, b"x" * 999 + b"\n", 2000)
    assert 0.3 <= took < patience(10)  # once, not for every line
    assert len(stage.said) == 1
    stage.gate.go.touch()
    stage.turn_until(lambda: not stage.relay._queue, "the queue")
    stage.relay.write(b"after\n", True, 1, T)
    stage.relay.close()
    assert stage.delivered().endswith(b"after\n")
    stage.loop.close()


def test_a_blocking_log_is_held_to_the_pace_of_its_taker_without_loss(tmp_path: Path) -> None:
    stage = Stage(tmp_path, limit=50_000)
    stage.gate.go.touch()
    fill(stage.relay, b"x" * 999 + b"\n", 5000)
    stage.relay.close()
    assert stage.delivered().count(b"\n") == 5000
    assert stage.said == []
    stage.loop.close()


def test_a_driver_that_fails_is_tried_again_and_nothing_is_lost(stage: Stage) -> None:
    stage.gate.go.touch()
    stage.gate.broken.touch()
    stage.relay.write(b"one\n", True, 1, T)
    stage.turn_until(lambda: stage.said, "the complaint")
    stage.relay.write(b"two\n", True, 1, T)
    stage.gate.broken.unlink()
    stage.turn_until(lambda: stage.delivered().endswith(b"two\n"), "the lines")
    assert b"one\n" in stage.delivered()
    assert stage.said == ["the log is interrupted: it is broken"]


def test_at_the_end_a_driver_that_fails_is_given_up(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    stage.gate.go.touch()
    stage.gate.broken.touch()
    stage.relay.write(b"one\ntwo\n", True, 1, T)
    start = time.monotonic()
    stage.relay.close()
    assert helper.FAREWELL <= time.monotonic() - start < relay.LAST
    assert stage.said == ["the log is interrupted: it is broken", "2 log lines could not be delivered"]


def test_the_end_of_a_container_waits_for_a_taker_that_hangs_no_longer_than_it_must(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay, "LAST", 0.3)
    stage = Stage(tmp_path)
    stage.relay.write(b"one\n", True, 1, T)
    start = time.monotonic()
    stage.relay.close()
    assert time.monotonic() - start < patience(2)
    stage.gate.go.touch()
    until(lambda: stage.delivered().endswith(b"one\n"), what="the helper, which goes on alone")
    os.waitpid(stage.relay._pid, 0)
    stage.loop.close()


def test_a_helper_that_was_killed_is_followed_by_another(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay, "AGAIN", 0.0)
    stage.gate.go.touch()
    stage.relay.write(b"one\n", True, 1, T)
    stage.turn_until(lambda: stage.delivered().endswith(b"one\n"), "the line")
    pid = stage.relay._pid
    os.kill(pid, signal.SIGKILL)
    stage.turn_until(lambda: stage.relay._socket is None, "the end of the helper")
    stage.relay.write(b"two\n", True, 1, T)
    stage.turn_until(lambda: stage.delivered().endswith(b"two\n"), "the next line")


def test_a_driver_that_cannot_be_opened_refuses_the_start(tmp_path: Path) -> None:
    (tmp_path / "broken").touch()
    with pytest.raises(OSError, match=r"^it is broken$"):
        Stage(tmp_path)


def test_the_helper_holds_no_descriptor_of_the_shim(stage: Stage) -> None:
    pid = stage.relay._pid
    until(lambda: len(os.listdir(f"/proc/{pid}/fd")) == 4, what="its socket beside the standard three")


def settings(tmp_path: Path, driver: str, **more: object) -> Settings:
    return (driver, str(tmp_path / "c.log"), 0, 1, more)


@pytest.mark.parametrize("driver", ["json-file", "local"])
def test_a_non_blocking_file_is_whole_when_the_log_is_closed(tmp_path: Path, driver: str) -> None:
    loop = Loop()
    said: list[str] = []
    log = open_log(settings(tmp_path, driver, buffer=10_000_000), said.append, loop)
    assert isinstance(log, LogWriter)
    text = b"".join(b"line %d\n" % n for n in range(50_000))
    for at in range(0, len(text), 16384):
        log.write(1, text[at : at + 16384])
    log.write(2, b"the end")
    log.close()
    loop.close()
    assert read_all(LogSource(driver, tmp_path / "c.log", tty=True), Window()) == text + b"the end"
    assert said == []


def test_what_is_sent_away_is_kept_for_reading(tmp_path: Path) -> None:
    remote = {
        "network": "unixgram", "address": str(tmp_path / "s"), "facility": 3, "format": "", "tag": "T",
        "tls": {},
    }  # fmt: skip
    loop = Loop()
    with pytest.raises(CannotOpen, match="dial unixgram"):
        open_rare(settings(tmp_path, "syslog", remote=remote), print, loop)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.settimeout(patience(20))
        server.bind(str(tmp_path / "s"))
        log = open_rare(settings(tmp_path, "syslog", remote=remote, buffer=1000), print, loop)
        assert isinstance(log, Cached)
        log.write(b"hello\n", True, 1, T)
        assert server.recv(999).endswith(b" T[%d]: hello\n" % os.getpid())
        log.close()
    loop.close()
    assert entries(read_all(LogSource("local", tmp_path / "c.log"), Window())) == [(1, "hello\n")]


def test_a_cache_that_fails_does_not_keep_lines_from_the_driver(tmp_path: Path, stage: Stage) -> None:
    cache = Local(str(tmp_path / "cache"), 0, 1)
    os.close(cache._file._fd)
    stage.gate.go.touch()
    both = Cached(stage.relay, cache)
    with pytest.raises(OSError, match="Bad file descriptor"):
        both.write(b"one\n", True, 1, T)
    stage.turn_until(lambda: stage.delivered().endswith(b"one\n"), "the line")
