"""Paths made inside a root never leave it."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from corten.linux.inroot import ensure, ensure_parent, read_file
from tests import descriptors


@pytest.fixture
def root(tmp_path: Path) -> Iterator[int]:
    (tmp_path / "root").mkdir()
    fd = os.open(tmp_path / "root", os.O_RDONLY)
    yield fd
    assert descriptors.below(tmp_path) == [str(tmp_path / "root")]
    os.close(fd)


def made(root: int, path: str, *, directory: bool = True) -> str:
    """Where `path` ended up."""
    fd, _ = ensure(root, path, directory=directory)
    try:
        return os.readlink(f"/proc/self/fd/{fd}")
    finally:
        os.close(fd)


def test_missing_directories_are_made(root: int, tmp_path: Path) -> None:
    assert made(root, "/a/b/c") == str(tmp_path / "root/a/b/c")
    fd, existed = ensure(root, "a/b", directory=True)
    os.close(fd)
    assert existed
    assert made(root, "/a/file", directory=False) == str(tmp_path / "root/a/file")
    assert stat.S_ISREG((tmp_path / "root/a/file").stat().st_mode)


@pytest.mark.parametrize(
    ("link", "target"),
    [
        ("/outside", "root/outside/x"),
        ("../../../outside", "root/outside/x"),
        ("sub/../other", "root/other/x"),
        (".", "root/x"),
    ],
)
def test_links_stay_inside(root: int, tmp_path: Path, link: str, target: str) -> None:
    (tmp_path / "root/link").symlink_to(link)
    assert made(root, "/link/x") == str(tmp_path / target)
    assert not (tmp_path / "outside").exists()


def test_dotdot_stops_at_the_root(root: int, tmp_path: Path) -> None:
    assert made(root, "/../../new/../x") == str(tmp_path / "root/x")


def test_a_circle_of_links_is_an_error(root: int, tmp_path: Path) -> None:
    (tmp_path / "root/a").symlink_to("b")
    (tmp_path / "root/b").symlink_to("a")
    with pytest.raises(OSError, match="symbolic"):
        ensure(root, "/a/x", directory=True)


def test_a_file_in_the_way_is_an_error(root: int, tmp_path: Path) -> None:
    (tmp_path / "root/file").write_text("")
    with pytest.raises(NotADirectoryError):
        ensure(root, "/file/x", directory=True)


def test_parent(root: int, tmp_path: Path) -> None:
    fd, name = ensure_parent(root, "/dev/sub/node")
    try:
        assert (os.readlink(f"/proc/self/fd/{fd}"), name) == (str(tmp_path / "root/dev/sub"), "node")
    finally:
        os.close(fd)


def test_reading_is_bounded_and_confined(root: int, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "root/file").write_text("0123456789")
    (tmp_path / "root/link").symlink_to("../secret")
    os.mkfifo(tmp_path / "root/fifo")
    assert read_file(root, "/file", 4) == b"0123"
    assert read_file(root, "/link", 100) == b""
    assert read_file(root, "/fifo", 100) == b""
    assert read_file(root, "/nothing", 100) == b""
    assert read_file(root, "/", 100) == b""
