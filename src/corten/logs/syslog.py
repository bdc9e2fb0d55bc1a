"""The syslog driver: its message formats, and its ways to a server. Runs in the helper of `logs.relay`.

The formats are those of Docker's driver, whose users parse them: the traditional one without and with the host's name
(RFC 3164), and RFC 5424 with the tag as both application and message id, in seconds or microseconds.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import time

from corten.logs.helper import line_by_line

TYPE_CHECKING = False
if TYPE_CHECKING:
    import ssl
    from collections.abc import Mapping
    from typing import Any

INFO, ERROR = 6, 3
LOCAL_PLACES = ("/dev/log", "/var/run/syslog", "/var/run/log")
TIMEOUT = 5.0  # seconds that a server may take for one message
CONNECT_TIMEOUT = 10.0
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def _traditional(seconds: int) -> str:
    at = time.localtime(seconds)
    return f"{_MONTHS[at.tm_mon - 1]} {at.tm_mday:2d} {at.tm_hour:02d}:{at.tm_min:02d}:{at.tm_sec:02d}"


def _rfc3339(seconds: int, fraction: str = "") -> str:
    at = time.localtime(seconds)
    offset = at.tm_gmtoff // 60
    zone = f"{'-' if offset < 0 else '+'}{abs(offset) // 60:02d}:{abs(offset) % 60:02d}" if offset else "Z"
    return time.strftime("%Y-%m-%dT%H:%M:%S", at) + fraction + zone


def head(form: str, priority: int, stamp_ns: int, host: str, tag: str, pid: int) -> bytes:
    """What stands before the text of a message. `form` is "", rfc3164, rfc5424 or rfc5424micro."""
    seconds, rest = divmod(stamp_ns, 1_000_000_000)
    if form == "":
        text = f"<{priority}>{_traditional(seconds)} {tag}[{pid}]: "
    elif form == "rfc3164":
        text = f"<{priority}>{_traditional(seconds)} {host} {tag}[{pid}]: "
    else:
        stamp = _rfc3339(seconds, f".{rest // 1000:06d}" if form == "rfc5424micro" else "")
        text = f"<{priority}>1 {stamp} {host} {tag} {pid} {tag} - "
    return text.encode("utf-8", "surrogateescape")


class Syslog:
    """`settings` are those of `logs.syslogopts`: network, address, facility, format, tag, tls."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self._network: str = settings["network"]
        self._address: Any = settings["address"]
        self._facility: int = settings["facility"]
        self._format: str = settings["format"]
        self._tag: str = settings["tag"]
        self._tls: Mapping[str, Any] = settings["tls"]
        self._counted = self._network == "tcp+tls" and self._format.startswith("rfc5424")
        self._host = os.uname().nodename
        self._pid = os.getppid()
        self._socket: socket.socket | None = None

    def open(self) -> None:
        """Raises OSError in the words of Docker's driver."""
        if not self._network:
            self._socket = _local()
        elif self._network in ("unix", "unixgram"):
            kind = socket.SOCK_STREAM if self._network == "unix" else socket.SOCK_DGRAM
            self._socket = _unix(kind, self._address)
        else:
            self._socket = self._dial()
        self._socket.settimeout(TIMEOUT)

    def send(self, data: bytes, terminated: bool, stream: int, stamp_ns: int) -> tuple[bytes, OSError | None]:
        before = head(
            self._format,
            self._facility * 8 + (INFO if stream == 1 else ERROR),
            stamp_ns,
            self._host,
            self._tag,
            self._pid,
        )
        try:
            self._check()
        except OSError as error:
            return data, error
        # An empty line is no message.
        return line_by_line(data, terminated, lambda line: self._send(before + line + b"\n") if line else None)

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _check(self) -> None:
        """A server that has gone is noticed before a message is lost to it. Servers say nothing."""
        assert self._socket is not None
        if self._socket.type != socket.SOCK_STREAM:
            return
        poll = select.poll()
        poll.register(self._socket, select.POLLRDHUP)
        if poll.poll(0):
            raise ConnectionResetError(errno.ECONNRESET, os.strerror(errno.ECONNRESET))

    def _send(self, message: bytes) -> None:
        assert self._socket is not None
        if self._counted:
            message = b"%d " % len(message) + message
        try:
            self._socket.sendall(message)
        except ConnectionRefusedError:
            if self._network != "udp":
                raise
            self._socket.sendall(message)  # the refusal was of the datagram before

    def _dial(self) -> socket.socket:
        kind = socket.SOCK_DGRAM if self._network == "udp" else socket.SOCK_STREAM
        context = self._context() if self._network == "tcp+tls" else None
        name, port = self._address
        dial = f"dial {'udp' if self._network == 'udp' else 'tcp'}"
        failure = OSError(f"{dial}: lookup {name}: no such host")
        try:
            found = socket.getaddrinfo(name, port, type=kind)
        except (OSError, UnicodeError):
            raise failure from None
        for family, type_, protocol, _, address in found:
            connection = socket.socket(family, type_, protocol)
            connection.settimeout(CONNECT_TIMEOUT)
            try:
                connection.connect(address)
                return context.wrap_socket(connection, server_hostname=name) if context else connection
            except OSError as error:
                connection.close()
                if type(error).__module__ == "ssl":
                    raise
                words = "i/o timeout" if isinstance(error, TimeoutError) else (error.strerror or str(error)).lower()
                failure = OSError(f"{dial} {_joined(address)}: connect: {words}")
        raise failure

    def _context(self) -> ssl.SSLContext:
        import ssl

        tls = self._tls
        context = ssl.create_default_context()
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        try:
            if tls["ca"]:
                context.load_verify_locations(tls["ca"])
        except OSError as error:
            raise OSError(f'could not read CA certificate "{tls["ca"]}": {error.strerror or error}') from None
        try:
            if tls["cert"] or tls["key"]:
                context.load_cert_chain(tls["cert"], tls["key"])
        except OSError as error:
            raise OSError(f"could not load X509 key pair: {error.strerror or error}") from None
        if tls["skip_verify"]:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context


def _joined(address: tuple[Any, ...]) -> str:
    host, port = address[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _unix(kind: socket.SocketKind, path: str) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, kind)
    connection.settimeout(CONNECT_TIMEOUT)
    try:
        connection.connect(path)
    except OSError as error:
        connection.close()
        name = "unix" if kind == socket.SOCK_STREAM else "unixgram"
        raise OSError(f"dial {name} {path}: connect: {(error.strerror or str(error)).lower()}") from None
    return connection


def _local() -> socket.socket:
    """The host's own syslog."""
    for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
        for path in LOCAL_PLACES:
            try:
                return _unix(kind, path)
            except OSError:
                continue
    raise OSError("Unix syslog delivery error")
