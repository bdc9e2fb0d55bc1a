"""The sockets that the API is served on."""

from __future__ import annotations

import contextlib
import grp
import logging
import os
import socket
import ssl
from dataclasses import dataclass

from corten.daemon.config import PLAIN, DaemonConfig, TlsConfig
from corten.daemon.supervised import take_sockets
from corten.errors import Conflict, InvalidArgument, SystemFault

log = logging.getLogger(__name__)
BACKLOG = 512


@dataclass(frozen=True, slots=True)
class Listener:
    """A listening socket; with `tls` connections on it are encrypted. `path` and `inode` name a socket file of ours."""

    sock: socket.socket
    tls: ssl.SSLContext | None = None
    path: str = ""
    inode: int = 0

    def close(self) -> None:
        # Another daemon may have taken the path over meanwhile; its socket is not ours to remove.
        with contextlib.suppress(OSError):
            if self.path and os.stat(self.path).st_ino == self.inode:
                os.unlink(self.path)
        self.sock.close()


def open_listeners(config: DaemonConfig) -> list[Listener]:
    """One listener for each host, or none: what was opened is closed again when one fails."""
    opened: list[Listener] = []
    handed = take_sockets() if any(host.startswith("fd://") for host in config.hosts) else []
    try:
        for host in config.hosts:
            scheme, _, rest = host.partition("://")
            if scheme == "fd":
                opened += _handed(rest, handed, config)
            else:
                opened.append(_unix(rest, config.group) if scheme == "unix" else _tcp(rest, config))
    except BaseException:
        for listener in opened:
            listener.close()
        raise
    return opened


def _handed(name: str, handed: list[tuple[str, socket.socket]], config: DaemonConfig) -> list[Listener]:
    """The sockets that systemd listens on: all, or those of one name. Their files are not ours to remove."""
    found = [sock for known, sock in handed if name in ("", "*", known)]
    if not found:
        raise InvalidArgument(f"fd://{name}: no such socket was handed over (by a .socket unit of systemd)")
    plain = [sock for sock in found if sock.family != socket.AF_UNIX and not config.tls.enabled]
    if plain and not config.allow_plain_tcp:
        raise InvalidArgument(f"fd://{name} is reached by TCP: {PLAIN}")
    return [
        Listener(sock, _context(config.tls) if sock.family != socket.AF_UNIX and config.tls.enabled else None)
        for sock in found
    ]


def _unix(path: str, group: str) -> Listener:
    os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
    _remove_stale(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        previous = os.umask(0o117)  # never, not even for a moment, connectable by others
        try:
            sock.bind(path)
        finally:
            os.umask(previous)
        os.chown(path, 0, _gid(group))
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        raise SystemFault(f"cannot listen on unix://{path}: {error.strerror}", errno=error.errno or 0) from None
    return Listener(sock, path=path, inode=os.stat(path).st_ino)


def _remove_stale(path: str) -> None:
    """Remove a socket that a killed daemon left; refuse to steal one that answers."""
    probe = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        probe.settimeout(2)
        probe.connect(path)
    except FileNotFoundError:
        return
    except OSError:
        os.unlink(path)
        return
    finally:
        probe.close()
    raise Conflict(f"another daemon already answers on unix://{path}")


def _gid(group: str) -> int:
    """The group that may use the socket: as asked, else `docker` where it exists (so that users stay as they are),
    else root.
    """
    try:
        return grp.getgrnam(group or "docker").gr_gid
    except KeyError:
        if group:
            raise InvalidArgument(f"group {group} not found") from None
        return 0


def _tcp(address: str, config: DaemonConfig) -> Listener:
    host, _, port = address.rpartition(":")
    if not port.isdecimal():
        raise InvalidArgument(f"invalid address tcp://{address}: it needs a port")
    if not config.tls.enabled:
        log.warning("tcp://%s IS SERVED WITHOUT TLS: WHOEVER CAN REACH IT IS ROOT ON THIS MACHINE", address)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        sock = socket.create_server((host.strip("[]") or "127.0.0.1", int(port)), family=family, backlog=BACKLOG)
    except OSError as error:
        raise SystemFault(f"cannot listen on tcp://{address}: {error.strerror}", errno=error.errno or 0) from None
    return Listener(sock, _context(config.tls) if config.tls.enabled else None)


def _context(tls: TlsConfig) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(tls.cert, tls.key)
        if tls.verify:
            context.load_verify_locations(tls.ca)
            context.verify_mode = ssl.CERT_REQUIRED
    except (OSError, ssl.SSLError) as error:
        raise InvalidArgument(f"the TLS files cannot be used: {error}") from None
    return context
