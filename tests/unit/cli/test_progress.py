"""Progress, on a terminal and off."""

from __future__ import annotations

import io
from typing import Any

import pytest

from corten.cli import progress

PULL: list[dict[str, Any]] = [
    {"status": "Pulling from library/busybox", "id": "latest"},
    {"status": "Pulling fs layer", "progressDetail": {}, "id": "aaa"},
    {"status": "Pulling fs layer", "progressDetail": {}, "id": "bbb"},
    {"status": "Downloading", "progressDetail": {"current": 512, "total": 1024}, "id": "aaa"},
    {"status": "Pull complete", "progressDetail": {}, "id": "aaa"},
    {"status": "Digest: sha256:0"},
    {"status": "Status: Downloaded newer image for busybox:latest"},
]


def drawn(messages: list[dict[str, Any]], *, terminal: bool) -> str:
    out = io.StringIO()
    progress.show(messages, out, terminal=terminal)
    return out.getvalue()


def test_plain_lines_without_bars() -> None:
    assert drawn(PULL, terminal=False) == (
        "latest: Pulling from library/busybox\naaa: Pulling fs layer\nbbb: Pulling fs layer\naaa: Pull complete\n"
        "Digest: sha256:0\nStatus: Downloaded newer image for busybox:latest\n"
    )


def screen(text: str, columns: int = 200) -> list[str]:
    """What a terminal shows after `text`: newline, carriage return, cursor up and down, erase line."""
    lines, row, column, at = [""], 0, 0, 0
    while at < len(text):
        if text[at] == "\x1b":
            end = next(index for index in range(at, len(text)) if text[index].isalpha())
            count, kind = int(text[at + 2 : end] or 1), text[end]
            row = max(0, row - count) if kind == "A" else row + count if kind == "B" else row
            while row >= len(lines):
                lines.append("")
            if kind == "K":
                lines[row] = ""
            at = end + 1
            continue
        if text[at] == "\n":
            row, column = row + 1, 0
            if row == len(lines):
                lines.append("")
        elif text[at] == "\r":
            column = 0
        else:
            lines[row] = lines[row].ljust(column)[:column] + text[at] + lines[row][column + 1 :]
            column += 1
        at += 1
    return [line.rstrip() for line in lines]


def test_a_line_for_each_layer_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "_columns", lambda: 200)
    shown = screen(drawn(PULL, terminal=True))
    assert shown == [
        "latest: Pulling from library/busybox",
        "aaa: Pull complete",
        "bbb: Pulling fs layer",
        "Digest: sha256:0",
        "Status: Downloaded newer image for busybox:latest",
        "",
    ]
    half = screen(drawn(PULL[:4], terminal=True))
    assert half[1] == "aaa: Downloading [=========================>                         ]     512B/1.024kB"


@pytest.mark.parametrize(
    ("detail", "columns", "text"),
    [
        ({}, 200, ""),
        ({"current": 1000}, 200, "      1kB"),
        ({"current": 1000, "total": 1000}, 200, " [==================================================>]      1kB/1kB"),
        ({"current": 1000, "total": 4000}, 80, "      1kB/4kB"),
        ({"current": 5000, "total": 4000}, 80, "      5kB"),
        ({"current": 3, "total": 4, "units": "files"}, 80, " 3/4 files"),
        ({"current": 10, "total": 40, "start": 100}, 80, "      10B/40B 30s"),
        ({"current": 1, "total": 1000, "start": 100}, 80, "       1B/1kB 2h46m30s"),
    ],
)
def test_bars(detail: dict[str, Any], columns: int, text: str) -> None:
    assert progress.bar({"progressDetail": detail}, columns=columns, now=110) == text.removeprefix(" ")


def test_load_streams_are_text() -> None:
    assert drawn([{"stream": "Loaded image: busybox:latest\n"}], terminal=False) == "Loaded image: busybox:latest\n"
