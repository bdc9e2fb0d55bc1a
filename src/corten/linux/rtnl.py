"""Links, addresses and routes (linux/rtnetlink.h, linux/if_link.h): requests and what answers say."""

from __future__ import annotations

import _socket as socket  # the part that is C: the rest costs 15 ms of imports
import struct

from corten.linux.netlink import (
    NLM_F_CREATE,
    NLM_F_DUMP,
    NLM_F_EXCL,
    NLM_F_REPLACE,
    Message,
    NetlinkSocket,
    Reply,
    attr,
    attrs,
    nested,
    string,
    u8,
    u32,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

# linux/rtnetlink.h
RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK = 16, 17, 18
RTM_NEWADDR, RTM_DELADDR, RTM_GETADDR = 20, 21, 22
RTM_NEWROUTE, RTM_DELROUTE, RTM_GETROUTE = 24, 25, 26
RTA_DST, RTA_OIF, RTA_GATEWAY, RTA_TABLE = 1, 4, 5, 15
RT_TABLE_MAIN, RT_TABLE_LOCAL = 254, 255
RTPROT_BOOT = 3
RT_SCOPE_UNIVERSE, RT_SCOPE_LINK = 0, 253
RTN_UNICAST = 1
# linux/if.h
IFF_UP, IFF_LOOPBACK = 0x1, 0x8
IF_OPER_UP = 6
# linux/if_link.h
IFLA_ADDRESS, IFLA_IFNAME, IFLA_MTU, IFLA_MASTER, IFLA_OPERSTATE, IFLA_LINKINFO, IFLA_STATS64 = 1, 3, 4, 10, 16, 18, 23
IFLA_AF_SPEC, IFLA_GROUP, IFLA_NET_NS_FD = 26, 27, 28
IFLA_INFO_KIND, IFLA_INFO_DATA, IFLA_INFO_SLAVE_KIND, IFLA_INFO_SLAVE_DATA = 1, 2, 4, 5
IFLA_BR_NF_CALL_IPTABLES = 36
IFLA_BRPORT_MODE, IFLA_BRPORT_ISOLATED = 4, 33
IFLA_INET6_ADDR_GEN_MODE, IN6_ADDR_GEN_MODE_NONE = 8, 1
VETH_INFO_PEER = 1
# linux/if_addr.h
IFA_ADDRESS, IFA_LOCAL, IFA_LABEL, IFA_BROADCAST, IFA_CACHEINFO, IFA_FLAGS = 1, 2, 3, 4, 6, 8
IFA_F_PERMANENT = 0x80
_IFA_STATES = IFA_F_PERMANENT | 0x40 | 0x20 | 0x08  # and IFA_F_TENTATIVE, _DEPRECATED, _DADFAILED: what the kernel says

_IFINFO = struct.Struct("=BxHiII")  # struct ifinfomsg: family, type, index, flags, change
_IFADDR = struct.Struct("=BBBBI")  # struct ifaddrmsg: family, prefix length, flags, scope, index
_RTMSG = struct.Struct("=BBBBBBBBI")  # struct rtmsg: family, dst len, src len, tos, table, protocol, scope, type, flags


def mac_bytes(mac: str) -> bytes:
    """Raises ValueError for anything but six hex pairs."""
    data = bytes.fromhex(mac.replace(":", ""))
    if len(data) != 6:
        raise ValueError(f"invalid MAC address: {mac}")
    return data


def _ifinfo(index: int = 0, flags: int = 0, change: int = 0) -> bytes:
    return _IFINFO.pack(socket.AF_UNSPEC, 0, index, flags, change)


def add_bridge(name: str, *, mtu: int, mac: str) -> Message:
    """A bridge with a fixed address: a bridge without one takes the lowest of its ports', and changes with them."""
    payload = _ifinfo() + string(IFLA_IFNAME, name) + u32(IFLA_MTU, mtu) + attr(IFLA_ADDRESS, mac_bytes(mac))
    payload += nested(IFLA_LINKINFO, string(IFLA_INFO_KIND, "bridge"))
    return Message(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, payload, f"add bridge {name}")


def add_veth(name: str, master: int, peer: str, peer_mac: str, netns_fd: int, *, mtu: int) -> Message:
    """A veth pair: `name` here with `master` as its bridge, `peer` in the namespace of `netns_fd`, both down.

    A veth cannot be set up as it is made (ENOTCONN): the kernel ties the ends together last.
    """
    inner = _ifinfo() + string(IFLA_IFNAME, peer) + attr(IFLA_ADDRESS, mac_bytes(peer_mac))
    inner += u32(IFLA_MTU, mtu) + u32(IFLA_NET_NS_FD, netns_fd)
    data = nested(IFLA_INFO_DATA, attr(VETH_INFO_PEER, inner))
    payload = _ifinfo() + string(IFLA_IFNAME, name) + u32(IFLA_MTU, mtu) + u32(IFLA_MASTER, master)
    payload += nested(IFLA_LINKINFO, string(IFLA_INFO_KIND, "veth"), data)
    return Message(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, payload, f"add link {name} with peer {peer}")


def bridge_port_up(name: str, *, isolated: bool) -> Message:
    """Set a bridge's port up, in hairpin mode and without an IPv6 address of its own.

    `isolated` ports reach the bridge itself and ports that are not isolated, but not each other.
    """
    port = u8(IFLA_BRPORT_MODE, 1) + u8(IFLA_BRPORT_ISOLATED, int(isolated))
    info = string(IFLA_INFO_SLAVE_KIND, "bridge") + nested(IFLA_INFO_SLAVE_DATA, port)
    silent = nested(IFLA_AF_SPEC, nested(socket.AF_INET6, u8(IFLA_INET6_ADDR_GEN_MODE, IN6_ADDR_GEN_MODE_NONE)))
    payload = _ifinfo(0, IFF_UP, IFF_UP) + string(IFLA_IFNAME, name) + nested(IFLA_LINKINFO, info) + silent
    return Message(RTM_NEWLINK, 0, payload, f"set up bridge port {name}")


def set_up(index: int) -> Message:
    return Message(RTM_NEWLINK, 0, _ifinfo(index, IFF_UP, IFF_UP), f"set up link {index}")


def set_mtu(index: int, mtu: int) -> Message:
    return Message(RTM_NEWLINK, 0, _ifinfo(index) + u32(IFLA_MTU, mtu), f"set mtu of link {index}")


def bridge_filters(index: int) -> Message:
    """Show what passes from port to port of a bridge to the filters of the IP layer. Needs br_netfilter."""
    data = nested(IFLA_INFO_DATA, u8(IFLA_BR_NF_CALL_IPTABLES, 1))
    payload = _ifinfo(index) + nested(IFLA_LINKINFO, string(IFLA_INFO_KIND, "bridge"), data)
    return Message(RTM_NEWLINK, 0, payload, f"filter between the ports of bridge {index}")


def set_master(index: int, master: int) -> Message:
    """Make a link a port of a bridge."""
    return Message(RTM_NEWLINK, 0, _ifinfo(index) + u32(IFLA_MASTER, master), f"set master of link {index}")


def move_link(index: int, name: str, netns_fd: int) -> Message:
    """Give a link to another network namespace, under `name` there; a name with "%d" is one to choose by the kernel."""
    payload = _ifinfo(index) + string(IFLA_IFNAME, name) + u32(IFLA_NET_NS_FD, netns_fd)
    return Message(RTM_NEWLINK, 0, payload, f"move link {index} as {name}")


def delete_link(name: str) -> Message:
    return Message(RTM_DELLINK, 0, _ifinfo() + string(IFLA_IFNAME, name), f"delete link {name}")


def set_group(name: str, group: int) -> Message:
    return Message(RTM_NEWLINK, 0, _ifinfo() + string(IFLA_IFNAME, name) + u32(IFLA_GROUP, group), f"mark link {name}")


def delete_group(group: int) -> Message:
    """Delete all links of a group at once: the kernel waits for its readers once for all, some 20 ms."""
    return Message(RTM_DELLINK, 0, _ifinfo() + u32(IFLA_GROUP, group), f"delete links of group {group}")


def _get_link(name: str) -> Message:
    return Message(RTM_GETLINK, 0, _ifinfo() + string(IFLA_IFNAME, name), f"get link {name}")


def add_address(index: int, ip: str, prefix_len: int) -> Message:
    """An IPv4 address with its broadcast address; one that is there already is left as it is."""
    local = socket.inet_aton(ip)
    host = (1 << (32 - prefix_len)) - 1
    broadcast = (int.from_bytes(local, "big") | host).to_bytes(4, "big")
    payload = _IFADDR.pack(socket.AF_INET, prefix_len, 0, RT_SCOPE_UNIVERSE, index)
    payload += attr(IFA_LOCAL, local) + attr(IFA_ADDRESS, local) + attr(IFA_BROADCAST, broadcast)
    return Message(RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE, payload, f"add address {ip}/{prefix_len}")


def delete_address(index: int, ip: str, prefix_len: int) -> Message:
    payload = _IFADDR.pack(socket.AF_INET, prefix_len, 0, RT_SCOPE_UNIVERSE, index) + attr(
        IFA_LOCAL, socket.inet_aton(ip)
    )
    return Message(RTM_DELADDR, 0, payload, f"delete address {ip}/{prefix_len}")


def add_default_route(index: int, gateway: str) -> Message:
    payload = _RTMSG.pack(socket.AF_INET, 0, 0, 0, RT_TABLE_MAIN, RTPROT_BOOT, RT_SCOPE_UNIVERSE, RTN_UNICAST, 0)
    payload += attr(RTA_GATEWAY, socket.inet_aton(gateway)) + u32(RTA_OIF, index)
    return Message(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL, payload, f"add default route via {gateway}")


class Link:
    """A link as the kernel describes it. `kind` is "" for hardware and loopback; `stats` is rtnl_link_stats64's start:
    packets received and sent, bytes, errors, dropped (each received, sent).
    """

    __slots__ = ("flags", "index", "kind", "mac", "master", "mtu", "name", "operstate", "stats")

    def __init__(self, payload: bytes) -> None:
        self.index: int
        self.flags: int
        _family, _type, self.index, self.flags, _change = _IFINFO.unpack_from(payload)
        self.name, self.kind, self.mac, self.master, self.mtu, self.operstate = "", "", b"", 0, 0, 0
        self.stats: tuple[int, ...] = ()
        for kind, value in attrs(payload[_IFINFO.size :]):
            if kind == IFLA_IFNAME:
                self.name = _text(value)
            elif kind == IFLA_ADDRESS:
                self.mac = value
            elif kind == IFLA_MTU:
                self.mtu = _u32(value)
            elif kind == IFLA_MASTER:
                self.master = _u32(value)
            elif kind == IFLA_OPERSTATE:
                self.operstate = value[0]
            elif kind == IFLA_LINKINFO:
                self.kind = next((_text(part) for inner, part in attrs(value) if inner == IFLA_INFO_KIND), "")
            elif kind == IFLA_STATS64:
                self.stats = struct.unpack_from("=8Q", value)

    @property
    def up(self) -> bool:
        return bool(self.flags & IFF_UP)


def _u32(value: bytes) -> int:
    number: int = struct.unpack("=I", value)[0]
    return number


def _text(value: bytes) -> str:
    return value.rstrip(b"\0").decode(errors="replace")


def links(rtnl: NetlinkSocket) -> list[Link]:
    answer = rtnl.request(Message(RTM_GETLINK, NLM_F_DUMP, _ifinfo(), "list links"))
    return [Link(reply.payload) for reply in answer if reply.kind == RTM_NEWLINK]


def link_named(rtnl: NetlinkSocket, name: str) -> Link:
    """Raises OSError (ENODEV) when there is none."""
    return Link(rtnl.request(_get_link(name))[0].payload)


def addresses(rtnl: NetlinkSocket, index: int) -> list[tuple[str, int]]:
    """The IPv4 addresses of a link with their prefix lengths."""
    request = Message(RTM_GETADDR, NLM_F_DUMP, _IFADDR.pack(socket.AF_INET, 0, 0, 0, 0), "list addresses")
    found = []
    for reply in rtnl.request(request):
        if reply.kind == RTM_NEWADDR:
            _family, prefix_len, _flags, _scope, owner = _IFADDR.unpack_from(reply.payload)
            local = dict(attrs(reply.payload[_IFADDR.size :])).get(IFA_LOCAL)
            if owner == index and local is not None:
                found.append((socket.inet_ntoa(local), prefix_len))
    return found


class LastingAddress:
    """An address of either family that somebody has set for good, as it can be set again on another link."""

    __slots__ = ("_attributes", "_header")

    def __init__(self, header: tuple[int, int, int, int], attributes: bytes) -> None:
        self._header, self._attributes = header, attributes  # header: family, prefix length, flags, scope

    def message(self, index: int) -> Message:
        payload = _IFADDR.pack(*self._header, index) + self._attributes
        return Message(RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE, payload, f"set an address of link {index} again")


def lasting_addresses(rtnl: NetlinkSocket, index: int) -> list[LastingAddress]:
    """The addresses of a link that are permanent and of global scope, without their labels: those are link names."""
    request = Message(RTM_GETADDR, NLM_F_DUMP, _IFADDR.pack(socket.AF_UNSPEC, 0, 0, 0, 0), "list addresses")
    found = []
    for reply in rtnl.request(request):
        if reply.kind != RTM_NEWADDR:
            continue
        family, prefix_len, _flags, scope, owner = _IFADDR.unpack_from(reply.payload)
        values = dict(attrs(reply.payload[_IFADDR.size :]))
        flags = _u32(values[IFA_FLAGS])
        if owner != index or scope != RT_SCOPE_UNIVERSE or not flags & IFA_F_PERMANENT:
            continue
        flags &= ~_IFA_STATES
        kept = (
            attr(kind, value) for kind, value in values.items() if kind not in (IFA_LABEL, IFA_CACHEINFO, IFA_FLAGS)
        )
        found.append(LastingAddress((family, prefix_len, flags & 0xFF, scope), b"".join(kept) + u32(IFA_FLAGS, flags)))
    return found


def routes(rtnl: NetlinkSocket) -> list[tuple[str, int]]:
    """Destinations of the host's IPv4 routes, the default one left out: "10.0.0.0/8" and the link they leave by."""
    payload = _RTMSG.pack(socket.AF_INET, 0, 0, 0, 0, 0, 0, 0, 0)
    answer = rtnl.request(Message(RTM_GETROUTE, NLM_F_DUMP, payload, "list routes"))
    return list(_destinations(answer))


def _destinations(answer: list[Reply]) -> Iterator[tuple[str, int]]:
    for reply in answer:
        if reply.kind != RTM_NEWROUTE:
            continue
        fields = _RTMSG.unpack_from(reply.payload)
        family, length, table = fields[0], fields[1], fields[4]
        values = dict(attrs(reply.payload[_RTMSG.size :]))
        if family == socket.AF_INET and length and table != RT_TABLE_LOCAL and RTA_DST in values:
            link = _u32(values[RTA_OIF]) if RTA_OIF in values else 0
            yield f"{socket.inet_ntoa(values[RTA_DST])}/{length}", link
