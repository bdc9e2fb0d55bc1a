"""Formats of lists and of inspect that are templates; imported only when a user gives one."""

from __future__ import annotations

from corten.cli.errors import CliError
from corten.cli.tabwriter import align
from corten.specs.gotemplate import ExecError, Template, TemplateError, parse
from corten.specs.gotemplate.errors import MissingField
from corten.specs.gotemplate.functions import HEADER_FUNCTIONS
from corten.specs.gotemplate.values import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from corten.cli.records import Shape


def compile_format(source: str) -> Template:
    """A list's format, `\\t` and `\\n` written out in it being meant. Raises CliError."""
    try:
        return parse(source.replace("\\t", "\t").replace("\\n", "\n"))
    except TemplateError as error:
        raise CliError(f"failed to parse template: {error}") from None


def render_template(shape: Shape, rows: Iterable[Any], format_: str, *, least: int) -> str:
    """`format_` applied to each row, a line each. Raises CliError."""
    table = format_.startswith("table ")
    source = "{{json .}}" if format_ == "json" else format_.removeprefix("table ") if table else format_
    template = compile_format(source)
    try:
        lines = [template.execute(_HeaderRow(shape), functions=HEADER_FUNCTIONS)] if table else []
        lines += [template.execute(Record(shape.type_name, shape.getters, row)) for row in rows]
    except ExecError as error:
        raise CliError(f"{shape.fault}: {error}") from None
    text = "".join(line + "\n" for line in lines)
    return align(text, least=least) if table else text


class _HeaderRow(Record):
    """Gives each field's header for its value."""

    __slots__ = ("_shape",)

    def __init__(self, shape: Shape) -> None:
        super().__init__(shape.type_name, shape.getters, None)
        self._shape = shape

    def get(self, name: str, *args: Any) -> Any:
        if name == "Label" and args:
            return str(args[0]).replace(".", " ").replace("-", " ").replace("_", " ").split("/")[-1]
        header = self._shape.headers.get(name)
        if header is None:
            raise MissingField(f"can't evaluate field {name} in type *{self.type_name}")
        return header
