"""Files of containers that our own processes touch: a volume's filling, counting and deleting while a container that
has it changes it (the kind of CVE-2018-15664)."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from corten.storage import treecopy
from corten.storage.snapshots import count_usage
from corten.storage.trash import Trash
from corten.storage.treecopy import TreeCopier
from tests.kernel.launching import needs_root

pytestmark = [pytest.mark.root, needs_root]


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    """A directory of the host with a secret."""
    made = tmp_path / "host"
    made.mkdir()
    (made / "shadow").write_text("root:secret\n")
    (made / "shadow").chmod(0o600)
    return made


def copy(source: Path, target: Path) -> None:
    source_fd, target_fd = (os.open(path, os.O_RDONLY | os.O_DIRECTORY) for path in (source, target))
    try:
        TreeCopier(source_fd, target_fd).run()
    finally:
        os.close(source_fd)
        os.close(target_fd)


def swap(volume: Path, name: str, to: Path) -> None:
    """What the other container does in the right moment."""
    os.rename(volume / name, volume / f"{name}.was")
    os.symlink(to, volume / name)


def tree(tmp_path: Path) -> tuple[Path, Path]:
    image, volume = tmp_path / "image", tmp_path / "volume"
    image.mkdir()
    volume.mkdir()
    return image, volume


@pytest.mark.parametrize("moment", ["openat2", "link"])
def test_a_hard_link_of_the_image_does_not_reach_a_file_of_the_host(
    tmp_path: Path, victim: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """The image has `a/shadow` and `b` as one file; before `b` is made, the container that shares the volume replaces
    `a` by a link to the host's directory. With os.link("a/shadow", ...) `b` is the host's file, on the same mount.

    The defence: `TreeCopier._link` in storage/treecopy.py opens the directory with RESOLVE_NO_SYMLINKS.
    """
    image, volume = tree(tmp_path)
    (image / "a").mkdir()
    (image / "a/shadow").write_text("of the image")
    os.link(image / "a/shadow", image / "b")
    raced = _before(monkeypatch, moment, lambda: swap(volume, "a", victim))
    try:
        copy(image, volume)
    except OSError:
        assert moment == "openat2"
    assert raced == [moment]
    assert os.stat(victim / "shadow").st_nlink == 1
    assert not (volume / "b").exists() or (volume / "b").read_text() == "of the image"


def test_the_mode_of_a_special_file_is_not_given_to_a_file_of_the_host(
    tmp_path: Path, victim: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The image has a FIFO of mode 0666; as soon as it is in the volume it is replaced by a link to the host's file.

    The defence: `_set_mode` in storage/treecopy.py opens it with O_NOFOLLOW and looks at what it is. With
    os.chmod(name) the host's file is everyone's to read.
    """
    image, volume = tree(tmp_path)
    os.mkfifo(image / "p")
    (image / "p").chmod(0o666)
    raced = _before(monkeypatch, "chown", lambda: swap(volume, "p", victim / "shadow"))
    copy(image, volume)
    assert raced == ["chown"]
    assert stat.S_IMODE(os.stat(victim / "shadow").st_mode) == 0o600


def _before(monkeypatch: pytest.MonkeyPatch, name: str, attack: Callable[[], None]) -> list[str]:
    """Run `attack` before the first call of the function; the name, once it was called."""
    place: Any = treecopy if name == "openat2" else os
    original, raced = getattr(place, name), list[str]()

    def wrapper(*arguments: Any, **options: Any) -> Any:
        if not raced:
            raced.append(name)
            attack()
        return original(*arguments, **options)

    monkeypatch.setattr(place, name, wrapper)
    return raced


def test_files_and_directories_of_the_image_do_not_go_through_links(tmp_path: Path, victim: Path) -> None:
    """The volume holds links where the image has a directory and a file. The defence: O_NOFOLLOW and O_EXCL there."""
    image, volume = tree(tmp_path)
    (image / "d").mkdir()
    (image / "d/new").write_text("x")
    (volume / "d").symlink_to(victim)
    with pytest.raises(OSError):
        copy(image, volume)
    image, volume = tree(tmp_path / "host")
    (image / "shadow").write_text("x")
    (volume / "shadow").symlink_to(victim / "shadow")
    with pytest.raises(FileExistsError):
        copy(image, volume)
    assert (victim / "shadow").read_text() == "root:secret\n"
    assert not (victim / "new").exists()


def deep(root: Path, depth: int) -> None:
    """As many directories in each other as a container likes; no path to the last one is short enough."""
    root.mkdir()
    fd = os.open(root, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir("d" * 8, dir_fd=fd)
        inner = os.open("d" * 8, os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = inner
    os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=fd))
    os.close(fd)


def test_a_tree_too_deep_for_paths_can_be_counted_and_deleted(tmp_path: Path) -> None:
    """A container's way to keep its disk space for ever, and the next one's: the deleting thread must not die of it.

    The defence: `corten.storage.walking`, which holds one descriptor and goes up by "..". shutil.rmtree ends in a
    RecursionError here, and counting by paths in ENAMETOOLONG.
    """
    deep(tmp_path / "tree", 1500)
    assert count_usage(tmp_path / "tree").inodes == 1502
    trash = Trash(tmp_path / "trash")
    trash.throw(tmp_path / "tree")
    (tmp_path / "next").mkdir()
    trash.throw(tmp_path / "next")
    trash.wait()
    assert list((tmp_path / "trash").iterdir()) == []
