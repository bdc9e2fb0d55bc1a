"""The writing half: cutting, encoding, rotation, repair."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest

from corten.logs import jsonfile, local, stamps
from corten.logs.jsonfile import JsonFile
from corten.logs.lines import LIMIT, LineCutter
from corten.logs.writer import LogWriter

T = 1_700_000_000_123_456_700


def records(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def go_text(data: bytes) -> str:
    """What Go's decoder would hold: one U+FFFD for each byte that is not UTF-8."""
    return "".join("\ufffd" if "\udc80" <= c <= "\udcff" else c for c in data.decode("utf-8", "surrogateescape"))


def test_a_time_is_written_without_zeros_at_its_end() -> None:
    assert stamps.format_ns(T) == b"2023-11-14T22:13:20.1234567Z"
    assert stamps.format_ns(T // 10**9 * 10**9) == b"2023-11-14T22:13:20Z"
    assert stamps.pad_fraction(b"2023-11-14T22:13:20.12Z") == b"2023-11-14T22:13:20.120000000Z"
    assert stamps.pad_fraction(b"2023-11-14T22:13:20Z") == b"2023-11-14T22:13:20.000000000Z"


def test_lines_are_cut_at_the_last_newline_and_the_rest_waits() -> None:
    cutter = LineCutter()
    assert list(cutter.feed(b"a\nb\nc", 1)) == [(b"a\nb\n", True, 1)]
    assert list(cutter.feed(b"d", 2)) == []
    assert list(cutter.feed(b"\ne", 3)) == [(b"cd\n", True, 3)]
    assert list(cutter.finish(4)) == [(b"e", False, 4)]
    assert list(cutter.finish(5)) == []


def test_a_line_that_is_too_long_is_cut_in_pieces_of_16_kib_with_one_time() -> None:
    cutter = LineCutter()
    long = b"x" * (2 * LIMIT + 5)
    assert list(cutter.feed(b"a\n" + long, 1)) == [
        (b"a\n", True, 1),
        (long[:LIMIT], False, 1),
        (long[:LIMIT], False, 1),
    ]
    assert list(cutter.feed(b"\nnext\n", 2)) == [(b"xxxxx\n", True, 1), (b"next\n", True, 2)]


def test_a_line_of_exactly_16_kib_gives_a_piece_and_an_empty_line() -> None:
    cutter = LineCutter()
    assert list(cutter.feed(b"y" * LIMIT + b"\n", 1)) == [(b"y" * LIMIT, False, 1), (b"\n", True, 1)]


@pytest.mark.parametrize("step", [1, 7, 4096, 100_000])
def test_cutting_loses_and_doubles_nothing(step: int) -> None:
    text = b"".join(b"%d" % n * (n % 9000) + b"\n" for n in range(1, 60)) + b"end"
    cutter = LineCutter()
    pieces = [p for at in range(0, len(text), step) for p in cutter.feed(text[at : at + step], at + 1)]
    pieces += cutter.finish(0)
    assert b"".join(data for data, _, _ in pieces) == text
    assert all(data.endswith(b"\n") is terminated for data, terminated, _ in pieces)


@pytest.mark.parametrize(
    "data",
    [
        b"plain",
        b'quote " back \\ tab \t bell \x07 nul \x00 del \x7f cr \r',
        b'html <a href="x">&amp;</a>',
        "ümlaut € \U0001f600 \u2028 \u2029 \ufffd".encode(),
        b"bad \xff\xfe \xe2\x82 \xed\xa0\x80 \xc0\xaf ? \x01 \xf0\x9f\x98",
        bytes(range(256)),
        b"a\\n\\\\n\\",
        b"",
        b"back\\slash ?\xff \\u0041 <&>",
    ],
)
def test_what_is_encoded_is_decoded(data: bytes) -> None:
    body = data.replace(b"\n", b"")
    lines = jsonfile.encode(body + b"\n" + body + b"\n", True, 1, T).splitlines()
    assert [json.loads(line) for line in lines] == [
        {"log": go_text(body) + "\n", "stream": "stdout", "time": "2023-11-14T22:13:20.1234567Z"}
    ] * 2
    (piece,) = jsonfile.encode(body, False, 2, T).splitlines()
    assert json.loads(piece)["log"] == go_text(body)
    assert json.loads(piece)["stream"] == "stderr"
    assert not set(b"<>&").intersection(piece)


def test_the_bytes_are_dockers() -> None:
    assert jsonfile.encode(b'<a>\t"\xff"\n', True, 1, T) == (
        b'{"log":"\\u003ca\\u003e\\u0009\\"\\ufffd\\"\\n","stream":"stdout","time":"2023-11-14T22:13:20.1234567Z"}\n'
    )


def test_files_rotate_at_their_size_and_the_oldest_goes(tmp_path: Path) -> None:
    path = tmp_path / "x.log"
    line = jsonfile.encode(b"0\n", True, 1, T)
    log = JsonFile(str(path), 3 * len(line), 3)
    for start in range(0, 10, 2):
        log.write(b"%d\n%d\n" % (start, start + 1), True, 1, T)
    log.close()
    texts = {p.name: [r["log"] for r in records(p)] for p in tmp_path.iterdir()}
    assert texts == {"x.log": ["9\n"], "x.log.1": ["6\n", "7\n", "8\n"], "x.log.2": ["3\n", "4\n", "5\n"]}


def test_one_chunk_larger_than_many_files_is_spread_over_them(tmp_path: Path) -> None:
    path = tmp_path / "x.log"
    log = JsonFile(str(path), 1000, 4)
    log.write(b"".join(b"%04d\n" % n for n in range(100)), True, 1, T)
    log.close()
    found = [int(r["log"]) for name in ("x.log.3", "x.log.2", "x.log.1", "x.log") for r in records(tmp_path / name)]
    assert found == list(range(100 - len(found), 100))
    assert all((tmp_path / f"x.log.{n}").stat().st_size < 1200 for n in (1, 2, 3))


def test_a_single_file_starts_over(tmp_path: Path) -> None:
    path = tmp_path / "x.log"
    log = JsonFile(str(path), 150, 1)
    for n in range(9):
        log.write(b"%d\n" % n, True, 1, T)
    log.close()
    assert [p.name for p in tmp_path.iterdir()] == ["x.log"]
    assert records(path)[-1]["log"] == "8\n"


def test_the_next_writer_cuts_off_a_torn_end(tmp_path: Path) -> None:
    path = tmp_path / "x.log"
    whole = jsonfile.encode(b"one\n", True, 1, T)
    path.write_bytes(whole + whole[: len(whole) // 2])
    log = JsonFile(str(path), 0, 1)
    log.write(b"two\n", True, 1, T)
    log.close()
    assert [r["log"] for r in records(path)] == ["one\n", "two\n"]


def test_a_torn_record_of_the_local_driver_is_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "x.log"
    whole = local.encode(b"one\ntwo\n", True, 1, T)
    for cut in range(len(whole)):
        path.write_bytes(whole + whole[:cut])
        local.Local(str(path), 0, 1).close()
        assert path.read_bytes() == whole


def test_a_full_disk_loses_lines_but_never_leaves_half_a_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.log"
    complaints: list[str] = []
    log = LogWriter(lambda: JsonFile(str(path), 0, 1), complaints.append)
    log.write(1, b"one\n")
    room = [10]

    def short_write(fd: int, data: bytes | memoryview) -> int:
        if not room[0]:
            raise OSError(errno.ENOSPC, "No space left on device")
        fits, room[0] = min(len(data), room[0]), 0
        return real_write(fd, bytes(data)[:fits])

    real_write = os.write
    monkeypatch.setattr(os, "write", short_write)
    log.write(1, b"two\n")
    log.write(1, b"three\n")
    monkeypatch.undo()
    log.write(2, b"four\n")
    log.close()
    assert [r["log"] for r in records(path)] == ["one\n", "four\n"]
    assert len(complaints) == 1


def test_what_came_without_newline_is_written_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "x.log"
    log = LogWriter(lambda: JsonFile(str(path), 0, 1), print)
    log.write(1, b"no newline")
    log.write(2, b"err\n")
    log.close()
    assert [(r["log"], r["stream"]) for r in records(path)] == [("err\n", "stderr"), ("no newline", "stdout")]
