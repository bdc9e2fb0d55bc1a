"""The kernel's and nft's reading of the messages that we write."""

from __future__ import annotations

import errno
import shutil
from dataclasses import replace

import pytest

from corten.linux import nftables, rtnl
from corten.linux.netlink import NETLINK_NETFILTER, NETLINK_ROUTE, NetlinkError, NetlinkSocket
from corten.network.rules import Elements, Rules, published
from corten.network.types import Endpoint, PortMapping
from corten.testing.network import bridge_spec
from tests.kernel.isolation import isolated, run

pytestmark = pytest.mark.root
PORTS = (PortMapping("tcp", 80, "127.0.0.1", 8080), PortMapping("udp", 53, "0.0.0.0", 5353))
ENDPOINT = Endpoint("e", "n", "c", "eth0", "cv0", "", "10.123.0.2", 24, "10.123.0.1", PORTS)
LISTING = """\
table inet corten {
	set bridges {
		type ifname
		elements = { "cb-1" }
	}

	map bound {
		type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service
		elements = { 127.0.0.1 . tcp . 8080 : 10.123.0.2 . 80 }
	}

	map wildcard {
		type inet_proto . inet_service : ipv4_addr . inet_service
		elements = { udp . 5353 : 10.123.0.2 . 53 }
	}

	chain guard {
		type filter hook prerouting priority raw; policy accept;
		iifname @bridges ip daddr 127.0.0.0/8 drop
		iifname @bridges ip saddr 127.0.0.0/8 drop
	}

	chain prerouting {
		type nat hook prerouting priority dstnat; policy accept;
		ip daddr 127.0.0.0/8 return
		dnat ip to ip daddr . meta l4proto . th dport map @bound
		meta nfproto ipv4 fib daddr type local dnat ip to meta l4proto . th dport map @wildcard
	}

	chain output {
		type nat hook output priority dstnat; policy accept;
		dnat ip to ip daddr . meta l4proto . th dport map @bound
		meta nfproto ipv4 fib daddr type local dnat ip to meta l4proto . th dport map @wildcard
	}

	chain postrouting {
		type nat hook postrouting priority srcnat; policy accept;
		ip saddr 127.0.0.0/8 oifname @bridges masquerade
		ip saddr 10.123.0.0/24 oifname "cb-1" ct status dnat masquerade comment "web: hairpin"
		ip saddr 10.123.0.0/24 oifname != @bridges masquerade comment "web: out"
	}

	chain forward {
		type filter hook forward priority filter; policy accept;
		ct state established,related accept
		oifname @bridges ct status dnat accept comment "published"
		iifname "cb-1" oifname "cb-1" accept comment "web: icc"
		oifname @bridges drop comment "not published"
	}
}
"""


@pytest.mark.skipif(shutil.which("nft") is None, reason="nft, which shows what the kernel has, is not installed")
def test_nft_reads_the_table_as_it_is_meant() -> None:
    def work() -> None:
        with NetlinkSocket(NETLINK_NETFILTER) as nfnl:
            rules = Rules()
            nftables.commit(nfnl, rules.whole([replace(bridge_spec(), bridge="cb-1")], published([ENDPOINT])))
            # The priority of the output chain has a name in newer versions of nft only.
            assert (
                run("nft", "list", "ruleset").replace("priority -100;", "priority dstnat;").rstrip() == LISTING.rstrip()
            )
            nftables.commit(nfnl, rules.gone())
            assert run("nft", "list", "ruleset") == ""

    isolated(work)


def test_a_refused_message_is_named_and_nothing_is_done() -> None:
    def work() -> None:
        with NetlinkSocket(NETLINK_NETFILTER) as nfnl:
            table = nftables.Table("corten")
            messages = [table.add(), table.rule("nowhere", nftables.verdict(nftables.NF_DROP), comment="lost")]
            with pytest.raises(
                NetlinkError, match=r"add rule to nowhere \(lost\): No such file or directory"
            ) as caught:
                nftables.commit(nfnl, messages)
            assert caught.value.errno == errno.ENOENT
            assert not table.exists(nfnl)
            with pytest.raises(NetlinkError, match="delete elements of bound"):
                nftables.commit(nfnl, table.delete_elements("bound", [(bytes(12), b"")]))
            nftables.commit(nfnl, [table.add()])
            assert table.exists(nfnl)

    isolated(work)


def test_the_kernels_own_words_are_in_the_error() -> None:
    def work() -> None:
        with NetlinkSocket(NETLINK_ROUTE) as socket:
            with pytest.raises(
                NetlinkError, match=r"add default route via 9\.9\.9\.9: .*\(Nexthop has invalid gateway\)"
            ):
                socket.batch([rtnl.add_default_route(1, "9.9.9.9")])

    isolated(work)


def test_the_first_refusal_is_told_and_the_rest_is_done() -> None:
    def work() -> None:
        with NetlinkSocket(NETLINK_ROUTE) as socket:
            messages = [rtnl.set_up(1), rtnl.delete_link("none"), rtnl.add_address(1, "10.0.0.1", 32)]
            with pytest.raises(NetlinkError, match="delete link none: No such device") as caught:
                socket.batch(messages)
            assert caught.value.index == 1
            assert ("10.0.0.1", 32) in rtnl.addresses(socket, 1)

    isolated(work)


def test_ten_thousand_elements_go_and_come_back() -> None:
    def work() -> None:
        with NetlinkSocket(NETLINK_NETFILTER) as nfnl:
            rules = Rules()
            ports = tuple(PortMapping("tcp", 80, "0.0.0.0", port) for port in range(1, 10001))
            elements = published([replace(ENDPOINT, ports=ports)])
            nftables.commit(nfnl, rules.whole([], elements))
            held = rules.table.elements(nfnl, "wildcard")
            assert Elements(wildcard=frozenset(held.items())) == elements
            nftables.commit(nfnl, rules.delete(elements))
            assert rules.table.elements(nfnl, "wildcard") == {}

    isolated(work)
