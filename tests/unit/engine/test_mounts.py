"""What is mounted into a new container, and which volumes are filled from its image."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

from corten.engine.containers.mounts import Mounts
from corten.engine.containers.mountspec import Wish
from tests.unit.engine.harness import engine


def test_a_volume_of_another_container_is_not_filled_from_the_image(tmp_path: Path) -> None:
    async def main() -> None:
        async with engine(tmp_path) as e:
            await e.create("first", binds=["data:/data"])
            copied: list[tuple[str, str, Path]] = []

            async def copy_up(snapshot: str, path: str, volume: Path) -> None:
                copied.append((snapshot, path, volume))

            mounts = Mounts(e.catalog, e.volumes, e.images, copy_up, e.facts)
            wishes = [Wish("volume", "/data"), Wish("volume", "/own"), Wish("volume", "/bare", copy=False)]
            async with contextlib.AsyncExitStack() as undo:
                made = await mounts.make("c" * 64, wishes, ["first:ro"], None, undo)
                await mounts.fill("new", made.fillable)
                assert [(point.destination, point.rw) for point in made.points] == [
                    ("/data", False),
                    ("/own", True),
                    ("/bare", True),
                ]
                own = Path(made.points[1].source)
                assert copied == [("new", "/own", own)]
                assert own.is_dir()
            assert not own.exists()
            assert [volume.name for volume in e.volumes.list()] == ["data"]

    asyncio.run(main())
