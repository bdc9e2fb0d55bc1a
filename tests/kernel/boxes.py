"""Containers of one busybox for tests of the runtime: a root, a specification, a client, and what it reports."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from corten.runtime.cgroups import Cgroup
from corten.runtime.client import RuntimeClient
from corten.runtime.types import (
    ExecRequest,
    ExitStatus,
    LaunchRequest,
    LogSpec,
    MountSpec,
    Stdio,
    Stream,
)
from corten.specs.oci_runtime import Linux, Mount, Namespace, Process, Root, Spec
from tests.waiting import patience, until_async

BUSYBOX = shutil.which("busybox") or ""

DEADLINE = patience(20.0)
OWNER = os.environ.get("CORTEN_TEST_OWNER") or str(os.getpid())  # a second process uses the same groups
ENV = ["PATH=/bin", "HOME=/"]

needs_root = pytest.mark.skipif(os.geteuid() != 0 or not BUSYBOX, reason="needs root and a static busybox")


def make_root(directory: Path) -> Path:
    """A root file system with busybox under the names that the tests use."""
    for name in ("bin", "proc", "dev", "sys", "tmp", "etc"):
        (directory / name).mkdir(parents=True)
    shutil.copy(BUSYBOX, directory / "bin/busybox")
    for applet in ("sh", "cat", "echo", "sleep", "true", "tty", "stty", "yes", "head", "kill", "dd", "wc"):
        (directory / "bin" / applet).symlink_to("busybox")
    (directory / "etc/passwd").write_text("root:x:0:0:root:/:/bin/sh\n")
    (directory / "etc/group").write_text("root:x:0:\n")
    return directory


def spec_of(name: str, args: tuple[str, ...], terminal: bool = False) -> Spec:
    kinds = ("mount", "pid", "uts", "ipc", "network")
    return Spec(
        oci_version="1.2.0",
        process=Process(cwd="/", args=list(args), env=list(ENV), terminal=terminal),
        root=Root(path="rootfs"),
        hostname="box",
        mounts=[
            Mount(destination="/proc", type="proc", source="proc"),
            Mount(destination="/dev", type="tmpfs", source="tmpfs", options=["nosuid", "mode=755", "size=65536k"]),
            Mount(destination="/dev/pts", type="devpts", source="devpts", options=["newinstance", "ptmxmode=0666"]),
        ],
        linux=Linux(namespaces=[Namespace(type=kind) for kind in kinds], cgroups_path=cgroup_of(name)),
    )


def cgroup_of(name: str) -> str:
    return f"/corten-test-{OWNER}/{name}"


@dataclass
class Boxes:
    """A client with its containers, all below one temporary directory."""

    base: Path
    client: RuntimeClient
    exits: dict[str, ExitStatus] = field(default_factory=dict)
    exec_exits: dict[str, ExitStatus] = field(default_factory=dict)
    names: set[str] = field(default_factory=set)
    _changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def heard(self, name: str, status: ExitStatus) -> None:
        assert name not in self.exits, "an exit was reported twice"
        self.exits[name] = status
        async with self._changed:
            self._changed.notify_all()

    async def heard_exec(self, name: str, exec_id: str, status: ExitStatus) -> None:
        assert exec_id not in self.exec_exits
        self.exec_exits[exec_id] = status
        async with self._changed:
            self._changed.notify_all()

    def request(self, name: str, *args: str, stdio: Stdio | None = None, **changes: Any) -> LaunchRequest:
        self.names.add(name)
        stdio = stdio or Stdio()
        return LaunchRequest(
            id=name,
            spec=spec_of(name, args, stdio.terminal),
            run_dir=self.base / "run" / name,
            exit_file=self.base / "state" / name / "exit.json",
            rootfs=(MountSpec("bind", str(self.base / "root"), options=("rbind",)),),
            stdio=stdio,
            log=LogSpec("json-file", self.log_path(name)),
            **changes,
        )

    def log_path(self, name: str) -> Path:
        return self.base / f"{name}.log"

    async def launch(self, name: str, *args: str, streams: tuple[Stream, ...] = (), **changes: Any) -> int:
        return (await self.client.launch(self.request(name, *args, **changes), streams)).pid

    def process(self, *args: str, terminal: bool = False) -> Process:
        return Process(cwd="/", args=list(args), env=list(ENV), terminal=terminal)

    async def exec(
        self, name: str, exec_id: str, *args: str, stdio: Stdio | None = None, streams: tuple[Stream, ...] = ()
    ) -> int:
        stdio = stdio or Stdio()
        request = ExecRequest(name, exec_id, self.process(*args, terminal=stdio.terminal), stdio)
        return await self.client.execs.start(request, streams)

    async def exit_of(self, name: str) -> ExitStatus:
        return await self._await(lambda: self.exits.get(name))

    async def exec_exit_of(self, exec_id: str) -> ExitStatus:
        return await self._await(lambda: self.exec_exits.get(exec_id))

    async def _await(self, look: Callable[[], ExitStatus | None]) -> ExitStatus:
        async with asyncio.timeout(DEADLINE), self._changed:
            while (status := look()) is None:
                await self._changed.wait()
            return status

    def logged(self, name: str) -> str:
        path = self.log_path(name)
        lines = path.read_text().split("\n")[:-1] if path.exists() else []  # the last one may be on its way
        return "".join(json.loads(line)["log"] for line in lines)

    async def logged_until(self, name: str, part: str) -> str:
        """The log, as soon as it holds `part`."""
        await until_async(lambda: part in self.logged(name), what=f"{part!r} in the log")
        return self.logged(name)

    async def clean_up(self) -> None:
        for name in self.names:
            group = Cgroup(cgroup_of(name))
            group.kill_all()
            if name in self.client._containers and name not in self.exits:
                await self.exit_of(name)
            await self.client.forget(name)
        await self.client.close()
        if "CORTEN_TEST_OWNER" not in os.environ:
            Cgroup(cgroup_of("")).remove()


@asynccontextmanager
async def boxes(base: Path) -> AsyncIterator[Boxes]:
    """A started client; in the end all its containers are gone."""
    if not (base / "root").exists():
        make_root(base / "root")
    made = Boxes(base, RuntimeClient(base / "exec"))
    made.client.on_exit(made.heard)
    made.client.execs.on_exit(made.heard_exec)
    await made.client.start()
    try:
        yield made
    finally:
        await made.clean_up()


class Terminal:
    """The far end of an attached stream."""

    def __init__(self, **settings: Any) -> None:
        self.sock, theirs = socket.socketpair()
        self.sock.setblocking(False)
        self.stream = Stream(theirs.detach(), **{"raw": True, **settings})
        self.seen = b""

    def __del__(self) -> None:
        self.sock.close()

    async def read_until(self, part: bytes) -> bytes:
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(DEADLINE):
            while part not in self.seen:
                data = await loop.sock_recv(self.sock, 1 << 16)
                assert data, f"the stream has ended after {self.seen!r}"
                self.seen += data
        return self.seen

    async def read_all(self) -> bytes:
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(DEADLINE):
            while data := await loop.sock_recv(self.sock, 1 << 16):
                self.seen += data
        self.sock.close()
        return self.seen

    async def send(self, data: bytes) -> None:
        await asyncio.get_running_loop().sock_sendall(self.sock, data)
