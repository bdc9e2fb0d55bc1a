"""Walks a template's tree over data."""

from __future__ import annotations

from corten.specs.gotemplate import nodes
from corten.specs.gotemplate.errors import ExecError, FunctionError, MissingField, TemplateError
from corten.specs.gotemplate.formatting import type_name
from corten.specs.gotemplate.functions import FUNCTIONS, LAZY
from corten.specs.gotemplate.parser import Parser
from corten.specs.gotemplate.values import NIL, GoStruct, Record, show, truth

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import Any

_NOTHING = object()


def parse(source: str) -> Template:
    """Raises TemplateError."""
    return Template(source, Parser(source, {*FUNCTIONS, *LAZY}).parse())


class Template:
    """A parsed template; `execute` may be called any number of times."""

    def __init__(self, source: str, body: list[nodes.Node]) -> None:
        self.source, self.body = source, body

    def execute(
        self, data: Any, *, strict: bool = False, functions: Mapping[str, Callable[..., Any]] | None = None
    ) -> str:
        """Raises ExecError. `strict` makes a missing key of a map an error; else it is <no value>."""
        return _Execution(self.source, strict, functions or FUNCTIONS).run(self.body, data)

    def fields(self) -> set[str]:
        """The first name of every field of dot that the template reads, "." where it takes dot itself."""
        found = {node.names[0] for node in _walk(self.body) if isinstance(node, nodes.Field)}
        return found | {"." for node in _walk(self.body) if isinstance(node, nodes.Dot)}


def _walk(found: list[nodes.Node]) -> Iterator[nodes.Node]:
    for node in found:
        yield node
        for name in getattr(node, "__slots__", ()):
            value = getattr(node, name)
            if isinstance(value, nodes.Node):
                yield from _walk([value])
            elif isinstance(value, list) and value and isinstance(value[0], nodes.Node):
                yield from _walk(value)


class _Jump(Exception):
    def __init__(self, word: str) -> None:
        super().__init__(word)
        self.word = word


