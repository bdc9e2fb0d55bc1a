"""Hooks of a container that a shim stands by."""

from __future__ import annotations

import asyncio
import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from corten.errors import StartFailed
from corten.runtime.cgroups import Cgroup
from corten.specs.oci_runtime import Hook, Hooks
from tests.kernel.boxes import DEADLINE, Boxes, boxes, cgroup_of, needs_root
from tests.waiting import until_async

pytestmark = [pytest.mark.root, needs_root]


def hook(script: str) -> list[Hook]:
    return [Hook(path="/bin/sh", args=["sh", "-c", script], env=["PATH=/bin:/usr/bin"])]


async def launch(b: Boxes, hooks: Hooks, *args: str) -> int:
    request = b.request("c", *args)
    request.spec.hooks = hooks
    return (await b.client.launch(replace(request, init=True))).pid


def test_a_shims_container_has_all_its_hooks(tmp_path: Path) -> None:
    async def main() -> None:
        async with boxes(tmp_path) as b:
            out = tmp_path / "out"
            outside = f"cat >> {out}; echo >> {out}"
            hooks = Hooks(
                prestart=hook(outside),
                create_container=hook(outside),
                start_container=hook("cat; echo; exit 0"),
                poststart=hook(outside),
                poststop=hook(outside),
            )
            pid = await launch(b, hooks, "sleep", "1000")
            states = [json.loads(line) for line in out.read_text().splitlines()]
            assert [state["status"] for state in states] == ["creating", "creating", "running"]
            assert (states[0]["pid"], states[2]["pid"]) == (pid, pid)
            assert {state["bundle"] for state in states} == {str(tmp_path / "run/c")}
            await b.client.signal("c", 9)
            assert (await b.exit_of("c")).code == 137
            await until_async(lambda: len(out.read_text().splitlines()) == 4, seconds=DEADLINE, what="poststop")
            assert json.loads(out.read_text().splitlines()[3])["status"] == "stopped"

    asyncio.run(main())


def test_a_container_may_end_before_its_poststart_hook_does(tmp_path: Path) -> None:
    async def main() -> None:
        async with boxes(tmp_path) as b:
            out = tmp_path / "out"
            await launch(b, Hooks(poststart=hook(f"sleep 0.3; echo done > {out}")), "true")
            assert out.read_text() == "done\n"
            assert (await b.exit_of("c")).code == 0

    asyncio.run(main())


@pytest.mark.parametrize("kind", ["create_runtime", "create_container", "start_container", "poststart"])
def test_a_hook_that_fails_leaves_nothing(tmp_path: Path, kind: str) -> None:
    async def main() -> None:
        async with boxes(tmp_path) as b:
            after = tmp_path / "after"
            hooks = Hooks(poststop=hook(f"cat > {after}"))
            setattr(hooks, kind, hook("echo no; exit 3"))
            with pytest.raises(StartFailed, match=r"\[0\]: running /bin/sh: exit status 3: no") as caught:
                await launch(b, hooks, "sleep", "1000")
            assert caught.value.step == "hook"
            assert json.loads(after.read_text())["status"] == "stopped"
            group = Cgroup(cgroup_of("c"))
            assert not os.path.exists(group.directory("pids"))
            assert group.pids() == []

    asyncio.run(main())
