"""Hooks as the specification has them, and the states that they see, through corten-runtime."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from corten.runtime.cgroups import Cgroup, host_layout
from tests.kernel.boxes import DEADLINE, cgroup_of, needs_root
from tests.kernel.test_oci_cli import Bundle
from tests.waiting import until

pytestmark = [pytest.mark.root, needs_root]

KINDS = ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")
STATES = dict(zip(KINDS, ("creating", "creating", "creating", "created", "running", "stopped"), strict=True))
NAME = "oci"


@pytest.fixture
def bundle(tmp_path: Path) -> Iterator[Bundle]:
    made = Bundle(tmp_path)
    yield made
    made.call("delete", "--force", NAME)
    assert traces(made) == []
    Cgroup(cgroup_of("")).remove()


def traces(bundle: Bundle) -> list[str]:
    """What is left of a container on the host: groups, state, mounts, and processes that know of our directory."""
    layout = host_layout()
    tops = [*(h.mountpoint for h in layout.v1), *([layout.unified] if layout.unified else [])]
    found = [top for top in tops if os.path.exists(top + cgroup_of(NAME))]
    state = bundle.base / "state"
    found += [str(path) for path in state.iterdir() if path.name != ".seccomp"] if state.exists() else []
    found += [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(bundle.base) in line]
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes()
            roots = os.readlink(process / "root")
        except OSError:
            continue
        if int(process.name) != os.getpid() and (str(bundle.base).encode() in command or str(bundle.base) in roots):
            found.append(command.decode(errors="replace"))
    return found


def hook(script: str, *args: str, **more: Any) -> dict[str, Any]:
    """A shell script; busybox in the container and the host's shell outside both answer to /bin/sh."""
    return {"path": "/bin/sh", "args": ["sh", "-c", script, *args], "env": ["PATH=/bin:/usr/bin"], **more}


def run(bundle: Bundle, **more: Any) -> subprocess.CompletedProcess[str]:
    return bundle.call("run", "--bundle", str(bundle.directory), NAME, **more)


def create(bundle: Bundle, *options: str) -> subprocess.CompletedProcess[bytes]:
    """The container has no pipe of ours, which would not end before it does."""
    command = bundle.command(*options, "create", "--bundle", str(bundle.directory), NAME)
    null = subprocess.DEVNULL
    return subprocess.run(command, stdin=null, stdout=null, stderr=null, timeout=DEADLINE, check=False)


def test_each_hook_sees_its_state_at_its_time_in_its_order(bundle: Bundle, tmp_path: Path) -> None:
    log = tmp_path / "log"
    inside = bundle.directory / "rootfs/tmp/log"
    scripts = dict.fromkeys(KINDS, f"cat >> {log}; echo >> {log}")
    scripts["startContainer"] = "cat >> /tmp/log; echo >> /tmp/log"
    hooks = {kind: [hook(script)] for kind, script in scripts.items()}
    annotations = {"org.example.key": 'a "value"'}
    bundle.edit("sh", "-c", "echo program >> /tmp/log", hooks=hooks, annotations=annotations)
    config = json.loads((bundle.directory / "config.json").read_text())
    config["root"]["readonly"] = False
    (bundle.directory / "config.json").write_text(json.dumps(config))
    ran = run(bundle)
    assert (ran.returncode, ran.stderr) == (0, "")
    states = [json.loads(line) for line in log.read_text().splitlines()]
    assert [state["status"] for state in states] == [STATES[kind] for kind in KINDS if kind != "startContainer"]
    first, program = inside.read_text().splitlines()
    assert program == "program"
    states.append(json.loads(first))
    assert states[-1]["status"] == "created"
    for state in states:
        assert state["ociVersion"] == "1.3.0"
        assert (state["id"], state["bundle"], state["annotations"]) == (NAME, str(bundle.directory), annotations)
    pids = {state["status"]: state["pid"] for state in states}
    assert pids["stopped"] == 0
    assert pids["running"] > 1  # as the runtime sees it
    assert [state["pid"] for state in states][:3] == [pids["running"], pids["running"], 1]  # as the container sees it
    assert pids["created"] == 1


