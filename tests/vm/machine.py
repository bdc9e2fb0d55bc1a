"""The machine that `scripts/test-vm` boots, as its tests see it."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

from tests.compat.harness import Daemon, Host

ROOT = Path("/sys/fs/cgroup")


class Machine(Host):
    """The whole machine is ours: no network namespace around the daemon."""

    def __init__(self) -> None:
        self.place = Path("/var/tmp/corten-vm")
        self.place.mkdir()

    def inside(self, *command: str) -> list[str]:
        return list(command)

    def close(self) -> None:
        subprocess.run(["rm", "-r", str(self.place)], check=True)


def residue() -> dict[str, Any]:
    """What a daemon could leave behind."""
    names = [line.split(": ")[1].split("@")[0] for line in output("ip", "-o", "link").splitlines()]
    mounts = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    mounts = [place for place in mounts if place != "/run/netns"]  # made for good by the first `ip netns add` of a test
    # Units of the system come and go as the bus asks for them; what is ours is neither of these.
    groups = sorted(str(path) for path in ROOT.rglob("*") if path.is_dir() and not _of_system(path))
    return {"links": names, "mounts": mounts, "groups": groups, "rules": output("nft", "list", "ruleset")}


def _of_system(group: Path) -> bool:
    return group.name == "user.slice" or ".service" in str(group) or group.suffix in (".mount", ".swap")


def output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def group_of(daemon: Daemon, ref: str) -> Path:
    pid = daemon.inspect(ref)["State"]["Pid"]
    return ROOT / Path(f"/proc/{pid}/cgroup").read_text().strip().removeprefix("0::/")


def started(daemon: Daemon, *options: str, command: tuple[str, ...] = ("sleep", "1000")) -> Path:
    """The control group of a new container named `box`."""
    daemon.ok("run", "-d", "--name", "box", *options, "busybox", *command)
    return group_of(daemon, "box")


def text(path: Path) -> str:
    return path.read_text().strip()
