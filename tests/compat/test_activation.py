"""Started by systemd, without systemd: a socket that somebody else listens on, and word that the daemon is ready."""

from __future__ import annotations

import os
import shlex
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.compat.harness import Daemon, Host
from tests.waiting import patience, until

DOCKER_GROUP = 54321
"""A group that nobody has on this machine."""


class Activated(Daemon):
    """`-H fd://`, with sockets that the test holds."""

    def __init__(self, host: Host, listening: list[socket.socket], names: str = "", address: str = "fd://") -> None:
        super().__init__(host)
        self._listening, self._names, self._address = listening, names, address

    def command(self) -> list[str]:
        return [*super().command()[:3], "-H", self._address, *self.roots]

    def start(self) -> None:
        with open(self.host.place / "log", "ab") as log:
            self.process = subprocess.Popen(
                self.activated(), stdout=log, stderr=log, pass_fds=[sock.fileno() for sock in self._listening]
            )

    def activated(self) -> list[str]:
        moved = " ".join(f"{3 + index}<&{sock.fileno()}" for index, sock in enumerate(self._listening))
        said = f"LISTEN_PID=$$ LISTEN_FDS={len(self._listening)} LISTEN_FDNAMES={self._names}"
        command = shlex.join(self.host.inside(*self.command()))
        return ["bash", "-c", f"exec env {said} {command} {moved}"]


@pytest.fixture
def host() -> Iterator[Host]:
    host = Host()
    yield host
    host.close()


def listening(path: Path) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(str(path))
    sock.listen()
    return sock


def test_a_socket_of_somebody_else(host: Host) -> None:
    """A request that comes before the daemon waits for it; the socket is there when the daemon has gone."""
    with listening(host.place / "corten.sock") as sock:
        daemon = Activated(host, [sock])
        with socket.socket(socket.AF_UNIX) as early:
            early.connect(str(daemon.socket))
            early.sendall(b"GET /_ping HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            daemon.start()
            early.settimeout(patience(20))
            assert early.recv(100).startswith(b"HTTP/1.1 200 OK")
        assert daemon.ok("version", "--format", "{{.Server.Os}}") == "linux"
        assert daemon.process is not None
        environment = Path(f"/proc/{daemon.process.pid}/environ").read_bytes()
        assert b"LISTEN_FDS=1" in environment
        daemon.stop()
        assert daemon.socket.exists()
        daemon.start()
        assert daemon.ok("ps", "-q") == ""
        daemon.close()


def test_sockets_by_name(host: Host) -> None:
    with listening(host.place / "other.sock") as other, listening(host.place / "corten.sock") as ours:
        daemon = Activated(host, [other, ours], "other:api", "fd://api")
        daemon.start()
        until(daemon.answers, what="the daemon's first answer")
        other.setblocking(False)
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(host.place / "other.sock"))
            other.accept()[0].close()  # it is still ours to accept: nobody else does
        daemon.close()


@pytest.mark.parametrize(
    ("address", "words"),
    [("fd://", "fd://: no such socket"), ("fd://api", "fd://api: no such socket"), ("shm://x", "must begin with")],
)
def test_sockets_that_are_not_there(host: Host, address: str, words: str) -> None:
    done = host.run(*Activated(host, [], address=address).command())
    assert (done.code, words in done.err) == (1, True), done.err


def test_tcp_that_was_handed_over_needs_insisting(host: Host) -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        daemon = Activated(host, [sock])
        done = subprocess.run(
            daemon.activated(), capture_output=True, text=True, check=False, pass_fds=[sock.fileno()], timeout=30
        )
    assert done.returncode == 1
    assert "gives root on this machine to whoever can reach it" in done.stderr


def test_whoever_started_it_is_told(host: Host) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
        told.bind(str(host.place / "notify"))
        told.settimeout(patience(20))
        daemon = Daemon(host)
        os.environ["NOTIFY_SOCKET"] = str(host.place / "notify")
        try:
            daemon.start()
        finally:
            del os.environ["NOTIFY_SOCKET"]
        assert told.recv(100) == b"READY=1"
        daemon.stop()
        assert told.recv(100) == b"STOPPING=1"
        daemon.close()


def test_a_group_reaches_the_socket_below_the_exec_root(host: Host) -> None:
    """As users of the group `docker` do where the daemon has its defaults."""
    host.place.chmod(0o755)
    daemon = Daemon(host)
    path = host.place / "run/api.sock"
    daemon.args = ["-H", f"unix://{path}"]
    daemon.start()
    os.chown(path, 0, DOCKER_GROUP)

    def reaches(group: int) -> bool:
        client = os.fork()
        if client == 0:
            try:
                os.setgroups([])
                os.setgid(group)
                os.setuid(65534)
                socket.socket(socket.AF_UNIX).connect(str(path))
                os._exit(0)
            finally:
                os._exit(1)
        return os.waitstatus_to_exitcode(os.waitpid(client, 0)[1]) == 0

    assert reaches(DOCKER_GROUP)
    assert not reaches(65534)
    daemon.close()
