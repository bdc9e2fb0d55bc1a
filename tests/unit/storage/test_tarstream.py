"""The tar reader agrees with tarfile, and refuses what is no tar."""

from __future__ import annotations

import io
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corten.errors import InvalidArgument
from corten.storage.tarstream import TarReader
from tests.unit.storage.tars import archive, directory, file, hard_link, member, symlink


def pieces(data: bytes, size: int) -> Iterator[bytes]:
    return (data[at : at + size] for at in range(0, len(data), size))


def read(data: bytes, size: int = 65536) -> list[tuple[bytes, bytes, bytes]]:
    """Kind, name and data of each entry."""
    reader = TarReader(pieces(data, size))
    return [(entry.kind, entry.name, b"".join(reader.data())) for entry in reader]


LONG = "d/" * 60 + "n" * 120
SAMPLES = (
    file("a", b"x" * 1000),
    directory("d"),
    symlink("s", LONG),
    file(LONG, b"long"),
    hard_link("h", "a"),
    file("e", b""),
)


@pytest.mark.parametrize("format", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("size", [1, 100, 512, 700, 1 << 20])
def test_every_format_in_pieces_of_any_size(format: int, size: int) -> None:
    found = read(archive(*SAMPLES, format=format), size)
    assert [(kind, len(data)) for kind, _, data in found] == [
        (b"0", 1000),
        (b"5", 0),
        (b"2", 0),
        (b"0", 4),
        (b"1", 0),
        (b"0", 0),
    ]
    assert found[3][1].decode() == LONG


def test_ustar_prefix() -> None:
    name = "p" * 100 + "/" + "n" * 90
    assert read(archive(file(name), format=tarfile.USTAR_FORMAT))[0][1].decode() == name


def test_attributes() -> None:
    data = archive(
        file("a", b"", mode=0o4755, uid=3_000_000, gid=70_000, mtime=1.25, pax_headers={"SCHILY.xattr.user.x": "v"}),
        member("c", tarfile.CHRTYPE, devmajor=5, devminor=1),
    )
    first, second = TarReader(iter([data]))
    assert (first.mode, first.uid, first.gid, first.mtime_ns) == (0o4755, 3_000_000, 70_000, 1_250_000_000)
    assert first.xattrs == {b"user.x": b"v"}
    assert (second.kind, second.device) == (b"3", (5, 1))


def test_base_256_numbers() -> None:
    (entry,) = TarReader(iter([archive(file("a", b"", uid=1 << 40, mtime=-5), format=tarfile.GNU_FORMAT)]))
    assert (entry.uid, entry.mtime_ns) == (1 << 40, -5_000_000_000)


@given(st.decimals(min_value=-(10**10), max_value=10**10, places=9))
def test_times_are_exact(seconds: object) -> None:
    (entry,) = TarReader(iter([archive(file("a", b"", pax_headers={"mtime": f"{seconds:f}"}))]))
    assert entry.mtime_ns == round(seconds * 10**9)  # type: ignore[operator]  # a Decimal


@pytest.mark.parametrize(
    "format",
    [
        ["--format=gnu"],
        ["--format=pax", "--sparse-version=0.0"],
        ["--format=pax", "--sparse-version=0.1"],
        ["--format=pax", "--sparse-version=1.0"],
    ],
)
def test_sparse_files_of_gnu_tar(tmp_path: Path, format: list[str]) -> None:
    with (tmp_path / "sparse").open("wb") as out:
        for at in range(12):
            out.seek(at * 100_000)
            out.write(bytes([at + 1]) * 5000)
        out.truncate(2_000_000)
    data = subprocess.run(
        ["tar", "-C", tmp_path, "-cSf", "-", *format, "sparse"], capture_output=True, check=True
    ).stdout
    reader = TarReader(pieces(data, 1000))
    for entry in reader:
        content = b"".join(reader.data())
        assert (entry.name, entry.real_size) == (b"sparse", 2_000_000)
        rebuilt = bytearray(entry.real_size)
        for offset, length in entry.sparse or []:
            rebuilt[offset : offset + length], content = content[:length], content[length:]
        assert bytes(rebuilt) == (tmp_path / "sparse").read_bytes()
    assert len(data) < 200_000


def test_an_archive_that_just_stops_after_an_entry_is_whole() -> None:
    assert len(read(archive(file("a"))[:1024])) == 1


@pytest.mark.parametrize("cut", [100, 512, 600, 1100])
def test_truncated(cut: int) -> None:
    with pytest.raises(InvalidArgument, match="unexpected EOF"):
        read(archive(file("a", b"x" * 1000), file("b"), format=tarfile.USTAR_FORMAT)[:cut])


@pytest.mark.parametrize("data", [b"\x01" * 512, b"not a tar" * 100, b"\0" * 511 + b"x"])
def test_garbage(data: bytes) -> None:
    with pytest.raises(InvalidArgument):
        read(data)


def test_an_unknown_type_is_named() -> None:
    with pytest.raises(InvalidArgument, match="unhandled tar header type 86"):
        read(archive(member("a", b"V"), format=tarfile.GNU_FORMAT))


def test_metadata_is_bounded() -> None:
    with pytest.raises(InvalidArgument, match="too long"):
        read(archive(file("a", pax_headers={"comment": "x" * (2 << 20)})))


def test_a_lying_sparse_map_is_refused() -> None:
    headers = {"GNU.sparse.map": "0,4,1,4", "GNU.sparse.size": "100", "GNU.sparse.name": "a"}
    with pytest.raises(InvalidArgument, match="sparse"):
        read(archive(file("a", b"12345678", pax_headers=headers)))


@given(st.binary(min_size=1, max_size=2000), st.integers(0, 4000))
@settings(max_examples=200)
def test_damage_is_an_error_or_harmless(noise: bytes, at: int) -> None:
    data = bytearray(archive(*SAMPLES))
    data[at : at + len(noise)] = noise
    try:
        for entry in (reader := TarReader(iter([bytes(data)]))):
            for _ in reader.data():
                pass
            assert entry.size >= 0
    except InvalidArgument:
        pass


def test_agrees_with_tarfile_about_a_real_tree() -> None:
    source = Path(tarfile.__file__).parent / "json"
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        tar.add(source, arcname="json")
    buffer.seek(0)
    with tarfile.open(fileobj=buffer) as tar:
        expected = [
            (info.name, (tar.extractfile(info) or io.BytesIO()).read() if info.isfile() else b"") for info in tar
        ]
    assert [(name.rstrip(b"/").decode(), data) for _, name, data in read(buffer.getvalue())] == expected
