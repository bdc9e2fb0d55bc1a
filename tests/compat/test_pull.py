"""Pull from a real registry, run, and be told what is wrong with a bad one."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.compat.harness import Daemon
from tests.compat.registry import Registry


@pytest.fixture
def registry(own_daemon: Daemon) -> Iterator[Registry]:
    with Registry(own_daemon) as running:
        yield running


def test_pull_run_push_and_again(registry: Registry) -> None:
    daemon = registry.daemon
    daemon.ok("rmi", "-f", "busybox")
    pulled = daemon.ok("pull", registry.image)
    assert "Status: Downloaded newer image for 127.0.0.1:5000/test/box:1" in pulled
    assert daemon.ok("run", "--rm", registry.image, "echo", "hi") == "hi"
    assert "Image is up to date" in daemon.ok("pull", registry.image)
    digest = daemon.inspect(registry.image)["RepoDigests"][0]
    daemon.ok("rmi", "-f", registry.image)
    assert daemon.ok("run", "--rm", digest, "echo", "by digest") == "by digest"
    daemon.ok("tag", digest, "127.0.0.1:5000/test/again:1")
    assert digest.split("@")[1] in daemon.ok("push", "127.0.0.1:5000/test/again:1")


def test_run_pulls_what_is_missing(registry: Registry) -> None:
    done = registry.daemon.docker("run", "--rm", registry.image, "echo", "pulled")
    assert done.out == "pulled\n"
    assert f"Unable to find image '{registry.image}' locally" in done.err


def test_all_tags_and_quiet(registry: Registry) -> None:
    daemon = registry.daemon
    name = "127.0.0.1:5000/test/box"
    daemon.ok("tag", "busybox", f"{name}:2")
    daemon.ok("push", "-q", f"{name}:2")
    daemon.ok("rmi", "-f", "busybox", f"{name}:2")
    for program in (daemon.docker, daemon.corten):
        told = program("pull", "-a", name)
        assert told.code == 0, told.err
        assert [line for line in told.lines if "Pulling from" in line] == [
            "1: Pulling from test/box",
            "2: Pulling from test/box",
        ]
        assert told.lines[-2:] == [f"Status: Downloaded newer image for {name}", name]
        assert program("pull", "-a", "-q", name).lines == [name]
        assert program("pull", "-q", f"{name}:2").lines == [f"{name}:2"]
        assert sorted(daemon.ok("images", "--format", "{{.Tag}}", name).split()) == ["1", "2"]
        daemon.ok("rmi", "-f", f"{name}:1", f"{name}:2")
    nothing = daemon.docker("pull", "-a", "127.0.0.1:5000/test/nothing")
    assert nothing.code == 1
    assert "repository name not known to registry" in nothing.err


def test_platforms_of_an_index_side_by_side(registry: Registry) -> None:
    daemon = registry.daemon
    name = "127.0.0.1:5000/test/multi"
    tar = daemon.host.place / "busybox.tar"
    for architecture in ("amd64", "arm64"):
        daemon.ok(
            "import", "--platform", f"linux/{architecture}", "-m", architecture, str(tar), f"{name}:{architecture}"
        )
        daemon.ok("push", "-q", f"{name}:{architecture}")
    daemon.ok("manifest", "create", "--insecure", f"{name}:1", f"{name}:amd64", f"{name}:arm64")
    daemon.ok("manifest", "push", "--insecure", f"{name}:1")
    daemon.ok("rmi", "-f", "busybox", f"{name}:amd64", f"{name}:arm64")
    for architecture in ("arm64", "amd64", "arm64"):
        daemon.ok("pull", "--platform", f"linux/{architecture}", f"{name}:1")
        assert daemon.inspect(f"{name}:1")["Architecture"] == architecture
    ran = daemon.ok("run", "--rm", "--pull", "never", "--platform", "linux/amd64", f"{name}:1", "echo", "here")
    assert ran.splitlines()[-1] == "here"
    daemon.ok("pull", f"{name}:1")
    assert daemon.inspect(f"{name}:1")["Architecture"] == "amd64"
    none = daemon.docker("pull", "--platform", "linux/s390x", f"{name}:1")
    assert "no matching manifest for linux/s390x in the manifest list entries" in none.err


def test_two_pulls_at_once_download_a_layer_once(registry: Registry) -> None:
    daemon = registry.daemon
    again = "127.0.0.1:5000/test/again:1"
    daemon.ok("tag", "busybox", again)
    daemon.ok("push", "-q", again)
    daemon.ok("rmi", "-f", "busybox", again)
    with ThreadPoolExecutor() as pool:
        assert [done.code for done in pool.map(lambda ref: daemon.docker("pull", ref), (registry.image, again))] == [
            0,
            0,
        ]
    (layer,) = json.loads(daemon.host.run("skopeo", "inspect", "--raw", "--tls-verify=false", f"docker://{again}").out)[
        "layers"
    ]
    fetched = re.findall(rf'"GET /v2/\S+/blobs/{layer["digest"]} HTTP', registry.log.read_text(errors="replace"))
    assert len(fetched) == 1


def test_an_unknown_tag_and_an_unreachable_registry(registry: Registry) -> None:
    daemon = registry.daemon
    missing = daemon.docker("pull", "127.0.0.1:5000/test/box:no")
    assert missing.code == 1
    assert "manifest unknown" in missing.err or "not found" in missing.err
    refused = daemon.docker("pull", "127.0.0.1:5999/x")
    assert refused.code == 1
    assert "connection refused" in refused.err


def test_skopeo_made_images_in_both_formats(registry: Registry) -> None:
    daemon = registry.daemon
    for form in ("oci", "v2s2"):
        target = f"127.0.0.1:5000/test/{form}:1"
        copied = daemon.host.run(
            "skopeo", "--insecure-policy", "copy", "-q", "--format", form, "--src-tls-verify=false",
            "--dest-tls-verify=false", f"docker://{registry.image}", f"docker://{target}",
        )  # fmt: skip
        assert copied.code == 0, copied.err
        assert daemon.ok("run", "--rm", target, "echo", form).splitlines()[-1] == form


def test_a_damaged_blob_in_the_registry_is_refused(registry: Registry) -> None:
    daemon = registry.daemon
    manifest = json.loads(
        daemon.host.run("skopeo", "inspect", "--raw", "--tls-verify=false", f"docker://{registry.image}").out
    )
    digest = manifest["layers"][0]["digest"].split(":")[1]
    daemon.ok("rmi", "-f", "busybox")
    data = registry.storage / "docker/registry/v2/blobs/sha256" / digest[:2] / digest / "data"
    good = data.read_bytes()
    data.write_bytes(good[:100] + b"x" + good[101:])
    refused = daemon.docker("pull", registry.image)
    assert refused.code == 1
    assert daemon.ok("images", "-q") == ""
    data.write_bytes(good)
    daemon.ok("pull", registry.image)


def test_corten_pulls_and_runs_too(registry: Registry) -> None:
    done = registry.daemon.corten("run", "--rm", registry.image, "echo", "ours")
    assert done.out == "ours\n", done.err
