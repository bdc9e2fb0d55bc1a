"""The commands of `corten-runtime`, each a function of the store and what its command line says.

The program is started anew for each command: what only some of them need is imported by those.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from msgspec import json

from corten.errors import CortenError, InvalidArgument, NotImplementedYet, SystemFault, clip
from corten.runtime.cgroups import Cgroup
from corten.runtime.oci.options import Options
from corten.runtime.oci.state import Record, Store

Command = Callable[[Store, Options], int]


def create(store: Store, options: Options) -> int:
    from corten.runtime.oci import operations
    from corten.runtime.oci.callers import Wishes

    operations.create(store, options.args[0], Wishes.of(options))
    return 0


def start(store: Store, options: Options) -> int:
    from corten.runtime.oci import operations

    operations.start(store, options.args[0])
    return 0


def run(store: Store, options: Options) -> int:
    from corten.runtime.oci import operations
    from corten.runtime.oci.callers import Wishes

    modes = operations.RunModes(options.has("detach"), options.has("keep"), options.has("no-subreaper"))
    return operations.run(store, options.args[0], Wishes.of(options), modes)


def execute(store: Store, options: Options) -> int:
    from corten.runtime.oci import execs

    return execs.execute(store, options)


def state(store: Store, options: Options) -> int:
    show(store.document(store.load(options.args[0])))
    return 0


def kill(store: Store, options: Options) -> int:
    from corten.runtime.oci import operations

    name, *signals = options.args
    number = operations.signal_number(signals[0] if signals else "TERM")
    operations.kill(store, name, number, everyone=options.has("all"))
    return 0


def delete(store: Store, options: Options) -> int:
    from corten.runtime.oci import operations

    name, force = options.args[0], options.has("force")
    try:
        operations.delete(store, name, force=force)
    except CortenError:
        if not force or store.directory(name).exists():
            raise  # as runc, `delete --force` of what is not there is no error
    return 0


def pause(store: Store, options: Options) -> int:
    from corten.runtime.oci import operations

    operations.pause(store, options.args[0], frozen=True)
    return 0


def resume(store: Store, options: Options) -> int:
    from corten.runtime.oci import operations

    operations.pause(store, options.args[0], frozen=False)
    return 0


def update(store: Store, options: Options) -> int:
    from corten.runtime.oci import updating

    updating.update(store, options)
    return 0


def events(store: Store, options: Options) -> int:
    from corten.runtime.oci import events as streaming

    streaming.events(store, options)
    return 0


def listing(store: Store, options: Options) -> int:
    records = store.all()
    if options.has("quiet"):
        sys.stdout.write("".join(f"{record.id}\n" for record in records))
    elif _format(options) == "json":
        show([{**store.document(record), "owner": _owner(store, record)} for record in records])
    else:
        rows = [("ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER")]
        for record in records:
            found = store.document(record)
            row = (record.id, str(found["pid"]), found["status"], record.bundle, found["created"])
            rows.append((*row, _owner(store, record)))
        _table(rows)
    return 0


def _owner(store: Store, record: Record) -> str:
    import pwd

    try:
        number = store.directory(record.id).stat().st_uid
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return f"#{number}"
    except OSError:  # deleted meanwhile
        return ""


def _table(rows: Sequence[Sequence[str]]) -> None:
    widths = [max(12, *(len(row[column]) + 3 for row in rows)) for column in range(len(rows[0]))]
    for row in rows:
        sys.stdout.write("".join(map(str.ljust, row, widths)).rstrip() + "\n")


def ps(store: Store, options: Options) -> int:
    name, *words = options.args
    pids = Cgroup(store.load(name).cgroup).pids()
    if _format(options) == "json":
        show(sorted(pids))
    else:
        for line in _matching(_ps_lines(words or ["-ef"]), set(pids)):
            sys.stdout.write(line + "\n")
    return 0


def _ps_lines(words: Sequence[str]) -> list[str]:
    import subprocess

    try:
        ran = subprocess.run(["ps", *words], capture_output=True, text=True, errors="replace", check=False)
    except FileNotFoundError:
        raise SystemFault("ps is not installed; --format json needs none", step="ps") from None
    if ran.returncode:
        raise InvalidArgument(f"ps {clip(' '.join(words))}: {clip(ran.stderr.strip())}")
    return ran.stdout.splitlines()


def _matching(lines: Sequence[str], pids: set[int]) -> list[str]:
    """The heading and the lines of the processes, by the column PID."""
    heading = lines[0].split() if lines else []
    if "PID" not in heading:
        raise InvalidArgument("the output of ps has no column PID")
    column = heading.index("PID")
    found = [lines[0]]
    for line in lines[1:]:
        fields = line.split()
        if len(fields) > column and fields[column].isdigit() and int(fields[column]) in pids:
            found.append(line)
    return found


def spec(store: Store, options: Options) -> int:
    from corten.runtime.oci import documents

    path = Path(options.text("bundle", ".")) / "config.json"
    document = documents.rootless_spec() if options.has("rootless") else documents.default_spec()
    try:
        with open(path, "xb") as file:
            file.write(json.format(json.encode(document), indent=4) + b"\n")
    except FileExistsError:
        raise InvalidArgument(f"{path} exists; remove it first") from None
    return 0


def features(store: Store, options: Options) -> int:
    from corten.runtime.oci import documents

    show(documents.features())
    return 0


def checkpoint(store: Store, options: Options) -> int:
    raise NotImplementedYet("checkpoint is not implemented")


def restore(store: Store, options: Options) -> int:
    raise NotImplementedYet("restore is not implemented")


def _format(options: Options) -> str:
    chosen = options.text("format", "table")
    if chosen not in ("table", "json"):
        raise InvalidArgument(f"--format {clip(chosen, 40)}: table or json")
    return chosen


def show(document: Any) -> None:
    sys.stdout.write(json.format(json.encode(document), indent=2).decode() + "\n")


COMMANDS: dict[str, Command] = {
    "create": create,
    "run": run,
    "start": start,
    "state": state,
    "exec": execute,
    "kill": kill,
    "delete": delete,
    "pause": pause,
    "resume": resume,
    "ps": ps,
    "list": listing,
    "events": events,
    "update": update,
    "spec": spec,
    "features": features,
    "checkpoint": checkpoint,
    "restore": restore,
}
