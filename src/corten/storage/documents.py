"""Records of one kind in the metadata database."""

from __future__ import annotations

import sqlite3

from corten.storage.database import Database
from corten.storage.types import Changes, DocumentStore


def put_document(connection: sqlite3.Connection, kind: str, id: str, body: bytes) -> None:
    """Inside a write: store or replace one record."""
    connection.execute(
        "INSERT INTO documents (kind, id, body) VALUES (?, ?, ?)"
        " ON CONFLICT (kind, id) DO UPDATE SET body = excluded.body",
        (kind, id, body),
    )


def delete_document(connection: sqlite3.Connection, kind: str, id: str) -> None:
    """Inside a write: remove one record; one that is not there is no error."""
    connection.execute("DELETE FROM documents WHERE kind = ? AND id = ?", (kind, id))


class Documents:
    """See `storage.types.JointDocuments`. `all` gives records in the order in which they were first put."""

    def __init__(self, database: Database, kind: str) -> None:
        self._database, self._kind = database, kind

    async def put(self, id: str, body: bytes, *, durable: bool = True) -> None:
        kind = self._kind
        await self._database.write(lambda connection: put_document(connection, kind, id, body), durable=durable)

    async def delete(self, id: str, *, durable: bool = True) -> None:
        kind = self._kind
        await self._database.write(lambda connection: delete_document(connection, kind, id), durable=durable)

    async def change(self, changes: Changes, other: DocumentStore, along: Changes) -> None:
        if not (isinstance(other, Documents) and other._database is self._database):
            raise TypeError("the records are not in the same database")
        kinds = ((self._kind, changes), (other._kind, along))

        def work(connection: sqlite3.Connection) -> None:
            for kind, wanted in kinds:
                for id, body in wanted.items():
                    if body is None:
                        delete_document(connection, kind, id)
                    else:
                        put_document(connection, kind, id, body)

        await self._database.write(work)

    def all(self) -> dict[str, bytes]:
        query = "SELECT id, body FROM documents WHERE kind = ? ORDER BY sequence"
        return self._database.read(lambda connection: dict(connection.execute(query, (self._kind,)).fetchall()))
