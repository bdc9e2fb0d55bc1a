"""How long `system df` takes: with 200 images, 50 containers (10 of them running) and 20 volumes, one of them large.

    .venv/bin/python -m benchmarks.disk_usage --rounds 100
    .venv/bin/python -m benchmarks.disk_usage --python /somewhere/else/.venv/bin/python     # another version's daemon

Needs root, the docker CLI and a static busybox. All is made for it, in a network namespace and directories of its own,
and removed again.
"""

from __future__ import annotations

import argparse
import hashlib
import http.client
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

IMAGES, CONTAINERS, RUNNING, VOLUMES = 200, 50, 10, 20
SHARED_LAYERS, FAMILY = 9, 10
"""Of ten layers that an image has, nine are those of ten images."""

LARGE_VOLUME, SMALL_VOLUME, WRITTEN = 50_000, 20, 50
"""Files."""


@dataclass
class Daemon:
    python: str
    place: Path
    netns: str
    process: subprocess.Popen[bytes] | None = None

    @property
    def socket(self) -> str:
        return f"{self.place}/s"

    def command(self, *more: str) -> list[str]:
        roots = ["--data-root", f"{self.place}/data", "--exec-root", f"{self.place}/run"]
        inside = ["nsenter", f"--net=/run/netns/{self.netns}", self.python, "-m", "corten.daemon.main"]
        return [*inside, "-H", f"unix://{self.socket}", *roots, *more]

    def start(self) -> None:
        with (self.place / "log").open("ab") as log:
            self.process = subprocess.Popen(self.command(), stdout=log, stderr=log, cwd="/")
        until = time.monotonic() + 60
        while True:
            try:
                self.call("GET", "/_ping")
            except OSError:
                if time.monotonic() > until:
                    raise
                time.sleep(0.05)
            else:
                return

    def stop(self) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait()

    def call(self, method: str, path: str, body: Any = None) -> Any:
        connection = http.client.HTTPConnection("x")
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.connect(self.socket)
        data = body if isinstance(body, bytes) else json.dumps(body).encode() if body is not None else None
        headers = {"Content-Type": "application/x-tar" if isinstance(body, bytes) else "application/json"}
        connection.request(method, path, data, headers)
        answer = connection.getresponse()
        text = answer.read()
        connection.close()
        if answer.status >= 300 and answer.status != 304:
            raise SystemExit(f"{method} {path}: {answer.status} {text[:300]!r}")
        return json.loads(text) if text.startswith((b"{", b"[")) and b"\r\n" not in text else text


@contextmanager
def running(python: str) -> Iterator[Daemon]:
    name = f"df{os.getpid()}"
    place = Path(tempfile.mkdtemp(prefix="corten-bench-", dir="/var/tmp"))
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        subprocess.run(["ip", "-n", name, "link", "set", "lo", "up"], check=True)
        daemon = Daemon(python, place, name)
        daemon.start()
        try:
            yield daemon
        finally:
            daemon.stop()
            subprocess.run(daemon.command("--cleanup"), check=False, cwd="/")
    finally:
        subprocess.run(["ip", "netns", "del", name], check=True)
        shutil.rmtree(place)


class Archive:
    """A Docker archive that is written entry by entry."""

    def __init__(self) -> None:
        self.buffer = io.BytesIO()
        self.tar = tarfile.open(fileobj=self.buffer, mode="w")  # noqa: SIM115 - closed by `data`
        self.manifest: list[dict[str, Any]] = []

    def add(self, name: str, data: bytes) -> None:
        info = tarfile.TarInfo(name)
        info.size = len(data)
        self.tar.addfile(info, io.BytesIO(data))

    def data(self) -> bytes:
        self.add("manifest.json", json.dumps(self.manifest).encode())
        self.tar.close()
        return self.buffer.getvalue()


