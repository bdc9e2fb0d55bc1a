"""The daemon's own settings: configuration file, listeners, runtimes; and restart policies across its restarts."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import foreign
from tests.compat.harness import Daemon, Host, Outcome, busybox_tar, daemon_on_host
from tests.waiting import until

REMOTE = "tcp://127.0.0.1:2376"


def cortend(host: Host, *args: str) -> Outcome:
    """A daemon that is expected to end by itself."""
    roots = ["--data-root", str(host.place / "other"), "--exec-root", str(host.place / "other-run")]
    return host.run(sys.executable, "-m", "corten.daemon.main", "-H", f"unix://{host.place}/b.sock", *roots, *args)


@pytest.fixture
def host() -> Iterator[Host]:
    host = Host()
    yield host
    host.close()


def test_sighup_reloads_what_it_can(tmp_path: Path) -> None:
    file = tmp_path / "daemon.json"
    file.write_text(json.dumps({"insecure-registries": ["one.example:5000"], "labels": ["a=b"]}))
    with daemon_on_host("--config-file", str(file)) as daemon:
        assert daemon.process is not None

        def info() -> tuple[list[str], list[str]]:
            told = json.loads(daemon.ok("info", "--format", "{{json .}}"))
            return list(told["RegistryConfig"]["IndexConfigs"]), told["Labels"]

        indexes, labels = info()
        assert "one.example:5000" in indexes
        assert labels == ["a=b"]
        assert " DEBUG " not in daemon.log()

        file.write_text(json.dumps({"insecure-registries": ["two.example:5000"], "debug": True, "labels": ["c=d"]}))
        daemon.process.send_signal(signal.SIGHUP)
        until(lambda: "two.example:5000" in info()[0], what="the new setting")
        assert "one.example:5000" not in info()[0]
        assert info()[1] == ["c=d"]

        file.write_text('{"insecure-registry": []}')
        daemon.process.send_signal(signal.SIGHUP)
        until(lambda: 'unknown key "insecure-registry"' in daemon.log(), what="the complaint")
        # One that is understood and makes no sense changes nothing either, of what is right in it.
        file.write_text('{"registry-mirrors": ["ftp://x"], "labels": ["e=f"]}')
        daemon.process.send_signal(signal.SIGHUP)
        until(lambda: "was not reloaded: invalid mirror" in daemon.log(), what="the second complaint")
        assert info() == (["docker.io", "two.example:5000"], ["c=d"])
        assert daemon.ok("run", "--rm", "busybox", "echo", "on") == "on"


def write_archive(path: Path, files: int, size: int) -> None:
    with tarfile.open(path, mode="w") as tar:
        for number in range(files):
            member = tarfile.TarInfo(f"file-{number}")
            member.size = size
            tar.addfile(member, io.BytesIO(bytes(size)))


def test_sighup_reloads_what_images_may_be(tmp_path: Path) -> None:
    """The limits of a layer hold for the next one, and the event tells of each setting as Docker's does."""
    file = tmp_path / "daemon.json"
    file.write_text("{}")
    with daemon_on_host("--config-file", str(file)) as daemon:

        def reloads() -> list[dict[str, str]]:
            told = daemon.ok("events", "--since", "1", "--until", "0s", "--filter", "event=reload", "--format", "json")
            return [json.loads(line)["Actor"]["Attributes"] for line in told.splitlines()]

        def reload(settings: dict[str, Any]) -> dict[str, str]:
            assert daemon.process is not None
            before = len(reloads())
            file.write_text(json.dumps(settings))
            daemon.process.send_signal(signal.SIGHUP)
            until(lambda: len(reloads()) > before, what="the event")
            return reloads()[-1]

        def import_(files: int, size: int) -> str:
            write_archive(tmp_path / "archive.tar", files, size)
            outcome = daemon.docker("import", str(tmp_path / "archive.tar"))
            return outcome.err if outcome.code else ""

        assert import_(5, 20_000) == ""
        told = reload({"max-layer-entries": 4, "max-concurrent-downloads": 7, "max-concurrent-uploads": 2})
        assert "more than 4 entries, which is the daemon's limit (max-layer-entries)" in import_(5, 20_000)
        kept = {"max-layer-size": str(256 << 30), "max-layer-ratio": "200", "max-download-attempts": "5"}
        expected = {"max-layer-entries": "4", "max-concurrent-downloads": "7", "max-concurrent-uploads": "2", **kept}
        expected |= {"storage-limit": "0", "insecure-registries": "[]", "registry-mirrors": "[]", "labels": "[]"}
        assert told.items() >= expected.items()
        assert (told["debug"], told["live-restore"]) == ("false", "true")

        reload({"max-layer-size": 50_000})
        assert "larger than 50000 bytes unpacked, which is the daemon's limit (max-layer-size)" in import_(5, 20_000)
        assert import_(1, 20_000) == ""
        assert reload({"max-layer-ratio": 3, "debug": True})["debug"] == "true"
        assert import_(5, 20_000) == ""


