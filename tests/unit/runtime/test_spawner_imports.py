"""What the spawner and its shims load, and how long that takes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import corten

SOURCE = str(Path(corten.__file__).parent.parent)
BANNED = (
    "asyncio", "typing", "dataclasses", "json", "re", "enum", "logging", "pathlib", "msgspec", "contextlib",
    "subprocess", "socket", "selectors", "threading", "collections", "functools", "inspect", "ssl", "signal",
)  # fmt: skip


def python(code: str) -> str:
    """The output of `code` in an interpreter started as the spawner is."""
    boot = f"import sys; sys.path.append({SOURCE!r})\n{code}"
    ran = subprocess.run([sys.executable, "-I", "-S", "-c", boot], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def test_nothing_costly_is_imported() -> None:
    loaded = python("import corten.runtime.spawner; print(*sys.modules)").split()
    assert "corten.runtime.child.launch" in loaded
    assert [name for name in BANNED if name in loaded] == []
    assert sorted(name for name in loaded if name.startswith("corten.logs.")) == [
        f"corten.logs.{name}" for name in ("files", "jsonfile", "lines", "local", "stamps", "writer")
    ]


def test_immortal_objects_work_as_before() -> None:
    code = """
from corten.runtime.immortal import KNOWN, immortalise
import corten.runtime.spawner, gc
count = immortalise()
gc.freeze()
made = [{"a": [n, str(n)]} for n in range(10000)]
del made
gc.collect()
print(count > 0, sys.version_info[:2] in KNOWN)
"""
    done, known = python(code).split()
    assert done == known
