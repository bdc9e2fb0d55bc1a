from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from corten.errors import Conflict, InvalidArgument
from corten.network.ipam import DEFAULT_POOLS, PoolRange, Subnet, candidates, choose_subnet, mac_of, parse_mac


def nets(*texts: str) -> list[IPv4Network]:
    return [IPv4Network(text) for text in texts]


def test_the_pools_are_dockers() -> None:
    subnets = [str(subnet) for subnet in candidates(DEFAULT_POOLS)]
    assert subnets[0] == "172.17.0.0/16"
    assert subnets[14:17] == ["172.31.0.0/16", "192.168.0.0/20", "192.168.16.0/20"]
    assert len(subnets) == 31


def test_the_default_route_overlaps_nothing() -> None:
    assert choose_subnet(DEFAULT_POOLS, nets("0.0.0.0/0")) == IPv4Network("172.17.0.0/16")


def test_what_the_host_reaches_otherwise_is_avoided() -> None:
    taken = nets("172.17.9.0/24", "172.18.0.0/15")
    assert choose_subnet(DEFAULT_POOLS, taken) == IPv4Network("172.20.0.0/16")


def test_when_all_is_taken_it_is_said() -> None:
    with pytest.raises(Conflict, match="all predefined address pools have been fully subnetted"):
        choose_subnet(DEFAULT_POOLS, nets("172.16.0.0/12", "192.168.0.0/16"))


@given(
    st.lists(
        st.builds(
            lambda value, length: IPv4Network((value, length), strict=False),
            st.integers(0, 2**32 - 1),
            st.integers(1, 32),
        ),
        max_size=12,
    )
)
def test_a_chosen_subnet_overlaps_nothing_and_none_before_it_was_free(taken: list[IPv4Network]) -> None:
    pools = (PoolRange("10.0.0.0/14", 16), PoolRange("192.168.0.0/22", 24))
    free = [net for net in candidates(pools) if not any(net.overlaps(other) for other in taken)]
    if free:
        assert choose_subnet(pools, taken) == free[0]
    else:
        with pytest.raises(Conflict):
            choose_subnet(pools, taken)


def test_macs_are_made_of_addresses() -> None:
    assert mac_of("172.17.0.2") == "02:42:ac:11:00:02"


def test_macs_that_users_give_are_checked() -> None:
    assert parse_mac("92-D0-C6-0A-29-33") == "92:d0:c6:0a:29:33"
    for wrong in ("", "92:d0:c6:0a:29", "92:d0:c6:0a:29:33:44", "zz:d0:c6:0a:29:33", "01:00:5e:00:00:01"):
        with pytest.raises(InvalidArgument, match="invalid MAC address"):
            parse_mac(wrong)


@pytest.mark.parametrize(
    ("subnet", "gateway", "ip_range", "words"),
    [
        ("10.0.0.1/24", "", "", "has host bits set"),
        ("10.0.0.0", "10.1.0.1", "", "too small"),
        ("10.0.0.0/31", "", "", "too small"),
        ("nonsense", "", "", "invalid subnet nonsense"),
        ("10.0.0.0/24", "10.0.1.1", "", "no matching subnet for gateway"),
        ("10.0.0.0/24", "x", "", "invalid IPv4 address"),
        ("10.0.0.0/24", "", "10.0.1.0/25", "no matching subnet for range"),
    ],
)
def test_what_cannot_be_a_subnet_is_refused(subnet: str, gateway: str, ip_range: str, words: str) -> None:
    with pytest.raises(InvalidArgument, match=words):
        Subnet(subnet, gateway, ip_range)


def test_a_range_bounds_what_is_chosen_but_not_what_is_asked_for() -> None:
    subnet = Subnet("10.0.0.0/24", ip_range="10.0.0.128/30")
    assert [subnet.take() for _ in range(4)] == [f"10.0.0.{last}" for last in (128, 129, 130, 131)]
    with pytest.raises(Conflict, match="no available IPv4 addresses"):
        subnet.take()
    assert subnet.take("10.0.0.7") == "10.0.0.7"
    subnet.release("10.0.0.7")
    with pytest.raises(Conflict):
        subnet.take()


class Leases(RuleBasedStateMachine):
    """Against a set: the lowest free address comes first, and nothing is lent twice."""

    lent = Bundle("lent")

    def __init__(self) -> None:
        super().__init__()
        self.subnet = Subnet("10.0.0.0/27", gateway="10.0.0.5")
        self.free = {IPv4Address("10.0.0.0") + n for n in range(1, 31)} - {IPv4Address("10.0.0.5")}
        self.taken: set[IPv4Address] = set()

    @rule(target=lent)
    def take(self) -> str:
        if not self.free:
            with pytest.raises(Conflict):
                self.subnet.take()
            return "10.0.0.1"
        ip = self.subnet.take()
        assert IPv4Address(ip) == min(self.free)
        self._lend(ip)
        return ip

    @rule(target=lent, last=st.integers(0, 40))
    def take_by_name(self, last: int) -> str:
        ip = f"10.0.0.{last}"
        if IPv4Address(ip) in self.free:
            assert self.subnet.take(ip) == ip
            self._lend(ip)
        else:
            with pytest.raises((Conflict, InvalidArgument)):
                self.subnet.take(ip)
        return ip

    @rule(ip=consumes(lent))
    def release(self, ip: str) -> None:
        self.subnet.release(ip)
        if IPv4Address(ip) in self.taken:
            self.taken.remove(IPv4Address(ip))
            self.free.add(IPv4Address(ip))

    @invariant()
    def counts_agree(self) -> None:
        assert len(self.subnet) == len(self.taken)
        assert all(str(ip) in self.subnet for ip in self.taken)

    def _lend(self, ip: str) -> None:
        self.free.remove(IPv4Address(ip))
        self.taken.add(IPv4Address(ip))


TestLeases = Leases.TestCase
