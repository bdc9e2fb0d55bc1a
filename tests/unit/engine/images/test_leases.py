"""Who holds what is stored, and when a deletion that was decided is still made."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from corten.engine.images.leases import Leases
from corten.testing.snapshots import MemorySnapshotter
from corten.testing.storage import MemoryContentStore
from tests.unit.engine.images.stepping import Steps, task


def blobs() -> tuple[MemoryContentStore, Leases, str]:
    content = MemoryContentStore()
    return content, Leases(content, MemorySnapshotter(), lambda: (set(), set())), content.put(b"blob").digest


async def by_lease(leases: Leases, digest: str) -> None:
    async with leases.take([digest]):
        pass


async def by_thread(leases: Leases, digest: str) -> None:
    with leases.holding() as hold:
        hold(digest)


@pytest.mark.parametrize("holder", [by_lease, by_thread])
def test_who_comes_before_a_deletion_begins_calls_it_off(
    holder: Callable[[Leases, str], Coroutine[Any, Any, None]],
) -> None:
    """Even when it has let go again by then: it may have listed what it held."""

    async def script() -> None:
        content, leases, digest = blobs()
        steps = Steps()
        async with steps:
            deleting = task("deleting", leases.free([digest], []))
            assert not await steps.advance("deleting", deleting, "_perform")
            await holder(leases, digest)
            assert await steps.advance("deleting", deleting)
            await deleting
            assert content.exists(digest)
            assert leases.held(digest) == 0
        await leases.free([digest], [])
        assert not content.exists(digest)

    asyncio.run(script())


def test_a_holder_discards_what_nobody_else_holds() -> None:
    async def script() -> None:
        content, leases, digest = blobs()
        async with leases.take([digest]):
            async with leases.take([digest]):
                assert not await leases.discard(digest)
            assert content.exists(digest)
            assert await leases.discard(digest)
        assert not content.exists(digest)

    asyncio.run(script())
