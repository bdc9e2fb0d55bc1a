"""corten-runtime as its callers use it: by hand, and as the runtime of a shim that only knows OCI."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest

from corten.errors import StartFailed
from corten.linux.scm import recv_fds
from corten.runtime.cgroups import Cgroup
from corten.runtime.main import main
from corten.runtime.types import Stdio
from tests.kernel.boxes import DEADLINE, Boxes, Terminal, boxes, cgroup_of, make_root, needs_root
from tests.waiting import until

pytestmark = [pytest.mark.root, needs_root]

PROGRAM = [sys.executable, "-m", "corten.runtime.main"]


class Bundle:
    """A bundle of busybox, and the state directory of its containers."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.directory = base / "bundle"
        # Compiled once for all tests, as an installed program is; nothing is written beside the sources.
        self.env = {**os.environ, "PYTHONPYCACHEPREFIX": str(base.parent / "pycache")}
        self.env.pop("PYTHONDONTWRITEBYTECODE", None)
        make_root(self.directory / "rootfs")
        assert self.forked("spec", "--bundle", str(self.directory)).returncode == 0

    def edit(self, *args: str, terminal: bool = False, **changes: Any) -> None:
        path = self.directory / "config.json"
        config = json.loads(path.read_text())
        config["process"] |= {"args": list(args), "terminal": terminal}
        config["linux"]["cgroupsPath"] = cgroup_of("oci")
        config["mounts"] = [m for m in config["mounts"] if m["type"] not in ("mqueue", "cgroup", "sysfs")]
        config |= changes
        path.write_text(json.dumps(config))

    def command(self, *args: str) -> list[str]:
        return [*PROGRAM, "--root", str(self.base / "state"), *args]

    def call(self, *args: str, **more: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*args),
            capture_output=True,
            text=True,
            timeout=DEADLINE,
            check=False,
            **{"env": self.env, **more},
        )

    def forked(self, *args: str) -> subprocess.CompletedProcess[str]:
        """The command in a fork of ours, which spares the interpreter's start: for tests that are many."""
        words = self.command(*args)[len(PROGRAM) :]
        outputs = [self.base / "stdout", self.base / "stderr"]
        pid = os.fork()
        if pid == 0:
            _become(words, outputs)
        _, status = os.waitpid(pid, 0)
        texts = [path.read_text() for path in outputs]
        return subprocess.CompletedProcess(words, os.waitstatus_to_exitcode(status), *texts)

    def ok(self, *args: str, **more: Any) -> str:
        ran = self.call(*args, **more)
        assert ran.returncode == 0, ran.stderr
        return ran.stdout

    def state(self, name: str = "oci") -> str:
        return str(json.loads(self.ok("state", name))["status"])

    def until(self, status: str) -> None:
        until(lambda: self.state() == status, what=f"the state {status}")


def _become(words: list[str], outputs: list[Path]) -> NoReturn:
    try:
        os.close(0)
        os.open("/dev/null", os.O_RDONLY)
        for number, path in enumerate(outputs, 1):
            os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), number)
        os.closerange(3, 1 << 16)
        sys.stdout, sys.stderr = open(1, "w"), open(2, "w", buffering=1)  # noqa: SIM115  # pytest has its own
        main(words)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(99)


@pytest.fixture
def bundle(tmp_path: Path) -> Iterator[Bundle]:
    made = Bundle(tmp_path)
    yield made
    made.call("delete", "--force", "oci")
    Cgroup(cgroup_of("")).remove()


def test_run_gives_output_and_code_and_leaves_nothing(bundle: Bundle) -> None:
    bundle.edit("sh", "-c", "echo hello; cat; exit 7")
    ran = bundle.call("run", "--bundle", str(bundle.directory), "oci", input="typed\n")
    assert (ran.stdout, ran.stderr, ran.returncode) == ("hello\ntyped\n", "", 7)
    assert bundle.ok("list", "-q") == ""
    assert not os.path.exists("/sys/fs/cgroup/pids" + cgroup_of("oci"))


def test_the_states_of_a_life(bundle: Bundle, tmp_path: Path) -> None:
    bundle.edit("sh", "-c", "echo up; while :; do sleep 0.05; done")
    pid_file, out = tmp_path / "pid", tmp_path / "out"
    with open(out, "wb") as stdout:
        create = bundle.command("create", "--bundle", str(bundle.directory), "--pid-file", str(pid_file), "oci")
        subprocess.run(create, stdout=stdout, stderr=stdout, stdin=subprocess.DEVNULL, check=True, timeout=DEADLINE)
    assert bundle.state() == "created"
    assert out.read_bytes() == b""
    refused = bundle.call("create", "--bundle", str(bundle.directory), "oci")
    assert (refused.returncode, refused.stderr) == (1, "corten-runtime: container with id exists: oci\n")
    bundle.ok("start", "oci")
    assert bundle.state() == "running"
    document = json.loads(bundle.ok("state", "oci"))
    assert document["pid"] == int(pid_file.read_text())
    assert bundle.call("start", "oci").stderr == (
        "corten-runtime: cannot start a container that is running: oci cannot go from running to running\n"
    )
    assert bundle.ok("exec", "oci", "echo", "inside") == "inside\n"
    assert bundle.call("exec", "oci", "sh", "-c", "exit 9").returncode == 9
    assert bundle.call("exec", "oci", "/no/such").returncode == 127
    assert str(document["pid"]) in bundle.ok("ps", "oci").split()
    bundle.ok("pause", "oci")
    assert bundle.state() == "paused"
    bundle.ok("resume", "oci")
    assert "cannot delete a container that is running" in bundle.call("delete", "oci").stderr
    assert [found["id"] for found in json.loads(bundle.ok("list", "--format", "json"))] == ["oci"]
    bundle.ok("kill", "oci", "KILL")
    bundle.until("stopped")
    assert bundle.call("kill", "oci").stderr.startswith("corten-runtime: container not running: ")
    bundle.ok("delete", "oci")
    assert bundle.call("state", "oci").stderr == "corten-runtime: container oci does not exist\n"
    assert out.read_bytes() == b"up\n"


