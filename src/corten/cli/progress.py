"""Progress of pull, push and load: a line per layer that is redrawn on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time

from corten.cli.units import human_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any, TextIO

    Message = dict[str, Any]


def show(messages: Iterable[Message], out: TextIO, *, terminal: bool) -> list[Message]:
    """Draws `messages` on `out` as they come; those with `aux` are returned instead."""
    screen = _Screen(out) if terminal else None
    extra = []
    for message in messages:
        if "aux" in message:
            extra.append(message)
            if "status" not in message:
                continue
        if screen is not None:
            screen.draw(message)
        elif "progressDetail" in message and message["progressDetail"] and "stream" not in message:
            continue  # A bar that moves is for terminals.
        else:
            _plain(message, out, end="\n" if "stream" not in message else "")
    out.flush()
    return extra


def _plain(message: Message, out: TextIO, end: str) -> None:
    if "stream" in message:
        out.write(str(message["stream"]))
        return
    identifier = f"{message['id']}: " if message.get("id") else ""
    origin = f"(from {message['from']}) " if message.get("from") else ""
    out.write(f"{identifier}{origin}{message.get('status', '')}{end}")


class _Screen:
    """Lines by id; the cursor moves up to the line of the layer, which is cleared and rewritten, and back."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._lines: dict[str, int] = {}

    def draw(self, message: Message) -> None:
        identifier = message.get("id")
        if not identifier or (message.get("progressDetail") is None and not message.get("progress")):
            # What is no layer's begins a new block: lines above it are left alone from here on.
            self._lines.clear()
            _plain(message, self._out, end="\n")
            self._out.flush()
            return
        line = self._lines.get(str(identifier))
        up = 0
        if line is None:
            self._lines[str(identifier)] = len(self._lines)
            self._out.write("\n")
            up = 1
        else:
            up = len(self._lines) - line
        text = f"{identifier}: {message.get('status', '')} {bar(message)}"
        self._out.write(f"\x1b[{up}A\x1b[2K\r{text}\r\x1b[{up}B")
        self._out.flush()


def bar(message: Message, *, columns: int | None = None, now: float | None = None) -> str:
    """[=====>    ]  1.2MB/3.4MB, as wide as the terminal allows; "" when there is nothing to show."""
    detail = message.get("progressDetail") or {}
    current, total = int(detail.get("current") or 0), int(detail.get("total") or 0)
    if current <= 0 and total <= 0:
        return ""
    if detail.get("units"):
        return f"{current} {detail['units']}" if not total else f"{current}/{total} {detail['units']}"
    if total <= 0:
        return f"{human_size(current):>8}"
    width = _columns() if columns is None else columns
    drawn = ""
    if width > 110:
        filled = min(50, int(current / total * 100) // 2)
        drawn = f"[{'=' * filled}>{' ' * (50 - filled)}] "
    numbers = f"{human_size(current):>8}/{human_size(total)}"
    if current > total:
        numbers = f"{human_size(current):>8}"
    return f"{drawn}{numbers}{_time_left(detail, current, total, now)}"


def _time_left(detail: Message, current: int, total: int, now: float | None) -> str:
    start = int(detail.get("start") or 0)
    if current <= 0 or start <= 0 or current >= total:
        return ""
    elapsed = (time.time() if now is None else now) - start
    seconds = int(elapsed / current * (total - current))
    minutes, rest = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    parts = [f"{hours}h"] * (hours > 0) + [f"{minutes}m"] * (hours > 0 or minutes > 0) + [f"{rest}s"]
    return f" {''.join(parts)}"


def _columns() -> int:
    from corten.cli.terminal import size

    found = size(sys.stdout.fileno())
    return found[1] if found else 200
