"""Where the daemon is and how to reach it: unix socket, TCP, TCP with TLS.

Sockets are the C type of `_socket`, which `socket.socket` and `ssl.SSLSocket` derive from: importing `socket` costs
3.4 ms that a command on a unix socket does not need. `ssl` is imported when TLS is asked for.
"""

from __future__ import annotations

import _socket
import os
import select

from corten.client.errors import BadEndpoint, CannotConnect

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

GOODBYE_MS = 10_000
"""For how long a peer that reads nothing is waited for at the end of the input."""

Socket = _socket.socket


class TlsFiles:
    """PEM files for TLS; `ca` None trusts the system's authorities. `verify` False accepts any server."""

    __slots__ = ("ca", "cert", "key", "verify")

    def __init__(self, ca: str | None, cert: str | None, key: str | None, *, verify: bool = True) -> None:
        self.ca, self.cert, self.key, self.verify = ca, cert, key, verify


class Endpoint:
    """An address of a daemon. `url` is what the user wrote; `path` is set for unix sockets, `host` and `port` else."""

    __slots__ = ("base", "host", "path", "port", "tls", "url")

    def __init__(self, url: str, *, path: str = "", host: str = "", port: int = 0, base: str = "") -> None:
        self.url, self.path, self.host, self.port, self.base = url, path, host, port, base
        self.tls: TlsFiles | None = None

    @property
    def host_header(self) -> str:
        if self.path:
            return "localhost"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


def parse_endpoint(url: str, tls: TlsFiles | None = None) -> Endpoint:
    """`unix:///path`, `tcp://host[:port][/base]`, `http(s)://…`. Raises BadEndpoint. Port 2375, with TLS 2376."""
    scheme, separator, rest = url.partition("://")
    if not separator:
        scheme, rest = "tcp", url
    if scheme == "unix":
        if not rest:
            raise BadEndpoint(f"unable to parse docker host `{url}`")
        return Endpoint(url, path=rest)
    if scheme not in ("tcp", "http", "https"):
        raise BadEndpoint(f"unable to parse docker host `{url}`: the scheme must be unix, tcp, http or https")
    if scheme == "https" and tls is None:
        tls = TlsFiles(None, None, None)
    address, slash, base = rest.partition("/")
    host, port = _split_address(address, 2376 if tls else 2375, url)
    endpoint = Endpoint(url, host=host, port=port, base=f"/{base}".rstrip("/") if slash else "")
    endpoint.tls = tls
    return endpoint


def _split_address(address: str, default_port: int, url: str) -> tuple[str, int]:
    host, port = address, ""
    if address.startswith("["):
        host, bracket, tail = address[1:].partition("]")
        if not bracket or (tail and not tail.startswith(":")):
            raise BadEndpoint(f"unable to parse docker host `{url}`")
        port = tail[1:]
    elif address.count(":") == 1:
        host, _, port = address.partition(":")
    if port and not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise BadEndpoint(f"unable to parse docker host `{url}`: invalid port")
    return host or "localhost", int(port or default_port)


def dial(endpoint: Endpoint) -> Socket:
    """A connected, blocking socket. Raises CannotConnect."""
    try:
        if endpoint.path:
            return _dial_unix(endpoint.path)
        if endpoint.tls:
            return _dial_tls(endpoint, endpoint.tls)
        return _dial_tcp(endpoint.host, endpoint.port)
    except OSError as error:
        raise CannotConnect(endpoint.url, error.strerror or str(error)) from None


def _dial_unix(path: str) -> Socket:
    sock = Socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
    try:
        sock.connect("\0" + path[1:] if path.startswith("@") else path)
    except BaseException:
        sock.close()
        raise
    return sock


def _dial_tcp(host: str, port: int) -> Socket:
    failure: OSError | None = None
    for family, kind, proto, _, address in _socket.getaddrinfo(host, port, 0, _socket.SOCK_STREAM):
        sock = Socket(family, kind | _socket.SOCK_CLOEXEC, proto)
        try:
            sock.setsockopt(_socket.IPPROTO_TCP, _socket.TCP_NODELAY, 1)
            # A dead peer must not hold `logs -f` for ever.
            sock.setsockopt(_socket.SOL_SOCKET, _socket.SO_KEEPALIVE, 1)
            sock.connect(address)
        except OSError as error:
            sock.close()
            failure = error
        else:
            return sock
    raise failure or OSError(f"{host} has no address")


def _dial_tls(endpoint: Endpoint, files: TlsFiles) -> Socket:
    import socket
    import ssl

    context = ssl.create_default_context()
    if not files.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    elif files.ca:
        context = ssl.create_default_context(cafile=files.ca)
        # Python 3.13 began to want extensions that the authority of Docker's own instructions lacks. The chain, dates
        # and the host's name are verified as before.
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    if files.cert:
        context.load_cert_chain(files.cert, files.key)
    raw = _dial_tcp(endpoint.host, endpoint.port)
    plain = socket.socket(fileno=os.dup(raw.fileno()))
    raw.close()
    try:
        return context.wrap_socket(plain, server_hostname=endpoint.host)
    except BaseException:
        plain.close()
        raise


def half_close(sock: Socket) -> None:
    """Says that no more will be written, and leaves the reading side open; a peer that is gone already is fine."""
    try:
        if hasattr(sock, "unwrap"):
            _say_goodbye(sock, sock.unwrap)
        else:
            sock.shutdown(_socket.SHUT_WR)
    except OSError:
        pass


def _say_goodbye(sock: Socket, unwrap: Callable[[], object]) -> None:
    """Sends TLS's close_notify without reading.

    Python's `unwrap` sends it and at once looks for the peer's: output that arrives in between is an error to OpenSSL
    and lost. So for that moment the descriptor is one end of a pair on which nothing ever arrives, and what comes out
    of the other end, the encrypted close_notify, is sent on.
    """
    fd, (near, far) = sock.fileno(), _socket.socketpair()
    kept = os.dup(fd)
    try:
        near.setblocking(False)
        os.dup2(near.fileno(), fd, inheritable=False)
        try:
            unwrap()
        except OSError:
            pass  # the peer's goodbye has not come
        finally:
            os.dup2(kept, fd, inheritable=False)
        far.setblocking(False)
        record = far.recv(4096)
        writable = select.poll()
        writable.register(fd, select.POLLOUT)
        while record and writable.poll(GOODBYE_MS):
            record = record[os.write(fd, record) :]
    finally:
        os.close(kept)
        near.close()
        far.close()
