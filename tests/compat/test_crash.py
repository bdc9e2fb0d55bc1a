"""The daemon is killed at random moments of pull, create, start and remove; nothing may be lost, leaked or stuck."""

from __future__ import annotations

import os
import random
import subprocess
import time
from pathlib import Path

import pytest

from tests.compat.harness import Daemon
from tests.compat.registry import Registry
from tests.waiting import until

ROUNDS = int(os.environ.get("CORTEN_CRASH_ROUNDS", "100"))
SEED = int(os.environ.get("CORTEN_CRASH_SEED", "20261124"))


def bodies(daemon: Daemon, registry: Registry) -> list[list[str]]:
    return [
        ["pull", "-q", registry.image],
        ["run", "--rm", "busybox", "true"],
        ["run", "-d", "--name", "c{n}", "-p", "0:80", "busybox", "sleep", "1000"],
        ["create", "--name", "d{n}", "busybox"],
        ["rm", "-f", "c{n}"],
        ["rmi", "-f", registry.image],
    ]


def leftovers(daemon: Daemon) -> dict[str, object]:
    """What is on the host for containers that do not exist, by kind."""
    known = set(daemon.ok("ps", "-aq", "--no-trunc").split())
    running = set(daemon.ok("ps", "-q", "--no-trunc").split())
    run = daemon.host.place / "run"
    namespaces = {path.name for path in (run / "netns").iterdir()} if (run / "netns").is_dir() else set()
    directories = {path.name for path in (daemon.host.place / "data/containers").iterdir()}
    veths = daemon.host.run("ip", "-br", "link", "show", "type", "veth").lines
    return {
        "namespaces": {name for name in namespaces if len(name) == 64} - running,
        "directories": directories - known,
        "veths": veths if len(veths) > len(running) else [],
        "trash": list((daemon.host.place / "data").glob("**/ingest/*")) if not known else [],
    }


@pytest.mark.slow
def test_random_kills(own_daemon: Daemon) -> None:
    daemon, rng = own_daemon, random.Random(SEED)
    with Registry(daemon) as registry:
        kept: set[str] = set()  # ids that a command reported: these must not be lost
        for n in range(ROUNDS):
            command = [word.format(n=n // 6) for word in bodies(daemon, registry)[n % 6]]
            environment = {**os.environ, "DOCKER_HOST": daemon.url, "DOCKER_CONFIG": str(daemon.host.place / "dc")}
            with subprocess.Popen(
                daemon.host.inside("docker", *command),
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=environment,
            ) as client:
                deadline = time.monotonic() + rng.uniform(0, 0.25)
                until(lambda: time.monotonic() >= deadline or client.poll() is not None)  # noqa: B023 - used at once
                daemon.kill()
                out = client.communicate(timeout=30)[0].decode().strip()
            if client.returncode == 0 and command[0] in ("create", "run") and "--rm" not in command:
                kept.add(out)
            if command[0] == "rm":
                kept = {id for id in kept if not id.startswith(out)} if client.returncode == 0 else kept
            daemon.start()
            if command[0] == "rm":
                known = set(daemon.ok("ps", "-aq", "--no-trunc").split())
                kept &= known  # an rm that was cut off may have done its work or not
            assert kept <= set(daemon.ok("ps", "-aq", "--no-trunc").split()), (n, command)
            assert daemon.ok("run", "--rm", "busybox", "echo", "ok", timeout=30) == "ok", (n, command)
        daemon.ok("pull", "-q", registry.image)
        assert daemon.ok("run", "--rm", registry.image, "echo", "whole") == "whole"
    left: dict[str, object] = {}

    def clean() -> bool:
        left.update(leftovers(daemon))
        return not any(left.values())

    try:
        until(clean)
    except AssertionError:
        raise AssertionError(f"left over: {left}") from None
    if ids := daemon.ok("ps", "-aq").split():
        daemon.ok("rm", "-f", *ids)
    cgroups = [path for path in Path("/sys/fs/cgroup").glob("*/corten/*") if path.is_dir() and path.name in kept]
    assert not cgroups
