"""Pulling, over stores in memory and a registry that can fail."""

from __future__ import annotations

import asyncio
import json
import random
import re
import time
from email.utils import formatdate

import pytest

from corten.clock import ManualClock
from corten.engine.images.jobs import Update
from corten.engine.images.progress import ProgressStream
from corten.engine.models import RegistryAuth
from corten.errors import DataCorrupt, InvalidArgument, NotFound, SystemFault, Unavailable
from corten.registry.endpoints import RegistrySettings
from corten.specs import digest as digests
from corten.specs import oci_image as oci
from corten.specs import platform as platforms
from corten.storage.bounds import too_large
from corten.storage.types import LayerLimits
from corten.tasks import TaskOwner
from corten.testing.registry import FakeRegistry, Fault
from corten.testing.snapshots import MemorySnapshotter
from tests.unit.engine.images.support import World, collect, describe, make_image, publish, statuses
from tests.waiting import until_async

BASE: dict[str, bytes | str] = {"etc/os": "corten", "bin/sh": b"#!" * 4000}
NOISE: dict[str, bytes | str] = {"noise": random.Random(1).randbytes(60_000)}
TOP: dict[str, bytes | str] = {"app/main": "print()"}


def short(data: bytes) -> str:
    return digests.short(digests.of(data))


@pytest.mark.parametrize("docker", [False, True])
@pytest.mark.parametrize("rebases", [False, True])
def test_pull_brings_an_image_and_tells_docker_s_story(docker: bool, rebases: bool) -> None:
    async def script() -> None:
        world, made = World(snapshotter=MemorySnapshotter(rebases=rebases)), make_image(BASE, TOP, docker=docker)
        async with FakeRegistry() as registry, world.service() as images:
            ref = publish(registry, "team/app", made)
            told = await collect(images.pull(ref, "", None))
            assert told[0] == {"status": "Pulling from team/app", "id": "latest"}
            assert [m["status"] for m in told[1:3]] == ["Pulling fs layer"] * 2
            for layer in made.layers:
                assert statuses(told, short(layer)) == [
                    "Pulling fs layer",
                    "Downloading",
                    "Verifying Checksum",
                    "Download complete",
                    "Extracting",
                    "Pull complete",
                ]
            assert [m["status"] for m in told[-2:]] == [
                f"Digest: {made.digest}",
                f"Status: Downloaded newer image for {ref}",
            ]
            image = images.get(ref)
            assert (image.id, image.target, image.platform) == (made.id, made.digest, "linux/amd64")
            assert image.digests == [f"{registry.host}/team/app@{made.digest}"]
            chain = digests.chain_ids(made.diff_ids)
            assert world.snapshots() == set(chain)
            assert world.snapshotter.info(chain[1]).parent == chain[0]
            assert (world.snapshotter.layer_dir(chain[1]) / "app/main").read_text() == "print()"
            resolved = await images.resolve(ref)
            assert (resolved.id, resolved.chain_id, resolved.config.run.cmd) == (made.id, chain[1], ["sh"])
            assert world.events.seen == [("pull", ref, {"name": f"{registry.host}/team/app"})]
            assert world.content.read(made.digest) == made.manifest

    asyncio.run(script())


def test_a_second_pull_asks_once_and_is_up_to_date() -> None:
    async def script() -> None:
        world, made = World(), make_image(BASE)
        async with FakeRegistry() as registry, world.service() as images:
            ref = publish(registry, "app", made)
            await collect(images.pull(ref, "", None))
            registry.log.clear()
            told = await collect(images.pull(ref, "", None))
            assert statuses(told)[-1] == f"Status: Image is up to date for {ref}"
            assert [(entry.method, entry.path) for entry in registry.log] == [("HEAD", "/v2/app/manifests/latest")]

    asyncio.run(script())


def test_a_moved_tag_leaves_the_old_image_without_a_name() -> None:
    async def script() -> None:
        world, old, new = World(), make_image(BASE), make_image(BASE, TOP)
        async with FakeRegistry() as registry, world.service() as images:
            ref = publish(registry, "app", old)
            await collect(images.pull(ref, "", None))
            publish(registry, "app", new)
            told = await collect(images.pull(ref, "", None))
            assert statuses(told, short(new.layers[0])) == ["Already exists"]
            assert images.get(ref).id == new.id
            assert images.get(old.id).names == []
            assert images.get(f"{registry.host}/app@{old.digest}").id == old.id

    asyncio.run(script())


