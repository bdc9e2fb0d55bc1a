"""Paths that an image or another container redirects while we mount, mask and write."""

from __future__ import annotations

import ctypes
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from corten.specs.oci_runtime import ConsoleSize, Mount, Spec
from tests.kernel.launching import Lab, needs_root
from tests.security.attacker import process

pytestmark = [pytest.mark.root, needs_root]

_AT_FDCWD, _RENAME_EXCHANGE = -100, 2


@contextmanager
def swapping(first: Path, second: Path) -> Iterator[None]:
    """Another container, in a loop: it exchanges the two names as fast as it can."""
    libc = ctypes.CDLL(None)
    names = os.fsencode(first), os.fsencode(second)
    child = os.fork()
    if child == 0:
        try:
            parent = os.getppid()
            while os.getppid() == parent:
                libc.renameat2(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_EXCHANGE)
        finally:
            os._exit(0)
    try:
        yield
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_a_mount_point_swapped_for_a_link_while_it_is_made(lab: Lab, tmp_path: Path) -> None:
    """CVE-2021-30465: two containers share a volume; one swaps the directory, in which the other's mount goes, with a
    link to a path of the host.

    The defence: `ensure` in linux/inroot.py, which resolves in the root and returns a descriptor, and move_mount
    on that descriptor in runtime/child/mounts.py. With a path of the host in `open_target` (os.makedirs and os.open
    of root_path + target) the directory "made" appears outside within a few tries.
    """
    volume, outside, data = tmp_path / "volume", tmp_path / "outside", tmp_path / "data"
    for path in (volume / "dir", outside, data):
        path.mkdir(parents=True)
    (data / "mark").write_text("mark\n")
    (volume / "link").symlink_to(outside)

    def change(spec: Spec) -> None:
        spec.mounts.append(Mount(destination="/v", type="bind", source=str(volume), options=["rbind"]))
        spec.mounts.append(Mount(destination="/v/dir/made", type="bind", source=str(data), options=["rbind"]))

    with swapping(volume / "dir", volume / "link"):
        for _ in range(15):
            done = lab.run("true", change=change)
            assert done.failure is None or done.failure[0] in ("mount", "BindMount"), done.failure
            assert not (outside / "made").exists(), "the mount point was made on the host"


def test_a_working_directory_swapped_for_a_link(lab: Lab, tmp_path: Path) -> None:
    """The same race for the working directory, which is made when it is missing (the kind of CVE-2018-15664).

    The defence is the place of EnterDirectory in the plan (`compile_steps` after PivotRoot in runtime/plan.py): made
    before, through a path of the host, the directory appears outside.
    """
    volume, outside = tmp_path / "volume", tmp_path / "outside"
    (volume / "dir").mkdir(parents=True)
    outside.mkdir()
    (volume / "link").symlink_to(outside)

    def change(spec: Spec) -> None:
        spec.mounts.append(Mount(destination="/v", type="bind", source=str(volume), options=["rbind"]))
        assert spec.process is not None
        spec.process.cwd = "/v/dir/made"

    with swapping(volume / "dir", volume / "link"):
        for _ in range(8):
            lab.run("true", change=change)
            assert not (outside / "made").exists()


_SWAP_BEFORE = """
from corten.runtime.child import launch as launching
original = launching.HANDLERS[{step!r}]
def redirected(ctx, *values):
    {attack}
    original(ctx, *values)
launching.HANDLERS[{step!r}] = redirected
"""


def test_a_null_device_swapped_before_paths_are_masked(lab: Lab) -> None:
    """CVE-2025-31133: the container's /dev/null, which paths are masked with, becomes a link to what is to be had.

    The defence: `Context.null` in runtime/child/context.py is the host's, opened before anything of the container is
    there, and checked to be the null device. Masking with the container's /dev/null gives the secret away.
    """
    (lab.lower / "secret").write_text("secret\n")
    (lab.lower / "bait").write_text("bait\n")
    attack = "os.unlink('dev/null', dir_fd=ctx.root); os.symlink('/bait', 'dev/null', dir_fd=ctx.root)"

    def change(spec: Spec) -> None:
        assert spec.linux is not None
        spec.linux.masked_paths = ["/secret"]

    script = "cat /secret; stat -c %t:%T /secret; ls -l /dev/null"
    done = lab.run("sh", "-c", script, change=change, before=_SWAP_BEFORE.format(step="MaskPath", attack=attack))
    lines = done.out.splitlines()
    assert lines[0] == "1:3", done
    assert lines[1].endswith("-> /bait")


