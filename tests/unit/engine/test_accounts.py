"""What trees take, told at once: small ones counted each time, large ones beside the answer."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Hashable

import pytest

from corten.clock import ManualClock
from corten.engine import accounts
from corten.engine.accounts import Accounts, Tree
from corten.errors import NotFound
from corten.tasks import TaskOwner
from tests.waiting import until_async

FOREVER = 3600.0


class Disk:
    """Trees with sizes; counting one that is in `held` waits for its event."""

    def __init__(self, **sizes: int) -> None:
        self.sizes = sizes
        self.state: Hashable = None
        self.held: dict[str, threading.Event] = {}
        self.counted: list[str] = []

    def count(self, key: str) -> int:
        self.counted.append(key)
        if (event := self.held.get(key)) is not None:
            assert event.wait(20)
        if key not in self.sizes:
            raise NotFound("tree", key)
        return self.sizes[key]

    def trees(self) -> list[Tree]:
        return [Tree(key, self.state, lambda key=key: self.count(key)) for key in self.sizes]  # type: ignore[misc]


def kept(clock: ManualClock, patience: float = FOREVER) -> Accounts:
    return Accounts(clock, TaskOwner("test"), patience)


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every tree counts as one that takes long."""
    monkeypatch.setattr(accounts, "CHEAP", 0.0)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accounts, "CHEAP", FOREVER)


@pytest.mark.usefixtures("small")
def test_small_trees_are_exact_each_time() -> None:
    async def script() -> None:
        disk, book = Disk(a=1, b=2), kept(ManualClock())
        disk.state = "stopped"
        assert await book.sizes(disk.trees()) == {"a": 1, "b": 2}
        disk.sizes["a"] = 5
        assert await book.sizes(disk.trees()) == {"a": 5, "b": 2}
        gone = [*disk.trees(), Tree("gone", None, lambda: disk.count("gone"))]
        assert await book.sizes(gone) == {"a": 5, "b": 2}
        assert await book.sizes(disk.trees()[:1]) == {"a": 5}

    asyncio.run(script())


@pytest.mark.usefixtures("large")
def test_of_a_large_tree_the_last_count_is_told_while_it_is_counted() -> None:
    async def script() -> None:
        clock = ManualClock()
        disk, book = Disk(a=1), kept(clock, patience=0.0)
        assert await book.sizes(disk.trees()) == {"a": 1}
        disk.sizes["a"] = 5
        assert await book.sizes(disk.trees()) == {"a": 1}
        assert disk.counted == ["a"]  # it was just counted
        await clock.advance(accounts.MIN_AGE)
        disk.held["a"] = threading.Event()
        for _ in range(3):
            assert await book.sizes(disk.trees()) == {"a": 1}
        disk.held.pop("a").set()
        await until_async(lambda: not book._under_way, what="the count")
        assert await book.sizes(disk.trees()) == {"a": 5}
        assert disk.counted == ["a", "a"]

    asyncio.run(script())


@pytest.mark.usefixtures("large")
def test_what_was_never_counted_is_waited_for() -> None:
    async def script() -> None:
        disk, book = Disk(a=1), kept(ManualClock(), patience=0.0)
        disk.held["a"] = threading.Event()
        asking = asyncio.ensure_future(book.sizes(disk.trees()))  # noqa: TID251 - the test is its owner
        await until_async(lambda: disk.counted == ["a"], what="the count")
        assert not asking.done()
        disk.held["a"].set()
        assert await asking == {"a": 1}

    asyncio.run(script())


@pytest.mark.usefixtures("large")
def test_one_in_which_nothing_runs_is_counted_once_for_each_state() -> None:
    async def script() -> None:
        clock = ManualClock()
        disk, book = Disk(a=1), kept(clock)
        disk.state = ("exited", 1)
        for _ in range(3):
            await clock.advance(FOREVER)
            assert await book.sizes(disk.trees()) == {"a": 1}
        assert disk.counted == ["a"]
        disk.sizes["a"], disk.state = 2, ("exited", 2)
        assert await book.sizes(disk.trees()) == {"a": 2}
        disk.sizes["a"] = 3
        book.forget("a")
        assert await book.sizes(disk.trees()) == {"a": 3}

    asyncio.run(script())


@pytest.mark.usefixtures("large")
def test_accounts_are_kept_without_being_asked_for() -> None:
    async def script() -> None:
        clock = ManualClock()
        disk, book = Disk(a=1), kept(clock, patience=0.0)
        owner = TaskOwner("keeping")
        owner.start("keep", book.keep(disk.trees))
        for times in (1, 2):
            await until_async(lambda: len(disk.counted) == times and not book._under_way, what="a count")  # noqa: B023
            disk.sizes["a"] += 1
            await clock.advance(accounts.MAX_AGE)
        await until_async(lambda: len(disk.counted) == 3 and not book._under_way, what="a count")
        assert await book.sizes(disk.trees()) == {"a": 3}
        await owner.close("done")

    asyncio.run(script())
