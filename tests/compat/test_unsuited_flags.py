"""Flags that do not suit the host, with the real docker command: refused as Docker does, or discarded with a word."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest

from tests.compat.harness import Daemon

RUN = ("run", "--rm")


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--isolation", "hyperv"], "invalid isolation: \"hyperv\" - linux only supports 'default'"),
        (["--gpus", "all"], 'could not select device driver "" with capabilities: [[gpu]]'),
        (["--device", "vendor.com/class=x"], 'could not select device driver "cdi"'),
        (["--storage-opt", "foo=1"], "Unknown option foo"),
        (["--cpu-rt-runtime", "3000", "--cpu-rt-period", "2000"], "real-time"),
    ],
)
def test_refused(daemon: Daemon, flags: list[str], words: str) -> None:
    outcome = daemon.docker(*RUN, *flags, "busybox", "true")
    assert outcome.code == 125
    assert words in outcome.err


def test_dockers_runtime_is_the_embedded_one(daemon: Daemon) -> None:
    outcome = daemon.docker("run", "--name", "named", "--runtime", "runc", "busybox", "echo", "ran")
    assert (outcome.code, outcome.out) == (0, "ran\n")
    assert "WARNING: No runtime runc is configured" in outcome.err
    assert daemon.inspect("named")["HostConfig"]["Runtime"] == "corten"


def test_kernel_memory_and_weights_of_disks_are_discarded(daemon: Daemon) -> None:
    # The docker command of today does not send it any more.
    body = {"Image": "busybox", "HostConfig": {"KernelMemory": 50 << 20}}
    assert "Your kernel does not support kernel memory limit" in daemon.curl("/containers/create", "POST", body).out
    ours = daemon.corten("create", "--kernel-memory", "50m", "busybox")
    assert (ours.code, "Your kernel does not support kernel memory limit" in ours.err) == (0, True)
    disks = [path for path in Path("/dev").iterdir() if path.is_block_device()]
    schedulers = {path: Path(f"/sys/class/block/{path.name}/queue/scheduler") for path in disks}
    plain = next((path for path, file in schedulers.items() if file.exists() and "[bfq]" not in file.read_text()), None)
    if plain is not None and Path("/sys/fs/cgroup/blkio").is_dir():
        outcome = daemon.docker(*RUN, "--blkio-weight-device", f"{plain}:200", "busybox", "true")
        assert outcome.code == 0
        assert "Weight-device discarded." in outcome.err


def test_a_ulimit_above_the_daemons(daemon: Daemon) -> None:
    own = resource.getrlimit(resource.RLIMIT_MEMLOCK)[1]
    masks = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("CapPrm")]
    outcome = daemon.docker(*RUN, "--ulimit", "memlock=-1", "busybox", "sh", "-c", "ulimit -H -l")
    assert outcome.code == 0
    if int(masks[0].split()[1], 16) >> 24 & 1 or own == resource.RLIM_INFINITY:
        assert outcome.out == "unlimited\n"
    else:
        assert f"WARNING: The daemon may not raise the hard limit of memlock above its own: containers get {own}" in (
            outcome.err
        )
        assert outcome.out == f"{own // 1024}\n"


def test_a_container_without_a_network(daemon: Daemon) -> None:
    body = {"Image": "busybox", "Cmd": ["ls", "/sys/class/net"], "NetworkDisabled": True}
    assert daemon.curl("/containers/create?name=alone", "POST", body).code == 201
    assert daemon.ok("start", "-a", "alone") == "lo"


def test_update_says_what_it_cannot_change(daemon: Daemon) -> None:
    daemon.ok("create", "--name", "fixed", "busybox")
    answer = daemon.curl("/containers/fixed/update", "POST", {"OomKillDisable": True})
    assert "--oom-kill-disable cannot be changed on an existing container" in answer.out
    refused = daemon.docker("update", "--cpu-rt-runtime", "3000", "--cpu-rt-period", "2000", "fixed")
    assert refused.code == 1
    assert "real-time" in refused.err
    assert daemon.inspect("fixed")["HostConfig"]["CpuRealtimeRuntime"] == 0


def test_a_limit_of_the_layer_needs_project_quotas(daemon: Daemon) -> None:
    outcome = daemon.docker("create", "--storage-opt", "size=1G", "busybox")
    told = "--storage-opt is supported only for overlay over xfs with 'pquota' mount option"
    assert outcome.err.strip() == f"Error response from daemon: {told}"


def test_cgroup_means_nothing_as_with_docker(daemon: Daemon) -> None:
    body = {"Image": "busybox", "Cmd": ["true"], "HostConfig": {"Cgroup": "container:x"}}
    assert daemon.curl("/containers/create?name=grouped", "POST", body).code == 201
    daemon.ok("start", "-a", "grouped")
    assert daemon.inspect("grouped")["HostConfig"]["Cgroup"] == "container:x"
