"""Structures without a library: construction, documents, and errors that name the member."""

from __future__ import annotations

import copy
import json
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import corten
from corten.specs import lean
from corten.specs.lean import Frozen, Plain, Structure, field


class Point(Frozen):
    x: int
    y: int = 0


class Inner(Structure):
    name: str = ""
    flag: bool = False
    weight: float = 1.5


def upper(name: str) -> str:
    return name.upper()


class Outer(Structure, rename=upper):
    required: int
    inner: Inner | None = None
    many: list[Inner] = field(default_factory=list)
    table: dict[str, list[int]] = field(default_factory=dict)
    always: int = field(default_factory=int)
    class_: str = field(default="", name="class")


def outer(document: object) -> Outer:
    return lean.decode(Outer, lean.parse(json.dumps(document).encode()))


def test_frozen_structures_compare_hash_and_refuse_changes() -> None:
    assert Point(1, 2) == Point(y=2, x=1) != Point(1, 3)
    assert hash(Point(1)) == hash(Point(1, 0))
    assert repr(Point(1)) == "Point(x=1, y=0)"
    assert lean.replace(Point(1, 2), x=5) == Point(5, 2)
    assert lean.values_of(Point(3)) == (3, 0)
    with pytest.raises(AttributeError):
        Point(1).x = 2  # type: ignore[misc]  # what is tested
    match Point(1, 2):
        case Point(x, 2):
            assert x == 1


def test_changeable_ones_have_slots_and_no_hash() -> None:
    item = Inner(name="a")
    item.name = "b"
    assert item == Inner("b")
    with pytest.raises(AttributeError):
        item.other = 1  # type: ignore[attr-defined]  # what is tested
    with pytest.raises(TypeError, match="unhashable"):
        hash(item)
    assert copy.deepcopy(item) == pickle.loads(pickle.dumps(item)) == item


@pytest.mark.parametrize(
    ("values", "named"),
    [((), {}), ((1, 2, 3), {}), ((1,), {"x": 1}), ((1,), {"z": 1})],
    ids=["few", "many", "twice", "z"],
)
def test_wrong_arguments_are_type_errors(values: tuple[int, ...], named: dict[str, int]) -> None:
    with pytest.raises(TypeError):
        Point(*values, **named)
    with pytest.raises(TypeError, match="Point has no z"):
        lean.replace(Point(1), z=1)


def test_much_used_classes_behave_as_before() -> None:
    """Their functions are compiled after a while."""

    class Often(Structure):
        a: int
        b: str = "b"
        c: list[int] = field(default_factory=list)
        d: int = field(default_factory=int)
        e: bool = False

    class Below(Often):
        f: int = 0

    class Sealed(Plain, frozen=True, kw_only=True):
        a: int = 1

    unchecked: Any = Sealed
    for number in range(120):
        item = Often(number)
        assert (item.a, item.b, item.c, item.d) == (number, "b", [], 0)
        assert item.c is not Often(number).c
        assert Often(1, "x", c=[1]) == Often(a=1, b="x", c=[1])
        assert lean.to_builtins(item) == {"a": number, "d": 0}
        assert lean.to_builtins(Often(1, "", [2], e=True)) == {"a": 1, "b": "", "c": [2], "d": 0, "e": True}
        assert unchecked(a=2) == unchecked(a=2) != unchecked()
        with pytest.raises(TypeError):
            unchecked(2)
        with pytest.raises(AttributeError):
            unchecked().a = 5
    assert Below(1, f=2).f == 2


def test_a_document_there_and_back() -> None:
    document = {
        "REQUIRED": 7,
        "INNER": {"name": "\N{SNOWMAN}\n", "flag": True},
        "MANY": [{"weight": 2.0}],
        "TABLE": {"a": [1, 2]},
        "ALWAYS": 0,
        "class": "c",
    }
    item = outer(document)
    assert item.inner == Inner(name="\N{SNOWMAN}\n", flag=True)
    assert json.loads(lean.encode(item)) == document
    assert json.loads(lean.pretty(item, 2)) == document
    assert lean.pretty({"a": [1], "b": {}}, 2) == '{\n  "a": [\n    1\n  ],\n  "b": {}\n}'
    assert json.loads(lean.encode(Outer(required=1))) == {"REQUIRED": 1, "ALWAYS": 0}


def test_null_and_unknown_members_are_passed_over() -> None:
    item = outer({"REQUIRED": 1, "INNER": None, "MANY": None, "LATER": {}})
    assert (item.inner, item.many) == (None, [])
    assert Outer(required=1).many is not Outer(required=1).many


@pytest.mark.parametrize(
    ("document", "problem"),
    [
        ([], "expected an object, not an array"),
        ({}, "REQUIRED: is missing"),
        ({"REQUIRED": "1"}, "REQUIRED: expected an integer, not a string"),
        ({"REQUIRED": True}, "REQUIRED: expected an integer, not true or false"),
        ({"REQUIRED": 1.5}, "REQUIRED: expected an integer, not a number"),
        ({"REQUIRED": 1 << 64}, "REQUIRED: is no integer of 64 bits"),
        ({"REQUIRED": 1, "INNER": 1}, "INNER: expected an object, not a number"),
        ({"REQUIRED": 1, "MANY": {}}, "MANY: expected an array, not an object"),
        ({"REQUIRED": 1, "MANY": [{}, {"flag": 1}]}, r"MANY\[1\].flag: expected true or false, not a number"),
        ({"REQUIRED": 1, "MANY": [None]}, r"MANY\[0\]: expected an object, not null"),
        ({"REQUIRED": 1, "TABLE": {"k": [1, "x"]}}, r"TABLE.k\[1\]: expected an integer, not a string"),
    ],
)
def test_what_does_not_fit_is_named(document: object, problem: str) -> None:
    with pytest.raises(lean.Invalid, match=f"^{problem}$"):
        outer(document)


@pytest.mark.parametrize("body", [b"", b"{", b"{} {}", b"\xff", b"[NaN]", b'"\n"', b"[" * 200_000, b"1" * 5000])
def test_what_is_not_json_is_refused(body: bytes) -> None:
    with pytest.raises(lean.Invalid, match="not JSON"):
        lean.parse(body)


def test_whitespace_around_a_document_is_none_of_it() -> None:
    assert lean.parse(b' \r\n\t{"a": [1.5, null]}\n') == {"a": [1.5, None]}


def test_a_plan_is_compiled_without_costly_imports() -> None:
    """What `corten-runtime run` imports; each of these would cost more than the rest together."""
    banned = ("msgspec", "dataclasses", "typing", "json", "re", "enum", "pathlib", "inspect", "argparse", "subprocess")
    code = (
        "import sys; sys.path.append(sys.argv[1])\n"
        "from corten.specs.oci_runtime import decode_spec\n"
        "import corten.runtime.plan\n"
        "print(*sys.modules)"
    )
    source = str(Path(corten.__file__).parent.parent)
    ran = subprocess.run([sys.executable, "-I", "-S", "-c", code, source], capture_output=True, text=True, check=True)
    assert set(ran.stdout.split()).isdisjoint(banned)
