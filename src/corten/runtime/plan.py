"""From an OCI specification to a plan: what will be done, in order, decided before anything is forked.

Runs in cortend and may use what it likes; the plan's wire form is all that reaches the shim and the child.
"""

from __future__ import annotations

import marshal
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from corten.errors import InvalidArgument, clip
from corten.runtime import plan_checks, plan_linux, plan_mounts, plan_namespaces, plan_process, steps
from corten.runtime.cgroups import Write
from corten.runtime.cgroups_limits import limit_warnings, limits_of
from corten.runtime.mount_options import ROOT_PROPAGATIONS
from corten.runtime.plan_hooks import NO_HOOKS, HookPlan, Listener, compile_hooks, listener_of
from corten.runtime.plan_mounts import MountStep
from corten.runtime.types import LaunchRequest
from corten.specs.oci_runtime import Linux, Process, Spec

Steps = tuple[steps.Step, ...]

CGROUP_PARENT = "/corten"
"""Where a container's group is that is given none, or a relative path."""


@dataclass(frozen=True, slots=True)
class LaunchPlan:
    """All that `runtime.child.launch` needs. `flags` are CLONE_NEW…; `joins` are (CLONE_NEW…, path).

    With `prepare` it is a plan in two stages: those steps are done by a helper with the host's rights, which then
    enters `user` (path, uid and gid mappings) and makes a time namespace with `time_offsets`. `cgroup_owner` is the
    container's uid that gets its cgroup, -1 for nobody. The program gets `keep_fds` descriptors behind the standard
    streams, which the caller of `launch` has open.
    """

    id: str
    root: str
    flags: int
    joins: tuple[tuple[int, str], ...]
    pid_namespace: str
    unshare_cgroup: bool
    cgroup: str
    writes: tuple[Write, ...]
    scope: dict[str, Any]
    init: bool
    steps: Steps
    warnings: tuple[str, ...] = ()
    listener: Listener | None = None
    hooks: HookPlan = NO_HOOKS
    prepare: Steps = ()
    user: plan_namespaces.UserNamespace | None = None
    time_offsets: str = ""
    cgroup_owner: int = -1
    keep_fds: int = 0

    def to_wire(self) -> bytes:
        """marshal, as both ends are the same interpreter and json, with re, would cost the import budget; a pipe
        between the daemon and its own spawner is trusted."""
        return marshal.dumps(_wire(self))


@dataclass(frozen=True, slots=True)
class ExecPlan:
    """All that `runtime.child.join` needs. `namespaces` are CLONE_NEW… beyond those of every container; `prepare` is
    done before they are entered. `initial` are the CPUs to begin on, before the control group is entered; `enter` files
    of groups below `cgroup` that the process moves to, by writing 0."""

    cgroup: str
    initial: tuple[int, ...]
    steps: Steps
    warnings: tuple[str, ...] = ()
    listener: Listener | None = None
    namespaces: int = 0
    prepare: Steps = ()
    enter: tuple[str, ...] = ()
    keep_fds: int = 0

    def to_wire(self) -> bytes:
        return marshal.dumps(_wire(self))


def _wire(plan: LaunchPlan | ExecPlan) -> dict[str, Any]:
    fields = {name: getattr(plan, name) for name in plan.__dataclass_fields__}
    fields["steps"] = [step.to_wire() for step in plan.steps]
    fields["prepare"] = [step.to_wire() for step in plan.prepare]
    if isinstance(plan, LaunchPlan):
        fields["hooks"] = plan.hooks.to_wire()
    return fields


