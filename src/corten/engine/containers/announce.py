"""Events of containers, with the attributes that Docker gives them."""

from __future__ import annotations

from corten.engine.events import EventBus
from corten.engine.models import Container, MountPoint
from corten.network.types import NetworkSpec


class Announcer:
    """Publishes on the bus; the container's labels, image and name are attributes of each of its events."""

    def __init__(self, events: EventBus) -> None:
        self._events = events

    def container(self, container: Container, action: str, **extra: str) -> None:
        attributes = {**(container.config.labels or {}), "image": container.image_name, "name": container.name, **extra}
        self._events.publish("container", action, container.id, attributes)

    def network(self, network: NetworkSpec, action: str, container_id: str) -> None:
        attributes = {"container": container_id, "name": network.name, "type": network.driver}
        self._events.publish("network", action, network.id, attributes)

    def mounts(self, container: Container, action: str) -> None:
        """`mount` or `unmount` of each volume."""
        for point in container.mounts:
            if point.type == "volume":
                self._events.publish("volume", action, point.name, _volume_attributes(container, point, action))


def _volume_attributes(container: Container, point: MountPoint, action: str) -> dict[str, str]:
    attributes = {"container": container.id, "driver": point.driver}
    if action == "mount":
        attributes |= {
            "destination": point.destination,
            "propagation": point.propagation,
            "read/write": "true" if point.rw else "false",
        }
    return attributes