def test_the_daemons_own_security_settings(tmp_path: Path) -> None:
    """`no-new-privileges` and `seccomp-profile` hold for containers and exec sessions that do not say otherwise."""
    profile = tmp_path / "profile.json"
    rules = [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28}]
    profile.write_text(json.dumps({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules}))
    file = tmp_path / "daemon.json"
    file.write_text(json.dumps({"no-new-privileges": True}))
    with daemon_on_host("--config-file", str(file), "--seccomp-profile", str(profile)) as daemon:
        look = ("sh", "-c", "grep NoNewPrivs /proc/self/status; mkdir /made 2>&1; true")
        confined = ["NoNewPrivs:", "1", "mkdir:", "can't", "create"]
        assert daemon.ok("run", "--rm", "busybox", *look).split()[:5] == confined
        daemon.ok("run", "-d", "--name", "box", "busybox", "sleep", "1000")
        exec_said = daemon.ok("exec", "box", *look)
        assert exec_said.split()[:5] == confined
        assert exec_said.endswith("No space left on device")
        options = ("--security-opt", "no-new-privileges=false", "--security-opt", "seccomp=builtin")
        assert daemon.ok("run", "--rm", *options, "busybox", *look).split() == ["NoNewPrivs:", "0"]
        told = json.loads(daemon.ok("info", "--format", "{{json .}}"))
        assert {"name=no-new-privileges", f"name=seccomp,profile={profile}"} <= set(told["SecurityOptions"])
        assert "WARNING: daemon is not using the default seccomp profile" in told["Warnings"]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (None, "No such file or directory"),
        (b"{", "Decoding seccomp profile failed"),
        (b"\xff", "invalid start byte"),
        (b'{"defaultAction": "SCMP_ACT_NONE"}', "linux.seccomp.defaultAction"),
    ],
)
def test_a_seccomp_profile_that_is_none_keeps_the_daemon_from_starting(
    host: Host, body: bytes | None, words: str
) -> None:
    file = host.place / "profile.json"
    if body is not None:
        file.write_bytes(body)
    done = cortend(host, "--seccomp-profile", str(file))
    assert (done.code, "seccomp-profile: " in done.err, words in done.err) == (1, True, True), done.err


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('{"no-such-key": 1}', 'unknown key "no-such-key"'),
        ("{", "is not JSON"),
        ('{"log-level": "loud"}', "invalid logging level: loud"),
        ('{"bridge": "br0"}', '"bridge" is a setting of Docker'),
        ('{"insecure-registries": "x"}', "must be a list of strings"),
    ],
)
def test_a_bad_configuration_file(host: Host, content: str, words: str) -> None:
    file = host.place / "daemon.json"
    file.write_text(content)
    done = cortend(host, "--config-file", str(file))
    assert done.code == 1
    assert words in done.err
    assert str(file) in done.err


def test_plain_tcp_needs_insisting(host: Host) -> None:
    done = cortend(host, "-H", "tcp://127.0.0.1:2375")
    assert done.code == 1
    assert "--allow-plain-tcp" in done.err
    assert "--tlsverify" in done.err


def test_plain_tcp_with_insisting_is_loud() -> None:
    with daemon_on_host("-H", "tcp://127.0.0.1:2375", "--allow-plain-tcp") as daemon:
        assert "hello" in daemon.host.run(
            "docker", "-H", "tcp://127.0.0.1:2375", "run", "--rm", "busybox", "echo", "hello"
        ).out  # fmt: skip
        assert "WARNING" in daemon.log()


