"""What a reader is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True, slots=True)
class LogSource:
    """A container's log: its driver, the live file, and whether it has a terminal (then output is raw)."""

    driver: str
    path: Path | None
    tty: bool = False


class LogWindow(Protocol):
    """Which part of a log. `tail` None for all; `since_ns`, `until_ns` 0 for no bound; both bounds belong to it."""

    @property
    def stdout(self) -> bool: ...
    @property
    def stderr(self) -> bool: ...
    @property
    def since_ns(self) -> int: ...
    @property
    def until_ns(self) -> int: ...
    @property
    def tail(self) -> int | None: ...
    @property
    def timestamps(self) -> bool: ...
    @property
    def follow(self) -> bool: ...
    @property
    def details(self) -> bool: ...
