"""Push to Debian's docker-registry, by the docker command and by ours."""

from __future__ import annotations

import json
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.compat.harness import Daemon
from tests.compat.images import two_platforms
from tests.compat.registry import Registry

HERE = {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine]
THERE = "s390x"


@pytest.fixture
def registry(own_daemon: Daemon) -> Iterator[Registry]:
    with Registry(own_daemon, fill=False) as running:
        yield running


def raw(registry: Registry, name: str) -> str:
    done = registry.daemon.host.run("skopeo", "inspect", "--raw", "--tls-verify=false", f"docker://{name}")
    assert done.code == 0, done.err
    return done.out


def test_an_index_goes_whole_and_comes_back_the_same(registry: Registry, tmp_path: Path) -> None:
    daemon, name = registry.daemon, f"{registry.host}/multi:1"
    two_platforms(tmp_path / "multi.tar", name, (HERE, THERE))
    daemon.ok("load", "-i", str(tmp_path / "multi.tar"))
    target = daemon.inspect(name)["Descriptor"]["digest"]
    assert f"1: digest: {target}" in daemon.ok("push", name)
    assert len(json.loads(raw(registry, name))["manifests"]) == 2
    told = json.loads(daemon.curl(f"/distribution/{name}/json").out)
    assert told["Descriptor"]["digest"] == target
    assert [platform["architecture"] for platform in told["Platforms"]] == [HERE, THERE]
    assert daemon.curl(f"/distribution/{registry.host}/multi:none/json").code == 404
    daemon.ok("rmi", name)
    daemon.ok("pull", name)
    assert daemon.inspect(name)["RepoDigests"] == [f"{registry.host}/multi@{target}"]
    for client in (daemon.docker, daemon.corten):
        done = client("push", "--platform", f"linux/{HERE}", name)
        assert done.code == 0, done.err
        assert "manifests" not in json.loads(raw(registry, name))
        missing = client("push", "--platform", "linux/riscv64", name)
        assert "does not provide the specified platform (linux/riscv64)" in missing.err


def test_what_is_not_here_is_told(registry: Registry, tmp_path: Path) -> None:
    daemon, name = registry.daemon, f"{registry.host}/part:1"
    two_platforms(tmp_path / "multi.tar", name, (HERE, THERE))
    daemon.ok("load", "--platform", f"linux/{HERE}", "-i", str(tmp_path / "multi.tar"))
    for client in (daemon.docker, daemon.corten):
        done = client("push", name)
        assert done.code == 0, done.err
        assert "only the available single-platform image was pushed" in done.out + done.err
    two_platforms(tmp_path / "multi.tar", name, (HERE, THERE), absent="riscv64")
    daemon.ok("load", "-i", str(tmp_path / "multi.tar"))
    for client in (daemon.docker, daemon.corten):
        done = client("push", name)
        assert done.code == 1
        assert "missing content" in done.err
        assert "--platform" in done.out + done.err


def test_all_tags_mounts_and_a_large_layer(registry: Registry, tmp_path: Path) -> None:
    daemon, repository = registry.daemon, f"{registry.host}/team/app"
    with tarfile.open(tmp_path / "large.tar", "w") as tar:
        (tmp_path / "zeros").touch()
        os.truncate(tmp_path / "zeros", 70 << 20)  # more than goes in one piece
        tar.add(tmp_path / "zeros", "zeros")
    daemon.ok("import", str(tmp_path / "large.tar"), f"{repository}:large")
    daemon.ok("tag", "busybox", f"{repository}:small")
    pushed = daemon.docker("push", "-a", repository)
    assert pushed.code == 0, pushed.err
    assert [line.split(":")[0] for line in pushed.lines if "digest: sha256" in line] == ["large", "small"]
    log = registry.log.read_text(errors="replace")
    assert log.count('"PATCH /v2/team/app/blobs/uploads') == 2
    assert all(
        ": Layer already exists" in line for line in daemon.corten("push", "-a", repository).lines if "y exists" in line
    )
    daemon.ok("tag", "busybox", f"{registry.host}/other:1")
    assert "Mounted from team/app" in daemon.ok("push", f"{registry.host}/other:1")
    digest = daemon.inspect(f"{repository}:large")["Descriptor"]["digest"]
    daemon.ok("rmi", f"{repository}:large")
    daemon.ok("pull", f"{repository}@{digest}")
    none = daemon.corten("push", f"{registry.host}/nothing")
    assert "An image does not exist locally with the tag" in none.err
