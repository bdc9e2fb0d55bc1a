"""`corten system check` on a real store, with a container that runs on what is damaged and a registry that heals."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.compat.harness import Daemon
from tests.compat.registry import Registry


@pytest.fixture
def registry(own_daemon: Daemon) -> Iterator[Registry]:
    with Registry(own_daemon) as running:
        own_daemon.ok("rmi", "-f", "busybox")
        own_daemon.ok("pull", "-q", running.image)
        yield running


def check(daemon: Daemon, *options: str) -> tuple[int, list[dict[str, Any]], dict[str, Any]]:
    done = daemon.corten("system", "check", "--format", "json", *options)
    told = [json.loads(line) for line in done.lines]
    assert told, done.err + daemon.log()
    return done.code, [line["Finding"] for line in told[:-1]], told[-1]["Summary"]


def blobs_by_size(daemon: Daemon) -> list[Path]:
    return sorted((daemon.host.place / "data/content/blobs/sha256").iterdir(), key=lambda path: path.stat().st_size)


def layer_files(daemon: Daemon) -> Path:
    return next(path for path in (daemon.host.place / "data/snapshots").glob("*/fs") if (path / "bin/busybox").exists())


def alter(path: Path) -> None:
    """One byte, in the middle, with the time of its last write as it was: nothing but reading can tell."""
    times = path.stat()
    with path.open("r+b") as file:
        file.seek(times.st_size // 2)
        byte = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte[0] ^ 1]))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def test_damage_of_every_kind_is_named_and_healed(registry: Registry) -> None:
    daemon = registry.daemon
    code, findings, summary = check(daemon)
    assert (code, findings, summary["Images"], summary["Unchecked"]) == (0, [], 1, 0)
    daemon.ok("run", "-d", "--name", "web", registry.image, "sleep", "1000")
    layer, blob, manifest = layer_files(daemon), blobs_by_size(daemon)[-1], blobs_by_size(daemon)[0]
    busybox = (layer / "bin/busybox").read_bytes()
    (layer / "etc/passwd").chmod(0o777)
    (layer / "bin/wget").unlink()
    (layer / "bin/new").symlink_to("busybox")
    alter(blob)
    os.truncate(manifest, 0)
    code, findings, _ = check(daemon)
    assert (code, sorted(finding["Kind"] for finding in findings)) == (1, ["blob", "blob"])
    code, findings, summary = check(daemon, "--repair")
    assert (code, summary["Damaged"], summary["Healed"]) == (1, 3, 2)
    left = findings[-1]
    assert (left["Kind"], left["Running"], left["Images"]) == ("layer", ["web"], [registry.image])
    assert sorted((damage["Path"], damage["What"]) for damage in left["Paths"]) == [
        ("/bin/new", "does not belong to the layer"),
        ("/bin/wget", "is missing"),
        ("/etc/passwd", "has mode 0777 and should have 0644"),
    ]
    assert left["Reason"] == "stop the containers that run on it first: web"
    daemon.ok("stop", "-t", "0", "web")
    told = daemon.corten("system", "check", "--repair")
    assert told.code == 0, told.out
    assert told.lines[-1] == "Damaged: 1, healed: 1, left: 0."
    assert check(daemon)[:2] == (0, [])
    daemon.ok("start", "web")
    assert daemon.ok("exec", "web", "wget", "--help") == ""
    assert (layer_files(daemon) / "bin/busybox").read_bytes() == busybox


def test_a_pull_heals_blobs_that_were_cut_or_written_to(registry: Registry) -> None:
    daemon = registry.daemon
    for harm in ("cut", "written to"):
        blob = blobs_by_size(daemon)[-1]
        whole = blob.read_bytes()
        if harm == "cut":
            os.truncate(blob, 0)
        else:
            with blob.open("r+b") as file:
                file.write(b"!")
        assert "Downloaded newer image" in daemon.ok("pull", registry.image), harm
        assert blob.read_bytes() == whole
        assert "up to date" in daemon.ok("pull", registry.image), harm


def test_a_pull_heals_a_layer_that_lost_its_files(registry: Registry) -> None:
    daemon = registry.daemon
    daemon.ok("create", "--name", "late", registry.image, "true")
    daemon.stop()
    layer_files(daemon).parent.rename(daemon.host.place / "lost")
    daemon.start()
    daemon.ok("pull", "-q", registry.image)
    assert check(daemon)[:2] == (0, [])
    daemon.ok("start", "-a", "late")


def test_docker_clients_meet_no_such_endpoint_by_accident(registry: Registry) -> None:
    answer = registry.daemon.curl("/v1.44/system/check", "GET")
    assert answer.code == 404
