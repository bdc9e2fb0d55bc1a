"""Who reaches whom: published ports and the walls between networks, tried with real packets."""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from corten.network.types import PortMapping
from corten.testing.network import bridge_spec
from tests.kernel.netlab import HOST, OUTSIDE, Lab, in_lab, tcp_peer, udp_peer
from tests.waiting import patience

pytestmark = pytest.mark.root
GATEWAY = "10.123.0.1"


def bridged_through_the_filter(lab: Lab, wanted: bool) -> None:
    """br_netfilter is on in a fresh namespace where the kernel has it; other programs count on either."""
    switch = "net/bridge/bridge-nf-call-iptables"
    if Path("/proc/sys", switch).exists():
        lab.host.sysctl(switch, "1" if wanted else "0")


@pytest.mark.parametrize("bridge_filter", [True, False])
@pytest.mark.parametrize(("transport", "peer"), [("tcp", tcp_peer), ("udp", udp_peer)])
def test_a_published_port_answers_from_everywhere(
    tmp_path: Path, transport: str, peer: Callable[..., str], bridge_filter: bool
) -> None:
    async def scenario(lab: Lab) -> None:
        bridged_through_the_filter(lab, bridge_filter)
        port = PortMapping(transport, 80, "", 8080)  # type: ignore[arg-type]
        web, _ = await lab.container("web", port)
        other, _ = await lab.container("other")
        assert peer(web, 80, lab.outside, HOST, 8080) == OUTSIDE, "the client's address is preserved"
        assert peer(web, 80, lab.host, HOST, 8080) == HOST
        assert peer(web, 80, lab.host, "127.0.0.1", 8080) == GATEWAY
        assert peer(web, 80, lab.host, "127.1.2.3", 8080) == GATEWAY
        assert peer(web, 80, lab.host, GATEWAY, 8080) == GATEWAY
        for address in (HOST, GATEWAY):
            assert peer(web, 80, other, address, 8080) == GATEWAY, "a neighbour by way of the host"
            assert peer(web, 80, web, address, 8080) == GATEWAY, "the container itself"
        assert peer(web, 80, other, "10.123.0.2", 80) == "10.123.0.3", "a neighbour directly"
        await lab.controller.close_sandbox("web-id")
        with pytest.raises((ConnectionRefusedError, TimeoutError)):
            peer(lab.host, 9, lab.outside, HOST, 8080)

    in_lab(tmp_path, scenario)


def test_a_port_on_one_address_answers_there_only(tmp_path: Path) -> None:
    async def scenario(lab: Lab) -> None:
        lab.host.ip("addr", "add", "203.0.113.77/24", "dev", "up0")
        web, _ = await lab.container(
            "web", PortMapping("tcp", 80, "203.0.113.77", 8080), PortMapping("tcp", 81, "127.0.0.1", 8080)
        )
        assert tcp_peer(web, 80, lab.outside, "203.0.113.77", 8080) == OUTSIDE
        assert tcp_peer(web, 80, lab.host, "203.0.113.77", 8080) == HOST
        assert tcp_peer(web, 81, lab.host, "127.0.0.1", 8080) == GATEWAY
        for address in (HOST, GATEWAY):
            with pytest.raises((ConnectionRefusedError, TimeoutError)):
                tcp_peer(web, 80, lab.host, address, 8080)
        with pytest.raises((ConnectionRefusedError, TimeoutError)):
            tcp_peer(web, 80, lab.outside, HOST, 8080)

    in_lab(tmp_path, scenario)


def test_a_port_on_loopback_is_not_reached_by_a_neighbour_of_the_host(tmp_path: Path) -> None:
    """CVE-2020-8558 and its kin: a packet for 127.0.0.1 that comes in by a wire."""

    async def scenario(lab: Lab) -> None:
        web, _ = await lab.container("web", PortMapping("tcp", 80, "127.0.0.1", 8080), PortMapping("tcp", 80, "", 8081))
        lab.outside.sysctl("net/ipv4/conf/eth0/route_localnet", "1")
        lab.outside.ip("route", "add", "127.0.0.0/8", "via", HOST)
        for port in (8080, 8081):
            with pytest.raises(TimeoutError):
                tcp_peer(web, 80, lab.outside, "127.0.0.1", port)
        assert tcp_peer(web, 80, lab.host, "127.0.0.1", 8080) == GATEWAY

    in_lab(tmp_path, scenario)


