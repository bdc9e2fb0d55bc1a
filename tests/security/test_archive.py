"""Attacks on whoever copies files out of and into a container."""

from __future__ import annotations

import io
import json
import os
import socket
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.compat.harness import Daemon
from tests.compat.test_archive import packed, raw
from tests.waiting import patience, until

SECRET = b"the host's secret"
ROUNDS = 120


def world() -> str:
    return """
import json, os, sys, tempfile
from corten.storage.archiving import root
from corten.errors import SystemFault
def attempt(work):
    try:
        return str(work())
    except BaseException as error:
        return type(error).__name__ + " " + str(getattr(error, "errno", ""))
tree = root.enter(json.loads(sys.argv[1]), writable=sys.argv[2] == "w")
found = {
    "listing": sorted(os.listdir("/")),
    "host": attempt(lambda: os.listdir(sys.argv[3])),
    "up": sorted(os.listdir("/../../..")),
    "import": attempt(lambda: __import__("trap")),
    "codec": attempt(lambda: b"x".decode("idna")),
    "device": attempt(lambda: os.open("/device", os.O_RDONLY)),
    "execute": attempt(lambda: os.execv("/program", ["program"])),
    "write": attempt(lambda: os.open("/new", os.O_WRONLY | os.O_CREAT, 0o600)),
    "mount": attempt(lambda: root.mount("tmpfs", "/", "tmpfs")),
    "status": open("/proc/self/status").read() if os.path.exists("/proc/self") else "",
}
print(json.dumps(found))
"""