class _Execution:
    def __init__(self, source: str, strict: bool, functions: Mapping[str, Callable[..., Any]]) -> None:
        self._source, self._strict, self._functions = source, strict, functions
        self._out: list[str] = []
        self._variables: list[tuple[str, Any]] = []

    def run(self, body: list[nodes.Node], data: Any) -> str:
        self._variables.append(("$", data))
        self._body(body, data)
        return "".join(self._out)

    def _error(self, node: nodes.Node, message: str) -> ExecError:
        before = self._source[: node.at]
        start = before.rfind("\n") + 1
        column = len(before[start:].encode("utf-8", "surrogateescape"))
        return ExecError(before.count("\n") + 1, column, str(node), message)

    # Statements.

    def _body(self, body: list[nodes.Node], dot: Any) -> None:
        for node in body:
            if isinstance(node, nodes.Text):
                self._out.append(node.text)
            elif isinstance(node, nodes.Action):
                value = self._pipeline(node.pipeline, dot)
                if not node.pipeline.variables:
                    self._out.append(show(value))
            elif isinstance(node, nodes.Jump):
                raise _Jump(node.word)
            elif isinstance(node, nodes.Branch):
                mark = len(self._variables)
                self._branch(node, dot)
                del self._variables[mark:]

    def _branch(self, node: nodes.Branch, dot: Any) -> None:
        if node.word == "range":
            self._range(node, dot)
            return
        value = self._pipeline(node.pipeline, dot)
        if truth(value):
            self._body(node.body, value if node.word == "with" else dot)
        else:
            self._body(node.otherwise, dot)

    def _range(self, node: nodes.Branch, dot: Any) -> None:
        # Its variables take the elements, not the value of the pipeline.
        bare = nodes.Pipeline(node.pipeline.at, node.pipeline.commands, [], False)
        items = self._items(node, self._pipeline(bare, dot))
        if not items:
            self._body(node.otherwise, dot)
            return
        names = node.pipeline.variables
        for key, item in items:
            mark = len(self._variables)
            for name, value in zip(names, [item] if len(names) == 1 else [key, item], strict=False):
                self._assign(name, value, node.pipeline.declares)
            try:
                self._body(node.body, item)
            except _Jump as jump:
                if jump.word == "break":
                    return
            finally:
                del self._variables[mark:]

    def _items(self, node: nodes.Branch, value: Any) -> list[tuple[Any, Any]]:
        if value is None or value is NIL:
            return []
        if isinstance(value, list):
            return list(enumerate(value))
        if isinstance(value, dict) and not isinstance(value, GoStruct):
            return [(key, value[key]) for key in sorted(value)]
        if isinstance(value, int) and not isinstance(value, bool):
            return [(number, number) for number in range(value)]
        raise self._error(node.pipeline, f"range can't iterate over {show(value)}")

    def _assign(self, name: str, value: Any, declare: bool) -> None:
        if not declare:
            for index in range(len(self._variables) - 1, -1, -1):
                if self._variables[index][0] == name:
                    self._variables[index] = (name, value)
                    return
        self._variables.append((name, value))

    # Values.

    def _pipeline(self, node: nodes.Pipeline, dot: Any) -> Any:
        value: Any = _NOTHING
        for command in node.commands:
            value = self._command(command, dot, value)
        for name in node.variables:
            self._assign(name, value, node.declares)
        return value

    def _command(self, node: nodes.Command, dot: Any, final: Any) -> Any:
        first, *arguments = node.words
        if isinstance(first, nodes.Function):
            return self._call(first, node, arguments, dot, final)
        extra = [self._value(argument, dot) for argument in arguments]
        if final is not _NOTHING:
            extra.append(final)
        if isinstance(first, nodes.Field):
            return self._fields(first, first.names, dot, extra)
        if isinstance(first, nodes.Variable | nodes.Chain) and first.names:
            return self._fields(first, first.names, self._base(first, dot), extra)
        if extra:
            raise self._error(first, f"can't give argument to non-function {first}")
        if isinstance(first, nodes.Nil):
            raise self._error(first, "nil is not a command")
        return self._value(first, dot)

    def _value(self, node: nodes.Node, dot: Any) -> Any:
        if isinstance(node, nodes.Literal):
            return node.value
        if isinstance(node, nodes.Dot):
            return dot
        if isinstance(node, nodes.Nil):
            return None
        if isinstance(node, nodes.Field):
            return self._fields(node, node.names, dot, [])
        if isinstance(node, nodes.Variable | nodes.Chain):
            return self._fields(node, node.names, self._base(node, dot), [])
        if isinstance(node, nodes.Pipeline):
            return self._pipeline(node, dot)
        assert isinstance(node, nodes.Function)
        return self._call(node, node, [], dot, _NOTHING)

    def _base(self, node: nodes.Variable | nodes.Chain, dot: Any) -> Any:
        if isinstance(node, nodes.Chain):
            return self._value(node.inner, dot)
        return next(value for name, value in reversed(self._variables) if name == node.name)

    def _fields(self, node: nodes.Node, names: list[str], value: Any, arguments: list[Any]) -> Any:
        for number, name in enumerate(names):
            last = arguments if number == len(names) - 1 else []
            try:
                value = self._field(value, name, last)
            except FunctionError as error:
                raise self._error(node, str(error)) from None
            except TypeError:
                raise self._error(node, f"wrong number of args for {name}: got {len(last)}") from None
        return value

    def _field(self, value: Any, name: str, arguments: list[Any]) -> Any:
        if isinstance(value, Record):
            return value.get(name, *arguments)
        if arguments:
            raise FunctionError(f"{name} has arguments but cannot be invoked as function")
        if isinstance(value, GoStruct):
            if name not in value:
                raise MissingField(f"can't evaluate field {name} in type {value.type_name}")
            return value[name]
        if isinstance(value, dict):
            if name not in value and self._strict:
                raise MissingField(f'map has no entry for key "{name}"')
            return value.get(name)
        if value is NIL or value is None:
            raise MissingField(f"nil pointer evaluating interface {{}}.{name}")
        raise MissingField(f"can't evaluate field {name} in type {type_name(value)}")

    def _call(
        self, function: nodes.Function, node: nodes.Node, arguments: list[nodes.Node], dot: Any, final: Any
    ) -> Any:
        name = function.name
        if name in LAZY:
            return self._lazy(function, arguments, dot, final)
        values = [self._value(argument, dot) for argument in arguments]
        if final is not _NOTHING:
            values.append(final)
        try:
            return self._functions[name](*values)
        except FunctionError as error:
            raise self._error(node, f"error calling {name}: {error}") from None
        except TypeError:
            raise self._error(function, f"wrong number of args for {name}: got {len(values)}") from None

    def _lazy(self, function: nodes.Function, arguments: list[nodes.Node], dot: Any, final: Any) -> Any:
        """`and` and `or` stop at the argument that decides."""
        name = function.name
        count = len(arguments) + (final is not _NOTHING)
        if name == "call" or not count or (name == "not" and count != 1):
            raise self._error(function, f"wrong number of args for {name}: want at least 1 got {count}")
        value: Any = None
        for argument in arguments:
            value = self._value(argument, dot)
            if name != "not" and truth(value) == (name == "or"):
                return value
        if final is not _NOTHING:
            value = final
        return not truth(value) if name == "not" else value


__all__ = ["Template", "TemplateError", "parse"]
