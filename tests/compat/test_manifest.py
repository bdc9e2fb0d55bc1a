"""`docker manifest` and `corten manifest` at Debian's docker-registry, with images that Corten pushed and pulls.

Both commands speak to the registry themselves; the daemon is told to listen elsewhere while they do.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from tests import docker_client
from tests.compat.harness import Outcome, daemon_on_host
from tests.compat.images import OCI_INDEX, two_platforms
from tests.compat.registry import Registry

HERE = {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine]
THERE = "s390x"
HOST = Registry.host
APP, OTHER, PLAIN, MULTI = f"{HOST}/app:{HERE}", f"{HOST}/other/app:{THERE}", f"{HOST}/plain:1", f"{HOST}/multi:1"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
CLIENTS = [
    pytest.param(
        "docker",
        marks=pytest.mark.skipif(
            docker_client.major_version() < 28, reason="docker of old has another store for lists"
        ),
    ),
    "corten",
]


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """With an image for this machine, one for another, both in an index, and busybox with Docker's own media types."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    with daemon_on_host() as daemon, Registry(daemon, fill=False) as running:
        tar = two_platforms(tmp_path_factory.mktemp("images") / "multi.tar", MULTI, (HERE, THERE))
        daemon.ok("load", "-i", str(tar))
        daemon.ok("push", MULTI)
        for name, architecture in ((APP, HERE), (OTHER, THERE)):
            daemon.ok("tag", MULTI, name)
            daemon.ok("push", "--platform", f"linux/{architecture}", name)
            daemon.ok("rmi", name)
        daemon.ok("rmi", MULTI)
        source, copy = f"docker://{APP}", f"docker://{PLAIN}"
        options = ("--src-tls-verify=false", "--dest-tls-verify=false", "--format", "v2s2")
        done = daemon.host.run("skopeo", "copy", *options, source, copy)
        assert done.code == 0, done.err
        yield running


@pytest.fixture(autouse=True)
def _no_lists(registry: Registry) -> Iterator[None]:
    yield
    lists = registry.daemon.host.place / "dc" / "manifests"
    assert not lists.exists() or os.listdir(lists) == [], "each test removes the lists that it made"


def manifest(registry: Registry, client: str, *args: str) -> Outcome:
    """Without any daemon."""
    place = registry.daemon.host.place
    environment = {**os.environ, "DOCKER_CONFIG": str(place / "dc"), "DOCKER_HOST": f"unix://{place}/nobody"}
    program = ["docker"] if client == "docker" else [sys.executable, "-m", "corten.cli.main"]
    return registry.daemon.host.run(*program, "manifest", *args, env=environment)


def ok(registry: Registry, client: str, *args: str) -> str:
    done = manifest(registry, client, *args)
    assert done.code == 0, f"{client} manifest {' '.join(args)}: {done.err}"
    return done.out


def raw(registry: Registry, name: str) -> dict[str, Any]:
    done = registry.daemon.host.run("skopeo", "inspect", "--raw", "--tls-verify=false", f"docker://{name}")
    assert done.code == 0, done.err
    found: dict[str, Any] = json.loads(done.out)
    return found


@pytest.mark.parametrize("client", CLIENTS)
def test_from_two_images_to_one_name_for_both(registry: Registry, client: str) -> None:
    daemon, target = registry.daemon, f"{HOST}/{client}/list:1"
    made = ok(registry, client, "create", "--insecure", target, APP, OTHER)
    assert made == f"Created manifest list {target}\n"
    ok(registry, client, "annotate", "--os-version", "10", "--os-features", "a,b", target, OTHER)
    pushed = ok(registry, client, "push", "--insecure", "--purge", target).splitlines()
    assert [line.partition("@")[0] for line in pushed[:-1]] == [f"Pushed ref {HOST}/{client}/list"] * 2
    found = raw(registry, target)
    assert found["mediaType"] == OCI_INDEX
    assert {entry["platform"]["architecture"]: entry["platform"] for entry in found["manifests"]} == {
        HERE: {"architecture": HERE, "os": "linux"},
        THERE: {"architecture": THERE, "os": "linux", "os.version": "10", "os.features": ["a", "b"]},
    }
    for architecture in (HERE, THERE):
        daemon.ok("pull", "--platform", f"linux/{architecture}", target)
        assert daemon.ok("image", "inspect", "-f", "{{.Architecture}}", target) == architecture
        daemon.ok("rmi", target)
    daemon.ok("pull", target)
    assert daemon.inspect(target)["RepoDigests"] == [f"{HOST}/{client}/list@{pushed[-1]}"]
    assert daemon.inspect(target)["Architecture"] == HERE
    daemon.ok("rmi", target)


@pytest.mark.parametrize("client", CLIENTS)
def test_lists_of_dockers_own_kind(registry: Registry, client: str) -> None:
    target = f"{HOST}/{client}/plain:2"
    ok(registry, client, "create", "--insecure", target, PLAIN)
    ok(registry, client, "push", "--insecure", "-p", target)
    assert raw(registry, target)["mediaType"] == DOCKER_LIST
    registry.daemon.ok("pull", target)
    registry.daemon.ok("rmi", target)


