"""The published description of the API, and a check of an answer against it."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

import corten

_TYPES: dict[str, type | tuple[type, ...]] = {
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
    "array": list,
    "object": dict,
}


@cache
def description() -> dict[str, Any]:
    """Skips the test where the description is not beside the repository."""
    path = Path(corten.__file__).parents[2].parent / "shared" / "refs" / "docker-engine-api.yaml"
    if not path.exists():
        pytest.skip("the description of the Docker Engine API is not here")
    loaded: dict[str, Any] = yaml.load(path.read_text(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    return loaded


def operations() -> list[tuple[str, str, str]]:
    """Method, path and name of every operation."""
    return [
        (method.upper(), path, operation["operationId"])
        for path, methods in description()["paths"].items()
        for method, operation in methods.items()
    ]


def answer_schema(method: str, path: str, status: int) -> dict[str, Any]:
    schema: dict[str, Any] = description()["paths"][path][method.lower()]["responses"][status]["schema"]
    return schema


def faults(value: Any, schema: dict[str, Any], place: str = "$") -> list[str]:
    """Where `value` is not what `schema` says. A null for a list or an object is Go's and is let pass."""
    if "$ref" in schema:
        return faults(value, description()["definitions"][schema["$ref"].rpartition("/")[2]], place)
    out = [fault for part in schema.get("allOf", ()) for fault in faults(value, part, place)]
    kind = schema.get("type")
    if value is None:
        return out if kind in (None, "array", "object") or schema.get("x-nullable") else [f"{place}: null"]
    if kind and (not isinstance(value, _TYPES[kind]) or (isinstance(value, bool) and kind != "boolean")):
        return [*out, f"{place}: {type(value).__name__} instead of {kind}"]
    if "enum" in schema and value not in schema["enum"]:
        out.append(f"{place}: {value!r} is not one of {schema['enum']}")
    if isinstance(value, list) and "items" in schema:
        for number, item in enumerate(value):
            out += faults(item, schema["items"], f"{place}[{number}]")
    if isinstance(value, dict):
        out += _object_faults(value, schema, place)
    return out


def _object_faults(value: dict[str, Any], schema: dict[str, Any], place: str) -> list[str]:
    out = [f"{place}: {name} is missing" for name in schema.get("required", ()) if name not in value]
    known = schema.get("properties", {})
    others = schema.get("additionalProperties")
    for name, member in value.items():
        if name in known:
            out += faults(member, known[name], f"{place}.{name}")
        elif isinstance(others, dict):
            out += faults(member, others, f"{place}.{name}")
    return out
