"""Links of the host's that become a container's. The launcher runs in a network namespace of its own as the "host"."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from corten.specs.oci_runtime import IDMapping, Namespace, NetDevice, Spec
from tests.kernel.launching import Lab, Outcome, leftovers, needs_root, remove_parents

pytestmark = [pytest.mark.root, needs_root]

SETUP = """
ip link add eth5 type veth peer name peer5
ip link set eth5 mtu 1400 address 02:00:00:00:00:05 alias label
ip address add 10.77.0.1/24 broadcast 10.77.0.255 dev eth5 label eth5:web
ip address add 10.78.0.1/32 dev eth5
ip address add 10.79.0.1/24 dev eth5 scope link
ip address add fd77::1/64 dev eth5 nodad
ip address add fd78::1/64 dev eth5 nodad valid_lft 1000 preferred_lft 1000
ip link add eth6 type veth peer name peer6
ip link set eth5 up
"""
PROBE = "answer['host'] = [line.split(':')[0].strip() for line in open('/proc/net/dev') if ':' in line]"


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    made = Lab(tmp_path)
    yield made
    assert not leftovers(made.cgroup)
    remove_parents(os.path.dirname(made.cgroup))


def moving(change: Callable[[Spec], None] | None = None, **names: str) -> Callable[[Spec], None]:
    def apply(spec: Spec) -> None:
        assert spec.linux is not None
        spec.linux.net_devices = {name: NetDevice(name=inside) for name, inside in names.items()}
        if change is not None:
            change(spec)

    return apply


def run(lab: Lab, script: str, change: Callable[[Spec], None], setup: str = SETUP) -> Outcome:
    wrap = ("unshare", "-n", "sh", "-ec", f'{setup}\nexec "$@"', "sh")
    return lab.run("sh", "-c", f"{script}; cat", change=change, probe=PROBE, wrap=wrap)


def test_a_link_moves_with_what_is_its_own(lab: Lab) -> None:
    def change(spec: Spec) -> None:
        assert spec.linux is not None
        spec.linux.sysctl = {"net.ipv4.conf.eth5.rp_filter": "2"}

    script = "ip address show dev eth5; cat /proc/sys/net/ipv4/conf/eth5/rp_filter"
    done = run(lab, script, moving(change, eth5=""))
    assert done.failure is None, done.failure
    lines = [line.strip() for line in done.out.splitlines()]
    assert "UP" in lines[0]
    assert "mtu 1400" in lines[0]
    assert lines[1].startswith("link/ether 02:00:00:00:00:05")
    addresses = sorted(line.split(" scope ")[0] for line in lines if line.startswith("inet") and "scope global" in line)
    assert addresses == ["inet 10.77.0.1/24 brd 10.77.0.255", "inet 10.78.0.1/32", "inet6 fd77::1/64"]
    assert "10.79.0.1" not in done.out
    assert "fd78::1" not in done.out
    assert lines[-1] == "2"
    assert sorted(done.answer["host"]) == ["eth6", "lo", "peer5", "peer6"]


def test_links_are_renamed(lab: Lab) -> None:
    done = run(lab, "ip -o link; ip -o address", moving(eth5="data0", eth6="net%d"))
    assert done.failure is None, done.failure
    assert "data0" in done.out
    assert "net0" in done.out
    assert "inet 10.77.0.1/24" in done.out
    assert "eth5" not in done.out
    assert "eth6" not in done.out
    assert sorted(done.answer["host"]) == ["lo", "peer5", "peer6"]


@pytest.mark.parametrize(
    ("names", "text"),
    [
        ({"nosuch": ""}, "linux.netDevices: link nosuch: no such device"),
        ({"eth5": "lo"}, "linux.netDevices: moving eth5: lo in the container's network namespace: file exists"),
        ({"lo": "x0"}, "linux.netDevices: moving lo (move link 1 as x0"),
    ],
)
def test_what_cannot_move_is_named(lab: Lab, names: dict[str, str], text: str) -> None:
    done = run(lab, "true", moving(None, **names))
    assert done.failure is not None
    assert text in done.failure[2]


def test_nothing_moves_when_one_is_missing(lab: Lab) -> None:
    setup = f"{SETUP}\ntrap 'ip -o link show dev eth5 >&2' EXIT"
    wrap = ("unshare", "-n", "sh", "-ec", f'{setup}\n"$@"', "sh")
    done = lab.run("true", change=moving(eth5="", nosuch=""), wrap=wrap)
    assert done.failure is not None
    assert "eth5" in done.err


def test_a_namespace_that_exists(lab: Lab, tmp_path: Path) -> None:
    (tmp_path / "net").touch()
    setup = f"mount --make-rprivate /; unshare --net={tmp_path}/net true; {SETUP}"

    def change(spec: Spec) -> None:
        assert spec.linux is not None
        spec.linux.namespaces = [space for space in spec.linux.namespaces if space.type != "network"]
        spec.linux.namespaces.append(Namespace(type="network", path=f"{tmp_path}/net"))

    wrap = ("unshare", "-m", "-n", "sh", "-ec", f'{setup}\nexec "$@"', "sh")
    done = lab.run("ip", "-o", "address", change=moving(change, eth5="in0"), wrap=wrap)
    assert done.failure is None, done.failure
    assert "in0    inet 10.77.0.1/24" in done.out


def test_a_user_namespace(lab: Lab) -> None:
    def change(spec: Spec) -> None:
        assert spec.linux is not None
        spec.linux.namespaces.append(Namespace(type="user"))
        spec.linux.uid_mappings = [IDMapping(container_id=0, host_id=0, size=65536)]
        spec.linux.gid_mappings = [IDMapping(container_id=0, host_id=0, size=65536)]

    done = run(lab, "ip -o address show dev eth5", moving(change, eth5=""))
    assert done.failure is None, done.failure
    assert "inet 10.77.0.1/24" in done.out