@pytest.mark.parametrize("mode", ["r", "w"])
def test_a_worker_sees_nothing_but_the_container(tmp_path: Path, mode: str) -> None:
    """CVE-2018-15664, CVE-2019-14271. The defence: `storage.archiving.root.enter`, whose mount namespace holds the
    container's tree alone, without devices and programs, and `seal_imports`.
    """
    tree = tmp_path / "tree"
    library = tree / os.path.relpath(os.path.dirname(os.__file__), "/")
    for place in (tree, library):
        place.mkdir(parents=True, exist_ok=True)
        (place / "trap.py").write_text("open('/sprung', 'w')\n")
    (library / "encodings").mkdir()
    (library / "encodings" / "idna.py").write_text("open('/sprung', 'w')\n")
    os.mknod(tree / "device", 0o20666, os.makedev(1, 5))
    (tree / "program").write_bytes(Path("/bin/busybox").read_bytes())
    (tree / "program").chmod(0o755)
    (tmp_path / "secret").write_bytes(SECRET)
    view = json.dumps({"bind": str(tree), "mounts": [], "readonly": False})
    done = subprocess.run(
        [sys.executable, "-I", "-c", world(), view, mode, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=patience(30),
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert set(found["listing"]) >= {"device", "program", "trap.py"}
    assert found["up"] == found["listing"]
    assert found["host"].startswith("FileNotFoundError")
    assert found["import"].startswith("ModuleNotFoundError")
    assert found["codec"].startswith("LookupError")
    assert found["device"].startswith("PermissionError")
    assert found["execute"].startswith("PermissionError")
    assert found["mount"].startswith("PermissionError")
    assert found["write"].isdecimal() if mode == "w" else found["write"].startswith("OSError 30")
    assert found["status"] == ""
    assert not (tree / "sprung").exists()


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    place = tmp_path / "victim"
    place.mkdir()
    (place / "secret").write_bytes(SECRET)
    return place


@contextmanager
def swapper(daemon: Daemon, victim: Path, *options: str) -> Iterator[str]:
    """A container in which /w/x is in turn a directory and a link to the host's `victim`, as fast as it can."""
    script = (
        f"mkdir -p /w/x; echo own > /w/x/secret; ln -s {victim} /w/l; cd /w; echo ready;"
        " while :; do mv -T x t; mv -T l x; mv -T x l; mv -T t x; done"
    )
    daemon.ok("run", "-d", "--name", "swapper", "--network", "none", *options, "busybox", "sh", "-c", script)
    until(lambda: "ready" in daemon.ok("logs", "swapper"), what="the first swap")
    yield "swapper"
    daemon.ok("rm", "-f", "swapper")


@pytest.mark.parametrize("options", [(), ("-v", "/w")])
def test_links_that_are_swapped_while_files_come_out(daemon: Daemon, victim: Path, options: tuple[str, ...]) -> None:
    """CVE-2018-15664. The defence: the worker's root is the container's (`root.enter`): an absolute link leads to the
    container's own file of that name.
    """
    with swapper(daemon, victim, *options) as name:
        answers = set()
        for number in range(ROUNDS):
            path = ("/w/x/secret", "/w/x", "/w")[number % 3]
            status, _, body = raw(daemon, f"GET /containers/{name}/archive?path={path}")
            answers.add(status)
            assert SECRET not in body
        assert 200 in answers
        assert answers <= {200, 404, 400}


@pytest.mark.parametrize("options", [(), ("-v", "/w")])
def test_links_that_are_swapped_while_files_go_in(daemon: Daemon, victim: Path, options: tuple[str, ...]) -> None:
    """CVE-2018-15664, the other way. The defence is the same."""
    with swapper(daemon, victim, *options) as name:
        answers = set()
        for number in range(ROUNDS):
            path = ("/w/x", "/w")[number % 2]
            body = packed(**{("planted" if path == "/w/x" else "x/planted"): b"planted", "more": b""})
            answers.add(raw(daemon, f"PUT /containers/{name}/archive?path={path}", body)[0])
        assert 200 in answers
    assert sorted(os.listdir(victim)) == ["secret"]
    assert (victim / "secret").read_bytes() == SECRET


def test_links_to_files_of_the_kernel(daemon: Daemon, tmp_path: Path) -> None:
    """A link in the container leads the worker, which may do more than the container, into /proc or /sys. The defence:
    `_drop_kernel_file_systems`.
    """
    script = "ln -s /proc/sys/kernel /a; ln -s /sys/kernel /b; ln -s /proc/self/root /c; echo ready; exec sleep 1000"
    daemon.ok("run", "-d", "--name", "box", "--network", "none", "busybox", "sh", "-c", script)
    until(lambda: "ready" in daemon.ok("logs", "box"), what="the links")
    for path in ("/a", "/b", "/c", "/proc/sys/kernel", "/sys/kernel"):
        assert raw(daemon, f"PUT /containers/box/archive?path={path}", packed(core_pattern=b"|/x"))[0] == 404
    for path in ("/a/core_pattern", "/c/etc/passwd", "/proc/kcore"):
        assert raw(daemon, f"GET /containers/box/archive?path={path}")[0] == 404


def test_an_archive_that_climbs_out(daemon: Daemon, victim: Path) -> None:
    """Names with `..`, and links that the archive itself brings. The defence: `clean`, and the worker's root."""
    daemon.ok("run", "-d", "--name", "box", "--network", "none", "busybox", "sleep", "1000")
    climbing = packed(**{"../" * 12 + str(victim)[1:] + "/planted": b"x"})
    assert raw(daemon, "PUT /containers/box/archive?path=/tmp", climbing)[0] == 400
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.SYMTYPE, str(victim)
        tar.addfile(link)
        tar.addfile(tarfile.TarInfo("link/planted"))
    raw(daemon, "PUT /containers/box/archive?path=/tmp", out.getvalue())
    assert os.listdir(victim) == ["secret"]


def test_what_a_worker_may_do(daemon: Daemon) -> None:
    """The defence: `_drop_privileges`, and the attributes of the mounts in `enter`."""
    daemon.ok("run", "-d", "--name", "box", "--network", "none", "-v", "/volume", "busybox", "sleep", "1000")
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(daemon.socket))
        sock.sendall(b"GET /containers/box/archive?path=/ HTTP/1.1\r\nHost: d\r\n\r\n")
        assert sock.recv(100)
        until(lambda: worker_of("box", daemon) is not None, what="a worker that waits for its reader")
        worker = worker_of("box", daemon)
        assert worker is not None
        status = (worker / "status").read_text()
        assert int(status.partition("CapEff:\t")[2][:16], 16) & ~0x8800001F == 0
        assert "NoNewPrivs:\t1\n" in status
        mounts = (worker / "mountinfo").read_text().splitlines()
        assert len(mounts) > 2
        for line in mounts:
            assert set(line.split()[5].split(",")) >= {"ro", "nosuid", "nodev", "noexec"}
            assert line.partition(" - ")[2].split()[0] in ("overlay", "tmpfs", "ext4", "xfs", "btrfs")


def worker_of(name: str, daemon: Daemon) -> Path | None:
    """The process whose root is the container's, other than the container's own."""
    inside = os.stat(f"/proc/{daemon.inspect(name)['State']['Pid']}/root/.")
    for process in Path("/proc").iterdir():
        try:
            if process.name.isdecimal() and b"archiving.server" in (process / "cmdline").read_bytes():
                root = os.stat(process / "root/.")
                if (root.st_dev, root.st_ino) == (inside.st_dev, inside.st_ino):
                    return process
        except OSError:
            continue
    return None
