"""A layer's directory is compared with its blob: what unpacking makes is never damage, what was changed always is."""

from __future__ import annotations

import os
import random
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from corten.errors import InvalidArgument
from corten.storage.verify import MAX_NAMED, verify_layer
from tests.unit.storage.tars import archive, directory, file, hard_link, member, symlink, unpack

Member = tarfile.TarInfo | tuple[tarfile.TarInfo, bytes]


@pytest.fixture
def layer(tmp_path: Path) -> Path:
    return tmp_path / "layer"


def verify(base: Path, **options: Any) -> list[tuple[str, str]]:
    answer = verify_layer([str(base / "blob")], str(base / "layer"), **options)
    assert answer["count"] == len(answer["damage"])
    return [(path, what) for path, what in answer["damage"]]


def everything() -> bytes:
    return archive(
        *(directory("d", mode=0o1770), file("d/f", b"x" * 70_000, mode=0o4750), file("d/empty", b"")),
        *(symlink("d/s", "f"), hard_link("d/h", "d/f"), member("d/p", tarfile.FIFOTYPE), file(".wh.gone", b"")),
        *(file("implied/deep/f"), symlink("l", "/d"), file("l/through", b"link"), file("opaque/.wh..wh..opq", b"")),
        *(file("twice", b"first"), file("twice", b"second"), file("x", pax_headers={"SCHILY.xattr.user.k": "v"})),
    )


def test_what_was_unpacked_is_whole(tmp_path: Path) -> None:
    answer = unpack(everything(), tmp_path)
    assert verify(tmp_path) == []
    assert verify_layer([str(tmp_path / "blob")], str(tmp_path / "layer"))["diff_ids"] == [answer["diff_id"]]


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    times = path.stat()
    path.write_bytes(data)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def replace_link(path: Path) -> None:
    path.unlink()
    path.symlink_to("elsewhere")


def make_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def part(path: Path) -> None:
    data = path.read_bytes()
    path.unlink()
    path.write_bytes(data)
    path.chmod(0o4750)


DAMAGE: list[tuple[str, Callable[[Path], Any], str, str]] = [
    ("d/f", flip, "/d/f", "has another content than it should"),
    ("d/f", lambda path: os.truncate(path, 0), "/d/f", "has 0 bytes and should have 70000"),
    ("d/through", Path.unlink, "/d/through", "is missing"),
    ("d/new", Path.touch, "/d/new", "does not belong to the layer"),
    ("d/empty", lambda path: path.chmod(0o600), "/d/empty", "has mode 0600 and should have 0644"),
    ("d", lambda path: path.chmod(0o700), "/d", "has mode 0700 and should have 1770"),
    ("d/s", replace_link, "/d/s", "points elsewhere than it should"),
    ("d/p", make_directory, "/d/p", "is a directory and should be a fifo"),
    ("d/h", part, "/d/h", "is no hard link to /d/f"),
    ("gone", Path.unlink, "/gone", "is missing"),
    ("x", lambda path: os.setxattr(path, "user.k", b"w"), "/x", "has another attribute user.k than it should"),
    ("x", lambda path: os.removexattr(path, "user.k"), "/x", "has another attribute user.k than it should"),
    ("twice", lambda path: path.write_bytes(b"first!"), "/twice", "has another content than it should"),
]


@pytest.mark.parametrize(("name", "harm", "path", "what"), DAMAGE, ids=[f"{row[0]}-{row[3][:20]}" for row in DAMAGE])
def test_damage_is_named(
    tmp_path: Path, layer: Path, name: str, harm: Callable[[Path], Any], path: str, what: str
) -> None:
    if "user.k" in what:
        skip_without_xattrs(tmp_path)
    unpack(everything(), tmp_path)
    harm(layer / name)
    assert verify(tmp_path) == [(path, what)]


def skip_without_xattrs(base: Path) -> None:
    try:
        os.setxattr(base, "user.trial", b"")
    except OSError:
        pytest.skip("this file system keeps no extended attributes")


def test_a_layer_that_is_gone(tmp_path: Path, layer: Path) -> None:
    unpack(archive(file("a")), tmp_path)
    (layer / "a").unlink()
    layer.rmdir()
    assert verify(tmp_path) == [("/", "no such file or directory")]


