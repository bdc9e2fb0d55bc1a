"""What is wrong is said in Docker's words or clearer ones, nothing is left half made, and the next try works."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import http.client
import io
import json
import os
import signal
import socket
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any

import pytest

from tests.compat.harness import Daemon, Host, Outcome, busybox_tar
from tests.waiting import until

# A registry of one image whose layer goes wrong as its name says; run in the daemon's network namespace.
LYING_REGISTRY = Path(__file__).with_name("lying_registry.py")


def message(answer: Any) -> str:
    return str(json.loads(answer.out)["message"])


def nothing_left(daemon: Daemon) -> bool:
    """No container, and no image but busybox."""
    return daemon.ok("ps", "-aq") == "" and daemon.ok("images", "--format", "{{.Repository}}").split() == ["busybox"]


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        (["run", "--pull", "never", "no-such", "true"], 125, "No such image: no-such:latest"),
        (["run", "busybox", "no-such"], 127, '"no-such": executable file not found in $PATH'),
        (["run", "busybox", "/etc/notexec"], 126, "exec format error|permission denied"),
        (["run", "-u", "ghost", "busybox", "true"], 125, "unable to find user ghost: no matching entries in passwd"),
        (["run", "-u", "0:ghost", "busybox", "true"], 125, "unable to find group ghost"),
        (["run", "-m", "5m", "busybox", "true"], 125, "Minimum memory limit allowed is 6MB"),
        (["run", "-m", "64m", "--memory-swap", "32m", "busybox", "true"], 125, "Minimum memoryswap limit should be"),
        (["run", "--cpus", "900", "busybox", "true"], 125, "Range of CPUs is from 0.01 to"),
        (["run", "--cpuset-cpus", "0-900", "busybox", "true"], 125, "Requested CPUs are not available"),
        (["run", "--network", "nowhere", "busybox", "true"], 125, "network nowhere not found"),
        (["run", "--network", "container:nobody", "busybox", "true"], 125, "No such container: nobody"),
        (["run", "--runtime", "nothing", "busybox", "true"], 125, "unknown or invalid runtime name: nothing"),
        (["run", "-w", "relative", "busybox", "true"], 125, "the working directory 'relative' is invalid"),
        (["run", "-v", "a:relative", "busybox", "true"], 125, "mount path must be absolute"),
        (["run", "-v", "a b:/x", "busybox", "true"], 125, "includes invalid characters for a local volume name"),
        (["run", "--name", "no/slash", "busybox", "true"], 125, "Invalid container name (no/slash)"),
        (["run", "--cap-add", "NONSENSE", "busybox", "true"], 125, 'unknown capability: "CAP_NONSENSE"'),
        (["run", "--security-opt", "what=ever", "busybox", "true"], 125, "what"),
        (["run", "--rm", "--log-driver", "nothing", "busybox", "true"], 125, "nothing"),
        (["exec", "nobody", "true"], 1, "No such container: nobody"),
        (["start", "nobody"], 1, "No such container: nobody"),
        (["rmi", "no-such"], 1, "No such image: no-such"),
        (["tag", "no-such", "x"], 1, "No such image: no-such"),
        (["tag", "busybox", "UPPER"], 1, "must be lowercase"),
        (["pull", "a@sha256:1"], 1, "invalid reference format|invalid checksum digest"),
        (["save", "no-such"], 1, "No such image: no-such|reference does not exist"),
        (["inspect", "no-such"], 1, "no such object: no-such"),
    ],
    ids=lambda value: " ".join(value[-4:]) if isinstance(value, list) else None,
)
def test_the_command_line_is_told(daemon: Daemon, args: list[str], code: int, words: str) -> None:
    done = daemon.docker(*args)
    assert any(word.lower() in done.err.lower() for word in words.split("|")), done.err
    assert done.code == code, done.err
    # What was created and could not be started stays, as with Docker; it does not run.
    assert daemon.ok("ps", "-q") == ""


@pytest.mark.parametrize(
    ("method", "path", "body", "code", "words"),
    [
        ("POST", "/containers/create", b"{", 400, "invalid JSON"),
        ("POST", "/containers/create", b"[]", 400, ""),
        ("POST", "/containers/create", b"", 400, ""),
        ("POST", "/containers/create", {"Image": ""}, 400, ""),
        ("POST", "/containers/create", {"Image": "no-such"}, 404, "No such image: no-such:latest"),
        ("POST", "/containers/create", {"Image": "Bad Name"}, 400, "invalid reference format"),
        ("POST", "/containers/create", {"Image": "busybox", "Env": ["=x"]}, 400, ""),
        ("POST", "/containers/create?name=-x", {"Image": "busybox"}, 400, "Invalid container name"),
        (
            "POST",
            "/containers/create",
            {"Image": "busybox", "HostConfig": {"PortBindings": {"80/tcp": [{"HostPort": "99999"}]}}},
            400,
            "",
        ),
        (
            "POST",
            "/containers/create",
            {"Image": "busybox", "HostConfig": {"RestartPolicy": {"Name": "sometimes"}}},
            400,
            "",
        ),
        (
            "POST",
            "/containers/create",
            {"Image": "busybox", "HostConfig": {"Mounts": [{"Type": "bind", "Source": "/no/such", "Target": "/x"}]}},
            400,
            "bind source path does not exist: /no/such",
        ),
        ("GET", "/containers/json?filters={", None, 400, "invalid filter"),
        ("GET", "/containers/json?limit=x", None, 400, ""),
        ("GET", "/containers/nobody/json", None, 404, "No such container: nobody"),
        ("POST", "/containers/nobody/kill", None, 404, "No such container: nobody"),
        ("GET", "/exec/nothing/json", None, 404, "No such exec instance: nothing"),
        ("POST", "/images/create?fromImage=BAD", None, 400, "invalid reference format"),
        ("GET", "/v9.99/info", None, 400, "too new|is too"),
        ("GET", "/no/such/page", None, 404, "page not found"),
    ],
)
def test_the_api_is_told(daemon: Daemon, method: str, path: str, body: Any, code: int, words: str) -> None:
    answer = daemon.curl(path, method, body)
    assert answer.code == code, answer.out
    assert any(word.lower() in message(answer).lower() for word in words.split("|")), answer.out
    assert message(answer)
    assert nothing_left(daemon)


def test_a_body_that_is_too_large(daemon: Daemon) -> None:
    body = b'{"Image": "busybox", "Hostname": "' + b"x" * (17 << 20) + b'"}'
    answer = daemon.curl("/containers/create", "POST", body)
    assert answer.code in (400, 413), answer.out[:200]
    assert nothing_left(daemon)


def test_a_port_that_a_foreign_process_holds(daemon: Daemon) -> None:
    holder = subprocess.Popen(daemon.host.inside("busybox", "nc", "-l", "-p", "8400"), stdin=subprocess.PIPE)
    try:
        until(lambda: ":8400" in daemon.host.run("ss", "-ltn").out, what="the foreign listener")
        done = daemon.docker("run", "-d", "--name", "later", "-p", "8400:80", "busybox", "sleep", "100")
        assert done.code == 125
        assert "address already in use" in done.err
        assert daemon.inspect("later")["State"]["Status"] == "created"
    finally:
        holder.kill()
        holder.wait()
        assert holder.stdin is not None
        holder.stdin.close()
    daemon.ok("start", "later")
    assert daemon.inspect("later")["State"]["Running"] is True


def test_a_started_container_that_cannot_start_holds_nothing(daemon: Daemon) -> None:
    bad = daemon.docker("run", "--name", "bad", "-p", "8401:80", "busybox", "no-such")
    assert bad.code == 127
    state = daemon.inspect("bad")
    assert (state["State"]["Status"], state["State"]["ExitCode"]) == ("created", 127)
    assert state["NetworkSettings"]["Ports"] == {}
    daemon.ok("run", "-d", "-p", "8401:80", "busybox", "sleep", "100")


def test_what_fails_inside_the_daemon_is_not_blamed_on_the_command(daemon: Daemon) -> None:
    source = daemon.host.place / "vanishing"
    source.mkdir()
    daemon.ok("create", "--name", "gone", "--mount", f"type=bind,src={source},dst=/x", "busybox", "true")
    source.rmdir()
    done = daemon.docker("start", "gone")
    assert done.code == 1
    assert str(source) in done.err
    run_like = daemon.curl("/containers/gone/start", "POST")
    # The client makes 127 of "executable file not found" and "no such file or directory".
    assert run_like.code in (400, 500)
    assert daemon.inspect("gone")["State"]["ExitCode"] not in (126, 127)
    source.mkdir()
    daemon.ok("start", "-a", "gone")


def tar_of(*entries: tuple[tarfile.TarInfo, bytes]) -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        for info, content in entries:
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return data.getvalue()


def entry(name: str, content: bytes = b"", **fields: Any) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    for key, value in fields.items():
        setattr(info, key, value)
    return info, content


def image_archive(layer: bytes, *, claimed: bytes | None = None) -> bytes:
    """An archive as `docker save` writes it, of one layer; `claimed` is what the configuration says that it is."""
    diff = hashlib.sha256(layer if claimed is None else claimed).hexdigest()
    config = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{diff}"]},
        }
    ).encode()
    manifest = json.dumps([{"Config": "c.json", "RepoTags": ["evil:1"], "Layers": ["l/layer.tar"]}]).encode()
    return tar_of(entry("c.json", config), entry("l/layer.tar", layer), entry("manifest.json", manifest))


@pytest.mark.parametrize("length", [0, 100, 700, 3000])
def test_a_truncated_archive(daemon: Daemon, length: int) -> None:
    whole = image_archive(tar_of(entry("f", b"x" * 1000)))
    done = daemon.docker("load", "-i", str(written(daemon, whole[:length])))
    assert done.code == 1
    assert done.err.strip()
    assert nothing_left(daemon)
    daemon.ok("load", "-i", str(written(daemon, whole)))
    daemon.ok("rmi", "evil:1")


def written(daemon: Daemon, data: bytes) -> Path:
    path = daemon.host.place / "archive.tar"
    path.write_bytes(data)
    return path


def test_a_layer_that_is_not_what_the_configuration_says(daemon: Daemon) -> None:
    archive = image_archive(tar_of(entry("f", b"1")), claimed=b"another")
    done = daemon.docker("load", "-i", str(written(daemon, archive)))
    assert done.code == 1
    assert "sha256" in done.err or "digest" in done.err
    assert nothing_left(daemon)


def test_a_truncated_import(daemon: Daemon) -> None:
    data = tar_of(entry("f", b"x" * 5000))[:2000]
    done = daemon.docker("import", str(written(daemon, data)), "evil:2")
    assert done.code == 1
    assert nothing_left(daemon)


def test_a_tar_that_climbs_out_stays_inside(daemon: Daemon) -> None:
    outside = daemon.host.place / "outside"
    outside.mkdir()
    target = str(outside)
    layer = tar_of(
        entry("../../../../../../../" + target + "/one", b"1"),
        entry("link", type=tarfile.SYMTYPE, linkname=target),
        entry("link/two", b"2"),
        entry("up", type=tarfile.SYMTYPE, linkname="../../../../../../../../" + target),
        entry("up/three", b"3"),
        entry("hard", type=tarfile.LNKTYPE, linkname="/etc/hostname"),
    )
    done = daemon.docker("load", "-i", str(written(daemon, image_archive(layer))))
    assert list(outside.iterdir()) == []
    if done.code == 0:
        daemon.ok("rmi", "evil:1")
    assert nothing_left(daemon)


def test_device_nodes_in_a_layer_open_nothing(daemon: Daemon) -> None:
    binary = Path("/bin/busybox").read_bytes()
    layer = tar_of(
        entry("sh", binary, mode=0o755),
        entry("disk", type=tarfile.BLKTYPE, devmajor=8, devminor=0, mode=0o666),
        entry("kmsg", type=tarfile.CHRTYPE, devmajor=1, devminor=11, mode=0o666),
    )
    daemon.ok("load", "-i", str(written(daemon, image_archive(layer))))
    done = daemon.docker("run", "--rm", "evil:1", "/sh", "-c", "echo x </disk; echo x </kmsg")
    assert done.err.lower().count("not permitted") + done.err.lower().count("denied") >= 2, done.err
    daemon.ok("rmi", "evil:1")


@contextlib.contextmanager
def lying_registry(daemon: Daemon, port: int, *faults: str) -> Iterator[IO[bytes]]:
    command = daemon.host.inside(sys.executable, str(LYING_REGISTRY), str(port), *faults)
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        yield process.stdout
        process.kill()


FAULTS = {
    5061: "reset",
    5062: "garbage",
    5063: "alter",
    5064: "truncate",
    5065: "manifest-garbage",
    5066: "manifest-alter",
}


def test_registries_that_misbehave(daemon: Daemon) -> None:
    """All at once, as a broken connection is tried again for some seconds."""

    def pull(port: int) -> Outcome:
        with lying_registry(daemon, port, FAULTS[port]):
            return daemon.docker("pull", f"127.0.0.1:{port}/x:1")

    with ThreadPoolExecutor() as pool:
        outcomes = dict(zip(FAULTS.values(), pool.map(pull, FAULTS), strict=True))
    assert {fault: done.code for fault, done in outcomes.items()} == dict.fromkeys(FAULTS.values(), 1)
    for fault, done in outcomes.items():
        words = {"alter": "sha256:", "manifest-alter": "manifest verification failed"}.get(fault, "")
        assert done.err.strip(), fault
        assert words in done.err, fault
    assert nothing_left(daemon)
    with lying_registry(daemon, 5061):
        daemon.ok("pull", "127.0.0.1:5061/x:1")
    daemon.ok("rmi", "127.0.0.1:5061/x:1")


def test_a_pull_from_a_registry_that_stalls_ends_with_its_client(daemon: Daemon) -> None:
    with lying_registry(daemon, 5055, "stall"):
        with pytest.raises(subprocess.TimeoutExpired):
            daemon.docker("pull", "127.0.0.1:5055/x:1", timeout=2)
        assert nothing_left(daemon)
    with lying_registry(daemon, 5055):
        daemon.ok("pull", "127.0.0.1:5055/x:1")
    daemon.ok("rmi", "127.0.0.1:5055/x:1")


def test_a_broken_off_pull_goes_on_after_the_daemon_died(own_daemon: Daemon) -> None:
    daemon = own_daemon
    ingests = daemon.host.place / "data/content/ingest"

    def came() -> bool:
        return any(path.stat().st_size >= 1 << 20 for path in ingests.iterdir())

    with lying_registry(daemon, 5071, "stall-once") as ranges:
        environment = {**os.environ, "DOCKER_HOST": daemon.url, "DOCKER_CONFIG": str(daemon.host.place / "dc")}
        pull = daemon.host.inside("docker", "pull", "127.0.0.1:5071/x:1")
        with subprocess.Popen(pull, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
            until(came, what="the first megabyte")
            process.send_signal(signal.SIGINT)
            process.communicate()
        assert process.returncode != 0
        daemon.kill()
        daemon.start()
        daemon.ok("pull", "127.0.0.1:5071/x:1")
        start = int(ranges.readline().removeprefix(b"bytes=").rstrip(b"-\n"))
        assert start >= 1 << 20
        assert list(ingests.iterdir()) == []


@pytest.fixture
def small_disk() -> Iterator[Daemon]:
    """A daemon whose data root is 24 MB large."""
    host = Host()
    data = host.place / "data"
    data.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "corten-test", str(data)], check=True)
    daemon = Daemon(host)
    try:
        daemon.start()
        yield daemon
        daemon.close()
    finally:
        daemon.stop()
        subprocess.run(["umount", str(data)], check=True)
        host.close()


def test_a_full_disk(small_disk: Daemon) -> None:
    daemon = small_disk
    daemon.ok("import", str(busybox_tar(daemon.host.place / "busybox.tar")), "busybox:latest")
    big = tar_of(entry("big", gzip.compress(b"") + bytes(30 << 20)))
    done = daemon.docker("import", str(written(daemon, big)), "big:1")
    assert done.code == 1
    assert "no space left on device" in done.err
    assert daemon.ok("images", "--format", "{{.Repository}}").split() == ["busybox"]
    loaded = daemon.docker("load", "-i", str(written(daemon, image_archive(big))))
    assert loaded.code == 1
    assert "no space left on device" in loaded.err
    assert nothing_left(daemon)
    filled = daemon.docker("run", "--name", "filler", "busybox", "dd", "if=/dev/zero", "of=/f", "bs=1M")
    assert filled.code == 1
    assert "No space left" in filled.err
    failed = daemon.docker("run", "-d", "--name", "more", "busybox", "sleep", "100")
    daemon.ok("rm", "-f", "filler", *(["more"] if failed.code == 0 else []))
    until(lambda: daemon.docker("run", "--rm", "--name", "after", "busybox", "echo", "ok").out == "ok\n", seconds=5)


def test_a_client_that_breaks_off_in_the_middle(daemon: Daemon) -> None:
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(str(daemon.socket))
    sock.sendall(b"POST /images/load HTTP/1.1\r\nHost: d\r\nContent-Length: 100000\r\n\r\n" + b"x" * 600)
    sock.close()
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(str(daemon.socket))
    sock.sendall(b"\x00\x01 nonsense\r\n\r\n")
    sock.settimeout(10)
    answer = http.client.HTTPResponse(sock)
    answer.begin()
    assert answer.status == 400
    answer.close()
    sock.close()
    assert nothing_left(daemon)
