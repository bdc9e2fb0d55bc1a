"""The options of `corten-runtime`, each seen to have its effect, and the commands that runc added."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import select
import shlex
import signal
import socket
import struct
import subprocess
import termios
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from corten.linux.scm import recv_fds
from corten.runtime.cgroups import Cgroup
from tests.kernel.boxes import DEADLINE, cgroup_of, needs_root
from tests.kernel.test_oci_cli import Bundle
from tests.kernel.test_oci_hooks import NAME, traces
from tests.waiting import until

pytestmark = [pytest.mark.root, needs_root]

FOREVER = ("sh", "-c", "while :; do sleep 0.1; done")


@pytest.fixture
def bundle(tmp_path: Path) -> Iterator[Bundle]:
    made = Bundle(tmp_path)
    made.edit("true")
    yield made
    made.forked("delete", "--force", NAME)
    assert traces(made) == []
    Cgroup(cgroup_of("")).remove()


def ok(bundle: Bundle, *words: str) -> str:
    ran = bundle.forked(*words)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def started(bundle: Bundle, *args: str, options: tuple[str, ...] = ()) -> dict[str, Any]:
    """A container that runs `args`; its state."""
    bundle.edit(*(args or FOREVER))
    ok(bundle, "run", "--detach", "--bundle", str(bundle.directory), *options, NAME)
    state: dict[str, Any] = json.loads(ok(bundle, "state", NAME))
    return state


def limit(controller: str, name: str) -> str:
    return Path(Cgroup(cgroup_of(NAME)).directory(controller), name).read_text().strip()


@contextmanager
def running_until_done(command: list[str], **options: Any) -> Iterator[subprocess.Popen[str]]:
    """Popen as a context, killed if the body fails: nobody waits for a program that waits itself."""
    with subprocess.Popen(command, text=True, **options) as running:
        try:
            yield running
        except BaseException:
            running.kill()
            raise


@contextmanager
def listening(path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(path))
        listener.listen(1)
        listener.settimeout(DEADLINE)
        yield listener


def received(listener: socket.socket) -> tuple[bytes, int]:
    connection, _ = listener.accept()
    with connection:
        word, (fd,) = recv_fds(connection, 100, 1)
    return word, fd


# -- descriptors -----------------------------------------------------------------------------------------------------

SHOW_FDS = "for fd in /proc/self/fd/*; do echo ${fd##*/} $(readlink $fd); done"


def test_preserved_descriptors_reach_the_container_and_no_others(bundle: Bundle, tmp_path: Path) -> None:
    """Three files at 3, 4 and 5, of which two are asked for; then one by a service manager's variables besides."""
    files = []
    for number in range(3):
        (tmp_path / f"file{number}").write_text(f"text {number}\n")
        files.append(os.open(tmp_path / f"file{number}", os.O_RDONLY))
    script = "cat <&3; cat <&4; (cat <&5) 2>/dev/null; echo $LISTEN_FDS $LISTEN_PID"
    bundle.edit("sh", "-c", script)

    def call(*words: str, listen: bool) -> str:
        variables = "LISTEN_PID=$$ LISTEN_FDS=1 " if listen else ""
        command = shlex.join(bundle.command(*words))
        given = [f"{3 + index}<{tmp_path}/file{index}" for index in range(3)]
        shell = ["sh", "-c", f"exec {' '.join(given)}; {variables}exec {command}"]
        ran = subprocess.run(shell, capture_output=True, text=True, timeout=DEADLINE, env=bundle.env, check=False)
        return ran.stdout + ran.stderr

    run = ("run", "--preserve-fds", "2", "--bundle", str(bundle.directory), NAME)
    assert call(*run, listen=False) == "text 0\ntext 1\n\n"
    assert call(*run, listen=True) == "text 0\ntext 1\ntext 2\n1 1\n"
    for fd in files:
        os.close(fd)
    started(bundle)
    assert call("exec", "--preserve-fds", "2", NAME, "sh", "-c", script, listen=False) == "text 0\ntext 1\n\n"


def test_the_pidfd_socket(bundle: Bundle, tmp_path: Path) -> None:
    with listening(tmp_path / "pidfd.sock") as listener:
        state = started(bundle, options=("--pidfd-socket", str(tmp_path / "pidfd.sock")))
        word, fd = received(listener)
        assert (word, pid_of(fd)) == (b"standard", state["pid"])
        ok(bundle, "exec", "--pidfd-socket", str(tmp_path / "pidfd.sock"), NAME, "true")
        word, other = received(listener)
        assert word == b"setns"
    os.close(fd)
    os.close(other)


