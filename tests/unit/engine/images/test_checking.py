"""The check finds what is damaged, names what depends on it, and heals it from where it came."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, ParamSpec

import pytest

from corten.engine.images import ImageService
from corten.engine.images.checking import CheckParts, CheckService, User
from corten.engine.models import Container, MountPoint, Volume
from corten.errors import Conflict
from corten.registry.endpoints import RegistrySettings
from corten.registry.transport import Transport
from corten.specs.container import ContainerConfig, HostConfig
from corten.specs.digest import of as digest_of
from corten.testing.registry import FakeRegistry
from corten.testing.snapshots import MemorySnapshotter, TreeVerifier
from corten.testing.storage import MemoryContentStore
from tests.unit.engine.images.support import Made, World, collect, make_image, pieces, publish, tar_of
from tests.waiting import until_async

MADE = make_image({"a": "one", "b": "two"}, {"c": "three"})


P = ParamSpec("P")


def script(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Run a test on a loop of its own."""

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        asyncio.run(test(*args, **kwargs))

    return run


@dataclass
class Scene:
    world: World
    service: ImageService
    checks: CheckService
    users: list[User]
    volumes: list[Volume]
    registry: FakeRegistry
    ref: str

    async def check(self, *, repair: bool = False) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        told = [
            message["aux"] for message in await collect(self.checks.check(repair=repair, auths={})) if "aux" in message
        ]
        return [line["Finding"] for line in told if "Finding" in line], told[-1]["Summary"]

    def layer(self, at: int) -> str:
        return self.service.index.images()[0].chain_ids[at]

    def stand(self, name: str, chain_id: str, *, busy: bool) -> None:
        self.world.snapshotter.prepare(name, chain_id)
        container = Container(
            id=name, name=name, created_ns=0, image_id="", image_name="", chain_id=chain_id, path="", args=[],
            config=ContainerConfig(), host_config=HostConfig(),
        )  # fmt: skip
        self.users.append(User(container, busy))


@asynccontextmanager
async def scene(made: Made = MADE, *, rebases: bool = True) -> AsyncIterator[Scene]:
    world = World(snapshotter=MemorySnapshotter(rebases=rebases))
    async with FakeRegistry() as registry, world.service(settings(registry)) as service:
        ref = publish(registry, "test/box", made)
        await collect(service.pull(ref, "", None))
        users: list[User] = []
        volumes: list[Volume] = []
        transport = Transport(settings(registry), world.clock)
        parts = CheckParts(service.index, service.layers, TreeVerifier(), list, lambda: users, lambda: volumes)
        try:
            yield Scene(world, service, CheckService(parts, transport, world.clock), users, volumes, registry, ref)
        finally:
            await transport.close()


def settings(registry: FakeRegistry) -> RegistrySettings:
    return RegistrySettings(insecure=(registry.host,), stall_timeout=0.3)


def kinds(findings: Sequence[dict[str, Any]]) -> list[str]:
    return [finding["Kind"] for finding in findings]


@script
async def test_what_is_whole() -> None:
    async with scene() as at:
        findings, summary = await at.check(repair=True)
        assert findings == []
        expected = {"Blobs": 4, "Layers": 2, "Unchecked": 0, "Images": 1, "Containers": 0, "Damaged": 0, "Healed": 0}
        assert {name: summary[name] for name in expected} == expected
        assert summary["BlobBytes"] == sum(len(blob) for blob in (*MADE.layers, MADE.config, MADE.manifest))


