"""Messages as bytes: written as the kernel's headers have them, and read back."""

from __future__ import annotations

import struct
import subprocess
import sys

import pytest

from corten.linux import conntrack, netlink, nftables, rtnl
from corten.linux.netlink import Message


def test_a_message_is_a_header_and_a_padded_payload() -> None:
    data = Message(16, netlink.NLM_F_ACK, b"\x01\x02\x03", "x").encode(7)
    assert data == struct.pack("=IHHII", 19, 16, netlink.NLM_F_REQUEST | netlink.NLM_F_ACK, 7, 0) + b"\x01\x02\x03\0"


def test_attributes_are_padded_but_their_length_is_not() -> None:
    assert netlink.string(3, "lo") == struct.pack("=HH", 7, 3) + b"lo\0\0"
    assert netlink.u32(4, 1500) == struct.pack("=HHI", 8, 4, 1500)
    assert netlink.be32(4, 1500) == struct.pack("=HH", 8, 4) + b"\0\0\x05\xdc"
    assert netlink.nested(18, netlink.u8(1, 9)) == struct.pack("=HH", 12, 18 | 0x8000) + struct.pack("=HHB3x", 5, 1, 9)


def test_attributes_are_read_back_without_their_flags() -> None:
    data = netlink.string(3, "eth0") + netlink.nested(18, netlink.u8(1, 9)) + netlink.u16(5, 258)
    assert [kind for kind, _ in netlink.attrs(data)] == [3, 18, 5]
    values = dict(netlink.attrs(data))
    assert values[3] == b"eth0\0"
    assert list(netlink.attrs(values[18])) == [(1, b"\x09")]


def test_attributes_cut_short_end_the_reading() -> None:
    whole = netlink.string(3, "eth0")
    assert list(netlink.attrs(whole[:-4])) == []
    assert list(netlink.attrs(struct.pack("=HH", 2, 3))) == []


def test_an_attribute_longer_than_its_length_can_say_is_refused() -> None:
    with pytest.raises(OSError, match="netlink attribute 3 of 65536 bytes"):
        netlink.attr(3, bytes(65536))


def test_datagrams_are_split_into_messages() -> None:
    messages = [Message(16, 0, b"abc", ""), Message(3, netlink.NLM_F_MULTI, b"", "")]
    data = b"".join(message.encode(seq) for seq, message in enumerate(messages))
    assert [(kind, seq, payload) for kind, seq, _, payload in netlink.split(data)] == [(16, 0, b"abc"), (3, 1, b"")]


def test_a_link_is_read_from_what_the_kernel_says() -> None:
    counters = struct.pack("=8Q", *range(10, 18)) + bytes(64)
    payload = struct.pack("=BxHiII", 0, 1, 5, rtnl.IFF_UP, 0)
    payload += netlink.string(rtnl.IFLA_IFNAME, "cv0123456789ab") + netlink.u32(rtnl.IFLA_MTU, 1400)
    payload += netlink.attr(rtnl.IFLA_ADDRESS, rtnl.mac_bytes("02:42:ac:11:00:02")) + netlink.u32(rtnl.IFLA_MASTER, 3)
    payload += netlink.nested(rtnl.IFLA_LINKINFO, netlink.string(rtnl.IFLA_INFO_KIND, "veth"))
    link = rtnl.Link(payload + netlink.attr(rtnl.IFLA_STATS64, counters))
    assert (link.name, link.kind, link.index, link.mtu, link.master, link.up) == (
        "cv0123456789ab",
        "veth",
        5,
        1400,
        3,
        True,
    )
    assert link.mac == b"\x02\x42\xac\x11\x00\x02"
    assert link.stats == tuple(range(10, 18))


@pytest.mark.parametrize("mac", ["", "02:42", "02:42:ac:11:00:02:03", "zz:42:ac:11:00:02"])
def test_what_is_no_mac_is_refused(mac: str) -> None:
    with pytest.raises(ValueError):
        rtnl.mac_bytes(mac)


def test_keys_are_parts_padded_to_registers() -> None:
    assert nftables.key(b"\x06", nftables.port(8080)) == b"\x06\0\0\0\x1f\x90\0\0"
    assert nftables.ifname("eth0") == b"eth0" + bytes(12)
    assert nftables.concat_type(7, 12, 13) == 7 << 12 | 12 << 6 | 13


def test_a_long_list_of_elements_is_cut_into_messages() -> None:
    table = nftables.Table("corten")
    elements = [(nftables.key(b"\x06", nftables.port(n)), bytes(8)) for n in range(1, 1002)]
    messages = table.add_elements("wildcard", elements)
    assert len(messages) == 3
    assert all(len(message.payload) < 65536 for message in messages)
    assert sum(len(list(nftables._elements_in(message.payload[4:]))) for message in messages) == 1001
    assert table.add_elements("wildcard", []) == []


def test_a_flow_names_where_it_went_and_who_answers() -> None:
    def tuple_of(source: bytes, destination: bytes) -> bytes:
        ip = netlink.attr(conntrack.CTA_IP_V4_SRC, source) + netlink.attr(conntrack.CTA_IP_V4_DST, destination)
        return netlink.nested(conntrack.CTA_TUPLE_IP, ip)

    payload = b"\x02\0\0\0" + netlink.nested(conntrack.CTA_TUPLE_ORIG, tuple_of(b"\1\2\3\4", b"\5\6\7\10"))
    payload += netlink.nested(conntrack.CTA_TUPLE_REPLY, tuple_of(b"\xac\x11\0\2", b"\1\2\3\4"))
    flow = conntrack.Flow(payload + netlink.attr(conntrack.CTA_ID, b"abcd"))
    assert (flow.destination, flow.answers, flow.identity) == ("5.6.7.8", "172.17.0.2", b"abcd")


def test_the_modules_import_next_to_nothing() -> None:
    names = "netlink", "rtnl", "nftables", "conntrack"
    program = "".join(f"import corten.linux.{name}\n" for name in names)
    program += (
        "import sys; print(sorted({'socket', 'enum', 'typing', 're', 'dataclasses', 'asyncio'} & set(sys.modules)))"
    )
    path = next(path for path in sys.path if path.endswith("src"))
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", f"import sys; sys.path.insert(0, {path!r})\n{program}"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "[]\n"
