"""Every document store keeps the contract."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from corten.storage.database import Database
from corten.storage.documents import Documents
from corten.storage.types import JointDocuments
from corten.testing.storage import MemoryDocuments
from corten.testing.storage_contract import DocumentStoreContract


class TestMemoryDocuments(DocumentStoreContract):
    @pytest.fixture
    def documents(self) -> JointDocuments:
        return MemoryDocuments()

    @pytest.fixture
    def others(self) -> JointDocuments:
        return MemoryDocuments()


class TestDocuments(DocumentStoreContract):
    @pytest.fixture
    def database(self, tmp_path: Path) -> Iterator[Database]:
        database = Database(tmp_path / "meta.db")
        yield database
        database.close()

    @pytest.fixture
    def documents(self, database: Database) -> JointDocuments:
        return Documents(database, "thing")

    @pytest.fixture
    def others(self, database: Database) -> JointDocuments:
        return Documents(database, "other")

    def test_a_joint_change_that_fails_changes_nothing(self, documents: JointDocuments, others: JointDocuments) -> None:
        async def script() -> None:
            await documents.put("a", b"1")
            with pytest.raises(sqlite3.IntegrityError):
                await documents.change({"a": None, "b": b"2"}, others, {"c": None, None: b"no id"})  # type: ignore[dict-item]
            assert (documents.all(), others.all()) == ({"a": b"1"}, {})

        asyncio.run(script())
