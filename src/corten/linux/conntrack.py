"""Connection tracking over netlink (linux/netfilter/nfnetlink_conntrack.h): find flows of a port, and end them."""

from __future__ import annotations

import _socket as socket  # the part that is C: the rest costs 15 ms of imports
import struct

from corten.linux.netlink import NLM_F_DUMP, Message, NetlinkSocket, attr, attrs, nested, u8

# linux/netfilter/nfnetlink.h
NFNL_SUBSYS_CTNETLINK = 1
IPCTNL_MSG_CT_GET, IPCTNL_MSG_CT_DELETE = 1, 2
CTA_TUPLE_ORIG, CTA_TUPLE_REPLY, CTA_ID, CTA_FILTER = 1, 2, 12, 25
CTA_TUPLE_IP, CTA_TUPLE_PROTO = 1, 2
CTA_IP_V4_SRC, CTA_IP_V4_DST = 1, 2
CTA_PROTO_NUM, CTA_PROTO_SRC_PORT, CTA_PROTO_DST_PORT = 1, 2, 3
CTA_FILTER_ORIG_FLAGS = 1
CTA_FILTER_F_CTA_PROTO_NUM, CTA_FILTER_F_CTA_PROTO_DST_PORT = 1 << 3, 1 << 5


class Flow:
    """A tracked flow: where its first packet went, who answers, and what names it to the kernel."""

    __slots__ = ("answers", "destination", "identity", "original")

    def __init__(self, payload: bytes) -> None:
        fields = dict(attrs(payload[4:]))
        self.original = fields[CTA_TUPLE_ORIG]
        self.identity = fields.get(CTA_ID, b"")
        self.destination = _address(self.original, CTA_IP_V4_DST)
        self.answers = _address(fields[CTA_TUPLE_REPLY], CTA_IP_V4_SRC)


def _address(tuple_: bytes, which: int) -> str:
    ip = dict(attrs(dict(attrs(tuple_))[CTA_TUPLE_IP])).get(which)
    return socket.inet_ntoa(ip) if ip else ""


def _message(kind: int, flags: int, payload: bytes, label: str) -> Message:
    header = struct.pack(">BBH", socket.AF_INET, 0, 0)
    return Message(NFNL_SUBSYS_CTNETLINK << 8 | kind, flags, header + payload, label)


def flows_to(nfnl: NetlinkSocket, protocol: int, port: int) -> list[Flow]:
    """IPv4 flows whose first packet went to `port`; the kernel filters (Linux 5.8)."""
    proto = nested(CTA_TUPLE_PROTO, u8(CTA_PROTO_NUM, protocol), attr(CTA_PROTO_DST_PORT, struct.pack(">H", port)))
    flags = struct.pack("=I", CTA_FILTER_F_CTA_PROTO_NUM | CTA_FILTER_F_CTA_PROTO_DST_PORT)
    payload = nested(CTA_TUPLE_ORIG, proto) + nested(CTA_FILTER, attr(CTA_FILTER_ORIG_FLAGS, flags))
    replies = nfnl.request(_message(IPCTNL_MSG_CT_GET, NLM_F_DUMP, payload, f"list flows to port {port}"))
    return [Flow(reply.payload) for reply in replies]


def delete(flow: Flow) -> Message:
    """End one flow; ENOENT when it ended by itself."""
    payload = nested(CTA_TUPLE_ORIG, flow.original)
    if flow.identity:
        payload += attr(CTA_ID, flow.identity)
    return _message(IPCTNL_MSG_CT_DELETE, 0, payload, "delete flow")