def pid_of(pidfd: int) -> int:
    text = Path(f"/proc/self/fdinfo/{pidfd}").read_text()
    return int(text.partition("\nPid:")[2].split()[0])


# -- create and run --------------------------------------------------------------------------------------------------


def test_without_pivot_the_root_is_the_containers_all_the_same(bundle: Bundle) -> None:
    bundle.edit("sh", "-c", "ls /bin/busybox; ls /../bin/busybox; test -e /usr || echo no host; cat /proc/self/mounts")
    lines = ok(bundle, "run", "--no-pivot", "--bundle", str(bundle.directory), NAME).splitlines()
    assert lines[:3] == ["/bin/busybox", "/../bin/busybox", "no host"]
    assert next(line for line in lines if " /proc " in line).startswith("proc /proc proc ")
    state = started(bundle, options=("--no-pivot",))
    assert ok(bundle, "exec", NAME, "sh", "-c", "test -e /usr || echo no host; pwd") == "no host\n/\n"
    assert (
        os.stat(f"/proc/{state['pid']}/root/bin/busybox").st_ino
        == os.stat(bundle.directory / "rootfs/bin/busybox").st_ino
    )


def test_the_session_keyring_stays_when_that_is_wanted(bundle: Bundle) -> None:
    linux = {"cgroupsPath": cgroup_of(NAME), "namespaces": [{"type": "mount"}]}
    bundle.edit("sh", "-c", "cat /proc/keys", linux=linux, hostname="")
    run = ("--bundle", str(bundle.directory), "keys")  # those of earlier containers are shown for a while
    assert "_ses.keys" not in ok(bundle, "run", "--no-new-keyring", *run)
    assert "_ses.keys" in ok(bundle, "run", *run)


def test_run_can_keep_what_has_ended(bundle: Bundle) -> None:
    ok(bundle, "run", "--keep", "--bundle", str(bundle.directory), NAME)
    state = json.loads(ok(bundle, "state", NAME))
    assert (state["status"], state["pid"]) == ("stopped", 0)
    ok(bundle, "delete", NAME)


def test_run_passes_signals_on_and_tells_how_it_ended(bundle: Bundle) -> None:
    bundle.edit("sh", "-c", "trap 'echo got; exit 5' TERM; echo up; while :; do sleep 0.05; done")
    command = bundle.command("run", "--bundle", str(bundle.directory), NAME)
    with running_until_done(command, stdout=subprocess.PIPE, env=bundle.env) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == "up\n"
        running.send_signal(signal.SIGTERM)
        assert running.stdout.readline() == "got\n"
        assert running.wait(DEADLINE) == 5
    with running_until_done(command, stdout=subprocess.PIPE, env=bundle.env) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == "up\n"
        ok(bundle, "kill", NAME, "KILL")
        assert running.wait(DEADLINE) == 137


def test_a_signal_that_comes_before_run_attends_is_the_programs(bundle: Bundle) -> None:
    """The program runs already, and what is outside may know it: a poststart hook sends the signal at that moment.

    The defence: `hold_signals` of runtime/oci/foreground.py; the runtime itself dies of the signal without.
    """
    ready = bundle.directory / "rootfs/ready"
    script = f"until [ -e {ready} ]; do sleep 0.05; done; kill -TERM $PPID"
    hooks = {"poststart": [{"path": "/bin/sh", "args": ["sh", "-c", script]}]}
    program = "trap 'exit 5' TERM; : >/ready; while :; do sleep 0.05; done"
    bundle.edit("sh", "-c", program, hooks=hooks, root={"path": "rootfs"})
    assert bundle.call("run", "--bundle", str(bundle.directory), NAME).returncode == 5


def test_run_carries_a_terminal(bundle: Bundle) -> None:
    """Its size, what is typed, a change of size, and its modes afterwards. The program finds the size from the first: a
    poststart hook keeps the runtime from attending until it has looked."""
    looked = bundle.directory / "rootfs/looked"
    hooks = {"poststart": [{"path": "/bin/sh", "args": ["sh", "-c", f"until [ -e {looked} ]; do sleep 0.05; done"]}]}
    script = "stty size; : >/looked; read word; stty size; echo got $word; exit 3"
    bundle.edit("sh", "-c", script, terminal=True, hooks=hooks, root={"path": "rootfs"})
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 33, 77, 0, 0))
    before = termios.tcgetattr(slave)
    command = bundle.command("run", "--bundle", str(bundle.directory), NAME)
    with running_until_done(command, stdin=slave, stdout=slave, stderr=slave, env=bundle.env) as running:
        seen = read_until(master, b"33 77\r\n")
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 20, 50, 0, 0))
        running.send_signal(signal.SIGWINCH)
        os.write(master, b"word\r")
        seen = read_until(master, b"got word\r\n")
        assert b"20 50" in seen
        assert running.wait(DEADLINE) == 3
    assert termios.tcgetattr(slave) == before
    os.close(master)
    os.close(slave)