@script
async def test_damaged_files_are_named_and_unpacked_again() -> None:
    async with scene() as at:
        place = at.world.snapshotter.layer_dir(at.layer(0))
        (place / "a").write_text("ONE")
        (place / "b").unlink()
        (place / "new").touch()
        at.stand("web", at.layer(1), busy=False)
        findings, summary = await at.check()
        assert (summary["Damaged"], summary["Healed"]) == (1, 0)
        (found,) = findings
        assert (found["Kind"], found["Id"], found["Count"]) == ("layer", at.layer(0), 3)
        assert [damage["Path"] for damage in found["Paths"]] == ["/a", "/b", "/new"]
        assert (found["Images"], found["Containers"], found["Running"]) == ([at.ref], ["web"], [])
        findings, summary = await at.check(repair=True)
        assert (summary["Damaged"], summary["Healed"]) == (1, 1)
        assert findings[0]["Healed"] == f"unpacked again from {digest_of(MADE.layers[0])}"
        place = at.world.snapshotter.layer_dir(at.layer(0))
        assert {path.name: path.read_text() for path in place.iterdir()} == {"a": "one", "b": "two"}
        assert (await at.check())[0] == []
        assert at.world.snapshots() == {at.layer(0), at.layer(1), "web"}


@script
async def test_a_layer_is_not_swapped_under_a_running_container() -> None:
    async with scene() as at:
        place = at.world.snapshotter.layer_dir(at.layer(0))
        (place / "a").write_text("ONE")
        at.stand("web", at.layer(1), busy=True)
        ((found,), summary) = await at.check(repair=True)
        assert (found["Running"], found["Healed"]) == (["web"], "")
        assert found["Reason"] == "stop the containers that run on it first: web"
        assert (place / "a").read_text() == "ONE"
        at.users[0] = User(at.users[0].container, busy=False)
        ((found,), summary) = await at.check(repair=True)
        assert summary["Healed"] == 1


@script
async def test_a_container_that_starts_while_a_layer_is_unpacked_again_keeps_its_files() -> None:
    async with scene() as at:
        place = at.world.snapshotter.layer_dir(at.layer(0))
        (place / "a").write_text("ONE")
        at.stand("web", at.layer(1), busy=False)
        at.world.applier.gate = asyncio.Event()
        gate = at.world.applier.gate

        async def start() -> None:
            await until_async(lambda: any(key.startswith("unpack-") for key in at.world.snapshots()))
            at.users[0] = User(at.users[0].container, busy=True)
            gate.set()

        ((found,), _), _ = await asyncio.gather(at.check(repair=True), start())
        assert found["Reason"] == "stop the containers that run on it first: web"
        assert (place / "a").read_text() == "ONE"
        assert not any(key.startswith("unpack-") for key in at.world.snapshots())


@pytest.mark.parametrize("which", ["layer", "config", "manifest"])
@pytest.mark.parametrize("how", ["altered", "missing"])
@script
async def test_a_damaged_blob_is_fetched_again(which: str, how: str) -> None:
    async with scene() as at:
        digest = {"layer": digest_of(MADE.layers[0]), "config": MADE.id, "manifest": MADE.digest}[which]
        content = at.world.content
        content.damage(digest) if how == "altered" else content.delete(digest)
        ((found,), summary) = await at.check()
        assert (found["Kind"], found["Id"], found["Images"]) == ("blob", digest, [at.ref])
        ((found,), summary) = await at.check(repair=True)
        assert found["Healed"] == f"fetched again from {at.registry.host}/test/box"
        assert (summary["Damaged"], summary["Healed"]) == (1, 1)
        assert (await at.check())[0] == []


@script
async def test_blob_and_layer_damaged_together_are_healed_in_order() -> None:
    async with scene() as at:
        at.world.content.damage(digest_of(MADE.layers[0]))
        (at.world.snapshotter.layer_dir(at.layer(0)) / "a").unlink()
        assert kinds((await at.check())[0]) == ["blob"]  # without its blob nothing can be said of the layer
        findings, summary = await at.check(repair=True)
        assert kinds(findings) == ["blob", "layer"]
        assert summary["Healed"] == 2
        assert (await at.check())[0] == []


@script
async def test_a_blob_that_the_registry_has_no_more() -> None:
    async with scene() as at:
        at.world.content.damage(digest_of(MADE.layers[0]))
        at.registry.repositories["test/box"].blobs.clear()
        ((found,), summary) = await at.check(repair=True)
        assert found["Healed"] == ""
        assert "unknown" in found["Reason"] or "not found" in found["Reason"]
        assert summary["Healed"] == 0