def test_much_damage_is_counted(tmp_path: Path, layer: Path) -> None:
    unpack(archive(*(file(f"f{number}") for number in range(MAX_NAMED + 20))), tmp_path)
    for path in layer.iterdir():
        path.unlink()
    answer = verify_layer([str(tmp_path / "blob")], str(layer))
    assert (answer["count"], len(answer["damage"])) == (MAX_NAMED + 20, MAX_NAMED)


def test_implied_directories_are_as_in_the_layers_below(tmp_path: Path, layer: Path) -> None:
    unpack(archive(file("etc/f")), tmp_path)
    (layer / "etc").chmod(0o750)
    lower = tmp_path / "lower"
    (lower / "etc").mkdir(parents=True)
    (lower / "etc").chmod(0o750)
    assert verify(tmp_path, lower=[str(tmp_path / "nothing"), str(lower)]) == []
    (layer / "etc").chmod(0o777)
    found = verify(tmp_path, lower=[str(lower)])
    assert found == [("/etc", "has mode 0777 and should have 0750")]


def test_sparse_files(tmp_path: Path, layer: Path) -> None:
    headers = {"GNU.sparse.major": "0", "GNU.sparse.minor": "1", "GNU.sparse.map": "4096,3,900000,2"}
    headers |= {"GNU.sparse.size": "1000000", "GNU.sparse.numblocks": "2"}
    unpack(archive(file("s", b"abcde", pax_headers=headers)), tmp_path)
    assert (layer / "s").stat().st_size == 1_000_000
    assert verify(tmp_path) == []
    for offset, data in ((4097, b"!"), (500_000, b"!"), (999_999, b"!")):
        unpack(archive(file("s", b"abcde", pax_headers=headers)), tmp_path)
        with (layer / "s").open("r+b") as out:
            out.seek(offset)
            out.write(data)
        assert verify(tmp_path) == [("/s", "has another content than it should")], offset


def test_a_path_deeper_than_descriptors_reach(tmp_path: Path, layer: Path) -> None:
    deep = "/".join("d" for _ in range(400))
    unpack(archive(file(deep + "/f", b"deep")), tmp_path)
    assert verify(tmp_path) == []


def test_whole_trees_of_a_copying_snapshotter(tmp_path: Path, layer: Path) -> None:
    lower = archive(file("a"), directory("d"), file("d/x"), file("e/y"), file("gone"))
    upper = archive(file("d/new"), file("d/.wh..wh..opq", b""), file(".wh.gone", b""), file("a", b"other"))
    blobs = []
    for number, blob in enumerate((lower, upper)):
        unpack(blob, tmp_path, delete=True)
        (tmp_path / f"blob{number}").write_bytes(blob)
        blobs.append(str(tmp_path / f"blob{number}"))
    assert verify_layer(blobs, str(layer), delete=True)["damage"] == []
    (layer / "e/y").unlink()
    assert verify_layer(blobs, str(layer), delete=True)["damage"] == [["/e/y", "is missing"]]


NAMES = ("a", "b", "d", "d/a", "d/e", "d/e/a", "l", "l/a", "l/e", "./b", "d/../b")


def random_member(choose: random.Random) -> Member:
    name, other = choose.choice(NAMES), choose.choice(NAMES)
    kind = choose.randrange(8)
    if kind == 0:
        return directory(name, mode=choose.choice((0o755, 0o700, 0o1777)))
    if kind == 1:
        return symlink(name, choose.choice((other, "/d", "d", "nowhere", "../../d")))
    if kind == 2:
        return hard_link(name, other)
    if kind == 3:
        parent, _, base = name.rpartition("/")
        return file(f"{parent}/.wh.{base}" if parent else f".wh.{base}", b"")
    if kind == 4:
        return member(name, tarfile.FIFOTYPE)
    return file(name, choose.randbytes(choose.randrange(4)), mode=choose.choice((0o644, 0o4755)))


@pytest.mark.parametrize("delete", [False, True])
def test_the_model_agrees_with_unpacking_whatever_the_archive_says(tmp_path: Path, delete: bool) -> None:
    unpacked = 0
    for seed in range(300):
        choose = random.Random(seed)
        base = tmp_path / str(seed)
        base.mkdir()
        blob = archive(*(random_member(choose) for _ in range(choose.randrange(1, 9))))
        try:
            unpack(blob, base, delete=delete)
        except InvalidArgument:
            continue
        unpacked += 1
        assert verify(base, delete=delete) == [], seed
    assert unpacked > 120
