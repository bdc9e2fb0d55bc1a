"""`corten manifest` against a registry in this process."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from corten.cli.main import run
from corten.specs import digest as digests
from corten.specs import oci_image as oci
from corten.testing.registry import FakeRegistry

LAYER = b"layer"


class Running:
    """A fake registry with a thread of its own, as the commands have the loop of theirs."""

    def __init__(self, registry: FakeRegistry) -> None:
        self.registry = registry
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)

    def __enter__(self) -> FakeRegistry:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self.registry.__aenter__(), self._loop).result(10)
        return self.registry

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self.registry.__aexit__(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    for name in list(os.environ):
        if name.startswith("DOCKER_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/no-daemon")
    return tmp_path


@pytest.fixture
def registry() -> Iterator[FakeRegistry]:
    with Running(FakeRegistry()) as running:
        yield running


Say = Callable[..., tuple[int, str, str]]


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Say:
    def call(*argv: str) -> tuple[int, str, str]:
        code = run(["manifest", *argv])
        return code, *capsys.readouterr()

    return call


def add(registry: FakeRegistry, repository: str, tag: str, architecture: str, kind: str = oci.OCI_MANIFEST) -> str:
    """An image; its digest."""
    config = json.dumps({"architecture": architecture, "os": "linux", "rootfs": {"diff_ids": []}}).encode()
    blobs: list[dict[str, Any]] = []
    for data, media_type in ((config, oci.OCI_CONFIG), (LAYER, oci.OCI_LAYER)):
        blobs.append({"mediaType": media_type, "digest": registry.add_blob(repository, data), "size": len(data)})
    manifest = {"schemaVersion": 2, "mediaType": kind, "config": blobs[0], "layers": blobs[1:]}
    return registry.add_manifest(repository, json.dumps(manifest).encode(), kind, tag)


def test_a_life_from_create_to_push(registry: FakeRegistry, say: Say, home: Path) -> None:
    host = registry.host
    here, there = add(registry, "app", "amd64", "amd64"), add(registry, "other/app", "1", "s390x")
    names = f"{host}/list:1", f"{host}/app:amd64", f"{host}/other/app:1"
    assert say("create", *names) == (0, f"Created manifest list {names[0]}\n", "")
    code, out, _ = say("inspect", names[0])
    shown = json.loads(out)
    assert [each["platform"]["architecture"] for each in shown["manifests"]] == ["amd64", "s390x"]
    assert say("annotate", "--arch", "arm", "--variant", "v7", "--os-features", "a,b", names[0], names[2])[0] == 0
    code, out, _ = say("push", names[0])
    pushed = registry.repositories["list"].manifests["1"]
    assert (code, pushed[0]) == (0, oci.OCI_INDEX)
    name = f"{host}/list"
    assert out == (
        f"Pushed ref {name}@{here} with digest: {here}\nPushed ref {name}@{there} with digest: {there}\n"
        f"{digests.of(pushed[1])}\n"
    )
    assert [each["platform"] for each in json.loads(pushed[1])["manifests"]] == [
        {"architecture": "amd64", "os": "linux"},
        {"architecture": "arm", "os": "linux", "os.features": ["a", "b"], "variant": "v7"},
    ]
    assert registry.repositories["list"].manifests[there] == registry.repositories["other/app"].manifests["1"]
    assert set(registry.repositories["list"].blobs) >= set(registry.repositories["app"].blobs)
    assert len(registry.seen("POST", "/v2/list/blobs/uploads/")) == 3, "a layer of both is taken over once"
    assert say("push", "--purge", names[0])[0] == 0
    assert os.listdir(home / "manifests") == []
    assert say("push", names[0]) == (1, "", f"No such manifest: {names[0]}\n")
    # Without a local list the one at the registry is shown, the same text.
    assert say("inspect", names[0])[1] == pushed[1].decode() + "\n"


def test_images_of_the_lists_own_repository_are_not_pushed_again(registry: FakeRegistry, say: Say) -> None:
    add(registry, "app", "a", "amd64", oci.DOCKER_MANIFEST)
    say("create", f"{registry.host}/app", f"{registry.host}/app:a")
    code, out, _ = say("push", f"{registry.host}/app")
    kind, data = registry.repositories["app"].manifests["latest"]
    assert (code, out, kind) == (0, digests.of(data) + "\n", oci.DOCKER_LIST)
    assert not registry.seen("POST", "")


def test_amending_keeps_what_was_said(registry: FakeRegistry, say: Say) -> None:
    for architecture in ("amd64", "s390x"):
        add(registry, "app", architecture, architecture)
    names = f"{registry.host}/list:1", f"{registry.host}/app:amd64", f"{registry.host}/app:s390x"
    say("create", *names[:2])
    say("annotate", "--variant", "v3", *names[:2])
    assert say("create", *names) == (
        1,
        "",
        "refusing to amend an existing manifest list with no --amend flag\n",
    )
    assert say("create", "-a", *names)[0] == 0
    shown = json.loads(say("inspect", names[0])[1])["manifests"]
    assert [each["platform"].get("variant") for each in shown] == ["v3", None]


def test_a_list_is_made_whole_or_not_at_all(registry: FakeRegistry, say: Say, home: Path) -> None:
    digest = add(registry, "app", "1", "amd64")
    index = {"schemaVersion": 2, "manifests": [{"mediaType": oci.OCI_MANIFEST, "digest": digest, "size": 1}]}
    registry.add_manifest("app", json.dumps(index).encode(), oci.OCI_INDEX, "list")
    target, name = f"{registry.host}/list:1", f"{registry.host}/app"
    assert say("create", target, f"{name}:1", f"{name}:2") == (1, "", f"no such manifest: {name}:2\n")
    assert say("create", target, f"{name}:1", f"{name}:list") == (1, "", f"{name}:list is a manifest list\n")
    assert not (home / "manifests").exists()


def test_what_verbose_shows(registry: FakeRegistry, say: Say) -> None:
    digest = add(registry, "app", "1", "amd64", oci.DOCKER_MANIFEST)
    raw = registry.repositories["app"].manifests["1"][1]
    name = f"{registry.host}/app"
    found = json.loads(say("inspect", "-v", f"{name}:1")[1])
    platform = {"architecture": "amd64", "os": "linux"}
    said = {"mediaType": oci.DOCKER_MANIFEST, "digest": digest, "size": len(raw), "platform": platform}
    assert found == {
        "Ref": f"{name}:1",
        "Descriptor": said,
        "Raw": base64.b64encode(raw).decode(),
        "SchemaV2Manifest": json.loads(raw),
    }
    entry = {"mediaType": oci.DOCKER_MANIFEST, "digest": digest, "size": len(raw)}
    index = {"schemaVersion": 2, "mediaType": oci.DOCKER_LIST}
    index["manifests"] = [{**entry, "platform": {"architecture": "arm", "os": "linux", "variant": "v6"}}]
    registry.add_manifest("app", json.dumps(index).encode(), oci.DOCKER_LIST, "list")
    [listed] = json.loads(say("inspect", "-v", f"{name}:list")[1])
    assert listed["Ref"] == f"{name}:list@{digest}"
    assert listed["Descriptor"]["platform"] == {"architecture": "arm", "os": "linux", "variant": "v6"}
    assert listed["SchemaV2Manifest"] == json.loads(raw)
    before = len(registry.seen("GET", digest))
    assert json.loads(say("inspect", f"{name}:list")[1]) == index
    assert len(registry.seen("GET", digest)) == before, "the images of a list are not needed to show it"
    assert json.loads(say("inspect", f"{name}@{digest}")[1]) == json.loads(raw)


def test_a_registry_that_mounts_nothing(registry: FakeRegistry, say: Say) -> None:
    add(registry, "app", "1", "amd64")
    registry.mounting = False
    config = json.loads(registry.repositories["app"].manifests["1"][1])["config"]["digest"]
    host = registry.host
    say("create", f"{host}/list:1", f"{host}/app:1")
    assert say("push", "-p", f"{host}/list:1") == (1, "", f"error mounting {host}/app@{config} to {host}/list:1\n")
    assert "1" not in registry.repositories["list"].manifests
    assert say("inspect", f"{host}/list:1")[0] == 0, "it is still here"


def test_credentials_of_the_configuration_by_a_token(say: Say, home: Path) -> None:
    with Running(FakeRegistry(token_auth=True, users={"ann": "hunter2"}, private=True)) as registry:
        add(registry, "team/app", "1", "amd64")
        names = f"{registry.host}/list:1", f"{registry.host}/team/app:1"
        code, out, error = say("create", *names)
        assert (code, out) == (1, "")
        assert "denied: requested access to the resource is denied" in error
        keep(home, {registry.host: {"auth": base64.b64encode(b"ann:wrong").decode()}})
        assert "unauthorized: incorrect username or password" in say("create", *names)[2]
        keep(home, {registry.host: {"auth": base64.b64encode(b"ann:hunter2").decode()}})
        assert say("create", *names)[0] == 0
        assert say("push", names[0])[0] == 0
        keep(home, {registry.host: {"identitytoken": "identity-of-ann"}})
        assert say("inspect", names[1])[0] == 0
        assert registry.seen("POST", "/token")


def test_credentials_of_a_helper(say: Say, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Running(FakeRegistry(basic_auth=True, users={"ann": "hunter2"})) as registry:
        add(registry, "app", "1", "amd64")
        assert say("inspect", f"{registry.host}/app:1") == (1, "", "no basic auth credentials\n")
        helper = home / "docker-credential-tests"
        helper.write_text('#!/bin/sh\necho \'{"Username":"ann","Secret":"hunter2"}\'\n')
        helper.chmod(0o755)
        monkeypatch.setenv("PATH", f"{home}:/usr/bin:/bin")
        (home / "config.json").write_text(json.dumps({"credHelpers": {registry.host: "tests"}}))
        assert say("inspect", f"{registry.host}/app:1")[0] == 0


def keep(home: Path, auths: dict[str, Any]) -> None:
    (home / "config.json").write_text(json.dumps({"auths": auths}))


@pytest.mark.parametrize(
    ("argv", "error"),
    [
        (["create", "A", "b"], "error parsing name for manifest list A: invalid reference format: repository name"),
        (["create", "a", "B"], "invalid reference format: repository name (library/B) must be lowercase"),
        (["annotate", "A", "b"], "annotate: error parsing name for manifest list A: invalid reference format"),
        (["annotate", "a", "B"], "annotate: error parsing name for manifest B: invalid reference format"),
        (["annotate", "a", "b"], "manifest for image b does not exist in a\n"),
        (["inspect", "a", "b"], "No such manifest: docker.io/library/b:latest\n"),
        (["push", "a"], "No such manifest: docker.io/library/a:latest\n"),
        (["rm", "a", "B"], "No such manifest: docker.io/library/a:latest\ninvalid reference format: repository name"),
        (["create", "a"], "corten: 'corten manifest create' requires at least 2 arguments\n"),
        (["nothing"], "corten: unknown command: corten manifest nothing\n"),
    ],
)
def test_mistakes(say: Say, argv: list[str], error: str) -> None:
    code, out, said = say(*argv)
    assert (code, out) == (1, "")
    assert said.startswith(error)


def test_what_is_of_different_registries(registry: FakeRegistry, say: Say) -> None:
    add(registry, "app", "1", "amd64")
    assert say("create", "r.example/a:1", f"{registry.host}/app:1")[0] == 0
    both = f"cannot use source images from a different registry than the target image: {registry.host} != r.example\n"
    assert say("push", "r.example/a:1") == (1, "", both)
    assert say("inspect", "r.example/a:1") == (1, "", f"failed to assemble ManifestDescriptor: {both}")
    assert say("inspect", "-v", "r.example/a:1")[0] == 0
    assert say("rm", "r.example/a:1") == (0, "", "")
