"""Hooks in a plan: the steps they make, and the state that each is told."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from corten.errors import IllegalTransition, InvalidArgument
from corten.runtime.child import hooks as running
from corten.runtime.child.errors import ChildFailed
from corten.runtime.oci.transitions import require
from corten.runtime.plan import compile_launch
from corten.runtime.plan_hooks import NO_HOOKS, compile_hooks, listener_of
from corten.runtime.types import LaunchRequest
from corten.specs.oci_runtime import Hook, Hooks, Linux, Namespace, Process, Seccomp, Spec, Syscall

KINDS = ("prestart", "create_runtime", "create_container", "start_container", "poststart", "poststop")
SCHEMA = Path(__file__).resolve().parents[4] / "shared/refs/oci/runtime-state-schema.json"
SHELL = "/bin/sh"


def spec(hooks: Hooks | None) -> Spec:
    linux = Linux(namespaces=[Namespace(type="mount")], cgroups_path="/x")
    return Spec(oci_version="1.3.0", process=Process(cwd="/", args=["x"]), linux=linux, hooks=hooks)


def names(hooks: Hooks | None) -> list[str]:
    request = LaunchRequest("c", spec(hooks), Path("/run/c"), Path("/exit"), ())
    return [type(step).__name__ for step in compile_launch(request).steps]


def test_a_container_without_hooks_has_no_step_for_them() -> None:
    assert [name for name in names(None) if "Hook" in name] == []
    assert names(Hooks()) == names(None)
    assert NO_HOOKS.to_wire() == {}


def test_hooks_come_before_the_root_is_switched() -> None:
    hook = [Hook(path="/x")]
    found = names(Hooks(create_container=hook, prestart=hook, start_container=hook))
    at = found.index("PivotRoot")
    assert found[at - 3 : at] == ["AwaitRuntimeHooks", "RunCreateContainerHooks", "KeepStartContainerHooks"]
    assert "AwaitRuntimeHooks" in names(Hooks(create_runtime=hook))
    assert names(Hooks(poststart=hook, poststop=hook)) == names(None)


def test_the_state_is_the_schemas() -> None:
    annotated = spec(Hooks(**{kind: [Hook(path="/x")] for kind in KINDS}))
    annotated.annotations = {"key": 'va"lue'}
    plan = compile_hooks(annotated, "c", "/run/c")
    statuses = []
    for kind in KINDS:
        hooks = getattr(plan, kind)
        state = json.loads(hooks[2] + b"17" + hooks[3])
        statuses.append(state.pop("status"))
        assert state == {
            "ociVersion": "1.3.0",
            "id": "c",
            "pid": 17,
            "bundle": "/run/c",
            "annotations": {"key": 'va"lue'},
        }
    assert statuses == ["creating", "creating", "creating", "created", "running", "stopped"]


@pytest.mark.skipif(not SCHEMA.exists(), reason="the schema is not here")
def test_the_states_words_are_the_schemas() -> None:
    schema = json.loads(SCHEMA.read_text())
    hooks = compile_hooks(spec(Hooks(poststop=[Hook(path="/x")])), "c", "/run/c").poststop
    assert hooks is not None
    state = json.loads(hooks[2] + b"0" + hooks[3])
    assert set(schema["required"]) <= set(state) <= set(schema["properties"])
    assert {"creating", "created", "running", "stopped"} == set(schema["properties"]["status"]["enum"])


@pytest.mark.parametrize(
    ("hook", "words"),
    [
        (Hook(path="x"), r'^hooks\.poststop\[1\]\.path: "x" is not an absolute path$'),
        (Hook(path=""), r"hooks\.poststop\[1\]\.path"),
        (Hook(path="/\0"), r"hooks\.poststop\[1\]\.path: a null"),
        (Hook(path="/x", args=["a\0"]), r"hooks\.poststop\[1\]\.args: a null"),
        (Hook(path="/x", env=["a\0"]), r"hooks\.poststop\[1\]\.env: a null"),
        (Hook(path="/x", timeout=0), r"hooks\.poststop\[1\]\.timeout: 0 is not"),
        (Hook(path="/x", timeout=-1), r"hooks\.poststop\[1\]\.timeout: -1 is not"),
    ],
)
def test_what_no_hook_can_be(hook: Hook, words: str) -> None:
    with pytest.raises(InvalidArgument, match=words):
        compile_hooks(spec(Hooks(poststop=[Hook(path="/x"), hook])), "c", "/run/c")


def test_a_seccomp_agent_is_told_of_the_process_and_its_container() -> None:
    asking = spec(None)
    assert asking.linux is not None
    asking.linux.seccomp = Seccomp(default_action="SCMP_ACT_ALLOW", listener_path="/x", listener_metadata='m"')
    assert listener_of(asking, "c", "/run/c", "running") is None
    asking.linux.seccomp.syscalls = [Syscall(names=["mkdir"], action="SCMP_ACT_NOTIFY")]
    found = listener_of(asking, "c", "/run/c", "running")
    assert found is not None
    assert found[0] == "/x"
    assert json.loads(found[1] + b"17" + found[2] + b"5" + found[3]) == {
        "ociVersion": "1.3.0",
        "fds": ["seccompFd"],
        "pid": 17,
        "metadata": 'm"',
        "state": {
            "ociVersion": "1.3.0",
            "id": "c",
            "status": "running",
            "pid": 5,
            "bundle": "/run/c",
            "annotations": {},
        },
    }


def hooks_of(*scripts: str, seconds: float = 0) -> Any:
    return ("poststop", tuple((SHELL, ("sh", "-c", text), (), seconds) for text in scripts), b'{"pid":', b"}")


def test_output_is_bounded_and_not_waited_for() -> None:
    noisy = "i=0; while [ $i -lt 20000 ]; do echo 0123456789 >&2; i=$((i+1)); done; (sleep 5; :) & exit 2"
    with pytest.raises(ChildFailed) as caught:
        running.run(hooks_of(noisy), 1)
    assert caught.value.step == running.STEP
    assert caught.value.detail.startswith("hooks.poststop[0]: running /bin/sh: exit status 2: 0123456789\n")
    assert len(caught.value.detail) < 2100


def test_a_state_that_nobody_reads_keeps_nobody(tmp_path: Path) -> None:
    kind, entries, head, _ = hooks_of("true", f"cat > {tmp_path}/state")
    running.run((kind, entries, head, b',"x":"' + b"y" * (1 << 20) + b'"}'), 5)
    assert len(json.loads((tmp_path / "state").read_text())["x"]) == 1 << 20


def test_a_poststop_hook_that_hangs_is_given_up() -> None:
    failures = running.run_all(hooks_of("exec sleep 100", "kill -9 $$", "true"), 0, 0.2)
    assert failures == [
        "hooks.poststop[0]: running /bin/sh: not done after 0.2 s",
        "hooks.poststop[1]: running /bin/sh: killed by signal 9",
    ]


def test_a_hook_outlives_its_container_by_its_grace(tmp_path: Path) -> None:
    ended = subprocess.Popen(["true"])
    watch = os.pidfd_open(ended.pid)
    try:
        running.run(hooks_of(f"sleep 0.2; echo done > {tmp_path}/out"), 1, watch=watch, grace=30)
        assert (tmp_path / "out").read_text() == "done\n"
        for seconds in (0.0, 100.0):
            with pytest.raises(ChildFailed, match="the container has ended meanwhile"):
                running.run(hooks_of("exec sleep 100", seconds=seconds), 1, watch=watch, grace=0.1)
    finally:
        os.close(watch)
        ended.wait()


def test_running_leaves_no_descriptor(tmp_path: Path) -> None:
    before = sorted(Path("/proc/self/fd").iterdir())
    running.run_all(hooks_of("true", "exit 1", "exec sleep 100"), 0, 0.1)
    with pytest.raises(ChildFailed):
        running.run(("prestart", (("/no/such", (), (), 0.0),), b"", b""), 1)
    assert len(sorted(Path("/proc/self/fd").iterdir())) == len(before)


@pytest.mark.parametrize(
    ("verb", "status", "target"),
    [
        ("start", "creating", "running"),
        ("start", "running", "running"),
        ("start", "paused", "running"),
        ("start", "stopped", "running"),
        ("pause", "paused", "paused"),
        ("pause", "stopped", "paused"),
        ("resume", "running", "running"),
        ("delete", "creating", "deleted"),
        ("delete", "running", "deleted"),
        ("delete", "paused", "deleted"),
        ("kill", "creating", "killed"),
        ("kill", "stopped", "killed"),
        ("exec in", "stopped", "running"),
        ("exec in", "paused", "running"),
    ],
)
def test_steps_that_no_container_takes_are_refused_by_name(verb: str, status: Any, target: str) -> None:
    with pytest.raises(IllegalTransition, match=f"cannot {verb} a container that is {status}") as caught:
        require(verb, "c", status)
    assert (caught.value.name, caught.value.source, caught.value.target) == ("c", status, target)
    assert f"from {status} to {target}" in str(caught.value)
