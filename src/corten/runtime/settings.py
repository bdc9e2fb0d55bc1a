"""Requests as the shim takes them: plain dictionaries and tuples that cross in `marshal`, plans compiled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from msgspec import structs

from corten.logs.options import parse
from corten.runtime.plan import cgroup_path, compile_exec, compile_launch
from corten.runtime.types import ExecRequest, LaunchRequest, LogSpec, Stdio, Stream
from corten.specs.oci_runtime import ConsoleSize, Process, Spec


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
        "log": _log(request.log),
        "streams": [of_stream(stream) for stream in streams],
        "wire": compile_launch(_sized(request)).to_wire(),
        **_stdio(request.stdio),
    }


def of_exec(request: ExecRequest, spec: Spec, external: bool, streams: Sequence[Stream]) -> dict[str, Any]:
    """The settings of EXEC."""
    process = with_size(request.process, request.stdio)
    plan = compile_exec(process, spec, request.user, request.groups)
    stdio = _stdio(request.stdio)
    stdio["stdin_once"] = True  # an exec session's stdin has one user
    return {"streams": [of_stream(stream) for stream in streams], "wire": plan.to_wire(), **stdio}


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


def _log(log: LogSpec) -> tuple[str, str, int, int]:
    chosen = parse(log.driver, log.options)
    return (chosen.driver, str(log.path or ""), chosen.max_size, chosen.max_files)