def test_the_platform_is_chosen_from_an_index() -> None:
    async def script() -> None:
        world = World()
        amd, arm = make_image(BASE), make_image(TOP, architecture="arm64")
        async with FakeRegistry() as registry, world.service() as images:
            publish(registry, "app", amd, "amd")
            publish(registry, "app", arm, "arm")
            unknown = {"os": "unknown", "architecture": "unknown"}
            index = json.dumps(
                {
                    "schemaVersion": 2,
                    "mediaType": oci.OCI_INDEX,
                    "manifests": [
                        describe(b"{}", oci.OCI_MANIFEST, platform=unknown),
                        describe(arm.manifest, oci.OCI_MANIFEST, platform={"os": "linux", "architecture": "arm64"}),
                        describe(amd.manifest, oci.OCI_MANIFEST, platform={"os": "linux", "architecture": "amd64"}),
                    ],
                }
            ).encode()
            top = registry.add_manifest("app", index, oci.OCI_INDEX, "latest")
            ref = f"{registry.host}/app"
            told = await collect(images.pull(ref, "linux/arm64/v8", None))
            assert f"Digest: {top}" in statuses(told)
            assert images.get(ref).id == arm.id
            with pytest.raises(NotFound, match="was found but does not provide the specified platform"):
                await images.resolve(ref, "linux/amd64")
            await collect(images.pull(ref, "linux/amd64", None))
            assert (await images.resolve(ref, "linux/arm64")).id == arm.id
            assert (await images.resolve(ref, "linux/amd64")).id == amd.id
            assert images.get(ref).id == amd.id
            with pytest.raises(NotFound, match="no matching manifest for linux/s390x in the manifest list entries"):
                await collect(images.pull(ref, "linux/s390x", None))

    asyncio.run(script())


def test_the_platform_of_this_machine_is_meant_where_none_is_said() -> None:
    async def script() -> None:
        world = World()
        mine = str(platforms.host())
        images_of = {mine: make_image(BASE, architecture=platforms.host().architecture)}
        images_of["linux/s390x"] = make_image(TOP, architecture="s390x")
        async with FakeRegistry() as registry, world.service() as images:
            offers = []
            for platform, made in images_of.items():
                publish(registry, "app", made, "x")
                system, architecture = platform.split("/")
                said = {"os": system, "architecture": architecture}
                offers.append(describe(made.manifest, oci.OCI_MANIFEST, platform=said))
            index = json.dumps({"schemaVersion": 2, "mediaType": oci.OCI_INDEX, "manifests": offers}).encode()
            registry.add_manifest("app", index, oci.OCI_INDEX, "latest")
            ref = f"{registry.host}/app"
            for platform in ("linux/s390x", "", "linux/s390x"):
                await collect(images.pull(ref, platform, None))
                assert images.get(ref).id == images_of[platform or mine].id

    asyncio.run(script())


def test_all_tags_of_a_repository() -> None:
    async def script() -> None:
        world, first, second = World(), make_image(BASE), make_image(BASE, TOP)
        async with FakeRegistry() as registry, world.service() as images:
            publish(registry, "app", first, "1")
            name = publish(registry, "app", second, "2").removesuffix(":2")
            told = await collect(images.pull(name, "", None, all_tags=True))
            assert [m["id"] for m in told if m["status"] == "Pulling from app"] == ["1", "2"]
            assert [text for text in statuses(told) if text.startswith("Status")] == [
                f"Status: Downloaded newer image for {name}"
            ]
            assert (images.get(f"{name}:1").id, images.get(f"{name}:2").id) == (first.id, second.id)
            assert [event[:2] for event in world.events.seen] == [("pull", f"{name}:1"), ("pull", f"{name}:2")]
            told = await collect(images.pull(name, "", None, all_tags=True))
            assert statuses(told)[-1] == f"Status: Image is up to date for {name}"
            registry.log.clear()
            await collect(images.pull(f"{name}:1", "", None, all_tags=True))
            assert not registry.seen("GET", "tags/list")

    asyncio.run(script())


