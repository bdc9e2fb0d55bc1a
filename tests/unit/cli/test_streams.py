"""The loop between a container and this process, with socket pairs and pipes for both."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from corten.cli.errors import Exit
from corten.cli.session import Attachment, Conversation
from corten.cli.streams import Loop, Signals, write_all
from corten.cli.terminal import DetachKeys, parse_keys


class Ends:
    """The container's end of the connection, and files in the place of fds 1 and 2."""

    def __init__(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ours, self.theirs = socket.socketpair()
        self.files = {
            1: os.open(tmp_path / "out", os.O_CREAT | os.O_RDWR),
            2: os.open(tmp_path / "err", os.O_CREAT | os.O_RDWR),
        }
        monkeypatch.setattr("corten.cli.streams.write_all", lambda fd, data: write_all(self.files[fd], data))
        self.stdin, self.typed = os.pipe()

    def written(self, fd: int) -> bytes:
        return os.pread(self.files[fd], 1 << 24, 0)

    def close(self) -> None:
        self.ours.close()
        self.theirs.close()
        for fd in (*self.files.values(), self.stdin, self.typed):
            if fd >= 0:
                os.close(fd)


@pytest.fixture
def ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ends]:
    found = Ends(tmp_path, monkeypatch)
    yield found
    found.close()


def frame(stream: int, payload: bytes) -> bytes:
    return bytes((stream, 0, 0, 0)) + len(payload).to_bytes(4, "big") + payload


def test_output_goes_where_it_belongs(ends: Ends) -> None:
    ends.theirs.sendall(frame(2, b"bad") + frame(1, b"more"))
    ends.theirs.shutdown(socket.SHUT_WR)
    with Signals(()) as signals:
        loop = Loop(signals, lambda _: None)
        loop.add_stream(ends.ours, frame(1, b"early "), tty=False, stdin=None, keys=None)
        loop.run()
    assert (ends.written(1), ends.written(2)) == (b"early more", b"bad")


def test_input_that_the_container_is_slow_to_read_does_not_stop_its_output(ends: Ends) -> None:
    """A container that writes more than a socket holds before it reads: `cat` of a big file, both ways."""
    size = 4 << 20
    received = bytearray()

    def container() -> None:
        ends.theirs.sendall(frame(1, b"x" * size))
        while data := ends.theirs.recv(65536):
            received.extend(data)
        ends.theirs.sendall(frame(1, b"end"))
        ends.theirs.shutdown(socket.SHUT_WR)

    def user() -> None:
        write_all(ends.typed, b"y" * size)
        os.close(ends.typed)
        ends.typed = -1

    threads = [threading.Thread(target=container), threading.Thread(target=user)]
    for thread in threads:
        thread.start()
    with Signals(()) as signals:
        loop = Loop(signals, lambda _: None)
        loop.add_stream(ends.ours, b"", tty=False, stdin=ends.stdin, keys=None)
        loop.run()
    for thread in threads:
        thread.join(10)
    assert bytes(received) == b"y" * size
    assert ends.written(1) == b"x" * size + b"end"


def test_a_container_that_reads_no_more_is_no_error(ends: Ends) -> None:
    ends.theirs.shutdown(socket.SHUT_RD)
    os.write(ends.typed, b"lost")
    ends.theirs.sendall(b"bye")
    ends.theirs.shutdown(socket.SHUT_WR)
    with Signals(()) as signals:
        loop = Loop(signals, lambda _: None)
        loop.add_stream(ends.ours, b"", tty=True, stdin=ends.stdin, keys=None)
        loop.run()
    assert ends.written(1) == b"bye"


def test_the_keys_that_detach(ends: Ends) -> None:
    os.write(ends.typed, b"ls\r\x10\x11")
    with Signals(()) as signals:
        loop = Loop(signals, lambda _: None)
        loop.add_stream(ends.ours, b"", tty=True, stdin=ends.stdin, keys=DetachKeys())
        loop.run()
    assert loop.detached
    assert ends.theirs.recv(10) == b"ls\r"


def test_signals_are_handed_on_and_then_left_as_they_were(ends: Ends) -> None:
    before = signal.getsignal(signal.SIGUSR1)
    seen: list[int] = []

    def on_signal(number: int) -> None:
        seen.append(number)
        ends.theirs.shutdown(socket.SHUT_WR)

    with Signals((signal.SIGUSR1,)) as signals:
        loop = Loop(signals, on_signal)
        loop.add_stream(ends.ours, b"", tty=True, stdin=None, keys=None)
        os.kill(os.getpid(), signal.SIGUSR1)
        loop.run()
    assert seen == [signal.SIGUSR1]
    assert signal.getsignal(signal.SIGUSR1) == before


@pytest.mark.parametrize(
    ("pieces", "passed", "detached"),
    [
        ([b"abc"], b"abc", False),
        ([b"\x10", b"\x11"], b"", True),
        ([b"\x10x"], b"\x10x", False),
        ([b"\x10\x10\x11"], b"\x10", True),
        ([b"a\x10", b"b\x10\x11rest"], b"a\x10b", True),
    ],
)
def test_a_false_start_reaches_the_container(pieces: list[bytes], passed: bytes, detached: bool) -> None:
    keys, out, done = DetachKeys(), b"", False
    for piece in pieces:
        passed_on, done = keys.feed(piece)
        out += passed_on
    assert (out, done) == (passed, detached)


def test_keys_as_users_write_them() -> None:
    assert parse_keys("a,ctrl-@,ctrl-Z,ctrl-[,ctrl-_") == b"a\x00\x1a\x1b\x1f"
    with pytest.raises(ValueError, match="Unknown character: 'ctrl-1'"):
        parse_keys("ctrl-1")


def test_the_third_request_to_end_is_not_passed_on() -> None:
    passed: list[str] = []
    attachment = Attachment(tty=False, stdin=False, proxy=True)
    conversation = Conversation(attachment, kill=passed.append, resize=lambda *_: None)
    for number in (signal.SIGINT, signal.SIGUSR1, signal.SIGTERM):
        conversation.signalled(number)
    with pytest.raises(Exit) as caught:
        conversation.signalled(signal.SIGINT)
    assert (passed, caught.value.code) == (["INT", "USR1", "TERM"], 1)
