"""Layers made to do harm: each is refused with a word, or unpacked to what it is and no more."""

from __future__ import annotations

import contextlib
import gzip
import io
import os
import stat
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from corten.errors import CortenError, InvalidArgument
from corten.storage.tarstream import TarReader
from corten.storage.unpack import Unpacker
from corten.storage.walking import delete_tree
from tests import descriptors
from tests.unit.storage.tars import archive, directory, file, hard_link, member, symlink, unpack


@pytest.fixture
def layer(tmp_path: Path) -> Iterator[Path]:
    """Removed in the end, as some are deeper than pytest can reach."""
    yield tmp_path / "layer"
    if (tmp_path / "layer").exists():
        delete_tree(tmp_path / "layer")


def header(name: bytes = b"x", kind: bytes = b"0", **fields: bytes) -> bytes:
    """A raw ustar header; `fields` replace what stands at uid, gid, size, mtime, major and link."""
    places = {"uid": (108, 8), "gid": (116, 8), "size": (124, 12), "mtime": (136, 12), "link": (157, 100)}
    places |= {"major": (329, 8), "sparse": (386, 124)}
    block = bytearray(512)
    block[0:100] = name.ljust(100, b"\0")
    block[100:108] = b"0000644\0"
    block[156:157] = kind
    block[257:265] = b"ustar\x0000"
    own = {"uid": b"%07o" % os.getuid(), "gid": b"%07o" % os.getgid(), "size": b"%011o" % 0, "mtime": b"%011o" % 1}
    for field, value in (own | fields).items():
        at, length = places[field]
        block[at : at + length] = value.ljust(length, b"\0")[:length]
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 512)


def special(kind: bytes, body: bytes) -> bytes:
    """A pax header or a long name."""
    return header(b"special", kind, size=b"%011o" % len(body)) + padded(body)


def record(key: bytes, value: bytes) -> bytes:
    rest = len(key) + len(value) + 3
    length = rest + len(str(rest))
    length = rest + len(str(length))
    return b"%d %s=%s\n" % (length, key, value)


def refused(blob: bytes, words: str) -> None:
    with pytest.raises(InvalidArgument, match=words):
        list(TarReader(iter([blob])))


# What is written


def test_links_in_a_chain_do_not_lead_out(tmp_path: Path, layer: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "victim").write_text("safe")
    links = [symlink("a", ".."), symlink("b", "a/.."), symlink("c", "b/../../../.."), symlink("d", f"c{tmp_path}")]
    with contextlib.suppress(InvalidArgument):  # what it leads to inside is not there
        unpack(archive(*links, file("d/outside/evil")), tmp_path)
    unpack(archive(*links, file("a/up"), file("c/top")), tmp_path)
    assert list((tmp_path / "outside").iterdir()) == []
    assert sorted(os.listdir(tmp_path)) == ["blob", "layer", "outside", "victim"]
    # Up from the layer's root is the layer's root.
    assert (layer / "up").read_bytes() == (layer / "top").read_bytes() == b"data"


def test_links_in_a_ring_end(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="symbolic links"):
        unpack(archive(symlink("a", "b"), symlink("b", "a"), file("a/x")), tmp_path)


def test_writing_through_a_hard_link_to_a_link(tmp_path: Path, layer: Path) -> None:
    (tmp_path / "victim").write_text("safe")
    unpack(archive(symlink("s", str(tmp_path / "victim")), hard_link("h", "s"), file("h", b"evil")), tmp_path)
    assert (tmp_path / "victim").read_text() == "safe"
    assert (layer / "h").read_bytes() == b"evil"
    assert (layer / "s").is_symlink()


