"""The life of a container as the runtime sees it. Each state is a type; what is legal stands in one table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from corten.errors import IllegalTransition
from corten.runtime.types import ExitStatus


@dataclass(frozen=True, slots=True)
class Starting:
    """A shim was asked for; nothing of the container may be running yet."""


@dataclass(frozen=True, slots=True)
class Running:
    pid: int
    started_ns: int


@dataclass(frozen=True, slots=True)
class Paused:
    """Running, with all its processes frozen."""

    pid: int
    started_ns: int


@dataclass(frozen=True, slots=True)
class Exited:
    """The status is on disk. `started_ns` 0 when the container was found ended."""

    status: ExitStatus


@dataclass(frozen=True, slots=True)
class Forgotten:
    """Nothing is kept."""


State: TypeAlias = Starting | Running | Paused | Exited | Forgotten

_LEGAL: dict[type[State], tuple[type[State], ...]] = {
    Starting: (Running, Exited, Forgotten),
    Running: (Paused, Exited),
    Paused: (Running, Exited),
    Exited: (Forgotten,),
    Forgotten: (),
}


def name(state: State | type[State]) -> str:
    """The state as a word of a message."""
    return (state if isinstance(state, type) else type(state)).__name__.lower()


def advance(container_id: str, source: State, target: State) -> State:
    """`target`, if a container in `source` may come to it. Raises IllegalTransition."""
    require(container_id, source, type(target))
    return target


def require(container_id: str, source: State, target: type[State]) -> None:
    """Raise IllegalTransition unless `target` may follow `source`."""
    if target not in _LEGAL[type(source)]:
        raise IllegalTransition(container_id, name(source), name(target))
