"""The layering is law: arrows point down, siblings do not import each other, and what runs after a fork stays light."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SRC = ROOT / "src" / "corten"

FOUNDATION = {"errors", "clock", "tasks"}
# Package → the packages it may import beside itself and the foundation.
ALLOWED: dict[str, set[str]] = {
    "errors": set(),
    "clock": set(),
    "tasks": set(),
    "linux": set(),
    "specs": set(),
    "logs": {"linux", "specs"},
    "runtime": {"linux", "specs", "logs"},
    "storage": {"linux", "specs"},
    "network": {"linux", "specs"},
    "registry": {"specs"},
    "engine": {"runtime", "storage", "network", "registry", "logs", "specs", "linux"},
    "api": {"specs", "engine.models"},
    "client": {"specs"},
    "cli": {"client", "registry", "specs"},
    "daemon": {"api", "engine", "runtime", "storage", "network", "registry", "logs", "specs", "linux"},
    "testing": {"api", "engine", "runtime", "storage", "network", "registry", "logs", "specs", "linux", "client"},
}
# Modules that run in the spawner, the shim or a container's child, by prefix: no import of these, even indirectly.
FORKED = ["corten.linux", "corten.runtime.child", "corten.runtime.spawner", "corten.runtime.shim"]
HEAVY = {"asyncio", "aiohttp", "ssl", "logging", "typing", "dataclasses", "json", "re", "enum", "pathlib", "msgspec"}


def modules() -> Iterator[tuple[str, Path]]:
    for path in sorted(SRC.rglob("*.py")):
        parts = path.relative_to(SRC.parent).with_suffix("").parts
        yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


def imports(path: Path) -> Iterator[tuple[str, int, bool]]:
    """(module, line, only for type checking) for each import of Corten's in a file."""
    tree = ast.parse(path.read_text(), str(path))
    guarded: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            guarded.update(inner.lineno for inner in ast.walk(node) if isinstance(inner, ast.Import | ast.ImportFrom))
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "corten":
            names = [f"corten.{alias.name}" for alias in node.names] if node.module == "corten" else [node.module]
            for name in names:
                yield name, node.lineno, node.lineno in guarded
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == "corten":
                    yield alias.name, node.lineno, node.lineno in guarded


def permitted(package: str, target: str) -> bool:
    inner = target.removeprefix("corten.")
    if inner in ("corten", "__version__") or inner.split(".")[0] in FOUNDATION | {package}:
        return True
    return any(inner == allowed or inner.startswith(allowed + ".") for allowed in ALLOWED[package])


def violations() -> Iterator[str]:
    for module, path in modules():
        parts = module.split(".")
        if len(parts) == 1:
            continue
        for target, line, _ in imports(path):
            if not permitted(parts[1], target):
                yield f"{path.relative_to(ROOT)}:{line}: {module} → {target}: {parts[1]} may not import it"


def test_every_package_has_its_rule() -> None:
    assert {module.split(".")[1] for module, _ in modules() if "." in module} <= set(ALLOWED)


def test_imports_point_down() -> None:
    found = list(violations())
    assert not found, "\n" + "\n".join(found)


def test_the_check_sees_a_forbidden_import() -> None:
    assert not permitted("storage", "corten.registry.client")
    assert not permitted("api", "corten.engine.containers")
    assert permitted("api", "corten.engine.models")


def test_one_module_of_the_command_line_asks_registries() -> None:
    """aiohttp and asyncio are too much for all other commands; and who may be told secrets is seen at a glance."""
    users = {
        module
        for module, path in modules()
        if module.startswith("corten.cli.")
        for target, _, typing_only in imports(path)
        if target.startswith("corten.registry") and not typing_only
    }
    assert users == {"corten.cli.manifests.registries"}


def test_nothing_shipped_imports_the_fakes() -> None:
    users = [
        f"{path.relative_to(ROOT)}:{line}"
        for module, path in modules()
        if not module.startswith("corten.testing")
        for target, line, _ in imports(path)
        if target.startswith("corten.testing")
    ]
    assert not users, users


def forked_modules() -> list[str]:
    return [name for name, _ in modules() if any(name == p or name.startswith(p + ".") for p in FORKED)]


def test_what_runs_after_a_fork_imports_nothing_heavy() -> None:
    """In a fresh interpreter as the spawner has it, module by module, so that the culprit is named."""
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "before = set(sys.modules)\n"
        "for name in sys.argv[3:]:\n"
        "    __import__(name)\n"
        "    bad = (set(sys.modules) - before) & set(sys.argv[2].split(','))\n"
        "    if bad: sys.exit(f'{name} brings in {sorted(bad)}')\n"
    )
    command = [sys.executable, "-I", "-S", "-c", code, str(SRC.parent), ",".join(sorted(HEAVY)), *forked_modules()]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_spawner_import_budget() -> None:
    """The spawner's imports, all of them, cost less than `json` and `dataclasses` alone would.

    Side by side and in CPU time, as machines differ: 8 to 15 ms for the spawner, 20 to 28 ms for the two, the design's
    goal being 10 (docs/design/README.md has what they consist of).
    """
    spawner = standard = float("inf")
    for turn in range(20):  # taken in turn, the best of each: others may be at work on the machine
        spawner = min(spawner, imports_take("corten.runtime.spawner"))
        standard = min(standard, imports_take("json, dataclasses"))
        if turn > 2 and spawner < standard:
            return
    pytest.fail(f"the spawner's imports take {spawner * 1e3:.1f} ms, json and dataclasses {standard * 1e3:.1f}")


def imports_take(names: str) -> float:
    """Seconds of CPU in a fresh interpreter."""
    code = (
        "import sys, time; sys.path.insert(0, sys.argv[1]); begin = time.process_time()\n"
        f"import {names}\n"
        "print(time.process_time() - begin)"
    )
    command = [sys.executable, "-I", "-S", "-c", code, str(SRC.parent)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
