"""From the options of `run` to the body of create; the same as the docker command line sends, where there is one."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from corten.cli.errors import CliError, UsageError
from corten.cli.flags import parse
from corten.cli.spec.body import build
from corten.cli.spec.flags import RUN_FLAGS
from tests import docker_client
from tests.unit.client.fakes import ScriptedDaemon, answer

# What a body without any option has.
BARE: dict[str, Any] = {
    "AttachStdout": True,
    "AttachStderr": True,
    "Image": "busybox",
    "HostConfig": {"RestartPolicy": {"Name": "no", "MaximumRetryCount": 0}, "NetworkMode": "default"},
}


def body_of(*argv: str) -> dict[str, Any]:
    return build(parse(RUN_FLAGS, list(argv), pass_through=True))


def test_nothing_said() -> None:
    assert body_of("busybox") == BARE


CASES: list[list[str]] = [
    ["-dit", "busybox", "sh", "-c", "echo $0"],
    ["-i", "busybox"],
    ["-a", "stdin", "-a", "stderr", "busybox"],
    ["-d", "-p", "127.0.0.1:8080:80/udp", "-p", "5000-5001:6000-6001", "-p", "70", "-P", "--expose", "9-10", "busybox"],
    ["-p", "8000-8005:80", "-p", "[::1]:81:81", "-p", "1.2.3.4::82", "-p", ":83", "busybox"],
    ["-p", "published=8080,target=80,protocol=udp", "busybox"],
    ["-v", "/a:/b:ro", "-v", "vol:/c", "-v", "/anon", "-v", "./rel:/d", "--volumes-from", "z:ro", "busybox"],
    ["--mount", "type=bind,src=/tmp,dst=/m,readonly,bind-propagation=rslave", "busybox"],
    ["--mount", "type=volume,src=v,dst=/m,volume-nocopy,volume-opt=a=b,volume-driver=d,volume-label=l=m", "busybox"],
    ["--mount", "type=tmpfs,dst=/t,tmpfs-size=1m,tmpfs-mode=1770", "--mount", "dst=/anon", "busybox"],
    ["--mount", "type=bind,src=/tmp,dst=/m,bind-recursive=disabled", "busybox"],
    ["--tmpfs", "/x:size=1m", "--tmpfs", "/y", "--shm-size", "1g", "--storage-opt", "size=1g", "busybox"],
    ["--network", "foo", "--network-alias", "al", "--ip", "1.2.3.4", "--link", "other:o", "busybox"],
    [
        "--network",
        "name=foo,alias=z,ip=1.2.3.4,driver-opt=a=b,mac-address=92:d0:c6:0a:29:33",
        "--network",
        "b",
        "busybox",
    ],
    ["--network", "container:foo", "busybox"],
    ["--network", "host", "--link", "a", "busybox"],
    ["--mac-address", "92:d0:c6:0a:29:33", "--hostname", "h", "--domainname", "d", "busybox"],
    ["--health-cmd", "a b", "--health-interval", "5s", "--health-retries", "3", "--health-timeout", "1m", "busybox"],
    ["--health-start-period", "2s", "--health-start-interval", "1s", "busybox"],
    ["--no-healthcheck", "busybox"],
    ["--ulimit", "nofile=10:20", "--ulimit", "core=-1", "--sysctl", "net.a=b", "busybox"],
    ["--device", "/dev/null:/dev/n:r", "--device", "/dev/zero", "--device", "/dev/full:rw", "busybox"],
    [
        "--device-cgroup-rule",
        "c 1:3 rwm",
        "--device-read-bps",
        "/dev/sda:1mb",
        "--device-write-iops",
        "/dev/sda:5",
        "busybox",
    ],
    ["--blkio-weight", "10", "--blkio-weight-device", "/dev/sda:10", "busybox"],
    ["--security-opt", "no-new-privileges", "--security-opt", "seccomp=unconfined", "--privileged", "busybox"],
    ["--security-opt", "systempaths=unconfined", "--security-opt", "apparmor=x", "busybox"],
    ["--log-driver", "local", "--log-opt", "max-size=1m", "--restart", "on-failure:3", "busybox"],
    ["-m", "100m", "--memory-reservation", "50m", "--memory-swap", "200m", "--memory-swappiness", "0", "busybox"],
    ["--cpus", "1.5", "-c", "512", "--cpuset-cpus", "0-1", "--cpu-period", "1000", "--cpu-quota", "500", "busybox"],
    ["--pids-limit", "5", "--oom-score-adj", "3", "--oom-kill-disable", "busybox"],
    ["--add-host", "a:1.2.3.4", "--dns", "1.1.1.1", "--dns-option", "x", "--dns-search", "y", "busybox"],
    ["-e", "A=1", "-e", "HOME", "-e", "NOT_SET_ANYWHERE", "-l", "k=v", "-l", "q", "busybox"],
    ["--stop-timeout", "3", "--stop-signal", "INT", "--init", "--rm", "busybox"],
    ["--init=false", "--stop-timeout", "0", "busybox"],
    ["--ipc", "host", "--pid", "host", "--uts", "host", "--cgroupns", "host", "--userns", "host", "busybox"],
    ["--pid", "container:x", "--ipc", "container:y", "--cgroup-parent", "/p", "busybox"],
    ["--gpus", "all", "--annotation", "x=y", "--runtime", "r", "busybox"],
    ["--gpus", "device=1", "busybox"],
    ["--entrypoint", "e", "-u", "1:1", "-w", "/w", "--read-only", "--group-add", "5", "busybox", "a", "b"],
    ["--entrypoint", "", "busybox", "a"],
    ["--cap-add", "net_admin", "--cap-add", "CAP_CHOWN", "--cap-drop", "ALL", "--cap-drop", "kill", "busybox"],
    ["--cap-add", "chown", "--cap-drop", "CHOWN", "busybox"],
]


# What older docker commands than these send in another way, or do not know.
SINCE = {
    "./rel:": 23,
    "--annotation": 24,
    "bind-recursive=": 25,
    "mac-address": 25,
    "--health-start-interval": 25,
    "--network host --link": 28,
    "--device-read-bps": 28,
    "--cap-add": 28,
}


@pytest.mark.skipif(not shutil.which("docker"), reason="the docker command line is not installed")
@pytest.mark.parametrize("argv", CASES, ids=lambda argv: " ".join(argv)[:60])
def test_the_body_is_what_docker_sends(argv: list[str], tmp_path: Path) -> None:
    needed = max((major for text, major in SINCE.items() if text in " ".join(argv)), default=0)
    if docker_client.major_version() < needed:
        pytest.skip(f"the docker command line is older than {needed}")
    assert simplified(body_of(*argv)) == simplified(docker_body(argv, tmp_path))


def docker_body(argv: list[str], tmp_path: Path) -> dict[str, Any]:
    """What `docker run` sends for `argv`, seen by a peer that refuses it."""
    ping = b"HTTP/1.1 200 OK\r\nApi-Version: 1.50\r\nOstype: linux\r\nContent-Length: 0\r\n\r\n"
    refusal = answer("500 Internal Server Error", b'{"message":"seen"}')
    with ScriptedDaemon(tmp_path / "s", [ping, refusal]) as daemon:
        command = ["docker", "--config", str(tmp_path), "-H", daemon.url, "run", *argv]
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    creates = [request for request in daemon.requests if b"/containers/create" in request]
    assert len(creates) == 1, done.stderr
    body: dict[str, Any] = json.loads(creates[0].partition(b"\r\n\r\n")[2])
    return body


# Where nothing is not the same as not said.
MEANINGFUL = ("MaskedPaths", "ReadonlyPaths", "MemorySwappiness", "Init", "StopTimeout", "ExposedPorts", "Volumes")


def simplified(value: Any, key: str = "") -> Any:
    """Without what says nothing: null, zero, empty. What Docker sends in no order is sorted."""
    if isinstance(value, dict):
        members = {name: simplified(member, name) for name, member in value.items()}
        if key in MEANINGFUL:
            return members
        return {
            name: member
            for name, member in members.items()
            if not _says_nothing(member) or (name in MEANINGFUL and value[name] not in (None, {}, -1))
        }
    if isinstance(value, list):
        items = [simplified(item) for item in value]
        return sorted(items, key=repr) if key in ("Env", "Binds") else items
    return value


def _says_nothing(value: Any) -> bool:
    return value in (None, "", 0, False, [], {}, [0, 0], {"default": {}}, -1)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["-p", "x"], "invalid containerPort: x"),
        (["-p", "99999"], "invalid containerPort: 99999"),
        (["-p", "80-81:80-82"], "invalid ranges specified for container and host Ports: 80-82 and 80-81"),
        (["-p", "1.2.3:80:80"], "invalid IP address: 1.2.3"),
        (["-p", "80:80/xx"], "invalid proto: xx"),
        (
            ["--expose", "x"],
            'invalid range format for --expose: x, error: strconv.ParseUint: parsing "x": invalid syntax',
        ),
        (["--device", "x:y:z:w"], "bad format for path: x:y:z:w"),
        (["--device", "/dev/null:/x:q"], "bad mode specified: q"),
        (["--restart", "on-failure:x"], "invalid restart policy format: maximum retry count must be an integer"),
        (["--rm", "--restart", "always"], "conflicting options: cannot specify both --restart and --rm"),
        (["--memory-swappiness", "200"], "invalid value: 200. Valid memory swappiness range is 0-100"),
        (["--security-opt", "foo"], 'Invalid --security-opt: "foo"'),
        (
            ["--security-opt", "seccomp=/nonexistent"],
            "opening seccomp profile (/nonexistent) failed: open /nonexistent: no such file or directory",
        ),
        (["--env-file", "/nonexistent"], "open /nonexistent: no such file or directory"),
        (["--no-healthcheck", "--health-cmd", "x"], "--no-healthcheck conflicts with --health-* options"),
        (["--health-interval", "-3s"], "--health-interval cannot be negative"),
        (["--log-driver", "none", "--log-opt", "a=b"], "invalid logging opts for driver none"),
        (["--mac-address", "x"], "x is not a valid mac address"),
        (["--pull", "foo"], 'invalid pull option: \'foo\': must be one of "always", "missing" or "never"'),
        (["--pid", "foo"], "--pid: invalid PID mode"),
        (["--cgroupns", "foo"], "--cgroupns: invalid CGROUP mode"),
        (["-v", ":/x"], "invalid spec: :/x: empty section between colons"),
        (["--network", "a", "--network", "a"], 'network "a" is specified multiple times'),
    ],
)
def test_what_makes_no_sense_is_said(argv: list[str], message: str) -> None:
    with pytest.raises(CliError) as caught:
        body_of(*argv, "busybox")
    assert (str(caught.value), caught.value.code) == (message, 125)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--ulimit", "x"], "invalid ulimit argument: x"),
        (["--ulimit", "nofile=5:3"], "ulimit soft limit must be less than or equal to hard limit: 5 > 3"),
        (["--ulimit", "foo=3"], "invalid ulimit type: foo"),
        (["--sysctl", "a=b"], "sysctl 'a=b' is not allowed"),
        (["--mount", "type=foo"], "target is required"),
        (["--mount", "src=/a,dst=/b,type=bind,volume-nocopy"], "cannot mix 'volume-*' options with mount type 'bind'"),
        (["--mount", "dst=/b,foo=1"], "unexpected key 'foo' in 'foo=1'"),
    ],
)
def test_values_that_make_no_sense(argv: list[str], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        body_of(*argv, "busybox")
    assert str(caught.value) == f'invalid argument "{argv[1]}" for "{argv[0]}" flag: {message}'


def test_files_of_variables_and_labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FROM_HERE", "yes")
    file = tmp_path / "env"
    file.write_text("\ufeff# comment\n\nA=1 # not a comment\n  B=2\nFROM_HERE\nNOT_SET_ANYWHERE\n", encoding="utf-8")
    assert body_of("--env-file", str(file), "-e", "C=3", "x")["Env"] == [
        "A=1 # not a comment",
        "B=2",
        "FROM_HERE=yes",
        "C=3",
    ]
    file.write_text("a=1\nb\n")
    assert body_of("--label-file", str(file), "x")["Labels"] == {"a": "1", "b": ""}
    file.write_text("A B=1\n")
    with pytest.raises(CliError, match="variable 'A B' contains whitespaces"):
        body_of("--env-file", str(file), "x")


def test_a_seccomp_profile_is_sent_itself(tmp_path: Path) -> None:
    profile = tmp_path / "p.json"
    profile.write_text('{\n  "defaultAction": "SCMP_ACT_ALLOW"\n}')
    host = body_of("--security-opt", f"seccomp={profile}", "x")["HostConfig"]
    assert host["SecurityOpt"] == ['seccomp={"defaultAction":"SCMP_ACT_ALLOW"}']
