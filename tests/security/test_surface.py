"""What a container with Docker's defaults can ask of the kernel, and what it sees of the host."""

from __future__ import annotations

import ctypes
import json
import os
import platform
import shutil
import subprocess
from pathlib import Path

import msgspec
import pytest

from corten.engine.spec import capabilities, security
from corten.runtime.cgroups_devices import always_allowed
from corten.runtime.seccomp_profile import default_profile
from corten.specs.oci_runtime import Capabilities, DeviceCgroup, Mount, Spec
from tests.kernel.launching import Lab, needs_root
from tests.security.attacker import give, script, with_python

pytestmark = [pytest.mark.root, needs_root]

DEFAULT = list(capabilities.DEFAULT)


def docker_defaults(spec: Spec) -> None:
    """Capabilities, paths and filter as the engine gives them, and a Python."""
    assert spec.process is not None
    assert spec.linux is not None
    spec.process.capabilities = Capabilities(bounding=DEFAULT, effective=DEFAULT, permitted=DEFAULT)
    spec.linux.masked_paths = list(security.MASKED_PATHS)
    spec.linux.readonly_paths = list(security.READONLY_PATHS)
    spec.linux.seccomp = default_profile(DEFAULT)
    assert spec.linux.resources is not None
    spec.linux.resources.devices = [DeviceCgroup(allow=False, access="rwm"), *always_allowed()]
    with_python(spec)


def unconfined(spec: Spec) -> None:
    docker_defaults(spec)
    assert spec.linux is not None
    spec.linux.seccomp = None


# (name, expression, what the filter answers): calls that need no capability, so that only the filter is in the way.
_CALLS = (
    ("io_uring_setup", "call(425, 1, b'\\0' * 120)", "EPERM"),
    ("unshare user", "-1 if libc.unshare(0x10000000) == 0 else errno.errorcode[ctypes.get_errno()]", "EPERM"),
    ("AF_ALG", "attempt(lambda: socket.socket(38, socket.SOCK_SEQPACKET).close())", "EPERM"),
    ("AF_VSOCK", "attempt(lambda: socket.socket(40, socket.SOCK_STREAM).close())", "EPERM"),
    ("personality", "libc.personality(0x40000) >= 0 and 'set' or errno.errorcode[ctypes.get_errno()]", "EPERM"),
    ("clone3", "call(435, None, 0)", "ENOSYS"),
    ("keyctl", "call({keyctl}, 0, -3, 0)", "EPERM"),
    ("add_key", "call({add_key}, b'user', b'x', b'y', 1, -3)", "EPERM"),
    ("userfaultfd", "call({userfaultfd}, 1)", "EPERM"),
    ("open_tree", "call(428, -100, b'/', 0)", "EPERM"),
    ("fsopen", "call(430, b'tmpfs', 0)", "EPERM"),
)
_NUMBERS = {"x86_64": {"keyctl": 250, "add_key": 248, "userfaultfd": 323}}
_NUMBERS["aarch64"] = {"keyctl": 219, "add_key": 217, "userfaultfd": 282}


def _asked(lab: Lab, change: object) -> dict[str, str]:
    numbers = _NUMBERS[platform.machine()]
    lines = [f"print({name!r}, {text.format(**numbers)}, sep=':', flush=True)" for name, text, _ in _CALLS]
    done = lab.run(*script("\n".join(lines)), change=change)  # type: ignore[arg-type]
    assert done.code == 0, done
    return dict(line.split(":", 1) for line in done.out.splitlines())


def test_the_default_filter_keeps_the_kernels_risky_parts_away(lab: Lab) -> None:
    """Calls that any user may make and in which container escapes have been found: io_uring, user namespaces
    (CVE-2022-0185, CVE-2022-0492), AF_VSOCK, keyrings, userfaultfd; clone3, whose flags a filter cannot read.

    The defence: `default_profile` in runtime/seccomp_profile.py. Without a filter several of them succeed here.
    """
    wanted = {name: answer for name, _, answer in _CALLS}
    assert _asked(lab, docker_defaults) == wanted
    free = _asked(lab, unconfined)
    assert free["unshare user"] != "EPERM" or free["AF_ALG"] != "EPERM"
    assert sum(free[name] != wanted[name] for name in wanted) >= 4, free


