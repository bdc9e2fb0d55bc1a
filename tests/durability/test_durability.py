"""Every operation on images is stopped at the calls by which it changes the disk, and started again.

After each cut, on what is left: the stores open; every image listed has its blobs and layers, with the bytes that they
should have, and is there whole or not at all; what had answered is there; after the clean-up nothing is left that
belongs to nobody; and the operation, done again, succeeds. The ordinary run takes a sample: each kind of call in some
way. `CORTEN_TEST_EVERY=1` takes every call in every way (about an hour).
"""

from __future__ import annotations

import os

import pytest

from tests.durability.conftest import RemoteLab
from tests.durability.operations import OPERATIONS

EVERY = bool(os.environ.get("CORTEN_TEST_EVERY"))
SAMPLE = 10  # cuts of each operation

pytestmark = [pytest.mark.root, pytest.mark.slow]


@pytest.mark.parametrize("operation", list(OPERATIONS))
def test_stopped_at_a_write(lab: RemoteLab, operation: str) -> None:
    report = lab.ask(operation=operation, every=EVERY, limit=SAMPLE)
    assert not report["problems"], "\n".join(report["problems"])
    # Threads take turns in more than one way, so that the last of several like calls may not come this time.
    assert len(report["missed"]) <= report["cuts"] // 2, report["missed"]


@pytest.mark.parametrize("operation", ["load", "commit", "rmi"])
def test_what_has_failed_stays_failed(lab: RemoteLab, operation: str) -> None:
    """A transaction was in SQLite's log whole when its sync failed, and was there after the next start: an image
    without its blobs, which had been taken back.
    """
    report = lab.ask(operation=operation, every=True, ways=["eio"], only="fdatasync corten.db-wal")
    assert report["cuts"] > 0
    assert not report["problems"], "\n".join(report["problems"])


def test_a_full_disk_does_not_kill_the_process(lab: RemoteLab) -> None:
    """The index of SQLite's log had holes, and writing to them raised SIGBUS."""
    report = lab.ask(operation="rmi", every=True, ways=["full"], only="corten.db-wal")
    assert report["cuts"] > 0
    assert not report["problems"], "\n".join(report["problems"])


def test_a_layer_put_back_is_never_empty(lab: RemoteLab) -> None:
    """A lost layer got an empty directory before its files were swapped in: a crash between the two left that."""
    report = lab.ask(operation="pull-damaged", every=True, ways=["kill", "journal"], only="rename snapshots/#/fs")
    assert report["cuts"] == 2
    assert not report["problems"], "\n".join(report["problems"])
