"""A token server as Docker Hub has one, for a real registry: in this process, listening in the daemon's namespace."""

from __future__ import annotations

import base64
import ctypes
import json
import os
import socket
import ssl
import subprocess
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.compat.harness import Host

CLONE_NEWNET = 0x40000000
ISSUER, SERVICE = "tests", "registry"


def listener_in(host: Host, address: tuple[str, int]) -> socket.socket:
    """A listening socket that belongs to `host`'s network; the thread that makes it has to go there first."""
    made: list[socket.socket] = []

    def make() -> None:
        fd = os.open(f"/run/netns/{host.netns}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            libc = ctypes.CDLL(None, use_errno=True)
            assert libc.setns(fd, CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())
        finally:
            os.close(fd)
        made.append(socket.create_server(address))

    thread = threading.Thread(target=make)
    thread.start()
    thread.join()
    return made[0]


class TokenServer:
    """Gives tokens to `users` for what they ask, to anybody else for nothing. `certificate` and its key serve TLS and
    sign the tokens: an RSA pair.

    The next `stale` tokens have expired when they are given; the next `busy` requests are answered 429.
    """

    def __init__(self, host: Host, address: tuple[str, int], users: dict[str, str], pair: tuple[Path, Path]) -> None:
        self.users, self.certificate, self._key = users, *pair
        self.realm = f"https://{address[0]}:{address[1]}/token"
        self.stale = self.busy = 0
        self.asked: list[tuple[str, str]] = []
        """(method, scopes) of each request that was answered with a token."""
        self.given: list[str] = []
        """Every token, of each kind, that was given to somebody."""
        listener = listener_in(host, address)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*pair)
        self._server = ThreadingHTTPServer(address, _handler(self), bind_and_activate=False)
        self._server.socket.close()
        self._server.socket = context.wrap_socket(listener, server_side=True, do_handshake_on_connect=False)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})

    def __enter__(self) -> TokenServer:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def answer(self, method: str, authorization: str, fields: dict[str, list[str]]) -> tuple[int, dict[str, Any]]:
        """Status and body."""
        if self.busy:
            self.busy -= 1
            return 429, {"details": "too many requests"}
        user = self._user(method, authorization, fields)
        if user is None:
            return 401, {"details": "incorrect username or password"}
        scopes = [scope for value in fields.get("scope", []) for scope in value.split()]
        self.asked.append((method, " ".join(scopes)))
        token = self._token(user, scopes if user else [])
        # The one name by the rules of old, the other by OAuth's.
        body: dict[str, Any] = {"access_token" if method == "POST" else "token": token, "expires_in": 300}
        if fields.get("offline_token") == ["true"] and user:
            body["refresh_token"] = f"refresh-hunter2-{os.urandom(4).hex()}-{user}"
            self.given.append(body["refresh_token"])
        self.given.append(token)
        return 200, body

    def _user(self, method: str, authorization: str, fields: dict[str, list[str]]) -> str | None:
        if method == "POST":
            kind, _, user = fields.get("refresh_token", [""])[0].rpartition("-")
            return user if kind.startswith("refresh-hunter2-") and user in self.users else None
        if not authorization:
            return ""
        user, _, password = base64.b64decode(authorization.removeprefix("Basic ")).decode().partition(":")
        return user if self.users.get(user) == password else None

    def _token(self, user: str, scopes: list[str]) -> str:
        now = int(time.time())
        if self.stale:
            self.stale -= 1
            now -= 3600  # registries allow for clocks that differ by a minute
        access = []
        for scope in scopes:
            kind, name, actions = scope.split(":")
            access.append({"type": kind, "name": name, "actions": actions.split(",")})
        der = base64.b64encode(ssl.PEM_cert_to_DER_cert(self.certificate.read_text())).decode()
        claims = {"iss": ISSUER, "sub": user, "aud": SERVICE, "exp": now + 300, "nbf": now - 5, "iat": now}
        parts = [{"typ": "JWT", "alg": "RS256", "x5c": [der]}, {**claims, "jti": str(now), "access": access}]
        text = b".".join(_encode(json.dumps(part).encode()) for part in parts)
        signed = subprocess.run(
            ["openssl", "dgst", "-sha256", "-sign", str(self._key)], input=text, capture_output=True, check=True
        )
        return (text + b"." + _encode(signed.stdout)).decode()


def _encode(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def _handler(server: TokenServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = 10

        def log_message(self, format: str, *args: object) -> None:
            pass

        def do_GET(self) -> None:
            self._answer(parse_qs(urlsplit(self.path).query))

        def do_POST(self) -> None:
            self._answer(parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode()))

        def _answer(self, fields: dict[str, list[str]]) -> None:
            status, body = server.answer(self.command, self.headers.get("Authorization", ""), fields)
            data = json.dumps(body).encode()
            self.send_response(status)
            if status == 429:
                self.send_header("Retry-After", "1")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

    return Handler
