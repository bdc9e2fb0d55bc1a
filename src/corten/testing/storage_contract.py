"""Contract suites of the storage interfaces: subclass one, give it the implementation, and pytest runs it."""

from __future__ import annotations

import asyncio
import threading

import pytest

from corten.errors import Conflict, DataCorrupt, InvalidArgument, NotFound, TooLarge
from corten.storage.types import ContentStore, DocumentStore
from corten.testing.storage import digest_of

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
    """Needs a fixture `documents` with an empty DocumentStore."""

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

    def test_many_at_once(self, documents: DocumentStore) -> None:
        async def script() -> None:
            await asyncio.gather(*(documents.put(str(i), b"x", durable=i % 2 == 0) for i in range(300)))
            assert len(documents.all()) == 300

        asyncio.run(script())
