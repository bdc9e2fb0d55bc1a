"""Attached streams and the pump between process, log and clients, over real pipes and sockets, without containers."""

from __future__ import annotations

import os
import pty
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from corten.logs.jsonfile import JsonFile
from corten.logs.writer import LogWriter
from corten.runtime.shim.framing import DetachScanner, frame_header
from corten.runtime.shim.loop import Loop
from corten.runtime.shim.stdio import QUEUE_LIMIT, Stdio
from tests.waiting import until

PLAIN = (False, True, True, False, b"", b"")
TYPING = (True, True, True, False, b"", b"")


class Stage:
    """A Stdio whose process is the test."""

    def __init__(self, *, terminal: bool = False, stdin: bool = True, once: bool = True) -> None:
        self.loop = Loop()
        self.stdio = Stdio(self.loop, terminal, stdin, once)
        self.stdio.prepare()
        if terminal:
            self.console, self.tty = pty.openpty()
        else:
            self.stdin, self.stdout, self.stderr = (os.dup(fd) for fd in self.stdio.child_fds)
        self.clients: list[socket.socket] = []

    def start(self) -> None:
        self.stdio.started(self.console if self.stdio.terminal else -1, None)

    def attach(self, settings: tuple[bool, bool, bool, bool, bytes, bytes] = PLAIN) -> socket.socket:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        self.clients.append(ours)
        self.stdio.attach(theirs.detach(), settings)
        return ours

    def settle(self) -> None:
        """Turn the loop until a turn does nothing."""
        self.loop.after(0, "settle", lambda: None)
        for _ in range(30):
            self.loop.after(0, "settle", lambda: None)
            self.loop.turn()

    def read(self, client: socket.socket) -> bytes:
        self.settle()
        data = b""
        while True:
            try:
                chunk = client.recv(1 << 20)
            except BlockingIOError:
                return data
            if not chunk:
                return data + b"<end>"
            data += chunk
            self.settle()

    def await_output(self, client: socket.socket, expected: bytes) -> None:
        """Read until it came: the kernel brings a terminal's output, and its echo, over when it gets to it."""
        data = bytearray()

        def seen() -> bool:
            data.extend(self.read(client))
            return expected in data

        until(seen)


@pytest.fixture
def stage() -> Iterator[Stage]:
    made = Stage()
    made.start()
    yield made
    close(made)


def close(stage: Stage) -> None:
    for fd in ("stdin", "stdout", "stderr", "tty"):
        if hasattr(stage, fd):
            try:
                os.close(getattr(stage, fd))
            except OSError:
                continue
    stage.stdio.finish()
    stage.stdio.drop_clients()
    for client in stage.clients:
        client.close()


def frames(data: bytes) -> list[tuple[int, bytes]]:
    found = []
    while data and data != b"<end>":
        stream, size = struct.unpack(">BxxxI", data[:8])
        found.append((stream, data[8 : 8 + size]))
        data = data[8 + size :]
    return found


def test_a_frame_has_dockers_header() -> None:
    assert frame_header(2, 0x01020304) == b"\x02\0\0\0\x01\x02\x03\x04"


@pytest.mark.parametrize(
    ("typed", "passed", "detached"),
    [
        ([b"ls\n"], b"ls\n", False),
        ([b"\x10\x11"], b"", True),
        ([b"a\x10", b"\x11b"], b"a", True),
        ([b"\x10", b"x"], b"\x10x", False),
        ([b"\x10\x10\x11"], b"\x10\x10\x11", False),  # as Docker: the byte that breaks a match does not begin one
        ([b"\x10\x10\x10\x11"], b"\x10\x10", True),
        ([b"\x11\x10"], b"\x11\x10", False),
    ],
)
def test_detach_keys(typed: list[bytes], passed: bytes, detached: bool) -> None:
    scanner = DetachScanner(b"\x10\x11")
    results = [scanner.feed(data) for data in typed]
    tail = b"" if detached else scanner.finish()
    assert b"".join(data for data, _ in results) + tail == passed
    assert results[-1][1] is detached


def test_no_keys_pass_everything() -> None:
    assert DetachScanner(b"").feed(b"\x10\x11") == (b"\x10\x11", False)


def test_output_is_framed_for_each_client(stage: Stage) -> None:
    both, errors = stage.attach(), stage.attach((False, False, True, False, b"", b""))
    os.write(stage.stdout, b"out\n")
    stage.settle()
    os.write(stage.stderr, b"err\n")
    assert frames(stage.read(both)) == [(1, b"out\n"), (2, b"err\n")]
    assert frames(stage.read(errors)) == [(2, b"err\n")]


def test_output_before_an_attach_is_not_repeated(stage: Stage) -> None:
    os.write(stage.stdout, b"early\n")
    stage.settle()
    client = stage.attach()
    os.write(stage.stdout, b"late\n")
    assert frames(stage.read(client)) == [(1, b"late\n")]


def test_a_client_attached_before_the_start_gets_all_output() -> None:
    stage = Stage()
    client = stage.attach()
    os.write(stage.stdout, b"first\n")
    stage.start()
    assert frames(stage.read(client)) == [(1, b"first\n")]
    close(stage)


def test_stdin_reaches_the_process_and_ends_with_its_client(stage: Stage) -> None:
    client = stage.attach((True, True, True, False, b"", b"pre"))
    client.send(b"fix\n")
    client.shutdown(socket.SHUT_WR)
    stage.settle()
    assert os.read(stage.stdin, 100) + os.read(stage.stdin, 100) == b"prefix\n"
    assert os.read(stage.stdin, 100) == b""
    os.write(stage.stdout, b"still\n")
    assert frames(stage.read(client)) == [(1, b"still\n")]