def read_until(fd: int, part: bytes) -> bytes:
    """From a terminal. Raises TimeoutError when it does not come."""
    seen = b""
    while part not in seen:
        if not select.select([fd], [], [], DEADLINE)[0]:
            raise TimeoutError(f"{part!r} did not come after {seen!r}")
        data = os.read(fd, 1000)
        assert data, seen
        seen += data
    return seen


def test_a_relative_root_and_a_bundle_that_nobody_can_write(bundle: Bundle, tmp_path: Path) -> None:
    config = bundle.directory / "config.json"
    bundle.edit("sh", "-c", "echo $0", root={"path": "../bundle/rootfs", "readonly": True})
    subprocess.run(["mount", "--bind", "-o", "ro", str(bundle.directory), str(bundle.directory)], check=True)
    try:
        assert ok(bundle, "run", "--bundle", str(bundle.directory), NAME) == "sh\n"
    finally:
        subprocess.run(["umount", str(bundle.directory)], check=True)
    assert json.loads(config.read_text())["root"]["path"] == "../bundle/rootfs"


def test_a_container_that_is_killed_before_its_start(bundle: Bundle) -> None:
    ok(bundle, "create", "--bundle", str(bundle.directory), NAME)
    pid = json.loads(ok(bundle, "state", NAME))["pid"]
    os.kill(pid, signal.SIGKILL)
    until(lambda: json.loads(ok(bundle, "state", NAME))["status"] == "stopped")
    refused = bundle.forked("start", NAME)
    assert (refused.returncode, "cannot start a container that is stopped" in refused.stderr) == (1, True)
    ok(bundle, "delete", NAME)


def test_what_is_started_can_fail_and_be_deleted(bundle: Bundle) -> None:
    (bundle.directory / "rootfs/bin/script").write_text("#!/no/interpreter\n")
    (bundle.directory / "rootfs/bin/script").chmod(0o755)
    bundle.edit("script")
    ok(bundle, "create", "--bundle", str(bundle.directory), NAME)
    refused = bundle.forked("start", NAME)
    assert (refused.returncode, "no such file or directory" in refused.stderr) == (1, True)
    ok(bundle, "delete", NAME)


# -- exec ------------------------------------------------------------------------------------------------------------


def test_exec_changes_the_process(bundle: Bundle, tmp_path: Path) -> None:
    started(bundle)
    pid_file = tmp_path / "pid"
    script = "pwd; echo $WORD; id -u; id -g; id -G; grep -E '^(NoNewPrivs|CapBnd)' /proc/self/status | tr -d '\\t'"
    options = ("--cwd", "/tmp", "--env", "WORD=said", "-u", "5:6", "-g", "7", "-g", "8", "--pid-file", str(pid_file))
    lines = ok(bundle, "exec", *options, "--cap", "CAP_SYS_ADMIN", NAME, "busybox", "sh", "-c", script).splitlines()
    assert lines[:4] == ["/tmp", "said", "5", "6"]
    assert set(lines[4].split()) >= {"6", "7", "8"}
    assert lines[6] == "NoNewPrivs:1"
    assert int(lines[5].partition(":")[2], 16) >> 21 & 1, "CAP_SYS_ADMIN"
    assert pid_file.read_text().isdigit()
    shown = ok(bundle, "exec", "--no-new-privs=false", NAME, "sh", "-c", "grep NoNewPrivs /proc/self/status")
    assert shown == "NoNewPrivs:\t0\n"
    for option, member in (("--apparmor", "apparmor"), ("--process-label", "selinux")):
        refused = bundle.forked("exec", option, "no-such-label", NAME, "true")
        assert refused.returncode == 255
        assert member in refused.stderr


def test_exec_out_of_a_file(bundle: Bundle, tmp_path: Path) -> None:
    started(bundle)
    process = {"cwd": "/", "args": ["sh", "-c", "echo $WORD"], "env": ["PATH=/bin", "WORD=filed"], "user": {}}
    (tmp_path / "process.json").write_text(json.dumps(process))
    assert ok(bundle, "exec", "--process", str(tmp_path / "process.json"), NAME) == "filed\n"
    (tmp_path / "process.json").write_text(json.dumps({**process, "args": 5}))
    refused = bundle.forked("exec", "--process", str(tmp_path / "process.json"), NAME)
    assert (refused.returncode, "args" in refused.stderr) == (255, True)


