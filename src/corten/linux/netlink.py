"""Netlink (linux/netlink.h): messages, attributes, and a socket that sends a batch in one call.

The kernel handles a batch inside `sendmsg`, so that every answer lies in the socket when the call returns.
"""

from __future__ import annotations

import _socket as socket  # the part that is C: the rest costs 15 ms of imports
import errno
import os
import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

# linux/netlink.h
NETLINK_ROUTE = 0
NETLINK_NETFILTER = 12
NLM_F_REQUEST, NLM_F_MULTI, NLM_F_ACK = 0x1, 0x2, 0x4
NLM_F_ROOT, NLM_F_MATCH = 0x100, 0x200
NLM_F_DUMP = NLM_F_ROOT | NLM_F_MATCH
NLM_F_REPLACE, NLM_F_EXCL, NLM_F_CREATE, NLM_F_APPEND = 0x100, 0x200, 0x400, 0x800
NLM_F_ACK_TLVS = 0x200
NLMSG_NOOP, NLMSG_ERROR, NLMSG_DONE = 1, 2, 3
NLMSGERR_ATTR_MSG = 1
NLA_F_NESTED = 0x8000
NLA_TYPE_MASK = 0x3FFF
SOL_NETLINK = 270
NETLINK_ADD_MEMBERSHIP, NETLINK_CAP_ACK, NETLINK_EXT_ACK = 1, 10, 11
SO_SNDBUFFORCE, SO_RCVBUFFORCE = 32, 33  # asm-generic/socket.h

HEADER = struct.Struct("=IHHII")  # struct nlmsghdr: len, type, flags, seq, pid
_ATTR = struct.Struct("=HH")  # struct nlattr: len, type
_ERROR = struct.Struct("=i")  # struct nlmsgerr's start: 0 or a negative errno
_RECEIVE = 1 << 18
_SEND_ROOM = 1 << 17


def align(length: int) -> int:
    return (length + 3) & ~3


def attr(kind: int, data: bytes) -> bytes:
    """One attribute, padded. Raises OSError (EMSGSIZE) for more than the 16-bit length can say."""
    length = len(data) + 4
    if length > 0xFFFF:
        raise OSError(errno.EMSGSIZE, f"netlink attribute {kind} of {len(data)} bytes")
    return _ATTR.pack(length, kind) + data + bytes(-length & 3)


def nested(kind: int, *parts: bytes) -> bytes:
    return attr(kind | NLA_F_NESTED, b"".join(parts))


def u8(kind: int, value: int) -> bytes:
    return attr(kind, bytes((value,)))


def u16(kind: int, value: int) -> bytes:
    return attr(kind, struct.pack("=H", value))


def u32(kind: int, value: int) -> bytes:
    return attr(kind, struct.pack("=I", value))


def be32(kind: int, value: int) -> bytes:
    """nf_tables takes its numbers in network order."""
    return attr(kind, struct.pack(">I", value))


def string(kind: int, value: str) -> bytes:
    return attr(kind, value.encode() + b"\0")