@pytest.mark.parametrize(("limit", "waiting"), [(1, 2), (3, 0)])
def test_the_next_pull_keeps_to_the_new_number_of_downloads(limit: int, waiting: int) -> None:
    async def script() -> None:
        world, made = World(), make_image(BASE, TOP, NOISE)
        async with FakeRegistry() as registry, world.service() as images:
            images.max_downloads = limit
            told = await collect(images.pull(publish(registry, "app", made), "", None))
            assert len([m for m in told if m["status"] == "Waiting"]) == waiting

    asyncio.run(script())


def test_of_a_tag_and_a_digest_the_digest_decides() -> None:
    async def script() -> None:
        world, old, new = World(), make_image(BASE), make_image(TOP)
        async with FakeRegistry() as registry, world.service() as images:
            publish(registry, "app", old)
            ref = publish(registry, "app", new)
            told = await collect(images.pull(f"{ref}@{old.digest}", "", None))
            assert told[0] == {"status": "Pulling from app", "id": old.digest}
            assert images.get(f"{registry.host}/app@{old.digest}").id == old.id
            with pytest.raises(NotFound):
                images.get(ref)

    asyncio.run(script())


@pytest.mark.parametrize("kind", ["chart", "signature", "attestation"])
def test_what_is_no_image_is_called_by_its_type(kind: str) -> None:
    config = b"{}" if kind == "chart" else make_image(BASE).config
    types = {
        "chart": ("application/vnd.cncf.helm.config.v1+json", "application/vnd.cncf.helm.chart.content.v1.tar+gzip"),
        "signature": (oci.OCI_CONFIG, "application/vnd.dev.cosign.simplesigning.v1+json"),
        "attestation": (oci.OCI_CONFIG, "application/vnd.in-toto+json"),
    }[kind]
    manifest = {
        "schemaVersion": 2,
        "config": describe(config, types[0]),
        "layers": [describe(b"{}", types[1])],
    }

    async def script() -> None:
        world = World()
        async with FakeRegistry() as registry, world.service() as images:
            for blob in (config, b"{}"):
                registry.add_blob("app", blob)
            registry.add_manifest("app", json.dumps(manifest).encode(), oci.OCI_MANIFEST, "latest")
            wanted = types[0] if kind == "chart" else types[1]
            with pytest.raises(InvalidArgument, match=re.escape(f"unsupported media type {wanted}: ")):
                await collect(images.pull(f"{registry.host}/app", "", None))
            assert world.blobs() == set()

    asyncio.run(script())


def test_the_user_hears_of_pauses() -> None:
    async def script() -> None:
        world, made = World(), make_image(NOISE)
        layer = digests.of(made.layers[0])
        async with FakeRegistry() as registry, world.service() as images:
            ref = publish(registry, "app", made)
            asked = Fault("status", status=429, headers={"Retry-After": "2"})
            registry.fail(layer, Fault("reset", after=500), asked)
            told = await collect(images.pull(ref, "", None))
            assert [text for text in statuses(told, short(made.layers[0])) if "Retrying" in text] == [
                "Retrying in 1 second",
                "Retrying in 2 seconds",
                "Retrying in 1 second",
            ]
            assert world.clock.slept == [0.5, 1.0, 1.0]

    asyncio.run(script())


def test_a_registry_may_say_by_date_when_to_come_back() -> None:
    async def script() -> None:
        world, made = World(), make_image(BASE)
        async with FakeRegistry() as registry, world.service() as images:
            ref = publish(registry, "app", made)
            when = formatdate(time.time() + 10, usegmt=True)
            registry.fail("manifests", Fault("status", status=503, headers={"Retry-After": when}))
            await collect(images.pull(ref, "", None))
            (slept,) = world.clock.slept
            assert 1 < slept <= 10

    asyncio.run(script())


def test_a_slow_reader_neither_holds_up_the_work_nor_makes_it_pile_up() -> None:
    async def script() -> None:
        clock = ManualClock()
        stream = ProgressStream(clock)
        owner = TaskOwner("test")
        done = asyncio.Event()

        async def work() -> None:
            for count in range(1000):
                await clock.advance(1)
                stream.layer("a", Update("Downloading", count, 1000))
                stream.layer("b", Update("Waiting"))
            stream.layer("a", Update("Download complete"))
            done.set()

        told = stream.run(owner, "work", work())
        first = await anext(told)
        assert first["id"] == "a"
        await done.wait()
        rest = [message async for message in told]
        assert [(m["id"], m["status"]) for m in rest] == [
            ("b", "Waiting"),
            ("a", "Downloading"),
            ("a", "Download complete"),
        ]
        assert rest[1]["progressDetail"] == {"current": 999, "total": 1000}

    asyncio.run(script())


