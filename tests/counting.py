"""Work, counted and not timed: which functions a thread calls."""

from __future__ import annotations

from collections import Counter
from types import FrameType
from typing import Any

KERNEL = frozenset(
    "posix _io _socket select time _thread _sqlite3 fcntl mmap _queue _asyncio asyncio uvloop.loop".split()
)
"""Modules whose functions enter the kernel, or the event loop, which does."""


class Calls(Counter[str]):
    """How often each function was called, as module.name, while `note` was the profiler of a thread."""

    def note(self, frame: FrameType, event: str, argument: Any) -> None:
        if event == "call":
            self[f"{frame.f_globals.get('__name__')}.{frame.f_code.co_name}"] += 1
        elif event == "c_call":
            self[f"{argument.__module__ or type(argument.__self__).__module__}.{argument.__name__}"] += 1

    def more(self, other: Calls) -> Calls:
        """What was called more often than in `other`."""
        return Calls({name: number - other[name] for name, number in self.items() if number > other[name]})

    def of_kernel(self) -> list[str]:
        return [name for name in self if name.rpartition(".")[0] in KERNEL]
