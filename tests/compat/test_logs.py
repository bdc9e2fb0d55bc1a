"""Logs as users have them: drivers, options, rotation, slow readers."""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.compat.harness import Daemon, Host, busybox_tar, daemon_on_host
from tests.waiting import patience, until

FLOOD = 'i=0; while [ $i -lt 2000 ]; do echo "line $i of two thousand that are said in one go"; i=$((i+1)); done'


@contextlib.contextmanager
def datagrams(path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.settimeout(patience(20))
        server.bind(str(path))
        yield server


def options(**named: str) -> list[str]:
    return [part for name, value in named.items() for part in ("--log-opt", f"{name.replace('_', '-')}={value}")]


def log_files(daemon: Daemon, name: str) -> list[Path]:
    directory = daemon.host.place / "data" / "containers" / daemon.ok("inspect", "-f", "{{.Id}}", name)
    return sorted(path for path in directory.iterdir() if ".log" in path.name)


def test_labels_variables_and_tag_are_in_each_record_and_in_details(daemon: Daemon) -> None:
    chosen = options(labels="a", env_regex="^FO", tag="lg/{{.Name}}")
    daemon.ok("run", "--name", "at", "-e", "FOO=b r", "--label", "a=1", *chosen, "busybox", "echo", "hi")
    assert daemon.ok("logs", "--details", "at") == "FOO=b+r,a=1,tag=lg%2Fat hi"
    assert daemon.ok("logs", "at") == "hi"
    (path,) = log_files(daemon, "at")
    assert json.loads(path.read_text())["attrs"] == {"FOO": "b r", "a": "1", "tag": "lg/at"}


def test_rotated_files_are_compressed_while_the_container_runs(daemon: Daemon) -> None:
    chosen = options(max_size="20k", max_file="40")
    script = f"{FLOOD}; while sleep 0.05; do {FLOOD.replace('2000', '100')}; done"
    daemon.ok("run", "-d", "--name", "cz", "--log-driver", "local", *chosen, "busybox", "sh", "-c", script)
    until(lambda: any(path.name.endswith(".gz") for path in log_files(daemon, "cz")), what="a compressed file")
    assert daemon.ok("inspect", "-f", "{{.LogPath}}", "cz") == ""  # of json-file alone
    assert daemon.ok("logs", "cz").splitlines()[0] == "line 0 of two thousand that are said in one go"
    assert len(daemon.ok("logs", "--tail", "1500", "cz").splitlines()) == 1500


def test_a_follower_that_stands_still_loses_no_line(daemon: Daemon, tmp_path: Path) -> None:
    chosen = options(max_size="10k", max_file="2")
    script = f"read go; {FLOOD}; {FLOOD}; {FLOOD}"
    daemon.ok("create", "-i", "--name", "sf", *chosen, "busybox", "sh", "-c", script)
    daemon.ok("start", "sf")
    with socket.socket(socket.AF_UNIX) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.settimeout(patience(30))
        client.connect(str(daemon.socket))
        client.sendall(b"GET /containers/sf/logs?stdout=1&follow=1 HTTP/1.0\r\n\r\n")
        daemon.ok("attach", "sf", input="go\n")  # ends with the container: all is said
        assert daemon.ok("wait", "sf") == "0"
        assert len(daemon.ok("logs", "sf").splitlines()) < 500
        with client.makefile("rb") as stream:
            found = re.findall(rb"line (\d+) of", stream.read())
    assert list(map(int, found)) == [*range(2000)] * 3
    until(lambda: len(log_files(daemon, "sf")) == 2, what="the kept files' end")


def test_non_blocking_logs_are_whole_when_the_container_has_ended(daemon: Daemon) -> None:
    for driver in ("json-file", "local"):
        chosen = options(mode="non-blocking", max_buffer_size="16m")
        daemon.ok("run", "--name", driver, "--log-driver", driver, *chosen, "busybox", "sh", "-c", FLOOD)
        assert len(daemon.ok("logs", driver).splitlines()) == 2000


@pytest.mark.parametrize(
    ("form", "pattern"),
    [
        ("", r"<30>[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d T\[\d+\]: hi\n"),
        ("rfc3164", r"<30>[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d \S+ T\[\d+\]: hi\n"),
        ("rfc5424", r"<30>1 \d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(Z|[+-]\d\d:\d\d) \S+ T \d+ T - hi\n"),
        ("rfc5424micro", r"<30>1 \d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}(Z|[+-]\d\d:\d\d) \S+ T \d+ T - hi\n"),
    ],
)
def test_syslog(daemon: Daemon, tmp_path: Path, form: str, pattern: str) -> None:
    with datagrams(tmp_path / "s") as server:
        chosen = options(syslog_address=f"unixgram://{tmp_path}/s", tag="T", syslog_format=form)
        daemon.ok(
            "run", "--name", "sl", "--log-driver", "syslog", *chosen, "busybox", "sh", "-c", "echo hi; echo no >&2"
        )
        assert re.fullmatch(pattern, server.recv(999).decode())
        assert server.recv(999).startswith(b"<27>")
    logged = daemon.docker("logs", "sl")
    assert (logged.out, logged.err) == ("hi\n", "no\n")
    assert [path.name for path in log_files(daemon, "sl")] == ["container-cached.log"]


def test_a_container_goes_on_while_its_syslog_is_away(daemon: Daemon, tmp_path: Path) -> None:
    chosen = options(syslog_address=f"unixgram://{tmp_path}/s", cache_disabled="true")
    with datagrams(tmp_path / "s") as server:
        daemon.ok("run", "-di", "--name", "away", "--log-driver", "syslog", *chosen, "busybox", "cat")
        daemon.ok("exec", "away", "sh", "-c", "echo first > /proc/1/fd/1")
        assert server.recv(999).endswith(b": first\n")
    os.unlink(tmp_path / "s")
    daemon.ok("exec", "away", "sh", "-c", "echo second > /proc/1/fd/1")
    until(lambda: "the log is interrupted" in daemon.log(), what="the daemon's word")
    with datagrams(tmp_path / "s") as server:
        assert server.recv(999).endswith(b": second\n")
        assert "does not support reading" in daemon.docker("logs", "away").err
        daemon.ok("rm", "-f", "away")


@pytest.mark.parametrize(
    ("driver", "chosen", "words"),
    [
        ("gelf", {}, 'error looking up logging plugin gelf: plugin "gelf" not found'),
        ("local", {"labels": "a"}, "unknown log opt 'labels' for log driver local"),
        ("json-file", {"mode": "bogus"}, "logger: logging mode not supported: bogus"),
        ("syslog", {"syslog_address": "tcp://127.0.0.1:1"},
         "failed to create task for container: failed to initialize logging driver: "
         "dial tcp 127.0.0.1:1: connect: connection refused"),
        ("journald", {}, "failed to initialize logging driver: journald is not enabled on this host"),
    ],
)  # fmt: skip
def test_refusals(daemon: Daemon, driver: str, chosen: dict[str, str], words: str) -> None:
    if driver == "journald" and Path("/run/systemd/journal/socket").exists():
        pytest.skip("this host has a journal")
    done = daemon.docker("run", "--name", "no", "--log-driver", driver, *options(**chosen), "busybox", "true")
    assert done.code == 125
    assert words in done.err


def test_none_keeps_nothing(daemon: Daemon) -> None:
    daemon.ok("run", "--name", "none", "--log-driver", "none", "busybox", "echo", "hi")
    assert "configured logging driver does not support reading" in daemon.docker("logs", "none").err
    assert log_files(daemon, "none") == []


def test_info_lists_the_drivers(daemon: Daemon) -> None:
    assert daemon.ok("info", "-f", "{{.Plugins.Log}}") == "[journald json-file local syslog]"


def test_the_daemons_own_driver_and_options() -> None:
    with daemon_on_host("--log-driver", "local", "--log-opt", "max-file=2", "--log-opt", "cache-max-file=3") as daemon:
        assert daemon.ok("info", "-f", "{{.LoggingDriver}}") == "local"
        daemon.ok("create", "--name", "aa", "busybox", "true")
        daemon.ok("create", "--name", "bb", "--log-driver", "journald", *options(tag="x"), "busybox", "true")
        config = "{{json .HostConfig.LogConfig}}"
        assert json.loads(daemon.ok("inspect", "-f", config, "aa")) == {
            "Type": "local",
            "Config": {"max-file": "2", "cache-max-file": "3"},
        }
        assert json.loads(daemon.ok("inspect", "-f", config, "bb")) == {
            "Type": "journald",
            "Config": {"tag": "x", "cache-max-file": "3"},
        }


class Journalled(Daemon):
    """A daemon with a /run of its own, in which the journal's socket is one of the test's."""

    def command(self) -> list[str]:
        script = 'mount -t tmpfs none /run; mkdir -p /run/systemd; ln -s "$0" /run/systemd/journal; exec "$@"'
        return ["unshare", "-m", "sh", "-ec", script, str(self.host.place / "journal"), *super().command()]


def test_journald() -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    host = Host()
    daemon = Journalled(host)
    try:
        (host.place / "journal").mkdir()
        with datagrams(host.place / "journal" / "socket") as server:
            daemon.start()
            daemon.ok("import", str(busybox_tar(host.place / "busybox.tar")), "busybox:latest")
            chosen = options(labels="com.example.a", tag="{{.Name}}")
            daemon.ok("run", "--name", "jd", "--label", "com.example.a=b", "--log-driver", "journald", *chosen,
                      "busybox", "echo", "hi")  # fmt: skip
            fields = dict(line.split(b"=", 1) for line in server.recv(9999).splitlines())
        expected = {"MESSAGE": "hi", "PRIORITY": "6", "CONTAINER_NAME": "jd", "CONTAINER_TAG": "jd",
                    "SYSLOG_IDENTIFIER": "jd", "IMAGE_NAME": "busybox", "COM_EXAMPLE_A": "b",
                    "CONTAINER_ID_FULL": daemon.ok("inspect", "-f", "{{.Id}}", "jd")}  # fmt: skip
        assert expected.items() <= {name.decode(): value.decode() for name, value in fields.items()}.items()
        assert daemon.ok("logs", "jd") == "hi"
    finally:
        try:
            daemon.close()
        finally:
            host.close()