@pytest.mark.parametrize(
    "faults",
    [
        [Fault("reset", after=3000)],
        [Fault("truncate", after=10), Fault("truncate", after=20), Fault("reset")],
        [Fault("stall", after=100)],
        [Fault("garbage")],
        [Fault("status", status=503), Fault("status", status=429, headers={"Retry-After": "2"})],
        [Fault("reset", after=3000), Fault("no-range")],
    ],
    ids=lambda faults: "+".join(fault.kind for fault in faults),
)
def test_what_passes_is_waited_out(faults: list[Fault]) -> None:
    async def script() -> None:
        world, made = World(), make_image(NOISE, TOP)
        async with FakeRegistry() as registry, world.service() as images:
            ref = publish(registry, "app", made)
            registry.fail(digests.of(made.layers[0]), *faults)
            await collect(images.pull(ref, "", None))
            assert images.get(ref).id == made.id
            if faults[0].after:
                again = registry.seen("GET", digests.of(made.layers[0]))[1]
                assert again.range == f"bytes={faults[0].after}-"

    asyncio.run(script())


def test_a_registry_that_says_when_to_come_back_is_believed_but_not_for_long() -> None:
    async def script() -> None:
        world, made = World(), make_image(BASE)
        async with FakeRegistry() as registry, world.service() as images:
            ref = publish(registry, "app", made)
            limit = '{"errors":[{"code":"TOOMANYREQUESTS","message":"You have reached your pull rate limit."}]}'
            registry.fail("manifests", Fault("status", status=429, headers={"Retry-After": "2"}))
            await collect(images.pull(ref, "", None))
            assert world.clock.slept == [2.0]
            later = Fault("status", status=429, headers={"Retry-After": "21600"}, body=limit)
            registry.fail("manifests", later, later)  # one for HEAD, whose answer has no body, and one for GET
            with pytest.raises(Unavailable, match=r"^toomanyrequests: You have reached your pull rate limit\.$"):
                await collect(images.pull(ref, "", None))

    asyncio.run(script())


@pytest.mark.parametrize(
    ("path", "faults", "error", "words"),
    [
        ("manifests", [Fault("garbage")] * 9, Unavailable, "malformed HTTP response"),
        ("manifests", [Fault("stall")] * 9, Unavailable, "nothing arrived for 0.3 seconds"),
        ("manifests", [Fault("status", status=200, body="<html>")] * 9, SystemFault, "sent no manifest"),
        ("layer", [Fault("alter")] * 9, DataCorrupt, "filesystem layer verification failed for digest sha256:"),
        ("config", [Fault("alter")] * 9, DataCorrupt, "image config verification failed"),
        ("layer", [Fault("truncate", after=7)] + [Fault("truncate")] * 9, Unavailable, "unexpected EOF"),
        ("layer", [Fault("status", status=404)] * 9, NotFound, "blob unknown"),
    ],
    ids=["garbage", "stall", "html", "altered-layer", "altered-config", "truncated", "missing-blob"],
)
def test_what_does_not_pass_is_reported_and_the_next_try_works(
    path: str, faults: list[Fault], error: type[Exception], words: str
) -> None:
    async def script() -> None:
        world, made = World(), make_image(NOISE, TOP)
        async with FakeRegistry() as registry, world.service() as images:
            ref = publish(registry, "app", made)
            places = {"layer": digests.of(made.layers[0]), "config": made.id}
            registry.fail(places.get(path, path), *faults)
            with pytest.raises(error, match=words):
                await collect(images.pull(ref, "", None))
            assert images.list() == []
            assert not {key for key in world.snapshots() if key.startswith("unpack")}
            registry._faults.clear()
            await collect(images.pull(ref, "", None))
            assert images.get(ref).id == made.id

    asyncio.run(script())


