"""What `--mount` and `-v` say of the mounts below a bind mount, with the real docker command."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from corten.linux.mount import MS_BIND, MS_PRIVATE, MS_SHARED, mount, umount2
from tests.compat.harness import Daemon, Outcome

TRY = "touch /v/x && echo top; test -e /v/below/here && echo seen; touch /v/below/x && echo below"


@pytest.fixture
def tree(daemon: Daemon, tmp_path: Path) -> Iterator[Path]:
    """A directory with another file system mounted below it."""
    below = tmp_path / "tree/below"
    below.mkdir(parents=True)
    mount("tmpfs", str(below), "tmpfs")
    try:
        (below / "here").touch()
        yield tmp_path / "tree"
    finally:
        umount2(str(below))


@pytest.mark.parametrize(
    ("words", "able"),
    [
        ("", "top seen below"),
        (",bind-recursive=enabled", "top seen below"),
        (",bind-recursive=disabled", "top below"),
        (",readonly", "seen"),
        (",readonly,bind-recursive=disabled", ""),
        (",readonly,bind-recursive=writable", "seen below"),
        (",readonly,bind-recursive=readonly,bind-propagation=rprivate", "seen"),
    ],
)
def test_bind_recursive(daemon: Daemon, tree: Path, words: str, able: str) -> None:
    done = daemon.docker("run", "--rm", "--mount", f"type=bind,src={tree},dst=/v{words}", "busybox", "sh", "-c", TRY)
    assert done.out.split() == able.split(), done.err


def test_a_readonly_volume_is_so_all_the_way_down(daemon: Daemon, tree: Path) -> None:
    done = daemon.docker("run", "--rm", "-v", f"{tree}:/v:ro", "busybox", "sh", "-c", TRY)
    assert done.out.split() == ["seen"], done.err


def test_a_directory_on_a_file_is_explained(daemon: Daemon, tree: Path) -> None:
    done = daemon.docker("run", "--rm", "-v", f"{tree}:/etc/passwd", "busybox", "true")
    assert done.code == 127
    assert "not a directory: Are you trying to mount a directory onto a file (or vice-versa)?" in done.err


@pytest.fixture
def private(tmp_path: Path) -> Iterator[Path]:
    """A mount from which nothing travels, with a directory in it."""
    top = tmp_path / "a private one"
    top.mkdir()
    mount("tmpfs", str(top), "tmpfs")
    try:
        mount("", str(top), flags=MS_PRIVATE)
        (top / "in").mkdir()
        yield top
    finally:
        umount2(str(top))


@pytest.mark.parametrize(
    ("mode", "what"),
    [("shared", "shared"), ("rshared", "shared"), ("slave", "shared or slave"), ("rslave", "shared or slave")],
)
def test_propagation_needs_a_source_that_propagates(daemon: Daemon, private: Path, mode: str, what: str) -> None:
    """Refused at start in Docker's words."""
    words = f"path {private}/in is mounted on {private} but it is not a {what} mount"
    by_mount = daemon.docker(
        "run", "--rm", "--mount", f"type=bind,src={private}/in,dst=/v,bind-propagation={mode}", "busybox", "true"
    )
    by_volume = daemon.docker("run", "--rm", "-v", f"{private}/in:/v:{mode}", "busybox", "true")
    for done in (by_mount, by_volume):
        assert done.code == 125
        assert words in done.err
    mount("", str(private), flags=MS_SHARED)
    daemon.ok("run", "--rm", "-v", f"{private}/in:/v:{mode}", "busybox", "true")


def test_ipc_modes(daemon: Daemon) -> None:
    """None has no shared memory; the host's comes without message queues where the host has mounted none."""
    shm = ["sh", "-c", "grep -c ' /dev/shm ' /proc/mounts; readlink /proc/self/ns/ipc; ls -d /dev/mqueue"]
    assert daemon.docker("run", "--rm", "--ipc", "none", "busybox", *shm).lines[0] == "0"
    count, namespace, queues = daemon.ok("run", "--rm", "--ipc", "host", "busybox", *shm).split()
    assert (count, queues) == ("1", "/dev/mqueue")
    assert namespace == os.readlink("/proc/self/ns/ipc")


def test_volume_subpath(daemon: Daemon) -> None:
    """A directory or a file of a volume; links are followed inside it alone, and nothing stays mounted on the host."""
    daemon.ok("volume", "create", "parts")
    fill = "mkdir -p /v/a/b && echo deep > /v/a/b/f && ln -s /a/b /v/in && ln -s ../../../../../../../etc /v/out"
    daemon.ok("run", "--rm", "-v", "parts:/v", "busybox", "sh", "-c", fill)

    def run(subpath: str, *command: str, dst: str = "/p", program: str = "docker") -> Outcome:
        words = f"type=volume,src=parts,dst={dst},volume-subpath={subpath}"
        call = daemon.docker if program == "docker" else daemon.corten
        return call("run", "--rm", "--mount", words, "busybox", *command)

    assert run("a/b", "sh", "-c", "cat /p/f; echo new > /p/g; ls /p").lines == ["deep", "f", "g"]
    assert run("a/b", "cat", "/p/g", program="corten").lines == ["new"]
    assert run("a/b/f", "cat", "/p/file", dst="/p/file").lines == ["deep"]
    assert run("in", "cat", "/p/f").lines == ["deep"]
    for subpath in ("out", "missing"):
        done = run(subpath, "true")
        assert done.code == 127  # what the docker command makes of these words
        assert f"/parts/_data/{subpath}: no such file or directory" in done.err
    for subpath in ("../x", "/a", "a/../.."):
        done = run(subpath, "true")
        assert done.code == 125
        assert "subpath must be a relative path within the volume" in done.err
    stopped = daemon.ok("create", "--mount", "type=volume,src=parts,dst=/p,volume-subpath=in", "busybox")
    assert daemon.docker("cp", f"{stopped}:/p/g", "-").out.find("new\n") > 0
    daemon.ok("rm", stopped)
    assert str(daemon.host.place / "run/mounts") not in Path("/proc/self/mountinfo").read_text()
    daemon.ok("volume", "rm", "parts")


def test_what_a_killed_daemon_left_mounted_is_unmounted(daemon: Daemon) -> None:
    data = Path(
        daemon.ok("volume", "create", "kept") and daemon.ok("volume", "inspect", "-f", "{{.Mountpoint}}", "kept")
    )
    (data / "f").write_text("safe")
    left = daemon.host.place / "run/mounts" / f"{'a' * 64}.0"
    left.mkdir(parents=True)
    mount(str(data), str(left), flags=MS_BIND)
    daemon.kill()
    daemon.start()
    assert not left.exists()
    assert (data / "f").read_text() == "safe"
    daemon.ok("volume", "rm", "kept")
