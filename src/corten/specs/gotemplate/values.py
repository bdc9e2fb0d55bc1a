"""Values that Go has and JSON has not, and how Go prints any of them."""

from __future__ import annotations

import json

from corten.specs.gotemplate.errors import MissingField

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


class _Nil:
    """A nil pointer: prints as <nil>, is false, has no fields. An absent value (None) prints as <no value>."""

    __slots__ = ()

    def __bool__(self) -> bool:
        return False


NIL = _Nil()


class GoStruct(dict[str, "Any"]):
    """An object of fixed fields in their order: it prints as {a b}, where a map prints as map[k:v]."""

    type_name = "struct"
    raw: Any


class NamedKeyMap(dict[str, "Any"]):
    """A map whose key has a type of its own (nat.Port): Go's `index` refuses a plain string for it."""


class Record:
    """Something with methods: the rows of a list. `getters` gives the value of each field name.

    A getter takes the record and the template's arguments.
    """

    __slots__ = ("getters", "item", "type_name")

    def __init__(self, type_name: str, getters: dict[str, Callable[..., Any]], item: Any) -> None:
        self.type_name, self.getters, self.item = type_name, getters, item

    def get(self, name: str, *args: Any) -> Any:
        getter = self.getters.get(name)
        if getter is None:
            raise MissingField(f"can't evaluate field {name} in type *{self.type_name}")
        return getter(self.item, *args)

    def to_json(self) -> dict[str, Any]:
        """All fields that take no argument, sorted by name as Go sorts a map."""
        return {
            name: getter(self.item)
            for name, getter in sorted(self.getters.items())
            if getter.__code__.co_argcount == 1 and name != "Label"
        }


def truth(value: Any) -> bool:
    """As Go's templates see it: zero, empty and nil are false; a struct and a record are always true."""
    return True if isinstance(value, GoStruct | Record) else bool(value)


def show(value: Any, *, top: bool = True) -> str:
    """`value` as `fmt.Print` would print it."""
    if isinstance(value, str):
        return value
    if value is None:
        return "<no value>" if top else "<nil>"
    if value is NIL:
        return "<nil>"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return show_float(value)
    if isinstance(value, list):
        return "[" + " ".join(show(item, top=False) for item in value) + "]"
    if isinstance(value, GoStruct):
        return "{" + " ".join(show(item, top=False) for item in value.values()) + "}"
    if isinstance(value, dict):
        return "map[" + " ".join(f"{key}:{show(value[key], top=False)}" for key in sorted(value)) + "]"
    if isinstance(value, Record):
        return show(value.item, top=False)
    return str(value)


def show_float(value: float) -> str:
    """%v of a float64: the shortest digits, an exponent below 1e-4 and from 1e21."""
    if value != value or value in (float("inf"), float("-inf")):
        return {"nan": "NaN", "inf": "+Inf", "-inf": "-Inf"}[str(value)]
    if value == 0 or 1e-4 <= abs(value) < 1e21:
        text = format(value, "f") if abs(value) >= 1e16 else repr(value)
        return text.rstrip("0").rstrip(".") if "." in text and "e" not in text else text
    mantissa, _, exponent = repr(value).partition("e")
    sign = "-" if exponent.startswith("-") else "+"
    return f"{mantissa.removesuffix('.0')}e{sign}{int(exponent.lstrip('+-') or 0):02d}"


def to_json(value: Any, *, indent: int | None = None) -> str:
    """As Go's encoding/json with its HTML escapes: compact, non-ASCII left alone, <, > and & escaped."""
    text = json.dumps(
        value,
        ensure_ascii=False,
        separators=(",", ":") if indent is None else (",", ": "),
        indent=indent,
        default=_jsonable,
    )
    return escape_html(text)


def escape_html(text: str) -> str:
    for character in "<>&\u2028\u2029":
        if character in text:
            text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _jsonable(value: Any) -> Any:
    if value is NIL:
        return None
    if isinstance(value, Record):
        return value.to_json()
    raise TypeError(f"{type(value).__name__} has no JSON")