def test_a_pull_goes_on_where_the_daemon_died() -> None:
    async def script() -> None:
        world, made = World(), make_image(NOISE)
        layer = digests.of(made.layers[0])
        async with FakeRegistry() as registry:
            ref = publish(registry, "app", made)
            async with world.service(RegistrySettings(stall_timeout=20)) as images:
                registry.fail(layer, Fault("stall", after=500))
                stream = images.pull(ref, "", None)
                async for message in stream:
                    if message["status"] == "Downloading":
                        break
                await until_async(lambda: registry.seen("GET", layer))
                # What came lies in a buffer until a piece is full or the download ends: let it come, then end it.
                await until_async(lambda: registry.sent >= 500)
            async with world.service() as images:
                await collect(images.pull(ref, "", None))
                assert [entry.range for entry in registry.seen("GET", layer)] == ["", "bytes=500-"]
                assert images.get(ref).id == made.id

    asyncio.run(script())


def test_a_client_that_goes_away_stops_the_pull_and_keeps_what_came() -> None:
    async def script() -> None:
        world, made = World(), make_image(BASE, NOISE)
        async with FakeRegistry() as registry, world.service(RegistrySettings(stall_timeout=20)) as images:
            ref = publish(registry, "app", made)
            slow = digests.of(made.layers[1])
            registry.fail(slow, Fault("stall", after=500))
            stream = images.pull(ref, "", None)
            chain = digests.chain_ids(made.diff_ids)
            async for message in stream:
                if message["status"] == "Pull complete":
                    break
            await until_async(lambda: registry.seen("GET", slow))
            await stream.aclose()  # type: ignore[attr-defined]
            assert images.list() == []
            assert world.snapshots() == {chain[0]}
            assert not world.content.ingests.claimed
            told = await collect(images.pull(ref, "", None))
            assert statuses(told, short(made.layers[0])) == ["Already exists"]
            assert len(registry.seen("GET", digests.of(made.layers[0]))) == 1

    asyncio.run(script())


def test_two_pulls_share_a_layer() -> None:
    async def script() -> None:
        world = World()
        first, second = make_image(BASE, TOP), make_image(BASE, {"other": "x"})
        async with FakeRegistry() as registry, world.service() as images:
            refs = [publish(registry, "one", first), publish(registry, "two", second)]
            registry.gate = asyncio.Event()
            shared = digests.of(first.layers[0])

            async def release() -> None:
                assert registry.gate is not None
                await until_async(lambda: registry.seen("GET", "/blobs/"))
                registry.gate.set()

            results = await asyncio.gather(*(collect(images.pull(ref, "", None)) for ref in refs), release())
            assert len(registry.seen("GET", shared)) == 1
            for told in results[:2]:
                assert told is not None
                assert statuses(told, short(first.layers[0]))[-1] in ("Pull complete", "Already exists")
            assert world.applier.applied.count(digests.hex_of(shared)) == 1
            assert {images.get(ref).id for ref in refs} == {first.id, second.id}

    asyncio.run(script())


def test_one_of_two_pulls_of_a_layer_may_go_away() -> None:
    async def script() -> None:
        world, made = World(), make_image(BASE)
        async with FakeRegistry() as registry, world.service() as images:
            ref = publish(registry, "app", made)
            world.applier.gate = asyncio.Event()
            leaver, stayer = images.pull(ref, "", None), images.pull(ref, "", None)
            async for message in leaver:
                if message["status"] == "Extracting":
                    break
            async for message in stayer:
                if message["status"] == "Extracting":
                    break
            await leaver.aclose()  # type: ignore[attr-defined]
            world.applier.gate.set()
            await collect(stayer)
            assert images.get(ref).id == made.id
            assert len(world.applier.applied) == 1

    asyncio.run(script())


def test_a_wrong_diff_id_is_found_and_nothing_is_left_of_it() -> None:
    async def script() -> None:
        world, made = World(), make_image(BASE, diff_ids=["sha256:" + "1" * 64])
        async with FakeRegistry() as registry, world.service() as images:
            ref = publish(registry, "app", made)
            with pytest.raises(DataCorrupt, match="diff id mismatch"):
                await collect(images.pull(ref, "", None))
            assert world.snapshots() == set()

    asyncio.run(script())


def test_manifest_and_config_must_agree_on_the_layers() -> None:
    async def script() -> None:
        world, made = World(), make_image(BASE, diff_ids=["sha256:" + "1" * 64, "sha256:" + "2" * 64])
        async with FakeRegistry() as registry, world.service() as images:
            with pytest.raises(DataCorrupt, match="the manifest has 1 layers, the config 2 diff ids"):
                await collect(images.pull(publish(registry, "app", made), "", None))

    asyncio.run(script())


