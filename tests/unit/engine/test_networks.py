from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from corten.clock import ManualClock
from corten.engine.models import Container, State, Status
from corten.engine.networks import NetworkService
from corten.errors import InvalidArgument, NotFound
from corten.network.types import NetworkSpec
from corten.specs.container import ContainerConfig, EndpointSettings, HostConfig
from corten.testing.network import FakeNetworkController
from corten.testing.storage import MemoryDocuments


def loaded(store: MemoryDocuments, *containers: Container) -> NetworkService:
    service = NetworkService(FakeNetworkController(), store, ManualClock(), lambda: containers)
    asyncio.run(service.load())
    return service


def container(name: str, status: Status) -> Container:
    endpoint = EndpointSettings(
        endpoint_id="e" * 64, ip_address="172.17.0.2", ip_prefix_len=16, mac_address="02:42:ac:11:00:02"
    )
    return Container(
        id=name * 64,
        name=name,
        created_ns=1,
        image_id="",
        image_name="",
        chain_id="",
        path="",
        args=[],
        config=ContainerConfig(),
        host_config=HostConfig(),
        networks={"bridge": endpoint},
        state=State(status=status),
    )


def test_three_networks_are_always_there_with_the_same_ids() -> None:
    first, second = loaded(MemoryDocuments()), loaded(MemoryDocuments())
    assert [network["Name"] for network in first.list()] == ["bridge", "host", "none"]
    assert [network["Driver"] for network in first.list()] == ["bridge", "host", "null"]
    assert [network["Id"] for network in first.list()] == [network["Id"] for network in second.list()]


def test_the_default_bridge_looks_like_dockers() -> None:
    network = loaded(MemoryDocuments()).get("bridge")
    assert network["IPAM"]["Config"] == [{"Subnet": "172.17.0.0/16", "Gateway": "172.17.0.1"}]
    assert network["Options"]["com.docker.network.bridge.default_bridge"] == "true"
    assert network["Options"]["com.docker.network.bridge.name"] == "corten0"
    assert network["Created"] == "2023-11-14T22:13:20Z"
    assert network["Containers"] == {}


def test_a_name_goes_before_the_start_of_an_id() -> None:
    service = loaded(MemoryDocuments())
    bridge = service.find("bridge")
    assert service.find(bridge.id) is service.find(bridge.id[:8]) is bridge
    with pytest.raises(NotFound, match="network nothing not found"):
        service.find("nothing")
    with pytest.raises(NotFound):
        service.find("")


def test_default_is_a_word_of_containers_only() -> None:
    service = loaded(MemoryDocuments())
    assert service.find("default").name == "bridge"
    with pytest.raises(NotFound, match="network default not found"):
        service.get("default")


def test_an_ambiguous_start_of_an_id_is_refused() -> None:
    service = loaded(MemoryDocuments())
    twins = [replace(service.find("host"), id="ab" + str(n) * 62, name=f"twin{n}") for n in range(2)]
    service._specs |= {twin.id: twin for twin in twins}
    with pytest.raises(InvalidArgument, match=r"network ab is ambiguous \(2 matches found based on ID prefix\)"):
        service.find("ab")


def test_running_containers_are_shown_on_their_network() -> None:
    service = loaded(MemoryDocuments(), container("a", Status.RUNNING), container("b", Status.EXITED))
    assert service.get("bridge")["Containers"] == {
        "a" * 64: {
            "Name": "a",
            "EndpointID": "e" * 64,
            "MacAddress": "02:42:ac:11:00:02",
            "IPv4Address": "172.17.0.2/16",
            "IPv6Address": "",
        }
    }
    assert service.get("none")["Containers"] == {}


def test_a_chosen_subnet_is_kept_and_a_configured_one_replaces_it() -> None:
    store = MemoryDocuments()
    loaded(store)

    def configured(spec: NetworkSpec) -> NetworkSpec:
        return replace(spec, subnet="10.5.0.0/24", icc=False)

    service = NetworkService(FakeNetworkController(), store, ManualClock(5), lambda: (), default=configured)
    specs = asyncio.run(service.load())
    assert (specs[0].subnet, specs[0].gateway, specs[0].icc) == ("10.5.0.0/24", "10.5.0.1", False)
    again = loaded(store).find("bridge")
    assert (again.subnet, again.gateway, again.icc) == ("10.5.0.0/24", "10.5.0.1", True)
    assert again.created_ns == specs[0].created_ns == ManualClock().now_ns()


def test_members_are_found_by_network_id_where_one_is_recorded() -> None:
    service = loaded(MemoryDocuments(), one := container("a", Status.RUNNING))
    one.networks["bridge"].network_id = service.find("host").id
    assert list(service.get("host")["Containers"]) == [one.id]
    assert service.get("bridge")["Containers"] == {}
