"""Waiting for something real, with a deadline: the only place in the tests that sleeps."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
PATIENCE = float(os.environ.get("CORTEN_TEST_PATIENCE", "1"))


def patience(seconds: float) -> float:
    """A deadline of `seconds`, longer where CORTEN_TEST_PATIENCE says how many times slower this machine is."""
    return seconds * PATIENCE


def until(probe: Callable[[], T], *, seconds: float = 20, what: str = "") -> T:
    """The first truthy value of `probe`. Raises AssertionError when `seconds` have passed without one."""
    seconds = patience(seconds)
    deadline = time.monotonic() + seconds
    while not (value := probe()):
        assert time.monotonic() < deadline, f"not within {seconds} s: {what or probe}"
        time.sleep(0.01)
    return value


async def until_async(probe: Callable[[], T], *, seconds: float = 20, what: str = "") -> T:
    """As `until`, letting the event loop run meanwhile."""
    seconds = patience(seconds)
    deadline = time.monotonic() + seconds
    while not (value := probe()):
        assert time.monotonic() < deadline, f"not within {seconds} s: {what or probe}"
        await asyncio.sleep(0.01)
    return value


async def linger(seconds: float) -> None:
    """Be slow where slowness is what is tested, as of a server that sends a byte now and then. Waits for nothing."""
    await asyncio.sleep(seconds)
