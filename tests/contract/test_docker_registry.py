"""The image service against Debian's docker-registry, where it is installed: what one takes the other gives back."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from corten.errors import NotFound
from tests.unit.engine.images.support import World, collect, make_image, statuses
from tests.unit.engine.images.test_archives import BASE, TOP, docker_archive, load, oci_archive
from tests.waiting import until

PROGRAM = shutil.which("docker-registry")
pytestmark = pytest.mark.skipif(PROGRAM is None, reason="docker-registry is not installed")

CONFIG = """
version: 0.1
storage: {{filesystem: {{rootdirectory: {root}}}}}
http: {{addr: 127.0.0.1:{port}, secret: x}}
log: {{level: error}}
"""


def answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    root: Path = tmp_path_factory.mktemp("registry")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    config = root / "config.yml"
    config.write_text(CONFIG.format(root=root / "data", port=port))
    environment = {**os.environ, "OTEL_TRACES_EXPORTER": "none"}
    assert PROGRAM is not None
    with (root / "log").open("wb") as log:
        process = subprocess.Popen([PROGRAM, "serve", str(config)], stdout=log, stderr=log, env=environment)
    try:
        until(lambda: answers(port), what="the registry answers")
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


@pytest.mark.parametrize("docker", [False, True])
def test_push_then_pull(registry: str, docker: bool) -> None:
    async def script() -> None:
        first, second, made = World(), World(), make_image(BASE, TOP, docker=docker)
        name = f"{registry}/team/app{docker:d}".lower()
        async with first.service() as images:
            if docker:
                await load(images, docker_archive(made, [f"{name}:1"]))
            else:
                await load(images, oci_archive(made, f"{name}:1"))
            target = images.get(f"{name}:1").target
            told = await collect(images.push(f"{name}:1", None))
            assert told[-1]["aux"]["Digest"] == target
            await images.tag(f"{name}:1", f"{registry}/other:2")
            told = await collect(images.push(f"{registry}/other:2", None))
            assert any(status.startswith(("Mounted from team/app", "Layer already")) for status in statuses(told))
        async with second.service() as images:
            await collect(images.pull(f"{name}:1", "", None))
            assert (images.get(f"{name}:1").id, images.get(f"{name}:1").target) == (made.id, target)
            told = await collect(images.pull(f"{name}:1", "", None))
            assert statuses(told)[-1] == f"Status: Image is up to date for {name}:1"
            await collect(images.pull(f"{registry}/other@{target}", "", None))
            for missing in (f"{name}:nope", f"{registry}/nothing"):
                with pytest.raises(NotFound, match=r"not found: manifest unknown: manifest unknown$"):
                    await collect(images.pull(missing, "", None))

    asyncio.run(script())


def skopeo(*arguments: str) -> None:
    subprocess.run(["skopeo", *arguments], check=True, stdout=subprocess.DEVNULL)


@pytest.mark.skipif(shutil.which("skopeo") is None, reason="skopeo is not installed")
def test_what_skopeo_copies(registry: str, tmp_path: Path) -> None:
    world, made = World(), make_image(BASE, TOP)
    archive, saved = tmp_path / "image.tar", tmp_path / "saved.tar"
    archive.write_bytes(oci_archive(made, "x:1"))
    copy = ["copy", "-q", "--dest-tls-verify=false", "--insecure-policy", f"oci-archive:{archive}"]
    skopeo(*copy, "--format", "v2s2", f"docker://{registry}/skopeo:v2s2")
    skopeo(*copy, "--format", "oci", f"docker://{registry}/skopeo:oci")
    skopeo(*copy, "--format", "oci", "--dest-compress-format", "zstd", f"docker://{registry}/skopeo:zstd")

    async def script() -> None:
        async with world.service() as images:
            for form in ("v2s2", "oci", "zstd"):
                await collect(images.pull(f"{registry}/skopeo:{form}", "", None))
                resolved = await images.resolve(f"{registry}/skopeo:{form}")
                assert resolved.config.rootfs.diff_ids == made.diff_ids
            saved.write_bytes(b"".join([part async for part in images.archives.save([f"{registry}/skopeo:oci"])]))

    asyncio.run(script())
    for layout in ("oci-archive", "docker-archive"):
        skopeo("inspect", "--config", f"{layout}:{saved}")
