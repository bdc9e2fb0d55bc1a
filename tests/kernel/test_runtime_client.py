"""RuntimeClient with its spawner, shims and real containers."""

from __future__ import annotations

# ruff: noqa: ASYNC220 - processes end when they end, and the daemon to be killed is a process
import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from corten.errors import Conflict, IllegalTransition, NotFound, StartFailed
from corten.runtime.types import Stdio
from tests.kernel.boxes import Boxes, Terminal, boxes, cgroup_of, needs_root
from tests.waiting import patience, until_async

pytestmark = [pytest.mark.root, needs_root]


def run(tmp_path: Path, work: Callable[[Boxes], Awaitable[None]]) -> None:
    async def main() -> None:
        async with boxes(tmp_path) as made:
            await work(made)

    asyncio.run(main())


def shim_of(pid: int) -> int:
    """The parent of a container's first process."""
    with open(f"/proc/{pid}/stat") as file:
        return int(file.read().rpartition(")")[2].split()[1])


def runs(pid: int) -> bool:
    """Whether a process is there and no zombie, which may have to wait for a slow pid 1."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


async def gone(pid: int) -> None:
    await until_async(lambda: not runs(pid), what="the end of the process")


def test_a_container_runs_logs_and_ends(tmp_path: Path) -> None:
    async def work(b: Boxes) -> None:
        await b.launch("c", "sh", "-c", "echo out; echo err >&2; printf rest; exit 7")
        status = await b.exit_of("c")
        assert (status.code, status.oom_killed, status.reason) == (7, False, "")
        assert sorted(b.logged("c").splitlines()) == ["err", "out", "rest"]
        assert (tmp_path / "state/c/exit.json").read_text().startswith('{"code":7,')
        await b.client.forget("c")
        assert not (tmp_path / "run/c/shim.sock").exists()
        assert (tmp_path / "run/c/shim.log").read_text() == ""

    run(tmp_path, work)


@pytest.mark.parametrize(("args", "code"), [(("/no/such",), 127), (("/etc/passwd",), 126)])
def test_a_start_that_fails_says_why_and_leaves_nothing(tmp_path: Path, args: tuple[str, ...], code: int) -> None:
    async def work(b: Boxes) -> None:
        terminal = Terminal()
        with pytest.raises(StartFailed) as caught:
            await b.launch("c", *args, streams=(terminal.stream,))
        assert caught.value.exit_code == code
        assert await terminal.read_all() == b""
        assert not (tmp_path / "run/c/shim.sock").exists()
        assert not os.path.exists("/sys/fs/cgroup/pids" + cgroup_of("c"))
        await b.launch("c", "true")  # and the next try works
        assert (await b.exit_of("c")).code == 0

    run(tmp_path, work)


def test_signals_and_the_code_of_a_killed_process(tmp_path: Path) -> None:
    async def work(b: Boxes) -> None:
        await b.launch("c", "sh", "-c", "trap 'echo caught; exit 3' USR1; echo ready; while :; do sleep 0.01; done")
        await b.logged_until("c", "ready")
        await b.client.signal("c", signal.SIGUSR1)
        assert (await b.exit_of("c")).code == 3
        await b.client.signal("c", signal.SIGUSR1)  # it has ended: no error
        await b.launch("d", "sleep", "1000")
        assert b.client.resources.pids("d")
        await b.client.signal("d", signal.SIGKILL)
        assert (await b.exit_of("d")).code == 137
        assert b.client.resources.pids("d") == []

    run(tmp_path, work)


def test_stdin_is_copied_and_ends(tmp_path: Path) -> None:
    async def work(b: Boxes) -> None:
        terminal = Terminal(stdin=True, prefix=b"be")
        stdio = Stdio(open_stdin=True, stdin_once=True)
        await b.launch("c", "cat", stdio=stdio, streams=(terminal.stream,))
        await terminal.send(b"fore\nafter\n")
        terminal.sock.shutdown(socket.SHUT_WR)
        assert await terminal.read_all() == b"before\nafter\n"
        assert (await b.exit_of("c")).code == 0
        assert b.logged("c") == "before\nafter\n"

    run(tmp_path, work)


def test_clients_come_and_go(tmp_path: Path) -> None:
    async def work(b: Boxes) -> None:
        await b.launch("c", "sh", "-c", "echo early; while read l; do echo $l; done", stdio=Stdio(open_stdin=True))
        await b.logged_until("c", "early")
        first, second = Terminal(stdin=True), Terminal(stdin=True, raw=False)
        await b.client.stdio.attach("c", first.stream)
        await b.client.stdio.attach("c", second.stream)
        await first.send(b"one\n")
        assert await first.read_until(b"one\n") == b"one\n"
        assert await second.read_until(b"one\n") == b"\x01\0\0\0\0\0\0\x04one\n"
        first.sock.close()
        await second.send(b"two\n")
        await second.read_until(b"two\n")
        await b.client.signal("c", signal.SIGKILL)
        await second.read_all()
        assert b.logged("c") == "early\none\ntwo\n"

    run(tmp_path, work)


def test_a_terminal_has_a_size_and_can_be_left(tmp_path: Path) -> None:
    async def work(b: Boxes) -> None:
        script = "trap 'stty size' WINCH; stty size; while :; do read l; echo got $l; done"
        terminal = Terminal(stdin=True, detach_keys=b"\x10\x11")
        left: list[tuple[str, str]] = []
        b.client.stdio.on_detach(lambda id, exec_id: left.append((id, exec_id)))
        stdio = Stdio(terminal=True, open_stdin=True, console_size=(33, 77))
        await b.launch("c", "sh", "-c", script, stdio=stdio, streams=(terminal.stream,))
        await terminal.read_until(b"33 77\r\n")
        await b.client.stdio.resize("c", 50, 120)
        await terminal.send(b"x\r")
        await terminal.read_until(b"got x\r\n")
        assert b"50 120\r\n" in terminal.seen
        await terminal.send(b"\x10\x11")
        await terminal.read_all()
        session = Terminal(stdin=True, detach_keys=b"\x01")
        await b.exec("c", "x", "sleep", "1000", stdio=Stdio(terminal=True, open_stdin=True), streams=(session.stream,))
        await session.send(b"\x01")
        await session.read_all()
        await until_async(lambda: len(left) == 2, what="word of those who detach")
        assert left == [("c", ""), ("c", "x")]
        assert not b.exits
        await b.client.signal("c", signal.SIGKILL)
        assert (await b.exit_of("c")).code == 137

    run(tmp_path, work)


def test_exec_sessions(tmp_path: Path) -> None:
    async def work(b: Boxes) -> None:
        await b.launch("c", "sleep", "1000")
        terminal = Terminal(stdin=True)
        pid = await b.exec(
            "c", "x", "sh", "-c", "cat; exit 5", stdio=Stdio(open_stdin=True), streams=(terminal.stream,)
        )
        assert pid in b.client.resources.pids("c")
        await terminal.send(b"typed")
        terminal.sock.shutdown(socket.SHUT_WR)
        assert await terminal.read_all() == b"typed"
        assert (await b.exec_exit_of("x")).code == 5
        assert b.logged("c") == ""
        with pytest.raises(StartFailed) as caught:
            await b.exec("c", "y", "/no/such")
        assert caught.value.exit_code == 127
        await b.exec("c", "z", "sleep", "1000")
        await b.client.execs.signal("c", "z", signal.SIGTERM)
        assert (await b.exec_exit_of("z")).code == 143
        await b.exec("c", "w", "sleep", "1000")
        await b.client.signal("c", signal.SIGKILL)
        assert (await b.exec_exit_of("w")).code == 137
        assert (await b.exit_of("c")).code == 137
        with pytest.raises(NotFound):
            await b.exec("c", "v", "true")

    run(tmp_path, work)


def test_an_exec_with_a_terminal(tmp_path: Path) -> None:
    async def work(b: Boxes) -> None:
        await b.launch("c", "sleep", "1000")
        terminal = Terminal(stdin=True)
        stdio = Stdio(terminal=True, open_stdin=True, console_size=(20, 60))
        await b.exec("c", "x", "sh", "-c", "stty size; read l; stty size", stdio=stdio, streams=(terminal.stream,))
        await terminal.read_until(b"20 60\r\n")
        await b.client.execs.resize("c", "x", 21, 61)
        await terminal.send(b"\r")
        assert (await terminal.read_all()).endswith(b"21 61\r\n")
        assert (await b.exec_exit_of("x")).code == 0

    run(tmp_path, work)


def test_an_exec_ends_although_a_child_of_it_keeps_its_output(tmp_path: Path) -> None:
    async def work(b: Boxes) -> None:
        await b.launch("c", "sleep", "1000")
        terminal = Terminal()
        await b.exec("c", "x", "sh", "-c", "sleep 999 & echo started", streams=(terminal.stream,))
        assert await terminal.read_all() == b"started\n"
        assert (await b.exec_exit_of("x")).code == 0

    run(tmp_path, work)


def test_pause_and_resume(tmp_path: Path) -> None:
    async def work(b: Boxes) -> None:
        await b.launch("c", "sh", "-c", "while read l; do echo $l; done", stdio=Stdio(open_stdin=True))
        terminal = Terminal(stdin=True)
        await b.client.stdio.attach("c", terminal.stream)
        await b.client.pause("c")
        with pytest.raises(IllegalTransition):
            await b.client.pause("c")
        with pytest.raises(Conflict, match="paused"):
            await b.exec("c", "x", "true")
        await terminal.send(b"frozen\n")
        with pytest.raises(BlockingIOError):
            terminal.sock.recv(1)
        await b.client.resume("c")
        assert await terminal.read_until(b"frozen\n") == b"frozen\n"
        with pytest.raises(IllegalTransition):
            await b.client.resume("c")

    run(tmp_path, work)


def test_what_is_not_there_is_said(tmp_path: Path) -> None:
    async def work(b: Boxes) -> None:
        with pytest.raises(NotFound):
            await b.client.signal("nobody", 9)
        with pytest.raises(NotFound):
            await b.client.stdio.attach("nobody", Terminal().stream)
        await b.launch("c", "sleep", "1000")
        with pytest.raises(IllegalTransition):
            await b.launch("c", "true")
        with pytest.raises(IllegalTransition):
            await b.client.forget("c")
        with pytest.raises(Conflict):
            await b.client.execs.resize("c", "nobody", 1, 1)

    run(tmp_path, work)


def test_kept_descriptors_live_as_long_as_the_container(tmp_path: Path) -> None:
    async def work(b: Boxes) -> None:
        ours, theirs = socket.socketpair()
        await b.client.launch(b.request("c", "sleep", "1000"), (), [theirs.fileno()])
        theirs.close()
        ours.setblocking(False)
        with pytest.raises(BlockingIOError):
            ours.recv(1)
        await b.client.signal("c", signal.SIGKILL)
        await b.exit_of("c")
        assert ours.recv(1) == b""  # closed before the exit was told: who hears of it may take the port again
        ours.close()
        await b.client.forget("c")

    run(tmp_path, work)


def test_many_at_once(tmp_path: Path) -> None:
    async def work(b: Boxes) -> None:
        await asyncio.gather(*(b.launch(f"c{n}", "sh", "-c", f"echo {n}; exit {n}") for n in range(12)))
        codes = [(await b.exit_of(f"c{n}")).code for n in range(12)]
        assert codes == list(range(12))
        assert [b.logged(f"c{n}") for n in range(12)] == [f"{n}\n" for n in range(12)]

    run(tmp_path, work)


def test_a_killed_spawner_is_replaced_and_its_containers_go_on(tmp_path: Path) -> None:
    async def work(b: Boxes) -> None:
        await b.launch("c", "sh", "-c", "while read l; do echo $l; done", stdio=Stdio(open_stdin=True))
        before = b.client.spawner_pid
        os.kill(before, signal.SIGKILL)
        async with asyncio.timeout(patience(10.0)):
            await b.launch("d", "true")
        assert (await b.exit_of("d")).code == 0
        assert b.client.spawner_pid != before
        terminal = Terminal(stdin=True)
        await b.client.stdio.attach("c", terminal.stream)
        await terminal.send(b"still here\n")
        await terminal.read_until(b"still here\n")

    run(tmp_path, work)


def test_a_killed_shim_is_reported_and_takes_its_container_along(tmp_path: Path) -> None:
    async def work(b: Boxes) -> None:
        pid = await b.launch("c", "sleep", "1000")
        await b.exec("c", "x", "sleep", "1000")
        os.kill(shim_of(pid), signal.SIGKILL)
        status = await b.exit_of("c")
        assert status.code == 137
        assert "shim" in status.reason
        assert (await b.exec_exit_of("x")).code == 137
        await gone(pid)
        assert not os.path.exists("/sys/fs/cgroup/pids" + cgroup_of("c"))
        await b.client.forget("c")
        await b.launch("c2", "true")
        assert (await b.exit_of("c2")).code == 0

    run(tmp_path, work)


def test_a_new_daemon_finds_everything_again(tmp_path: Path) -> None:
    async def work(b: Boxes) -> None:
        await b.launch("c", "sh", "-c", "while read l; do echo $l; done", stdio=Stdio(open_stdin=True))
        await b.exec("c", "x", "sleep", "1000")
        await b.launch("p", "sleep", "1000")
        await b.client.pause("p")
        await b.launch("e", "sh", "-c", "exit 9")
        await b.exit_of("e")
        await b.client.close()

        async with boxes(tmp_path) as again:
            for name in ("c", "p", "e"):
                again.names.add(name)
            found = {n: await recover(again, n) for n in ("c", "p", "e")}
            b.names.clear()
            assert found["c"].pid > 0
            assert (found["p"].pid > 0, found["p"].paused) == (True, True)
            assert found["e"].exit is not None
            assert found["e"].exit.code == 9
            again.exits["e"] = found["e"].exit
            terminal = Terminal(stdin=True)
            await again.client.stdio.attach("c", terminal.stream)
            await terminal.send(b"hello again\n")
            await terminal.read_until(b"hello again\n")
            await again.client.execs.signal("c", "x", signal.SIGTERM)
            assert (await again.exec_exit_of("x")).code == 143
            await again.exec("c", "y", "sh", "-c", "exit 4")
            assert (await again.exec_exit_of("y")).code == 4
            await again.client.resume("p")
            await again.client.signal("p", signal.SIGKILL)
            assert (await again.exit_of("p")).code == 137

    run(tmp_path, work)


async def recover(b: Boxes, name: str):  # type: ignore[no-untyped-def]  # as Runtime.recover
    request = b.request(name, "true")
    return await b.client.recover(name, request.run_dir, request.exit_file, cgroup_of(name))


DAEMON = """
import asyncio, sys
from pathlib import Path
from corten.runtime.client import RuntimeClient
from tests.kernel.boxes import Boxes

