"""The API over an engine in memory, served from a thread on a unix socket, and a client that hides nothing."""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
import ssl
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import uvloop
from aiohttp import web

from corten.api.docker.app import ApiSettings, create_server
from corten.api.docker.tls import make_site
from corten.testing.engine import MemoryEngine

T = TypeVar("T")
TIMEOUT = 10.0


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("docker", timeout=TIMEOUT)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(TIMEOUT)
        self.sock.connect(self._path)


@dataclass
class Answer:
    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def lines(self) -> list[Any]:
        return [json.loads(line) for line in self.body.splitlines()]


class Api:
    """A served engine. `engine` may be read from the test; `run` changes it on its own loop."""

    def __init__(self, path: str, engine: MemoryEngine, loop: asyncio.AbstractEventLoop) -> None:
        self.path, self.engine, self._loop = path, engine, loop
        self.tls_port = 0

    def request(self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> Answer:
        """One request on a connection of its own. A body that is no bytes goes as JSON."""
        headers = headers or {}
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
            headers = {"Content-Type": "application/json", **headers}
        connection = UnixConnection(self.path)
        try:
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            return Answer(response.status, response.headers, response.read())
        finally:
            connection.close()

    def get(self, path: str) -> Answer:
        return self.request("GET", path)

    def post(self, path: str, body: Any = None, headers: dict[str, str] | None = None) -> Answer:
        return self.request("POST", path, body, headers)

    def create(self, name: str = "", **config: Any) -> str:
        answer = self.post(f"/containers/create?name={name}", {"Image": "busybox", **config})
        assert answer.status == 201, answer.body
        container_id: str = answer.json["Id"]
        return container_id

    def started(self, name: str = "", **config: Any) -> str:
        container_id = self.create(name, **config)
        assert self.post(f"/containers/{container_id}/start").status == 204
        return container_id

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(TIMEOUT)

    def do(self, action: Callable[[], T]) -> T:
        async def act() -> T:
            return action()

        return self.run(act())

    def connect(self) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(TIMEOUT)
        sock.connect(self.path)
        return sock


@contextmanager
def serve(
    directory: Path, *, loop: str = "uvloop", settings: ApiSettings | None = None, tls: ssl.SSLContext | None = None
) -> Iterator[Api]:
    """With `tls` on a TCP port of the loopback as well."""
    path = str(directory / "api.sock")
    ready: asyncio.Queue[None] = asyncio.Queue()
    started = threading.Event()
    listener = socket.create_server(("127.0.0.1", 0)) if tls else None
    made: list[tuple[MemoryEngine, asyncio.AbstractEventLoop]] = []

    async def main() -> None:
        engine = MemoryEngine()
        runner = web.ServerRunner(create_server(engine.backends, settings=settings))
        await runner.setup()
        await web.UnixSite(runner, path).start()
        if listener is not None:
            await make_site(runner, listener, tls).start()
        made.append((engine, asyncio.get_running_loop()))
        started.set()
        await ready.get()
        await runner.cleanup()
        await engine.close()

    def body() -> None:
        factory = uvloop.new_event_loop if loop == "uvloop" else asyncio.new_event_loop
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(main())

    thread = threading.Thread(target=body, name="api", daemon=True)
    thread.start()
    assert started.wait(TIMEOUT), "the server did not start"
    engine, running = made[0]
    served = Api(path, engine, running)
    served.tls_port = listener.getsockname()[1] if listener else 0
    try:
        yield served
    finally:
        running.call_soon_threadsafe(ready.put_nowait, None)
        thread.join(TIMEOUT)
        assert not thread.is_alive(), "the server did not stop"


def read_head(sock: socket.socket) -> tuple[bytes, bytes]:
    """The head of an answer, and what came with it."""
    data = b""
    while b"\r\n\r\n" not in data:
        more = sock.recv(65536)
        assert more, data
        data += more
    head, _, rest = data.partition(b"\r\n\r\n")
    return head, rest


def read_all(sock: socket.socket) -> bytes:
    data = b""
    while more := sock.recv(65536):
        data += more
    return data
