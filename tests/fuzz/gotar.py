"""A slow reader of tar archives by the rules of Go's, as far as they decide which members others see: the model that
`corten.storage.tarstream` is compared with. It has the whole archive before it, and does one thing after the other.
"""

from __future__ import annotations

from dataclasses import dataclass, field

BLOCK = 512


class Refused(Exception):
    pass


@dataclass
class Member:
    """`content` with its holes as zeros; None where there is too much of it."""

    kind: str
    name: bytes
    link: bytes
    mode: int
    uid: int
    gid: int
    mtime: int
    device: tuple[int, int]
    size: int = 0
    content: bytes | None = b""
    xattrs: dict[bytes, bytes] = field(default_factory=dict)


@dataclass
class Reading:
    """What came before the end, or before `refused`; `unknown` are the types of members that no layer may have."""

    members: list[Member] = field(default_factory=list)
    refused: bool = False
    unknown: bool = False
    dangling: bool = False


def read(data: bytes) -> Reading:
    found = Reading()
    try:
        _Archive(data, found).run()
    except Refused:
        found.refused = True
    return found


class _Archive:
    def __init__(self, data: bytes, found: Reading) -> None:
        self.data, self.found, self.at = data, found, 0

    def take(self, count: int) -> bytes:
        if self.at + count > len(self.data):
            raise Refused
        self.at += count
        return self.data[self.at - count : self.at]

    def run(self) -> None:
        pax: dict[bytes, bytes] = {}
        long = {b"L": b"", b"K": b""}
        while (header := self.block()) is not None:
            kind, size = header[156:157], number(header[124:136])
            if size < 0:
                raise Refused
            if kind in (b"x", b"g", b"L", b"K"):
                body = self.about(size)
                if kind in long:
                    long[kind] = body.split(b"\0")[0]
                else:
                    pax, long = (
                        (parse_pax(body), long) if kind == b"x" else (parse_pax(body) and {}, {b"L": b"", b"K": b""})
                    )
                self.found.dangling = bool(pax or any(long.values()))
                continue
            self.member(header, kind, size, pax, long)
            pax, long = {}, {b"L": b"", b"K": b""}
            self.found.dangling = False

    def block(self) -> bytes | None:
        if self.at == len(self.data):
            return None
        header = self.take(BLOCK)
        if any(header):
            blank = header[:148] + b" " * 8 + header[156:]
            if number(header[148:156]) not in (sum(blank), sum(blank) - 256 * sum(byte > 127 for byte in blank)):
                raise Refused
            return header
        if self.at < len(self.data) and any(self.take(BLOCK)):
            raise Refused
        return None

    def about(self, size: int) -> bytes:
        if size > 1 << 20:
            raise Refused
        body = self.take(size)
        self.take(-size % BLOCK)
        return body

    def member(self, header: bytes, kind: bytes, size: int, pax: dict[bytes, bytes], long: dict[bytes, bytes]) -> None:
        made = plain(header)
        size = merge(made, pax, size)
        made.name, made.link = long[b"L"] or made.name, long[b"K"] or made.link
        if kind == b"\0":
            kind = b"5" if made.name.endswith(b"/") else b"0"
        if kind not in (b"0", b"1", b"2", b"3", b"4", b"5", b"6", b"7", b"S"):
            self.found.unknown = True
            raise Refused
        only_header = kind in b"123456"
        made.kind = "0" if not only_header else kind.decode()
        if kind not in b"34" or header[257:262] != b"ustar":
            made.device = (0, 0)
        left = 0 if only_header else size
        end = self.at + left
        segments, real = self.sparse(made, header, kind, pax, size, end)
        if kind == b"S":
            end = self.at + left
        if segments is None:
            made.size, made.content = left, self.take(left)
        else:
            if only_header:
                raise Refused
            made.size, made.content = real, self.holes(segments, real, end)
        self.found.members.append(made)
        self.take(-left % BLOCK if self.at < len(self.data) or left % BLOCK else 0)

    def sparse(
        self, made: Member, header: bytes, kind: bytes, pax: dict[bytes, bytes], size: int, end: int
    ) -> tuple[list[int] | None, int]:
        """Offsets and lengths in turn, and the real size; None for what is no sparse file."""
        if kind == b"S":
            return self.old_map(header), number(header[483:495])
        major, minor = pax.get(b"GNU.sparse.major", b""), pax.get(b"GNU.sparse.minor", b"")
        version = (major, minor)
        if version not in ((b"0", b"0"), (b"0", b"1"), (b"1", b"0")):
            if major or minor or not pax.get(b"GNU.sparse.map"):
                return None, 0
            version = (b"0", b"1")
        made.name = pax.get(b"GNU.sparse.name") or made.name
        said = pax.get(b"GNU.sparse.size") or pax.get(b"GNU.sparse.realsize")
        real = decimal(said) if said else size
        if version[0] == b"0":
            text = pax.get(b"GNU.sparse.map", b"")
            return [decimal(word) for word in text.split(b",")] if text else [], real
        return self.new_map(end), real

    def old_map(self, header: bytes) -> list[int]:
        found: list[int] = []
        place, count, more = header[386:], 4, header[482]
        while True:
            for at in range(0, 24 * count, 24):
                if not place[at]:
                    break
                found += [number(place[at : at + 12]), number(place[at + 12 : at + 24])]
            if not more:
                return found
            place, count = self.take(BLOCK), 21
            more = place[504]

    def new_map(self, end: int) -> list[int]:
        text = b""
        wanted = 1
        while text.count(b"\n") < wanted:
            if self.at + BLOCK > end:
                raise Refused
            text += self.take(BLOCK)
            if b"\n" in text:
                wanted = 1 + 2 * decimal(text.split(b"\n")[0])
        return [decimal(line) for line in text.split(b"\n")[1:wanted]]

    def holes(self, numbers: list[int], real: int, end: int) -> bytes | None:
        if len(numbers) % 2 or real < 0:
            raise Refused
        pairs = list(zip(numbers[::2], numbers[1::2], strict=True))
        before = 0
        for offset, length in pairs:
            if offset < before or length < 0 or offset + length > real:
                raise Refused
            before = offset + length
        if sum(numbers[1::2]) != end - self.at:
            raise Refused
        if real > 1 << 24:
            self.take(end - self.at)
            return None
        content = bytearray(real)
        for offset, length in pairs:
            content[offset : offset + length] = self.take(length)
        return bytes(content)