def test_a_layer_that_climbs_out_is_refused() -> None:
    async def script() -> None:
        world, made = World(), make_image({"../../evil": "x"})
        async with FakeRegistry() as registry, world.service() as images:
            with pytest.raises(InvalidArgument, match="climbs out"):
                await collect(images.pull(publish(registry, "app", made), "", None))
            assert world.snapshots() == set()

    asyncio.run(script())


def test_a_damaged_blob_is_healed_by_the_next_pull() -> None:
    async def script() -> None:
        world, made = World(), make_image(BASE, TOP)
        async with FakeRegistry() as registry, world.service() as images:
            ref = publish(registry, "app", made)
            await collect(images.pull(ref, "", None))
            for lost in (digests.of(made.layers[1]), made.id, made.digest):
                world.content.delete(lost)
                await collect(images.pull(ref, "", None))
                assert world.content.exists(lost)

    asyncio.run(script())


def test_missing_names_and_closed_doors_are_told_in_docker_s_words() -> None:
    async def script() -> None:
        world, made = World(), make_image(BASE)
        async with FakeRegistry(token_auth=True, private=True, users={"ann": "pw"}) as registry:
            async with world.service() as images:
                ref = publish(registry, "secret", made)
                name = ref.removesuffix(":latest")
                words = (
                    f"pull access denied for {name}, repository does not exist or may require 'docker login': denied: "
                )
                with pytest.raises(NotFound, match=words):
                    await collect(images.pull(ref, "", None))
                auth = RegistryAuth(username="ann", password="pw")
                with pytest.raises(
                    NotFound, match=f"manifest for {name}:no not found: manifest unknown: manifest unknown"
                ):
                    await collect(images.pull(f"{name}:no", "", auth))
                await collect(images.pull(ref, "", auth))
                assert images.get(ref).id == made.id
            with pytest.raises(Unavailable, match=r'^Get "http://127.0.0.1:1/v2/": dial tcp 127.0.0.1:1: connect: '):
                async with world.service() as images:
                    await collect(images.pull("127.0.0.1:1/x", "", None))

    asyncio.run(script())


def test_what_a_crash_left_is_swept_at_the_start() -> None:
    async def script() -> None:
        world, made = World(), make_image(BASE, TOP)
        async with FakeRegistry() as registry:
            ref = publish(registry, "app", made)
            async with world.service() as images:
                await collect(images.pull(ref, "", None))
            kept = world.snapshots()
            world.snapshotter.prepare("unpack-0-1")
            world.snapshotter.prepare("unpack-0-2")
            world.snapshotter.commit("sha256:" + "a" * 64, "unpack-0-2")
            world.snapshotter.prepare("container", digests.chain_ids(made.diff_ids)[-1])
            async with world.service() as images:
                await until_async(lambda: world.snapshots() == {*kept, "container"})
                assert images.get(ref).id == made.id

    asyncio.run(script())


def test_a_layer_that_says_it_is_too_large_is_not_fetched() -> None:
    async def script() -> None:
        world, made = World(), make_image(BASE, NOISE)
        large = max(map(len, made.layers))
        async with FakeRegistry() as registry, world.service() as images:
            ref = publish(registry, "app", made)
            world.applier.limits = LayerLimits(size=large - 1)
            with pytest.raises(InvalidArgument, match=re.escape(str(too_large(large - 1)))):
                await collect(images.pull(ref, "", None))
            assert not [seen for seen in registry.seen("GET", "/blobs/") if made.id not in seen.path]
            # Told so again by the layer itself, which unpacked is larger than its blob.
            world.applier.limits = LayerLimits(size=large)
            with pytest.raises(InvalidArgument, match=re.escape(str(too_large(large)))):
                await collect(images.pull(ref, "", None))
            assert registry.seen("GET", digests.of(made.layers[1]))
            # What is here already is nobody's surprise.
            world.applier.limits = LayerLimits()
            await collect(images.pull(ref, "", None))
            world.applier.limits = LayerLimits(size=large - 1)
            publish(registry, "other", make_image(BASE, NOISE, run={"Cmd": ["other"]}))
            await collect(images.pull(f"{registry.host}/other", "", None))

    asyncio.run(script())
