"""Structures for programs that must start at once: what msgspec and dataclasses give, without 20 to 35 ms of imports.

`corten-runtime` is started anew for each of its commands. It reads a specification and executes it in less time than
the import of a library takes; so its structures are made here, from the same class bodies that mypy sees as
dataclasses. Imports nothing but the interpreter's built-in modules.

    class Point(Structure):
        x: int
        y: int = 0
        names: list[str] = field(default_factory=list)

Fields are read from the annotations, which are strings (`from __future__ import annotations`). `decode` knows int, str,
bool, float, structures of the same module, `list[...]`, `dict[str, ...]` and `... | None`.
"""

from __future__ import annotations

import _json
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TypeVar
    from typing import dataclass_transform as dataclass_transform

    T = TypeVar("T")
    S = TypeVar("S", bound="Plain")
else:

    def dataclass_transform(**options):
        return lambda it: it


class Invalid(Exception):
    """A document does not fit its structure. `path` names the member ("process.user.uid", "" for the whole)."""

    def __init__(self, path: str, problem: str) -> None:
        super().__init__(f"{path}: {problem}" if path else problem)
        self.path, self.problem = path, problem


class _Missing:
    """The default of a field that must be given."""


_MISSING = _Missing()
_PATIENCE = 50  # how often a class is used before its functions are compiled: a tenth of a millisecond, well spent then


class Field:
    """What `field` gives: one of a default and its factory, and a key other than the structure's rule makes."""

    __slots__ = ("factory", "key", "value")

    def __init__(self, value: Any = _MISSING, factory: Callable[[], Any] | None = None, key: str = "") -> None:
        self.value, self.factory, self.key = value, factory, key

    def make(self) -> Any:
        return self.value if self.factory is None else self.factory()

    def omits(self, value: Any) -> bool:
        """Whether a document can do without it: it has its default, or is empty as an empty list by default.

        The value of another factory is never left out.
        """
        if self.factory is None:
            return value is self.value or (type(value) is type(self.value) and value == self.value)
        return self.factory in (list, dict) and not value


if TYPE_CHECKING:

    def field(*, default: Any = ..., default_factory: Callable[[], T] | None = None, name: str = "") -> T: ...
else:

    def field(*, default=_MISSING, default_factory=None, name=""):
        return Field(default, default_factory, name)


def _same(name: str) -> str:
    return name


def _slow_init(self: Plain, *values: Any, **named: Any) -> None:
    """Takes the fields' values; after a while it puts a faster one of its class into its place."""
    cls = type(self)
    cls.uses += 1
    if cls.uses > _PATIENCE:
        type.__setattr__(cls, "__init__", _compile_init(cls))
    put = object.__setattr__
    if values:
        if cls._kw_only or len(values) > len(cls.fields):
            raise TypeError(f"{cls.__name__} takes fewer positional arguments")
        for name, value in zip(cls.fields, values, strict=False):
            if name in named:
                raise TypeError(f"{cls.__name__} got {name} twice")
            named[name] = value
    for name, default in cls.fields.items():
        if name in named:
            put(self, name, named.pop(name))
        elif default.factory is not None:
            put(self, name, default.factory())
        elif default.value is _MISSING:
            raise TypeError(f"{cls.__name__} needs {name}")
        else:
            put(self, name, default.value)
    if named:
        raise TypeError(f"{cls.__name__} has no {next(iter(named))}")


def _compile_init(cls: type[Plain]) -> Any:
    words, lines, space = [], [], {"missing": _MISSING, "put": object.__setattr__}
    for name, default in cls.fields.items():
        value = name
        if default.factory is not None:
            space[f"make_{name}"] = default.factory
            value = f"make_{name}() if {name} is missing else {name}"
        elif default.value is not _MISSING:
            space[f"default_{name}"] = default.value
        plain = default.factory is None and default.value is _MISSING
        words.append(name if plain else f"{name}=missing" if default.factory else f"{name}=default_{name}")
        lines.append(f'put(self, "{name}", {value})' if cls.frozen else f"self.{name} = {value}")
    star = "*, " if cls._kw_only and words else ""
    return _function("__init__", f"self, {star}{', '.join(words)}", lines, space)


def _compile_document(cls: type[Plain]) -> Any:
    """`to_builtins` for one class."""
    lines, space = ["made = {}"], {"plain": _PLAIN, "convert": to_builtins}
    for name, default in cls.fields.items():
        space[f"omits_{name}"] = default.omits
        lines.append(f"value = self.{name}")
        if default.factory is None and (default.value is None or default.value == ""):
            test = "if value is not None: " if default.value is None else 'if value != "": '
        elif default.factory in (list, dict):
            test = "if value: "
        else:
            test = f"if not omits_{name}(value): "
        lines.append(f"{test}made[{cls.keys[name]!r}] = value if type(value) in plain else convert(value)")
    return _function("document", "self", [*lines, "return made"], space)


