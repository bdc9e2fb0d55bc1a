"""Launching containers of one busybox without shim or daemon, for tests of what happens between fork and execve."""

from __future__ import annotations

import marshal
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from corten.runtime.cgroups import Cgroup, host_layout
from corten.runtime.plan import compile_exec, compile_launch
from corten.runtime.types import LaunchRequest, MountSpec
from corten.specs.oci_runtime import (
    VERSION,
    Capabilities,
    DeviceCgroup,
    Linux,
    Mount,
    Namespace,
    Process,
    Resources,
    Root,
    Spec,
)
from tests.waiting import patience

BUSYBOX = shutil.which("busybox") or ""
SRC = str(Path(__file__).resolve().parents[2] / "src")
CAPABILITIES = ["CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_SETUID", "CAP_SETGID", "CAP_KILL", "CAP_NET_RAW"]
NAMESPACES = ("mount", "pid", "uts", "ipc", "network", "cgroup")
PASSWD = "root:x:0:0:root:/root:/bin/sh\nweb:x:1000:1001::/home/web:/bin/sh\n"
GROUP = "root:x:0:\nweb:x:1001:\nextra:x:2000:web\nmore:x:3000:\n"

needs_root = pytest.mark.skipif(os.geteuid() != 0 or not BUSYBOX, reason="needs root and a static busybox")

# A process of one thread, as the shim is: launches, waits and says how it went on a pipe. With a stdin of its own
# the first process lives until all exec sessions are done.
_DRIVER = """
import marshal, os, sys
sys.path.insert(0, sys.argv[1])
from corten.linux.process import PR_SET_CHILD_SUBREAPER, prctl
from corten.runtime.child.errors import ChildFailed
from corten.runtime.child.join import join
from corten.runtime.child.launch import launch
prctl(PR_SET_CHILD_SUBREAPER, 1)
order = marshal.loads(sys.stdin.buffer.read())
answer = {"execs": []}
def ended(spawned):
    os.close(spawned.pidfd)
    text = b""
    while spawned.console >= 0:
        try:
            chunk = os.read(spawned.console, 4096)
        except OSError:
            break
        text += chunk
    if spawned.console >= 0:
        os.close(spawned.console)
    return {"code": os.waitstatus_to_exitcode(os.waitpid(spawned.pid, 0)[1]), "warnings": spawned.warnings,
            "console": text.decode()}
def failed(error):
    return {"failure": (error.step, error.errno, error.detail, error.exit_code)}
os.set_inheritable(int(sys.argv[2]), False)
before = len(os.listdir("/proc/self/fd"))
for fd in order["leak"]:
    os.set_inheritable(fd, True)
feed = -1
exec(order["before"])
try:
    stdin = -1
    if order["execs"] or order["probe"]:
        stdin, feed = os.pipe()
    main = launch(order["wire"], stdin, 1, 2, hold=order["hold"])
    if stdin >= 0:
        os.close(stdin)
    if order["hold"]:
        answer["held"] = os.readlink(f"/proc/{main.pid}/exe")
        main.release()
    for wire in order["execs"]:
        try:
            answer["execs"].append(ended(join(wire, main.pid, -1, 1, 2)))
        except ChildFailed as error:
            answer["execs"].append(failed(error))
    if order["probe"]:
        exec(order["probe"], {"main": main, "answer": answer})
    if feed >= 0:
        os.close(feed)
    answer.update(ended(main))
except ChildFailed as error:
    if feed >= 0:
        os.close(feed), os.close(stdin)
    answer.update(failed(error))
answer["leaked"] = len(os.listdir("/proc/self/fd")) - before
try:
    os.waitpid(-1, os.WNOHANG)
    answer["children"] = True
except ChildProcessError:
    answer["children"] = False
os.write(int(sys.argv[2]), marshal.dumps(answer))
"""


@dataclass(slots=True)
class Outcome:
    """`failure` is (step, errno, detail, exit code) when it did not start."""

    code: int = -1
    out: str = ""
    err: str = ""
    console: str = ""
    warnings: list[str] = field(default_factory=list)
    failure: tuple[str, int, str, int] | None = None
    execs: list[dict[str, Any]] = field(default_factory=list)
    answer: dict[str, Any] = field(default_factory=dict)


