"""The API behind TLS: a client may close its sending side there as well."""

from __future__ import annotations

import shutil
import socket
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from corten.testing.engine_containers import frame
from tests.unit.api.support import TIMEOUT, Api, serve
from tests.unit.api.test_hijack import attach_request


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for 127.0.0.1 that is its own authority, and its key in the same file."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost"
    names = ["-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run([*command.split(), *names, "-keyout", path, "-out", f"{path}.crt"], check=True, capture_output=True)
    path.write_bytes(path.read_bytes() + Path(f"{path}.crt").read_bytes())
    return path


@pytest.fixture(params=["asyncio", "uvloop"])
def api(request: pytest.FixtureRequest, tmp_path: Path, certificate: Path) -> Iterator[Api]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(certificate)
    with serve(tmp_path, loop=request.param, tls=context) as served:
        yield served


class Client:
    """TLS over a socket by hand: Python's own TLS socket cannot say that it has no more to send and go on reading."""

    def __init__(self, port: int, certificate: Path, *, identify: bool = True) -> None:
        self.context = ssl.create_default_context(cafile=str(certificate))
        if identify:
            self.context.load_cert_chain(certificate)
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = self.context.wrap_bio(self._incoming, self._outgoing, server_hostname="127.0.0.1")
        self._sock = socket.create_connection(("127.0.0.1", port), TIMEOUT)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self._sock.close()

    def send(self, data: bytes) -> None:
        while True:
            try:
                self._tls.write(data)
                break
            except ssl.SSLWantReadError:
                self._fill()
        self._sock.sendall(self._outgoing.read())

    def _fill(self) -> None:
        self._sock.sendall(self._outgoing.read())
        if data := self._sock.recv(65536):
            self._incoming.write(data)
        else:
            self._incoming.write_eof()

    def receive(self) -> bytes:
        """Some bytes; none when the server has said its end in TLS's own words."""
        while True:
            try:
                return self._tls.read(65536)
            except ssl.SSLZeroReturnError:
                return b""
            except ssl.SSLWantReadError:
                self._fill()

    def head(self) -> tuple[bytes, bytes]:
        data = b""
        while b"\r\n\r\n" not in data:
            more = self.receive()
            assert more, data
            data += more
        head, _, rest = data.partition(b"\r\n\r\n")
        return head, rest

    def close_sending(self) -> None:
        with pytest.raises(ssl.SSLWantReadError):
            self._tls.unwrap()
        self._sock.sendall(self._outgoing.read())

    def rest(self) -> bytes:
        data = b""
        while more := self.receive():
            data += more
        return data


def test_requests_go_through(api: Api, certificate: Path) -> None:
    with Client(api.tls_port, certificate) as client:
        for _ in range(3):
            client.send(b"GET /_ping HTTP/1.1\r\nHost: docker\r\n\r\n")
            head, rest = client.head()
            assert head.startswith(b"HTTP/1.1 200 OK")
            assert rest in (b"OK", b"")
            if not rest:
                assert client.receive() == b"OK"
        client.send(b"GET /_ping HTTP/1.1\r\nHost: docker\r\nConnection: close\r\n\r\n")
        assert client.rest().endswith(b"OK")


def test_output_goes_on_after_the_client_closed_its_side(api: Api, certificate: Path) -> None:
    container_id = api.started()
    with Client(api.tls_port, certificate) as client:
        client.send(attach_request(container_id))
        head, rest = client.head()
        assert head.startswith(b"HTTP/1.1 101 UPGRADED")
        client.send(b"hello")
        client.close_sending()
        assert rest + client.rest() == frame(1, b"HELLO")


def test_much_goes_both_ways(api: Api, certificate: Path) -> None:
    container_id = api.started(Tty=True)
    data = b"abcdefgh" * 200_000
    with Client(api.tls_port, certificate) as client:
        client.send(attach_request(container_id))
        head, rest = client.head()
        assert head.startswith(b"HTTP/1.1 101")
        for start in range(0, len(data), 100_000):
            client.send(data[start : start + 100_000])
        client.close_sending()
        assert rest + client.rest() == data.upper()


def test_a_client_without_a_certificate_is_refused(api: Api, certificate: Path) -> None:
    def ask(client: Client) -> None:
        client.send(b"GET /_ping HTTP/1.1\r\nHost: docker\r\n\r\n")
        client.head()

    with Client(api.tls_port, certificate, identify=False) as client, pytest.raises((ssl.SSLError, OSError)):
        ask(client)


def test_plain_http_on_a_tls_port_ends_the_connection(api: Api) -> None:
    with socket.create_connection(("127.0.0.1", api.tls_port), TIMEOUT) as sock:
        sock.sendall(b"GET /_ping HTTP/1.1\r\nHost: docker\r\n\r\n")
        received = b""
        try:
            while more := sock.recv(1024):
                received += more
        except ConnectionResetError:
            pass
        assert b"HTTP" not in received
