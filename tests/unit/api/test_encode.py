"""What the API says of times, durations, states and configurations."""

from __future__ import annotations

import pytest

from corten.api.docker.encode import container_config, go_time, host_config, human_duration, port_map, port_summaries
from corten.api.docker.encode_container import status_text
from corten.engine.models import Health, State, Status
from corten.specs import wire
from corten.specs.container import ContainerConfig, CreateRequest, HostConfig, PortBinding

SECOND = 10**9
MINUTE, HOUR, DAY = 60 * SECOND, 3600 * SECOND, 86400 * SECOND


@pytest.mark.parametrize(
    ("ns", "text"),
    [
        (0, "0001-01-01T00:00:00Z"),
        (1_700_000_000_000_000_000, "2023-11-14T22:13:20Z"),
        (1_700_000_000_120_000_000, "2023-11-14T22:13:20.12Z"),
        (1_700_000_000_000_000_001, "2023-11-14T22:13:20.000000001Z"),
    ],
)
def test_times(ns: int, text: str) -> None:
    assert go_time(ns) == text


@pytest.mark.parametrize(
    ("ns", "text"),
    [
        (-5 * SECOND, "Less than a second"),
        (SECOND - 1, "Less than a second"),
        (SECOND, "1 second"),
        (59 * SECOND, "59 seconds"),
        (MINUTE, "About a minute"),
        (59 * MINUTE, "59 minutes"),
        (HOUR, "About an hour"),
        (89 * MINUTE, "About an hour"),
        (90 * MINUTE, "2 hours"),
        (47 * HOUR, "47 hours"),
        (2 * DAY, "2 days"),
        (13 * DAY, "13 days"),
        (14 * DAY, "2 weeks"),
        (60 * DAY, "2 months"),
        (365 * DAY, "12 months"),
        (729 * DAY, "24 months"),
        (730 * DAY, "2 years"),
    ],
)
def test_durations(ns: int, text: str) -> None:
    assert human_duration(ns) == text


NOW = 1_700_000_000 * SECOND


@pytest.mark.parametrize(
    ("state", "text"),
    [
        (State(), "Created"),
        (State(status=Status.RUNNING, started_ns=NOW - 5 * SECOND), "Up 5 seconds"),
        (State(status=Status.RUNNING, started_ns=NOW, health=Health(status="none")), "Up Less than a second"),
        (
            State(status=Status.RUNNING, started_ns=NOW - HOUR, health=Health(status="healthy")),
            "Up About an hour (healthy)",
        ),
        (
            State(status=Status.RUNNING, started_ns=NOW - MINUTE, health=Health(status="starting")),
            "Up About a minute (health: starting)",
        ),
        (State(status=Status.PAUSED, started_ns=NOW - 2 * HOUR), "Up 2 hours (Paused)"),
        (State(status=Status.EXITED, exit_code=137, started_ns=1, finished_ns=NOW - DAY), "Exited (137) 24 hours ago"),
        (State(status=Status.RESTARTING, exit_code=1, finished_ns=NOW - SECOND), "Restarting (1) 1 second ago"),
        (State(status=Status.REMOVING), "Removal In Progress"),
        (State(status=Status.DEAD), "Dead"),
    ],
)
def test_status(state: State, text: str) -> None:
    assert status_text(state, NOW) == text


def test_a_configuration_leaves_out_what_go_leaves_out() -> None:
    assert container_config(ContainerConfig()) == {
        "Hostname": "",
        "Domainname": "",
        "User": "",
        "AttachStdin": False,
        "AttachStdout": False,
        "AttachStderr": False,
        "Tty": False,
        "OpenStdin": False,
        "StdinOnce": False,
        "Env": None,
        "Cmd": None,
        "Image": "",
        "Volumes": None,
        "WorkingDir": "",
        "Entrypoint": None,
        "OnBuild": None,
        "Labels": {},
    }
    full = container_config(ContainerConfig(cmd="sh", stop_timeout=0, stop_signal="TERM", shell=["sh"]))
    assert (full["Cmd"], full["StopTimeout"], full["StopSignal"], full["Shell"]) == (["sh"], 0, "TERM", ["sh"])


def test_a_request_is_shown_as_the_configuration_in_it() -> None:
    request = wire.decode(b'{"Image": "a", "HostConfig": {"Memory": 5}}', CreateRequest)
    assert "HostConfig" not in container_config(request)
    assert host_config(request.host_config)["Memory"] == 5


def test_a_host_configuration_of_nothing() -> None:
    out = host_config(HostConfig())
    assert out["NetworkMode"] == "bridge"
    assert out["RestartPolicy"] == {"Name": "no", "MaximumRetryCount": 0}
    assert out["PortBindings"] == {}
    assert out["LogConfig"] == {"Type": "", "Config": {}}
    assert (out["Dns"], out["Devices"], out["Binds"], out["CapAdd"]) == ([], [], None, None)
    assert out["ConsoleSize"] in ([0, 0], (0, 0))
    assert not {"Init", "Mounts", "Tmpfs", "Sysctls", "StorageOpt", "Annotations"} & out.keys()
    assert host_config(HostConfig(init=False))["Init"] is False


def test_a_requested_mount_says_only_what_was_said() -> None:
    body = b'{"Mounts": [{"Type": "volume", "Target": "/x", "VolumeOptions": {"NoCopy": true}}]}'
    out = host_config(wire.decode(body, HostConfig))
    assert out["Mounts"] == [{"Type": "volume", "Target": "/x", "VolumeOptions": {"NoCopy": True}}]


def test_ports() -> None:
    ports: dict[str, list[PortBinding] | None] = {
        "80/tcp": [PortBinding(host_ip="0.0.0.0", host_port="8080"), PortBinding(host_ip="::", host_port="8080")],
        "53/udp": None,
    }
    assert port_map(ports) == {
        "80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "8080"}, {"HostIp": "::", "HostPort": "8080"}],
        "53/udp": None,
    }
    assert port_summaries(ports) == [
        {"IP": "0.0.0.0", "PrivatePort": 80, "PublicPort": 8080, "Type": "tcp"},
        {"IP": "::", "PrivatePort": 80, "PublicPort": 8080, "Type": "tcp"},
        {"PrivatePort": 53, "Type": "udp"},
    ]