def test_images_of_both_kinds_make_a_list_of_dockers(registry: Registry) -> None:
    daemon, target = registry.daemon, f"{HOST}/mixed:1"
    for order in ((PLAIN, OTHER), (OTHER, PLAIN)):
        ok(registry, "corten", "create", target, *order)
        ok(registry, "corten", "push", "-p", target)
        found = raw(registry, target)
        assert found["mediaType"] == DOCKER_LIST
        assert {entry["mediaType"] for entry in found["manifests"]} == {OCI_MANIFEST, DOCKER_MANIFEST}
    for architecture in (HERE, THERE):
        daemon.ok("pull", "--platform", f"linux/{architecture}", target)
        daemon.ok("rmi", target)


@pytest.mark.parametrize(("first", "second"), [("docker", "corten"), ("corten", "docker")])
def test_one_goes_on_with_what_the_other_began(registry: Registry, first: str, second: str) -> None:
    if docker_client.major_version() < 28:
        pytest.skip("docker of old has another store for lists")
    target = f"{HOST}/both-{first}:1"
    ok(registry, first, "create", "--insecure", target, APP)
    ok(registry, second, "create", "--insecure", "--amend", target, OTHER)
    ok(registry, first, "annotate", "--variant", "v9", target, OTHER)
    ok(registry, second, "annotate", "--os-version", "7", target, OTHER)
    for flags in ((), ("-v",)):
        for names in ((target,), (target, OTHER)):
            shown = [ok(registry, client, "inspect", *flags, *names) for client in (first, second)]
            assert shown[0] == shown[1]
    pushed = [ok(registry, client, "push", "--insecure", target) for client in (first, second)]
    assert pushed[0] == pushed[1]
    assert {entry["platform"].get("variant") for entry in raw(registry, target)["manifests"]} == {None, "v9"}
    ok(registry, second, "rm", target)


SAME = [
    ("inspect", APP),
    ("inspect", "-v", APP),
    ("inspect", PLAIN),
    ("inspect", "--verbose", PLAIN),
    ("inspect", MULTI),
    ("inspect", "-v", MULTI),
    ("inspect", f"{HOST}/nothing:1"),
    ("inspect", f"{HOST}/app:nothing"),
    ("inspect", f"{HOST}/app@sha256:{'0' * 64}"),
    ("inspect", f"{HOST}/UPPER"),
    ("inspect", f"{HOST}/none:1", APP),
    ("create", f"{HOST}/none:1", MULTI),
    ("create", f"{HOST}/none:1", f"{HOST}/nothing"),
    ("create", f"{HOST}/none:1"),
    ("create", "UPPER", APP),
    ("create", f"{HOST}/none:1", "UPPER"),
    ("annotate", f"{HOST}/none:1", APP),
    ("annotate", "UPPER", APP),
    ("annotate", f"{HOST}/none:1", "UPPER"),
    ("annotate", f"{HOST}/none:1"),
    ("push", f"{HOST}/none"),
    ("push", "UPPER"),
    ("push", "a", "b"),
    ("rm", f"{HOST}/none", "UPPER"),
    ("rm",),
    ("nothing",),
]


@pytest.mark.parametrize("args", SAME, ids=" ".join)
def test_the_same_as_docker(registry: Registry, args: tuple[str, ...]) -> None:
    if docker_client.major_version() < 28:
        pytest.skip("the docker command line is older than 28, with other words")
    flags = ["--insecure"] if args[0] in ("inspect", "create") and len(args) > 1 else []
    theirs, ours = (manifest(registry, client, args[0], *flags, *args[1:]) for client in ("docker", "corten"))
    assert (ours.code, ours.out) == (theirs.code, theirs.out)
    if args == ("nothing",):  # docker's usage has a word more
        assert ours.err.splitlines()[0].replace("corten", "docker") == theirs.err.splitlines()[0]
    else:
        assert ours.err.replace("corten", "docker") == theirs.err


def test_a_list_that_is_there_is_not_made_again(registry: Registry) -> None:
    target = f"{HOST}/again:1"
    ok(registry, "corten", "create", target, APP)
    for client in ("docker", "corten"):
        refused = manifest(registry, client, "create", "--insecure", target, OTHER)
        assert (refused.code, refused.out) == (1, "")
        assert refused.err == "refusing to amend an existing manifest list with no --amend flag\n"
        wrong = manifest(registry, client, "annotate", "--os", "linux", "--arch", "nothing", target, APP)
        assert "manifest entry for image has unsupported os/arch combination: linux/nothing" in wrong.err
    ok(registry, "corten", "create", "-a", target, OTHER)
    assert len(json.loads(ok(registry, "docker", "inspect", target))["manifests"]) == 2
    ok(registry, "corten", "rm", target)
    assert manifest(registry, "corten", "inspect", target).err == f"no such manifest: {target}\n"


def test_a_loopback_registry_needs_no_flag(registry: Registry) -> None:
    assert ok(registry, "corten", "inspect", APP) == ok(registry, "corten", "inspect", "--insecure", APP)
    refused = manifest(registry, "corten", "inspect", "127.0.0.1:1/app:1")
    assert refused.err.endswith("dial tcp 127.0.0.1:1: connect: connection refused\n")
