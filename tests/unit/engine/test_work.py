"""How much the engine does for one who looks, counted and not timed."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from pathlib import Path

from tests.counting import Calls
from tests.unit.engine.harness import engine


def calls_of(work: Callable[[], object]) -> Calls:
    calls = Calls()
    sys.setprofile(calls.note)
    try:
        work()
    finally:
        sys.setprofile(None)
    return calls


def test_listing_and_finding_containers_does_nothing_for_each_of_them(tmp_path: Path) -> None:
    async def story() -> None:
        async with engine(tmp_path) as e:
            wanted = await e.run("wanted")
            looks = (
                e.containers.inspection.list,
                lambda: e.containers.inspection.get(wanted),
                lambda: e.containers.inspection.get("wanted"),
            )
            few = [calls_of(look) for look in looks]
            for number in range(40):
                await e.run(f"c{number}")
            assert len(e.containers.inspection.list()) == 41
            assert [calls_of(look).more(before) for look, before in zip(looks, few, strict=True)] == [{}, {}, {}]

    asyncio.run(story())
