"""`printf`: Go's verbs over the values of a template."""

from __future__ import annotations

import re

from corten.specs.gotemplate.literals import quote
from corten.specs.gotemplate.values import NIL, GoStruct, show, show_float

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_VERB = re.compile(r"%([-+# 0]*)(\*|\d+)?(?:\.(\*|\d*))?(\[\d+\])?(.)", re.DOTALL)


class _Arguments:
    def __init__(self, values: tuple[Any, ...]) -> None:
        self.values, self.used = values, 0

    def take(self) -> Any:
        value = self.values[self.used]
        self.used += 1
        return value

    @property
    def left(self) -> int:
        return len(self.values) - self.used


def printf(pattern: str, *values: Any) -> str:
    """As fmt.Sprintf, its complaints about wrong verbs and missing arguments included."""
    arguments = _Arguments(values)
    text = _VERB.sub(lambda match: _one(match, arguments), pattern)
    if arguments.left:
        extra = ", ".join(f"{type_name(value)}={show(value)}" for value in values[arguments.used :])
        text += f"%!(EXTRA {extra})"
    return text


def _one(match: re.Match[str], arguments: _Arguments) -> str:
    marks, width, precision, _, verb = match.groups()
    if verb == "%":
        return "%"
    if width == "*" and arguments.left:
        width = str(arguments.take())
    if precision == "*" and arguments.left:
        precision = str(arguments.take())
    if not arguments.left:
        return f"%!{verb}(MISSING)"
    text = _render(verb, marks, precision, arguments.take())
    return _pad(text, marks, int(width or 0), verb)


def _render(verb: str, marks: str, precision: str | None, value: Any) -> str:
    number = isinstance(value, int) and not isinstance(value, bool)
    digits = None if precision is None else int(precision or 0)
    if verb == "v":
        return _detailed(value) if "#" in marks else show(value, top=False)
    if verb in "sq" and (isinstance(value, str | list | dict) or value is None):
        text = show(value, top=False)
        text = text if digits is None else text[:digits]
        return quote(text) if verb == "q" else text
    if verb == "d" and number:
        return f"{value:+d}" if "+" in marks else str(value)
    if verb in "xXob" and number:
        return format(value, ("#" if "#" in marks else "") + verb)
    if verb in "xX" and isinstance(value, str):
        text = value.encode("utf-8", "surrogateescape").hex()
        return text.upper() if verb == "X" else text
    if verb == "c" and number:
        return chr(value)
    if verb == "U" and number:
        return f"U+{value:04X}"
    if verb == "t" and isinstance(value, bool):
        return show(value)
    if verb in "eEfFgG" and isinstance(value, float):
        return _float(verb, value, digits, "+" if "+" in marks else "")
    if verb == "T":
        return type_name(value)
    return f"%!{verb}({type_name(value)}={show(value, top=False)})"


def _float(verb: str, value: float, digits: int | None, sign: str) -> str:
    if verb in "gG" and digits is None:
        return show_float(value)
    return format(value, f"{sign}.{6 if digits is None else digits}{verb}")


def _pad(text: str, marks: str, width: int, verb: str) -> str:
    if "-" in marks:
        return text.ljust(width)
    if "0" in marks and verb not in "sqv":
        sign = text[:1] if text[:1] in "+-" else ""
        return sign + text[len(sign) :].rjust(width - len(sign), "0")
    return text.rjust(width)


def _detailed(value: Any) -> str:
    return quote(value) if isinstance(value, str) else show(value, top=False)


def type_name(value: Any) -> str:
    """Go's name for the type of a value."""
    if isinstance(value, bool):
        return "bool"
    if value is None or value is NIL:
        return "<nil>"
    names = {str: "string", int: "int", float: "float64", list: "[]interface {}"}
    if isinstance(value, GoStruct):
        return GoStruct.type_name
    return names.get(type(value), "map[string]interface {}")
