"""Rows of lists: fields with headers, and their three ways out: a table, JSON, a template."""

from __future__ import annotations

import sys

from corten.cli.harmless import harmless
from corten.cli.tabwriter import align

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import Any

    from corten.specs.gotemplate import Template


class Shape:
    """What a row of one kind has. `getters` and `headers` by field name; `columns` of the default table.

    `fault` begins the message for a template that does not fit. A getter takes the row (and, for those
    that a template calls with arguments, the arguments).
    """

    __slots__ = ("columns", "fault", "getters", "headers", "type_name")

    def __init__(
        self,
        type_name: str,
        getters: dict[str, Callable[..., Any]],
        headers: dict[str, str],
        columns: Sequence[str],
        *,
        fault: str = "template parsing error",
    ) -> None:
        self.type_name, self.getters, self.headers, self.columns = type_name, getters, headers, columns
        self.fault = fault


def write(shape: Shape, rows: Iterable[Any], format_: str, *, least: int = 10) -> None:
    """Prints `rows` as `format_` says: "" or "table", "table TEMPLATE", "json", "raw" is not served, a template."""
    sys.stdout.write(render(shape, rows, format_, least=least))


def render(shape: Shape, rows: Iterable[Any], format_: str, *, least: int = 10) -> str:
    """What `write` prints."""
    if format_ in ("", "table"):
        lines = ["\t".join(shape.headers[name] for name in shape.columns)]
        lines += ["\t".join(harmless(str(shape.getters[name](row)), "") for name in shape.columns) for row in rows]
        return align("\n".join(lines), least=least) + "\n"
    from corten.cli.templates import render_template

    return render_template(shape, rows, format_, least=least)


def fields_of(format_: str) -> set[str]:
    """The fields that a format reads; "." when it takes the whole row. A table's own columns do not count."""
    if format_ in ("", "table"):
        return set()
    if format_ == "json":
        return {"."}
    from corten.cli.templates import compile_format

    template: Template = compile_format(format_.removeprefix("table").lstrip())
    return template.fields()
