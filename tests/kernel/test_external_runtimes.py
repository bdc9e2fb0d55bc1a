"""The same containers under the OCI runtimes that the machine has."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from corten.errors import StartFailed
from corten.runtime.types import Stdio
from tests import foreign
from tests.kernel.boxes import Boxes, Terminal, boxes, cgroup_of, needs_root

pytestmark = [pytest.mark.root, needs_root]


@pytest.fixture(params=foreign.NAMES)
def program(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return foreign.program(str(request.param), tmp_path)


def run(tmp_path: Path, work: Callable[[Boxes], Awaitable[None]]) -> None:
    async def main() -> None:
        async with boxes(tmp_path) as made:
            await work(made)

    asyncio.run(main())


def test_output_code_and_exec(tmp_path: Path, program: str) -> None:
    async def work(b: Boxes) -> None:
        await b.launch("c", "sh", "-c", "echo hi; echo $HOME; sleep 1000", runtime=program, user="root")
        await b.logged_until("c", "/\n")
        await b.exec("c", "x", "sh", "-c", "exit 5")
        assert (await b.exec_exit_of("x")).code == 5
        with pytest.raises(StartFailed) as caught:
            await b.exec("c", "y", "/no/such")
        assert caught.value.exit_code == 127
        assert b.client.resources.pids("c")
        await b.client.pause("c")
        await b.client.resume("c")
        await b.client.signal("c", signal.SIGKILL)
        assert (await b.exit_of("c")).code == 137
        assert b.logged("c") == "hi\n/\n"
        await b.client.forget("c")
        assert not os.path.exists("/sys/fs/cgroup/pids" + cgroup_of("c"))
        assert str(tmp_path / "run/c/rootfs") not in Path("/proc/self/mountinfo").read_text()

    run(tmp_path, work)


def test_a_terminal(tmp_path: Path, program: str) -> None:
    async def work(b: Boxes) -> None:
        terminal = Terminal(stdin=True)
        stdio = Stdio(terminal=True, open_stdin=True, console_size=(33, 77))
        script = "stty size; read l; stty size; exit 3"
        await b.launch("c", "sh", "-c", script, stdio=stdio, streams=(terminal.stream,), runtime=program)
        await terminal.read_until(b"33 77\r\n")
        await b.client.stdio.resize("c", 20, 50)
        await terminal.send(b"\r")
        assert (await terminal.read_all()).endswith(b"20 50\r\n")
        assert (await b.exit_of("c")).code == 3

    run(tmp_path, work)


def test_stdin(tmp_path: Path, program: str) -> None:
    async def work(b: Boxes) -> None:
        terminal = Terminal(stdin=True)
        stdio = Stdio(open_stdin=True, stdin_once=True)
        await b.launch("c", "cat", stdio=stdio, streams=(terminal.stream,), runtime=program)
        await terminal.send(b"through\n")
        terminal.sock.shutdown(socket.SHUT_WR)
        assert await terminal.read_all() == b"through\n"
        assert (await b.exit_of("c")).code == 0

    run(tmp_path, work)


@pytest.mark.parametrize(("args", "code"), [(("/no/such",), 127), (("/etc/passwd",), 126)])
def test_a_start_that_fails(tmp_path: Path, program: str, args: tuple[str, ...], code: int) -> None:
    async def work(b: Boxes) -> None:
        with pytest.raises(StartFailed) as caught:
            await b.launch("c", *args, runtime=program)
        assert caught.value.exit_code == code
        assert not os.path.exists("/sys/fs/cgroup/pids" + cgroup_of("c"))
        with pytest.raises(StartFailed, match="unable to find user nobody-here"):
            await b.launch("c", "true", runtime=program, user="nobody-here")

    run(tmp_path, work)


def test_a_new_daemon_finds_it_again(tmp_path: Path, program: str) -> None:
    async def work(b: Boxes) -> None:
        await b.launch("c", "sleep", "1000", runtime=program)
        await b.client.close()
        async with boxes(tmp_path) as again:
            request = again.request("c", "true")
            b.names.clear()
            found = await again.client.recover("c", request.run_dir, request.exit_file, cgroup_of("c"))
            assert found.pid > 0
            await again.exec("c", "x", "sh", "-c", "exit 4")
            assert (await again.exec_exit_of("x")).code == 4

    run(tmp_path, work)


def test_a_program_that_is_not_there_is_named(tmp_path: Path) -> None:
    async def work(b: Boxes) -> None:
        with pytest.raises(Exception, match="/no/runtime: No such file or directory"):
            await b.launch("c", "true", runtime="/no/runtime")

    run(tmp_path, work)
