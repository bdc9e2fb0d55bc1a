"""Every document store keeps the contract."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from corten.storage.database import Database
from corten.storage.documents import Documents
from corten.storage.types import DocumentStore
from corten.testing.storage import MemoryDocuments
from corten.testing.storage_contract import DocumentStoreContract


class TestMemoryDocuments(DocumentStoreContract):
    @pytest.fixture
    def documents(self) -> DocumentStore:
        return MemoryDocuments()


class TestDocuments(DocumentStoreContract):
    @pytest.fixture
    def documents(self, tmp_path: Path) -> Iterator[DocumentStore]:
        database = Database(tmp_path / "meta.db")
        yield Documents(database, "thing")
        database.close()
