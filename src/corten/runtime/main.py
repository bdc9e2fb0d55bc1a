"""`corten-runtime`: the embedded runtime under the OCI command line, with runc's spelling of the options."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from msgspec import json, structs

from corten import __version__
from corten.errors import CortenError, InvalidArgument, NotImplementedYet, StartFailed
from corten.runtime.cgroups import Cgroup
from corten.runtime.oci import documents, operations
from corten.runtime.oci.log import Log
from corten.runtime.oci.operations import CreateOptions
from corten.runtime.oci.program import run_sealed
from corten.runtime.oci.state import DEFAULT_ROOT, Record, Store
from corten.specs.oci_runtime import VERSION, ConsoleSize, Process, decode_process

NOT_IMPLEMENTED = ("checkpoint", "restore", "events", "update")

Command = Callable[[Store, argparse.Namespace], int]


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Run one command and exit: 0, the code of the process that was waited for, or 1 with a message."""
    if argv is None:
        run_sealed(sys.argv[1:])
    arguments = _parser().parse_args(argv)
    log = Log(arguments.log, arguments.log_format)
    try:
        code = COMMANDS[arguments.command](Store(Path(arguments.root), log), arguments)
    except (CortenError, OSError) as error:
        log.error(str(error))
        code = error.exit_code if isinstance(error, StartFailed) and arguments.command == "exec" else 1
    sys.stdout.flush()
    # Not sys.exit: a container may share our standard streams, which must not be touched any more.
    os._exit(code)


def _options(arguments: argparse.Namespace) -> CreateOptions:
    return CreateOptions(
        Path(getattr(arguments, "bundle", ".")).resolve(), arguments.console_socket, arguments.pid_file
    )


def _create(store: Store, arguments: argparse.Namespace) -> int:
    operations.create(store, arguments.id, _options(arguments))
    return 0


def _start(store: Store, arguments: argparse.Namespace) -> int:
    operations.start(store, arguments.id)
    return 0


def _run(store: Store, arguments: argparse.Namespace) -> int:
    return operations.run(store, arguments.id, _options(arguments), detach=arguments.detach)


def _exec(store: Store, arguments: argparse.Namespace) -> int:
    record = store.load(arguments.id)
    process, user = _exec_process(store, record, arguments)
    return operations.execute(store, record.id, process, user, _options(arguments), detach=arguments.detach)


def _exec_process(store: Store, record: Record, arguments: argparse.Namespace) -> tuple[Process, str]:
    """Out of --process, or of the container's own process with what the command line changes."""
    if arguments.process:
        process = decode_process(Path(arguments.process).read_bytes())
    else:
        own = store.spec(record.id).process
        if own is None or not arguments.args:
            raise InvalidArgument("exec needs a command, or --process with a file")
        process = structs.replace(
            own,
            args=arguments.args,
            cwd=arguments.cwd or own.cwd,
            env=[*own.env, *arguments.env],
            terminal=arguments.tty,
        )
    if process.terminal and process.console_size is None:
        process = structs.replace(process, console_size=ConsoleSize(height=24, width=80))
    return process, arguments.user


def _state(store: Store, arguments: argparse.Namespace) -> int:
    _print(store.document(store.load(arguments.id)))
    return 0


def _kill(store: Store, arguments: argparse.Namespace) -> int:
    operations.kill(store, arguments.id, operations.signal_number(arguments.signal), everyone=arguments.all)
    return 0


def _delete(store: Store, arguments: argparse.Namespace) -> int:
    try:
        operations.delete(store, arguments.id, force=arguments.force)
    except CortenError:
        if not arguments.force or store.directory(arguments.id).exists():
            raise  # as runc, `delete --force` of what is not there is no error
    return 0


