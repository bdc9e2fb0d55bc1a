"""What `--security-opt` and the daemon's own settings come to together."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from corten.specs.oci_runtime import Spec
from tests.unit.engine.harness import Engine


def started(root: Path, settings: dict[str, Any], host: dict[str, Any]) -> Spec:
    async def scenario() -> Spec:
        engine = Engine(root)
        for name, value in settings.items():
            setattr(engine.settings, name, value)
        await engine.start()
        await engine.containers.life_cycle.start(await engine.create(**host))
        return engine.runtime.launches[-1].spec

    return asyncio.run(scenario())


@pytest.mark.parametrize(
    ("default", "options", "expected"),
    [
        (False, [], False),
        (True, [], True),
        (True, ["label=disable"], True),  # says nothing of it
        (True, ["no-new-privileges=false"], False),
        (False, ["no-new-privileges"], True),
    ],
)
def test_new_privileges(tmp_path: Path, default: bool, options: list[str], expected: bool) -> None:
    spec = started(tmp_path, {"no_new_privileges": default}, {"security_opt": options})
    assert spec.process is not None
    assert spec.process.no_new_privileges is expected


@pytest.mark.parametrize(
    ("default", "host", "expected"),
    [
        ("builtin", {}, "SCMP_ACT_builtin"),
        ("{mine}", {}, "SCMP_ACT_{mine}"),
        ("unconfined", {}, None),
        ("{mine}", {"security_opt": ["seccomp=builtin"]}, "SCMP_ACT_builtin"),
        ("builtin", {"security_opt": ["seccomp=unconfined"]}, None),
        ("builtin", {"privileged": True}, None),
        ("{mine}", {"privileged": True}, None),
        ("builtin", {"privileged": True, "security_opt": ["seccomp={x}"]}, "SCMP_ACT_{x}"),
    ],
)
def test_seccomp_profiles(tmp_path: Path, default: str, host: dict[str, Any], expected: str | None) -> None:
    linux = started(tmp_path, {"seccomp_profile": default}, host).linux
    assert linux is not None
    assert (linux.seccomp.default_action if linux.seccomp else None) == expected
