"""Tagging, removing, pruning: Docker's rules and its words."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from corten.engine.images import ImageService
from corten.errors import Conflict, InvalidArgument, NotFound
from corten.specs import digest as digests
from corten.testing.registry import FakeRegistry
from tests.unit.engine.images.support import Made, World, collect, make_image, pieces, publish
from tests.unit.engine.images.test_archives import BASE, TOP, docker_archive
from tests.waiting import until_async

ONE, TWO = make_image(BASE, TOP), make_image(BASE, {"other": "x"}, run={"Labels": {"keep": "yes"}})


@asynccontextmanager
async def loaded(world: World, *images: tuple[Made, list[str]]) -> AsyncIterator[ImageService]:
    async with world.service() as service:
        for made, names in images:
            await collect(service.archives.load(pieces(docker_archive(made, names)), quiet=True))
        world.events.seen.clear()
        yield service


def test_the_last_name_takes_the_image_along() -> None:
    async def script() -> None:
        world = World()
        async with loaded(world, (ONE, ["x:1", "x:2"]), (TWO, ["y:1"])) as images:
            assert await images.remove("x:1", force=False, prune=True) == [{"Untagged": "x:1"}]
            chain = digests.chain_ids(ONE.diff_ids)
            assert await images.remove("x:2", force=False, prune=True) == [
                {"Untagged": "x:2"},
                {"Deleted": ONE.id},
                {"Deleted": chain[1]},
            ]
            await until_async(lambda: world.snapshots() == set(digests.chain_ids(TWO.diff_ids)))
            await until_async(lambda: world.blobs() == {TWO.id, images.get("y:1").manifest, *TWO.diff_ids})
            assert [(action, attributes["name"]) for action, _, attributes in world.events.seen] == [
                ("untag", "x:1"),
                ("untag", "x:2"),
                ("delete", ONE.id),
            ]
            with pytest.raises(NotFound, match=r"^No such image: x:2$"):
                await images.remove("x:2", force=False, prune=True)
        async with world.service() as images:
            assert [image.id for image in images.list()] == [TWO.id]

    asyncio.run(script())


def test_digests_of_the_repository_go_with_its_last_tag() -> None:
    async def script() -> None:
        world = World()
        async with FakeRegistry() as registry, world.service() as images:
            ref = publish(registry, "app", ONE)
            await collect(images.pull(ref, "", None))
            await images.tag(ref, "mine:1")
            name = f"{registry.host}/app@{ONE.digest}"
            assert await images.remove(ref, force=False, prune=True) == [{"Untagged": ref}, {"Untagged": name}]
            assert images.get("mine:1").digests == []
            await collect(images.pull(name, "", None))
            assert images.get(ONE.id).names == ["docker.io/library/mine:1"]
            assert await images.remove(name, force=False, prune=True) == [{"Untagged": name}]

    asyncio.run(script())


def test_an_id_means_all_names_of_one_repository_only() -> None:
    async def script() -> None:
        world = World()
        async with loaded(world, (ONE, ["x:1", "x:2"]), (TWO, ["y:1"])) as images:
            short = digests.short(ONE.id)
            words = (
                rf"^conflict: unable to delete {short} \(must be forced\) - image is referenced in multiple reposito"
            )
            with pytest.raises(Conflict, match=words):
                await images.remove(short, force=False, prune=True)
            gone = await images.remove(short, force=True, prune=True)
            assert gone[:3] == [{"Untagged": "x:1"}, {"Untagged": "x:2"}, {"Deleted": ONE.id}]
            assert (await images.remove(TWO.id, force=False, prune=True))[:2] == [
                {"Untagged": "y:1"},
                {"Deleted": TWO.id},
            ]

    asyncio.run(script())


def test_what_containers_use() -> None:
    async def script() -> None:
        world = World()
        short, container = digests.short(ONE.id), "c0ffee" * 10
        async with loaded(world, (ONE, ["x:1"])) as images:
            world.users[ONE.id] = [(container, False)]
            words = (
                rf'^conflict: unable to remove repository reference "x:1" \(must force\) - container {container[:12]}'
                rf" is using its referenced image {short}$"
            )
            with pytest.raises(Conflict, match=words):
                await images.remove("x:1", force=False, prune=True)
            words = rf"^conflict: unable to delete {short} \(must be forced\) - image is being used by stopped contain"
            with pytest.raises(Conflict, match=words):
                await images.remove(short, force=False, prune=True)
            world.users[ONE.id] = [(container, True)]
            words = (
                rf"^conflict: unable to delete {short} \(cannot be forced\) - "
                rf"image is being used by running container {container[:12]}$"
            )
            with pytest.raises(Conflict, match=words):
                await images.remove(short, force=True, prune=True)
            await images.tag("x:1", "x:2")
            await images.remove("x:2", force=False, prune=True)
            # By force a name can be taken away from an image that runs, which stays without it.
            assert await images.remove("x:1", force=True, prune=True) == [{"Untagged": "x:1"}]
            await images.tag(short, "x:1")
            world.users[ONE.id] = [(container, False)]
            world.snapshotter.prepare(container, digests.chain_ids(ONE.diff_ids)[-1])
            await images.remove("x:1", force=True, prune=True)
            await until_async(lambda: world.blobs() == set())
            assert world.snapshots() == {container, *digests.chain_ids(ONE.diff_ids)}

    asyncio.run(script())


def test_tags() -> None:
    async def script() -> None:
        world = World()
        async with loaded(world, (ONE, ["x:1"]), (TWO, ["y:1"])) as images:
            await images.tag("x:1", "localhost:5000/z")
            await images.tag(digests.short(TWO.id), "x:1")
            assert images.get("localhost:5000/z:latest").id == ONE.id
            assert images.get("x:1").id == TWO.id
            assert images.get("x:1").last_tagged_ns > 0
            with pytest.raises(NotFound, match=r"^No such image: nope:latest$"):
                await images.tag("nope", "x:3")
            with pytest.raises(InvalidArgument, match="refusing to create a tag with a digest reference"):
                await images.tag("x:1", "x@" + ONE.id)
            with pytest.raises(InvalidArgument, match=r"repository name \(library/Bad\) must be lowercase"):
                await images.tag("x:1", "Bad")
            assert [event[0] for event in world.events.seen] == ["tag", "tag"]
        async with world.service() as images:
            assert images.get("x:1").id == TWO.id

    asyncio.run(script())


def test_how_an_image_may_be_named() -> None:
    async def script() -> None:
        world = World()
        async with loaded(world, (ONE, ["x:latest"])) as images:
            for ref in ("x", "docker.io/library/x:latest", ONE.id, ONE.id[7:], ONE.id[7:19], ONE.id[:15]):
                assert images.get(ref).id == ONE.id
            for ref in ("", "Foo", "a b", "x:"):
                with pytest.raises(InvalidArgument, match="invalid reference format"):
                    images.get(ref)
            for ref in ("y", "x:2", "sha256:" + "0" * 64, "0" * 64):
                with pytest.raises(NotFound, match=r"^No such image: "):
                    images.get(ref)

    asyncio.run(script())


def test_prune() -> None:
    async def script() -> None:
        world = World()
        async with loaded(world, (ONE, ["x:1"]), (TWO, ["y:1"])) as images:
            assert await images.prune({}) == ([], 0)
            await images.tag("y:1", "x:1")
            world.users[ONE.id] = [("c", False)]
            assert await images.prune({}) == ([], 0)
            world.users.clear()
            changes, freed = await images.prune({"dangling": ["true"]})
            assert changes[0] == {"Deleted": ONE.id}
            assert freed == len("print()")
            assert await images.prune({"dangling": ["false"], "label": ["keep=no"]}) == ([], 0)
            assert await images.prune({"dangling": ["false"], "label!": ["keep"]}) == ([], 0)
            assert await images.prune({"dangling": ["0"], "until": ["2020-01-01"]}) == ([], 0)
            assert await images.prune({"dangling": ["0"], "until": ["0"]}) == ([], 0)
            changes, _ = await images.prune({"dangling": ["false"], "label": ["keep"], "until": ["1h"]})
            assert changes[:2] == [{"Untagged": "x:1"}, {"Untagged": "y:1"}]
            assert images.list() == []
            for filters in ({"bad": ["x"]}, {"dangling": ["x"]}, {"until": ["x"]}, {"until": ["1h", "2h"]}):
                with pytest.raises(InvalidArgument):
                    await images.prune(filters)

    asyncio.run(script())


def test_events_have_the_labels_of_the_image() -> None:
    async def script() -> None:
        world = World()
        labelled = make_image({"f": "1"}, run={"Labels": {"stage": "test"}})
        async with world.service() as images:
            await collect(images.archives.load(pieces(docker_archive(labelled, ["x:1"])), quiet=True))
            await images.tag("x:1", "y:1")
            await images.remove("y:1", force=False, prune=True)
            await images.remove("x:1", force=False, prune=True)
        assert [(action, attributes) for action, _, attributes in world.events.seen] == [
            ("load", {"stage": "test", "name": labelled.id}),
            ("tag", {"stage": "test", "name": "y:1"}),
            ("untag", {"stage": "test", "name": "y:1"}),
            ("untag", {"stage": "test", "name": "x:1"}),
            ("delete", {"stage": "test", "name": labelled.id}),
        ]

    asyncio.run(script())


def test_a_damaged_image_is_told_of_without_labels() -> None:
    async def script() -> None:
        world = World()
        async with loaded(world, (ONE, ["x:1"])):
            pass
        world.content.delete(ONE.id)
        world.events.seen.clear()
        async with world.service() as images:
            await images.remove("x:1", force=False, prune=True)
        assert [event[0] for event in world.events.seen] == ["untag", "delete"]

    asyncio.run(script())