def compile_launch(request: LaunchRequest) -> LaunchPlan:
    """The plan of a container. Raises InvalidArgument for what the specification asks and Corten cannot do."""
    spec = request.spec
    process, linux = spec.process, spec.linux or Linux()
    if process is None:
        raise InvalidArgument("the specification has no process")
    spaces = plan_namespaces.spaces_of(linux)
    user, offsets = plan_namespaces.user_of(linux, spaces), plan_namespaces.offsets_of(linux, spaces)
    plan_checks.check(spec)
    plan_namespaces.check_user(process.user, user)
    mounts = _mounts(request, linux, spaces)
    writes = limits_of(spec)
    warnings = (
        *limit_warnings(linux.resources),
        *plan_process.warnings(process, linux),
        *plan_mounts.warnings(spec.mounts),
    )
    cgroup = cgroup_path(linux.cgroups_path)
    scope: dict[str, Any] = {}
    if request.systemd_cgroup:
        scope = scope_settings(linux, f"corten container {request.id}")
    hooks = compile_hooks(spec, request.id, str(request.run_dir))
    staged: dict[str, Any] = {}
    built: Steps = (
        *_root_steps(request, linux, mounts, "user" in spaces),
        *_tree_steps(spec, process, linux, mounts),
        *_namespace_steps(spec, linux, spaces),
        *_hook_steps(hooks),
        steps.PivotRoot(ROOT_PROPAGATIONS[linux.rootfs_propagation][1]),
        *plan_process.compile_steps(process, linux, request.user, request.groups, f"_ses.{request.id}"),
    )
    if needs_stage(built, spaces):
        from corten.runtime import plan_stage

        staged["prepare"], built = plan_stage.split(built, spaces)
        if plan_stage.delegated(spec.mounts, spaces):
            staged["cgroup_owner"] = process.user.uid
    return LaunchPlan(
        id=request.id,
        root=_root_path(request),
        flags=plan_namespaces.flags_of(spaces),
        joins=plan_namespaces.joins_of(spaces),
        pid_namespace=spaces.get("pid", ""),
        unshare_cgroup="cgroup" in spaces and not spaces["cgroup"],
        cgroup=cgroup,
        writes=writes,
        scope=scope,
        init=request.init,
        steps=built,
        warnings=warnings,
        hooks=hooks,
        user=user,
        time_offsets=offsets,
        listener=listener_of(spec, request.id, str(request.run_dir), "created"),
        **staged,
    )


def rehearsal() -> LaunchPlan:
    """A plan without namespaces and mounts, for `shim.rehearsal`."""
    return LaunchPlan(
        id="rehearsal",
        root="/",
        flags=0,
        joins=(),
        pid_namespace="",
        unshare_cgroup=False,
        cgroup="/rehearsal",
        writes=(),
        scope={},
        init=False,
        steps=(steps.Rehearse(),),
    )


def _hook_steps(hooks: HookPlan) -> Iterator[steps.Step]:
    if hooks.prestart is not None or hooks.create_runtime is not None:
        yield steps.AwaitRuntimeHooks()
    if hooks.create_container is not None:
        yield steps.RunCreateContainerHooks(hooks.create_container)
    if hooks.start_container is not None:
        yield steps.KeepStartContainerHooks(hooks.start_container)


def compile_exec(
    process: Process, spec: Spec, user: str, groups: Sequence[str], container: tuple[str, str] = ("", "")
) -> ExecPlan:
    """The plan of a further process in the container of `spec`, whose name and bundle are `container`: a seccomp agent
    is told of them. Raises InvalidArgument."""
    linux = spec.linux or Linux()
    plan_checks.check_text(process)
    console: tuple[steps.Step, ...] = ()
    if process.terminal:
        console = (_console(process, bind=False),)
    built: Steps = (*console, *plan_process.compile_steps(process, linux, user, groups, ""))
    prepare: Steps = ()
    rare = {space.type for space in linux.namespaces} & {"user", "time"}
    if "user" in rare:
        from corten.runtime import plan_stage

        prepare, built = plan_stage.split_exec(built)
        plan_namespaces.check_user(process.user, plan_namespaces.user_of(linux, plan_namespaces.spaces_of(linux)))
    return ExecPlan(
        cgroup=cgroup_path(linux.cgroups_path),
        initial=plan_process.initial_cpus(process),
        steps=built,
        warnings=tuple(plan_process.warnings(process, linux)),
        namespaces=sum(plan_namespaces.NAMESPACES[kind] for kind in rare),
        prepare=prepare,
        listener=listener_of(spec, *container, "running"),
    )


def cgroup_path(path: str) -> str:
    """An absolute path; systemd's "slice:prefix:name" becomes the place where systemd would put it, and a relative one
    lies below the runtime's own parent of all groups. Raises InvalidArgument.

    None stays none: such a plan can be looked at and not launched, as without a group of its own a container could not
    be ended for certain.
    """
    if not path:
        return ""
    if path.count(":") == 2 and "/" not in path:
        from corten.runtime.cgroups_units import scope_of  # few need it, and a start of corten-runtime is counted

        return scope_of(path).path
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise InvalidArgument(f"linux.cgroupsPath must not lead upwards: {clip(path)}")
    if not parts:
        raise InvalidArgument("linux.cgroupsPath must not be the root")
    return ("" if path.startswith("/") else CGROUP_PARENT) + "/" + "/".join(parts)


