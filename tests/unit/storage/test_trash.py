"""What is thrown away goes, whoever else deletes the same."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from corten.storage import trash
from corten.storage.trash import Trash
from corten.storage.walking import delete_tree


def test_two_that_delete_the_same_tree(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tree = tmp_path / "trash/left"
    (tree / "deep").mkdir(parents=True)
    calls: list[Path] = []

    def outrun(path: Path) -> None:
        """The first try meets a name that another has just taken away."""
        calls.append(path)
        if len(calls) == 1:
            raise FileNotFoundError(2, "No such file or directory", "deep")
        delete_tree(path)

    monkeypatch.setattr(trash, "delete_tree", outrun)
    with caplog.at_level(logging.WARNING):
        Trash(tmp_path / "trash").wait()
    assert calls == [tree, tree]
    assert not tree.exists()
    assert caplog.records == []


def test_one_that_another_has_deleted_is_not_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree = tmp_path / "trash/left"
    tree.mkdir(parents=True)
    calls: list[Path] = []

    def late(path: Path) -> None:
        calls.append(path)
        path.rmdir()
        raise FileNotFoundError(2, "No such file or directory", "left")

    monkeypatch.setattr(trash, "delete_tree", late)
    Trash(tmp_path / "trash").wait()
    assert calls == [tree]