class Lab:
    """A root file system, a scratch directory and a name for the control group."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.lower, self.upper = directory / "lower", directory / "upper"
        for path in (self.lower, self.upper, directory / "work", directory / "run/rootfs"):
            path.mkdir(parents=True)
        for name in ("bin", "etc", "tmp", "root", "home/web"):
            (self.lower / name).mkdir(parents=True)
        shutil.copy(BUSYBOX, self.lower / "bin/busybox")
        for applet in subprocess.run([BUSYBOX, "--list"], capture_output=True, text=True, check=True).stdout.split():
            if applet != "busybox":
                (self.lower / "bin" / applet).symlink_to("busybox")
        (self.lower / "etc/passwd").write_text(PASSWD)
        (self.lower / "etc/group").write_text(GROUP)
        self.cgroup = f"/corten-test-{os.getpid()}/c"

    def spec(self, *args: str, change: Callable[[Spec], None] | None = None) -> Spec:
        """A container much as the engine asks for one; `change` may alter it."""
        process = Process(
            cwd="/",
            args=list(args),
            env=["PATH=/bin"],
            capabilities=Capabilities(bounding=CAPABILITIES, effective=CAPABILITIES, permitted=CAPABILITIES),
        )
        linux = Linux(
            namespaces=[Namespace(type=kind) for kind in NAMESPACES],
            cgroups_path=self.cgroup,
            resources=Resources(devices=[DeviceCgroup(allow=False), *map(_allowed, _DEVICES)]),
        )
        spec = Spec(
            oci_version=VERSION,
            process=process,
            root=Root(path="rootfs"),
            hostname="box",
            mounts=default_mounts(),
            linux=linux,
        )
        if change is not None:
            change(spec)
        return spec

    def request(self, spec: Spec, *, user: str = "", groups: Sequence[str] = (), init: bool = False) -> LaunchRequest:
        layers = f"lowerdir={self.lower}", f"upperdir={self.upper}", f"workdir={self.directory / 'work'}"
        return LaunchRequest(
            id="c",
            spec=spec,
            run_dir=self.directory / "run",
            exit_file=self.directory / "exit",
            rootfs=(MountSpec("overlay", "overlay", options=layers),),
            init=init,
            user=user,
            groups=tuple(groups),
        )

    def run(
        self,
        *args: str,
        change: Callable[[Spec], None] | None = None,
        user: str = "",
        groups: Sequence[str] = (),
        init: bool = False,
        execs: Sequence[tuple[Process, str]] = (),
        probe: str = "",
        hold: bool = False,
        leak: Sequence[int] = (),
        wrap: Sequence[str] = (),
        before: str = "",
    ) -> Outcome:
        """Launch, run the exec sessions and the probe beside it, wait for the end, take the control group away.

        `wrap` is a command that runs the launcher; `before` is run by the launcher before it does anything.
        """
        spec = self.spec(*args, change=change)
        order = {
            "wire": compile_launch(self.request(spec, user=user, groups=groups, init=init)).to_wire(),
            "execs": [compile_exec(process, spec, who, ()).to_wire() for process, who in execs],
            "probe": probe,
            "before": before,
            "hold": hold,
            "leak": list(leak),
        }
        try:
            return self._drive(order, leak, wrap)
        finally:
            group = Cgroup(self.cgroup)
            group.kill_all()
            group.remove()

    def _drive(self, order: dict[str, Any], leak: Sequence[int], wrap: Sequence[str]) -> Outcome:
        reading, writing = os.pipe()
        try:
            done = subprocess.run(
                [*wrap, sys.executable, "-I", "-S", "-c", _DRIVER, SRC, str(writing)],
                input=marshal.dumps(order),
                capture_output=True,
                pass_fds=(writing, *leak),
                timeout=patience(60),
            )
        finally:
            os.close(writing)
            with open(reading, "rb") as file:
                data = file.read()
        err = done.stderr.decode(errors="replace")
        assert data, err
        answer = marshal.loads(data)
        assert answer["leaked"] == 0, "the launcher's descriptors leak"
        assert not answer["children"], "a child was not reaped"
        return Outcome(
            code=answer.get("code", -1),
            out=done.stdout.decode(errors="replace"),
            err=err,
            console=answer.get("console", ""),
            warnings=answer.get("warnings", []),
            failure=answer.get("failure"),
            execs=answer["execs"],
            answer=answer,
        )


# The devices that Docker allows: all of them may be made, these may be used.
_DEVICES = ((1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 1), (5, 2), (136, None))


def _allowed(device: tuple[int, int | None]) -> DeviceCgroup:
    return DeviceCgroup(allow=True, type="c", major=device[0], minor=device[1], access="rwm")


def default_mounts() -> list[Mount]:
    return [
        Mount(destination="/proc", type="proc", source="proc", options=["nosuid", "noexec", "nodev"]),
        Mount(destination="/dev", type="tmpfs", source="tmpfs", options=["nosuid", "strictatime", "mode=755"]),
        Mount(
            destination="/dev/pts",
            type="devpts",
            source="devpts",
            options=["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        ),
        Mount(destination="/sys", type="sysfs", source="sysfs", options=["nosuid", "noexec", "nodev", "ro"]),
        Mount(
            destination="/sys/fs/cgroup", type="cgroup", source="cgroup", options=["ro", "nosuid", "noexec", "nodev"]
        ),
        Mount(destination="/dev/mqueue", type="mqueue", source="mqueue", options=["nosuid", "noexec", "nodev"]),
        Mount(destination="/dev/shm", type="tmpfs", source="shm", options=["nosuid", "nodev", "mode=1777"]),
    ]


def leftovers(name: str) -> list[str]:
    """Control groups whose path has `name`, in any hierarchy."""
    layout = host_layout()
    tops = [hierarchy.mountpoint for hierarchy in layout.v1] + ([layout.unified] if layout.unified else [])
    return [f"{top}{name}" for top in tops if os.path.exists(f"{top}{name}")]


def remove_parents(name: str) -> None:
    """Take the empty parent groups of a test away."""
    layout = host_layout()
    for top in [hierarchy.mountpoint for hierarchy in layout.v1] + ([layout.unified] if layout.unified else []):
        if os.path.isdir(top + name):
            os.rmdir(top + name)