def _function(name: str, parameters: str, lines: list[str], space: dict[str, Any]) -> Any:
    """A function out of names that Python has checked already, as they are those of a class's attributes."""
    body = "\n".join(f"    {line}" for line in lines or ["pass"])
    exec(f"def {name}({parameters}):\n{body}", space)
    return space[name]


def _refuse_change(self: Plain, name: str, value: Any) -> None:
    raise AttributeError(f"{type(self).__name__} is not to be changed")


def _hash(self: Plain) -> int:
    return hash((type(self), *values_of(self)))


class Meta(type):
    """Makes the slots, and lets the class be called with its fields."""

    fields: dict[str, Field]
    keys: dict[str, str]
    frozen: bool
    readers: dict[str, tuple[str, Callable[[Any, str], Any]]] | None
    document: Callable[[Any], dict[str, Any]] | None
    uses: int

    def __new__(
        meta,
        name: str,
        bases: tuple[type, ...],
        namespace: dict[str, Any],
        rename: Callable[[str], str] | None = None,
        frozen: bool | None = None,
        kw_only: bool | None = None,
    ) -> Meta:
        own = [key for key in namespace.get("__annotations__", ()) if not key.startswith("_")]
        fields: dict[str, Field] = {}
        base = bases[0] if bases else None
        if isinstance(base, Meta):
            fields.update(base.fields)
            rename, frozen = rename or base._rename, base.frozen if frozen is None else frozen
            kw_only = base._kw_only if kw_only is None else kw_only
        for key in own:
            value = namespace.pop(key, _MISSING)
            fields[key] = value if isinstance(value, Field) else Field(value)
        namespace["__slots__"] = tuple(own)
        namespace["__match_args__"] = () if kw_only else tuple(fields)
        namespace["__init__"] = _slow_init
        if frozen:
            namespace |= {"__setattr__": _refuse_change, "__hash__": _hash}
        made = super().__new__(meta, name, bases, namespace)
        made.fields, made.frozen, made.readers, made.document, made.uses = fields, bool(frozen), None, None, 0
        made._rename, made._kw_only = rename or _same, bool(kw_only)
        made.keys = {key: value.key or made._rename(key) for key, value in fields.items()}
        return made

    _rename: Callable[[str], str]
    _kw_only: bool


class Plain(metaclass=Meta):
    """What all structures are. `class Base(Plain, kw_only=True, rename=to_key)` holds for what is below: `rename` makes
    the key in a document of an attribute's name."""

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and all(getattr(self, n) == getattr(other, n) for n in type(self).fields)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{n}={getattr(self, n)!r}' for n in type(self).fields)})"

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore, (type(self), values_of(self))


@dataclass_transform(field_specifiers=(field,))
class Structure(Plain):
    """Base of structures that may be changed."""


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
class Frozen(Plain, frozen=True):
    """Base of structures that can be hashed and not changed."""


def _restore(cls: type[S], values: tuple[Any, ...]) -> S:
    made = cls.__new__(cls)
    for name, value in zip(cls.fields, values, strict=True):
        object.__setattr__(made, name, value)
    return made


def values_of(item: Plain) -> tuple[Any, ...]:
    """The fields' values in their order."""
    return tuple([getattr(item, name) for name in type(item).fields])


def replace(item: S, **changes: Any) -> S:
    """A copy with some fields changed."""
    made = type(item).__new__(type(item))
    put = object.__setattr__
    for name in type(item).fields:
        put(made, name, changes.pop(name) if name in changes else getattr(item, name))
    if changes:
        raise TypeError(f"{type(item).__name__} has no {next(iter(changes))}")
    return made


# -- documents -------------------------------------------------------------------------------------------------------


def to_builtins(value: Any) -> Any:
    """Dictionaries and lists in place of structures, under the documents' keys; what has its default is left out."""
    if isinstance(value, Plain):
        cls = type(value)
        if cls.document is not None:
            return cls.document(value)
        cls.uses += 1
        if cls.uses > _PATIENCE:
            cls.document = _compile_document(cls)
        return {
            cls.keys[name]: to_builtins(member)
            for name, default in cls.fields.items()
            if not default.omits(member := getattr(value, name))
        }
    if isinstance(value, (list, tuple)):
        return [member if type(member) in _PLAIN else to_builtins(member) for member in value]
    if isinstance(value, dict):
        return {key: to_builtins(member) for key, member in value.items()}
    return value


_PLAIN = frozenset((str, int, bool, float, type(None)))


def encode(value: Any) -> bytes:
    """JSON, compact, of structures and of what they are made of."""
    chunks = _encoder(to_builtins(value), 0)
    return "".join(chunks).encode("utf-8", "replace")


def _refuse(value: Any) -> Any:
    raise TypeError(f"{type(value).__name__} is nothing that JSON has")


# As json.JSONEncoder calls it: markers, default, encoder, indent, separators, sort_keys, skipkeys, allow_nan.
_encoder = _json.make_encoder(None, _refuse, _json.encode_basestring, None, ":", ",", False, False, False)


