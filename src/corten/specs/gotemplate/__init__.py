"""Go's text/template, as far as users of `--format` write it.

No library on PyPI serves: those that carry Go templates bind to a Go shared library or cover a handful of actions, and
their import costs more than the command. Here: `parse` gives a `Template`, `Template.execute(data)` its text.
Pipelines, variables, if/else/range/with/break/continue, comparison, `index`, `slice`, `printf` and Docker's own
functions are covered; `define`, `template` and `block` are refused, since a one-line format has no use for them.

Data is what JSON gives: str, int, float, bool, None, list, dict; and `values.GoStruct`, `values.Record`, `values.NIL`.
Errors read as Go's: "template: :1:2: executing "" at <.Foo>: …".
"""

from __future__ import annotations

from corten.specs.gotemplate.errors import ExecError, TemplateError
from corten.specs.gotemplate.evaluate import Template, parse

__all__ = ["ExecError", "Template", "TemplateError", "parse"]
