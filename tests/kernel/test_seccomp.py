"""Seccomp profiles that processes run under, by corten-runtime and by a shim."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from corten.errors import StartFailed
from corten.linux.libc import MACHINE
from corten.linux.seccomp import SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV, flag_available
from corten.runtime.cgroups import Cgroup
from corten.specs.oci_runtime import Seccomp, Syscall
from tests.kernel.boxes import boxes, cgroup_of, needs_root
from tests.kernel.seccomp_agent import Agent
from tests.kernel.test_oci_cli import Bundle
from tests.kernel.test_oci_hooks import create, hook, traces

pytestmark = [
    pytest.mark.root,
    needs_root,
    pytest.mark.skipif(MACHINE != "x86_64", reason="the agent has numbers of x86_64"),
]

NAME = "oci"
FLAG = "SECCOMP_FILTER_FLAG_"
MKDIR = ["mkdir", "mkdirat"]


@pytest.fixture
def bundle(tmp_path: Path) -> Iterator[Bundle]:
    made = Bundle(tmp_path)
    (made.directory / "rootfs/bin/mkdir").symlink_to("busybox")
    yield made
    made.call("delete", "--force", NAME)
    assert traces(made) == []
    Cgroup(cgroup_of("")).remove()


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Agent]:
    made = Agent(tmp_path / "agent")
    yield made
    made.close()


def edit(bundle: Bundle, script: str, profile: dict[str, Any], **more: Any) -> None:
    bundle.edit("sh", "-c", script, root={"path": "rootfs"}, **more)
    path = bundle.directory / "config.json"
    config = json.loads(path.read_text())
    config["linux"]["seccomp"] = {"defaultAction": "SCMP_ACT_ALLOW", **profile}
    path.write_text(json.dumps(config))


def rule(action: str, *names: str, **more: Any) -> dict[str, Any]:
    return {"names": list(names), "action": f"SCMP_ACT_{action}", **more}


def run(bundle: Bundle, *options: str) -> subprocess.CompletedProcess[str]:
    return bundle.call(*options, "run", "--bundle", str(bundle.directory), NAME)


@pytest.mark.parametrize(
    ("made", "code", "said"),
    [
        (rule("KILL", *MKDIR), 128 + signal.SIGSYS, ""),
        (rule("KILL_THREAD", *MKDIR), 128 + signal.SIGSYS, ""),
        (rule("KILL_PROCESS", *MKDIR), 128 + signal.SIGSYS, ""),
        (rule("TRAP", *MKDIR), 128 + signal.SIGSYS, ""),
        (rule("ERRNO", *MKDIR), 1, "Operation not permitted"),
        (rule("ERRNO", *MKDIR, errnoRet=95), 1, "Operation not supported"),
        (rule("ERRNO", *MKDIR, errnoRet=0), 0, ""),
        (rule("TRACE", *MKDIR, errnoRet=5), 1, "Function not implemented"),
        (rule("LOG", *MKDIR), 0, ""),
        (rule("ALLOW", *MKDIR), 0, ""),
    ],
    ids=lambda value: f"{value['action'][9:]}{value.get('errnoRet', '')}" if isinstance(value, dict) else "",
)
def test_what_each_action_does(bundle: Bundle, made: dict[str, Any], code: int, said: str) -> None:
    edit(bundle, "exec mkdir /tmp/made", {"syscalls": [made]})
    ran = run(bundle)
    assert ran.returncode == code, ran.stderr
    assert said in ran.stderr
    exists = made["action"][9:] in ("LOG", "ALLOW")
    assert (bundle.directory / "rootfs/tmp/made").exists() == exists


def test_a_trap_is_a_signal_that_can_be_caught(bundle: Bundle) -> None:
    edit(bundle, "trap 'echo caught' SYS; cd /tmp; echo on", {"syscalls": [rule("TRAP", "chdir")]})
    assert "caught\non\n" in run(bundle).stdout


def test_a_default_that_kills_with_calls_that_are_allowed(bundle: Bundle) -> None:
    """ENOSYS for what is newer than the profile, so that it is not killed for asking."""
    allowed = (
        "execve brk arch_prctl exit_group prctl getuid setgid setuid getgid read write close mmap munmap mprotect "
        "rt_sigaction rt_sigprocmask rt_sigreturn getpid getppid stat fstat fcntl geteuid getcwd dup2 set_tid_address "
        "set_robust_list rseq prlimit64 readlink readlinkat getrandom ioctl uname poll getegid"
    )
    profile = {"defaultAction": "SCMP_ACT_KILL_PROCESS", "syscalls": [rule("ALLOW", *allowed.split())]}
    edit(bundle, "echo alive; cd /tmp; echo dead", profile)
    ran = run(bundle)
    assert (ran.stdout, ran.returncode) == ("alive\n", 128 + signal.SIGSYS)


@pytest.mark.parametrize("flags", [["TSYNC"], ["LOG"], ["SPEC_ALLOW"], ["TSYNC", "LOG", "SPEC_ALLOW"]])
def test_the_kernel_takes_each_flag(bundle: Bundle, flags: list[str]) -> None:
    profile = {"syscalls": [rule("ERRNO", *MKDIR)], "flags": [FLAG + name for name in flags]}
    edit(bundle, "mkdir /tmp/made", profile)
    assert "Operation not permitted" in run(bundle).stderr


@pytest.mark.parametrize("flags", [[], ["TSYNC"], ["WAIT_KILLABLE_RECV"], ["TSYNC", "WAIT_KILLABLE_RECV", "LOG"]])
def test_an_agent_answers_for_the_kernel(bundle: Bundle, agent: Agent, tmp_path: Path, flags: list[str]) -> None:
    if "WAIT_KILLABLE_RECV" in flags and not flag_available(SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV):
        pytest.skip("this kernel is older than 5.19")
    profile = {
        "syscalls": [rule("NOTIFY", *MKDIR)],
        "listenerPath": str(tmp_path / "agent"),
        "listenerMetadata": 'some "data"',
        "flags": [FLAG + name for name in flags],
    }
    edit(bundle, "mkdir /tmp/emulated && echo done", profile, annotations={"a": "b"})
    ran = run(bundle)
    assert (ran.stdout, ran.stderr, ran.returncode) == ("done\n", "", 0)
    assert not (bundle.directory / "rootfs/tmp/emulated").exists()
    assert agent.asked == [83]
    (told,) = agent.states
    state = told.pop("state")
    assert told == {"ociVersion": "1.3.0", "fds": ["seccompFd"], "pid": state["pid"], "metadata": 'some "data"'}
    assert state["pid"] > 1
    assert {**state, "pid": 0} == {
        "ociVersion": "1.3.0",
        "id": NAME,
        "status": "created",
        "pid": 0,
        "bundle": str(bundle.directory),
        "annotations": {"a": "b"},
    }
    assert agent.extra == 0


def test_an_exec_session_has_a_listener_of_its_own(bundle: Bundle, agent: Agent, tmp_path: Path) -> None:
    profile = {"syscalls": [rule("NOTIFY", *MKDIR)], "listenerPath": str(tmp_path / "agent")}
    edit(bundle, "while :; do sleep 0.1; done", profile)
    assert create(bundle).returncode == 0
    bundle.ok("start", NAME)
    assert bundle.ok("exec", NAME, "mkdir", "/tmp/emulated") == ""
    assert not (bundle.directory / "rootfs/tmp/emulated").exists()
    first, second = agent.states
    main = json.loads(bundle.ok("state", NAME))["pid"]
    assert (first["pid"], first["state"]["pid"], second["state"]["pid"]) == (main, main, main)
    assert second["pid"] not in (main, 0)
    assert (first["state"]["status"], second["state"]["status"]) == ("created", "running")


def test_calls_that_we_need_ourselves_can_be_asked_about(bundle: Bundle, agent: Agent, tmp_path: Path) -> None:
    """The agent gets its listener whatever the filter says of sending, receiving and execve."""
    ours = ("sendmsg", "recvmsg", "read", "close", "poll", "execve", "futex", "exit_group", "mmap", "ioctl")
    refused = rule("KILL_PROCESS", "fcntl", "pidfd_getfd", "sendto", "recvfrom", "dup", "memfd_create", "socket")
    profile = {"syscalls": [rule("NOTIFY", *ours), refused], "listenerPath": str(tmp_path / "agent")}
    edit(bundle, "exit 7", profile)
    bundle.edit("true", root={"path": "rootfs"})
    assert run(bundle).returncode == 0
    assert 59 in agent.asked


def test_a_hook_in_the_container_has_the_filter_and_nobody_to_ask(bundle: Bundle, agent: Agent, tmp_path: Path) -> None:
    profile = {"syscalls": [rule("NOTIFY", *MKDIR)], "listenerPath": str(tmp_path / "agent")}
    edit(bundle, "mkdir /tmp/x", profile, hooks={"startContainer": [hook("mkdir /tmp/y 2> /tmp/said; true")]})
    assert run(bundle).returncode == 0
    assert "Function not implemented" in (bundle.directory / "rootfs/tmp/said").read_text()
    assert len(agent.states) == 1


def test_without_an_agent_nothing_starts(bundle: Bundle, tmp_path: Path) -> None:
    path, log = tmp_path / "nobody", tmp_path / "log"
    edit(bundle, "echo never", {"syscalls": [rule("NOTIFY", *MKDIR)], "listenerPath": str(path)})
    ran = run(bundle, "--log", str(log))
    message = f"linux.seccomp.listenerPath: {path}: no such file or directory"
    assert (ran.returncode, ran.stdout, ran.stderr) == (1, "", f"corten-runtime: {message}\n")
    assert f'level=error msg="{message}"' in log.read_text()
    assert traces(bundle) == []
    edit(bundle, "echo always", {"syscalls": [], "listenerPath": str(path)})
    assert run(bundle).stdout == "always\n"  # there is nothing to ask


@pytest.mark.parametrize(
    ("profile", "message"),
    [
        ({"defaultAction": "SCMP_ACT_ODD"}, "linux.seccomp.defaultAction: 'SCMP_ACT_ODD' is unknown"),
        ({"syscalls": [rule("ODD", "read")]}, "linux.seccomp.syscalls[0].action: 'SCMP_ACT_ODD' is unknown"),
        ({"architectures": ["SCMP_ARCH_VAX"]}, "linux.seccomp.architectures[0]: 'SCMP_ARCH_VAX' is unknown"),
        ({"flags": [FLAG + "ODD"]}, f"linux.seccomp.flags[0]: '{FLAG}ODD' is unknown"),
        (
            {"syscalls": [rule("LOG", "read", args=[{"index": 0, "value": 0, "op": "SCMP_CMP_ODD"}])]},
            "linux.seccomp.syscalls[0].args[0].op: 'SCMP_CMP_ODD' is unknown",
        ),
    ],
)
def test_a_profile_that_cannot_be(bundle: Bundle, tmp_path: Path, profile: dict[str, Any], message: str) -> None:
    log = tmp_path / "log"
    edit(bundle, "echo never", profile)
    ran = run(bundle, "--log", str(log), "--log-format", "json")
    assert (ran.returncode, ran.stdout, ran.stderr) == (1, "", f"corten-runtime: {message}\n")
    assert json.loads(log.read_text())["msg"] == message
    assert traces(bundle) == []


def test_a_call_that_nobody_knows_is_a_warning(bundle: Bundle, tmp_path: Path) -> None:
    log = tmp_path / "log"
    edit(bundle, "echo runs", {"syscalls": [rule("ERRNO", "mkdri")]})
    ran = run(bundle, "--log", str(log))
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "runs\n", "")
    assert "level=warning" in log.read_text()
    assert "nothing is known of mkdri" in log.read_text()
    assert "warning: linux.seccomp.syscalls: nothing is known of mkdri" in run(bundle, "--debug").stderr


def test_a_shims_container_and_its_sessions_can_ask(tmp_path: Path, agent: Agent) -> None:
    profile = Seccomp(
        default_action="SCMP_ACT_ALLOW",
        listener_path=str(tmp_path / "agent"),
        syscalls=[Syscall(names=MKDIR, action="SCMP_ACT_NOTIFY")],
    )

    async def main() -> None:
        async with boxes(tmp_path) as b:
            (tmp_path / "root/bin/mkdir").symlink_to("busybox")
            request = b.request("c", "sh", "-c", "mkdir /tmp/a; echo $?; exec sleep 1000")
            assert request.spec.linux is not None
            request.spec.linux.seccomp = profile
            launched = await b.client.launch(replace(request, init=True))
            await b.logged_until("c", "0\n")
            await b.exec("c", "x", "mkdir", "/tmp/b")
            assert (await b.exec_exit_of("x")).code == 0
            assert [state["state"]["pid"] for state in agent.states] == [launched.pid, launched.pid]
            assert agent.states[0]["pid"] in b.client.resources.pids("c")  # the program; the first process is its init
            assert agent.states[0]["pid"] != launched.pid
            assert not list((tmp_path / "root/tmp").iterdir())
            profile.listener_path = str(tmp_path / "nobody")
            other = b.request("d", "true")
            assert other.spec.linux is not None
            other.spec.linux.seccomp = profile
            with pytest.raises(StartFailed, match=r"linux\.seccomp\.listenerPath: .*: no such file or directory"):
                await b.client.launch(other)
            assert not os.path.exists(Cgroup(cgroup_of("d")).directory("pids"))

    asyncio.run(main())