def pretty(value: Any, indent: int, margin: str = "") -> str:
    """JSON to be read by people."""
    deeper = margin + " " * indent
    if isinstance(value, Plain):
        value = to_builtins(value)
    if isinstance(value, dict) and value:
        lines = [f"{deeper}{encode(key).decode()}: {pretty(member, indent, deeper)}" for key, member in value.items()]
        return "{\n" + ",\n".join(lines) + f"\n{margin}}}"
    if isinstance(value, (list, tuple)) and value:
        return "[\n" + ",\n".join(deeper + pretty(member, indent, deeper) for member in value) + f"\n{margin}]"
    return encode(value).decode()


class _Rules:
    """What json.JSONDecoder tells the scanner."""

    strict = True
    object_hook = object_pairs_hook = None
    parse_float, parse_int = float, int

    @staticmethod
    def parse_constant(word: str) -> None:
        raise Invalid("", f"not JSON: {word}")


def parse(body: bytes) -> Any:
    """JSON as Python has it. Raises Invalid."""
    scan: Any = _json.make_scanner(_Rules)  # type: ignore[arg-type]  # the stub wants the scanner itself
    try:
        text = body.decode()
        start = len(text) - len(text.lstrip(" \t\r\n"))
        value, end = scan(text, start)
    except StopIteration as stopped:
        raise Invalid("", f"not JSON: nothing that can be read at character {stopped.value}") from None
    except (ValueError, RecursionError) as error:
        raise Invalid("", f"not JSON: {error}") from None
    if text[end:].strip(" \t\r\n"):
        raise Invalid("", f"not JSON: more at character {end}")
    return value


def decode(cls: type[S], value: Any, path: str = "") -> S:
    """A structure out of what `parse` gave. Raises Invalid that names the member.

    Unknown keys are passed over, and null is "not said", as Go's decoder has both.
    """
    if not isinstance(value, dict):
        raise Invalid(path, f"expected an object, not {_kind(value)}")
    readers = cls.readers
    if readers is None:
        readers = cls.readers = _readers(cls)
    made = cls.__new__(cls)
    put = object.__setattr__
    for name, default in cls.fields.items():
        key, read = readers[name]
        member = value.get(key)
        if member is not None:
            put(made, name, read(member, f"{path}.{key}" if path else key))
        elif default.value is _MISSING and default.factory is None:
            raise Invalid(f"{path}.{key}" if path else key, "is missing")
        else:
            put(made, name, default.make())
    return made


def _readers(cls: type[Plain]) -> dict[str, tuple[str, Callable[[Any, str], Any]]]:
    found = {}
    for owner in reversed(cls.__mro__):
        if isinstance(owner, Meta):
            space = vars(sys.modules[owner.__module__])
            for name, annotation in vars(owner).get("__annotations__", {}).items():
                if name in cls.keys:
                    found[name] = (cls.keys[name], _reader(annotation, space))
    return found


def _reader(annotation: str, space: dict[str, Any]) -> Callable[[Any, str], Any]:
    text = annotation.strip().removesuffix("| None").strip()
    if text in _SCALARS:
        return _SCALARS[text]
    if text == "Any":
        return lambda value, path: value
    if text.startswith("list["):
        member = _reader(text[5:-1], space)
        return lambda value, path: _list(value, path, member)
    if text.startswith("dict[str,"):
        member = _reader(text[9:-1], space)
        return lambda value, path: _dict(value, path, member)
    target = space[text]
    return lambda value, path: decode(target, value, path)


def _list(value: Any, path: str, member: Callable[[Any, str], Any]) -> list[Any]:
    if not isinstance(value, list):
        raise Invalid(path, f"expected an array, not {_kind(value)}")
    if member is _text and all(type(word) is str for word in value):
        return value
    return [member(item, f"{path}[{index}]") for index, item in enumerate(value)]


def _dict(value: Any, path: str, member: Callable[[Any, str], Any]) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise Invalid(path, f"expected an object, not {_kind(value)}")
    return {key: member(item, f"{path}.{key}") for key, item in value.items()}


def _text(value: Any, path: str) -> str:
    if type(value) is not str:
        raise Invalid(path, f"expected a string, not {_kind(value)}")
    return value


def _integer(value: Any, path: str) -> int:
    if type(value) is float and value.is_integer():
        value = int(value)
    if type(value) is not int:
        raise Invalid(path, f"expected an integer, not {_kind(value)}")
    if not -(1 << 63) <= value < 1 << 64:
        raise Invalid(path, "is no integer of 64 bits")
    return value


def _truth(value: Any, path: str) -> bool:
    if type(value) is not bool:
        raise Invalid(path, f"expected true or false, not {_kind(value)}")
    return value


def _number(value: Any, path: str) -> float:
    if type(value) not in (int, float):
        raise Invalid(path, f"expected a number, not {_kind(value)}")
    return float(value)


_SCALARS: dict[str, Callable[[Any, str], Any]] = {"str": _text, "int": _integer, "bool": _truth, "float": _number}
_KINDS = {str: "a string", bool: "true or false", int: "a number", float: "a number", list: "an array"}


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    return _KINDS.get(type(value), "an object")
