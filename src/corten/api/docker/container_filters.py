"""The filters of `GET /containers/json`."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING

from corten.api.docker.params import check_filters, filter_flag, parse_int
from corten.engine.models import Container, Filters, Status
from corten.errors import InvalidArgument, NotFound, clip
from corten.specs.filters import label_test

if TYPE_CHECKING:
    from corten.api.docker.backends import Backends

Test = Callable[[Container], bool]

KNOWN = frozenset(
    "ancestor before exited expose health id isolation is-task label name network publish since status volume".split()
)
_STATUSES = frozenset(status.value for status in Status)
_HEALTH = ("starting", "healthy", "unhealthy", "none")


def container_test(filters: Filters, backends: Backends) -> Test:
    """A function that says whether a container passes. Raises InvalidArgument for an unknown filter or value."""
    check_filters(filters, KNOWN)
    tests = [_MAKERS[name](values, backends) for name, values in filters.items() if values and name in _MAKERS]
    if filter_flag(filters, "is-task"):
        tests.append(lambda _: False)  # tasks belong to a swarm, and there is none
    return lambda container: all(test(container) for test in tests)


def shows_stopped(filters: Filters) -> bool:
    """Asking for a status asks for containers that do not run as well."""
    return bool(filters.get("status"))


def text_test(patterns: list[str]) -> Callable[[str], bool]:
    """Equal to one of `patterns`, or matched anywhere by one as a regular expression."""
    try:
        compiled = [re.compile(pattern) for pattern in patterns]
    except (re.error, OverflowError, RecursionError) as error:  # too often, too deep
        raise InvalidArgument(f"error parsing regexp: {clip(str(error))}") from None
    exact = frozenset(patterns)
    return lambda text: text in exact or any(pattern.search(text) for pattern in compiled)


def _name(values: list[str], _: Backends) -> Test:
    # A name has a slash in front for Docker, and people anchor their patterns with and without it.
    matches = text_test(values)
    return lambda container: matches("/" + container.name) or matches(container.name)


def _id(values: list[str], _: Backends) -> Test:
    matches = text_test(values)
    return lambda container: matches(container.id)


def _label(values: list[str], _: Backends) -> Test:
    matches = label_test(values)
    return lambda container: matches(container.config.labels or {})


def _status(values: list[str], _: Backends) -> Test:
    for value in values:
        if value not in _STATUSES:
            raise InvalidArgument(f"invalid filter 'status={clip(value)}'")
    wanted = frozenset(values)
    return lambda container: container.state.status.value in wanted


def _health(values: list[str], _: Backends) -> Test:
    for value in values:
        if value not in _HEALTH:
            raise InvalidArgument(f"invalid filter 'health={clip(value)}'")
    wanted = frozenset(values)
    return lambda container: (container.state.health.status if container.state.health else "none") in wanted


def _exited(values: list[str], _: Backends) -> Test:
    codes = frozenset(map(parse_int, values))
    return lambda c: not c.state.running and bool(c.state.started_ns) and c.state.exit_code in codes


def _before(values: list[str], backends: Backends) -> Test:
    limit = max(backends.containers.inspection.get(value).created_ns for value in values)
    return lambda container: container.created_ns < limit


def _since(values: list[str], backends: Backends) -> Test:
    limit = min(backends.containers.inspection.get(value).created_ns for value in values)
    return lambda container: container.created_ns > limit


def _ancestor(values: list[str], backends: Backends) -> Test:
    ids = set()
    for value in values:
        try:
            ids.add(backends.images.get(value).id)
        except NotFound:
            continue
    children: dict[str, set[str]] = {}
    for image in backends.images.list():
        children.setdefault(image.parent_id, set()).add(image.id)
    queue = list(ids)
    while queue:
        fresh = children.get(queue.pop(), set()) - ids
        ids |= fresh
        queue += fresh
    names = frozenset(values)
    return lambda container: container.image_id in ids or container.image_name in names


def _network(values: list[str], _: Backends) -> Test:
    wanted = tuple(values)

    def test(container: Container) -> bool:
        return any(
            name in wanted or (bool(settings.network_id) and settings.network_id.startswith(wanted))
            for name, settings in container.networks.items()
        )

    return test


def _volume(values: list[str], _: Backends) -> Test:
    wanted = frozenset(values)
    return lambda c: any(not wanted.isdisjoint((m.name, m.destination, m.source)) for m in c.mounts)


def _ports(values: list[str]) -> frozenset[str]:
    """ "80", "53/udp", "8000-8010/tcp" as single ports."""
    out: set[str] = set()
    for value in values:
        match = re.fullmatch(r"(\d{1,5})(?:-(\d{1,5}))?(?:/(tcp|udp|sctp))?", value, re.ASCII | re.IGNORECASE)
        first = int(match.group(1)) if match else 0
        last = int(match.group(2) or first) if match else 0
        if match is None or not 0 < first <= last <= 65535:
            raise InvalidArgument(f"invalid port: '{clip(value)}'")
        out.update(f"{port}/{(match.group(3) or 'tcp').lower()}" for port in range(first, last + 1))
    return frozenset(out)


def _expose(values: list[str], _: Backends) -> Test:
    wanted = _ports(values)
    return lambda c: not wanted.isdisjoint(c.config.exposed_ports or ()) or not wanted.isdisjoint(c.ports)


def _publish(values: list[str], _: Backends) -> Test:
    wanted = _ports(values)

    def test(container: Container) -> bool:
        # Docker compares with the port on the host; the protocol is the container's.
        for port, bindings in container.ports.items():
            protocol = port.partition("/")[2] or "tcp"
            if any(f"{binding.host_port}/{protocol}" in wanted for binding in bindings or ()):
                return True
        return False

    return test


_MAKERS: dict[str, Callable[[list[str], Backends], Test]] = {
    "ancestor": _ancestor,
    "before": _before,
    "exited": _exited,
    "expose": _expose,
    "health": _health,
    "id": _id,
    "label": _label,
    "name": _name,
    "network": _network,
    "publish": _publish,
    "since": _since,
    "status": _status,
    "volume": _volume,
}
