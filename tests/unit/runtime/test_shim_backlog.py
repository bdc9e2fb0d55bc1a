"""The log of a stream in bulk: what is in it is what a log without a second process would hold."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from corten.logs.jsonfile import JsonFile
from corten.logs.writer import LogWriter
from corten.runtime.shim import backlog
from corten.runtime.shim.backlog import Backlog
from corten.runtime.shim.loop import Loop
from corten.runtime.shim.stdio import Stdio
from tests.waiting import until

ATTACHED = (False, True, True, True, b"", b"")
LINES = b"".join(b"line %d of a file that is long\n" % n for n in range(250_000))


def logged(path: Path) -> bytes:
    return "".join(json.loads(line)["log"] for line in path.read_text().splitlines()).encode()


def children() -> list[int]:
    return [int(pid) for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()]


class Stage:
    """A process that writes LINES, somebody who is attached to it, and its log."""

    def __init__(self, place: Path, data: bytes) -> None:
        self.loop, self.path, self.data = Loop(), place / "log", data
        self.stdio = Stdio(self.loop, terminal=False, open_stdin=False, stdin_once=False)
        self.stdio.log, self.stdio.log_path = LogWriter(lambda: JsonFile(str(self.path), 0, 1), print), str(self.path)
        self.stdio.prepare()
        self.stdout = os.dup(self.stdio.child_fds[1])
        self.client, theirs = socket.socketpair()
        self.stdio.attach(theirs.detach(), ATTACHED)
        self.stdio.started(-1, None)
        self.got = 0
        self.whole = False
        self._threads = [threading.Thread(target=self._write), threading.Thread(target=self._read)]
        for thread in self._threads:
            thread.start()

    def _write(self) -> None:
        view = memoryview(self.data)
        while view:
            view = view[os.write(self.stdout, view[: 1 << 20]) :]
        os.close(self.stdout)

    def _read(self) -> None:
        while chunk := self.client.recv(1 << 20):
            self.got += len(chunk)
        self.client.close()

    def turn(self) -> bool:
        """Run the shim's side until all of the process's output has been read."""
        self.loop.after(0.05, "turn", lambda: None)
        self.loop.turn()
        return not self.stdio._outputs

    def end(self) -> None:
        self.stdio.drain()

        def ended() -> bool:
            self.turn()
            return self.stdio.log_whole(lambda: None)

        until(ended)
        self.stdio.close_log()
        self.stdio.finish()
        until(lambda: self.turn() and self.stdio.idle)
        for thread in self._threads:
            thread.join()
        self.loop.close()


@pytest.fixture
def scribes() -> Iterator[None]:
    """None is left, as a zombie either."""
    before = children()
    yield
    for pid in set(children()) - set(before):
        os.waitpid(pid, 0)


@pytest.mark.usefixtures("scribes")
@pytest.mark.parametrize("slots", [4096, 80], ids=["with room", "with little room"])
def test_all_is_logged_in_order(tmp_path: Path, slots: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backlog, "SLOTS", slots)
    stage = Stage(tmp_path, LINES + b"and a last one without its end")
    seen = set[bool]()

    def written() -> bool:
        seen.add(stage.stdio._backlog is not None)
        return stage.turn()

    until(written)
    stage.end()
    assert seen == {False, True}, "it began without a backlog, and had one then"
    assert stage.got == len(stage.data)
    assert logged(stage.path) == stage.data


@pytest.mark.usefixtures("scribes")
def test_a_scribe_that_is_killed(tmp_path: Path) -> None:
    before = children()
    stage = Stage(tmp_path, LINES)
    until(lambda: stage.turn() or stage.stdio._backlog is not None)
    (scribe,) = set(children()) - set(before)
    os.kill(scribe, signal.SIGKILL)
    until(stage.turn)
    stage.end()
    assert stage.got == len(stage.data)
    lines = logged(stage.path).splitlines()
    assert lines[-1] == LINES.splitlines()[-1]
    whole = set(LINES.splitlines())
    assert len([line for line in lines if line not in whole]) <= 2, "only lines that were in pieces have suffered"
    assert len(lines) >= len(whole) - 2


def test_a_log_that_cannot_be_suspended_is_written_by_the_shim(tmp_path: Path) -> None:
    """Those of a driver that has a connection, or a helper of its own."""
    stage = Stage(tmp_path, LINES)
    stage.stdio.log_path = ""
    seen = set[bool]()

    def written() -> bool:
        seen.add(stage.stdio._backlog is not None)
        return stage.turn()

    until(written)
    stage.end()
    assert seen == {False}
    assert stage.got == len(LINES)
    assert logged(stage.path) == LINES


@pytest.mark.usefixtures("scribes")
def test_a_shim_that_is_killed(tmp_path: Path) -> None:
    """A fork is the shim here. What it has taken is in the log although it dies at once."""
    path = tmp_path / "log"
    shim = os.fork()
    if shim == 0:
        try:
            log = LogWriter(lambda: JsonFile(str(path), 0, 1), print)
            taken = Backlog(Loop(), log, str(tmp_path), lambda: None)
            for at in range(0, len(LINES), 1 << 18):
                taken.write(1, LINES[at : at + (1 << 18)], 1)
            os.kill(os.getpid(), signal.SIGKILL)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(shim, 0)[1]) == -signal.SIGKILL
    until(lambda: path.exists() and path.read_bytes().count(b"\n") == LINES.count(b"\n"))
    assert logged(path) == LINES


@pytest.mark.usefixtures("scribes")
def test_a_line_that_spans_the_begin_and_the_end(tmp_path: Path) -> None:
    path = tmp_path / "log"
    log = LogWriter(lambda: JsonFile(str(path), 0, 1), print)
    assert log is not None
    log.write(1, b"one ")
    log.write(2, b"other ")
    loop = Loop()
    taken = Backlog(loop, log, str(tmp_path), lambda: None)
    taken.write(1, b"line", 1)
    taken.write(2, b"line\nthen ", 1)
    taken.end()
    log.write(1, b" in parts\n")
    log.write(2, b"more\n")
    log.close()
    loop.close()
    assert sorted(logged(path).splitlines()) == [b"one line in parts", b"other line", b"then more"]


def test_without_room_the_log_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    stage = Stage(tmp_path, LINES)
    until(stage.turn)
    stage.end()
    assert (stage.got, logged(stage.path)) == (len(LINES), LINES)
