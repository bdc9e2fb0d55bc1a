from __future__ import annotations

import errno
import socket

import pytest

from corten.errors import InvalidArgument, SystemFault
from corten.network.ports import Claim, PortTable, bind_host_port, host_address
from corten.network.types import EndpointRequest, PortMapping, Transport


def claim(name: str, *ports: PortMapping) -> Claim:
    return Claim(f"{name}-endpoint", EndpointRequest(f"{name}-id", name, ports=ports), "172.17.0.2")


def nobody(transport: Transport, ip: str, port: int) -> None:
    """A host on which every port is free."""


def refuse(number: int) -> object:
    def bind(transport: Transport, ip: str, port: int) -> socket.socket | None:
        raise OSError(number, {errno.EADDRNOTAVAIL: "Cannot assign requested address"}.get(number, "Permission denied"))

    return bind


def ports_of(table: PortTable, name: str, *ports: PortMapping) -> list[int]:
    return [mapping.host_port for mapping in table.claim(claim(name, *ports), nobody)[0]]


def test_free_ports_come_in_turn_and_rest_before_they_come_again() -> None:
    table = PortTable((40000, 40002))
    one = PortMapping("tcp", 80)
    assert ports_of(table, "a", one) == [40000]
    assert ports_of(table, "b", one) == [40001]
    table.release("a-endpoint", (PortMapping("tcp", 80, "0.0.0.0", 40000),))
    assert ports_of(table, "c", one) == [40002]
    assert ports_of(table, "d", one) == [40000]
    with pytest.raises(SystemFault, match=r"Bind for 0\.0\.0\.0:0 failed: all ports are allocated"):
        table.claim(claim("e", one), nobody)


def test_all_ports_or_none() -> None:
    table = PortTable()
    ports_of(table, "a", PortMapping("tcp", 80, "", 81))
    with pytest.raises(SystemFault, match="port is already allocated"):
        table.claim(claim("b", PortMapping("tcp", 80, "", 80), PortMapping("tcp", 80, "", 81)), nobody)
    assert ports_of(table, "c", PortMapping("tcp", 80, "", 80)) == [80]


def test_one_container_may_publish_a_port_on_several_addresses_but_once_on_each() -> None:
    table = PortTable()
    first, second = PortMapping("tcp", 80, "127.0.0.1", 80), PortMapping("tcp", 80, "10.0.0.1", 80)
    assert ports_of(table, "a", first, second) == [80, 80]
    with pytest.raises(SystemFault):
        table.claim(claim("b", PortMapping("tcp", 80, "", 80)), nobody)
    with pytest.raises(SystemFault):
        table.claim(claim("b", second), nobody)
    table.release("a-endpoint", (first,))
    assert ports_of(table, "b", first) == [80]


def test_what_another_holds_is_not_released() -> None:
    table = PortTable()
    port = PortMapping("tcp", 80, "0.0.0.0", 80)
    ports_of(table, "a", port)
    table.release("b-endpoint", (port,))
    with pytest.raises(SystemFault):
        table.claim(claim("b", port), nobody)


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.EADDRNOTAVAIL, "9.9.9.9:80:172.17.0.2:8000/tcp: cannot assign requested address"),
        (errno.EACCES, "9.9.9.9:80:172.17.0.2:8000/tcp: permission denied"),
    ],
)
def test_the_kernels_refusal_is_told(number: int, words: str) -> None:
    with pytest.raises(SystemFault, match=f"failed to bind host port for {words}") as caught:
        PortTable().claim(claim("a", PortMapping("tcp", 8000, "9.9.9.9", 80)), refuse(number))  # type: ignore[arg-type]
    assert caught.value.errno == number
    assert caught.value.message.startswith("driver failed programming external connectivity on endpoint a (a-endpoint)")


@pytest.mark.parametrize("address", ["::", "::1", "fe80::1%eth0"])
def test_ipv6_is_refused(address: str) -> None:
    with pytest.raises(InvalidArgument, match="IPv4 addresses only"):
        host_address(address)


def test_addresses_are_checked() -> None:
    assert host_address("") == "0.0.0.0"
    assert host_address("127.0.0.1") == "127.0.0.1"
    with pytest.raises(InvalidArgument, match=r"invalid IP address: 1\.2\.3"):
        host_address("1.2.3")


def test_a_held_port_is_refused_to_others_and_closed_when_a_later_one_fails() -> None:
    with socket.socket() as foreign:
        foreign.bind(("127.0.0.1", 0))
        taken = foreign.getsockname()[1]
        table = PortTable((30000, 60000))
        free = table.claim(claim("a", PortMapping("tcp", 80, "127.0.0.1")), bind_host_port)
        port = free[0][0].host_port
        assert [held.getsockname() for held in free[1]] == [("127.0.0.1", port)]
        for held in free[1]:
            held.close()
        table.release("a-endpoint", free[0])
        wanted = PortMapping("tcp", 80, "127.0.0.1", port), PortMapping("tcp", 80, "127.0.0.1", taken)
        with pytest.raises(SystemFault, match=f"127.0.0.1:{taken}:.*address already in use"):
            table.claim(claim("b", *wanted), bind_host_port)
        with socket.socket() as again:
            again.bind(("127.0.0.1", port))
