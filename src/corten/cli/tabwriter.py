"""Columns as Go's text/tabwriter aligns them: a column is as wide as its widest cell in consecutive lines that have it.

A cell ends with a tab; what follows the last tab of a line belongs to no column and is not padded.
"""

from __future__ import annotations

from corten.cli.harmless import harmless


def align(text: str, *, least: int = 10, padding: int = 3) -> str:
    """`text` with its tabs replaced by spaces. `least` is the smallest width of a column, padding included."""
    rows = [line.split("\t") for line in harmless(text).split("\n")]
    widths: list[list[int]] = [[0] * (len(row) - 1) for row in rows]
    _measure(rows, widths, 0, 0, len(rows), least, padding)
    lines = []
    for row, row_widths in zip(rows, widths, strict=True):
        cells = [cell + " " * (width - len(cell)) for cell, width in zip(row, row_widths, strict=False)]
        lines.append("".join(cells) + row[-1])
    return "\n".join(lines)


def _measure(
    rows: list[list[str]], widths: list[list[int]], column: int, start: int, stop: int, least: int, padding: int
) -> None:
    """Sets the widths of `column` and of those to its right, for each run of lines within start…stop that has it."""
    at = start
    while at < stop:
        if len(widths[at]) <= column:
            at += 1
            continue
        end = at
        width = least
        empty = True
        while end < stop and len(widths[end]) > column:
            cell = len(rows[end][column])
            width = max(width, cell + padding)
            empty = empty and not cell
            end += 1
        for line in range(at, end):
            widths[line][column] = width
        _measure(rows, widths, column + 1, at, end, least, padding)
        at = end