def attrs(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The attributes of a message's tail or of a nested attribute: type without flags, and payload."""
    offset, end = 0, len(data)
    while offset + 4 <= end:
        length, kind = _ATTR.unpack_from(data, offset)
        if length < 4 or offset + length > end:
            return
        yield kind & NLA_TYPE_MASK, data[offset + 4 : offset + length]
        offset += align(length)


class Message:
    """A request: `label` says in an error what was tried, as in "add link veth0"."""

    __slots__ = ("flags", "kind", "label", "payload")

    def __init__(self, kind: int, flags: int, payload: bytes, label: str) -> None:
        self.kind, self.flags, self.payload, self.label = kind, flags | NLM_F_REQUEST, payload, label

    def encode(self, seq: int) -> bytes:
        length = HEADER.size + len(self.payload)
        header = HEADER.pack(length, self.kind, self.flags, seq, 0)
        return header + self.payload + bytes(-length & 3)


class Reply:
    """One message of an answer: its type, and its payload after the header."""

    __slots__ = ("kind", "payload")

    def __init__(self, kind: int, payload: bytes) -> None:
        self.kind, self.payload = kind, payload


class NetlinkError(OSError):
    """A request that the kernel refused; `index` is its place in the batch. The text has its label and the kernel's."""

    def __init__(self, number: int, text: str, index: int) -> None:
        super().__init__(number, text)
        self.index = index


class NetlinkSocket:
    """A netlink socket in the network namespace that the calling thread is in. One thread at a time.

    `batch` and `transact` raise NetlinkError for the first message that the kernel refused. What came before a refused
    message stays done in a `batch` of rtnetlink; nf_tables rolls a transaction back whole.
    """

    def __init__(self, protocol: int) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
        self._seq = 0
        self._room = 0
        try:
            for option in (NETLINK_EXT_ACK, NETLINK_CAP_ACK):
                self._socket.setsockopt(SOL_NETLINK, option, 1)
            self._socket.bind((0, 0))
        except BaseException:
            self._socket.close()
            raise

    def __enter__(self) -> NetlinkSocket:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._socket.close()

    def fileno(self) -> int:
        return self._socket.fileno()

    def join(self, group: int) -> None:
        """Hear the notices of a multicast group; read them with `heard`, and send nothing by this socket."""
        self._socket.setsockopt(SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, group)
        self._socket.setblocking(False)

    def heard(self) -> list[Reply]:
        """The notices that have come in, without waiting. Raises OSError (ENOBUFS) when some were lost."""
        notices: list[Reply] = []
        while True:
            try:
                data = self._socket.recv(_RECEIVE)
            except BlockingIOError:
                return notices
            notices += [Reply(kind, payload) for kind, _, _, payload in split(data)]

    def batch(self, messages: Sequence[Message]) -> None:
        """Send all, each acknowledged by itself. The kernel goes on after a refusal; the first one is raised."""
        for message in messages:
            message.flags |= NLM_F_ACK
        self._exchange(messages)

    def request(self, message: Message) -> list[Reply]:
        """Send one and return what it answers: a dump's parts, or the object that was asked for."""
        if message.flags & NLM_F_DUMP != NLM_F_DUMP:
            message.flags |= NLM_F_ACK
        return self._exchange((message,))

    def transact(self, messages: Sequence[Message]) -> None:
        """Send an nf_tables transaction. Acknowledged once, at its last message, as thousands of acks overflow."""
        for message in messages[:-1]:
            message.flags &= ~NLM_F_ACK
        self._exchange(messages)

    def _exchange(self, messages: Sequence[Message]) -> list[Reply]:
        first = self._seq + 1
        self._seq += len(messages)
        data = b"".join([message.encode(first + index) for index, message in enumerate(messages)])
        self._make_room(len(data))
        self._drain()
        self._socket.sendto(data, (0, 0))
        return self._collect(messages, first)

    def _collect(self, messages: Sequence[Message], first: int) -> list[Reply]:
        """Read until the socket is empty; a dump is continued by the reading itself, so only its end ends it."""
        replies: list[Reply] = []
        refused: NetlinkError | None = None
        lost = False
        dumping = messages[-1].flags & NLM_F_DUMP == NLM_F_DUMP
        while True:
            try:
                data = self._socket.recv(_RECEIVE, 0 if dumping else socket.MSG_DONTWAIT)
            except BlockingIOError:
                break
            except OSError as failure:
                if failure.errno != errno.ENOBUFS:
                    raise
                lost = True
                continue
            for kind, seq, flags, payload in split(data):
                index = seq - first
                if not 0 <= index < len(messages):
                    continue
                if kind in (NLMSG_ERROR, NLMSG_DONE):
                    dumping = False
                    number = -_ERROR.unpack_from(payload)[0]
                    if number > 0 and refused is None:
                        refused = _refusal(number, flags, payload, messages[index], index)
                else:
                    replies.append(Reply(kind, payload))
        if refused is not None:
            raise refused
        if lost:
            raise OSError(errno.ENOBUFS, f"{messages[0].label}: the kernel's answer was lost")
        return replies

    def _make_room(self, length: int) -> None:
        """A message larger than the send buffer is refused with EMSGSIZE."""
        if length > max(self._room, _SEND_ROOM):
            self._socket.setsockopt(socket.SOL_SOCKET, SO_SNDBUFFORCE, 2 * length)
            self._room = length

    def _drain(self) -> None:
        """Drop what an exchange that was cut short left behind."""
        while True:
            try:
                self._socket.recv(_RECEIVE, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return
            except OSError as failure:
                if failure.errno != errno.ENOBUFS:
                    raise


def split(data: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    """The messages in a datagram: type, sequence number, flags, payload."""
    offset = 0
    while offset + HEADER.size <= len(data):
        length, kind, flags, seq, _pid = HEADER.unpack_from(data, offset)
        if length < HEADER.size:
            return
        yield kind, seq, flags, data[offset + HEADER.size : offset + length]
        offset += align(length)


def _refusal(number: int, flags: int, payload: bytes, message: Message, index: int) -> NetlinkError:
    """The errno in words, and the kernel's own (struct nlmsgerr, then the extended attributes) where it gives any."""
    text = os.strerror(number)
    if flags & NLM_F_ACK_TLVS:
        # NETLINK_CAP_ACK is set, so that only the header of the request comes back before the attributes.
        for kind, value in attrs(payload[4 + HEADER.size :]):
            if kind == NLMSGERR_ATTR_MSG:
                words = value.rstrip(b"\0").decode(errors="replace")
                text = f"{text} ({words})"
    return NetlinkError(number, f"{message.label}: {text}", index)