def certificates(place: Path) -> None:
    """ca.pem, and key and certificate of a server for 127.0.0.1, of a client, and of a stranger."""

    def openssl(*args: str) -> None:
        subprocess.run(["openssl", *args], check=True, capture_output=True, cwd=place)

    make = ("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2")
    for authority in ("ca", "stranger"):
        openssl(*make, "-subj", f"/CN={authority}", "-keyout", f"{authority}-key.pem", "-out", f"{authority}.pem")
    for name, extra in (("server", "subjectAltName=IP:127.0.0.1"), ("client", "extendedKeyUsage=clientAuth")):
        openssl(
            *make, "-subj", f"/CN={name}", "-addext", extra, "-addext", "basicConstraints=critical,CA:FALSE",
            "-CA", "ca.pem", "-CAkey", "ca-key.pem", "-keyout", f"{name}-key.pem", "-out", f"{name}.pem",
        )  # fmt: skip


def test_tls_with_client_certificates(tmp_path: Path) -> None:
    certificates(tmp_path)
    server = ["--tlscacert", f"{tmp_path}/ca.pem", "--tlscert", f"{tmp_path}/server.pem", "--tlskey",
    f"{tmp_path}/server-key.pem"]  # fmt: skip
    with daemon_on_host("-H", REMOTE, "--tlsverify", *server) as daemon:

        def remote(who: str, program: list[str], *args: str, **options: Any) -> Outcome:
            identity = ["--tlscert", f"{tmp_path}/{who}.pem", "--tlskey", f"{tmp_path}/{who}-key.pem"]
            return daemon.host.run(
                *program, "-H", REMOTE, "--tlsverify", "--tlscacert", f"{tmp_path}/ca.pem", *identity, *args, **options
            )

        docker, corten = ["docker"], [sys.executable, "-m", "corten.cli.main"]
        assert remote("client", docker, "run", "--rm", "busybox", "echo", "safe").out == "safe\n"
        # No fd can be passed through TLS: the daemon relays, half-close of stdin included.
        piped = remote("client", docker, "run", "--rm", "-i", "busybox", "sh", "-c", "cat; echo end", input="in\n")
        assert piped.out == "in\nend\n", piped.err
        assert remote("client", corten, "run", "--rm", "-i", "busybox", "cat", input="ours").out == "ours"
        assert remote("client", corten, "run", "--rm", "busybox", "sh", "-c", "exit 3").code == 3
        refused = remote("stranger", docker, "ps")
        assert refused.code == 1
        assert "certificate" in refused.err
        plain = daemon.host.run("docker", "-H", REMOTE, "ps")
        assert plain.code == 1
        assert daemon.ok("ps", "-q") == ""


@pytest.mark.parametrize(("runtime", "chosen"), [*((name, "flag") for name in foreign.NAMES), ("runc", "default")])
def test_a_foreign_runtime(runtime: str, chosen: str, tmp_path: Path) -> None:
    args = ["--add-runtime", f"{runtime}={foreign.program(runtime, tmp_path)}"]
    with daemon_on_host(*args, *(["--default-runtime", runtime] if chosen == "default" else [])) as daemon:
        choice = ["--runtime", runtime] if chosen == "flag" else []
        assert daemon.ok("run", "--rm", *choice, "busybox", "echo", "by it") == "by it"
        assert daemon.ok("run", "--rm", "-i", *choice, "busybox", "cat", input="through") == "through"
        assert daemon.docker("run", "--rm", *choice, "busybox", "sh", "-c", "exit 4").code == 4
        missing = daemon.docker("run", "--rm", *choice, "busybox", "no-such")
        assert missing.code == 127, missing.err
        daemon.ok("run", "-d", "--name", "box", *choice, "-p", "8500:80", "busybox", "sh", "-c",
        "echo started; trap 'exit 5' TERM; while :; do sleep 0.05; done")  # fmt: skip
        assert daemon.inspect("box")["HostConfig"]["Runtime"] == runtime
        assert daemon.ok("exec", "-e", "A=1", "-u", "app", "box", "sh", "-c", "id -un; echo $A").split() == ["app", "1"]
        assert daemon.docker("exec", "box", "sh", "-c", "exit 6").code == 6
        until(lambda: daemon.ok("logs", "box") == "started", what="the log")
        usage = daemon.ok("stats", "--no-stream", "--format", "{{.MemUsage}} {{.PIDs}}", "box").split()
        assert (usage[0] != "0B", int(usage[-1]) >= 1) == (True, True), usage
        daemon.ok("pause", "box")
        daemon.ok("unpause", "box")
        until(lambda: "sleep 0.05" in daemon.ok("top", "box"), what="a sleep among the processes")
        daemon.kill()
        daemon.start()
        assert daemon.ok("exec", "box", "echo", "still") == "still"
        daemon.ok("stop", "box")
        assert daemon.inspect("box")["State"]["ExitCode"] == 5
        daemon.ok("start", "box")
        daemon.ok("rm", "-f", "box")


