"""What `docker events` tells and leaves out, with the real docker command."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import socket
import subprocess
import time
from typing import Any

import aiohttp

from tests.compat.harness import Daemon
from tests.waiting import patience, until


def told(daemon: Daemon, since: float, *filters: str) -> list[dict[str, Any]]:
    chosen = [word for text in filters for word in ("--filter", text)]
    past = ("--since", f"{since:.9f}", "--until", f"{time.time():.9f}")
    return [json.loads(line) for line in daemon.ok("events", *past, *chosen, "--format", "json").splitlines()]


def actions(daemon: Daemon, since: float, *filters: str) -> list[str]:
    return [f"{event['Type']} {event['Action']}" for event in told(daemon, since, *filters)]


def test_filters_of_a_kind_add_up_and_kinds_narrow(daemon: Daemon) -> None:
    since = time.time()
    for name in ("fish-a", "fish-b", "bird"):
        daemon.ok("create", "--name", name, "-l", f"is={name[:4]}", "busybox")

    def names(*filters: str) -> list[str]:
        return [event["Actor"]["Attributes"]["name"] for event in told(daemon, since, "event=create", *filters)]

    assert names("container=fish") == ["fish-a", "fish-b"]
    assert names("container=fish-b", "container=bird") == ["fish-b", "bird"]
    assert names("container=fish", "label=is=bird") == names("container=fish", "image=other") == []
    assert names("container=fish", "image=busybox") == ["fish-a", "fish-b"]
    id = daemon.ok("inspect", "-f", "{{.Id}}", "bird")
    assert names(f"container={id[:10]}") == ["bird"]
    assert names("container=ish") == []
    daemon.ok("rename", "bird", "fish-c")
    renamed = told(daemon, since, "container=fish-c")
    assert [(event["Action"], event["Actor"]["Attributes"]["oldName"]) for event in renamed] == [("rename", "/bird")]


def test_top_is_told_once_it_has_worked(daemon: Daemon) -> None:
    since = time.time()
    daemon.ok("run", "-d", "--name", "busy", "busybox", "sleep", "100")
    refused = daemon.docker("top", "busy", "--no-such-option")
    assert refused.code == 1
    assert len(refused.err.splitlines()) == 1
    assert "unknown gnu long option" in refused.err
    daemon.ok("top", "busy")
    (event,) = told(daemon, since, "event=top")
    assert event["Actor"]["Attributes"] == {"image": "busybox", "name": "busy"}


def test_images_are_told_with_their_labels(daemon: Daemon) -> None:
    since = time.time()
    daemon.ok("create", "--name", "base", "busybox")
    id = daemon.ok("commit", "-c", "LABEL stage=test", "base", "made:1")
    daemon.ok("tag", "made:1", "made:2")
    daemon.ok("rmi", "made:1", "made:2")
    events = told(daemon, since, "type=image", "label=stage=test")
    assert [(event["Action"], event["Actor"]["Attributes"]["name"]) for event in events] == [
        ("create", id),
        ("tag", "made:1"),
        ("tag", "made:2"),
        ("untag", "made:1"),
        ("untag", "made:2"),
        ("delete", id),
    ]
    assert actions(daemon, since, "image=made:1") == ["image tag", "image untag"]
    assert "container commit" in actions(daemon, since, "container=base")


KEYS = b"\x10\x11"


def typed(daemon: Daemon, path: str, data: bytes, body: bytes = b"") -> None:
    """Ask for a stream, send `data` on it, and read until the daemon ends it."""
    head = f"POST {path} HTTP/1.1\r\nHost: docker\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n"
    head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(patience(20))
        client.connect(str(daemon.socket))
        client.sendall(head.encode() + body)
        assert client.recv(4096).startswith(b"HTTP/1.1 101")
        client.sendall(data)
        while client.recv(4096):
            pass


def test_who_detaches_by_keys_is_told_of(daemon: Daemon) -> None:
    since = time.time()
    daemon.ok("run", "-dit", "--name", "shell", "-l", "is=left", "busybox", "cat")
    typed(daemon, "/v1.44/containers/shell/attach?stream=1&stdin=1&stdout=1", b"some" + KEYS)
    typed(daemon, "/v1.44/containers/shell/attach?stream=1&stdin=1&stdout=1&detachKeys=ctrl-x", b"\x18")
    wanted = {"Cmd": ["cat"], "Tty": True, "AttachStdin": True, "AttachStdout": True}
    id = json.loads(daemon.curl("/containers/shell/exec", "POST", wanted).out)["Id"]
    typed(daemon, f"/v1.44/exec/{id}/start", KEYS, b'{"Tty":true}')

    async def by_websocket() -> None:
        connector = aiohttp.UnixConnector(str(daemon.socket))
        path = "/v1.44/containers/shell/attach/ws?stream=1&stdin=1&stdout=1&stderr=1"
        async with aiohttp.ClientSession("http://docker", connector=connector) as session:
            async with session.ws_connect(path) as peer, asyncio.timeout(patience(20)):
                await peer.send_bytes(KEYS)
                async for _ in peer:
                    pass

    asyncio.run(by_websocket())

    def left() -> list[dict[str, Any]]:
        return told(daemon, since, "event=detach", "event=exec_detach")

    until(lambda: len(left()) == 4, what="word of the four who have detached")
    attributes = {"image": "busybox", "is": "left", "name": "shell"}
    assert [(event["Action"], event["Actor"]["Attributes"]) for event in left()] == [
        ("detach", attributes),
        ("detach", attributes),
        ("exec_detach", {**attributes, "execID": id}),
        ("detach", attributes),
    ]
    assert json.loads(daemon.curl(f"/exec/{id}/json").out)["Running"]  # left, and not ended with its client
    assert daemon.inspect("shell")["State"]["Running"]


def test_the_docker_command_keeps_the_keys_to_itself(daemon: Daemon) -> None:
    """So that its daemon sees a client that goes, and tells nothing of it, with dockerd too."""
    since = time.time()
    daemon.ok("run", "-dit", "--name", "shell", "busybox", "sh")
    ours, theirs = pty.openpty()
    command = daemon.host.inside("docker", "-H", daemon.url, "attach", "shell")
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        until(lambda: "container attach" in actions(daemon, since), what="the attached client")
        os.write(ours, b"echo $((6 * 7))\n")
        seen = b""
        while b"42" not in seen:
            seen += os.read(ours, 4096)
        os.write(ours, KEYS)
        assert process.wait(patience(20)) == 1
    os.close(ours)
    assert "container detach" not in actions(daemon, since)
    assert daemon.inspect("shell")["State"]["Running"]
