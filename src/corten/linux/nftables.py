"""nf_tables over netlink (linux/netfilter/nf_tables.h): what a table of maps, sets and rules is made of.

A rule is a sequence of expressions that pass values through registers. The registers here are 4 bytes each, so that a
concatenated key is its parts in neighbouring registers, each part padded to 4 bytes.
"""

from __future__ import annotations

import _socket as socket  # the part that is C: the rest costs 15 ms of imports
import errno
import struct

from corten.linux.netlink import (
    NLM_F_ACK,
    NLM_F_APPEND,
    NLM_F_CREATE,
    NLM_F_DUMP,
    Message,
    NetlinkSocket,
    Reply,
    attr,
    attrs,
    be32,
    nested,
    string,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

# linux/netfilter/nfnetlink.h
NFNL_SUBSYS_NFTABLES = 10
NFNL_MSG_BATCH_BEGIN, NFNL_MSG_BATCH_END = 0x10, 0x11
NFNLGRP_NFTABLES = 7
NFPROTO_UNSPEC, NFPROTO_INET, NFPROTO_IPV4 = 0, 1, 2
# linux/netfilter.h
NF_INET_PRE_ROUTING, NF_INET_LOCAL_IN, NF_INET_FORWARD, NF_INET_LOCAL_OUT, NF_INET_POST_ROUTING = range(5)
NF_DROP, NF_ACCEPT, NFT_JUMP, NFT_RETURN = 0, 1, -3, -5
# linux/netfilter_ipv4.h
NF_IP_PRI_RAW, NF_IP_PRI_NAT_DST, NF_IP_PRI_FILTER, NF_IP_PRI_NAT_SRC = -300, -100, 0, 100
# linux/netfilter/nf_conntrack_common.h
CT_STATE_ESTABLISHED, CT_STATE_RELATED = 1 << 1, 1 << 2
IPS_DST_NAT = 1 << 5
# linux/netfilter/nf_tables.h
NFT_MSG_NEWTABLE, NFT_MSG_GETTABLE, NFT_MSG_DELTABLE = 0, 1, 2
NFT_MSG_NEWCHAIN, NFT_MSG_GETCHAIN, NFT_MSG_NEWRULE, NFT_MSG_DELRULE = 3, 4, 6, 8
NFT_MSG_NEWSET, NFT_MSG_NEWSETELEM, NFT_MSG_GETSETELEM, NFT_MSG_DELSETELEM = 9, 12, 13, 14
NFT_SET_MAP = 0x8
NFT_REG_VERDICT = 0
NFT_REG32_00 = 8
NFT_PAYLOAD_NETWORK_HEADER, NFT_PAYLOAD_TRANSPORT_HEADER = 1, 2
NFT_META_IIFNAME, NFT_META_OIFNAME, NFT_META_NFPROTO, NFT_META_L4PROTO = 6, 7, 15, 16
NFT_CT_STATE, NFT_CT_STATUS = 0, 2
NFT_CMP_EQ, NFT_CMP_NEQ = 0, 1
NFT_LOOKUP_F_INV = 1
NFT_NAT_DNAT = 1
NFT_FIB_RESULT_ADDRTYPE, NFTA_FIB_F_DADDR, RTN_LOCAL = 3, 2, 2

# What `nft` calls the types of keys and values (nftables' datatype.h); the kernel only keeps the numbers.
TYPE_IPV4_ADDR, TYPE_INET_PROTO, TYPE_INET_SERVICE, TYPE_IFNAME = 7, 12, 13, 41

_ELEMENTS_A_MESSAGE = 400  # a nested list has a 16-bit length; an element here takes at most 100 bytes
_HOST_ORDER = struct.Struct("=I")


def concat_type(*types: int) -> int:
    value = 0
    for kind in types:
        value = value << 6 | kind
    return value


def key(*parts: bytes) -> bytes:
    """A concatenated key or value: each part padded to a register of 4 bytes."""
    return b"".join([part + bytes(-len(part) & 3) for part in parts])


def ifname(name: str) -> bytes:
    """A link's name as `iifname` and `oifname` compare it: 16 bytes, zeros after it."""
    return name.encode().ljust(16, b"\0")


def port(number: int) -> bytes:
    return struct.pack(">H", number)


class Table:
    """Builds the messages for one table. `family` is an NFPROTO_ value."""

    def __init__(self, name: str, family: int = NFPROTO_INET) -> None:
        self.name, self.family = name, family

    def _message(self, kind: int, flags: int, payload: bytes, label: str) -> Message:
        header = struct.pack(">BBH", self.family, 0, 0)
        return Message(NFNL_SUBSYS_NFTABLES << 8 | kind, flags, header + payload, label)

    def add(self) -> Message:
        return self._message(NFT_MSG_NEWTABLE, NLM_F_CREATE, string(1, self.name), f"add table {self.name}")

    def delete(self) -> Message:
        return self._message(NFT_MSG_DELTABLE, 0, string(1, self.name), f"delete table {self.name}")

    def base_chain(self, name: str, kind: str, hook: int, priority: int) -> Message:
        """A chain of type filter or nat at a hook, with policy accept."""
        hook_spec = be32(1, hook) + attr(2, struct.pack(">i", priority))
        payload = string(1, self.name) + string(3, name) + nested(4, hook_spec) + be32(5, NF_ACCEPT) + string(7, kind)
        return self._message(NFT_MSG_NEWCHAIN, NLM_F_CREATE, payload, f"add chain {name}")

    def flush_chain(self, name: str) -> Message:
        """Delete the rules of one chain."""
        return self._message(NFT_MSG_DELRULE, 0, string(1, self.name) + string(2, name), f"flush chain {name}")

    def rule(self, chain: str, *expressions: bytes, comment: str = "") -> Message:
        """Append a rule. `comment` is shown by `nft list`, 127 bytes at most."""
        payload = string(1, self.name) + string(2, chain) + nested(4, *expressions)
        if comment:
            text = comment.encode()[:127] + b"\0"
            payload += attr(7, bytes((0, len(text))) + text)  # NFTNL_UDATA_RULE_COMMENT, length, text
        label = f"add rule to {chain}" + (f" ({comment})" if comment else "")
        return self._message(NFT_MSG_NEWRULE, NLM_F_CREATE | NLM_F_APPEND, payload, label)

    def set(self, name: str, key_type: int, key_len: int, identity: int) -> Message:
        """A set of keys. `identity` is a number that no other set of the same transaction has."""
        shape = be32(4, key_type) + be32(5, key_len)
        if key_type == TYPE_IFNAME:
            # NFTNL_UDATA_SET_KEYBYTEORDER: without it `nft` takes the name for a number in network order.
            shape += attr(13, struct.pack("=BBI", 0, 4, 1))
        return self._set(name, 0, shape, identity)

    def map(self, name: str, keys: tuple[int, int], values: tuple[int, int], identity: int) -> Message:
        """A map; `keys` and `values` are type and length in bytes."""
        shape = be32(4, keys[0]) + be32(5, keys[1]) + be32(6, values[0]) + be32(7, values[1])
        return self._set(name, NFT_SET_MAP, shape, identity)

    def _set(self, name: str, flags: int, shape: bytes, identity: int) -> Message:
        payload = string(1, self.name) + string(2, name) + be32(3, flags) + shape + be32(10, identity)
        return self._message(NFT_MSG_NEWSET, NLM_F_CREATE, payload, f"add set {name}")

    def add_elements(self, name: str, elements: Iterable[tuple[bytes, bytes]]) -> list[Message]:
        """Elements of a set or map: key and value (b"" in a set). One that is there already with this value is fine."""
        return self._elements(NFT_MSG_NEWSETELEM, NLM_F_CREATE, name, elements, "add elements to")

    def delete_elements(self, name: str, elements: Iterable[tuple[bytes, bytes]]) -> list[Message]:
        """The transaction is refused with ENOENT when one of them is not there."""
        return self._elements(NFT_MSG_DELSETELEM, 0, name, ((key, b"") for key, _ in elements), "delete elements of")

    def _elements(
        self, kind: int, flags: int, name: str, elements: Iterable[tuple[bytes, bytes]], verb: str
    ) -> list[Message]:
        encoded = [_element(key, value) for key, value in elements]
        head = string(1, self.name) + string(2, name)
        return [
            self._message(
                kind, flags, head + nested(3, *encoded[start : start + _ELEMENTS_A_MESSAGE]), f"{verb} {name}"
            )
            for start in range(0, len(encoded), _ELEMENTS_A_MESSAGE)
        ]

    def exists(self, nfnl: NetlinkSocket) -> bool:
        try:
            nfnl.request(self._message(NFT_MSG_GETTABLE, 0, string(1, self.name), f"get table {self.name}"))
        except OSError as refusal:
            if refusal.errno == errno.ENOENT:
                return False
            raise
        return True

    def deleted_by(self, notice: Reply) -> bool:
        """Whether a notice of NFNLGRP_NFTABLES tells that this table was deleted."""
        if notice.kind != NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_DELTABLE or notice.payload[:1] != bytes((self.family,)):
            return False
        return (1, self.name.encode() + b"\0") in attrs(notice.payload[4:])

    def elements(self, nfnl: NetlinkSocket, name: str) -> dict[bytes, bytes]:
        """What a set or map holds. Raises OSError (ENOENT) when the table or the set is gone."""
        payload = string(1, self.name) + string(2, name)
        found: dict[bytes, bytes] = {}
        request = self._message(NFT_MSG_GETSETELEM, NLM_F_DUMP, payload, f"list elements of {name}")
        for reply in nfnl.request(request):
            for element in _elements_in(reply.payload[4:]):
                fields = dict(attrs(element))
                found[_value(fields[1])] = _value(fields[2]) if 2 in fields else b""
        return found


def _element(key: bytes, value: bytes) -> bytes:
    data = nested(2, attr(1, value)) if value else b""
    return nested(1, nested(1, attr(1, key)), data)


def _elements_in(payload: bytes) -> Iterator[bytes]:
    for kind, value in attrs(payload):
        if kind == 3:
            yield from (element for _, element in attrs(value))


def _value(data: bytes) -> bytes:
    return next((value for kind, value in attrs(data) if kind == 1), b"")


def commit(nfnl: NetlinkSocket, messages: Sequence[Message]) -> None:
    """Execute all of `messages` as one transaction, or none. Raises OSError that names the refused one."""
    if not messages:
        return
    header = struct.pack(">BBH", NFPROTO_UNSPEC, 0, NFNL_SUBSYS_NFTABLES)
    begin = Message(NFNL_MSG_BATCH_BEGIN, 0, header, "begin nf_tables transaction")
    end = Message(NFNL_MSG_BATCH_END, 0, header, "commit nf_tables transaction")
    # Refusals come back in any case; the one acknowledgement is the proof that the batch was looked at.
    messages[-1].flags |= NLM_F_ACK
    nfnl.transact([begin, *messages, end])


# Expressions. Register numbers count 4-byte registers from 0.


def _expression(name: str, *data: bytes) -> bytes:
    return nested(1, string(1, name), nested(2, *data))


def _reg(kind: int, register: int) -> bytes:
    return be32(kind, NFT_REG32_00 + register)


def _data(kind: int, value: bytes) -> bytes:
    return nested(kind, attr(1, value))


def meta(which: int, register: int = 0) -> bytes:
    return _expression("meta", _reg(1, register), be32(2, which))


def payload(base: int, offset: int, length: int, register: int = 0) -> bytes:
    return _expression("payload", _reg(1, register), be32(2, base), be32(3, offset), be32(4, length))


def ip_saddr(register: int = 0) -> bytes:
    return payload(NFT_PAYLOAD_NETWORK_HEADER, 12, 4, register)


def ip_daddr(register: int = 0) -> bytes:
    return payload(NFT_PAYLOAD_NETWORK_HEADER, 16, 4, register)


def th_dport(register: int = 0) -> bytes:
    return payload(NFT_PAYLOAD_TRANSPORT_HEADER, 2, 2, register)


def compare(value: bytes, *, equal: bool = True, register: int = 0) -> bytes:
    return _expression("cmp", _reg(1, register), be32(2, NFT_CMP_EQ if equal else NFT_CMP_NEQ), _data(3, value))


def mask(bits: bytes, register: int = 0) -> bytes:
    zeros = bytes(len(bits))
    length = be32(3, len(bits))
    return _expression("bitwise", _reg(1, register), _reg(2, register), length, _data(4, bits), _data(5, zeros))


def ct(which: int, register: int = 0) -> bytes:
    return _expression("ct", _reg(1, register), be32(2, which))


def fib_daddr_type(register: int = 0) -> bytes:
    return _expression("fib", _reg(1, register), be32(2, NFT_FIB_RESULT_ADDRTYPE), be32(3, NFTA_FIB_F_DADDR))


def in_set(name: str, *, inverted: bool = False, register: int = 0) -> bytes:
    return _expression("lookup", string(1, name), _reg(2, register), be32(5, NFT_LOOKUP_F_INV if inverted else 0))


def map_lookup(name: str, register: int = 0) -> bytes:
    return _expression("lookup", string(1, name), _reg(2, register), _reg(3, register))


def verdict(code: int) -> bytes:
    return _expression("immediate", be32(1, NFT_REG_VERDICT), nested(2, nested(2, attr(1, struct.pack(">i", code)))))


def dnat(address: int, proto: int) -> bytes:
    """To the IPv4 address and the port in these registers."""
    return _expression("nat", be32(1, NFT_NAT_DNAT), be32(2, NFPROTO_IPV4), _reg(3, address), _reg(5, proto))


def masquerade() -> bytes:
    return _expression("masq")


# Conditions made of several expressions.


def is_ipv4() -> bytes:
    return meta(NFT_META_NFPROTO) + compare(bytes((NFPROTO_IPV4,)))


def iif(name: str, *, equal: bool = True) -> bytes:
    return meta(NFT_META_IIFNAME) + compare(ifname(name), equal=equal)


def oif(name: str, *, equal: bool = True) -> bytes:
    return meta(NFT_META_OIFNAME) + compare(ifname(name), equal=equal)


def iif_in(name: str) -> bytes:
    return meta(NFT_META_IIFNAME) + in_set(name)


def oif_in(name: str) -> bytes:
    return meta(NFT_META_OIFNAME) + in_set(name)


def from_net(address: str, prefix_len: int) -> bytes:
    return ip_saddr() + _in_net(address, prefix_len)


def to_net(address: str, prefix_len: int) -> bytes:
    return ip_daddr() + _in_net(address, prefix_len)


def _in_net(address: str, prefix_len: int) -> bytes:
    bits = (0xFFFFFFFF << (32 - prefix_len) & 0xFFFFFFFF).to_bytes(4, "big")
    return mask(bits) + compare(socket.inet_aton(address))


def ct_any(which: int, bits: int) -> bytes:
    """Any of `bits` in the connection's state or status, which the kernel keeps in host order."""
    return ct(which) + mask(_HOST_ORDER.pack(bits)) + compare(bytes(4), equal=False)
