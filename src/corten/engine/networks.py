"""Networks as the API and the containers see them: bridge, host and none are always there.

For containers: `find(ref)` gives the spec of the network that a user named; its `id` goes to the network controller's
`connect`. The daemon calls `load` first and starts the controller with what it returns.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

import msgspec

from corten.clock import Clock
from corten.engine.models import Container
from corten.errors import DataCorrupt, InvalidArgument, NotFound, clip
from corten.network.types import NetworkController, NetworkSpec
from corten.specs.times import format_time
from corten.storage.types import DocumentStore

DEFAULT_NETWORK = "bridge"
DEFAULT_BRIDGE = "corten0"
_OPTION = "com.docker.network."


def _stable_id(name: str) -> str:
    """The same on every machine and after every loss of the database, so that a recorded id stays right."""
    return hashlib.sha256(f"corten network {name}".encode()).hexdigest()


class NetworkService:
    """Implements `api.docker.backends.NetworkBackend` and `engine.deps.Networks`.

    `containers` gives the records of all containers; those that run are shown on their networks. `default` changes the
    default bridge where the daemon's configuration says so (subnet, gateway, MTU, icc…).
    """

    def __init__(
        self,
        controller: NetworkController,
        store: DocumentStore,
        clock: Clock,
        containers: Callable[[], Iterable[Container]],
        *,
        default: Callable[[NetworkSpec], NetworkSpec] = lambda spec: spec,
    ) -> None:
        self._controller, self._store, self._clock = controller, store, clock
        self._containers = containers
        self._default = default
        self._specs: dict[str, NetworkSpec] = {}

    async def load(self) -> list[NetworkSpec]:
        """Read the records, adding the built-in networks where they are missing. Before the controller's `start`."""
        self._specs = {}
        for id, body in self._store.all().items():
            try:
                self._specs[id] = msgspec.json.decode(body, type=NetworkSpec)
            except msgspec.DecodeError as wrong:
                raise DataCorrupt(f"the record of network {id} cannot be read: {clip(str(wrong))}") from wrong
        for spec in self._built_in():
            known = self._specs.get(spec.id)
            wanted = self._default(spec) if spec.name == DEFAULT_NETWORK else spec
            kept = await self._controller.fill(wanted if known is None else _merge(wanted, known))
            if kept != known:
                await self._store.put(kept.id, msgspec.json.encode(kept))
                self._specs[kept.id] = kept
        return list(self._specs.values())

    def _built_in(self) -> list[NetworkSpec]:
        now = self._clock.now_ns()
        return [
            NetworkSpec(_stable_id(DEFAULT_NETWORK), DEFAULT_NETWORK, "bridge", now, bridge=DEFAULT_BRIDGE),
            NetworkSpec(_stable_id("host"), "host", "host", now),
            NetworkSpec(_stable_id("none"), "none", "null", now),
        ]

    def find(self, ref: str) -> NetworkSpec:
        """The network that a container names: as `get`, with "default" for the default bridge."""
        return self._lookup(DEFAULT_NETWORK if ref == "default" else ref)

    def _lookup(self, ref: str) -> NetworkSpec:
        """By id, name or the start of an id. Raises NotFound; InvalidArgument when several ids start so."""
        if spec := self._specs.get(ref):
            return spec
        for spec in self._specs.values():
            if spec.name == ref:
                return spec
        found = [spec for id, spec in self._specs.items() if ref and id.startswith(ref)]
        if len(found) > 1:
            raise InvalidArgument(f"network {clip(ref)} is ambiguous ({len(found)} matches found based on ID prefix)")
        if not found:
            raise NotFound("network", ref, f"network {clip(ref)} not found")
        return found[0]

    def list(self) -> Sequence[dict[str, Any]]:
        """All, in the API's shape, the newest last."""
        members = self._members()
        return [_encode(spec, members.get(spec.id, {})) for spec in self._specs.values()]

    def get(self, ref: str) -> dict[str, Any]:
        spec = self._lookup(ref)
        return _encode(spec, self._members().get(spec.id, {}))

    def _members(self) -> dict[str, dict[str, Any]]:
        """The running containers of each network, by id, in the API's shape."""
        found: dict[str, dict[str, Any]] = {}
        for container in self._containers():
            if not container.state.running:
                continue
            for name, settings in container.networks.items():
                spec_id = settings.network_id or next((s.id for s in self._specs.values() if s.name == name), "")
                address = f"{settings.ip_address}/{settings.ip_prefix_len}" if settings.ip_address else ""
                found.setdefault(spec_id, {})[container.id] = {
                    "Name": container.name,
                    "EndpointID": settings.endpoint_id,
                    "MacAddress": settings.mac_address,
                    "IPv4Address": address,
                    "IPv6Address": "",
                }
        return found


def _merge(wanted: NetworkSpec, known: NetworkSpec) -> NetworkSpec:
    """As configured now, with the subnet that was chosen before where none is configured."""
    if not wanted.subnet:
        wanted = replace(wanted, subnet=known.subnet, gateway=wanted.gateway or known.gateway)
    return replace(wanted, created_ns=known.created_ns)


def _encode(spec: NetworkSpec, members: dict[str, Any]) -> dict[str, Any]:
    config = None
    if spec.driver == "bridge":
        config = [
            {"Subnet": spec.subnet, **({"IPRange": spec.ip_range} if spec.ip_range else {}), "Gateway": spec.gateway}
        ]
    return {
        "Name": spec.name,
        "Id": spec.id,
        "Created": format_time(spec.created_ns),
        "Scope": "local",
        "Driver": spec.driver,
        "EnableIPv4": True,
        "EnableIPv6": False,
        "IPAM": {"Driver": "default", "Options": None, "Config": config},
        "Internal": spec.internal,
        "Attachable": False,
        "Ingress": False,
        "ConfigFrom": {"Network": ""},
        "ConfigOnly": False,
        "Containers": members,
        "Options": _options(spec),
        "Labels": spec.labels,
    }


def _options(spec: NetworkSpec) -> dict[str, str]:
    """What Docker shows of its default bridge; of other networks what their maker gave."""
    if spec.name != DEFAULT_NETWORK:
        return spec.options
    return {
        f"{_OPTION}bridge.default_bridge": "true",
        f"{_OPTION}bridge.enable_icc": _flag(spec.icc),
        f"{_OPTION}bridge.enable_ip_masquerade": _flag(spec.masquerade),
        f"{_OPTION}bridge.host_binding_ipv4": "0.0.0.0",
        f"{_OPTION}bridge.name": spec.bridge,
        f"{_OPTION}driver.mtu": str(spec.mtu),
        **spec.options,
    }


def _flag(value: bool) -> str:
    return "true" if value else "false"