def test_a_container_does_not_reach_the_hosts_loopback(tmp_path: Path) -> None:
    """route_localnet on the bridge is what published loopback ports need, and no more than they need."""

    async def scenario(lab: Lab) -> None:
        evil, _ = await lab.container("evil")
        evil.ip("link", "set", "lo", "down")
        evil.sysctl("net/ipv4/conf/eth0/route_localnet", "1")
        evil.ip("route", "add", "127.0.0.0/8", "via", GATEWAY)
        assert tcp_peer(lab.host, 9999, evil, GATEWAY, 9999) == "10.123.0.2"
        with pytest.raises(TimeoutError):
            tcp_peer(lab.host, 9999, evil, "127.0.0.1", 9999, at="127.0.0.1")

    in_lab(tmp_path, scenario)


def test_containers_go_out_with_the_hosts_address(tmp_path: Path) -> None:
    async def scenario(lab: Lab) -> None:
        web, _ = await lab.container("web")
        assert tcp_peer(lab.outside, 7000, web, OUTSIDE, 7000) == HOST
        assert udp_peer(lab.outside, 7000, web, OUTSIDE, 7000) == HOST

    in_lab(tmp_path, scenario)


def test_without_masquerade_they_go_out_with_their_own(tmp_path: Path) -> None:
    async def scenario(lab: Lab) -> None:
        web, _ = await lab.container("web")
        lab.outside.ip("route", "add", "10.123.0.0/24", "via", HOST)
        assert tcp_peer(lab.outside, 7000, web, OUTSIDE, 7000) == "10.123.0.2"

    in_lab(tmp_path, scenario, replace(bridge_spec(), masquerade=False))


def test_a_container_is_not_reached_past_its_published_ports(tmp_path: Path) -> None:
    """Another host that routes to the subnet gets nothing, not even the published port; the host itself does."""

    async def scenario(lab: Lab) -> None:
        web, _ = await lab.container("web", PortMapping("tcp", 80, "", 8080))
        lab.outside.ip("route", "add", "10.123.0.0/24", "via", HOST)
        for port in (80, 81):
            with pytest.raises(TimeoutError):
                tcp_peer(web, port, lab.outside, "10.123.0.2", port)
            assert tcp_peer(web, port, lab.host, "10.123.0.2", port) == GATEWAY

    in_lab(tmp_path, scenario)


def test_networks_are_walled_off_from_each_other(tmp_path: Path) -> None:
    async def scenario(lab: Lab) -> None:
        second = await lab.controller.create_network(bridge_spec("b", name="second", subnet="10.124.0.0/24"))
        web, _ = await lab.container("web", PortMapping("tcp", 80, "", 8080))
        stranger, _ = await lab.container("stranger", network="b")
        assert second.gateway == "10.124.0.1"
        with pytest.raises(TimeoutError):
            tcp_peer(web, 80, stranger, "10.123.0.2", 80)
        with pytest.raises(TimeoutError):
            tcp_peer(stranger, 80, web, "10.124.0.2", 80)
        assert tcp_peer(web, 80, stranger, HOST, 8080) == "10.124.0.2"
        assert tcp_peer(lab.outside, 7000, stranger, OUTSIDE, 7000) == HOST
        await lab.controller.close_sandbox("stranger-id")
        await lab.controller.remove_network(second.id)
        assert second.bridge not in lab.host.ip("link")
        assert tcp_peer(web, 80, lab.outside, HOST, 8080) == OUTSIDE

    in_lab(tmp_path, scenario)


