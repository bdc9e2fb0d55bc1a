"""The client against a scripted peer on a real socket."""

from __future__ import annotations

from pathlib import Path

import pytest

from corten.client.client import Client
from corten.client.errors import ApiError, BadEndpoint, CannotConnect, Conflict, ConnectionLost, NotFound, StreamError
from corten.client.images import encode_auth, split_tag
from corten.client.transport import TlsFiles, parse_endpoint
from tests.unit.client.fakes import ScriptedDaemon, answer


def test_connections_are_used_again(tmp_path: Path) -> None:
    with ScriptedDaemon(tmp_path / "s", [answer("200 OK", b"[]")] * 2) as daemon:
        with Client(parse_endpoint(daemon.url)) as client:
            assert client.containers.list(all=True, filters={"name": ["a", "b"]}) == []
            assert client.images.list() == []
    assert daemon.connections == 1
    assert daemon.requests[0].startswith(b"GET /containers/json?all=1&filters=%7B%22name%22")


def test_a_connection_that_was_closed_meanwhile_is_replaced(tmp_path: Path) -> None:
    with ScriptedDaemon(tmp_path / "s", [answer("200 OK", b"[]"), b"", answer("200 OK", b"[{}]")]) as daemon:
        with Client(parse_endpoint(daemon.url)) as client:
            client.images.list()
            assert client.images.list() == [{}]
    assert daemon.connections == 2


def test_a_fresh_connection_that_is_closed_is_an_error(tmp_path: Path) -> None:
    with ScriptedDaemon(tmp_path / "s", [b""]) as daemon:
        with Client(parse_endpoint(daemon.url)) as client, pytest.raises(ConnectionLost):
            client.images.list()


@pytest.mark.parametrize(
    ("status", "kind"), [("404 Not Found", NotFound), ("409 Conflict", Conflict), ("500 Server Error", ApiError)]
)
def test_errors_carry_the_daemons_words(tmp_path: Path, status: str, kind: type[ApiError]) -> None:
    with ScriptedDaemon(tmp_path / "s", [answer(status, b'{"message":"No such container: x"}')]) as daemon:
        with Client(parse_endpoint(daemon.url)) as client, pytest.raises(kind) as caught:
            client.containers.inspect("x")
    assert (str(caught.value), caught.value.status) == ("No such container: x", int(status[:3]))


def test_an_error_that_is_no_json_is_cut_short(tmp_path: Path) -> None:
    with ScriptedDaemon(tmp_path / "s", [answer("502 Bad Gateway", b"<html>" * 1000, "text/html")]) as daemon:
        with Client(parse_endpoint(daemon.url)) as client, pytest.raises(ApiError) as caught:
            client.system.info()
    assert len(str(caught.value)) == 512


def test_starting_what_runs_already_is_fine(tmp_path: Path) -> None:
    with ScriptedDaemon(tmp_path / "s", [b"HTTP/1.1 304 Not Modified\r\n\r\n"]) as daemon:
        with Client(parse_endpoint(daemon.url)) as client:
            client.containers.start("x")


def test_progress_in_pieces_and_its_error(tmp_path: Path) -> None:
    lines = [b'{"status":"Pull', b'ing","id":"a"}\r\n{"status":"Done"}\n{"er', b'rorDetail":{"message":"boom"}}\n']
    wire = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    wire += b"".join(b"%x\r\n%s\r\n" % (len(line), line) for line in lines) + b"0\r\n\r\n"
    found: list[dict[str, object]] = []
    with ScriptedDaemon(tmp_path / "s", [wire]) as daemon:
        with Client(parse_endpoint(daemon.url), version="1.45") as client, pytest.raises(StreamError, match="boom"):
            found.extend(client.images.pull("busybox", "latest", auth="abc"))
    assert found == [{"status": "Pulling", "id": "a"}, {"status": "Done"}]
    assert daemon.requests[0].startswith(b"POST /v1.45/images/create?fromImage=busybox&tag=latest HTTP/1.1")
    assert b"X-Registry-Auth: abc" in daemon.requests[0]


def test_a_tar_is_sent_in_chunks(tmp_path: Path) -> None:
    with ScriptedDaemon(tmp_path / "s", [answer("200 OK", b"done", "text/plain")]) as daemon:
        with Client(parse_endpoint(daemon.url)) as client:
            assert client.archives.load(iter([b"abc", b"", b"de"])).read() == b"done"
    assert daemon.requests[0].endswith(b"\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n")


def test_an_attached_connection_is_handed_over(tmp_path: Path) -> None:
    with ScriptedDaemon(tmp_path / "s", [b"HTTP/1.1 101 UPGRADED\r\nUpgrade: tcp\r\n\r\nearly"]) as daemon:
        with Client(parse_endpoint(daemon.url)) as client:
            sock, rest = client.container_io.attach("x", stdin=True, stdout=True, stderr=False).detach()
            while piece := sock.recv(10):
                rest += piece
            sock.close()
    assert rest == b"early"
    assert b"?stream=1&stdin=1&stdout=1 HTTP" in daemon.requests[0]
    assert b"Upgrade: tcp" in daemon.requests[0]


def test_nobody_listens(tmp_path: Path) -> None:
    with pytest.raises(CannotConnect) as caught:
        Client(parse_endpoint(f"unix://{tmp_path}/none")).system.ping()
    assert (caught.value.address, caught.value.reason) == (f"unix://{tmp_path}/none", "No such file or directory")


@pytest.mark.parametrize(
    ("url", "host", "port"),
    [
        ("tcp://h", "h", 2375),
        ("tcp://h:1", "h", 1),
        ("h:5", "h", 5),
        ("tcp://[::1]:7", "::1", 7),
        ("http://h:1/base", "h", 1),
    ],
)
def test_endpoints(url: str, host: str, port: int) -> None:
    endpoint = parse_endpoint(url)
    assert (endpoint.host, endpoint.port) == (host, port)


def test_tls_has_a_port_of_its_own() -> None:
    assert parse_endpoint("tcp://h", TlsFiles(None, None, None)).port == 2376


@pytest.mark.parametrize("url", ["unix://", "ssh://h", "npipe://x", "tcp://h:x", "tcp://h:70000", "tcp://[::1"])
def test_addresses_that_cannot_be(url: str) -> None:
    with pytest.raises(BadEndpoint):
        parse_endpoint(url)


@pytest.mark.parametrize(
    ("reference", "name", "tag"),
    [
        ("busybox", "busybox", ""),
        ("busybox:1", "busybox", "1"),
        ("localhost:5000/a", "localhost:5000/a", ""),
        ("h:5000/a/b:t", "h:5000/a/b", "t"),
        ("a@sha256:0", "a", "sha256:0"),
        ("a:t@sha256:0", "a", "sha256:0"),
    ],
)
def test_tags_are_told_from_ports(reference: str, name: str, tag: str) -> None:
    assert split_tag(reference) == (name, tag)


def test_the_registry_header_is_urlsafe() -> None:
    assert encode_auth({"username": "a?>"}) == "eyJ1c2VybmFtZSI6ICJhPz4ifQ=="