def plain(header: bytes) -> Member:
    """What the header block says by itself."""
    text = header[:100].split(b"\0")[0]
    if header[257:263] == b"ustar\0" and (prefix := header[345:500].split(b"\0")[0]):
        text = prefix + b"/" + text
    numbers = [number(header[at : at + 8]) for at in (100, 108, 116)]
    device = (0, 0)
    if header[156:157] in (b"3", b"4") and header[257:262] == b"ustar":
        device = (number(header[329:337]), number(header[337:345]))
    mtime = number(header[136:148]) * 10**9
    link = header[157:257].split(b"\0")[0]
    return Member("", text, link, numbers[0] & 0o7777, numbers[1], numbers[2], mtime, device)


def merge(made: Member, pax: dict[bytes, bytes], size: int) -> int:
    """What pax says about a member; its size."""
    for key, value in pax.items():
        if key.startswith(b"SCHILY.xattr."):
            made.xattrs[key[13:]] = value
        if not value:
            continue
        if key == b"path":
            made.name = value
        elif key == b"linkpath":
            made.link = value
        elif key == b"uid":
            made.uid = decimal(value)
        elif key == b"gid":
            made.gid = decimal(value)
        elif key == b"mtime":
            made.mtime = seconds(value)
        elif key == b"size":
            size = decimal(value)
    return size


def number(text: bytes) -> int:
    if text[0] & 0x80:
        value = int.from_bytes(text, "big") - (1 << (8 * len(text) - 1))  # without the mark
        return value - (1 << (8 * len(text) - 1)) if text[0] & 0x40 else value
    words = text.strip(b" \0").split(b"\0")[0]
    if any(byte not in b"01234567" for byte in words):
        raise Refused
    return int(words or b"0", 8)


def decimal(text: bytes) -> int:
    if not text or any(byte not in b"0123456789" for byte in text) or len(text) > 20:
        raise Refused
    return int(text)


def seconds(text: bytes) -> int:
    whole, _, fraction = text.removeprefix(b"-").partition(b".")
    if fraction[:9].strip(b"0123456789"):
        raise Refused
    value = decimal(whole or b"0") * 10**9 + int(fraction[:9].ljust(9, b"0"))
    return -value if text.startswith(b"-") else value


def parse_pax(body: bytes) -> dict[bytes, bytes]:
    found: dict[bytes, bytes] = {}
    pairs: list[bytes] = []
    while body:
        digits, blank, _ = body[:20].partition(b" ")
        length = decimal(digits)
        text = body[len(digits) + 1 : length]
        if not blank or length < 5 or length > len(body) or not text.endswith(b"\n") or b"=" not in text:
            raise Refused
        key, _, value = text[:-1].partition(b"=")
        if b"\0" in key or (b"\0" in value and key in (b"path", b"linkpath", b"GNU.sparse.name")):
            raise Refused
        if key in (b"GNU.sparse.offset", b"GNU.sparse.numbytes"):
            if key != (b"GNU.sparse.offset", b"GNU.sparse.numbytes")[len(pairs) % 2]:
                raise Refused
            pairs.append(value)
        found[key] = value
        body = body[length:]
    if pairs:
        found[b"GNU.sparse.map"] = b",".join(pairs)
    return found
