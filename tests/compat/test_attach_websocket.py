"""Attaching by a websocket, with a client that is not ours."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import pytest

from tests.compat.harness import Daemon
from tests.waiting import patience, until

ALL = "stream=1&stdin=1&stdout=1&stderr=1"


@asynccontextmanager
async def attached(daemon: Daemon, name: str, query: str = ALL) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
    connector = aiohttp.UnixConnector(str(daemon.socket))
    async with (
        aiohttp.ClientSession("http://docker", connector=connector) as session,
        session.ws_connect(f"/v1.47/containers/{name}/attach/ws?{query}", max_msg_size=0) as peer,
    ):
        yield peer


async def rest(peer: aiohttp.ClientWebSocketResponse) -> bytes:
    """All that comes until the daemon closes it."""
    said = b""
    async with asyncio.timeout(patience(20)):
        async for message in peer:
            assert message.type is aiohttp.WSMsgType.BINARY
            said += message.data
    assert peer.close_code == aiohttp.WSCloseCode.OK
    return said


def test_input_and_output(daemon: Daemon) -> None:
    daemon.ok(
        "run",
        "-d",
        "-i",
        "--name",
        "echo",
        "busybox",
        "sh",
        "-c",
        "read a; echo got $a; read b; echo and $b >&2; exit 3",
    )

    async def script() -> bytes:
        async with attached(daemon, "echo") as peer:
            await peer.send_str("one\n")
            await peer.send_bytes(b"two\n")
            return await rest(peer)

    assert asyncio.run(script()) == b"got one\nand two\n"
    assert daemon.ok("wait", "echo") == "3"


@pytest.mark.parametrize("tty", [False, True], ids=["pipes", "terminal"])
def test_much_output_and_what_was_said_before(daemon: Daemon, tty: bool) -> None:
    flags = ("-t",) if tty else ()
    command = "echo before; read a; head -c 3000000 /dev/zero | tr '\\0' x; echo; echo after >&2"
    daemon.ok("run", "-d", "-i", *flags, "--name", "much", "busybox", "sh", "-c", command)
    until(lambda: "before" in daemon.ok("logs", "much"), what="the first line")

    async def script() -> bytes:
        async with attached(daemon, "much", ALL + "&logs=1") as peer:
            await peer.send_str("go\n")
            return await rest(peer)

    said = asyncio.run(script()).replace(b"\r\n", b"\n").replace(b"go\n", b"")
    assert sorted(said.split(b"\n")) == sorted([b"before", b"x" * 3_000_000, b"after", b""])


def test_the_end_of_the_input_and_a_client_that_goes(daemon: Daemon) -> None:
    daemon.ok("create", "-i", "--name", "cat", "busybox", "sh", "-c", "cat >/got; exit 4")

    async def script() -> None:
        async with attached(daemon, "cat") as peer:
            await asyncio.to_thread(daemon.ok, "start", "cat")
            await peer.send_str("all of it")

    asyncio.run(script())
    assert daemon.ok("wait", "cat") == "4"


def test_what_cannot_be_attached_to(daemon: Daemon) -> None:
    daemon.ok("run", "-d", "--name", "still", "busybox", "sleep", "1000")
    daemon.ok("pause", "still")

    async def refused(name: str) -> int:
        try:
            async with attached(daemon, name):
                return 101
        except aiohttp.WSServerHandshakeError as error:
            return error.status

    assert asyncio.run(refused("nobody")) == 404
    assert asyncio.run(refused("still")) == 409
    daemon.ok("unpause", "still")
    assert daemon.curl("/containers/still/attach/ws").code == 400
