"""A daemon with `--userns-remap` and account files of its own, so that the host's are not touched."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.compat.harness import Daemon, Host, busybox_tar

# A layer over /etc, in a mount namespace that lasts as long as its input.
SCRIPT = "mount -t overlay overlay -o lowerdir=/etc,upperdir=$1/etc,workdir=$1/etc-work /etc && echo ready && exec cat"


def _without_dockremap() -> dict[str, str]:
    """The host's account files where they have the user that `default` makes, without it."""
    found = {}
    for name in ("passwd", "group", "subuid", "subgid"):
        with contextlib.suppress(FileNotFoundError):
            lines = (Path("/etc") / name).read_text().splitlines(keepends=True)
            if any(line.startswith("dockremap:") for line in lines):
                found[name] = "".join(line for line in lines if not line.startswith("dockremap:"))
    return found


@dataclass
class RemappedDaemon(Daemon):
    """As Daemon. `etc` are files below /etc and what they hold, beside what the host has."""

    etc: dict[str, str] = field(default_factory=dict)
    holder: subprocess.Popen[str] | None = None

    def open(self) -> None:
        """Make the place where all its starts take place."""
        place = self.host.place
        place.chmod(0o711)  # others than root have to get to where the containers are
        for name in ("etc", "etc-work"):
            (place / name).mkdir()
        for name, text in {**_without_dockremap(), **self.etc}.items():
            (place / "etc" / name).write_text(text)
        self.holder = subprocess.Popen(
            ["unshare", "-m", "--propagation", "private", "sh", "-c", SCRIPT, "sh", str(place)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.holder.stdout is not None
        assert self.holder.stdout.readline() == "ready\n"

    def inside(self, *command: str) -> list[str]:
        assert self.holder is not None
        return ["nsenter", f"--mount=/proc/{self.holder.pid}/ns/mnt", *command]

    def command(self) -> list[str]:
        return self.inside(*super().command())

    def close(self) -> None:
        try:
            self.stop()
            clean_up = [sys.executable, "-m", "corten.daemon.main", "--cleanup", *self.roots]
            done = self.host.run(*self.inside(*clean_up))
            assert done.code == 0, done.err + self.log()
        finally:
            self.leave()

    def leave(self) -> None:
        if self.holder is not None:
            self.holder.communicate()

    def ranges(self, user: str = "dockremap") -> tuple[int, int]:
        """The first subordinate uid and gid of a user."""
        found = []
        for name in ("subuid", "subgid"):
            lines = (self.host.place / "etc" / name).read_text().splitlines()
            found.append(next(int(line.split(":")[1]) for line in lines if line.startswith(user + ":")))
        return found[0], found[1]

    def made(self, path: str) -> os.stat_result:
        """The status of a file that one container has made, in its layer on disk."""
        found = list((self.host.place / "data/snapshots").glob(f"*/fs/{path}"))
        assert len(found) == 1, found
        return found[0].lstat()

    def root_of(self, name: str) -> tuple[int, int]:
        """uid and gid on the host of a container's first process."""
        status = os.stat(f"/proc/{self.inspect(name)['State']['Pid']}")
        return status.st_uid, status.st_gid

    def info(self) -> dict[str, Any]:
        told: dict[str, Any] = json.loads(self.ok("info", "--format", "{{json .}}"))
        return told


@contextlib.contextmanager
def remapped_daemon(*args: str, etc: dict[str, str] | None = None) -> Iterator[RemappedDaemon]:
    """Running, with the image `busybox:latest`."""
    host = Host()
    daemon = RemappedDaemon(host, list(args), etc=etc or {})
    try:
        daemon.open()
        daemon.start()
        daemon.ok("import", "-c", 'CMD ["sh"]', str(busybox_tar(host.place / "busybox.tar")), "busybox:latest")
        yield daemon
    finally:
        daemon.close()
        host.close()


def private_folder(place: Path, name: str) -> Path:
    """A folder of the host's root that nobody else may look into, with a file in it."""
    folder = place / name
    folder.mkdir(mode=0o700)
    (folder / "secret").write_text("secret\n")
    (folder / "secret").chmod(0o600)
    return folder


@contextlib.contextmanager
def place_of_a_daemon(*args: str, etc: dict[str, str] | None = None) -> Iterator[RemappedDaemon]:
    """One that is not started."""
    host = Host()
    daemon = RemappedDaemon(host, list(args), etc=etc or {})
    try:
        daemon.open()
        yield daemon
    finally:
        daemon.leave()
        host.close()