def test_a_created_container_can_be_deleted_by_force(bundle: Bundle) -> None:
    bundle.edit("true")
    create = bundle.command("create", "--bundle", str(bundle.directory), "oci")
    null = subprocess.DEVNULL
    subprocess.run(create, stdin=null, stdout=null, stderr=null, check=True, timeout=DEADLINE)
    bundle.ok("delete", "--force", "oci")
    bundle.ok("delete", "--force", "oci")
    assert bundle.ok("list", "-q") == ""


def test_a_terminal_goes_over_the_console_socket(bundle: Bundle, tmp_path: Path) -> None:
    bundle.edit("sh", "-c", "tty; read l; echo got $l", terminal=True)
    for command in (("create",), ("run", "--detach")):
        refused = bundle.call(*command, "--bundle", str(bundle.directory), "oci")
        assert "without --console-socket" in refused.stderr
    foreground = bundle.call("run", "--bundle", str(bundle.directory), "--console-socket", "/x", "oci")
    assert "is not detached" in foreground.stderr
    path = tmp_path / "console.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(path))
        listener.listen(1)
        run = ("run", "-d", "--bundle", str(bundle.directory), "--console-socket", str(path), "oci")
        bundle.ok(*run)
        connection, _ = listener.accept()
        with connection:
            _, (console,) = recv_fds(connection, 100, 1)
    seen = b""
    os.write(console, b"word\n")
    while b"got word" not in seen:
        seen += os.read(console, 1000)
    os.close(console)
    assert b"/dev/" in seen


def test_hooks_run_with_the_state_and_can_refuse(bundle: Bundle, tmp_path: Path) -> None:
    def hook(name: str, script: str = "cat > $OUT") -> list[dict[str, Any]]:
        return [{"path": "/bin/sh", "args": ["sh", "-c", script], "env": [f"OUT={tmp_path / name}"]}]

    hooks = {name: hook(name) for name in ("createRuntime", "poststart", "poststop")}
    bundle.edit("true", hooks=hooks)
    bundle.ok("run", "--bundle", str(bundle.directory), "oci")
    states = {name: json.loads((tmp_path / name).read_text())["status"] for name in hooks}
    assert states == {"createRuntime": "creating", "poststart": "running", "poststop": "stopped"}
    bundle.edit("true", hooks={"prestart": hook("x", "echo no >&2; exit 3")})
    refused = bundle.call("run", "--bundle", str(bundle.directory), "oci")
    assert refused.returncode == 1
    assert "exit status 3: no" in refused.stderr
    assert bundle.ok("list", "-q") == ""


def test_errors_are_logged_in_json_too(bundle: Bundle, tmp_path: Path) -> None:
    log = tmp_path / "log"
    command = [*PROGRAM, "--root", str(tmp_path), "--log", str(log), "--log-format", "json", "state", "nobody"]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE, check=False)
    assert ran.returncode == 1
    line = json.loads(log.read_text())
    assert (line["level"], line["msg"]) == ("error", "container nobody does not exist")


def test_what_is_not_implemented_says_so(bundle: Bundle) -> None:
    ran = bundle.call("checkpoint", "oci", "--image-path", "/x")
    assert (ran.returncode, ran.stderr) == (1, "corten-runtime: checkpoint is not implemented\n")


def test_corten_runs_under_its_own_command_line(tmp_path: Path) -> None:
    """The shim that drives runc drives this one as well."""
    program = tmp_path / "corten-runtime"
    program.write_text(f'#!/bin/sh\nexec {PROGRAM[0]} -m {PROGRAM[2]} "$@"\n')
    program.chmod(0o755)

    async def main() -> None:
        async with boxes(tmp_path) as b:
            await work(b, str(program))

    asyncio.run(main())


async def work(b: Boxes, program: str) -> None:
    terminal = Terminal(stdin=True)
    script = "echo begun; read l; echo $l; sleep 1000"
    stdio = Stdio(open_stdin=True)
    await b.launch("c", "sh", "-c", script, stdio=stdio, streams=(terminal.stream,), runtime=program, user="root")
    await terminal.send(b"typed\n")
    await terminal.read_until(b"begun\ntyped\n")
    await b.exec("c", "x", "sh", "-c", "exit 5")
    assert (await b.exec_exit_of("x")).code == 5
    with pytest.raises(StartFailed) as caught:
        await b.exec("c", "y", "/no/such")
    assert caught.value.exit_code == 127
    await b.client.pause("c")
    await b.client.resume("c")
    await b.client.signal("c", signal.SIGKILL)
    assert (await b.exit_of("c")).code == 137
    with pytest.raises(StartFailed) as refused:
        await b.launch("d", "/no/such", runtime=program)
    assert refused.value.exit_code == 127
