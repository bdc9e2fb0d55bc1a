"""containerd, with its own shim, calls corten-runtime as it would call runc."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from corten.runtime.cgroups import Cgroup
from tests import foreign
from tests.compat.harness import Outcome
from tests.kernel.boxes import make_root
from tests.waiting import patience, until

NAMESPACE = "corten-test"
FOREVER = "while :; do /bin/sleep 0.1; done"

CONFIG = """version = 2
root = "{place}/root"
state = "{place}/state"
imports = []
disabled_plugins = [
  "io.containerd.grpc.v1.cri", "io.containerd.internal.v1.opt", "io.containerd.snapshotter.v1.aufs",
  "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs",
]
[grpc]
  address = "{place}/c.sock"
"""


class Containerd:
    """One daemon with its directories; `ctr` is its own client."""

    def __init__(self, place: Path) -> None:
        self.place, self.runtime = place, foreign.program("corten-runtime", place)
        make_root(place / "rootfs")
        (place / "config.toml").write_text(CONFIG.format(place=place))
        with open(place / "log", "wb") as log:
            self.process = subprocess.Popen(["containerd", "-c", str(place / "config.toml")], stdout=log, stderr=log)
        until(lambda: self.ctr("version").code == 0, what="containerd's first answer")

    def ctr(self, *words: str) -> Outcome:
        command = ["ctr", "-a", str(self.place / "c.sock"), "-n", NAMESPACE, *words]
        done = subprocess.run(command, capture_output=True, text=True, timeout=patience(60), check=False)
        return Outcome(done.returncode, done.stdout, done.stderr)

    def run(self, *words: str, options: tuple[str, ...] = ()) -> Outcome:
        places = ("--runc-root", str(self.place / "runtime"), "--fifo-dir", str(self.place / "fifo"))
        given = ("--runc-binary", self.runtime, *places, *options, "--rootfs", str(self.place / "rootfs"))
        return self.ctr("run", *given, *words)

    def status(self, name: str) -> str:
        lines = [line.split() for line in self.ctr("tasks", "ls").lines]
        return next((fields[2] for fields in lines if fields[0] == name), "")

    def close(self) -> None:
        self.process.terminate()
        self.process.wait(patience(30))


# Where its shims have their sockets, whatever the configuration says.
SOCKETS = Path("/run/containerd/s")


@pytest.fixture
def containerd() -> Iterator[Containerd]:
    made_by_us = [path for path in (SOCKETS, SOCKETS.parent) if not path.exists()]
    with tempfile.TemporaryDirectory(prefix="corten-ctd-", dir="/var/tmp") as place:
        made = Containerd(Path(place))
        try:
            yield made
            assert made.ctr("containers", "ls", "-q").out == ""
        finally:
            for name in made.ctr("containers", "ls", "-q").lines:
                made.ctr("tasks", "rm", "--force", name)
                made.ctr("containers", "rm", name)
            made.close()
            for path in made_by_us:
                with suppress(OSError):
                    path.rmdir()
            Cgroup(f"/{NAMESPACE}").remove()


def test_containerd_calls_corten_runtime(containerd: Containerd) -> None:
    c = containerd
    assert c.run("a", "/bin/echo", "hello", options=("--rm",)).out == "hello\n"
    assert c.run("b", "/bin/sh", "-c", "exit 5", options=("--rm",)).code == 5
    missing = c.run("m", "/no/such", options=("--rm",))
    assert (missing.code, '"/no/such": stat /no/such: no such file' in missing.err) == (1, True), missing.err
    started = c.run("box", "/bin/sh", "-c", FOREVER, options=("--detach", "--memory-limit", str(64 << 20)))
    assert started.code == 0, started.err
    assert c.status("box") == "RUNNING"
    assert c.ctr("tasks", "exec", "--exec-id", "x", "box", "/bin/echo", "inside").out == "inside\n"
    assert c.ctr("tasks", "exec", "--exec-id", "y", "box", "/bin/sh", "-c", "exit 9").code == 9
    assert c.ctr("tasks", "pause", "box").code == 0
    assert c.status("box") == "PAUSED"
    assert c.ctr("tasks", "resume", "box").code == 0
    assert str(64 << 20) in c.ctr("tasks", "metrics", "box").out
    assert len(c.ctr("tasks", "ps", "box").lines) >= 2
    assert c.ctr("tasks", "kill", "--signal", "SIGKILL", "box").code == 0
    until(lambda: c.status("box") == "STOPPED", what="the end of the task")
    assert "exit code 137" in c.ctr("tasks", "rm", "box").err
    assert c.ctr("containers", "rm", "box").code == 0