def test_stdin_stays_open_without_stdin_once() -> None:
    stage = Stage(once=False)
    stage.start()
    first = stage.attach(TYPING)
    first.send(b"one\n")
    first.close()
    stage.settle()
    second = stage.attach(TYPING)
    second.send(b"two\n")
    stage.settle()
    assert os.read(stage.stdin, 100) == b"one\ntwo\n"
    close(stage)


def test_a_process_that_does_not_read_holds_its_clients_back_and_loses_nothing(stage: Stage) -> None:
    client = stage.attach(TYPING)
    data = os.urandom(1 << 20) * 3
    sent, got = 0, bytearray()
    for _ in range(200):
        try:
            sent += client.send(data[sent : sent + 500_000])
        except BlockingIOError:
            break
        stage.settle()
    assert sent < len(data)
    os.set_blocking(stage.stdin, False)
    while len(got) < len(data):
        stage.settle()
        try:
            got += os.read(stage.stdin, 1 << 20)
        except BlockingIOError:
            sent += client.send(data[sent : sent + 100_000])
    assert bytes(got) == data


def test_a_client_that_leaves_with_unread_input_still_delivers_it(stage: Stage) -> None:
    client = stage.attach(TYPING)
    data = b"x" * 150_000
    client.setblocking(True)
    client.send(data)
    client.close()
    got = b""
    while len(got) < len(data):
        stage.settle()
        got += os.read(stage.stdin, 1 << 20)
    stage.settle()
    assert got == data
    assert os.read(stage.stdin, 1) == b""
    assert stage.stdio.idle


def test_a_slow_client_holds_the_process_back_and_gets_everything(stage: Stage) -> None:
    client = stage.attach((False, True, True, True, b"", b""))
    os.set_blocking(stage.stdout, False)
    block = os.urandom(50_000)
    written = 0
    for _ in range(500):
        try:
            written += os.write(stage.stdout, block)
        except BlockingIOError:
            break
        stage.settle()
    else:
        pytest.fail("the process was never held back")
    assert written > QUEUE_LIMIT
    got = b""
    while len(got) < written:
        got += stage.read(client)
    assert got == (block * (written // len(block) + 1))[:written]


def test_a_slow_client_that_goes_frees_the_process(stage: Stage) -> None:
    client = stage.attach()
    os.set_blocking(stage.stdout, False)
    for _ in range(500):
        try:
            os.write(stage.stdout, b"y" * 50_000)
        except BlockingIOError:
            break
        stage.settle()
    client.close()
    stage.settle()
    assert os.write(stage.stdout, b"y" * 50_000) == 50_000
    assert stage.stdio.idle


def test_the_end_is_told_after_the_last_byte_and_nobody_waits_for_a_slow_client(stage: Stage) -> None:
    client = stage.attach()
    for _ in range(20):
        os.write(stage.stdout, b"z" * 60_000)
        stage.settle()
    os.close(stage.stdout)
    os.close(stage.stderr)
    assert stage.stdio.drain()
    stage.stdio.finish()
    assert not stage.stdio.idle
    data = stage.read(client)
    assert sum(len(text) for _, text in frames(data.removesuffix(b"<end>"))) == 20 * 60_000
    assert data.endswith(b"<end>")
    client.close()
    stage.settle()
    assert stage.stdio.idle


def test_a_pipe_that_another_process_holds_is_not_waited_for(stage: Stage) -> None:
    os.write(stage.stdout, b"last\n")
    client = stage.attach()
    assert not stage.stdio.drain()
    stage.stdio.finish()
    assert stage.read(client) == b"\x01\0\0\0\0\0\0\x05last\n<end>"


def test_a_client_that_attaches_after_the_end_gets_the_end(stage: Stage) -> None:
    stage.stdio.drain()
    stage.stdio.finish()
    assert stage.read(stage.attach(TYPING)) == b"<end>"


def test_a_terminal_is_raw_detaches_on_keys_and_survives_the_end_of_stdin() -> None:
    stage = Stage(terminal=True)
    told: list[str] = []
    stage.stdio.on_detached = lambda: told.append("detached")
    stage.start()
    client = stage.attach((True, True, True, False, b"\x10\x11", b""))
    os.write(stage.tty, b"$ ")
    stage.await_output(client, b"$ ")
    stage.stdio.resize(40, 100)
    assert os.get_terminal_size(stage.tty) == (100, 40)
    client.send(b"ls\x10\x11")
    assert stage.read(client).endswith(b"<end>")
    assert told == ["detached"]
    again = stage.attach((True, True, True, False, b"", b""))
    os.write(stage.tty, b"more")
    stage.await_output(again, b"more")
    os.close(stage.tty)
    assert stage.stdio.drain()
    close(stage)


def test_resizing_without_a_terminal_is_refused(stage: Stage) -> None:
    with pytest.raises(OSError, match="no terminal"):
        stage.stdio.resize(1, 1)


def test_output_is_logged_and_closed_stdin_is_harmless(tmp_path: Path) -> None:
    stage = Stage()
    stage.stdio.log = LogWriter(lambda: JsonFile(str(tmp_path / "log"), 0, 1), print)
    stage.start()
    client = stage.attach(TYPING)
    os.close(stage.stdin)
    client.send(b"nobody reads this\n")
    os.write(stage.stdout, b"hello\n")
    assert frames(stage.read(client)) == [(1, b"hello\n")]
    assert b'{"log":"hello\\n","stream":"stdout"' in (tmp_path / "log").read_bytes()
    close(stage)
