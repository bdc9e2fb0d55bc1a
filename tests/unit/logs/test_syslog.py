"""The syslog driver's formats, and its ways to a server."""

from __future__ import annotations

import os
import re
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from corten.logs import syslog
from corten.logs.syslog import Syslog, head
from corten.logs.syslogopts import remote
from tests.certificates import Authority
from tests.waiting import patience

T = 1_700_000_005_123_456_700  # 2023-11-14T22:13:25.1234567Z


@pytest.fixture
def zone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "XXX-02:30")  # two and a half hours ahead
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.usefixtures("zone")
@pytest.mark.parametrize(
    ("form", "expected"),
    [
        ("", b"<30>Nov 15 00:43:25 T[7]: "),
        ("rfc3164", b"<30>Nov 15 00:43:25 H T[7]: "),
        ("rfc5424", b"<30>1 2023-11-15T00:43:25+02:30 H T 7 T - "),
        ("rfc5424micro", b"<30>1 2023-11-15T00:43:25.123456+02:30 H T 7 T - "),
    ],
)
def test_formats(form: str, expected: bytes) -> None:
    assert head(form, 30, T, "H", "T", 7) == expected


def test_a_day_of_one_digit_has_a_blank_before_it() -> None:
    ninth = T - 5 * 86400 * 10**9
    assert b">Nov  9 " in head("", 30, ninth, "H", "T", 7)


