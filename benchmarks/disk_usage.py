"""How long `system df` takes: with 200 images, 50 containers (10 of them running) and 20 volumes, one of them large.

    .venv/bin/python -m benchmarks.disk_usage --rounds 100
    .venv/bin/python -m benchmarks.disk_usage --python /somewhere/else/.venv/bin/python     # another version's daemon

Needs root, the docker CLI and a static busybox. All is made for it, in a network namespace and directories of its own,
and removed again.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.own_daemon import Daemon, measure, running

IMAGES, CONTAINERS, RUNNING, VOLUMES = 200, 50, 10, 20
SHARED_LAYERS, FAMILY = 9, 10
"""Of ten layers that an image has, nine are those of ten images."""

LARGE_VOLUME, SMALL_VOLUME, WRITTEN = 50_000, 20, 50
"""Files."""


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