def test_restart_policies_across_a_restart_of_the_daemon(own_daemon: Daemon) -> None:
    daemon = own_daemon
    for name, policy in (("always", "always"), ("unless", "unless-stopped"), ("stopped", "unless-stopped")):
        daemon.ok("run", "-d", "--name", name, "--restart", policy, "busybox", "sleep", "100")
    daemon.ok("run", "-d", "--name", "halted", "--restart", "always", "busybox", "sleep", "100")
    daemon.ok("run", "-d", "--name", "plain", "busybox", "sleep", "100")
    daemon.ok("stop", "-t", "0", "stopped", "halted")
    pids = {name: daemon.inspect(name)["State"]["Pid"] for name in ("always", "unless", "plain")}
    daemon.kill()
    for pid in pids.values():
        os.kill(pid, signal.SIGKILL)
    until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids.values()), what="the containers' end")
    daemon.start()

    def running() -> set[str]:
        return set(daemon.ok("ps", "--format", "{{.Names}}").split())

    # `always` comes back even when it was stopped by hand before; `unless-stopped` does not.
    until(lambda: running() == {"always", "unless", "halted"}, what="the restarts")
    assert daemon.inspect("plain")["State"]["ExitCode"] == 137
    assert daemon.inspect("stopped")["State"]["Status"] == "exited"
    daemon.ok("kill", "always")
    assert daemon.inspect("always")["State"]["Status"] == "exited"
    os.kill(daemon.inspect("unless")["State"]["Pid"], signal.SIGKILL)
    until(lambda: daemon.inspect("unless")["RestartCount"] == 1, what="the restart by policy")
    daemon.ok("rm", "-f", "always", "unless", "halted")


def test_a_pid_file_and_a_second_daemon(host: Host) -> None:
    pidfile = host.place / "pid"
    daemon = Daemon(host, ["--pidfile", str(pidfile)])
    daemon.start()
    assert daemon.process is not None
    assert pidfile.read_text().strip() == str(daemon.process.pid)
    try:
        second = cortend(host, "--pidfile", str(pidfile))
        assert second.code == 1
        assert "is still running" in second.err
        assert pidfile.read_text().strip() == str(daemon.process.pid)
    finally:
        daemon.args = []
        daemon.close()
    assert not pidfile.exists()


class Narrow(Daemon):
    """One that is started with few descriptors, and may have more."""

    def command(self) -> list[str]:
        return ["prlimit", "--nofile=80:5000", *super().command()]


def test_a_low_limit_of_descriptors_is_raised_for_the_daemon_and_not_for_containers(host: Host) -> None:
    daemon = Narrow(host)
    try:
        daemon.start()
        daemon.ok("import", str(busybox_tar(host.place / "busybox.tar")), "busybox:latest")
        for number in range(20):
            daemon.ok("run", "-d", "--name", f"many{number}", "busybox", "sleep", "1000")
        assert daemon.process is not None
        assert len(list(Path(f"/proc/{daemon.process.pid}/fd").iterdir())) > 80
        assert daemon.ok("run", "--rm", "busybox", "sh", "-c", "ulimit -Sn; ulimit -Hn").split() == ["80", "5000"]
        [spawner] = [pid for pid, name in host.processes().items() if name == "corten-spawner"]
        os.kill(spawner, signal.SIGKILL)
        assert daemon.ok("run", "--rm", "busybox", "sh", "-c", "ulimit -Sn") == "80"
    finally:
        daemon.close()
