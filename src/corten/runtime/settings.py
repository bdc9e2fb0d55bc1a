"""Requests as the shim takes them: plain dictionaries and tuples that cross in `marshal`, plans compiled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from msgspec import structs, to_builtins
from msgspec.json import encode as json_encode

from corten.errors import InvalidArgument
from corten.logs.prepare import prepare
from corten.runtime.plan import cgroup_path, compile_exec, compile_launch
from corten.runtime.plan_mounts import Surroundings, compile_all
from corten.runtime.steps import BindMount, HoldTree
from corten.runtime.types import ExecRequest, LaunchRequest, Stdio, Stream
from corten.specs.oci_runtime import ConsoleSize, Linux, Namespace, Process, Spec

# crun before 1.9 takes nothing else, and all others take it: whatever else the document says is read or passed over.
EXTERNAL_VERSION = "1.0.2"


def of_stream(stream: Stream) -> tuple[bool, bool, bool, bool, bytes, bytes]:
    return (stream.stdin, stream.stdout, stream.stderr, stream.raw, stream.detach_keys, stream.prefix)


def of_launch(request: LaunchRequest, streams: Sequence[Stream]) -> dict[str, Any]:
    """The settings of LAUNCH. Raises InvalidArgument for what cannot be run or logged."""
    linux = request.spec.linux
    namespaces = linux.namespaces if linux is not None else []
    return {
        "id": request.id,
        "run_dir": str(request.run_dir),
        "exit_file": str(request.exit_file),
        "cgroup": cgroup_path(linux.cgroups_path) if linux is not None else "",
        "shared_pids": not any(space.type == "pid" and not space.path for space in namespaces),
        "log": prepare(request.log.driver, request.log.path, request.log.facts),
        "streams": [of_stream(stream) for stream in streams],
        "runtime": request.runtime,
        **(_of_external(request) if request.runtime else _of_embedded(request)),
        **_stdio(request.stdio),
    }


def _of_embedded(request: LaunchRequest) -> dict[str, Any]:
    plan = compile_launch(_sized(request))
    return {"wire": plan.to_wire(), "poststop": plan.hooks.poststop, "scope": plan.scope}


def _of_external(request: LaunchRequest) -> dict[str, Any]:
    """What takes the place of a plan when another runtime executes: the mounts of the root, and its config.json.

    In the latter the user is left open: names are looked up in the root, which only the shim has mounted.
    """
    spec = _sized(request).spec
    process, linux = spec.process, spec.linux or Linux()
    if process is None:
        raise InvalidArgument("the specification has no process")
    users = [space for space in linux.namespaces if space.type == "user"]
    root_only = Spec(
        oci_version=spec.oci_version,
        process=Process(cwd="/", args=["/"]),
        linux=Linux(
            namespaces=[Namespace(type="mount"), *users],
            uid_mappings=linux.uid_mappings,
            gid_mappings=linux.gid_mappings,
            rootfs_propagation=linux.rootfs_propagation,
        ),
    )
    plan = compile_launch(replace(request, spec=root_only, systemd_cgroup=False))
    count = max(1, len(request.rootfs))  # a mount each, after the propagation
    steps = (*plan.prepare[: 1 + count], *plan.steps[:count]) if users else plan.steps[: 1 + count]
    document = to_builtins(spec)
    del document["process"]
    document["ociVersion"] = EXTERNAL_VERSION
    limits = document.get("linux", {}).get("resources", {})
    if limits.get("pids", {}).get("limit", 0) < 0:
        # What a new group has anyway; crun 1.8 would write -1 where version 1 takes "max" alone.
        del limits["pids"]
    document["root"] = {**document.get("root", {}), "path": str(request.run_dir / "rootfs")}
    return {
        "root_steps": [step.to_wire() for step in steps],
        "root_users": plan.user,
        "root_volumes": [step.to_wire() for step in _idmapped(spec, document, request.run_dir)],
        "config": (_open_object(document), _of_process(process, request.user, request.groups)),
        "runtime_args": (*request.runtime_args, *(("--systemd-cgroup",) if request.systemd_cgroup else ())),
    }


def _idmapped(spec: Spec, document: dict[str, Any], run_dir: Path) -> list[HoldTree]:
    """The idmapped mounts. The shim makes them at the step's target, which in the document becomes their source: not
    all runtimes can map, and none is asked to.
    """
    remapped = any(space.type == "user" for space in (spec.linux or Linux()).namespaces)
    found: list[HoldTree] = []
    compiled = compile_all(spec.mounts, Surroundings(str(run_dir), "", False, remapped))
    for index, (step, mount) in enumerate(zip(compiled, document.get("mounts", ()), strict=True)):
        if isinstance(step, BindMount) and step.idmap:
            found.append(HoldTree(f"{run_dir}/idmapped/{index}", step.source, step.recursive, step.idmap))
            mount["source"] = found[-1].target
            mount["options"] = [word for word in mount["options"] if word not in ("idmap", "ridmap")]
            for name in ("uidMappings", "gidMappings"):
                mount.pop(name, None)
    return found


def _of_process(process: Process, user: str, groups: Sequence[str]) -> dict[str, Any]:
    """A process's document without environment and user, and what the shim needs to add them."""
    document = to_builtins(process)
    for name in ("env", "user"):
        document.pop(name, None)
    return {
        "document": _open_object(document),
        "env": list(process.env),
        "identity": (process.user.uid, process.user.gid, list(process.user.additional_gids)),
        "user": user,
        "groups": tuple(groups),
    }


def _open_object(document: dict[str, Any]) -> bytes:
    """A JSON object without its closing brace, to be continued with a comma."""
    return json_encode(document)[:-1]


def of_exec(
    request: ExecRequest, spec: Spec, run_dir: Path, external: bool, streams: Sequence[Stream]
) -> dict[str, Any]:
    """The settings of EXEC."""
    container = (request.container_id, str(run_dir))
    process = with_size(request.process, request.stdio)
    work: dict[str, Any]
    if external:
        work = {"process": _of_process(process, request.user, request.groups)}
    else:
        work = {"wire": compile_exec(process, spec, request.user, request.groups, container).to_wire()}
    stdio = _stdio(request.stdio)
    stdio["stdin_once"] = True  # an exec session's stdin has one user
    return {"streams": [of_stream(stream) for stream in streams], **work, **stdio}


def with_size(process: Process, stdio: Stdio) -> Process:
    """The process with the terminal's size in it: it is set before the program starts, which may ask at once."""
    if stdio.console_size is None:
        return process
    height, width = stdio.console_size
    return structs.replace(process, console_size=ConsoleSize(height=height, width=width))


def _sized(request: LaunchRequest) -> LaunchRequest:
    process = request.spec.process
    if process is None or request.stdio.console_size is None:
        return request
    return replace(request, spec=structs.replace(request.spec, process=with_size(process, request.stdio)))


def _stdio(stdio: Stdio) -> dict[str, Any]:
    return {
        "terminal": stdio.terminal,
        "open_stdin": stdio.open_stdin,
        "stdin_once": stdio.stdin_once,
        "size": stdio.console_size,
    }