def layer(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(data), 0o755
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def images() -> bytes:
    archive, busybox = Archive(), Path("/bin/busybox").read_bytes()
    names: dict[str, str] = {}
    for at in range(IMAGES):
        layers = [layer({"bin/busybox": busybox})] if at == 0 else []
        while len(layers) < SHARED_LAYERS:
            layers.append(layer({f"shared/{at // FAMILY}/{len(layers)}": b"x" * 5000}))
        layers.append(layer({f"own/{at}": b"y" * 5000}))
        diff_ids = [f"sha256:{hashlib.sha256(one).hexdigest()}" for one in layers]
        for diff_id, one in zip(diff_ids, layers, strict=True):
            if diff_id not in names:
                names[diff_id] = f"{diff_id[7:]}/layer.tar"
                archive.add(names[diff_id], one)
        config = {
            "architecture": "amd64",
            "os": "linux",
            "config": {},
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        }
        archive.add(f"{at}.json", json.dumps(config).encode())
        entry = {"Config": f"{at}.json", "RepoTags": [f"image:{at}"], "Layers": [names[one] for one in diff_ids]}
        archive.manifest.append(entry)
    return archive.data()


def fill(daemon: Daemon) -> None:
    daemon.call("POST", "/images/load?quiet=1", images())
    for at in range(VOLUMES):
        volume = daemon.call("POST", "/volumes/create", {"Name": f"volume{at}"})
        for file in range(SMALL_VOLUME if at else LARGE_VOLUME):
            Path(volume["Mountpoint"], str(file)).write_bytes(b"z")
    script = (
        f"i=0; while [ $i -lt {WRITTEN} ]; do echo x > /w$i; i=$((i+1)); done; while :; do /bin/busybox sleep 99; done"
    )
    for at in range(CONTAINERS):
        mounts = [f"volume{at % VOLUMES}:/data"]
        body = {"Image": "image:0", "Cmd": ["/bin/busybox", "sh", "-c", script], "HostConfig": {"Binds": mounts}}
        body["HostConfig"]["NetworkMode"] = "none"  # type: ignore[index] # it is a dictionary
        id = daemon.call("POST", f"/containers/create?name=container{at}", body)["Id"]
        if at < RUNNING:
            daemon.call("POST", f"/containers/{id}/start")


def measure(name: str, rounds: int, work: Callable[[], object]) -> None:
    took = []
    for _ in range(rounds):
        begin = time.perf_counter()
        work()
        took.append((time.perf_counter() - begin) * 1e3)
    took.sort()
    print(
        f"{name:42} p50 {took[len(took) // 2]:7.1f} ms   p99 {took[min(int(len(took) * 0.99), len(took) - 1)]:7.1f} ms"
    )


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--rounds", type=int, default=100)
    options.add_argument("--python", default=sys.executable, help="the interpreter of the daemon and the corten CLI")
    chosen = options.parse_args()
    with running(chosen.python) as daemon:
        fill(daemon)
        environment = {
            **os.environ,
            "DOCKER_HOST": f"unix://{daemon.socket}",
            "DOCKER_CONFIG": f"{daemon.place}/config",
        }

        def cli(*command: str) -> Callable[[], object]:
            return lambda: subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL, cwd="/")

        usage = daemon.call("GET", "/v1.44/system/df")
        found = {kind: len(usage[kind]) for kind in ("Images", "Containers", "Volumes")}
        print(f"{found}, volumes {sum(volume['UsageData']['Size'] for volume in usage['Volumes']) >> 20} MiB")
        for path in ("/v1.44/system/df", "/v1.52/system/df", "/v1.52/system/df?verbose=1"):
            measure(f"GET {path}", chosen.rounds, lambda path=path: daemon.call("GET", path))  # type: ignore[misc]
        corten = (chosen.python, "-m", "corten.cli.main")
        for command in (("docker",), corten):
            for more in ((), ("-v",)):
                measure(
                    " ".join([Path(command[-1]).name, "system df", *more]),
                    max(chosen.rounds // 5, 3),
                    cli(*command, "system", "df", *more),
                )
        daemon.stop()
        daemon.start()
        measure("GET /v1.44/system/df, first after a start", 1, lambda: daemon.call("GET", "/v1.44/system/df"))


if __name__ == "__main__":
    main()