def test_universal_time_is_called_z(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    assert b" 2023-11-14T22:13:25Z " in head("rfc5424", 30, T, "H", "T", 7)
    monkeypatch.undo()
    time.tzset()


def driver(address: str, **options: str) -> Syslog:
    named = {f"syslog-{name.replace('_', '-')}": value for name, value in options.items()}
    made = Syslog(remote({"syslog-address": address, **named}, "T"))
    made.open()
    return made


def listening(kind: socket.SocketKind, address: Any, family: socket.AddressFamily = socket.AF_INET) -> socket.socket:
    server = socket.socket(family, kind)
    server.settimeout(patience(20))
    server.bind(address)
    if kind == socket.SOCK_STREAM:
        server.listen()
    return server


@pytest.mark.parametrize("network", ["udp", "unixgram"])
def test_a_datagram_is_a_line(network: str, tmp_path: Path) -> None:
    if network == "udp":
        server = listening(socket.SOCK_DGRAM, ("127.0.0.1", 0))
        address = f"udp://127.0.0.1:{server.getsockname()[1]}"
    else:
        server = listening(socket.SOCK_DGRAM, str(tmp_path / "s"), socket.AF_UNIX)
        address = f"unixgram://{tmp_path}/s"
    with server:
        log = driver(address, facility="local0")
        assert log.send(b"one\n\ntwo\n", True, 1, T) == (b"", None)
        assert log.send(b"piece", False, 2, T) == (b"", None)
        found = [server.recv(9999) for _ in range(3)]
        assert [message[:5] for message in found] == [b"<134>", b"<134>", b"<131>"]  # 16 * 8 + 6, 3
        assert [message.rpartition(b": ")[2] for message in found] == [b"one\n", b"two\n", b"piece\n"]
        assert f" T[{os.getppid()}]: ".encode() in found[0]
        log.close()


def test_a_datagram_that_was_refused_does_not_stop_the_next() -> None:
    with listening(socket.SOCK_DGRAM, ("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        log = driver(f"udp://127.0.0.1:{port}")
    for _ in range(5):  # nobody is there: every other one is told of it
        assert log.send(b"x\n", True, 1, T) == (b"", None)
    log.close()


@pytest.mark.parametrize("network", ["tcp", "unix"])
def test_a_server_that_has_gone_is_noticed_and_nothing_is_lost(network: str, tmp_path: Path) -> None:
    if network == "tcp":
        server = listening(socket.SOCK_STREAM, ("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{server.getsockname()[1]}"
    else:
        server = listening(socket.SOCK_STREAM, str(tmp_path / "s"), socket.AF_UNIX)
        address = f"unix://{tmp_path}/s"
    with server:
        log = driver(address)
        first, _ = server.accept()
        with first:
            assert log.send(b"one\n", True, 1, T) == (b"", None)
            assert first.recv(999).endswith(b": one\n")
        rest, error = log.send(b"two\nthree\n", True, 1, T)
        assert rest == b"two\nthree\n"
        assert isinstance(error, ConnectionResetError)
        log.close()
        log.open()
        assert log.send(rest, True, 1, T) == (b"", None)
        log.close()
        second, _ = server.accept()
        with second, second.makefile("rb") as stream:
            assert [line.rpartition(b": ")[2] for line in stream] == [b"two\n", b"three\n"]


def encrypted(server: socket.socket, cert: Path, key: Path, ca: Path, found: list[bytes]) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    context.load_verify_locations(ca)
    context.verify_mode = ssl.CERT_OPTIONAL
    connection, _ = server.accept()
    connection.settimeout(patience(20))
    try:
        with context.wrap_socket(connection, server_side=True) as stream:
            found.append(b"client certificate" if stream.getpeercert() else b"")
            while data := stream.recv(999):
                found.append(data)
    except OSError:
        return  # the client would have none of us


@pytest.mark.parametrize(
    ("form", "told", "refused"),
    [
        ("", ("ca", "cert", "key"), ""),
        ("rfc5424", ("ca",), ""),
        ("rfc3164", ("skip_verify",), ""),
        ("", (), "CERTIFICATE_VERIFY_FAILED"),
    ],
)
def test_tls(form: str, told: tuple[str, ...], refused: str, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    cert, key = authority.issue("server", subjects="IP:127.0.0.1")
    mine, my_key = authority.issue("client")
    known = {"ca": str(authority.ca), "cert": str(mine), "key": str(my_key), "skip_verify": "1"}
    options = {f"tls_{'ca_cert' if name == 'ca' else name}": known[name] for name in told}
    found: list[bytes] = []
    with listening(socket.SOCK_STREAM, ("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=encrypted, args=(server, cert, key, authority.ca, found))
        thread.start()
        address = f"tcp+tls://127.0.0.1:{server.getsockname()[1]}"
        if refused:
            with pytest.raises(OSError, match=refused):
                driver(address, format=form, **options)
        else:
            log = driver(address, format=form, **options)
            log.send(b"secret\n", True, 1, T)
            log.close()
        thread.join()
    if not refused:
        assert found[0] == (b"client certificate" if "cert" in told else b"")
        message = b"".join(found[1:])
        assert message.endswith(b"secret\n")
        size, _, rest = message.partition(b" ")
        assert (size == b"%d" % len(rest)) == (form == "rfc5424")  # counted as RFC 5425 has it


@pytest.mark.parametrize(
    ("address", "options", "words"),
    [
        ("tcp://127.0.0.1:1", {}, "dial tcp 127.0.0.1:1: connect: connection refused"),
        ("tcp://[::1]:1", {}, "dial tcp "),
        ("udp://no.such.host.invalid", {}, "dial udp: lookup no.such.host.invalid: no such host"),
        (
            "tcp+tls://127.0.0.1:1",
            {"tls_ca_cert": "/nowhere"},
            'could not read CA certificate "/nowhere": No such file',
        ),
        ("tcp+tls://127.0.0.1:1", {"tls_cert": "/nowhere"}, "could not load X509 key pair: No such file"),
    ],
)
def test_what_cannot_be_reached(address: str, options: dict[str, str], words: str) -> None:
    with pytest.raises(OSError, match=re.escape(words)):
        driver(address, **options)


def test_a_unix_server_that_is_not_there(tmp_path: Path) -> None:
    listening(socket.SOCK_DGRAM, str(tmp_path / "s"), socket.AF_UNIX).close()
    with pytest.raises(OSError, match=f"dial unixgram {tmp_path}/s: connect: connection refused"):
        driver(f"unixgram://{tmp_path}/s")


def test_the_hosts_own_syslog(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(syslog, "LOCAL_PLACES", (str(tmp_path / "none"), str(tmp_path / "log")))
    with pytest.raises(OSError, match=r"^Unix syslog delivery error$"):
        driver("")
    with listening(socket.SOCK_DGRAM, str(tmp_path / "log"), socket.AF_UNIX) as server:
        log = driver("")
        log.send(b"hello\n", True, 1, T)
        assert server.recv(999).endswith(b": hello\n")
        log.close()
