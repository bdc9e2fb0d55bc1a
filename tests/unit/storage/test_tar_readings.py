"""Archives that can be read in two ways are read as Go's reader does, which Docker and the scanners of images use.

What it says about each of these was taken down from it (archive/tar of Go 1.19). Most were found by fuzzing.
"""

from __future__ import annotations

import time

import pytest

from corten.storage.tarstream import TarReader
from tests.unit.storage.test_hostile_layers import header, padded, record, refused, special

END = bytes(1024)
DATA = padded(b"x" * 512)
SPARSE_SIZE = record(b"GNU.sparse.size", b"9")


def size(count: int) -> bytes:
    return b"%011o" % count


def names(blob: bytes) -> list[tuple[bytes, bytes]]:
    return [(entry.kind, entry.name) for entry in TarReader(iter([blob]))]


def x(*pairs: tuple[bytes, bytes]) -> bytes:
    return special(b"x", b"".join(record(key, value) for key, value in pairs))


@pytest.mark.parametrize("order", [1, -1])
def test_a_long_name_counts_before_a_path_of_pax(order: int) -> None:
    about = [special(b"L", b"long\0"), x((b"path", b"pax"))][::order]
    assert names(b"".join(about) + header(b"own") + END) == [(b"0", b"long")]
    links = [special(b"K", b"long\0"), x((b"linkpath", b"pax"))][::order]
    (entry,) = TarReader(iter([b"".join(links) + header(b"own", b"2", link=b"own") + END]))
    assert entry.link == b"long"


def test_an_empty_long_name_is_none() -> None:
    assert names(special(b"L", b"\0") + x((b"path", b"pax")) + header(b"own")) == [(b"0", b"pax")]
    assert names(special(b"L", b"a\0") + special(b"L", b"\0") + header(b"own")) == [(b"0", b"own")]


def test_a_second_pax_header_takes_the_place_of_the_first() -> None:
    blob = x((b"path", b"first"), (b"size", b"512")) + x((b"comment", b"c")) + header(b"own") + header(b"next") + END
    assert names(blob) == [(b"0", b"own"), (b"0", b"next")]


@pytest.mark.parametrize("about", [x((b"path", b"evil"), (b"size", b"512")), special(b"L", b"evil\0")])
def test_a_header_for_all_takes_back_what_was_said_before_it(about: bytes) -> None:
    blob = about + special(b"g", record(b"comment", b"c")) + header(b"own") + header(b"next") + END
    assert names(blob) == [(b"0", b"own"), (b"0", b"next")]


def test_an_old_directory_has_no_data() -> None:
    """With data to pass over, what is a member for the others would be hidden in it."""
    blob = header(b"d/", b"\0", size=size(512)) + header(b"seen") + END
    assert names(blob) == [(b"5", b"d/"), (b"0", b"seen")]


def test_a_device_before_ustar_has_no_number() -> None:
    block = bytearray(header(b"c", b"3", major=b"0000005\0"))
    block[257:265] = bytes(8)
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    (entry,) = TarReader(iter([bytes(block) + END]))
    assert entry.device == (0, 0)


def test_an_archive_does_not_go_on_after_a_block_of_zeros() -> None:
    refused(header(b"a") + bytes(512) + header(b"hidden") + END, "invalid tar header")
    refused(header(b"a") + bytes(512) + b"rest", "unexpected EOF")
    assert names(header(b"a") + bytes(512)) == names(header(b"a") + END + b"rest") == [(b"0", b"a")]


# Sparse files


@pytest.mark.parametrize("version", [(b"2", b"0"), (b"1", b"1"), (b"0", b"2"), (b"0", b""), (b"", b"1")])
def test_a_sparse_version_that_nobody_knows_is_none(version: tuple[bytes, bytes]) -> None:
    said = [(b"GNU.sparse.major", version[0]), (b"GNU.sparse.minor", version[1]), (b"GNU.sparse.name", b"evil")]
    (entry,) = TarReader(iter([x(*said, (b"GNU.sparse.map", b"0,1")) + header(b"own", size=size(1)) + DATA + END]))
    assert (entry.name, entry.sparse, entry.size) == (b"own", None, 1)


def test_a_sparse_name_alone_renames_nothing() -> None:
    assert names(x((b"GNU.sparse.name", b"evil")) + header(b"own") + END) == [(b"0", b"own")]
    assert names(x((b"GNU.sparse.name", b"evil")) + header(b"own", b"2", link=b"t") + END) == [(b"2", b"own")]


@pytest.mark.parametrize("kind", [b"1", b"2", b"3", b"5", b"6"])
def test_only_a_file_is_sparse(kind: bytes) -> None:
    said = [(b"GNU.sparse.major", b"1"), (b"GNU.sparse.minor", b"0"), (b"GNU.sparse.name", b"evil")]
    refused(x(*said) + header(b"own", kind) + END, "invalid tar header")
    refused(x((b"GNU.sparse.map", b"0,0")) + header(b"own", kind) + END, "invalid tar header")


def test_the_older_of_two_sparse_sizes_counts() -> None:
    said = [(b"GNU.sparse.map", b"0,1"), (b"GNU.sparse.realsize", b"7"), (b"GNU.sparse.size", b"9")]
    (entry,) = TarReader(iter([x(*said) + header(b"own", size=size(1)) + DATA + END]))
    assert entry.real_size == 9


@pytest.mark.parametrize("keys", [b"no on", b"oo nn", b"on no", b"o", b"on o"])
def test_offsets_and_lengths_come_in_turn(keys: bytes) -> None:
    words = {ord("o"): b"GNU.sparse.offset", ord("n"): b"GNU.sparse.numbytes"}
    body = b"".join(record(words[key], b"0") for key in keys.replace(b" ", b""))
    refused(special(b"x", body + SPARSE_SIZE) + header(b"own"), "invalid sparse map")


# Costs


def test_a_stream_that_comes_by_the_byte_costs_its_length() -> None:
    """A blob of very many gzip members gives such pieces. What was there already was copied for each of them."""
    blob = x((b"comment", b"c" * 500_000)) + header(b"own") + END
    begin = time.process_time()
    assert len(list(TarReader(blob[at : at + 1] for at in range(len(blob))))) == 1
    assert time.process_time() - begin < 2.5  # 0.3 s; it was 15
