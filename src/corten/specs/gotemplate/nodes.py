"""The tree of a template. `at` is an offset into the source, for error messages; `str()` gives the source back."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Node:
    __slots__ = ("at",)

    def __init__(self, at: int) -> None:
        self.at = at


class Text(Node):
    __slots__ = ("text",)

    def __init__(self, at: int, text: str) -> None:
        super().__init__(at)
        self.text = text


class Literal(Node):
    """A constant; `source` is how it was written. `nil` is not one: it may only be an argument."""

    __slots__ = ("source", "value")

    def __init__(self, at: int, value: Any, source: str) -> None:
        super().__init__(at)
        self.value, self.source = value, source

    def __str__(self) -> str:
        return self.source


class Dot(Node):
    def __str__(self) -> str:
        return "."


class Nil(Node):
    def __str__(self) -> str:
        return "nil"


class Field(Node):
    """`.A.B`: fields of dot."""

    __slots__ = ("names",)

    def __init__(self, at: int, names: list[str]) -> None:
        super().__init__(at)
        self.names = names

    def __str__(self) -> str:
        return "".join(f".{name}" for name in self.names)


class Variable(Node):
    """`$x.A`: a variable and fields of it."""

    __slots__ = ("name", "names")

    def __init__(self, at: int, name: str, names: list[str]) -> None:
        super().__init__(at)
        self.name, self.names = name, names

    def __str__(self) -> str:
        return self.name + "".join(f".{name}" for name in self.names)


class Chain(Node):
    """`(pipeline).A.B`"""

    __slots__ = ("inner", "names")

    def __init__(self, at: int, inner: Node, names: list[str]) -> None:
        super().__init__(at)
        self.inner, self.names = inner, names

    def __str__(self) -> str:
        return f"({self.inner})" + "".join(f".{name}" for name in self.names)


class Function(Node):
    __slots__ = ("name",)

    def __init__(self, at: int, name: str) -> None:
        super().__init__(at)
        self.name = name

    def __str__(self) -> str:
        return self.name


class Command(Node):
    """An operand with its arguments."""

    __slots__ = ("words",)

    def __init__(self, at: int, words: list[Node]) -> None:
        super().__init__(at)
        self.words = words

    def __str__(self) -> str:
        return " ".join(f"({word})" if isinstance(word, Pipeline) else str(word) for word in self.words)


class Pipeline(Node):
    """Commands, each handing its value to the next as last argument; `variables` are declared or assigned by it."""

    __slots__ = ("commands", "declares", "variables")

    def __init__(self, at: int, commands: list[Command], variables: list[str], declares: bool) -> None:
        super().__init__(at)
        self.commands, self.variables, self.declares = commands, variables, declares

    def __str__(self) -> str:
        assignment = f"{', '.join(self.variables)} {':=' if self.declares else '='} " if self.variables else ""
        return assignment + " | ".join(str(command) for command in self.commands)


class Action(Node):
    """`{{pipeline}}`: prints its value unless it only assigns."""

    __slots__ = ("pipeline",)

    def __init__(self, at: int, pipeline: Pipeline) -> None:
        super().__init__(at)
        self.pipeline = pipeline


class Branch(Node):
    """`if`, `with` or `range`, told apart by `word`."""

    __slots__ = ("body", "otherwise", "pipeline", "word")

    def __init__(self, at: int, word: str, pipeline: Pipeline, body: list[Node], otherwise: list[Node]) -> None:
        super().__init__(at)
        self.word, self.pipeline, self.body, self.otherwise = word, pipeline, body, otherwise


class Jump(Node):
    """`break` or `continue`."""

    __slots__ = ("word",)

    def __init__(self, at: int, word: str) -> None:
        super().__init__(at)
        self.word = word
