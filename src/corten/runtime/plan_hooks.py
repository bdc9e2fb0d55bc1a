"""Hooks in a plan: who runs them, when, and with what state on their stdin. And what a seccomp agent is told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from corten.errors import InvalidArgument, clip
from corten.runtime import seccomp_rules
from corten.runtime.steps import Hooks
from corten.specs.oci_runtime import VERSION, Hook, Spec, encode

Listener = tuple[str, bytes, bytes, bytes]
"""As `runtime.child.listener` takes it."""

_MAX_SECONDS = 1 << 31


@dataclass(frozen=True, slots=True)
class HookPlan:
    """Of each kind what `runtime.child.hooks` takes, None where there are none.

    The pid in the state is the container's as the hook sees it: whoever runs the hooks puts it in.
    """

    prestart: Hooks | None = None
    create_runtime: Hooks | None = None
    create_container: Hooks | None = None
    start_container: Hooks | None = None
    poststart: Hooks | None = None
    poststop: Hooks | None = None

    def to_wire(self) -> dict[str, Any]:
        """What the parent needs; empty for a container without any hook."""
        if self == NO_HOOKS:
            return {}
        created = tuple(hooks for hooks in (self.prestart, self.create_runtime) if hooks is not None)
        return {"created": created, "started": self.poststart, "stopped": self.poststop}


NO_HOOKS = HookPlan()


def compile_hooks(spec: Spec, name: str, bundle: str) -> HookPlan:
    """Raises InvalidArgument, naming the member at fault."""
    hooks = spec.hooks
    if hooks is None:
        return NO_HOOKS

    def of(kind: str, found: Sequence[Hook], status: str) -> Hooks | None:
        if not found:
            return None
        entries = tuple(_entry(f"hooks.{kind}[{index}]", hook) for index, hook in enumerate(found))
        return (kind, entries, *state_around_pid(spec, name, bundle, status))

    return HookPlan(
        prestart=of("prestart", hooks.prestart, "creating"),
        create_runtime=of("createRuntime", hooks.create_runtime, "creating"),
        create_container=of("createContainer", hooks.create_container, "creating"),
        start_container=of("startContainer", hooks.start_container, "created"),
        poststart=of("poststart", hooks.poststart, "running"),
        poststop=of("poststop", hooks.poststop, "stopped"),
    )


def state_around_pid(spec: Spec, name: str, bundle: str, status: str) -> tuple[bytes, bytes]:
    """The state's JSON in two parts, between which the pid goes."""
    head = encode({"ociVersion": VERSION, "id": name, "status": status})
    tail = encode({"bundle": bundle, "annotations": spec.annotations})
    return head[:-1] + b',"pid":', b"," + tail[1:]


def listener_of(spec: Spec, name: str, bundle: str, status: str) -> Listener | None:
    """What a seccomp agent is told, the containerProcessState of the specification; None without a filter that asks."""
    profile = spec.linux.seccomp if spec.linux is not None else None
    if profile is None or not seccomp_rules.notifies(profile):
        return None
    head = encode({"ociVersion": VERSION, "fds": ["seccompFd"]})[:-1] + b',"pid":'
    middle = b"," + encode({"metadata": profile.listener_metadata})[1:-1] + b',"state":'
    state = state_around_pid(spec, name, bundle, status)
    return profile.listener_path, head, middle + state[0], state[1] + b"}"


def _entry(where: str, hook: Hook) -> tuple[str, tuple[str, ...], tuple[str, ...], float]:
    if not hook.path.startswith("/"):
        raise InvalidArgument(f'{where}.path: "{clip(hook.path, 200)}" is not an absolute path')
    for member, words in (("path", [hook.path]), ("args", hook.args), ("env", hook.env)):
        if any("\0" in word for word in words):
            raise InvalidArgument(f"{where}.{member}: a null character is in it")
    if hook.timeout is not None and not 0 < hook.timeout < _MAX_SECONDS:
        raise InvalidArgument(f"{where}.timeout: {hook.timeout} is not a number of seconds above zero")
    return hook.path, tuple(hook.args), tuple(hook.env), float(hook.timeout or 0)