def terminal(spec: Spec) -> None:
    assert spec.process is not None
    spec.process.terminal = True
    spec.process.console_size = ConsoleSize(height=24, width=80)


_COVER_PTS = """
from corten.linux import mount as api
from corten.linux.openat2 import O_PATH
from corten.runtime.child import console
bind = console._bind_console
def redirected(ctx, slave):
    fs = api.fsopen("tmpfs")
    api.fsconfig_create(fs)
    cover = api.fsmount(fs)
    os.symlink("/bait", "0", dir_fd=cover)
    api.move_mount(cover, os.open("dev/pts", O_PATH, dir_fd=ctx.root))
    bind(ctx, slave)
console._bind_console = redirected
"""


def test_a_terminal_swapped_before_it_becomes_the_console(lab: Lab) -> None:
    """CVE-2025-52565: /dev/pts/0 becomes a link to a file of /proc, which the bind mount on /dev/console then exposes
    for writing, before paths are masked and made read-only.

    The defence: `open_console` in runtime/child/console.py gets the terminal's slave from its master (TIOCGPTPEER) and
    mounts that descriptor. With open_tree(ctx.root, "dev/pts/0") in `_bind_console` the console is /bait.
    """
    (lab.lower / "bait").write_text("bait\n")
    done = lab.run("sh", "-c", "stat -c %t /dev/console; cat /dev/pts/0", change=terminal, before=_COVER_PTS)
    assert done.console.split() == ["88", "bait"], done  # 136: a terminal of devpts


def test_a_console_that_links_into_proc(lab: Lab) -> None:
    """The other half: /dev/console of the image is a link to a file of /proc, over which the terminal would lie.

    The defence: `_bind_console` in runtime/child/console.py looks at the file system that it has come to.
    """
    (lab.lower / "dev").mkdir()
    (lab.lower / "dev/console").symlink_to("/proc/sys/kernel/core_pattern")

    def change(spec: Spec) -> None:
        terminal(spec)
        spec.mounts = [mount for mount in spec.mounts if mount.destination != "/dev"]

    done = lab.run("true", change=change)
    assert done.failure is not None
    assert "inside /proc" in done.failure[2]


def test_what_we_write_to_proc_is_not_redirected(lab: Lab, tmp_path: Path) -> None:
    """CVE-2025-52881, CVE-2019-16884 and CVE-2019-19921: a volume over /proc, or below a linked one, takes what the
    runtime writes there: sysctls, the OOM score, security labels.

    The defence: `Context.proc` in runtime/child/context.py is the host's, opened first; `_write_proc` and `let_go` of
    runtime/child/process.py go through it. Writing to the path /proc/self/oom_score_adj fills the file of the volume.
    """
    fake = tmp_path / "fake"
    for name in ("self/oom_score_adj", "self/attr/exec", "sys/net/ipv4/ip_unprivileged_port_start"):
        (fake / name).parent.mkdir(parents=True, exist_ok=True)
        (fake / name).touch()
    (lab.lower / "proc").symlink_to("innocent")

    def change(spec: Spec) -> None:
        assert spec.process is not None
        assert spec.linux is not None
        spec.mounts = [mount for mount in spec.mounts if mount.destination != "/proc"]
        spec.mounts.append(Mount(destination="/innocent", type="bind", source=str(fake), options=["rbind"]))
        spec.process.oom_score_adj = 321
        spec.linux.sysctl = {"net.ipv4.ip_unprivileged_port_start": "81"}

    session = process("true")
    session.oom_score_adj = 322
    probe = _LOOK + "answer['score'] = open(f'/proc/{main.pid}/oom_score_adj').read().strip()\n"
    done = lab.run("cat", change=change, probe=probe, execs=[(session, "")])
    assert done.failure is None, done.failure
    assert done.answer["score"] == "321"
    assert done.answer["sysctl"] == "81"
    assert [path.name for path in fake.rglob("*") if path.is_file() and path.stat().st_size] == []


