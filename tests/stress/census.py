"""What of a daemon exists on the machine, counted from outside: to compare before and after."""

from __future__ import annotations

import os
import re
from collections import Counter
from dataclasses import dataclass, fields
from pathlib import Path

from tests.compat.harness import Daemon

CGROUPS = Path("/sys/fs/cgroup")
VOLATILE = re.compile(r"\.sock$|-wal$|-shm$|(^|/)log$|/exec-ids$")


@dataclass(frozen=True)
class Census:
    """Each kind by itself, so that a difference names what leaks."""

    mounts: tuple[str, ...]
    namespaces: tuple[str, ...]
    links: tuple[str, ...]
    rules: tuple[str, ...]
    groups: tuple[str, ...]
    processes: Counter[str]
    descriptors: Counter[str]
    files: tuple[str, ...]

    def grown(self, before: Census) -> dict[str, object]:
        """What is there now and was not before, by kind."""
        found: dict[str, object] = {}
        for kind in (field.name for field in fields(self)):
            more = Counter(getattr(self, kind))
            more.subtract(Counter(getattr(before, kind)))
            if extra := {name: number for name, number in more.items() if number > 0}:
                found[kind] = extra
        return found


def census(daemon: Daemon, known: frozenset[str] = frozenset()) -> Census:
    """Count. `known` are ids of containers that the caller made, whose control groups are looked for."""
    assert daemon.process is not None
    place = str(daemon.host.place)
    mounts = Path(f"/proc/{daemon.process.pid}/mountinfo").read_text().splitlines()
    links = daemon.host.run("ip", "-br", "link").lines
    rules = daemon.host.run("nft", "-s", "list", "ruleset").lines
    return Census(
        mounts=tuple(sorted(line.split()[4] for line in mounts if place in line)),
        namespaces=_names(daemon.host.place / "run/netns"),
        links=tuple(sorted(line.split("@")[0].split()[0] for line in links)),
        rules=tuple(sorted(rules)),
        groups=tuple(sorted(path.name for path in CGROUPS.glob("*/corten/*") if path.name in known)),
        processes=Counter(daemon.host.processes().values()),
        descriptors=Counter(_descriptors(daemon.process.pid)),
        files=_files(daemon.host.place),
    )


def _names(directory: Path) -> tuple[str, ...]:
    return tuple(sorted(path.name for path in directory.iterdir())) if directory.is_dir() else ()


def _descriptors(pid: int) -> list[str]:
    """What each descriptor leads to, without the numbers of inodes and connections."""
    found = []
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        try:
            found.append(re.sub(r"\[\d+\]", "", os.readlink(entry)))
        except OSError:
            continue
    return found


def _files(place: Path) -> tuple[str, ...]:
    found = []
    for directory, names, files in os.walk(place):
        if "/diff" in directory or directory.endswith("/fs"):
            names.clear()
            continue
        relative = os.path.relpath(directory, place)
        found.append(relative)
        found += [path for name in files if not VOLATILE.search(path := f"{relative}/{name}")]
    return tuple(sorted(found))


def memory(pid: int) -> int:
    """Proportional set size of a process, bytes."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    raise AssertionError(f"{pid} has no memory")
