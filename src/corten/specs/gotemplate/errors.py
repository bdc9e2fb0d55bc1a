"""Errors of templates, worded as Go's."""

from __future__ import annotations


class TemplateError(Exception):
    """The template cannot be parsed."""

    def __init__(self, line: int, message: str) -> None:
        super().__init__(f"template: :{line}: {message}")


class ExecError(Exception):
    """The template does not fit its data; `line` and `column` as Go counts them: from 1 and from 0, in bytes."""

    def __init__(self, line: int, column: int, node: str, message: str) -> None:
        super().__init__(f'template: :{line}:{column}: executing "" at <{node}>: {message}')
        self.reason = message


class FunctionError(Exception):
    """A function refused its arguments; the evaluator adds the place."""


class MissingField(FunctionError):
    """A field or key does not exist."""