def test_attributes_are_not_set_through_a_link(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("safe")
    victim.chmod(0o600)
    before = victim.stat()
    blob = archive(symlink("s", str(victim)), hard_link("h", "s"), file("s", b"", mode=0o777), directory("h"))
    unpack(blob, tmp_path)
    after = victim.stat()
    assert (before.st_mode, before.st_mtime, before.st_size) == (after.st_mode, after.st_mtime, after.st_size)


@pytest.mark.parametrize("kind", [tarfile.FIFOTYPE, tarfile.SYMTYPE])
def test_what_replaces_a_fifo_or_a_link_is_new(tmp_path: Path, layer: Path, kind: bytes) -> None:
    unpack(archive(member("p", kind, linkname="nowhere"), file("p", b"new")), tmp_path)
    assert stat.S_ISREG((layer / "p").lstat().st_mode)
    assert (layer / "p").read_bytes() == b"new"


def test_odd_names_are_names(tmp_path: Path, layer: Path) -> None:
    names = ["new\nline", "\x1b[31mred", "back\\slash", " ", "...", "\udcff\udcfe", "-rf", "a\rb", ".wh"]
    unpack(archive(*(file(name) for name in names)), tmp_path)
    assert sorted(map(os.fsencode, os.listdir(layer))) == sorted(map(os.fsencode, names))


def test_a_message_has_no_control_characters(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument) as caught:
        unpack(archive(file("../\x1b]0;owned\x07\n")), tmp_path)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("where", ["path", "linkpath", "GNU.sparse.name"])
def test_a_nul_does_not_cut_a_name(where: str) -> None:
    refused(special(b"x", record(where.encode(), b"etc\0/evil")) + header(), "null byte")


def test_a_nul_does_not_cut_a_path_for_the_kernel(tmp_path: Path) -> None:
    from corten.linux.openat2 import open_in_root

    (tmp_path / "a").mkdir()
    root = os.open(tmp_path, os.O_PATH)
    try:
        with pytest.raises(OSError, match="null byte"):
            open_in_root(root, "a\0b")
    finally:
        os.close(root)


@pytest.mark.parametrize("name", [".wh.", ".wh..", ".wh...", "./.wh.", "d/../.wh.."])
def test_the_root_and_nothing_cannot_be_whited_out(tmp_path: Path, layer: Path, name: str) -> None:
    with pytest.raises(InvalidArgument, match="invalid whiteout"):
        unpack(archive(file("d/kept"), file(name, b"")), tmp_path)
    for delete in (True, False):
        with pytest.raises(InvalidArgument, match="invalid whiteout"):
            unpack(archive(file(name, b"")), tmp_path, delete=delete)
    assert (layer / "d/kept").exists()


def test_a_whiteout_below_a_whiteout_and_aufs_books(tmp_path: Path, layer: Path) -> None:
    unpack(archive(file(".wh..wh.orph", b""), file(".wh..wh..opq.x", b""), file(".wh.a/.wh.b", b"")), tmp_path)
    # `.wh.` in the middle of a path is only a name, as with Docker.
    assert sorted(os.listdir(layer)) == [".wh.a"]
    assert os.listdir(layer / ".wh.a") == ["b"]


@pytest.mark.parametrize("kind", [tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_a_whiteout_is_one_whatever_kind_it_says(tmp_path: Path, layer: Path, kind: bytes) -> None:
    unpack(archive(member(".wh.gone", kind, linkname="/etc")), tmp_path)
    status = (layer / "gone").lstat()
    assert (stat.S_IFMT(status.st_mode), status.st_rdev) == (stat.S_IFCHR, 0)


def test_attributes_of_overlayfs_are_not_taken_from_an_archive(tmp_path: Path, layer: Path) -> None:
    names = ["redirect", "opaque", "metacopy", "origin", "whiteout", "overlay.opaque", "overlay.whiteout"]
    headers = {f"SCHILY.xattr.trusted.overlay.{name}": "/etc" for name in names} | {"SCHILY.xattr.user.kept": "1"}
    unpack(archive(directory("d", pax_headers=headers), file("f", pax_headers=headers)), tmp_path)
    unpack(archive(directory("./", pax_headers=headers)), tmp_path)
    for path in (layer, layer / "d", layer / "f"):
        assert not [name for name in os.listxattr(path) if name.startswith("trusted.overlay.")]
        assert os.getxattr(path, "user.kept") == b"1"


@pytest.mark.parametrize("key", ["SCHILY.xattr.", "SCHILY.xattr.nonsense", "SCHILY.xattr.user." + "n" * 300])
def test_attributes_that_no_kernel_takes(tmp_path: Path, key: str) -> None:
    with pytest.raises(CortenError, match=r"^unpack /f: "):
        unpack(archive(file("f", pax_headers={key: "v" * 70_000})), tmp_path)


def test_setuid_and_sticky_bits_are_kept(tmp_path: Path, layer: Path) -> None:
    unpack(archive(*(file(f"f{mode:o}", mode=mode) for mode in (0o4755, 0o2755, 0o6711, 0o1644))), tmp_path)
    assert {int(path.name[1:], 8) for path in layer.iterdir()} == {
        stat.S_IMODE(p.stat().st_mode) for p in layer.iterdir()
    }


# Numbers


@pytest.mark.parametrize("field", ["uid", "gid"])
@pytest.mark.parametrize("value", [(1 << 32) - 1, 1 << 32, 1 << 40, -1])
def test_an_owner_out_of_range_does_not_become_root(tmp_path: Path, layer: Path, field: str, value: int) -> None:
    """4294967295 tells chown to leave the owner, which is root; 4294967296 would be cut to 0."""
    raw = value.to_bytes(8, "big", signed=True)
    raw = bytes([0x80 | (raw[0] & 0x7F) | (0x40 if value < 0 else 0)]) + raw[1:]
    for kind in (b"0", b"5", b"2"):
        blob = header(b"x", kind, **{field: raw}) + bytes(1024)
        with pytest.raises(InvalidArgument, match="out of range"):
            unpack(blob, tmp_path)
    if value > 0:
        with pytest.raises(InvalidArgument, match="out of range"):
            unpack(special(b"x", record(field.encode(), b"%d" % value)) + header(), tmp_path)
    assert list(layer.iterdir()) == []


@pytest.mark.parametrize("seconds", [b"9" * 19, b"-" + b"9" * 19, b"18446744073709551615", b"9223372037"])
def test_a_time_that_cannot_be_kept_is_none(tmp_path: Path, layer: Path, seconds: bytes) -> None:
    blob = special(b"x", record(b"mtime", seconds)) + header() + special(b"x", record(b"mtime", seconds))
    unpack(
        blob + header(b"d", b"5") + special(b"x", record(b"mtime", seconds)) + header(b"s", b"2", link=b"x"), tmp_path
    )
    assert [path.lstat().st_mtime for path in layer.iterdir()] == [0, 0, 0]


def test_a_device_that_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument):
        unpack(header(b"x", b"3", major=b"\x80\x7f" + b"\xff" * 6), tmp_path)


@pytest.mark.parametrize(
    "size",
    [
        b"-0000000001",
        b"+0000000001",
        b"0o000000017",
        b"1_0",
        b"0x10",
        b"9",
        b"\xff" * 12,
        b"\xff" + b"\0" * 11,
        b" 1 1",
    ],
)
def test_a_size_that_is_none(size: bytes) -> None:
    refused(header(size=size) + bytes(1024), "invalid tar header")


def test_sizes_are_read_as_the_others_read_them() -> None:
    """Readers that disagree about a size see other members: what one scans is not what another unpacks."""
    for size in (b"\0\0\x0000000013\0", b"       13 \0", b"00000000013 ", b"13\x0077"):
        first, second = TarReader(iter([header(size=size) + padded(b"x" * 11) + header(b"y")]))
        assert (first.size, second.name) == (11, b"y")


@pytest.mark.parametrize("value", [b"1_0", b" 10", b"+10", b"-10", b"0x10", b"1e1", b"9" * 5000])
@pytest.mark.parametrize("key", [b"size", b"uid", b"gid"])
def test_a_pax_number_that_is_none(key: bytes, value: bytes) -> None:
    refused(special(b"x", record(key, value)) + header(), "invalid tar header")


@pytest.mark.parametrize("value", [b"1_0", b" 1", b"1 ", b"1.x", b"nan", b"inf", b"--1", b"1.-5"])
def test_a_pax_time_that_is_none(value: bytes) -> None:
    refused(special(b"x", record(b"mtime", value)) + header(), "invalid tar header")


# Archives that are read one way by one program and another way by the next


def test_the_pax_size_counts_and_not_the_header_s(tmp_path: Path, layer: Path) -> None:
    """CVE-2025-62518: with the header's size, the data would be read as members that nobody has scanned."""
    hidden = padded(header(b"smuggled") + bytes(512))
    blob = special(b"x", record(b"size", b"%d" % len(hidden))) + header(b"outer", size=b"0") + hidden + header(b"next")
    unpack(blob + bytes(1024), tmp_path)
    assert sorted(os.listdir(layer)) == ["next", "outer"]
    assert (layer / "outer").read_bytes() == hidden


@pytest.mark.parametrize("kind", [b"1", b"2", b"5", b"6"])
def test_a_size_without_data_hides_nothing(tmp_path: Path, layer: Path, kind: bytes) -> None:
    blob = header(b"a") + header(b"b", kind, size=b"%o" % 512, link=b"a") + header(b"after") + bytes(1024)
    unpack(blob, tmp_path)
    assert "after" in os.listdir(layer)
    with tarfile.open(fileobj=io.BytesIO(blob)) as tar:
        assert tar.getnames() == ["a", "b", "after"]


def test_a_pax_header_for_all_says_nothing(tmp_path: Path, layer: Path) -> None:
    """As with Docker. Otherwise one record renames or resizes every member after it."""
    blob = (
        special(b"g", record(b"path", b"evil") + record(b"size", b"512") + record(b"uid", b"7"))
        + header(b"a")
        + header(b"b")
    )
    unpack(blob, tmp_path)
    assert sorted(os.listdir(layer)) == ["a", "b"]
    assert (layer / "a").stat().st_uid == os.getuid()


def test_an_empty_pax_record_takes_back(tmp_path: Path, layer: Path) -> None:
    blob = (
        special(b"x", record(b"path", b"evil"))
        + special(b"x", record(b"path", b"") + record(b"size", b""))
        + header(b"a")
    )
    unpack(blob, tmp_path)
    assert os.listdir(layer) == ["a"]


def test_a_file_with_a_slash_at_its_end_is_a_directory_only_of_old() -> None:
    kinds = [entry.kind for entry in TarReader(iter([header(b"a/", b"\0") + header(b"b/", b"0")]))]
    assert kinds == [b"5", b"0"]


# Sizes that are not there


def test_a_member_s_headers_are_bounded_together() -> None:
    one = special(b"x", record(b"comment", b"c" * 600_000))
    refused(one + one + header(), "too long")
    refused(special(b"L", b"n" * 400_000) * 3 + header(), "too long")
    assert len(list(TarReader(iter([(one + header()) * 3])))) == 3


@pytest.mark.parametrize("kind", [b"x", b"L", b"K", b"g"])
def test_headers_without_end(kind: bytes) -> None:
    """A stream of headers that no member follows: refused after a megabyte of them, not read for ever."""
    piece = special(kind, record(b"comment", b"c" * 400))
    taken = 0

    def endless() -> object:
        nonlocal taken
        while True:
            taken += len(piece)
            yield piece

    with pytest.raises(InvalidArgument, match="too long"):
        list(TarReader(endless()))  # type: ignore[arg-type]
    assert taken < 4 << 20


@pytest.mark.parametrize("kind", [b"x", b"g", b"L", b"K"])
def test_a_header_that_says_it_is_huge_is_not_waited_for(kind: bytes) -> None:
    refused(header(b"h", kind, size=b"%o" % (1 << 32)) + bytes(4096), "too long")
    refused(header(b"h", kind, size=b"\x80" + b"\x7f" * 11) + bytes(4096), "too long")


@pytest.mark.parametrize("cut", [1, 511, 513, 1000, 1024, 1025, 1500])
def test_cut_inside_headers(cut: int) -> None:
    refused((special(b"x", record(b"path", b"p" * 300)) + header())[:cut], "unexpected EOF")


def test_a_pax_record_that_lies_about_its_length() -> None:
    for body in (
        b"99 path=x\n",
        b"3 a\n",
        b"0 path=x\n",
        b"-9 path=x\n",
        b"10 path=xx",
        b"path=x\n",
        b"7 path\n\n",
        b"9" * 40,
    ):
        refused(special(b"x", body) + header(), "invalid tar header")


# Holes


def sparse_1_0(text: bytes, real: int, data: bytes = b"") -> bytes:
    body = padded(text) + data
    records = [(b"GNU.sparse.major", b"1"), (b"GNU.sparse.minor", b"0"), (b"GNU.sparse.name", b"s")]
    records += [(b"GNU.sparse.realsize", b"%d" % real), (b"size", b"%d" % len(body))]
    return special(b"x", b"".join(record(*pair) for pair in records)) + header() + padded(body)


@pytest.mark.parametrize(
    "text",
    [b"1\n0\n600\n", b"1\n-5\n5\n", b"2\n0\n5\n3\n5\n", b"1\n99\n5\n", b"x\n", b"1_0\n", b"\n", b"1\n0\n 5\n"],
)
def test_a_sparse_map_that_lies(text: bytes) -> None:
    refused(sparse_1_0(text, 100, b"12345"), "invalid (sparse map|tar header)")


def test_a_sparse_map_of_an_odd_number_of_numbers() -> None:
    version = record(b"GNU.sparse.major", b"0") + record(b"GNU.sparse.minor", b"1")
    records = version + record(b"GNU.sparse.map", b"0,1,5") + record(b"GNU.sparse.size", b"9")
    refused(special(b"x", records) + header(size=b"1") + padded(b"x"), "invalid sparse map")
    refused(special(b"x", record(b"GNU.sparse.offset", b"0") + record(b"GNU.sparse.size", b"9")) + header(), "sparse")


def test_a_sparse_map_without_end_costs_little() -> None:
    for text in (b"9" * 19 + b"\n", b"131000\n" + b"0\n0\n" * 100, b"1" * 5000):
        refused(sparse_1_0(text, 5), "sparse map too long|unexpected EOF|invalid tar header")
    begin = time.process_time()
    refused(sparse_1_0(b"131071\n" + b"0\n" * 262_000, 5), "sparse|EOF")  # was quadratic in its length
    assert time.process_time() - begin < 5


def test_an_old_sparse_map_without_end() -> None:
    field = b"00000000000\0"
    more = (field * 42).ljust(504, b"\0") + b"\1" + bytes(7)
    start = header(b"x", b"S", sparse=field * 8 + b"\1" + b"00000000005")
    assert start[482] == 1
    refused(start + more * 7000, "sparse map too long")


def test_a_hole_larger_than_any_layer(tmp_path: Path, layer: Path) -> None:
    layer.mkdir()
    root = os.open(layer, os.O_PATH)
    try:
        for real in (1 << 40, 1 << 62, 1 << 65):
            blob = sparse_1_0(b"1\n0\n5\n", real, b"12345")
            with pytest.raises(InvalidArgument, match="larger than 1048576 bytes"):
                Unpacker(root, max_size=1 << 20).run(TarReader(iter([blob])))
    finally:
        os.close(root)
    with pytest.raises(InvalidArgument):
        unpack(sparse_1_0(b"1\n0\n5\n", 1 << 70, b"12345"), tmp_path)


# Very many, very deep


def test_a_hundred_thousand_entries(tmp_path: Path, layer: Path) -> None:
    """In directories without entries; links to four files, as a file system counts links to 65,000 and no further."""
    files = b"".join(header(b"f%d" % at) for at in range(4))
    links = (header(b"d%d/%d" % (at % 50, at), b"1", link=b"f%d" % (at % 4)) for at in range(100_000))
    begin = time.process_time()
    answer = unpack(gzip.compress(files + b"".join(links) + bytes(1024), 1), tmp_path)
    assert time.process_time() - begin < 60  # 4 s
    assert (layer / "f0").stat().st_nlink == 25_001
    assert (answer["inodes"], len(answer["implied"])) == (54, 50)


def test_many_entries_in_one_directory(tmp_path: Path, layer: Path) -> None:
    blob = b"".join(header(b"d/%d" % at, size=b"0") for at in range(3000)) + bytes(1024)
    answer = unpack(gzip.compress(blob, 1), tmp_path)
    assert answer["inodes"] == 3001
    assert len(os.listdir(layer / "d")) == 3000


@pytest.mark.parametrize("name", ["n" * 10_000, "d/" * 5000 + "f", "/".join(["n" * 255] * 40)])
def test_names_longer_than_a_path_may_be(tmp_path: Path, layer: Path, name: str) -> None:
    for entry in (file(name), directory(name), symlink(name, "x"), symlink("x", name), hard_link("x", name)):
        with pytest.raises(InvalidArgument, match=r"name too long|no such file"):
            unpack(archive(entry), tmp_path)


def test_deeper_than_a_path_can_say(tmp_path: Path, layer: Path) -> None:
    """Links shorten the way, so a tree can be deeper than a path is long; it is replaced and removed all the same."""
    deep = "d/" * 700
    blob = archive(directory("top"), directory("top/" + deep), symlink("s", "top/" + deep), file("s/" + deep + "f"))
    unpack(blob, tmp_path)
    unpack(archive(file("top", b"flat")), tmp_path)
    assert (layer / "top").read_bytes() == b"flat"
    assert descriptors.below(tmp_path) == []


def test_opaque_directories_of_many(tmp_path: Path, layer: Path) -> None:
    """For `delete`: as much time as there are entries, not as their square."""
    unpack(archive(directory("d"), file("d/sub/old"), file("d/old")), tmp_path)
    names = [f"d/e{at}/f" for at in range(500)]
    begin = time.process_time()
    unpack(archive(*map(file, names), directory("d/sub"), file("d/.wh..wh..opq", b"")), tmp_path, delete=True)
    assert time.process_time() - begin < 10
    assert len(os.listdir(layer / "d")) == 501
    assert os.listdir(layer / "d/sub") == []


def test_directories_that_nobody_declared_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are told to the daemon, in one line."""
    monkeypatch.setattr("corten.storage.unpack._MAX_IMPLIED", 1000)
    with pytest.raises(InvalidArgument, match="too many directories"):
        unpack(archive(*(file(f"{'n' * 100}{at}/f") for at in range(20))), tmp_path)
    monkeypatch.setattr("corten.storage.unpack._MAX_NAMES", 1000)
    with pytest.raises(InvalidArgument, match="long names"):
        unpack(archive(*(directory(f"{'n' * 100}{at}") for at in range(20))), tmp_path)