def test_create_container_hooks_are_the_hosts_programs_in_the_containers_namespaces(
    bundle: Bundle, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    script = f"readlink /proc/self/ns/mnt /proc/self/ns/uts > {out}; pwd >> {out}; mount -t tmpfs made tmp"
    bundle.edit("sh", "-c", "cat /proc/mounts", hooks={"createContainer": [hook(script)]})
    ran = run(bundle)
    mount, uts, directory = out.read_text().split()
    assert mount != os.readlink("/proc/self/ns/mnt")
    assert uts != os.readlink("/proc/self/ns/uts")
    assert directory == str(bundle.directory / "rootfs")
    assert "made /tmp tmpfs" in ran.stdout
    assert "made" not in Path("/proc/mounts").read_text()


def test_start_container_hooks_may_do_no_more_than_the_program(bundle: Bundle) -> None:
    """An image's own hook program is as untrusted as its command: its user, capabilities and filter bind it too."""
    for applet in ("id", "grep", "mkdir"):
        (bundle.directory / "rootfs/bin" / applet).symlink_to("busybox")
    script = "id -u; grep -E '^(CapEff|CapBnd|NoNewPrivs|Seccomp):' /proc/self/status; mkdir /x; umask"
    bundle.edit("sh", "-c", script, hooks={"startContainer": [hook(f"({script}) 2>&1; exit 1")]})
    config = json.loads((bundle.directory / "config.json").read_text())
    config["process"] |= {"user": {"uid": 7, "gid": 7, "umask": 0o27}, "noNewPrivileges": True}
    rule = {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95}
    config["linux"]["seccomp"] = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]}
    (bundle.directory / "config.json").write_text(json.dumps(config))
    by_hook = run(bundle).stderr
    del config["hooks"]
    (bundle.directory / "config.json").write_text(json.dumps(config))
    by_program = run(bundle)
    printed = by_program.stdout.split("umask")[0].split() + by_program.stderr.split()
    assert "Seccomp:\t2" in by_hook.replace("\\t", "\t")
    assert "not supported" in by_hook  # EOPNOTSUPP
    assert sorted(printed) == sorted(by_hook.partition("exit status 1: ")[2].split())


def test_hooks_of_a_kind_run_in_order_with_their_own_words(bundle: Bundle, tmp_path: Path) -> None:
    out = tmp_path / "out"
    first = {"path": "/bin/sh", "args": ["zero", "-c", f'echo "$0 $1 $A ${{HOME-none}}" >> {out}', "0", "1"]}
    hooks = [{**first, "env": ["A=b"]}, hook(f"echo second >> {out}")]
    bundle.edit("true", hooks={"createRuntime": hooks})
    assert run(bundle).returncode == 0
    assert out.read_text() == "0 1 b none\nsecond\n"


@pytest.mark.parametrize("kind", KINDS[:-1])
def test_a_hook_that_fails_ends_the_container(bundle: Bundle, tmp_path: Path, kind: str) -> None:
    """The error names the hook, nothing is left, and the poststop hooks have run."""
    after, log = tmp_path / "after", tmp_path / "log"
    hooks = {kind: [hook("true"), hook("echo no >&2; exit 3"), hook("exit 4")], "poststop": [hook(f"cat > {after}")]}
    bundle.edit("sleep", "1000", hooks=hooks)
    if kind in ("startContainer", "poststart"):
        assert create(bundle).returncode == 0
        ran = bundle.call("--log", str(log), "--log-format", "json", "start", NAME)
        message = ran.stderr
    else:
        message = str(create(bundle, "--log", str(log), "--log-format", "json").returncode)
        assert message == "1"
        message = f"corten-runtime: {json.loads(log.read_text())['msg']}\n"
    assert message == f"corten-runtime: hooks.{kind}[1]: running /bin/sh: exit status 3: no\n"
    line = json.loads(log.read_text())
    assert (line["level"], f"corten-runtime: {line['msg']}\n") == ("error", message)
    assert json.loads(after.read_text())["status"] == "stopped"
    assert traces(bundle) == []
    assert bundle.call("state", NAME).returncode == 1


def test_a_failing_poststop_hook_is_a_warning_and_the_next_ones_run(bundle: Bundle, tmp_path: Path) -> None:
    after, log = tmp_path / "after", tmp_path / "log"
    bundle.edit("true", hooks={"poststop": [hook("exit 3"), hook(f"echo done > {after}")]})
    ran = bundle.call("--log", str(log), "run", "--bundle", str(bundle.directory), NAME)
    assert (ran.returncode, ran.stderr, after.read_text()) == (0, "", "done\n")
    assert 'level=warning msg="hooks.poststop[0]: running /bin/sh: exit status 3"' in log.read_text()
    ran = bundle.call("--debug", "run", "--bundle", str(bundle.directory), NAME)
    assert "corten-runtime: warning: hooks.poststop[0]: running /bin/sh: exit status 3\n" in ran.stderr


@pytest.mark.parametrize("kind", KINDS)
def test_a_hook_that_takes_too_long_is_killed_with_its_children(bundle: Bundle, tmp_path: Path, kind: str) -> None:
    bundle.edit("sleep", "1000", hooks={kind: [hook(f"sleep 1000 & sleep 1000; : {tmp_path}", timeout=1)]})
    if kind == "poststop":
        bundle.edit("true")
    ran = bundle.call("--debug", "run", "--bundle", str(bundle.directory), NAME)
    assert ran.returncode == (0 if kind == "poststop" else 1)
    assert f"hooks.{kind}[0]: running /bin/sh: not done after 1 s\n" in ran.stderr
    assert traces(bundle) == []


