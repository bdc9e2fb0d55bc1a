"""What a reader is asked for, and what a writer is told of its container."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
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


@dataclass(frozen=True, slots=True)
class LogFacts:
    """What is known of a container when it is started. `name` without slash, `env` as NAME=VALUE."""

    id: str = ""
    name: str = ""
    image_id: str = ""
    image_name: str = ""
    created: str = ""
    argv: Sequence[str] = ()
    env: Sequence[str] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    options: Mapping[str, str] = field(default_factory=dict)
    hostname: str = ""
