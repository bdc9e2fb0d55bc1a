"""Waiting for something real, with a deadline: the only place in the tests that sleeps."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def until(probe: Callable[[], T], *, seconds: float = 20, what: str = "") -> T:
    """The first truthy value of `probe`. Raises AssertionError when `seconds` have passed without one."""
    deadline = time.monotonic() + seconds
    while not (value := probe()):
        assert time.monotonic() < deadline, f"not within {seconds} s: {what or probe}"
        time.sleep(0.01)
    return value


async def until_async(probe: Callable[[], T], *, seconds: float = 20, what: str = "") -> T:
    """As `until`, letting the event loop run meanwhile."""
    deadline = time.monotonic() + seconds
    while not (value := probe()):
        assert time.monotonic() < deadline, f"not within {seconds} s: {what or probe}"
        await asyncio.sleep(0.01)
    return value