@pytest.mark.parametrize("kind", KINDS[:4])
def test_a_hook_that_hangs_does_not_keep_a_container_from_being_deleted(
    bundle: Bundle, tmp_path: Path, kind: str
) -> None:
    begun = tmp_path / "begun"
    hooks = {kind: [hook(f"echo > {begun}; exec sleep 1000")]}
    if kind == "startContainer":
        begun = bundle.directory / "rootfs/tmp/begun"
        hooks = {kind: [hook("echo > /tmp/begun; exec sleep 1000")]}
    bundle.edit("true", hooks=hooks, root={"path": "rootfs"})
    verb: tuple[str, ...] = ("create", "--bundle", str(bundle.directory), NAME)
    if kind == "startContainer":
        assert create(bundle).returncode == 0
        verb = ("start", NAME)
    with subprocess.Popen(bundle.command(*verb), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as hanging:
        until(begun.exists, seconds=DEADLINE, what="the hook")
        status = "created" if kind == "startContainer" else "creating"
        assert bundle.state() == status
        for refused in ("start", "pause", "resume", "delete", "exec") if status == "creating" else ("resume",):
            args = ("true",) if refused == "exec" else ()
            assert f"that is {status}: oci cannot go from {status} to " in bundle.call(refused, NAME, *args).stderr
        bundle.ok("delete", "--force", NAME)
        assert hanging.wait(DEADLINE) == 1
    assert traces(bundle) == []


def test_what_a_hook_leaves_in_the_background_is_not_waited_for(bundle: Bundle, tmp_path: Path) -> None:
    """Not even when it holds the hook's output; it may go on, as a daemon that a hook starts does."""
    pid = tmp_path / "pid"
    bundle.edit("true", hooks={"createRuntime": [hook(f"sleep 1000 & echo $! > {pid}")]})
    ran = run(bundle)
    os.kill(int(pid.read_text()), 9)
    assert (ran.returncode, ran.stderr) == (0, "")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"path": "/no/such"}, "hooks.prestart[0]: running /no/such: no such file or directory"),
        ({"path": "/etc/passwd"}, "hooks.prestart[0]: running /etc/passwd: permission denied"),
        ({"path": "sh"}, 'hooks.prestart[0].path: "sh" is not an absolute path'),
        ({"path": "/bin/sh\0"}, "hooks.prestart[0].path has a zero byte in it"),
        ({"path": "/bin/sh", "env": ["A=\0"]}, "hooks.prestart[0].env[0] has a zero byte in it"),
        ({"path": "/bin/sh", "timeout": 0}, "hooks.prestart[0].timeout: 0 is not a number of seconds above zero"),
    ],
)
def test_a_hook_that_cannot_be(bundle: Bundle, tmp_path: Path, wrong: dict[str, Any], message: str) -> None:
    bundle.edit("true", hooks={"prestart": [wrong]})
    log = tmp_path / "log"
    ran = bundle.call("--log", str(log), "run", "--bundle", str(bundle.directory), NAME)
    assert (ran.returncode, ran.stderr) == (1, f"corten-runtime: {message}\n")
    assert "level=error" in log.read_text()
    assert traces(bundle) == []


@pytest.mark.parametrize(
    ("path", "message"),
    [("/no/such", "no such file or directory"), ("/etc/passwd", "permission denied")],
)
def test_a_hook_that_the_container_has_not(bundle: Bundle, path: str, message: str) -> None:
    bundle.edit("true", hooks={"startContainer": [{"path": path}]})
    ran = run(bundle)
    assert (ran.returncode, ran.stderr) == (1, f"corten-runtime: hooks.startContainer[0]: running {path}: {message}\n")


def test_what_becomes_of_the_bundle_after_create_does_not_matter(bundle: Bundle, tmp_path: Path) -> None:
    after = tmp_path / "after"
    bundle.edit("sleep", "1000", hooks={"poststop": [hook(f"echo created > {after}")]})
    assert create(bundle).returncode == 0
    bundle.edit("true", hooks={"poststop": [hook(f"echo changed > {after}")]})
    bundle.ok("start", NAME)
    bundle.ok("delete", "--force", NAME)
    assert after.read_text() == "created\n"


def test_a_container_whose_pid_file_cannot_be_written_is_taken_back(bundle: Bundle, tmp_path: Path) -> None:
    bundle.edit("true")
    missing = str(tmp_path / "no/such/pid")
    ran = bundle.call("create", "--bundle", str(bundle.directory), "--pid-file", missing, NAME)
    assert ran.returncode == 1
    assert traces(bundle) == []


def test_a_console_that_nobody_takes_ends_the_container(bundle: Bundle, tmp_path: Path) -> None:
    bundle.edit("true", terminal=True)
    path = str(tmp_path / "nobody.sock")
    ran = bundle.call("create", "--bundle", str(bundle.directory), "--console-socket", path, NAME)
    assert (ran.returncode, ran.stderr) == (
        1,
        f"corten-runtime: --console-socket {path}: No such file or directory\n",
    )
    assert traces(bundle) == []