@pytest.mark.parametrize(
    ("words", "code"),
    [(("/no/such",), 127), (("/bin",), 126), (("sh", "-c", "exit 9"), 9), (("--user", "nobody-here", "x"), 255)],
)
def test_exit_codes_of_exec(bundle: Bundle, words: tuple[str, ...], code: int) -> None:
    started(bundle)
    options, args = (words[:2], words[2:]) if words[0] == "--user" else ((), words)
    assert bundle.forked("exec", *options, NAME, *args).returncode == code
    assert bundle.forked("exec", "nobody", "true").returncode == 255


def test_exec_in_a_paused_container_only_when_told_so(bundle: Bundle) -> None:
    started(bundle)
    ok(bundle, "pause", NAME)
    refused = bundle.forked("exec", NAME, "true")
    assert (refused.returncode, "cannot exec in a container that is paused" in refused.stderr) == (255, True)
    with subprocess.Popen(
        bundle.command("exec", "--ignore-paused", NAME, "sh", "-c", "exit 4"), env=bundle.env
    ) as late:
        until(lambda: len(json.loads(ok(bundle, "ps", "--format", "json", NAME))) >= 3)
        assert late.poll() is None, "it is of the container, and paused too"
        ok(bundle, "resume", NAME)
        assert late.wait(DEADLINE) == 4


def test_exec_in_a_group_below(bundle: Bundle) -> None:
    started(bundle)
    group = Cgroup(cgroup_of(NAME))
    below = Path(group.directory("pids")) / "below"
    below.mkdir()
    controller = "" if group.layout.pure_v2 else "pids:"
    shown = ok(bundle, "exec", "--cgroup", f"{controller}/below", NAME, "cat", "/proc/self/cgroup")
    assert [line for line in shown.splitlines() if ("pids" in line or group.layout.pure_v2) and line.endswith("below")]
    for wrong in (f"{controller}/nowhere", "nothing:/below", f"{controller}../../x"):
        refused = bundle.forked("exec", "--cgroup", wrong, NAME, "true")
        assert (refused.returncode, "--cgroup" in refused.stderr) == (255, True), wrong


# -- what is beside the specification --------------------------------------------------------------------------------


def test_update_by_flags_and_by_file(bundle: Bundle, tmp_path: Path) -> None:
    started(bundle)
    pure = Cgroup(cgroup_of(NAME)).layout.pure_v2
    flags = (
        "--memory",
        "64M",
        "--pids-limit",
        "55",
        "--cpu-share",
        "512",
        "--cpu-quota",
        "20000",
        "--cpu-period",
        "50000",
    )
    ok(bundle, "update", *flags, NAME)
    assert limit("pids", "pids.max") == "55"
    assert limit("memory", "memory.max" if pure else "memory.limit_in_bytes") == str(64 << 20)
    if not pure:
        assert limit("cpu", "cpu.shares") == "512"
        assert (limit("cpu", "cpu.cfs_quota_us"), limit("cpu", "cpu.cfs_period_us")) == ("20000", "50000")
    ran = bundle.call("update", "--resources", "-", NAME, input=json.dumps({"pids": {"limit": -1}}))
    assert ran.returncode == 0, ran.stderr
    assert limit("pids", "pids.max") == "max"
    assert limit("memory", "memory.max" if pure else "memory.limit_in_bytes") == str(64 << 20)
    (tmp_path / "r.json").write_text('{"pids": {"limit": "many"}}')
    for words, message in (
        (("--memory", "lots"), "--memory"),
        (("--l3-cache-schema", "x"), "--l3-cache-schema"),
        (("--resources", str(tmp_path / "none")), "--resources"),
        (("--resources", str(tmp_path / "r.json")), "limit"),
    ):
        refused = bundle.forked("update", *words, NAME)
        assert (refused.returncode, message in refused.stderr) == (1, True), refused.stderr


def test_events_once_and_as_a_stream_until_the_end(bundle: Bundle) -> None:
    started(bundle)
    event = json.loads(ok(bundle, "events", "--stats", NAME))
    assert (event["type"], event["id"]) == ("stats", NAME)
    data = event["data"]
    assert data["pids"]["current"] >= 1
    assert data["memory"]["usage"]["usage"] > 0
    assert set(data) >= {"cpu", "memory", "pids", "blkio", "hugetlb"}
    command = bundle.command("events", "--interval", "50ms", NAME)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=bundle.env) as stream:
        assert stream.stdout is not None
        times = [json.loads(stream.stdout.readline())["data"]["cpu"]["usage"]["total"] for _ in range(3)]
        assert times == sorted(times)
        ok(bundle, "kill", NAME, "KILL")
        assert stream.wait(DEADLINE) == 0
    assert bundle.forked("events", "--stats", NAME).returncode == 1
    for wrong in ("5", "fast", "-1s", "0s"):
        assert "--interval" in bundle.forked("events", "--interval", wrong, NAME).stderr