async def main():
    b = Boxes(Path(sys.argv[1]), RuntimeClient(Path(sys.argv[1]) / "exec"))
    await b.client.start()
    await b.launch("w", "sh", "-c", sys.argv[2])
    await b.launch("q", "sh", "-c", "echo bye; exit 6")
    print("up", flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


def test_a_daemon_killed_at_any_time_loses_no_line_and_no_exit(tmp_path: Path) -> None:
    """The daemon is a process of its own, killed with SIGKILL while a container writes."""
    script = "i=0; while [ $i -lt 20000 ]; do echo line $i; i=$((i+1)); done; sleep 1000"

    async def work(b: Boxes) -> None:
        daemon = subprocess.Popen(
            [sys.executable, "-c", DAEMON, str(tmp_path), script],
            stdout=subprocess.PIPE,
            env={**os.environ, "CORTEN_TEST_OWNER": str(os.getpid())},
            cwd=Path(__file__).parent.parent.parent,
        )
        assert daemon.stdout is not None
        assert daemon.stdout.readline() == b"up\n"
        daemon.kill()
        daemon.wait()
        daemon.stdout.close()
        b.names |= {"w", "q"}
        found = await recover(b, "w")
        assert found.pid > 0
        text = await b.logged_until("w", "line 19999\n")
        assert text == "".join(f"line {n}\n" for n in range(20000))
        quick = (await recover(b, "q")).exit or await b.exit_of("q")
        b.exits["q"] = quick
        assert quick.code == 6
        await b.client.signal("w", signal.SIGKILL)
        assert (await b.exit_of("w")).code == 137

    run(tmp_path, work)


def test_a_shim_that_died_while_no_daemon_looked(tmp_path: Path) -> None:
    async def work(b: Boxes) -> None:
        pid = await b.launch("c", "sleep", "1000")
        shim = shim_of(pid)
        await b.client.close()
        os.kill(shim, signal.SIGKILL)
        await gone(shim)
        async with boxes(tmp_path) as again:
            again.names.add("c")
            b.names.clear()
            found = await recover(again, "c")
            assert found.exit is not None
            again.exits["c"] = found.exit
            assert found.exit.code == 137
            assert "lost" in found.exit.reason
            await gone(pid)

    run(tmp_path, work)
