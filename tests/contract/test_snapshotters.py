"""Every snapshotter keeps the contract, and finds its way after a crash."""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from corten.errors import DataCorrupt
from corten.storage.copying import CopySnapshotter
from corten.storage.database import Database
from corten.storage.overlay import OverlaySnapshotter
from corten.storage.snapshots import SnapshotterBase
from corten.storage.types import MountPlan, Snapshotter
from corten.testing.storage_contract import SnapshotterContract


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    opened = Database(tmp_path / "meta.db")
    yield opened
    opened.close()


class OnDisk(SnapshotterContract):
    kind: type[SnapshotterBase]

    @pytest.fixture
    def snapshotter(self, tmp_path: Path, database: Database) -> Iterator[Snapshotter]:
        made = self.kind(tmp_path / "s", database)
        yield made
        made.settle()

    @pytest.fixture
    def reopen(self, tmp_path: Path, database: Database) -> Callable[[], Snapshotter]:
        return lambda: self.kind(tmp_path / "s", database)


class TestOverlay(OnDisk):
    kind = OverlaySnapshotter


class TestCopy(OnDisk):
    kind = CopySnapshotter


@pytest.fixture
def overlay(tmp_path: Path, database: Database) -> OverlaySnapshotter:
    return OverlaySnapshotter(tmp_path / "s", database)


def ids(snapshotter: SnapshotterBase) -> list[str]:
    return sorted(name for name in os.listdir(snapshotter.root) if name != "trash")


def test_plans_of_overlay(overlay: OverlaySnapshotter) -> None:
    (alone,) = overlay.prepare("unpack")
    files = str(overlay.layer_dir("unpack"))
    assert alone == MountPlan("bind", files, ("rbind", "rw"))
    overlay.commit("base", "unpack")
    assert overlay.view("one", "base") == (MountPlan("bind", files, ("rbind", "ro")),)
    (plan,) = overlay.prepare("c", "base")
    own = overlay.layer_dir("c")
    assert (plan.type, plan.source) == ("overlay", "overlay")
    assert plan.options[:3] == (f"lowerdir={files}", f"upperdir={own}", f"workdir={own.parent / 'work'}")
    assert {"index=off", "metacopy=off", "xino=off"} < set(plan.options)


def test_lower_directories_are_listed_topmost_first(overlay: OverlaySnapshotter) -> None:
    below = ""
    for name in ("base", "middle", "top"):
        overlay.prepare("unpack", below)
        overlay.commit(name, "unpack")
        below = name
    (plan,) = overlay.view("v", "top")
    layers = [str(overlay.layer_dir(name)) for name in ("top", "middle", "base")]
    assert plan.options[0] == "lowerdir=" + ":".join(layers)


def test_a_directory_without_a_row_goes_at_start(overlay: OverlaySnapshotter, database: Database) -> None:
    overlay.prepare("kept")
    (overlay.root / "4711" / "fs").mkdir(parents=True)
    (overlay.root / "4712.0.abcdef").mkdir()
    again = OverlaySnapshotter(overlay.root, database)
    again.settle()
    assert ids(again) == [again.layer_dir("kept").parent.name]
    assert os.listdir(again.root / "trash") == []


def test_a_row_without_a_directory_goes_at_start(
    overlay: OverlaySnapshotter, database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    overlay.prepare("lost")
    overlay.layer_dir("lost").parent.rename(overlay.root / "trash" / "x")
    with caplog.at_level(logging.WARNING):
        again = OverlaySnapshotter(overlay.root, database)
    assert list(again.walk()) == []
    assert "lost" in caplog.text
    again.prepare("lost")
    assert [info.key for info in OverlaySnapshotter(overlay.root, database).walk()] == ["lost"]


def test_a_lost_layer_is_reported_where_it_is_needed(overlay: OverlaySnapshotter, database: Database) -> None:
    overlay.prepare("unpack")
    overlay.commit("base", "unpack")
    overlay.prepare("container", "base")
    overlay.layer_dir("base").parent.rename(overlay.root / "trash" / "x")
    again = OverlaySnapshotter(overlay.root, database)
    assert {info.key for info in again.walk()} == {"base", "container"}
    with pytest.raises(DataCorrupt, match="missing"):
        again.prepare("another", "base")
    assert "another" not in {info.key for info in again.walk()}


def test_removed_files_are_gone_from_the_disk(overlay: OverlaySnapshotter) -> None:
    overlay.prepare("a")
    deep = overlay.layer_dir("a") / "b" / "c"
    deep.mkdir(parents=True)
    (deep / "link").symlink_to("/")
    overlay.remove("a")
    overlay.settle()
    assert ids(overlay) == []
    assert os.listdir(overlay.root / "trash") == []
    assert os.listdir("/") != []


def test_two_drivers_share_a_database(tmp_path: Path, database: Database) -> None:
    overlay = OverlaySnapshotter(tmp_path / "o", database)
    copy = CopySnapshotter(tmp_path / "c", database)
    overlay.prepare("k")
    copy.prepare("k2")
    assert [info.key for info in OverlaySnapshotter(tmp_path / "o", database).walk()] == ["k"]
    assert [info.key for info in CopySnapshotter(tmp_path / "c", database).walk()] == ["k2"]


def test_a_copy_has_the_files_of_its_parent(tmp_path: Path, database: Database) -> None:
    copy = CopySnapshotter(tmp_path / "c", database)
    copy.prepare("unpack")
    (copy.layer_dir("unpack") / "f").write_text("base")
    copy.commit("base", "unpack")
    copy.prepare("c", "base")
    (copy.layer_dir("c") / "f").write_text("changed")
    assert (copy.layer_dir("base") / "f").read_text() == "base"
    (view,) = copy.view("v", "base")
    assert view == MountPlan("bind", str(copy.layer_dir("base")), ("rbind", "ro"))


def test_after_close_the_next_start_deletes(overlay: OverlaySnapshotter, database: Database) -> None:
    overlay.prepare("a")
    overlay.close()
    overlay.remove("a")
    overlay.settle()
    assert len(os.listdir(overlay.root / "trash")) == 1
    again = OverlaySnapshotter(overlay.root, database)
    again.settle()
    assert os.listdir(again.root / "trash") == []


def test_what_cannot_be_moved_away_is_deleted_in_its_place(
    tmp_path: Path, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a full disk, where a rename may need a block: removing is what makes room."""
    snapshotter = OverlaySnapshotter(tmp_path / "s", database)
    snapshotter.prepare("a")
    (snapshotter.layer_dir("a") / "file").write_bytes(b"x")

    def refuse(path: Path, target: Path) -> None:
        raise OSError(errno.ENOSPC, "no")

    monkeypatch.setattr(Path, "rename", refuse)
    snapshotter.remove("a")
    snapshotter.settle()
    assert os.listdir(tmp_path / "s") == ["trash"]
    (tmp_path / "s/99/fs").mkdir(parents=True)
    OverlaySnapshotter(tmp_path / "s", database).settle()
    assert os.listdir(tmp_path / "s") == ["trash"]