def _list(store: Store, arguments: argparse.Namespace) -> int:
    records = store.all()
    if arguments.quiet:
        sys.stdout.write("".join(f"{record.id}\n" for record in records))
    elif arguments.format == "json":
        _print([{**store.document(record), "created": _when(record)} for record in records])
    else:
        rows = [("ID", "PID", "STATUS", "BUNDLE", "CREATED")]
        for record in records:
            state = store.document(record)
            rows.append((record.id, str(state["pid"]), state["status"], record.bundle, _when(record)))
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        for row in rows:
            sys.stdout.write("   ".join(map(str.ljust, row, widths)).rstrip() + "\n")
    return 0


def _when(record: Record) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(record.created_ns // 10**9))


def _ps(store: Store, arguments: argparse.Namespace) -> int:
    pids = Cgroup(store.load(arguments.id).cgroup).pids()
    if arguments.format == "json":
        _print(pids)
    else:
        sys.stdout.write("PID\n" + "".join(f"{pid}\n" for pid in pids))
    return 0


def _pause(store: Store, arguments: argparse.Namespace) -> int:
    operations.pause(store, arguments.id, frozen=arguments.command == "pause")
    return 0


def _spec(store: Store, arguments: argparse.Namespace) -> int:
    path = Path(arguments.bundle) / "config.json"
    if path.exists():
        raise InvalidArgument(f"{path} exists; remove it first")
    path.write_bytes(json.format(json.encode(documents.default_spec()), indent=4) + b"\n")
    return 0


def _features(store: Store, arguments: argparse.Namespace) -> int:
    _print(documents.features())
    return 0


def _refuse(store: Store, arguments: argparse.Namespace) -> int:
    raise NotImplementedYet(f"{arguments.command} is not implemented")


def _print(document: Any) -> None:
    sys.stdout.write(json.format(json.encode(document), indent=2).decode() + "\n")


COMMANDS: dict[str, Command] = {
    "create": _create,
    "start": _start,
    "run": _run,
    "exec": _exec,
    "state": _state,
    "kill": _kill,
    "delete": _delete,
    "list": _list,
    "ps": _ps,
    "pause": _pause,
    "resume": _pause,
    "spec": _spec,
    "features": _features,
    **dict.fromkeys(NOT_IMPLEMENTED, _refuse),
}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="corten-runtime", description="An OCI runtime.", allow_abbrev=False)
    parser.add_argument("--root", default=str(DEFAULT_ROOT), help="where the state of containers is kept")
    parser.add_argument("--log", default="", help="a file for errors")
    parser.add_argument("--log-format", choices=("text", "json"), default="text")
    version = f"corten-runtime version {__version__}\nspec: {VERSION}"
    parser.add_argument("--version", "-v", action="version", version=version)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name in COMMANDS:
        command = commands.add_parser(name, allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter)
        if name in NOT_IMPLEMENTED:
            command.add_argument("rest", nargs=argparse.REMAINDER)
            continue
        _arguments_of(name, command)
    return parser


def _arguments_of(name: str, command: argparse.ArgumentParser) -> None:
    if name in ("create", "run", "spec"):
        command.add_argument("--bundle", "-b", default=".")
    if name in ("create", "run", "exec"):
        command.add_argument("--console-socket", default="")
        command.add_argument("--pid-file", default="")
    if name in ("run", "exec"):
        command.add_argument("--detach", "-d", action="store_true")
    if name in ("list", "ps"):
        command.add_argument("--format", "-f", choices=("table", "json"), default="table")
    if name == "list":
        command.add_argument("--quiet", "-q", action="store_true")
    if name == "delete":
        command.add_argument("--force", "-f", action="store_true")
    if name == "exec":
        command.add_argument("--process", "-p", default="")
        command.add_argument("--cwd", default="")
        command.add_argument("--env", "-e", action="append", default=[])
        command.add_argument("--user", "-u", default="")
        command.add_argument("--tty", "-t", action="store_true")
    if name == "kill":
        command.add_argument("--all", "-a", action="store_true")
    if name not in ("list", "spec", "features"):
        command.add_argument("id")
    if name == "kill":
        command.add_argument("signal", nargs="?", default="TERM")
    if name == "exec":
        command.add_argument("args", nargs=argparse.REMAINDER)


if __name__ == "__main__":
    main()
