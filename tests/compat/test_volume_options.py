"""Volumes that mount something: with the real docker command, over restarts and crashes of the daemon."""

from __future__ import annotations

from pathlib import Path

from tests.compat.harness import Daemon
from tests.compat.test_stalled_copies import stalled
from tests.waiting import until


def mounts_of(daemon: Daemon, name: str) -> list[str]:
    """What is mounted at a volume on the host, as file system types."""
    place = f"/volumes/{name}/_data"
    table = [line.split(" ") for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    here = [words for words in table if words[4] == f"{daemon.host.place}/data{place}"]
    return [words[words.index("-") + 1] for words in here]


def test_a_tmpfs_is_there_while_somebody_uses_it(daemon: Daemon) -> None:
    made = daemon.ok("volume", "create", "-o", "type=tmpfs", "-o", "device=tmpfs", "-o", "o=size=1m,mode=1700", "mem")
    assert made == "mem"
    assert daemon.ok("volume", "inspect", "-f", "{{.Options.o}}", "mem") == "size=1m,mode=1700"
    assert mounts_of(daemon, "mem") == []
    show = "stat -c %a /v; grep -c ' /v tmpfs rw.*size=1024k' /proc/mounts"
    assert daemon.ok("run", "--rm", "-v", "mem:/v", "busybox", "sh", "-c", show).split() == ["1700", "1"]
    assert mounts_of(daemon, "mem") == []
    for name in ("first", "second"):
        daemon.ok("run", "-d", "--name", name, "-v", "mem:/v", "busybox", "sleep", "1000")
    daemon.ok("exec", "first", "touch", "/v/x")
    assert daemon.ok("exec", "second", "ls", "/v") == "x"
    daemon.ok("rm", "-f", "first")
    daemon.kill()
    daemon.start()
    assert mounts_of(daemon, "mem") == ["tmpfs"]
    daemon.ok("run", "--rm", "-v", "mem:/v", "busybox", "ls", "/v/x")
    assert mounts_of(daemon, "mem") == ["tmpfs"]
    daemon.ok("rm", "-f", "second")
    assert mounts_of(daemon, "mem") == []
    daemon.ok("volume", "rm", "mem")


def test_what_ends_while_no_daemon_runs_is_unmounted_by_the_next(daemon: Daemon) -> None:
    words = "type=volume,src=gone,dst=/v,volume-opt=type=tmpfs,volume-opt=device=tmpfs"
    daemon.ok("run", "-d", "--name", "short", "--mount", words, "busybox", "sleep", "1000")
    pid = daemon.inspect("short")["State"]["Pid"]
    assert mounts_of(daemon, "gone") == ["tmpfs"]
    daemon.kill()
    Path(f"/proc/{pid}/root/v/ended").touch()
    daemon.host.run("kill", "-9", str(pid))
    daemon.start()
    assert daemon.ok("wait", "short") == "137"
    assert mounts_of(daemon, "gone") == []
    daemon.ok("rm", "short")
    daemon.ok("volume", "rm", "gone")


def test_a_directory_of_the_host(daemon: Daemon, tmp_path: Path) -> None:
    """It takes what the image has there, and nothing of it goes with the volume."""
    words = ("-o", "type=none", "-o", "o=bind", "-o", f"device={tmp_path}")
    daemon.ok("volume", "create", *words, "dir")
    daemon.ok("run", "--rm", "-v", "dir:/etc", "busybox", "touch", "/etc/made")
    assert {"made", "passwd"} <= {path.name for path in tmp_path.iterdir()}
    daemon.ok("volume", "create", "-o", "type=none", "-o", "o=bind,ro", "-o", f"device={tmp_path}", "ro")
    refused = daemon.docker("run", "--rm", "-v", "ro:/v:nocopy", "busybox", "touch", "/v/x")
    assert "Read-only file system" in refused.err
    daemon.ok("volume", "rm", "dir", "ro")
    assert (tmp_path / "made").exists()


def test_refusals(daemon: Daemon) -> None:
    done = daemon.docker("volume", "create", "-o", "type=tmpfs", "bad")
    assert 'missing required option: "device"' in done.err
    done = daemon.docker("volume", "create", "-o", "bogus=x", "bad")
    assert 'invalid option: "bogus"' in done.err
    daemon.ok("volume", "create", "-o", "type=none", "-o", "o=bind", "-o", "device=/no/such/place", "bad")
    done = daemon.docker("run", "--rm", "-v", "bad:/v:nocopy", "busybox", "true")
    assert done.code != 0
    assert "failed to mount local volume: mount /no/such/place:" in done.err
    assert "flags: 0x1000: no such file or directory" in done.err
    daemon.ok("volume", "rm", "bad")


def test_copies_of_a_stopped_container_see_what_is_mounted(daemon: Daemon, tmp_path: Path) -> None:
    (tmp_path / "theirs").write_text("theirs\n")
    daemon.ok("volume", "create", "-o", "type=none", "-o", "o=bind", "-o", f"device={tmp_path}", "dir")
    daemon.ok("volume", "create", "-o", "type=tmpfs", "-o", "device=tmpfs", "mem")
    daemon.ok("volume", "create", "-o", "type=none", "-o", "o=bind", "-o", "device=/no/such/place", "bad")
    daemon.ok("create", "--name", "box", "-v", "dir:/d:nocopy", "-v", "mem:/m:nocopy", "busybox", "sleep", "1000")
    assert "theirs" in daemon.ok("cp", "box:/d/theirs", "-")
    daemon.ok("cp", str(tmp_path / "theirs"), "box:/d/new")
    assert (tmp_path / "new").read_text() == "theirs\n"
    daemon.ok("cp", str(tmp_path / "theirs"), "box:/m/new")  # goes again with the mount, as with Docker
    assert "Could not find the file /m/new" in daemon.docker("cp", "box:/m/new", "-").err
    assert not list((daemon.host.place / "data/volumes/mem/_data").iterdir())
    assert (mounts_of(daemon, "dir"), mounts_of(daemon, "mem")) == ([], [])
    daemon.ok("run", "-d", "--name", "other", "-v", "mem:/m", "busybox", "touch", "/m/x")
    daemon.ok("rm", "-f", "box", "other")
    daemon.ok("create", "--name", "box", "-v", "bad:/b:nocopy", "busybox", "true")
    refused = daemon.docker("cp", "box:/b", "-")
    assert "failed to mount local volume: mount /no/such/place:" in refused.err
    daemon.ok("rm", "box")
    daemon.ok("volume", "rm", "dir", "mem", "bad")


def test_a_copy_that_a_crash_cuts_off_leaves_nothing_mounted(daemon: Daemon) -> None:
    daemon.ok("volume", "create", "-o", "type=tmpfs", "-o", "device=tmpfs", "mem")
    daemon.ok("create", "--name", "box", "-v", "mem:/m:nocopy", "busybox", "true")
    with stalled(daemon, "PUT /containers/box/archive?path=/m", length=10_000):
        until(lambda: mounts_of(daemon, "mem") == ["tmpfs"], what="the volume")
        daemon.kill()
    daemon.start()
    assert mounts_of(daemon, "mem") == []
    daemon.ok("rm", "box")
    daemon.ok("volume", "rm", "mem")