@script
async def test_an_image_without_a_registry_says_so() -> None:
    async with scene() as at:
        root = pieces(tar_of({"x": "y"}))
        await collect(at.service.archives.import_rootfs(root, "local:1", message="", changes=(), platform=""))
        image = next(image for image in at.service.index.images() if image.id != MADE.id)
        at.world.content.damage(image.layers[0])
        ((found,), _) = await at.check(repair=True)
        assert found["Images"] == ["local:1"]
        assert found["Reason"].startswith("the image came from no registry")


@script
async def test_rubbish_among_the_blobs_is_removed() -> None:
    async with scene() as at:
        at.world.content.damage(at.world.content.put(b"nobody's").digest)
        ((found,), _) = await at.check(repair=True)
        assert found["Healed"] == "removed, as no image needs it"
        assert (await at.check())[0] == []


@script
async def test_a_layer_that_is_missing() -> None:
    async with scene() as at:
        at.world.snapshotter.remove(at.layer(1))
        ((found,), _) = await at.check()
        assert (found["Id"], found["What"]) == (at.service.index.images()[0].chain_ids[1], "is missing")
        await at.check(repair=True)
        assert (await at.check())[0] == []


@script
async def test_a_layer_whose_files_are_lost_below_another() -> None:
    async with scene() as at:
        place = at.world.snapshotter.layer_dir(at.layer(0))
        for path in place.iterdir():
            path.unlink()
        place.rmdir()
        await at.check(repair=True)
        assert (await at.check())[0] == []


@script
async def test_a_pull_makes_lost_files_again() -> None:
    async with scene() as at:
        place = at.world.snapshotter.layer_dir(at.layer(0))
        for path in place.iterdir():
            path.unlink()
        place.rmdir()
        await collect(at.service.pull(at.ref, "", None))
        assert (at.world.snapshotter.layer_dir(at.layer(0)) / "a").read_text() == "one"


@script
async def test_containers_and_volumes_that_lack_something() -> None:
    async with scene() as at:
        at.stand("good", at.layer(1), busy=False)
        at.stand("bad", at.layer(1), busy=False)
        at.world.snapshotter.remove("bad")
        at.users[0].container.mounts = [MountPoint(type="volume", name="gone", source="", destination="/x")]
        at.volumes.append(Volume(name="v", driver="local", mountpoint="/nonexistent/v", created_ns=0))
        findings, _ = await at.check(repair=True)
        assert [(found["Kind"], found["What"], found["Healed"]) for found in findings] == [
            ("volume", "/nonexistent/v is missing", ""),
            ("container", "its volume gone is missing", ""),
            ("container", "its writable layer is missing", ""),
        ]


@script
async def test_a_record_that_disagrees_with_its_documents() -> None:
    async with scene() as at:
        at.service.index.images()[0].chain_ids[1] = digest_of(b"other")
        findings, _ = await at.check()
        assert kinds(findings) == ["image"]
        assert findings[0]["What"] == "its record names other layers than its documents"


@script
async def test_a_layer_that_only_a_container_needs_is_counted_and_not_judged() -> None:
    async with scene() as at:
        at.stand("web", at.layer(1), busy=True)
        await at.service.remove(at.ref, force=True, prune=True)
        await until_async(lambda: not at.world.blobs())
        findings, summary = await at.check(repair=True)
        assert (findings, summary["Layers"], summary["Unchecked"]) == ([], 2, 2)


@script
async def test_one_check_at_a_time() -> None:
    async with scene() as at:
        first = at.checks.check(repair=False, auths={})
        await anext(first)
        with pytest.raises(Conflict):
            await anext(at.checks.check(repair=False, auths={}))
        await first.aclose()  # type: ignore[attr-defined]
        await at.check()


def test_memory_content_says_what_was_altered() -> None:
    store = MemoryContentStore()
    digest = store.put(b"data").digest
    assert store.verify(digest).size == 4
