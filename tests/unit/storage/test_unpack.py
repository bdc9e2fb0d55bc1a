"""Layers are unpacked whole, inside their directory, and nowhere else."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import hashlib
import lzma
import os
import stat
import tarfile
from pathlib import Path

import pytest
import zstandard

from corten.errors import InvalidArgument, SystemFault
from corten.storage.snapshots import count_usage
from corten.storage.unpack import clean
from tests import descriptors
from tests.unit.storage.tars import MTIME, archive, directory, file, hard_link, member, symlink, unpack


@pytest.fixture
def layer(tmp_path: Path) -> Path:
    return tmp_path / "layer"


def tree(layer: Path) -> list[str]:
    return sorted(str(path.relative_to(layer)) for path in layer.rglob("*"))


def is_whiteout(path: Path) -> bool:
    status = path.lstat()
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0


def test_everything_arrives(tmp_path: Path, layer: Path) -> None:
    blob = archive(
        directory("d", mode=0o1770),
        file("d/f", b"x" * 700_000, mode=0o640),
        file("d/empty", b"", mode=0o755),
        symlink("d/s", "f"),
        hard_link("d/h", "d/f"),
        member("d/p", tarfile.FIFOTYPE),
    )
    answer = unpack(blob, tmp_path)
    assert answer["diff_id"] == "sha256:" + hashlib.sha256(blob).hexdigest()
    assert answer["implied"] == []
    assert tree(layer) == ["d", "d/empty", "d/f", "d/h", "d/p", "d/s"]
    assert (layer / "d/f").read_bytes() == b"x" * 700_000
    assert stat.S_IMODE((layer / "d/f").stat().st_mode) == 0o640
    assert stat.S_IMODE((layer / "d").stat().st_mode) == 0o1770
    assert os.readlink(layer / "d/s") == "f"
    assert (layer / "d/h").stat().st_ino == (layer / "d/f").stat().st_ino
    assert stat.S_ISFIFO((layer / "d/p").stat().st_mode)
    for name in ("d", "d/f", "d/s", "d/p"):
        assert (layer / name).lstat().st_mtime == MTIME


def test_usage_is_what_the_disk_says(tmp_path: Path, layer: Path) -> None:
    answer = unpack(
        archive(directory("d"), file("d/a", b"x" * 5000), file("d/b", b"x"), hard_link("d/c", "d/a")), tmp_path
    )
    counted = count_usage(layer)
    directories = sum(path.stat().st_blocks * 512 for path in (layer, layer / "d"))  # a tmpfs says 0
    assert answer["size"] - 4096 == counted.size - directories
    assert answer["inodes"] == counted.inodes - 1  # without the root itself


def test_the_umask_does_not_show(tmp_path: Path, layer: Path) -> None:
    previous = os.umask(0o077)
    try:
        unpack(archive(file("implied/f", mode=0o666)), tmp_path)
        assert os.umask(0o077) == 0o077
    finally:
        os.umask(previous)
    assert stat.S_IMODE((layer / "implied/f").stat().st_mode) == 0o666
    assert stat.S_IMODE((layer / "implied").stat().st_mode) == 0o755


@pytest.mark.parametrize(
    "pack",
    [
        lambda data: data,
        gzip.compress,
        lambda data: gzip.compress(data[:5000]) + gzip.compress(data[5000:]),
        lambda data: gzip.compress(data) + b"\0" * 100,
        zstandard.ZstdCompressor().compress,
        lambda data: zstandard.compress(data[:5000]) + zstandard.compress(data[5000:]),
        lzma.compress,
        bz2.compress,
    ],
    ids=["plain", "gzip", "gzip members", "gzip padded", "zstd", "zstd frames", "xz", "bzip2"],
)
@pytest.mark.parametrize("size", [100, 900_000])
def test_compression_is_told_by_the_bytes(tmp_path: Path, layer: Path, pack: object, size: int) -> None:
    data = os.urandom(size)
    blob = archive(file("f", data))
    answer = unpack(pack(blob), tmp_path)  # type: ignore[operator]  # one of the functions above
    assert (layer / "f").read_bytes() == data
    assert answer["diff_id"] == "sha256:" + hashlib.sha256(blob).hexdigest()


def test_bytes_after_the_end_of_the_archive_are_hashed(tmp_path: Path) -> None:
    blob = archive(file("f")) + b"\0" * 50_000
    assert unpack(gzip.compress(blob), tmp_path)["diff_id"] == "sha256:" + hashlib.sha256(blob).hexdigest()


@pytest.mark.parametrize("pack", [lambda data: data, gzip.compress, lzma.compress], ids=["plain", "gzip", "xz"])
def test_truncated(tmp_path: Path, pack: object) -> None:
    blob = pack(archive(file("f", os.urandom(600_000)), file("g")))  # type: ignore[operator]
    with pytest.raises(InvalidArgument, match="unexpected EOF"):
        unpack(blob[: len(blob) // 2], tmp_path)


def test_garbage_after_a_gzip_magic(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="invalid compressed data"):
        unpack(b"\x1f\x8b" + b"garbage" * 100, tmp_path)


def test_missing_blob(tmp_path: Path) -> None:
    (tmp_path / "layer").mkdir()
    with pytest.raises(SystemFault, match="no such file"):
        unpack_missing(tmp_path)


def unpack_missing(base: Path) -> None:
    from corten.storage.apply import apply_layer

    apply_layer(str(base / "nothing"), str(base / "layer"))


# Climbing out


@pytest.mark.parametrize("name", ["../x", "a/../../x", "./../x", "..", "../layer-x"])
def test_names_that_climb_out_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidArgument, match="is outside of"):
        unpack(archive(file(name)), tmp_path)
    assert sorted(os.listdir(tmp_path)) == ["blob", "layer"]


def test_absolute_names_are_inside(tmp_path: Path, layer: Path) -> None:
    unpack(
        archive(file("/etc/shadow-of-a-test"), file("/../../up"), hard_link("/l", "/etc/shadow-of-a-test")), tmp_path
    )
    assert tree(layer) == ["etc", "etc/shadow-of-a-test", "l", "up"]


@pytest.mark.parametrize(
    "target", ["{outside}", "../../../../../../../../../../../{outside}", "/proc/self/root{outside}"]
)
def test_a_planted_link_is_not_followed_out(tmp_path: Path, layer: Path, target: str) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    link = symlink("trap", target.format(outside=outside))
    # Inside the layer's root the target may be a path of its own, which is made there; outside nothing changes.
    for members in ([link, file("trap/evil")], [link, directory("trap/evil")], [link, file("trap/.wh.evil")]):
        with contextlib.suppress(InvalidArgument):
            unpack(archive(*members), tmp_path)
        assert list(outside.iterdir()) == []


def test_a_link_inside_is_followed_inside(tmp_path: Path, layer: Path) -> None:
    unpack(
        archive(
            directory("usr"),
            directory("usr/lib"),
            symlink("lib", "/usr/lib"),
            file("lib/f"),
            symlink("l2", "../../../usr"),
            file("l2/g"),
        ),
        tmp_path,
    )
    assert tree(layer) == ["l2", "lib", "usr", "usr/g", "usr/lib", "usr/lib/f"]


def test_a_file_is_not_written_through_a_link(tmp_path: Path, layer: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("safe")
    unpack(archive(symlink("f", str(victim)), file("f", b"mine")), tmp_path)
    assert victim.read_text() == "safe"
    assert (layer / "f").read_text() == "mine"
    assert not (layer / "f").is_symlink()


@pytest.mark.parametrize("target", ["../victim", "../../etc/passwd", "a/../../victim"])
def test_hard_links_that_climb_out_are_refused(tmp_path: Path, layer: Path, target: str) -> None:
    (tmp_path / "victim").write_text("safe")
    with pytest.raises(InvalidArgument, match="invalid hardlink"):
        unpack(archive(hard_link("h", target)), tmp_path)
    assert tree(layer) == []


def test_a_hard_link_through_a_planted_link_stays_inside(tmp_path: Path, layer: Path) -> None:
    (tmp_path / "victim").write_text("safe")
    with pytest.raises(InvalidArgument, match="no such file"):
        unpack(archive(symlink("out", str(tmp_path)), hard_link("h", "out/victim")), tmp_path)
    assert (tmp_path / "victim").stat().st_nlink == 1


def test_a_hard_link_to_a_link_links_the_link(tmp_path: Path, layer: Path) -> None:
    (tmp_path / "victim").write_text("safe")
    unpack(archive(symlink("s", str(tmp_path / "victim")), hard_link("h", "s")), tmp_path)
    assert (layer / "h").is_symlink()


@pytest.mark.parametrize(
    "members", [[hard_link("h", "gone")], [hard_link("h", "h")], [directory("d"), hard_link("h", "d")]]
)
def test_hard_links_to_nothing_useful(tmp_path: Path, members: list[tarfile.TarInfo]) -> None:
    with pytest.raises(InvalidArgument, match="link"):
        unpack(archive(*members), tmp_path)


def test_the_root_may_only_be_a_directory(tmp_path: Path, layer: Path) -> None:
    with pytest.raises(InvalidArgument, match="root of a layer"):
        unpack(archive(symlink(".", "/etc")), tmp_path)
    unpack(archive(directory("./", mode=0o711)), tmp_path)
    assert stat.S_IMODE(layer.stat().st_mode) == 0o711


def test_a_name_too_long(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="file name too long"):
        unpack(archive(file("n" * 300)), tmp_path)


def test_a_nul_in_a_name(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="invalid name"):
        unpack(archive(file("x", pax_headers={"path": "a\0b"})), tmp_path)


def test_a_file_where_a_parent_should_be(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="not a directory"):
        unpack(archive(file("a"), file("a/b")), tmp_path)


# Replacing


def test_the_last_of_a_name_wins(tmp_path: Path, layer: Path) -> None:
    answer = unpack(
        archive(
            *(directory("x"), file("x/inner"), file("x", b"file now")),
            *(file("y"), directory("y"), file("y/inner")),
            *(file("z", b"1"), file("z", b"2")),
            *(symlink("d", "elsewhere"), directory("d"), file("d/f")),
        ),
        tmp_path,
    )
    assert tree(layer) == ["d", "d/f", "x", "y", "y/inner", "z"]
    assert (layer / "x").read_bytes() == b"file now"
    assert (layer / "z").read_bytes() == b"2"
    assert answer["recount"]


def test_a_directory_swapped_for_a_link_is_not_written_through(tmp_path: Path, layer: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    blob = archive(directory("d"), file("d/a"), symlink("d", str(outside)), file("d/b"))
    with pytest.raises(InvalidArgument):
        unpack(blob, tmp_path)
    assert list(outside.iterdir()) == []


def test_many_directories_at_once(tmp_path: Path, layer: Path) -> None:
    names = [f"d{i}/e{j}" for j in range(2) for i in range(300)]
    answer = unpack(archive(*(file(f"{name}/f") for name in names)), tmp_path)
    assert len(tree(layer)) == 300 + 600 + 600
    assert len(answer["implied"]) == 900
    unpack(archive(*(file(f"{name}/g") for name in names)), tmp_path)
    assert descriptors.below(tmp_path) == []


def test_an_entry_that_comes_later_is_not_implied(tmp_path: Path, layer: Path) -> None:
    assert unpack(archive(file("a/b/c"), directory("a", mode=0o700)), tmp_path)["implied"] == ["a/b"]
    assert stat.S_IMODE((layer / "a").stat().st_mode) == 0o700


# Whiteouts


def test_whiteouts_for_overlay(tmp_path: Path, layer: Path) -> None:
    unpack(archive(directory("d"), file("d/.wh.gone", b""), file(".wh.top", b""), file(".wh..wh.plnk", b"")), tmp_path)
    assert tree(layer) == ["d", "d/gone", "top"]
    assert is_whiteout(layer / "d/gone")
    assert is_whiteout(layer / "top")


@pytest.mark.parametrize("order", [1, -1])
def test_a_whiteout_spares_its_own_layer(tmp_path: Path, layer: Path, order: int) -> None:
    unpack(archive(*[file("x", b"new"), file(".wh.x", b"")][::order]), tmp_path)
    assert (layer / "x").read_bytes() == b"new"


@pytest.mark.parametrize("name", [".wh.", ".wh..", ".wh..."])
def test_whiteouts_of_nothing(tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidArgument, match="whiteout"):
        unpack(archive(directory("d"), file("d/" + name, b"")), tmp_path)


def test_whiteouts_that_delete(tmp_path: Path, layer: Path) -> None:
    unpack(
        archive(directory("d"), file("d/old"), file("d/kept"), directory("tree"), file("tree/f"), file("both", b"old")),
        tmp_path,
    )
    blob = archive(
        file("d/.wh.old", b""), file(".wh.tree", b""), file("both", b"new"), file(".wh.both", b""), file(".wh.x", b"")
    )
    unpack(blob, tmp_path, delete=True)
    assert tree(layer) == ["both", "d", "d/kept"]
    assert (layer / "both").read_bytes() == b"new"


def test_opaque_directories_that_delete(tmp_path: Path, layer: Path) -> None:
    unpack(archive(directory("d"), file("d/old"), directory("d/sub"), file("d/sub/old")), tmp_path)
    unpack(
        archive(directory("d"), file("d/new"), file("d/sub/new"), file("d/.wh..wh..opq", b"")), tmp_path, delete=True
    )
    assert tree(layer) == ["d", "d/new", "d/sub", "d/sub/new"]


def test_a_whiteout_through_a_planted_link_deletes_nothing_outside(tmp_path: Path, layer: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "f").write_text("safe")
    unpack(archive(symlink("d", str(outside))), tmp_path)
    for name in ("d/.wh.f", "d/.wh..wh..opq"):
        with contextlib.suppress(InvalidArgument):
            unpack(archive(file(name, b"")), tmp_path, delete=True)
        assert (outside / "f").read_text() == "safe"


@pytest.mark.parametrize(
    ("name", "result"),
    [
        (b"a/b", b"a/b"),
        (b"./a//b/", b"a/b"),
        (b"a/../b", b"b"),
        (b"/../a", b"a"),
        (b"..", None),
        (b"a/../..", None),
        (b"", b""),
    ],
)
def test_clean(name: bytes, result: bytes | None) -> None:
    assert clean(name) == result