@pytest.mark.parametrize("known", [True, False], ids=["by the forward chain", "by isolated ports"])
def test_without_icc_neighbours_do_not_talk(tmp_path: Path, known: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not known:  # a kernel without br_netfilter
        monkeypatch.setattr("corten.network.host.bridged_is_filtered", lambda: False)

    async def scenario(lab: Lab) -> None:
        bridged_through_the_filter(lab, False)
        web, _ = await lab.container("web", PortMapping("tcp", 80, "", 8080))
        other, _ = await lab.container("other")
        with pytest.raises(TimeoutError):
            tcp_peer(web, 80, other, "10.123.0.2", 80)
        assert tcp_peer(web, 80, lab.host, "10.123.0.2", 80) == GATEWAY
        assert tcp_peer(lab.outside, 7000, other, OUTSIDE, 7000) == HOST
        assert tcp_peer(web, 80, other, HOST, 8080) == GATEWAY, "a published port is for everyone"

    in_lab(tmp_path, scenario, replace(bridge_spec(), icc=False))


def test_an_internal_network_has_no_way_out_or_in(tmp_path: Path) -> None:
    async def scenario(lab: Lab) -> None:
        web, connected = await lab.container("web", PortMapping("tcp", 80, "", 8080))
        other, _ = await lab.container("other")
        assert connected.endpoint.ports == ()
        assert tcp_peer(web, 80, other, "10.123.0.2", 80) == "10.123.0.3"
        web.ip("route", "add", "default", "via", GATEWAY)
        with pytest.raises(TimeoutError):
            tcp_peer(lab.outside, 7000, web, OUTSIDE, 7000)

    in_lab(tmp_path, scenario, replace(bridge_spec(), internal=True))


def test_the_very_first_packet_passes(tmp_path: Path) -> None:
    """A link drops packets until the kernel has noticed its carrier: `connect` returns after that."""

    async def scenario(lab: Lab) -> None:
        for number in range(8):
            place, connected = await lab.container(f"c{number}")
            assert udp_peer(place, 53, lab.host, connected.endpoint.ip, 53) == GATEWAY
            await lab.controller.close_sandbox(f"c{number}-id")
            place, _ = await lab.container(f"d{number}")
            assert udp_peer(lab.outside, 53, place, OUTSIDE, 53) == HOST
            await lab.controller.close_sandbox(f"d{number}-id")

    in_lab(tmp_path, scenario)


def test_held_sockets_keep_the_port_and_answer_nothing(tmp_path: Path) -> None:
    async def scenario(lab: Lab) -> None:
        _, connected = await lab.container("web", PortMapping("tcp", 80, "", 8080), PortMapping("udp", 80, "", 8080))
        assert len(connected.held) == 2
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
            with socket.socket(socket.AF_INET, kind) as rival:
                rival.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                with pytest.raises(OSError, match="Address already in use"):
                    rival.bind(("0.0.0.0", 8080))
        await lab.controller.close_sandbox("web-id")
        with pytest.raises(ConnectionRefusedError):
            tcp_peer(lab.host, 9, lab.host, HOST, 8080)

    in_lab(tmp_path, scenario)


def test_a_udp_client_that_never_stops_follows_the_port(tmp_path: Path) -> None:
    """Its flow began before the port was published, or was another container's: a stale flow would go nowhere."""

    async def scenario(lab: Lab) -> None:
        with lab.outside.udp() as caller:
            caller.settimeout(patience(20))
            caller.connect((HOST, 5353))

            def served_by(place_socket: socket.socket) -> bool:
                caller.send(b"question")
                place_socket.settimeout(patience(20))
                question, peer = place_socket.recvfrom(100)
                place_socket.sendto(question, peer)
                return caller.recv(100) == b"question"

            def rejected() -> None:
                caller.send(b"too early")
                with pytest.raises(ConnectionRefusedError):
                    caller.recv(100)

            rejected()
            for name in ("first", "second"):
                place, connected = await lab.container(name, PortMapping("udp", 53, "", 5353))
                with place.udp() as listener:
                    listener.bind(("0.0.0.0", 53))
                    assert served_by(listener)
                for held in connected.held:
                    held.close()
                await lab.controller.close_sandbox(f"{name}-id")
                rejected()

    in_lab(tmp_path, scenario)
