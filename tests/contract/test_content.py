"""Every content store keeps the contract; the one on disk also survives what happens to disks."""

from __future__ import annotations

import errno
import hashlib
import os
from pathlib import Path

import pytest

from corten.errors import DataCorrupt, SystemFault
from corten.storage.content import LocalContentStore
from corten.storage.types import ContentStore
from corten.testing.storage import MemoryContentStore
from corten.testing.storage_contract import BLOB, DIGEST, ContentStoreContract


class TestMemoryContentStore(ContentStoreContract):
    @pytest.fixture
    def store(self) -> ContentStore:
        return MemoryContentStore()


class TestLocalContentStore(ContentStoreContract):
    @pytest.fixture
    def store(self, tmp_path: Path) -> ContentStore:
        return LocalContentStore(tmp_path)


def test_a_download_goes_on_after_a_restart(tmp_path: Path) -> None:
    ingest = LocalContentStore(tmp_path).ingest("layer")
    ingest.write(BLOB[:333])
    # No close: the process was killed.
    again = LocalContentStore(tmp_path).ingest("layer")
    assert again.offset == 333
    again.write(BLOB[333:])
    assert again.commit(DIGEST).size == len(BLOB)
    ingest.close()


@pytest.mark.parametrize("size", [0, 5])
def test_a_blob_cut_short_is_found_and_healed(tmp_path: Path, size: int) -> None:
    store = LocalContentStore(tmp_path)
    store.put(BLOB)
    os.truncate(store.path(DIGEST), size)
    assert not store.exists(DIGEST)
    for call in (store.info, store.open, store.read, store.verify):
        with pytest.raises(DataCorrupt, match=DIGEST):
            call(DIGEST)
    store.put(BLOB)
    assert store.read(DIGEST) == BLOB


def test_a_zero_length_blob_is_found_without_its_recorded_size(tmp_path: Path) -> None:
    store = LocalContentStore(tmp_path)
    store.path(DIGEST).touch()
    with pytest.raises(DataCorrupt):
        store.info(DIGEST)


def test_an_altered_manifest_is_found_on_read(tmp_path: Path) -> None:
    store = LocalContentStore(tmp_path)
    store.put(BLOB)
    store.path(DIGEST).write_bytes(BLOB[:-1] + b"!")
    with pytest.raises(DataCorrupt, match="altered"):
        store.read(DIGEST)
    with pytest.raises(DataCorrupt):
        store.verify(DIGEST)


def test_the_layout_is_oci(tmp_path: Path) -> None:
    LocalContentStore(tmp_path).put(BLOB)
    assert (tmp_path / "blobs" / "sha256" / hashlib.sha256(BLOB).hexdigest()).read_bytes() == BLOB
    assert (tmp_path / "oci-layout").read_text() == '{"imageLayoutVersion":"1.0.0"}'


def test_a_layout_that_a_power_cut_emptied_is_written_again(tmp_path: Path) -> None:
    LocalContentStore(tmp_path)
    whole = (tmp_path / "oci-layout").read_bytes()
    (tmp_path / "oci-layout").write_bytes(b"")
    LocalContentStore(tmp_path)
    assert (tmp_path / "oci-layout").read_bytes() == whole
    assert list((tmp_path / "ingest").iterdir()) == []


def test_a_failed_write_that_cannot_be_taken_back_never_becomes_a_blob(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = LocalContentStore(tmp_path)
    ingest = store.ingest("x")

    def refuse(fd: int, *_: object) -> int:
        raise OSError(errno.EIO, "no")

    with monkeypatch.context() as patch:
        patch.setattr(os, "ftruncate", refuse)
        patch.setattr(os, "write", refuse)
        with pytest.raises(SystemFault):
            ingest.write(b"half of it is on the disk")
    for again in (lambda: ingest.write(BLOB), lambda: ingest.commit(DIGEST)):
        with pytest.raises(SystemFault, match="it failed before"):
            again()
    ingest.close()
    assert list(store.walk()) == []


def test_an_ingest_that_cannot_be_removed_is_not_taken_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = LocalContentStore(tmp_path)
    ingest = store.ingest("x")
    ingest.write(BLOB)

    def refuse(path: Path, **_: object) -> None:
        raise OSError(errno.EIO, "no")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", refuse)
        ingest.abort()
    again = store.ingest("x")
    assert again.offset == 0
    again.abort()


def test_old_ingests_are_dropped_and_held_ones_kept(tmp_path: Path) -> None:
    store = LocalContentStore(tmp_path)
    held = store.ingest("held")
    store.ingest("old").close()
    assert store.ingests.drop(older_than=float("inf")) == 1
    held.write(BLOB)
    held.commit(DIGEST)


def test_opening_drops_what_was_given_up_long_ago(tmp_path: Path) -> None:
    store = LocalContentStore(tmp_path)
    for ref in ("old", "new"):
        ingest = store.ingest(ref)
        ingest.write(b"x")
        ingest.close()
    old = tmp_path / "ingest" / hashlib.sha256(b"old").hexdigest()
    os.utime(old, (1, 1))
    again = LocalContentStore(tmp_path)
    assert (again.ingest("old").offset, again.ingest("new").offset) == (0, 1)


def test_a_blob_that_was_written_to_is_found_without_reading_every_time(tmp_path: Path) -> None:
    store = LocalContentStore(tmp_path)
    store.put(BLOB)
    path = store.path(DIGEST)
    with path.open("r+b") as out:
        out.write(b"!")
    os.utime(path, ns=(1, 1))
    assert not store.exists(DIGEST)
    with pytest.raises(DataCorrupt, match="altered"):
        store.open(DIGEST)
    store.put(BLOB)
    assert store.exists(DIGEST)


def test_a_copied_store_is_read_once_and_then_trusted(tmp_path: Path) -> None:
    store = LocalContentStore(tmp_path)
    store.put(BLOB)
    path = store.path(DIGEST)
    os.utime(path, ns=(1, 1))
    assert store.exists(DIGEST)
    # Bytes that went bad without a write are for `verify`: the new time is on record, and nothing is read again.
    with path.open("r+b") as out:
        out.write(b"!")
    os.utime(path, ns=(1, 1))
    assert store.exists(DIGEST)
    with pytest.raises(DataCorrupt):
        store.verify(DIGEST)
