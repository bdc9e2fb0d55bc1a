"""Flags that this host or any host of its kind cannot serve: refused, or discarded and said so."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from corten.engine.containers import defaults, mountspec, storageopts, updates, validate
from corten.engine.containers.refusals import RESOLVE_USER, start_refusal
from corten.engine.deps import EngineSettings, RuntimeChoice
from corten.engine.hostfacts import HostFacts
from corten.engine.spec import resources
from corten.errors import InvalidArgument, NotImplementedYet, StartFailed, SystemFault
from corten.specs.container import (
    ContainerConfig,
    DeviceRequest,
    HostConfig,
    PortBinding,
    Resources,
    ThrottleDevice,
    Ulimit,
    WeightDevice,
)

FACTS = HostFacts(cpu_count=2, cpus="0-1", controllers=frozenset(("memory", "cpu", "cpuset", "blkio", "pids")))


def check(facts: HostFacts = FACTS, **host: Any) -> list[str]:
    return validate.check(ContainerConfig(), HostConfig(network_mode="bridge", **host), facts)


@pytest.mark.parametrize(
    ("host", "message"),
    [
        ({"isolation": "hyperv"}, "invalid isolation: \"hyperv\" - linux only supports 'default'"),
        ({"io_maximum_iops": 5}, "invalid QoS settings: linux does not support configuration of maximum IOPs"),
        (
            {"io_maximum_bandwidth": 5},
            "invalid QoS settings: linux does not support configuration of maximum bandwidth",
        ),
        (
            {"device_requests": [DeviceRequest(count=-1, capabilities=[["gpu"]])]},
            'could not select device driver "" with capabilities: [[gpu]]',
        ),
        (
            {"device_requests": [DeviceRequest(driver="cdi", device_ids=["vendor.com/class=x"])]},
            'could not select device driver "cdi" with capabilities: []',
        ),
        ({"cpu_realtime_runtime": 1000}, "kernel does not support CPU real-time scheduler"),
    ],
)
def test_refused_in_dockers_words(host: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        check(**host)
    assert caught.value.message == message


def test_real_time(monkeypatch: pytest.MonkeyPatch) -> None:
    facts = replace(FACTS, realtime=True)
    assert check(facts, cpu_realtime_runtime=1000, cpu_realtime_period=2000) == []
    with pytest.raises(InvalidArgument, match="cpu real-time runtime cannot be higher than cpu real-time period"):
        check(facts, cpu_realtime_runtime=3000, cpu_realtime_period=2000)
    host = HostConfig()
    updates.merge(host, Resources(cpu_realtime_runtime=500))
    assert host.cpu_realtime_runtime == 500


def test_ulimits_above_the_daemons_own_are_said() -> None:
    facts = replace(FACTS, capabilities=(), hard_limits={"RLIMIT_NOFILE": 20000})
    limits = [Ulimit(name="nofile", soft=1024, hard=30000), Ulimit(name="core", soft=-1, hard=-1)]
    said = ["The daemon may not raise the hard limit of nofile above its own: containers get 20000 of it."]
    assert check(facts, ulimits=limits) == said
    assert check(facts, ulimits=[Ulimit(name="nofile", soft=-1, hard=-1)]) == said
    assert check(facts, ulimits=[Ulimit(name="nofile", soft=1024, hard=20000)]) == []
    assert check(replace(facts, capabilities=("CAP_SYS_RESOURCE",)), ulimits=limits) == []


def test_kernel_memory_is_discarded() -> None:
    host = HostConfig(network_mode="bridge", kernel_memory=50 << 20)
    (warning,) = validate.check(ContainerConfig(), host, FACTS)
    assert warning.startswith("Your kernel does not support kernel memory limit capabilities")
    assert host.kernel_memory == 0


@pytest.mark.parametrize(("scheduler", "kept"), [("none mq-deadline [bfq]", True), ("[none] mq-deadline bfq", False)])
def test_weights_of_disks_need_a_scheduler(monkeypatch: pytest.MonkeyPatch, scheduler: str, kept: bool) -> None:
    monkeypatch.setattr("corten.engine.hostfacts.text_of", lambda path: scheduler)
    host = HostConfig(network_mode="bridge", blkio_weight_device=[WeightDevice(path="/dev/null", weight=200)])
    warnings = validate.check(ContainerConfig(), host, FACTS)
    assert bool(host.blkio_weight_device) is kept
    assert [text.endswith("Weight-device discarded.") for text in warnings] == [True] * (not kept)


@pytest.mark.parametrize(
    ("asked", "flag"),
    [
        ({"blkio_device_read_bps": [ThrottleDevice(path="/dev/sda", rate=1)]}, "--device-read-bps"),
        ({"oom_kill_disable": True}, "--oom-kill-disable"),
        ({"memory_swappiness": 10}, "--memory-swappiness"),
    ],
)
def test_what_update_cannot_change(asked: dict[str, Any], flag: str) -> None:
    with pytest.raises(NotImplementedYet, match=f"^{flag} cannot be changed on an existing container"):
        updates.merge(HostConfig(), Resources(**asked))


def test_dockers_own_runtime(tmp_path: Path) -> None:
    settings = EngineSettings(data_root=tmp_path, exec_root=tmp_path, facts=FACTS)
    host = HostConfig(network_mode="bridge", runtime="runc")
    assert defaults.complete(ContainerConfig(), host, "f" * 64, settings) == [
        "No runtime runc is configured: the container has the embedded one."
    ]
    assert host.runtime == "corten"
    settings.runtimes = {**settings.runtimes, "runc": RuntimeChoice("/usr/bin/runc")}
    host.runtime = "runc"
    assert defaults.complete(ContainerConfig(), host, "f" * 64, settings) == []
    assert host.runtime == "runc"


@pytest.mark.parametrize(
    ("options", "quotas", "said"),
    [
        ({"size": "1G"}, False, "--storage-opt is supported only for overlay over xfs with 'pquota' mount option"),
        ({"foo": "1", "Size": "1G"}, False, "--storage-opt is supported only for overlay over xfs with 'pquota'"),
        ({"foo": "1"}, False, "Unknown option foo"),
        ({"foo": "1", "size": "1G"}, True, "Unknown option foo"),
        ({"size": "big"}, True, "invalid size: 'big'"),
        ({"size": ""}, True, "invalid size: ''"),
        ({"size": "-1"}, True, "invalid size: '-1'"),
    ],
)
def test_storage_options_refused(options: dict[str, str], quotas: bool, said: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        storageopts.limit(options, quotas=quotas)
    assert caught.value.message.startswith(said)


def test_storage_options() -> None:
    for text, size in (("512", 512), ("64m", 64 << 20), ("1.5 GiB", 3 << 29), ("2KB", 2048), ("0", 0)):
        assert storageopts.limit({"SIZE": text}, quotas=True) == size
    assert storageopts.limit(None, quotas=False) == storageopts.limit({}, quotas=True) == 0


def test_cgroup_means_nothing_as_with_docker() -> None:
    assert check(cgroup="container:x") == []


@pytest.mark.parametrize(
    ("host", "message"),
    [
        ({"cpuset_cpus": "x"}, "Invalid value x for cpuset cpus: invalid format: x"),
        ({"cpuset_mems": "0-"}, "Invalid value 0- for cpuset mems: invalid format: 0-"),
    ],
)
def test_sets_that_cannot_be_read(host: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        check(**host)
    assert caught.value.message == message


def test_host_names_are_what_the_kernel_takes() -> None:
    for name in ("-bad", "under_score", "a" * 64):
        assert validate.check(ContainerConfig(hostname=name), HostConfig(network_mode="bridge"), FACTS) == []
    for name in ("a b", "a\nb", "a/b", "a" * 65):
        with pytest.raises(InvalidArgument, match="invalid hostname format"):
            validate.check(ContainerConfig(hostname=name), HostConfig(network_mode="bridge"), FACTS)


def test_ports_on_the_hosts_network_are_said_to_be_discarded() -> None:
    published = {"80/tcp": [PortBinding(host_port="80")]}
    host = HostConfig(network_mode="host", port_bindings=published)
    said = ["Published ports are discarded when using host network mode"]
    assert validate.check(ContainerConfig(), host, FACTS) == said
    assert check(port_bindings=published) == []


def test_a_tmpfs_that_is_nowhere() -> None:
    with pytest.raises(InvalidArgument) as caught:
        mountspec.wishes(ContainerConfig(), HostConfig(tmpfs={"rel": ""}))
    assert caught.value.message == "invalid mount path: 'rel' mount path must be absolute"


def test_a_disk_that_is_not_there() -> None:
    with pytest.raises(SystemFault, match=r"^stat /dev/nosuch: no such file or directory$"):
        resources.build(Resources(blkio_device_read_bps=[ThrottleDevice(path="/dev/nosuch", rate=1)]))


@pytest.mark.parametrize(("step", "whole"), [(RESOLVE_USER, True), ("execve", False)])
def test_users_are_looked_up_before_the_runtime_is_asked(step: str, whole: bool) -> None:
    said = start_refusal(StartFailed("unable to find user x", step=step), "sh")
    prefix = "" if whole else "failed to create task for container: failed to start container process: "
    assert said == f"{prefix}unable to find user x"