def test_no_volume_is_mounted_over_proc(lab: Lab, tmp_path: Path) -> None:
    """CVE-2019-19921: `-v volume:/proc`. The defence: `bind_mount` in runtime/child/mounts.py takes a proc only."""
    (tmp_path / "fake").mkdir()

    def change(spec: Spec) -> None:
        spec.mounts = [mount for mount in spec.mounts if mount.destination != "/proc"]
        spec.mounts.append(Mount(destination="/proc", type="bind", source=str(tmp_path / "fake"), options=["rbind"]))

    done = lab.run("true", change=change)
    assert done.failure is not None
    assert "not of type proc" in done.failure[2]


# What the sysctl is in the container's network namespace, by a child that enters it.
_LOOK = """
import os
from corten.linux.process import CLONE_NEWNET, pidfd_open, setns
reader, writer = os.pipe()
child = os.fork()
if child == 0:
    target = pidfd_open(main.pid)
    setns(target, CLONE_NEWNET)
    os.write(writer, open("/proc/sys/net/ipv4/ip_unprivileged_port_start", "rb").read())
    os._exit(0)
os.waitpid(child, 0)
answer["sysctl"] = os.read(reader, 64).decode().strip()
os.close(reader), os.close(writer)
"""


def test_passwd_files_of_all_kinds(lab: Lab, tmp_path: Path) -> None:
    """/etc/passwd and /etc/group as links to the host's, to themselves, to /proc, a device, a huge file: read in the
    container's root, bounded, and never as what they are not.

    The defence: `read_file` in linux/inroot.py opens in the container's root, does not wait, takes regular files
    only, and stops after 4 MiB. A FIFO without O_NONBLOCK hangs here.
    """
    (tmp_path / "passwd").write_text("web:x:0:0::/:/bin/sh\n")
    passwd = lab.lower / "etc/passwd"
    for target in (
        str(tmp_path / "passwd"),
        "passwd",
        "/proc/self/mem",
        "/proc/kmsg",
        "../../../.." + str(tmp_path / "passwd"),
    ):
        passwd.unlink()
        passwd.symlink_to(target)
        done = lab.run("true", user="web")
        assert done.failure is not None, target
    passwd.unlink()
    os.mkfifo(passwd)
    assert lab.run("true", user="web").failure is not None
    passwd.unlink()
    os.mknod(passwd, 0o600 | 0o020000, os.makedev(1, 5))  # /dev/zero: without an end
    assert lab.run("true", user="web").failure is not None
    passwd.unlink()
    passwd.write_text("web:x:1000:1001::/:/bin/sh\n")
    os.truncate(passwd, 1 << 30)
    assert lab.run("sh", "-c", "id -u", user="web").out == "1000\n"


def test_a_passwd_file_that_another_container_feeds(lab: Lab, tmp_path: Path) -> None:
    """A FIFO in a shared volume over /etc, with somebody at its other end: who a user is would change with each look.

    The defence: `read_file` in linux/inroot.py takes regular files only.
    """
    (tmp_path / "etc").mkdir()
    os.mkfifo(tmp_path / "etc/passwd")
    feeding = os.open(tmp_path / "etc/passwd", os.O_RDWR)

    def change(spec: Spec) -> None:
        spec.mounts.append(Mount(destination="/etc", type="bind", source=str(tmp_path / "etc"), options=["rbind"]))

    try:
        os.write(feeding, b"web:x:0:0::/:/bin/sh\n" * 10)
        done = lab.run("id", "-u", user="web", change=change)
    finally:
        os.close(feeding)
    assert done.failure is not None
    assert "unable to find user web" in done.failure[2]
