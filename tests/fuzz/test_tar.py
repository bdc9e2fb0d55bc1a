"""The tar reader: by Go's rules for any archive, like tarfile and GNU tar for those about which nobody disagrees."""

from __future__ import annotations

import contextlib
import io
import itertools
import os
import subprocess
import tarfile
import tempfile
import tracemalloc
import zlib
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from corten.errors import InvalidArgument
from corten.storage.tarstream import Entry, TarReader
from corten.storage.unpack import Unpacker
from tests.fuzz import gotar
from tests.fuzz.gotar import Member
from tests.fuzz.profile import fuzzed
from tests.fuzz.tars import archives, metas
from tests.unit.storage.tars import archive, directory, file, hard_link, symlink

LARGE = 1 << 24


def content_of(entry: Entry, reader: TarReader) -> bytes | None:
    data = b"".join(reader.data())
    assert len(data) == entry.size
    if entry.sparse is None:
        return data
    assert sum(length for _, length in entry.sparse) == entry.size
    if entry.real_size > LARGE:
        return None
    whole = bytearray(entry.real_size)
    for offset, length in entry.sparse:
        whole[offset : offset + length], data = data[:length], data[length:]
    return bytes(whole)


def read(data: bytes, piece: int) -> tuple[list[Member], str]:
    """What the reader makes of an archive in pieces, and why it refused the rest."""
    found: list[Member] = []
    reader = TarReader(data[at : at + piece] for at in range(0, len(data), piece))
    try:
        for entry in reader:
            made = Member(
                *(entry.kind.decode(), entry.name, entry.link, entry.mode, entry.uid, entry.gid, entry.mtime_ns),
                device=entry.device,
                xattrs=entry.xattrs or {},
            )
            made.size = entry.size if entry.sparse is None else entry.real_size
            made.content = content_of(entry, reader)
            found.append(made)
    except InvalidArgument as error:
        return found, str(error)
    return found, ""


@given(archives(), st.sampled_from([1, 13, 512, 700, 1 << 20]))
@fuzzed(500)
def test_any_archive_is_read_as_by_the_model(data: bytes, piece: int) -> None:
    expected = gotar.read(data)
    found, refused = read(data, piece)
    assert found == expected.members
    assert bool(refused) == (expected.refused or expected.dangling), refused


@given(st.binary(max_size=3000), archives(), st.integers(0, 3000))
@fuzzed(60)
def test_noise_is_read_as_by_the_model(noise: bytes, data: bytes, at: int) -> None:
    whole = data[:at] + noise + data[at:]
    expected = gotar.read(whole)
    found, refused = read(whole, 4096)
    assert (found, bool(refused)) == (expected.members, expected.refused or expected.dangling)


@given(st.lists(metas(), min_size=1, max_size=3), st.sampled_from([512, 4096, 100_000]))
@fuzzed(15)
def test_what_never_ends_is_given_up_and_kept_by_nobody(about: list[bytes], piece: int) -> None:
    """The same headers over and over. However long the stream, the reader holds a megabyte or so, or refuses it."""
    unit = b"".join(about) * 40
    pieces = itertools.islice(itertools.cycle([unit[at : at + piece] for at in range(0, len(unit), piece)]), 4000)
    tracemalloc.start()
    try:
        with contextlib.suppress(InvalidArgument):
            for _ in zip(TarReader(pieces), range(500), strict=False):
                pass
        assert tracemalloc.get_traced_memory()[1] < 12 << 20
    finally:
        tracemalloc.stop()


# Where all agree

plain_names = st.sampled_from(
    ["a", "b/c", "n" * 99, "n" * 100, "p/" * 70 + "n" * 90, "é", "x y", "new\nline", "-rf", "d/e/f"]
)
bodies = st.sampled_from([b"", b"x", b"y" * 511, b"z" * 512, b"w" * 9000])
targets = st.sampled_from(["t", "../t", "/abs", "l" * 150, "é"])


@st.composite
def tame(draw: st.DrawFn) -> bytes:
    """Written by tarfile; each member below a directory of its own. Packed, as hypothesis prints it."""
    made: list[tarfile.TarInfo | tuple[tarfile.TarInfo, bytes]] = []
    for at in range(draw(st.integers(1, 4))):
        name, kind = f"{at}/{draw(plain_names)}", draw(st.integers(0, 3))
        made.append(directory(f"{at}"))
        made.append(
            [file(name, draw(bodies), mode=draw(st.sampled_from([0o644, 0o755, 0o600]))), directory(name), 0, 0][kind]  # type: ignore[arg-type]  # the rest is below
            if kind < 2
            else symlink(name, draw(targets))
        )
        if kind == 3:
            made += [file(f"{at}/first", draw(bodies)), hard_link(f"{at}/second", f"{at}/first")]
    return zlib.compress(archive(*made, format=draw(st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]))))


@given(tame())
@fuzzed(60)
def test_what_tarfile_reads(packed: bytes) -> None:
    data = zlib.decompress(packed)
    found, refused = read(data, 10_000)
    assert not refused
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        theirs = [(info.name, info.linkname, info.size, info.mode, info.mtime * 10**9) for info in tar]
        contents = [(tar.extractfile(info) or io.BytesIO()).read() for info in tar if info.isreg()]
    ours = [(m.name.rstrip(b"/").decode(), m.link.decode(), m.size, m.mode, m.mtime) for m in found]
    assert ours == theirs
    assert [member.content for member in found if member.kind == "0"] == contents


def tree(top: Path) -> dict[str, object]:
    found: dict[str, object] = {}
    for path in top.rglob("*"):
        status = path.lstat()
        what = os.readlink(path) if path.is_symlink() else path.read_bytes() if path.is_file() else status.st_mode
        time = 0 if path.is_dir() else status.st_mtime_ns  # some have no entry of their own
        found[str(path.relative_to(top))] = (what, status.st_mode, status.st_nlink, time)
    return found


@given(tame())
@fuzzed(20)
def test_what_gnu_tar_unpacks(packed: bytes) -> None:
    data = zlib.decompress(packed)
    with tempfile.TemporaryDirectory() as base:
        ours, theirs = Path(base, "ours"), Path(base, "theirs")
        ours.mkdir()
        theirs.mkdir()
        root, mask = os.open(ours, os.O_PATH), os.umask(0)
        try:
            Unpacker(root).run(TarReader(iter([data])))
        finally:
            os.umask(mask)
            os.close(root)
        subprocess.run(["tar", "-xpPf", "-", "-C", theirs], input=data, check=True)
        assert tree(ours) == tree(theirs)
