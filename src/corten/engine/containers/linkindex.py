"""Who links to whom, kept so that the start of a container need not look at all others."""

from __future__ import annotations

from collections.abc import Sequence

from corten.engine.models import Container


class LinkIndex:
    """By id. A target that was removed stays in it as long as there are links to it."""

    def __init__(self) -> None:
        self._targets: dict[str, frozenset[str]] = {}
        self._sources: dict[str, list[str]] = {}

    def update(self, container: Container) -> None:
        """A container is new, or its links are other ones."""
        if not container.links and container.id not in self._targets:
            return
        self.forget(container.id)
        targets = frozenset(link.target for link in container.links)
        if targets:
            self._targets[container.id] = targets
        for target in targets:
            self._sources.setdefault(target, []).append(container.id)

    def forget(self, id: str) -> None:
        """A container that had links is gone."""
        for target in self._targets.pop(id, ()):
            self._sources[target].remove(id)
            if not self._sources[target]:
                del self._sources[target]

    def sources(self, target: str) -> Sequence[str]:
        """Those that link to a container."""
        return tuple(self._sources.get(target, ()))

    def linking(self) -> Sequence[str]:
        """Those that have links at all."""
        return tuple(self._targets)
