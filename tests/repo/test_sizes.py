"""What grows is taken apart before it is too large to be read: classes, functions and modules have a size."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PLACES = ("src", "tests", "benchmarks")

MAX_METHODS = 12
MAX_FUNCTION = 60
MAX_MODULE = 700


def public_methods(node: ast.ClassDef) -> set[str]:
    """What a class offers: attributes that are computed are none of it, nor is what pytest collects."""
    return {
        item.name
        for item in node.body
        if isinstance(item, ast.FunctionDef | ast.AsyncFunctionDef)
        and not item.name.startswith(("_", "test_"))
        and not any(_is_property(decorator) for decorator in item.decorator_list)
    }


def _is_property(decorator: ast.expr) -> bool:
    name = ast.unparse(decorator).rpartition(".")[2]
    return name in ("property", "cached_property", "setter")


def too_large(text: str) -> Iterator[str]:
    """Everything in a module that is over its size, as "line: what it is, and how large"."""
    lines = text.count("\n")
    if lines > MAX_MODULE:
        yield f"1: module of {lines} lines"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ClassDef) and len(methods := public_methods(node)) > MAX_METHODS:
            yield f"{node.lineno}: class {node.name} with {len(methods)} public methods: {', '.join(sorted(methods))}"
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            if length > MAX_FUNCTION:
                yield f"{node.lineno}: function {node.name} of {length} lines"


def test_nothing_is_too_large() -> None:
    paths = [path for place in PLACES for path in sorted((ROOT / place).rglob("*.py"))]
    assert len(paths) > 500
    found = [f"{path.relative_to(ROOT)}:{what}" for path in paths for what in too_large(path.read_text())]
    assert not found, "take apart, along the lines of what it is about:\n" + "\n".join(found)


def _class(methods: int, extra: str = "") -> str:
    return "class C:\n" + "".join(f"    def m{number}(self): ...\n" for number in range(methods)) + extra


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (_class(12), []),
        (_class(13), ["1: class C with 13 public"]),
        (_class(12, "    @property\n    def p(self): ...\n    def _q(self): ...\n    def test_r(self): ...\n"), []),
        (_class(12, "    @classmethod\n    async def made(cls): ...\n"), ["1: class C with 13 public"]),
        ("def f():\n" + "    pass\n" * 59, []),
        ("def f():\n" + "    pass\n" * 60, ["1: function f of 61 lines"]),
        ("class C:\n    async def f(self):\n" + "        pass\n" * 60, ["2: function f of 61 lines"]),
        ("x = 1\n" * 700, []),
        ("x = 1\n" * 701, ["1: module of 701 lines"]),
    ],
)
def test_what_is_too_large(text: str, found: list[str]) -> None:
    assert [what.partition(" methods:")[0] for what in too_large(text)] == found
