from __future__ import annotations

from dataclasses import replace

from corten.network.rules import Elements, Rules, published
from corten.network.types import Endpoint, PortMapping
from corten.testing.network import bridge_spec


def endpoint(*ports: PortMapping) -> Endpoint:
    return Endpoint("e", "n", "c", "eth0", "cv0", "", "10.0.0.2", 24, "10.0.0.1", ports)


def test_ports_on_one_address_and_on_all_are_in_maps_of_their_own() -> None:
    found = published([endpoint(PortMapping("tcp", 80, "127.0.0.1", 8080), PortMapping("udp", 53, "0.0.0.0", 5353))])
    target = b"\x0a\0\0\x02"
    assert found.bound == {(b"\x7f\0\0\x01\x06\0\0\0\x1f\x90\0\0", target + b"\0\x50\0\0")}
    assert found.wildcard == {(b"\x11\0\0\0\x14\xe9\0\0", target + b"\0\x35\0\0")}
    assert len(found.each()) == 2
    assert not found - found
    assert not Elements()


def test_networks_add_rules_and_ports_add_elements_only() -> None:
    rules = Rules()
    few = published([endpoint(PortMapping("tcp", 80, "0.0.0.0", 80))])
    many = published([endpoint(*(PortMapping("tcp", 80, "0.0.0.0", port) for port in range(80, 380)))])

    def labels(elements: Elements, networks: int) -> list[str]:
        specs = [replace(bridge_spec(), bridge=f"cb-{number}", name=f"n{number}") for number in range(networks)]
        return [message.label for message in rules.whole(specs, elements)]

    assert labels(few, 1) == labels(many, 1)
    assert len(labels(few, 2)) > len(labels(few, 1))
    assert labels(few, 1)[:3] == ["add table corten", "delete table corten", "add table corten"]


def test_every_message_speaks_of_our_table_alone() -> None:
    rules = Rules("mine")
    messages = [*rules.whole([replace(bridge_spec(), bridge="cb-1")], Elements()), *rules.gone()]
    assert all(b"\x09\0\x01\0mine\0" in message.payload[:16] for message in messages)
