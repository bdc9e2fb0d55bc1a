"""Contract suites of the storage interfaces: subclass one, give it the implementation, and pytest runs it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from corten.errors import Conflict, DataCorrupt, InvalidArgument, NotFound, TooLarge
from corten.specs.digest import of as digest_of
from corten.storage.types import ContentStore, DocumentStore, JointDocuments, SnapshotInfo, Snapshotter, Usage

BLOB = b"a blob of some bytes" * 50
DIGEST = digest_of(BLOB)


class ContentStoreContract:
    """Needs a fixture `store` with an empty ContentStore."""

    def test_put_then_read(self, store: ContentStore) -> None:
        info = store.put(BLOB)
        assert (info.digest, info.size) == (DIGEST, len(BLOB))
        assert store.info(DIGEST) == info
        assert store.read(DIGEST) == BLOB
        with store.open(DIGEST) as file:
            assert file.read() == BLOB
        assert store.path(DIGEST).read_bytes() == BLOB

    def test_put_of_what_is_there_is_no_error(self, store: ContentStore) -> None:
        assert store.put(BLOB) == store.put(BLOB)
        assert [info.digest for info in store.walk()] == [DIGEST]

    def test_the_empty_blob_is_a_blob(self, store: ContentStore) -> None:
        digest = store.put(b"").digest
        assert store.exists(digest)
        assert store.read(digest) == b""

    def test_what_is_missing(self, store: ContentStore) -> None:
        assert not store.exists(DIGEST)
        for call in (store.info, store.read, store.open):
            with pytest.raises(NotFound):
                call(DIGEST)
        store.delete(DIGEST)

    def test_digests_that_no_path_may_be_made_of(self, store: ContentStore) -> None:
        for digest in ("", "sha256:", "sha256:../../etc/passwd", "md5:" + "0" * 32, DIGEST.upper(), DIGEST + "\n"):
            with pytest.raises(InvalidArgument):
                store.path(digest)
            with pytest.raises(InvalidArgument):
                store.exists(digest)

    def test_read_has_a_limit(self, store: ContentStore) -> None:
        store.put(BLOB)
        with pytest.raises(TooLarge):
            store.read(DIGEST, limit=len(BLOB) - 1)

    def test_ingest_in_pieces(self, store: ContentStore) -> None:
        ingest = store.ingest("pull:layer")
        ingest.write(BLOB[:10])
        ingest.write(memoryview(BLOB)[10:])
        assert ingest.offset == len(BLOB)
        assert not store.exists(DIGEST)
        assert ingest.commit(DIGEST, len(BLOB)).size == len(BLOB)
        assert store.read(DIGEST) == BLOB

    def test_ingest_goes_on_after_close(self, store: ContentStore) -> None:
        ingest = store.ingest("pull:layer")
        ingest.write(BLOB[:100])
        ingest.close()
        again = store.ingest("pull:layer")
        assert again.offset == 100
        again.write(BLOB[100:])
        again.commit(DIGEST)
        assert store.ingest("pull:layer").offset == 0

    def test_ingest_has_one_holder(self, store: ContentStore) -> None:
        ingest = store.ingest("pull:layer")
        with pytest.raises(Conflict):
            store.ingest("pull:layer")
        store.ingest("pull:other").abort()
        ingest.abort()
        store.ingest("pull:layer").abort()

    def test_wrong_digest_drops_the_ingest(self, store: ContentStore) -> None:
        ingest = store.ingest("pull:layer")
        ingest.write(BLOB + b"!")
        with pytest.raises(DataCorrupt):
            ingest.commit(DIGEST)
        assert not store.exists(DIGEST)
        assert store.ingest("pull:layer").offset == 0

    def test_wrong_size_drops_the_ingest(self, store: ContentStore) -> None:
        ingest = store.ingest("pull:layer")
        ingest.write(BLOB)
        with pytest.raises(DataCorrupt):
            ingest.commit(DIGEST, len(BLOB) + 1)
        assert not store.exists(DIGEST)
        assert store.ingest("pull:layer").offset == 0

    def test_abort_forgets(self, store: ContentStore) -> None:
        ingest = store.ingest("pull:layer")
        ingest.write(BLOB)
        ingest.abort()
        ingest.abort()
        assert store.ingest("pull:layer").offset == 0

    def test_delete(self, store: ContentStore) -> None:
        store.put(BLOB)
        store.put(b"another")
        store.delete(DIGEST)
        assert not store.exists(DIGEST)
        assert [info.size for info in store.walk()] == [7]

    def test_threads_write_at_once(self, store: ContentStore) -> None:
        blobs = [bytes([i]) * 5000 for i in range(8)]
        threads = [threading.Thread(target=store.put, args=(blob,)) for blob in blobs * 2]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(info.digest for info in store.walk()) == sorted(map(digest_of, blobs))


class DocumentStoreContract:
    """Needs the fixtures `documents` and `others`, two kinds of records in the same place, both empty."""

    def test_put_replace_delete(self, documents: DocumentStore) -> None:
        async def script() -> None:
            await documents.put("a", b"1")
            await documents.put("b", b"2", durable=False)
            await documents.put("a", b"3")
            assert documents.all() == {"a": b"3", "b": b"2"}
            await documents.delete("a")
            await documents.delete("a")
            await documents.delete("b", durable=False)
            assert documents.all() == {}

        asyncio.run(script())

    def test_order_is_that_of_creation(self, documents: DocumentStore) -> None:
        async def script() -> None:
            for id in ("z", "a", "m"):
                await documents.put(id, b"")
            await documents.put("z", b"again")
            assert list(documents.all()) == ["z", "a", "m"]

        asyncio.run(script())

    def test_a_joint_change(self, documents: JointDocuments, others: JointDocuments) -> None:
        async def script() -> None:
            await documents.put("a", b"1")
            await others.put("a", b"2")
            await documents.change({"a": None, "b": b"3", "none": None}, others, {"a": b"4"})
            assert (documents.all(), others.all()) == ({"b": b"3"}, {"a": b"4"})

        asyncio.run(script())

    def test_many_at_once(self, documents: DocumentStore) -> None:
        async def script() -> None:
            await asyncio.gather(*(documents.put(str(i), b"x", durable=i % 2 == 0) for i in range(300)))
            assert len(documents.all()) == 300

        asyncio.run(script())


class SnapshotterContract:
    """Needs a fixture `snapshotter` with an empty Snapshotter, and `reopen`, a function that gives a new one over the
    same data, as after a restart.
    """

    def test_prepare_fill_commit(self, snapshotter: Snapshotter) -> None:
        assert len(snapshotter.prepare("work")) == 1
        assert snapshotter.info("work") == SnapshotInfo("work", "", "active", Usage(0, 0))
        (snapshotter.layer_dir("work") / "file").write_text("x")
        assert snapshotter.usage("work").inodes == 2
        snapshotter.commit("layer", "work", Usage(4096, 1))
        assert snapshotter.info("layer") == SnapshotInfo("layer", "", "committed", Usage(4096, 1))
        assert snapshotter.usage("layer") == Usage(4096, 1)
        assert (snapshotter.layer_dir("layer") / "file").read_text() == "x"
        with pytest.raises(NotFound):
            snapshotter.info("work")

    def test_commit_counts_when_nobody_did(self, snapshotter: Snapshotter) -> None:
        snapshotter.prepare("work")
        (snapshotter.layer_dir("work") / "file").write_bytes(b"x" * 5000)
        snapshotter.commit("layer", "work")
        assert snapshotter.usage("layer").inodes == 2
        assert snapshotter.usage("layer").size >= 5000

    def test_children_hold_their_parent(self, snapshotter: Snapshotter) -> None:
        self._layer(snapshotter, "base")
        snapshotter.prepare("child", "base")
        assert snapshotter.info("child").parent == "base"
        with pytest.raises(Conflict):
            snapshotter.remove("base")
        snapshotter.remove("child")
        snapshotter.remove("base")
        assert list(snapshotter.walk()) == []

    def test_names_are_taken_once(self, snapshotter: Snapshotter) -> None:
        self._layer(snapshotter, "base")
        snapshotter.prepare("a", "base")
        snapshotter.prepare("b", "base")
        for key in ("a", "base"):
            with pytest.raises(Conflict):
                snapshotter.prepare(key, "base")
        with pytest.raises(Conflict):
            snapshotter.commit("base", "a")
        with pytest.raises(Conflict):
            snapshotter.commit("a", "b")
        assert sorted(info.key for info in snapshotter.walk()) == ["a", "b", "base"]

    def test_only_a_committed_one_is_a_parent(self, snapshotter: Snapshotter) -> None:
        snapshotter.prepare("active")
        with pytest.raises(Conflict):
            snapshotter.prepare("child", "active")
        with pytest.raises(NotFound):
            snapshotter.prepare("child", "missing")
        with pytest.raises(NotFound):
            snapshotter.info("child")

    def test_only_an_active_one_is_committed(self, snapshotter: Snapshotter) -> None:
        self._layer(snapshotter, "base")
        snapshotter.view("look", "base")
        for key in ("base", "look"):
            with pytest.raises(Conflict):
                snapshotter.commit("other", key)

    def test_what_is_missing(self, snapshotter: Snapshotter) -> None:
        for call in (
            snapshotter.info,
            snapshotter.mounts,
            snapshotter.usage,
            snapshotter.remove,
            snapshotter.layer_dir,
        ):
            with pytest.raises(NotFound):
                call("missing")
        with pytest.raises(NotFound):
            snapshotter.commit("name", "missing")

    def test_mounts_are_the_same_each_time(self, snapshotter: Snapshotter) -> None:
        self._layer(snapshotter, "base")
        self._layer(snapshotter, "top", "base")
        assert snapshotter.prepare("a", "top") == snapshotter.mounts("a")
        assert snapshotter.view("v", "top") == snapshotter.mounts("v")
        with pytest.raises(InvalidArgument):
            snapshotter.mounts("top")

    def test_a_restart_changes_nothing(self, snapshotter: Snapshotter, reopen: Callable[[], Snapshotter]) -> None:
        self._layer(snapshotter, "base")
        self._layer(snapshotter, "top", "base")
        snapshotter.prepare("a", "top")
        before = (sorted(snapshotter.walk(), key=lambda info: info.key), snapshotter.mounts("a"))
        again = reopen()
        assert (sorted(again.walk(), key=lambda info: info.key), again.mounts("a")) == before
        with pytest.raises(Conflict):
            again.remove("top")
        again.remove("a")
        again.remove("top")
        again.prepare("b", "base")

    def test_a_new_snapshot_has_owner_and_mode_of_its_parent(self, snapshotter: Snapshotter) -> None:
        snapshotter.prepare("work")
        snapshotter.layer_dir("work").chmod(0o1777)
        snapshotter.commit("base", "work")
        snapshotter.prepare("a", "base")
        assert snapshotter.layer_dir("a").stat().st_mode & 0o7777 == 0o1777

    def test_a_failed_prepare_leaves_nothing(self, snapshotter: Snapshotter) -> None:
        with pytest.raises(NotFound):
            snapshotter.prepare("a", "missing")
        snapshotter.prepare("a")

    def test_stacking_at_commit(self, snapshotter: Snapshotter) -> None:
        self._layer(snapshotter, "base")
        snapshotter.prepare("upper")
        if not snapshotter.rebases:
            with pytest.raises(InvalidArgument):
                snapshotter.commit("top", "upper", parent="base")
            return
        (snapshotter.layer_dir("upper") / "etc").mkdir(mode=0o755)
        (snapshotter.layer_dir("base") / "etc").mkdir(mode=0o700)
        with pytest.raises(NotFound):
            snapshotter.commit("top", "upper", parent="missing")
        snapshotter.commit("top", "upper", parent="base", implied=["etc", "gone"])
        assert snapshotter.info("top").parent == "base"
        assert (snapshotter.layer_dir("top") / "etc").stat().st_mode & 0o7777 == 0o700
        with pytest.raises(Conflict):
            snapshotter.remove("base")

    def test_threads_prepare_and_remove_at_once(self, snapshotter: Snapshotter) -> None:
        self._layer(snapshotter, "base")

        def work(number: int) -> None:
            for turn in range(5):
                snapshotter.prepare(f"{number}-{turn}", "base")
                snapshotter.remove(f"{number}-{turn}")

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(work, range(8)))
        assert [info.key for info in snapshotter.walk()] == ["base"]
        snapshotter.remove("base")

    def _layer(self, snapshotter: Snapshotter, name: str, parent: str = "") -> None:
        snapshotter.prepare("unpack-" + name, parent)
        (snapshotter.layer_dir("unpack-" + name) / name).write_text(name)
        snapshotter.commit(name, "unpack-" + name)
