"""Clients that begin to copy and go no further: nobody else waits for them."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.compat.harness import Daemon
from tests.compat.test_archive import packed
from tests.waiting import patience, until


@contextlib.contextmanager
def stalled(daemon: Daemon, request: str, body: bytes = b"", *, length: int = 0) -> Iterator[socket.socket]:
    """A client that has sent a part of its body, or reads nothing of the answer."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(patience(30))
        sock.connect(str(daemon.socket))
        sock.sendall(f"{request} HTTP/1.1\r\nHost: d\r\nContent-Length: {length}\r\n\r\n".encode() + body)
        yield sock


def begun(daemon: Daemon, name: str, action: str) -> bool:
    words = ["--since", "1", "--until", daemon.ok("info", "--format", "{{.SystemTime}}"), "--format", "{{.Action}}"]
    return action in daemon.ok("events", *words, "--filter", f"container={name}")


def is_there(daemon: Daemon, path: str) -> bool:
    return bool(list((daemon.host.place / "data/snapshots").glob(f"*/fs/{path}")))


@contextlib.contextmanager
def quick(seconds: float) -> Iterator[None]:
    begin = time.monotonic()
    yield
    assert time.monotonic() - begin < patience(seconds)


@pytest.fixture
def half_sent(daemon: Daemon) -> Iterator[socket.socket]:
    """An archive on its way into the container `box`, which does not run; its first file is there already."""
    daemon.ok("create", "--name", "box", "--network", "none", "busybox", "sleep", "1000")
    archive = packed(arrived=b"1", rest=bytes(9000))
    request = "PUT /containers/box/archive?path=/tmp"
    with stalled(daemon, request, archive[:2048], length=len(archive)) as sock:
        until(lambda: is_there(daemon, "tmp/arrived"), what="the first file")
        yield sock


def answer(sock: socket.socket) -> str:
    found = b""
    while data := sock.recv(1 << 16):
        found += data
        if b'"}' in found:
            break
    return found.decode()


def test_a_start_goes_on(daemon: Daemon, half_sent: socket.socket) -> None:
    with quick(3):
        assert daemon.ok("inspect", "-f", "{{.State.Status}}", "box") == "created"
        assert daemon.ok("ps", "-aq", "--filter", "name=box")
        daemon.ok("rename", "box", "other")
        daemon.ok("rename", "other", "box")
    with quick(12):
        daemon.ok("start", "box")
    assert "409 Error" in (told := answer(half_sent))
    assert "is being started, and the copy into it stood still" in told
    assert "arrived" in daemon.ok("exec", "box", "ls", "/tmp")


@pytest.mark.parametrize("flags", [["-f"], []])
def test_a_removal_ends_it(daemon: Daemon, half_sent: socket.socket, flags: list[str]) -> None:
    with quick(8):
        daemon.ok("rm", *flags, "box")
    assert "409 Error" in (told := answer(half_sent))
    assert "is being removed" in told
    assert daemon.docker("inspect", "box").code == 1


def test_another_copy_out_does_not_wait(daemon: Daemon, half_sent: socket.socket) -> None:
    with quick(5):
        daemon.ok("cp", "box:/etc/passwd", "-")
        daemon.ok("diff", "box")


@pytest.mark.parametrize("form", ["running", "created"])
@pytest.mark.parametrize(("what", "action"), [("archive?path=/", "archive-path"), ("export", "export")])
def test_who_does_not_read(daemon: Daemon, form: str, what: str, action: str) -> None:
    daemon.ok("create", "--name", "box", "--network", "none", "-v", "/volume", "busybox", "sleep", "1000")
    if form == "running":
        daemon.ok("start", "box")
    with stalled(daemon, f"GET /containers/box/{what}") as sock:
        until(lambda: begun(daemon, "box", action), what="its worker")
        with quick(8):
            daemon.ok("restart", "-t", "0", "box")
            daemon.ok("inspect", "box")
            daemon.ok("rm", "-fv", "box")
        until(lambda: not sock.recv(1 << 20), what="the end of the connection")


def test_many_who_do_not_read_are_in_the_way_of_no_other_container(daemon: Daemon, tmp_path: Path) -> None:
    for name in ("box", "other"):
        daemon.ok("create", "--name", name, "--network", "none", "busybox", "sleep", "1000")
    (tmp_path / "file").write_text("x\n")
    with contextlib.ExitStack() as stack:
        socks = [stack.enter_context(stalled(daemon, "GET /containers/box/archive?path=/")) for _ in range(40)]
        until(lambda: begun(daemon, "box", "archive-path"), what="the first worker")
        with quick(8):
            daemon.ok("cp", str(tmp_path / "file"), "other:/tmp/")
            daemon.ok("cp", "other:/tmp/file", str(tmp_path / "back"))
            daemon.ok("rm", "-f", "box")
        for sock in socks:
            until(lambda sock=sock: is_told(sock), what="the end of the connection")  # type: ignore[misc]


def is_told(sock: socket.socket) -> bool:
    """By the end of what it had been sent a part of, or, where it was waiting for its turn, by an answer."""
    data = sock.recv(1 << 20)
    return not data or b"is being removed" in data
