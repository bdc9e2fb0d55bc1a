"""What a network controller leaves, keeps, finds again and puts back."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

import pytest

from corten.errors import SystemFault
from corten.network.controller import BridgeController
from corten.network.types import PortMapping
from corten.testing.network import bridge_spec, endpoint_request, join, network_id
from tests.kernel.isolation import isolated, run
from tests.kernel.netlab import HOST, OUTSIDE, Lab, Place, in_lab, tcp_peer
from tests.waiting import patience, until_async

pytestmark = pytest.mark.root
WEB = PortMapping("tcp", 80, "", 8080)
FOREIGN = "table ip theirs { chain input { type filter hook input priority 0; policy accept; tcp dport 1 drop; }\n}\n"


def links() -> list[str]:
    return sorted(line.split(": ")[1].partition("@")[0] for line in run("ip", "-o", "link").splitlines())


def mounts_below(path: Path) -> list[str]:
    return [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(path) in line]


def test_nothing_of_ours_is_left_and_nothing_of_theirs_is_touched(tmp_path: Path) -> None:
    def work() -> None:
        (tmp_path / "theirs.nft").write_text(FOREIGN)
        run("nft", "-f", str(tmp_path / "theirs.nft"))
        before = run("nft", "list", "ruleset"), links(), mounts_below(tmp_path)
        descriptors = len(os.listdir("/proc/self/fd"))

        async def scenario() -> None:
            controller = BridgeController(tmp_path, pool_size=2)
            await controller.start([bridge_spec()], [])
            await controller.create_network(bridge_spec("b", name="second", subnet=""))
            first = await join(controller, network_id("a"), endpoint_request("first", WEB))
            second = await join(controller, network_id("b"), endpoint_request("second"))
            assert run("nft", "list", "table", "ip", "theirs") in before[0]
            for held in (*first.held, *second.held):
                held.close()
            await controller.close(keep=False)

        asyncio.run(scenario())
        assert (run("nft", "list", "ruleset"), links(), mounts_below(tmp_path)) == before
        assert not (tmp_path / "netns").exists()
        assert len(os.listdir("/proc/self/fd")) == descriptors

    isolated(work)


def test_running_containers_keep_their_network_over_a_restart(tmp_path: Path) -> None:
    async def scenario(lab: Lab) -> None:
        web, connected = await lab.container("web", WEB)
        await lab.container("gone", PortMapping("tcp", 80, "", 8081))
        await lab.controller.open_sandbox("quiet-id")
        await lab.controller.close(keep=True)
        assert tcp_peer(web, 80, lab.outside, HOST, 8080) == OUTSIDE, "with no controller at all"

        after = BridgeController(tmp_path, pool_size=1)
        await after.start([bridge_spec()], [connected.endpoint], ["quiet-id"])
        try:
            assert tcp_peer(web, 80, lab.outside, HOST, 8080) == OUTSIDE
            assert sorted(os.listdir(tmp_path / "netns")) == ["quiet-id", "web-id"]
            assert [name for name in links() if name.startswith("cv")] == [connected.endpoint.host_interface]
            assert "8081" not in run("nft", "list", "ruleset")
            assert (await after.stats("web-id"))[0].rx_bytes > 0
            assert await after.stats("quiet-id") == []
            fresh = await join(after, network_id("a"), endpoint_request("fresh"))
            assert fresh.endpoint.ip == "10.123.0.3"
        finally:
            for held in connected.held:
                held.close()
            await after.close(keep=False)
        assert [name for name in links() if name.startswith("c")] == []

    in_lab(tmp_path, scenario)


def test_with_nothing_running_no_mount_is_kept(tmp_path: Path) -> None:
    async def scenario(lab: Lab) -> None:
        assert mounts_below(tmp_path)
        await lab.controller.close(keep=True)
        assert mounts_below(tmp_path) == []

    in_lab(tmp_path, scenario)


def test_a_table_that_somebody_removed_comes_back_whole(tmp_path: Path) -> None:
    async def scenario(lab: Lab) -> None:
        web, _ = await lab.container("web", WEB)
        lab.controller._watch.close()  # what is tested here is that each call notices by itself
        run("nft", "flush", "ruleset")
        with pytest.raises((ConnectionRefusedError, TimeoutError)):
            tcp_peer(web, 80, lab.outside, HOST, 8080)
        second, _ = await lab.container("second", PortMapping("tcp", 80, "", 8081))
        assert tcp_peer(web, 80, lab.outside, HOST, 8080) == OUTSIDE
        assert tcp_peer(second, 80, lab.outside, HOST, 8081) == OUTSIDE
        run("nft", "flush", "ruleset")
        await lab.controller.reconcile()
        assert tcp_peer(web, 80, lab.host, "127.0.0.1", 8080) == "10.123.0.1"
        run("nft", "flush", "ruleset")
        await lab.controller.close_sandbox("second-id")
        await lab.controller.create_network(bridge_spec("b", name="second", subnet=""))
        assert tcp_peer(web, 80, lab.outside, HOST, 8080) == OUTSIDE

    in_lab(tmp_path, scenario)


def test_a_firewall_that_is_reloaded_takes_no_port_away(tmp_path: Path) -> None:
    async def scenario(lab: Lab) -> None:
        web, _ = await lab.container("web", WEB)
        for _ in range(2):
            run("nft", "flush", "ruleset")
            await until_async(lambda: "8080" in run("nft", "list", "ruleset"), what="the table is back")
            assert tcp_peer(web, 80, lab.outside, HOST, 8080) == OUTSIDE

    in_lab(tmp_path, scenario)


def test_a_bridge_that_somebody_removed_comes_back_with_its_ports(tmp_path: Path) -> None:
    async def scenario(lab: Lab) -> None:
        web, connected = await lab.container("web", WEB)
        run("ip", "link", "delete", "cb-aaaaaaaaaaaa")
        second, _ = await lab.container("second")
        assert tcp_peer(second, 80, lab.host, "10.123.0.3", 80) == "10.123.0.1"
        await lab.controller.reconcile()
        assert tcp_peer(web, 80, lab.outside, HOST, 8080) == OUTSIDE
        assert "master cb-aaaaaaaaaaaa" in run("ip", "link", "show", connected.endpoint.host_interface)

    in_lab(tmp_path, scenario)


def test_a_failed_connect_leaves_nothing(tmp_path: Path) -> None:
    async def scenario(lab: Lab) -> None:
        sandbox = await lab.controller.open_sandbox("web-id")
        # The name that the endpoint would take is there already.
        Place.at(sandbox.path).ip("link", "add", "eth0", "type", "bridge")
        before = links(), run("nft", "list", "ruleset")
        with pytest.raises(SystemFault, match=r"failed to set up container networking: .* add link cv"):
            await lab.controller.connect(sandbox, network_id("a"), endpoint_request("web", WEB))
        assert (links(), run("nft", "list", "ruleset")) == before
        Place.at(sandbox.path).ip("link", "delete", "eth0")
        connected = await lab.controller.connect(sandbox, network_id("a"), endpoint_request("web", WEB))
        assert connected.endpoint.ports[0].host_port == 8080

    in_lab(tmp_path, scenario)


def test_what_a_crash_left_in_the_place_of_a_sandbox_is_replaced(tmp_path: Path) -> None:
    async def scenario(lab: Lab) -> None:
        (tmp_path / "netns" / "web-id").touch()
        web, _ = await lab.container("web", WEB)
        assert tcp_peer(web, 80, lab.outside, HOST, 8080) == OUTSIDE

    in_lab(tmp_path, scenario)


def test_a_cancelled_connect_is_undone(tmp_path: Path) -> None:
    async def scenario(lab: Lab) -> None:
        sandbox = await lab.controller.open_sandbox("web-id")
        connecting = asyncio.ensure_future(  # noqa: TID251 - cancelled right here
            lab.controller.connect(sandbox, network_id("a"), endpoint_request("web", WEB))
        )
        await asyncio.sleep(0)  # up to the first wait for the kernel
        connecting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await connecting
        again = await join(lab.controller, network_id("a"), endpoint_request("other", ip="10.123.0.2"))
        assert again.endpoint.ip == "10.123.0.2"
        assert "8080" not in run("nft", "list", "ruleset")

    in_lab(tmp_path, scenario)


def test_many_at_once(tmp_path: Path) -> None:
    async def scenario(lab: Lab) -> None:
        names = [f"c{number}" for number in range(30)]
        made = await asyncio.gather(
            *(lab.container(name, PortMapping("tcp", 80, "", 9000 + number)) for number, name in enumerate(names))
        )
        assert len({connected.endpoint.ip for _, connected in made}) == 30
        for number, (place, _) in enumerate(made):
            assert tcp_peer(place, 80, lab.outside, HOST, 9000 + number) == OUTSIDE
        await asyncio.gather(*(lab.controller.close_sandbox(f"{name}-id") for name in names))
        assert "elements" not in run("nft", "list", "map", "inet", "corten", "wildcard")

    in_lab(tmp_path, scenario)


def test_a_thousand_ports_of_one_container_take_one_transaction(tmp_path: Path) -> None:
    async def scenario(lab: Lab) -> None:
        ports = tuple(PortMapping("tcp", number, "", number) for number in range(20000, 22000))
        began = time.monotonic()
        web, connected = await lab.container("web", *ports)
        assert time.monotonic() - began < patience(2)
        assert tcp_peer(web, 21999, lab.outside, HOST, 21999) == OUTSIDE
        for held in connected.held:
            held.close()
        await lab.controller.close_sandbox("web-id")
        assert "elements" not in run("nft", "list", "map", "inet", "corten", "wildcard")

    in_lab(tmp_path, scenario)


def test_a_chosen_subnet_avoids_the_hosts_routes(tmp_path: Path) -> None:
    def work() -> None:
        run("ip", "link", "add", "up0", "type", "bridge")
        run("ip", "link", "set", "up0", "up")
        run("ip", "addr", "add", "172.17.5.1/24", "dev", "up0")
        run("ip", "route", "add", "172.18.0.0/15", "dev", "up0")

        async def scenario() -> None:
            controller = BridgeController(tmp_path, pool_size=0)
            filled = await controller.fill(bridge_spec(subnet=""))
            assert filled.subnet == "172.20.0.0/16"
            await controller.start([filled], [])
            second = await controller.create_network(bridge_spec("b", name="two", subnet=""))
            assert second.subnet == "172.21.0.0/16"
            await controller.close(keep=False)

        asyncio.run(scenario())

    isolated(work)
