"""The database groups commits, keeps failures apart, and never resets a file it cannot read."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from corten.errors import DataCorrupt, SystemFault
from corten.storage.database import MIGRATIONS, Database
from corten.storage.documents import Documents, put_document


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    opened = Database(tmp_path / "meta.db")
    yield opened
    opened.close()


def test_one_failing_write_leaves_its_group_alone(database: Database) -> None:
    gate = threading.Event()

    def wait(_: sqlite3.Connection) -> None:
        gate.wait(10)

    def half(connection: sqlite3.Connection) -> None:
        put_document(connection, "k", "half", b"")
        raise LookupError("no")

    async def script() -> tuple[object, object, object]:
        blocker = asyncio.gather(database.write(wait))
        await asyncio.sleep(0)
        rest = asyncio.gather(
            database.write(lambda c: put_document(c, "k", "first", b"")),
            database.write(half),
            database.write(lambda c: put_document(c, "k", "last", b"")),
            return_exceptions=True,
        )
        gate.set()
        await blocker
        return await rest

    first, failed, last = asyncio.run(script())
    assert (first, last) == (None, None)
    assert isinstance(failed, LookupError)
    assert list(Documents(database, "k").all()) == ["first", "last"]


def test_constraint_errors_reach_their_author(database: Database) -> None:
    def twice(connection: sqlite3.Connection) -> None:
        for _ in range(2):
            connection.execute("INSERT INTO documents (kind, id, body) VALUES ('k', 'x', x'')")

    with pytest.raises(sqlite3.IntegrityError):
        database.write_blocking(twice)
    assert Documents(database, "k").all() == {}


def test_a_write_is_seen_by_a_read_at_once(database: Database) -> None:
    documents = Documents(database, "k")
    for number in range(20):
        durable = number % 3 == 0
        database.write_blocking(lambda c, n=number: put_document(c, "k", str(n), b""), durable=durable)  # type: ignore[misc]
        assert len(documents.all()) == number + 1


def test_a_new_process_finds_everything(tmp_path: Path) -> None:
    database = Database(tmp_path / "meta.db")
    database.write_blocking(lambda c: put_document(c, "k", "relaxed", b"1"), durable=False)
    database.close()
    database.close()
    again = Database(tmp_path / "meta.db")
    assert Documents(again, "k").all() == {"relaxed": b"1"}
    again.close()


def test_after_close_nothing_is_taken(database: Database) -> None:
    database.close()
    with pytest.raises(RuntimeError):
        database.write_blocking(lambda c: None)
    with pytest.raises(RuntimeError):
        database.read(lambda c: None)


def test_a_damaged_file_is_reported_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "meta.db"
    path.write_bytes(b"this is no database at all, " * 200)
    before = path.read_bytes()
    with pytest.raises(DataCorrupt, match=r"meta\.db is damaged.*move"):
        Database(path)
    assert path.read_bytes() == before


def test_a_damaged_page_is_found_at_open(tmp_path: Path) -> None:
    path = tmp_path / "meta.db"
    database = Database(path)
    for number in range(200):
        database.write_blocking(lambda c, n=number: put_document(c, "k", str(n), b"x" * 500), durable=False)  # type: ignore[misc]
    database.close()
    data = bytearray(path.read_bytes())
    for page in range(5, len(data) // 4096):
        data[page * 4096 : page * 4096 + 200] = b"\xff" * 200
    path.write_bytes(data)
    with pytest.raises(DataCorrupt, match=r"meta\.db is damaged"):
        Database(path)


def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "meta.db"
    Database(path).close()
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA user_version={len(MIGRATIONS) + 1}")
    connection.close()
    with pytest.raises(SystemFault, match="newer version"):
        Database(path)


def test_durable_writes_run_with_full_synchronisation(database: Database) -> None:
    def mode(connection: sqlite3.Connection) -> int:
        return int(connection.execute("PRAGMA synchronous").fetchone()[0])

    assert database.write_blocking(mode) == 2
    assert database.write_blocking(mode, durable=False) == 1
    assert database.write_blocking(mode) == 2


def test_only_the_owner_reads_it(tmp_path: Path) -> None:
    database = Database(tmp_path / "meta.db")
    database.write_blocking(lambda c: put_document(c, "k", "x", b""))
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o600}
    database.close()