_UNMASK = """
mount = lambda *a: "done" if libc.mount(*a) == 0 else errno.errorcode[ctypes.get_errno()]
umount = lambda *a: "done" if libc.umount2(*a) == 0 else errno.errorcode[ctypes.get_errno()]
def tries():
    yield "umount", umount(b"/proc/acpi", 2)
    yield "umount file", umount(b"/proc/interrupts", 2)
    yield "remount", mount(None, b"/proc/sys", None, 0x1020, None)  # MS_REMOUNT|MS_BIND, without MS_RDONLY
    yield "bind", mount(b"/proc", b"/tmp", None, 0x1000, None)
    yield "proc", mount(b"proc", b"/tmp", b"proc", 0, None)
    yield "sysfs", mount(b"sysfs", b"/tmp", b"sysfs", 0, None)
    yield "cgroup", mount(b"cgroup", b"/tmp", b"cgroup", 0, b"pids")
    yield "overlay over", mount(b"tmpfs", b"/proc/sys", b"tmpfs", 0, None)
    yield "pivot", "done" if libc.unshare(0x20000) == 0 else errno.errorcode[ctypes.get_errno()]
for name, answer in tries():
    print(name, answer, sep=":", flush=True)
print("sysctl", attempt(lambda: open("/proc/sys/kernel/core_pattern", "w").close()), sep=":")
print("sysrq", attempt(lambda: open("/proc/sysrq-trigger", "w").close()), sep=":")
print("kcore", attempt(lambda: len(open("/proc/kcore", "rb").read(8))), sep=":")
"""
_FILES = {"sysctl": "/proc/sys/kernel/core_pattern", "sysrq": "/proc/sysrq-trigger", "kcore": "/proc/kcore"}
_ANSWERS = {"sysctl": "EROFS", "sysrq": "EROFS", "kcore": "0"}
_CLOSED = {name: _ANSWERS[name] if os.path.exists(path) else "ENOENT" for name, path in _FILES.items()}


def test_without_sys_admin_nothing_can_be_unmasked(lab: Lab) -> None:
    """Even with no seccomp filter: the capability is what mount and umount ask for.

    The defence: the capabilities that are given (`capabilities.DEFAULT` in engine/spec), the masks and read-only binds
    of `mask_path` and `readonly_path` in runtime/child/mounts.py. With CAP_SYS_ADMIN all of it succeeds: the second
    half of the test is that proof.
    """
    done = lab.run(*script(_UNMASK), change=unconfined)
    answers = dict(line.split(":") for line in done.out.splitlines())
    assert {name: answers.pop(name) for name in _CLOSED} == _CLOSED
    assert set(answers.values()) == {"EPERM"}, answers

    def admin(spec: Spec) -> None:
        unconfined(spec)
        give(spec, "CAP_SYS_ADMIN")

    done = lab.run(*script(_UNMASK), change=admin)
    answers = dict(line.split(":") for line in done.out.splitlines())
    assert answers["umount"] == answers["bind"] == answers["proc"] == "done", answers


_USER_NAMESPACE = """
uid = os.getuid()
if libc.unshare(0x10000000 | 0x20000):  # CLONE_NEWUSER | CLONE_NEWNS
    print("unshare", errno.errorcode[ctypes.get_errno()], sep=":")
    sys.exit()
""" + _UNMASK.replace('    yield "overlay over"', '    return\n    yield "overlay over"')


def test_a_user_namespace_of_its_own_does_not_unmask(lab: Lab) -> None:
    """With `seccomp=unconfined` a container may become root of a user namespace, where it may mount.

    The kernel then holds the mounts together that were there before (MNT_LOCKED), and refuses a fresh /proc and /sys
    while parts of the container's are covered: the masks are what makes it refuse. Without masked and read-only paths
    "proc" is "done". (CVE-2022-0492: release_agent in a cgroup mount of its own.)
    """
    done = lab.run(*script(_USER_NAMESPACE), change=unconfined)
    answers = dict(line.split(":") for line in done.out.splitlines())
    if "unshare" in answers:
        assert answers["unshare"] in ("EPERM", "ENOSPC"), "the host forbids user namespaces by other means"
        return
    assert {name: answers.pop(name) for name in _CLOSED} == _CLOSED
    assert "done" not in {answers[name] for name in ("umount", "umount file", "remount", "bind", "proc", "sysfs")}


def test_masked_paths_hold_nothing(lab: Lab) -> None:
    """Docker 28's list, as root of the container. The defence: `mask_path` in runtime/child/mounts.py."""
    script_text = "for p in %s; do [ -e $p ] && { [ -d $p ] && ls -A $p || cat $p; }; done; ls /sys/firmware"
    done = lab.run("sh", "-c", script_text % " ".join(security.MASKED_PATHS), change=docker_defaults)
    assert done.out == "", done.out[:500]
    assert set(security.MASKED_PATHS) >= {
        "/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
        "/proc/sched_debug", "/proc/scsi", "/proc/timer_list", "/proc/timer_stats", "/sys/devices/virtual/powercap",
        "/sys/firmware",
    }  # fmt: skip


def test_control_groups_cannot_be_written(lab: Lab) -> None:
    """A limit lifted, or a release_agent set, by root of the container. The defence: `cgroup_mount` makes them "ro"."""
    attack = """
found = 0
for top, directories, files in os.walk("/sys/fs/cgroup"):
    for name in files:
        if name in ("pids.max", "memory.max", "memory.limit_in_bytes", "cgroup.procs", "release_agent", "tasks"):
            found += 1
            print(attempt(lambda: open(top + "/" + name, "w").write("1")))
    print(attempt(lambda: os.mkdir(top + "/new")))
print(found > 0)
"""
    done = lab.run(*script(attack), change=docker_defaults)
    assert set(done.out.split()) == {"EROFS", "True"}, done