def test_events_tell_of_a_process_that_was_killed_for_memory(bundle: Bundle) -> None:
    started(bundle)
    ok(bundle, "update", "--memory", "16M", NAME)
    command = bundle.command("events", "--interval", "1h", NAME)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=bundle.env) as stream:
        assert stream.stdout is not None
        bundle.forked("exec", NAME, "sh", "-c", "x=$(yes | head -c 100000000); true")
        event = json.loads(stream.stdout.readline())
        assert (event["type"], event["id"]) == ("oom", NAME)
        ok(bundle, "kill", NAME, "KILL")
        stream.wait(DEADLINE)


def test_ps_and_list(bundle: Bundle) -> None:
    pid = started(bundle)["pid"]
    assert pid in json.loads(ok(bundle, "ps", "--format", "json", NAME))
    heading, *lines = ok(bundle, "ps", NAME).splitlines()
    column = heading.split().index("PID")
    assert str(pid) in [line.split()[column] for line in lines]
    assert str(os.getpid()) not in [line.split()[column] for line in lines]
    assert ok(bundle, "ps", NAME, "-o", "pid,comm").splitlines()[0].split() == ["PID", "COMMAND"]
    assert "no column PID" in bundle.forked("ps", NAME, "-o", "comm").stderr
    heading, line = ok(bundle, "list").splitlines()
    assert heading.split() == ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"]
    assert line.split()[:4] == [NAME, str(pid), "running", str(bundle.directory)]
    assert line.split()[5] == "root"
    [found] = json.loads(ok(bundle, "list", "--format", "json"))
    assert found == {**json.loads(ok(bundle, "state", NAME)), "owner": "root"}
    assert found["rootfs"] == str(bundle.directory / "rootfs")


def test_kill_takes_names_and_numbers_and_all_processes(bundle: Bundle) -> None:
    started(bundle, "sh", "-c", "trap 'exit 3' USR1; sh -c 'while :; do sleep 0.1; done' & while :; do sleep 0.1; done")
    until(lambda: len(json.loads(ok(bundle, "ps", "--format", "json", NAME))) >= 2)
    ok(bundle, "kill", "--all", NAME, "SIGKILL")
    until(lambda: json.loads(ok(bundle, "state", NAME))["status"] == "stopped")
    until(lambda: json.loads(ok(bundle, "ps", "--format", "json", NAME)) == [])


def test_what_is_done_is_logged_when_asked_for(bundle: Bundle, tmp_path: Path) -> None:
    for style, words in (("json", '"level":"debug"'), ("text", "level=debug")):
        log = tmp_path / f"log.{style}"
        run = ("run", "--bundle", str(bundle.directory), NAME)
        ok(bundle, "--log", str(log), "--log-format", style, *run)
        assert "debug" not in (log.read_text() if log.exists() else "")
        ok(bundle, "--debug", "--log", str(log), "--log-format", style, *run)
        assert words in log.read_text()


def test_spec_writes_what_runs(bundle: Bundle, tmp_path: Path) -> None:
    fresh = tmp_path / "fresh"
    fresh.mkdir()
    (bundle.directory / "rootfs").rename(fresh / "rootfs")
    ok(bundle, "spec", "--bundle", str(fresh))
    assert "exists" in bundle.forked("spec", "-b", str(fresh)).stderr
    config = json.loads((fresh / "config.json").read_text())
    assert config["process"]["terminal"] is True
    config["process"] |= {
        "terminal": False,
        "args": ["sh", "-c", "cat /proc/self/cgroup | head -1; ls /sys /dev/mqueue >/dev/null && echo ran"],
    }
    config["linux"]["cgroupsPath"] = cgroup_of(NAME)
    (fresh / "config.json").write_text(json.dumps(config))
    assert ok(bundle, "run", "--bundle", str(fresh), NAME).endswith("ran\n")


def test_version_help_and_flags_as_go_takes_them(bundle: Bundle) -> None:
    assert "spec: 1.3.0" in ok(bundle, "--version")
    assert "Commands:" in ok(bundle, "--help")
    assert "--preserve-fds" in ok(bundle, "run", "--help")
    assert ok(bundle, "list", "-quiet", "--format=json") == ""
    assert ok(bundle, "--debug=false", "list", "-q=true") == ""
