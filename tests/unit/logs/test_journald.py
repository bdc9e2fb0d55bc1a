"""The journald driver against a socket that takes what journald takes."""

from __future__ import annotations

import fcntl
import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from corten.logs.journald import F_ADD_SEALS, SEALS, Journald, sanitized
from corten.logs.lines import LIMIT
from tests.waiting import patience

T = 1_700_000_000_123_456_700


@dataclass
class Journal:
    path: str
    socket: socket.socket

    def entry(self) -> dict[str, bytes]:
        data, fds, _, _ = socket.recv_fds(self.socket, 1 << 20, 4)
        if fds:
            assert data == b""
            (fd,) = fds
            assert fcntl.fcntl(fd, fcntl.F_GET_SEALS) == SEALS
            data = os.pread(fd, 1 << 22, 0)
            os.close(fd)
        return parsed(data)


def parsed(data: bytes) -> dict[str, bytes]:
    """As the native protocol has it: NAME=value, or NAME, a 64-bit length and the value."""
    found = {}
    while data:
        line, _, rest = data.partition(b"\n")
        name, separator, value = line.partition(b"=")
        if not separator:
            size = int.from_bytes(rest[:8], "little")
            value, rest = rest[8 : 8 + size], rest[9 + size :]
        assert name.decode() not in found
        found[name.decode()] = value
        data = rest
    return found


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.settimeout(patience(20))
        server.bind(str(tmp_path / "socket"))
        yield Journal(str(tmp_path / "socket"), server)


def opened(journal: Journal, **fields: str) -> Journald:
    log = Journald({"socket": journal.path, "fields": fields})
    log.open()
    return log


def test_a_line_is_an_entry(journal: Journal) -> None:
    log = opened(journal, CONTAINER_NAME="web", COM_EXAMPLE="two\nlines")
    assert log.send(b"out\n\n", True, 1, T) == (b"", None)
    assert log.send(b"err \xff\0", False, 2, T) == (b"", None)
    first, empty, last = (journal.entry() for _ in range(3))
    log.close()
    assert first.pop("CONTAINER_LOG_EPOCH") == last["CONTAINER_LOG_EPOCH"]
    assert first == {
        "MESSAGE": b"out",
        "PRIORITY": b"6",
        "CONTAINER_NAME": b"web",
        "COM_EXAMPLE": b"two\nlines",
        "SYSLOG_TIMESTAMP": b"2023-11-14T22:13:20.1234567Z",
        "CONTAINER_LOG_ORDINAL": b"1",
    }
    assert (empty["MESSAGE"], empty["CONTAINER_LOG_ORDINAL"]) == (b"", b"2")
    assert (last["MESSAGE"], last["PRIORITY"], last["CONTAINER_LOG_ORDINAL"]) == (b"err \xff\0", b"3", b"3")
    assert "CONTAINER_PARTIAL_MESSAGE" not in last


def test_a_long_line_is_marked_as_parts_of_one(journal: Journal) -> None:
    log = opened(journal)
    log.send(b"x" * LIMIT, False, 1, T)
    log.send(b"other\n", True, 2, T)
    log.send(b"y" * LIMIT, False, 1, T)
    log.send(b"end\n", True, 1, T)
    log.send(b"next\n", True, 1, T)
    one, other, two, three, following = (journal.entry() for _ in range(5))
    log.close()
    assert [part.get("CONTAINER_PARTIAL_MESSAGE") for part in (one, two, three)] == [b"true", b"true", None]
    assert [part["CONTAINER_PARTIAL_LAST"] for part in (one, two, three)] == [b"false", b"false", b"true"]
    assert [part["CONTAINER_PARTIAL_ORDINAL"] for part in (one, two, three)] == [b"1", b"2", b"3"]
    assert len({part["CONTAINER_PARTIAL_ID"] for part in (one, two, three)}) == 1
    assert not [name for entry in (other, following) for name in entry if "PARTIAL" in name]


def test_what_is_too_big_for_a_datagram_goes_as_a_sealed_file(journal: Journal) -> None:
    log = opened(journal, BIG="x" * 1_000_000)
    assert log.send(b"small\n", True, 1, T) == (b"", None)
    entry = journal.entry()
    log.close()
    assert (entry["MESSAGE"], len(entry["BIG"])) == (b"small", 1_000_000)


def test_a_host_without_journald(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"^journald is not enabled on this host$"):
        Journald({"socket": str(tmp_path / "none"), "fields": {}}).open()


def test_a_failure_gives_back_what_is_left(journal: Journal) -> None:
    log = opened(journal)
    os.unlink(journal.path)
    rest, error = log.send(b"a\nb\n", True, 1, T)
    log.close()
    assert rest == b"a\nb\n"
    assert isinstance(error, FileNotFoundError)


def test_names_become_those_of_fields() -> None:
    assert sanitized("com.example-Name2") == "COM_EXAMPLE_NAME2"
    assert sanitized("__x") == "X"
    assert sanitized("ü.1") == "1"


def test_seals_are_the_kernels() -> None:
    assert F_ADD_SEALS == fcntl.F_ADD_SEALS
    assert SEALS == fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