@pytest.mark.parametrize(
    ("kind", "major", "minor"), [("c", 1, 1), ("c", 1, 11), ("c", 10, 237), ("b", 7, 0), ("b", 8, 0), ("b", 254, 0)]
)
def test_device_nodes_that_a_container_makes_or_brings_are_dead(lab: Lab, kind: str, major: int, minor: int) -> None:
    """MKNOD is among Docker's capabilities, and layers may hold nodes: /dev/mem, /dev/kmsg, loop control, disks.

    The defence: the device rules of the control group (`always_allowed` in runtime/cgroups_devices.py), in force before
    anything of the container runs. With a rule that allows all, mknod'ed /dev/kmsg is read.
    """
    mode = 0o660 | (0o020000 if kind == "c" else 0o060000)
    os.mknod(lab.lower / "brought", mode, os.makedev(major, minor))
    attack = f"""
print(attempt(lambda: os.mknod("/made", {mode}, os.makedev({major}, {minor}))))
for name in ("/made", "/brought"):
    for flags in (os.O_RDONLY, os.O_WRONLY):
        print(attempt(lambda: os.open(name, flags | os.O_NONBLOCK)))
"""
    done = lab.run(*script(attack), change=docker_defaults)
    assert done.out.split() == ["None"] + ["EPERM"] * 4, done


def test_mountinfo_shows_no_more_than_runcs(lab: Lab, tmp_path: Path) -> None:
    """Paths of the host in /proc/self/mountinfo: the same specification under runc shows the same roots and sources.

    The defence is that mounts are made by descriptor, of what they need to be of, and old mounts are gone.
    """
    if shutil.which("runc") is None:
        pytest.skip("runc is not installed")
    (tmp_path / "volume").mkdir()

    def change(spec: Spec) -> None:
        docker_defaults(spec)
        assert spec.linux is not None
        spec.linux.seccomp = None
        spec.mounts = [mount for mount in spec.mounts if mount.type != "cgroup"]
        spec.mounts.append(Mount(destination="/v", type="bind", source=str(tmp_path / "volume"), options=["rbind"]))

    ours = _mounts(lab.run("cat", "/proc/self/mountinfo", change=change).out)
    theirs = _mounts(_under_runc(lab, tmp_path, change))
    assert set(ours) == set(theirs)
    for point in ours:
        assert ours[point] == theirs[point], point
    everything = json.dumps(ours)
    assert everything.count(str(tmp_path)) == everything.count(str(tmp_path / "volume"))


def _mounts(text: str) -> dict[str, tuple[str, str, str]]:
    """Mount point to root, type and source. Left out are the root's own, an overlay here and a directory there, and
    whose null device masks files: the host's here, the container's there."""
    found = {}
    for line in text.splitlines():
        fields = line.split()
        kind, source = fields[fields.index("-") + 1 : fields.index("-") + 3]
        if fields[3] == "/null":
            kind = source = ""
        if fields[4] != "/":
            found[fields[4]] = (fields[3], kind, source if kind not in ("tmpfs",) else "")
    return found


def _under_runc(lab: Lab, tmp_path: Path, change: object) -> str:
    spec = lab.spec("cat", "/proc/self/mountinfo", change=change)  # type: ignore[arg-type]
    bundle = tmp_path / "bundle"
    shutil.copytree(lab.lower, bundle / "rootfs", symlinks=True)
    (bundle / "config.json").write_bytes(msgspec.json.encode(spec))
    command = ["runc", "--root", str(tmp_path / "runc"), "run", "--bundle", str(bundle), f"c{os.getpid()}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_containers_terminal_is_never_the_operators(lab: Lab) -> None:
    """TIOCSTI types into a terminal: with the operator's own tty as stdin, a container could run commands on the host.

    The defence: `open_console` in runtime/child/console.py makes one out of the container's devpts; the client relays.
    """
    from tests.security.test_paths import terminal

    attack = """
import fcntl
status = os.fstat(0)
print("tty", os.ttyname(0), os.major(status.st_rdev), os.stat("/dev/pts/ptmx").st_dev == status.st_dev)
print("input", attempt(lambda: fcntl.ioctl(0, 0x5412, b"x")) in (0, "EPERM", "EIO"))
"""

    def change(spec: Spec) -> None:
        docker_defaults(spec)
        terminal(spec)

    done = lab.run(*script(attack), change=change)
    lines = done.console.replace("\r", "").splitlines()
    assert [line for line in lines if line.startswith("tty")] == ["tty /dev/pts/0 136 True"], done
    assert ctypes.sizeof(ctypes.c_void_p) == 8
