"""`docker commit`: one layer more, made of what a container changed; and import from a URL."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web

from corten.engine.commit import presets
from corten.engine.images.committing import Commitment, parse_name
from corten.engine.models import CommitOptions, Container
from corten.errors import InvalidArgument, NotFound, SystemFault, Unavailable
from corten.specs import digest as digests
from corten.specs import oci_image as oci
from corten.specs.container import ContainerConfig, HostConfig
from corten.specs.oci_image import RunConfig
from corten.testing.registry import FakeRegistry
from tests.unit.engine.images.support import World, collect, make_image, publish, statuses, tar_of
from tests.unit.engine.images.test_archives import BASE

HELD: list[str] = []


@contextlib.asynccontextmanager
async def held() -> AsyncIterator[None]:
    HELD.append("held")
    yield
    HELD.append("let go")


def commitment(parent: str, layer: Path, name: str = "made:1", run: RunConfig | None = None) -> Commitment:
    reference = parse_name(name)
    run = run or RunConfig(cmd=["sh"])
    return Commitment(parent, layer, run, reference, "me", "a comment", "sh -c true", 1_700_000_000_000_000_000)


def test_a_layer_more(tmp_path: Path) -> None:
    async def script() -> None:
        world, made = World(), make_image(BASE, docker=True)
        (tmp_path / "etc").mkdir()
        (tmp_path / "etc/hosts").touch()
        (tmp_path / "dev").mkdir()
        (tmp_path / "new").write_text("data")
        async with FakeRegistry() as registry, world.service() as images:
            await collect(images.pull(publish(registry, "app", made), "", None))
            HELD.clear()
            id = await images.commit(commitment(made.id, tmp_path, run=RunConfig(env=["A=b"])), held())
            assert HELD == ["held", "let go"]
            details = await images.details("made:1")
            assert details.image.id == id
            assert details.image.parent_id == made.id
            assert details.config["author"] == "me"
            assert details.config["config"] == {"Env": ["A=b"]}
            assert details.config["history"][-1] == {
                "created": "2023-11-14T22:13:20Z",
                "created_by": "sh -c true",
                "author": "me",
                "comment": "a comment",
            }
            assert details.config["rootfs"]["diff_ids"][0] == made.diff_ids[0]
            chain = details.image.chain_ids
            assert chain[0] == digests.chain_ids(made.diff_ids)[0]
            top = world.snapshotter.layer_dir(chain[1])
            assert (top / "new").read_text() == "data"
            assert not (top / "dev").exists()
            assert not (top / "etc/hosts").exists()
            manifest = oci.parse_manifest(world.content.read(details.image.manifest))
            assert [layer.media_type for layer in manifest.layers] == [oci.OCI_LAYER_GZIP] * 2
            assert manifest.layers[0].digest == digests.of(made.layers[0])
            again = await images.commit(commitment(made.id, tmp_path, run=RunConfig(env=["A=b"])), held())
            assert again == id  # the same changes are the same image

    asyncio.run(script())


def test_nothing_changed_makes_no_layer(tmp_path: Path) -> None:
    async def script() -> None:
        world, made = World(), make_image(BASE)
        (tmp_path / "proc").mkdir()
        async with FakeRegistry() as registry, world.service() as images:
            await collect(images.pull(publish(registry, "app", made), "", None))
            await images.commit(commitment(made.id, tmp_path), held())
            details = await images.details("made:1")
            assert details.config["rootfs"]["diff_ids"] == made.diff_ids
            assert details.config["history"][-1]["empty_layer"] is True
            with pytest.raises(NotFound):
                await images.commit(commitment("sha256:" + "0" * 64, tmp_path), held())

    asyncio.run(script())


def test_a_layer_that_cannot_be_read(tmp_path: Path) -> None:
    async def script() -> None:
        world, made = World(), make_image(BASE)
        async with FakeRegistry() as registry, world.service() as images:
            await collect(images.pull(publish(registry, "app", made), "", None))
            before = world.blobs()
            with pytest.raises(SystemFault, match="changes could not be read"):
                await images.commit(commitment(made.id, tmp_path / "none"), held())
            assert world.blobs() == before

    asyncio.run(script())


def container(config: ContainerConfig) -> Container:
    return Container(
        id="c" * 64,
        name="x",
        created_ns=0,
        image_id="sha256:" + "0" * 64,
        image_name="busybox",
        chain_id="",
        path="sh",
        args=[],
        config=config,
        host_config=HostConfig(),
    )


def test_presets_are_the_containers_with_what_is_asked_for() -> None:
    own = ContainerConfig(env=["A=1", "B=2"], cmd=["run"], user="app", labels={"k": "v"}, hostname="left-out")
    changed = presets(container(own), CommitOptions(changes=["ENV B=3", 'CMD ["new"]', "EXPOSE 80"]))
    assert changed == RunConfig(
        env=["A=1", "B=3"], cmd=["new"], user="app", labels={"k": "v"}, exposed_ports={"80/tcp": {}}
    )
    assert own.env == ["A=1", "B=2"]
    asked = presets(container(own), CommitOptions(config=ContainerConfig(env=["C=4"], working_dir="/w")))
    assert asked.env == ["C=4", "A=1", "B=2"]
    assert (asked.cmd, asked.working_dir, asked.user, asked.labels) == (["run"], "/w", "app", {"k": "v"})
    with pytest.raises(InvalidArgument, match="RUN is not a valid change command"):
        presets(container(own), CommitOptions(changes=["RUN true"]))
    with pytest.raises(InvalidArgument, match="digest reference"):
        parse_name("x@sha256:" + "0" * 64)


def test_import_from_the_web() -> None:
    async def script() -> None:
        world = World()
        archive = tar_of(BASE)

        async def serve(request: web.BaseRequest) -> web.Response:
            if request.path != "/root.tar":
                raise web.HTTPNotFound
            return web.Response(body=archive)

        runner = web.ServerRunner(web.Server(serve))
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        address = f"127.0.0.1:{runner.addresses[0][1]}"
        async with world.service() as images:

            async def fetch(url: str) -> list[str]:
                told = images.archives.import_rootfs(url, "web:1", message="", changes=[], platform="linux/arm64")
                return statuses(await collect(told))

            told = await fetch(f"http://user:secret@{address}/root.tar")
            assert told[0] == f"Downloading from http://{address}/root.tar"
            details = await images.details("web:1")
            assert details.image.id == told[-1]
            assert details.image.platform == "linux/arm64"
            assert details.config["comment"] == f"Imported from http://{address}/root.tar"
            with pytest.raises(InvalidArgument, match="got HTTP status code >= 400: 404 Not Found"):
                await fetch(f"http://{address}/none")
            with pytest.raises(InvalidArgument, match="neither http nor https"):
                await fetch("ftp://example.com/x")
            await runner.cleanup()
            with pytest.raises(Unavailable):
                await fetch(f"http://{address}/root.tar")

    asyncio.run(script())