def scope_settings(linux: Linux, description: str) -> dict[str, Any]:
    """What `child.scope` needs to have systemd make the group. Raises InvalidArgument."""
    import importlib.util

    from corten.runtime.cgroups_units import bus_address, scope_of, start_properties

    scope = scope_of(linux.cgroups_path)
    library = importlib.util.find_spec("jeepney")
    if library is None or not library.origin:
        raise InvalidArgument("systemd as the cgroup driver needs the Python package jeepney")
    return {
        "unit": scope.unit,
        "properties": start_properties(scope, description, linux.resources),
        "address": bus_address(),
        "site": os.path.dirname(os.path.dirname(library.origin)),
    }


def _root_path(request: LaunchRequest) -> str:
    """An absolute path without symbolic links, so that it can be found among the mounts."""
    path = request.spec.root.path if request.spec.root is not None else "rootfs"
    return os.path.realpath(request.run_dir / path)


def _mounts(request: LaunchRequest, linux: Linux, spaces: dict[str, str]) -> list[MountStep]:
    label = plan_mounts.checked_label(linux.mount_label)
    around = plan_mounts.Surroundings(str(request.run_dir), label, "cgroup" in spaces, "user" in spaces)
    return plan_mounts.compile_all(request.spec.mounts, around)


def _root_steps(
    request: LaunchRequest, linux: Linux, mounts: Sequence[MountStep], remapped: bool
) -> Iterator[steps.Step]:
    if linux.rootfs_propagation in ("shared", "rshared"):
        # The mounts stay peers of the host's, as somebody wants to mount from inside; just the root must not. Sources
        # of volumes may lie on the very mount that is made private for it: they are taken before.
        for step in mounts:
            if isinstance(step, steps.BindMount):
                yield steps.HoldTree(step.target, step.source, step.recursive, step.idmap)
        yield steps.IsolateRootParent()
    else:
        yield steps.SetPropagation(ROOT_PROPAGATIONS[linux.rootfs_propagation][0])
    if not request.rootfs:
        yield steps.BindMount(_root_path(request), "", True, (0, 0, 0, 0, ()))
    for index, layer in enumerate(request.rootfs):
        if index == 0 and layer.target not in ("", "/"):
            raise InvalidArgument("the first mount of a root file system must be the root itself")
        yield plan_mounts.compile_root(layer, layer.target if index else "", remapped=remapped)


def _tree_steps(spec: Spec, process: Process, linux: Linux, mounts: Sequence[MountStep]) -> Iterator[steps.Step]:
    yield from map(plan_mounts.writable, mounts)
    own_dev = not any(isinstance(step, steps.BindMount) and step.target == "/dev" for step in mounts)
    yield from plan_linux.devices(linux, own_dev=own_dev)
    if process.terminal:
        yield _console(process, bind=own_dev)
    for step in mounts:
        if plan_mounts.writable(step) is not step:
            yield steps.ReadonlyMount(step.target)
    for path in linux.readonly_paths:
        yield steps.ReadonlyPath(path)
    for path in linux.masked_paths:
        yield steps.MaskPath(path)
    if spec.root is not None and spec.root.readonly:
        yield steps.ReadonlyRoot()


def _namespace_steps(spec: Spec, linux: Linux, spaces: dict[str, str]) -> Iterator[steps.Step]:
    if spec.hostname or spec.domainname:
        if spaces.get("uts", "host"):
            raise InvalidArgument("a hostname needs a UTS namespace of the container's own")
        if spec.hostname:
            yield steps.SetHostname(spec.hostname)
        if spec.domainname:
            yield steps.SetDomainname(spec.domainname)
    if spaces.get("network", "host") == "":
        yield steps.RaiseLoopback()
    yield from plan_linux.net_devices(linux.net_devices, spaces)
    yield from plan_linux.sysctls(linux, spaces)


def needs_stage(built: Sequence[steps.Step], spaces: dict[str, str]) -> bool:
    """Whether this is a plan in two stages (`plan_stage`)."""
    return (
        "user" in spaces
        or "time" in spaces
        or bool(spaces["mount"])
        or any(isinstance(step, (steps.BindMount, steps.OverlayMount)) and step.idmap for step in built)
    )


def _console(process: Process, *, bind: bool) -> steps.OpenConsole:
    size = process.console_size
    return steps.OpenConsole(size.height if size else 0, size.width if size else 0, bind)
