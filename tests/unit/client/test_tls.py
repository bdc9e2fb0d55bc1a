"""TLS: the peer is verified, and either side can end its half of a hijacked connection."""

from __future__ import annotations

import shutil
import socket
import ssl
import subprocess
import threading
from pathlib import Path

import pytest

from corten.cli.streams import Loop, Signals
from corten.client.client import Client
from corten.client.errors import CannotConnect
from corten.client.transport import TlsFiles, parse_endpoint

pytestmark = pytest.mark.skipif(
    not shutil.which("openssl"), reason="openssl, which makes the certificate, is not installed"
)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    folder = tmp_path_factory.mktemp("tls")
    key, cert = str(folder / "key.pem"), str(folder / "cert.pem")
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    command += ["-keyout", key, "-out", cert, "-days", "2", "-subj", "/CN=localhost"]
    command += ["-addext", "subjectAltName=DNS:localhost"]
    subprocess.run(command, capture_output=True, check=True)
    return cert, key


class Echo:
    """Answers one request with an upgrade, then sends back what it gets until the other side ends its half."""

    def __init__(self, certificate: tuple[str, str]) -> None:
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(*certificate)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"tcp://localhost:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> Echo:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.join(20)
        self._listener.close()

    def _serve(self) -> None:
        raw, _ = self._listener.accept()
        try:
            sock = self._context.wrap_socket(raw, server_side=True)
        except OSError:
            raw.close()
            return
        with sock:
            head = b""
            while b"\r\n\r\n" not in head:
                head += sock.recv(65536)
            sock.sendall(b"HTTP/1.1 101 UPGRADED\r\nUpgrade: tcp\r\n\r\n")
            while data := sock.recv(65536):
                sock.sendall(data)
            sock.unwrap().close()


def test_the_end_of_input_reaches_the_peer_and_its_answer_comes_back(
    certificate: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = 3 << 20
    received = bytearray()
    monkeypatch.setattr("corten.cli.streams.write_all", lambda _, data: received.extend(data))
    with Echo(certificate) as echo, Signals(()) as signals, open(tmp_path / "in", "w+b") as file:
        file.write(b"z" * size)
        file.seek(0)
        client = Client(parse_endpoint(echo.url, TlsFiles(certificate[0], None, None)))
        sock, early = client.container_io.attach("x", stdin=True, stdout=True, stderr=False).detach()
        loop = Loop(signals, lambda _: None)
        loop.add_stream(sock, early, tty=True, stdin=file.fileno(), keys=None)
        loop.run()
    assert bytes(received) == b"z" * size


def test_a_peer_that_nobody_vouches_for_is_refused(certificate: tuple[str, str]) -> None:
    with Echo(certificate) as echo, pytest.raises(CannotConnect, match="CERTIFICATE_VERIFY_FAILED"):
        Client(parse_endpoint(echo.url, TlsFiles(None, None, None))).system.ping()
