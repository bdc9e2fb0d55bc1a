"""The functions of templates: Go's built-in ones and those that Docker adds. Each raises FunctionError."""

from __future__ import annotations

from corten.specs.gotemplate.errors import FunctionError
from corten.specs.gotemplate.formatting import printf, type_name
from corten.specs.gotemplate.values import NIL, GoStruct, NamedKeyMap, Record, show, to_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


def _index(value: Any, *keys: Any) -> Any:
    for key in keys:
        if value is None or value is NIL:
            raise FunctionError("index of untyped nil")
        value = _index_one(value, key)
    return value


def _index_one(value: Any, key: Any) -> Any:
    if isinstance(value, dict) and not isinstance(value, GoStruct):
        if not isinstance(key, str):
            raise FunctionError(f"value has type {type_name(key)}; should be string")
        if isinstance(value, NamedKeyMap):
            raise FunctionError("value has type string; should be nat.Port")
        return value.get(key)
    if isinstance(value, list | str):
        if isinstance(key, bool) or not isinstance(key, int):
            raise FunctionError(f"cannot index slice/array with type {type_name(key)}")
        if not 0 <= key < len(value):
            raise FunctionError(f"index out of range: {key}")
        return value.encode()[key] if isinstance(value, str) else value[key]
    raise FunctionError(f"can't index item of type {type_name(value)}")


def _slice(value: Any, *bounds: int) -> Any:
    if not isinstance(value, list | str):
        raise FunctionError(f"can't slice item of type {type_name(value)}")
    if len(bounds) > 3 or (len(bounds) == 3 and isinstance(value, str)):
        raise FunctionError(f"too many slice indexes: {len(bounds)}")
    data = value.encode() if isinstance(value, str) else value
    low, high = (*bounds, 0, len(data))[0] if bounds else 0, bounds[1] if len(bounds) > 1 else len(data)
    for bound in (low, high):
        if not 0 <= bound <= len(data):
            raise FunctionError(f"index out of range: {bound}")
    if low > high:
        raise FunctionError(f"invalid slice index: {low} > {high}")
    part = data[low:high]
    return part.decode("utf-8", "replace") if isinstance(part, bytes) else part


def _length(value: Any) -> int:
    if isinstance(value, str):
        return len(value.encode("utf-8", "surrogateescape"))
    if isinstance(value, list) or (isinstance(value, dict) and not isinstance(value, GoStruct)):
        return len(value)
    if value is None or value is NIL:
        raise FunctionError("len of nil pointer")
    raise FunctionError(f"len of type {type_name(value)}")


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int):
        return "int"
    if isinstance(value, float):
        return "float"
    if isinstance(value, str):
        return "string"
    if value is None or value is NIL:
        return "nil"
    raise FunctionError("invalid type for comparison")


def _equal(first: Any, *others: Any) -> bool:
    if not others:
        raise FunctionError("missing argument for comparison")
    for other in others:
        kinds = {_kind(first), _kind(other)}
        if len(kinds) > 1:
            if "nil" not in kinds:
                raise FunctionError("incompatible types for comparison")
        elif "nil" in kinds or first == other:
            return True
    return False


def _less(first: Any, second: Any) -> bool:
    kind = _kind(first)
    if kind != _kind(second):
        raise FunctionError("incompatible types for comparison")
    if kind in ("bool", "nil"):
        raise FunctionError("invalid type for comparison")
    return bool(first < second)


def _print(*values: Any) -> str:
    """fmt.Sprint: a space between two operands when neither is a string."""
    text = ""
    for number, value in enumerate(values):
        if number and not isinstance(value, str) and not isinstance(values[number - 1], str):
            text += " "
        text += show(value, top=False)
    return text


def _println(*values: Any) -> str:
    return " ".join(show(value, top=False) for value in values) + "\n"


_HTML = {"\0": "\N{REPLACEMENT CHARACTER}", '"': "&#34;", "'": "&#39;", "&": "&amp;", "<": "&lt;", ">": "&gt;"}
_JS = {"\\": "\\\\", "'": "\\'", '"': '\\"', "<": "\\u003C", ">": "\\u003E", "&": "\\u0026", "=": "\\u003D"}


def _html(*values: Any) -> str:
    return "".join(_HTML.get(character, character) for character in _print(*values))


def _js(*values: Any) -> str:
    return "".join(
        _JS.get(character) or (character if character >= " " else f"\\u{ord(character):04X}")
        for character in _print(*values)
    )


def _urlquery(*values: Any) -> str:
    from urllib.parse import quote_plus  # 4 ms for those who use it

    return quote_plus(_print(*values), errors="surrogateescape")


def _join(values: Any, separator: str) -> str:
    if values is None or values is NIL:
        return ""
    if not isinstance(values, list):
        raise FunctionError(f"wrong type for value; expected []string; got {type_name(values)}")
    return separator.join(show(value) for value in values)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise FunctionError(f"wrong type for value; expected string; got {type_name(value)}")
    return value


def _title(value: Any) -> str:
    text, start = [], True
    for character in _text(value):
        text.append(character.upper() if start else character)
        start = character.isspace()
    return "".join(text)


def _pad(value: Any, before: int, after: int) -> str:
    text = _text(value)
    return " " * before + text + " " * after if text else text


def _truncate(value: Any, length: int) -> str:
    return _text(value)[:length]


def _json(value: Any) -> str:
    # A typed view of JSON prints as the JSON that it is a view of.
    return to_json(value.to_json() if isinstance(value, Record) else getattr(value, "raw", value))


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "eq": _equal,
    "ne": lambda first, second: not _equal(first, second),
    "lt": _less,
    "le": lambda first, second: _less(first, second) or _equal(first, second),
    "gt": lambda first, second: not (_less(first, second) or _equal(first, second)),
    "ge": lambda first, second: not _less(first, second),
    "html": _html,
    "index": _index,
    "join": _join,
    "js": _js,
    "json": _json,
    "len": _length,
    "lower": lambda value: _text(value).lower(),
    "pad": _pad,
    "print": _print,
    "printf": printf,
    "println": _println,
    "slice": _slice,
    "split": lambda value, separator: _text(value).split(separator) if separator else list(_text(value)),
    "title": _title,
    "truncate": _truncate,
    "upper": lambda value: _text(value).upper(),
    "urlquery": _urlquery,
}

# These look at their arguments one by one, so the evaluator handles them.
LAZY = frozenset(("and", "or", "not", "call"))

# A header is text already: what changes values leaves it alone, as Docker's table headers do.
HEADER_FUNCTIONS: dict[str, Callable[..., Any]] = {
    **FUNCTIONS,
    "json": lambda value: value,
    "lower": lambda value: value,
    "pad": _pad,
    "title": lambda value: value,
    "truncate": lambda value, _length: value,
    "upper": lambda value: value,
    "join": lambda value, _separator: value,
    "split": lambda value, _separator: value,
}
