"""Connections that are given away: attach and exec start, over real sockets, on both event loops."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from corten.testing.engine_containers import frame
from tests.unit.api.support import Api, read_all, read_head, serve

UPGRADE = b"Host: docker\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n"


@pytest.fixture(params=["asyncio", "uvloop"])
def api(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Api]:
    with serve(tmp_path, loop=request.param) as served:
        yield served


def attach_request(container_id: str, *, version: str = "1.48", headers: bytes = UPGRADE) -> bytes:
    query = "stream=1&stdin=1&stdout=1&stderr=1"
    return f"POST /v{version}/containers/{container_id}/attach?{query} HTTP/1.1\r\n".encode() + headers + b"\r\n"


def finish(sock: socket.socket, rest: bytes = b"") -> bytes:
    sock.shutdown(socket.SHUT_WR)
    return rest + read_all(sock)


def test_attach_upgrades_and_output_goes_on_after_the_client_closed_its_side(api: Api) -> None:
    container_id = api.started(OpenStdin=True)
    with api.connect() as sock:
        sock.sendall(attach_request(container_id))
        head, rest = read_head(sock)
        lines = head.decode().split("\r\n")
        assert lines[0] == "HTTP/1.1 101 UPGRADED"
        assert "Content-Type: application/vnd.docker.multiplexed-stream" in lines
        assert "Upgrade: tcp" in lines
        assert "Connection: Upgrade" in lines
        sock.sendall(b"hello")
        assert finish(sock, rest) == frame(1, b"HELLO")


@pytest.mark.parametrize(("tty", "version"), [(True, "1.48"), (False, "1.41")])
def test_the_content_type_is_raw_with_a_terminal_and_for_old_clients(api: Api, tty: bool, version: str) -> None:
    container_id = api.started(Tty=tty)
    with api.connect() as sock:
        sock.sendall(attach_request(container_id, version=version))
        head, rest = read_head(sock)
        assert b"Content-Type: application/vnd.docker.raw-stream" in head
        sock.sendall(b"x")
        assert finish(sock, rest) == (b"X" if tty else frame(1, b"X"))


def test_without_an_upgrade_the_answer_is_200_and_raw(api: Api) -> None:
    container_id = api.started(Tty=True)
    with api.connect() as sock:
        sock.sendall(attach_request(container_id, headers=b"Host: docker\r\n"))
        head, rest = read_head(sock)
        assert head.startswith(b"HTTP/1.1 200 OK\r\n")
        assert b"Upgrade" not in head
        sock.sendall(b"old client")
        assert finish(sock, rest) == b"OLD CLIENT"


@pytest.mark.parametrize("headers", [UPGRADE, b"Host: docker\r\n"])
def test_bytes_sent_with_the_request_reach_the_container(api: Api, headers: bytes) -> None:
    container_id = api.started(Tty=True)
    with api.connect() as sock:
        sock.sendall(attach_request(container_id, headers=headers) + b"GET /early HTTP/1.1\r\n\r\n")
        head, rest = read_head(sock)
        assert head.startswith((b"HTTP/1.1 101", b"HTTP/1.1 200"))
        sock.sendall(b"late")
        assert finish(sock, rest) == b"GET /EARLY HTTP/1.1\r\n\r\nLATE"


def test_a_client_may_have_closed_its_side_before_the_answer(api: Api) -> None:
    container_id = api.started(Tty=True)
    with api.connect() as sock:
        sock.sendall(attach_request(container_id) + b"all at once")
        sock.shutdown(socket.SHUT_WR)
        head, rest = read_head(sock)
        assert head.startswith(b"HTTP/1.1 101")
        assert rest + read_all(sock) == b"ALL AT ONCE"


def test_a_request_in_single_bytes_is_understood(api: Api) -> None:
    container_id = api.started(Tty=True)
    with api.connect() as sock:
        for byte in attach_request(container_id):
            sock.sendall(bytes((byte,)))
        head, rest = read_head(sock)
        assert head.startswith(b"HTTP/1.1 101")
        assert finish(sock, rest) == b""


def test_more_than_any_buffer_goes_through(api: Api) -> None:
    container_id = api.started(Tty=True)
    data = b"abcdefgh" * 65536
    with api.connect() as sock:
        sock.sendall(attach_request(container_id) + data[:200_000])
        head, rest = read_head(sock)
        assert head.startswith(b"HTTP/1.1 101")
        sock.sendall(data[200_000:])
        assert finish(sock, rest) == data.upper()


def test_the_connection_was_used_before(api: Api) -> None:
    container_id = api.started(Tty=True)
    with api.connect() as sock:
        for _ in range(3):
            sock.sendall(b"GET /_ping HTTP/1.1\r\nHost: docker\r\n\r\n")
            head, rest = read_head(sock)
            assert head.startswith(b"HTTP/1.1 200")
            while len(rest) < 2:
                rest += sock.recv(16)
            assert rest == b"OK"
        sock.sendall(attach_request(container_id))
        head, rest = read_head(sock)
        assert head.startswith(b"HTTP/1.1 101")
        sock.sendall(b"again")
        assert finish(sock, rest) == b"AGAIN"


def test_a_refused_attach_is_an_ordinary_answer_on_a_connection_that_goes_on(api: Api) -> None:
    with api.connect() as sock:
        sock.sendall(attach_request("nobody"))
        head, rest = read_head(sock)
        assert head.startswith(b"HTTP/1.1 404")
        body = b'{"message":"No such container: nobody"}\n'
        while len(rest) < len(body):
            rest += sock.recv(1024)
        assert rest == body
        sock.sendall(b"GET /_ping HTTP/1.1\r\nHost: docker\r\n\r\n")
        assert read_head(sock)[0].startswith(b"HTTP/1.1 200")


def test_bytes_behind_a_refused_attach_are_no_request(api: Api) -> None:
    with api.connect() as sock:
        sock.sendall(attach_request("nobody") + b"POST /containers/prune HTTP/1.1\r\nHost: x\r\n\r\n")
        answer = read_all(sock)
        assert answer.count(b"HTTP/1.1") == 1
        assert answer.startswith(b"HTTP/1.1 404")


def test_output_that_is_due_at_once_waits_until_the_client_has_read_the_head(api: Api) -> None:
    """docker-py loses what its buffer holds behind the head; a program that speaks at once must not end up there."""
    container_id = api.started()
    for _ in range(20):
        exec_id = make_exec(api, container_id, AttachStdin=False)
        with api.connect() as sock:
            sock.sendall(exec_request(exec_id, {}))
            head = sock.recv(65536)
            assert head.endswith(b"\r\n\r\n")
            assert read_all(sock) == frame(1, b"echo hi\n")


def exec_request(exec_id: str, body: dict[str, object], headers: bytes = UPGRADE) -> bytes:
    payload = json.dumps(body).encode()
    head = f"POST /v1.48/exec/{exec_id}/start HTTP/1.1\r\nContent-Type: application/json\r\n".encode()
    return head + headers + f"Content-Length: {len(payload)}\r\n\r\n".encode() + payload


def make_exec(api: Api, container_id: str, **options: object) -> str:
    body = {"Cmd": ["echo", "hi"], "AttachStdin": True, "AttachStdout": True, **options}
    exec_id: str = api.post(f"/containers/{container_id}/exec", body).json["Id"]
    return exec_id


@pytest.mark.parametrize("split", [False, True])
def test_exec_start_reads_its_body_and_then_gives_the_connection_away(api: Api, split: bool) -> None:
    exec_id = make_exec(api, api.started())
    request = exec_request(exec_id, {"Detach": False, "Tty": False})
    with api.connect() as sock:
        if split:
            sock.sendall(request[:-5])
            sock.sendall(request[-5:] + b"more")
        else:
            sock.sendall(request + b"more")
        head, rest = read_head(sock)
        assert head.startswith(b"HTTP/1.1 101 UPGRADED")
        assert b"multiplexed-stream" in head
        assert finish(sock, rest) == frame(1, b"echo hi\n") + frame(1, b"MORE")


def test_a_detached_exec_answers_without_a_stream(api: Api) -> None:
    exec_id = make_exec(api, api.started())
    assert api.post(f"/exec/{exec_id}/start", {"Detach": True}).status == 200
    again = api.post(f"/exec/{exec_id}/start", {"Detach": True})
    assert again.status == 409
    assert "has already run" in again.json["message"]


def test_nothing_of_the_server_is_left_behind_a_given_connection(api: Api) -> None:
    """The server's own descriptor is closed, and the connection ends when its new owner ends it."""
    container_id = api.started(Tty=True)
    socks = [api.connect() for _ in range(20)]
    for sock in socks:
        sock.sendall(attach_request(container_id))
        assert read_head(sock)[0].startswith(b"HTTP/1.1 101")
    for number, sock in enumerate(socks):
        sock.sendall(f"n{number}".encode())
        assert finish(sock) == f"N{number}".encode()
        sock.close()
