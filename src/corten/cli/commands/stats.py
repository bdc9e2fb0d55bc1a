"""`corten stats`. A thread per container reads its samples; the main thread draws."""

from __future__ import annotations

import sys
import threading
import time

from corten.cli.commands.ps import FORMAT_HELP
from corten.cli.context import Context, say_error
from corten.cli.errors import Exit
from corten.cli.failure import describe
from corten.cli.flags import Command, Flag, Options
from corten.cli.records import Shape, render
from corten.cli.terminal import is_terminal
from corten.cli.units import binary_size, human_size
from corten.cli.usage import Usage, measure
from corten.client.errors import ClientError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

INTERVAL_S = 0.5
NONE = "--"


class Watched:
    """One container under observation. Written by its thread, read by the drawing one; `usage` None until a sample."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.usage: Usage | None = None
        self.failure = ""
        self.gone = False
        self.first = threading.Event()


def shape(*, truncate: bool) -> Shape:
    """The fields of `stats`."""

    def field(show: Any) -> Any:
        return lambda row: NONE if row.usage is None else show(row.usage)

    return Shape(
        "container.statsContext",
        {
            "Container": lambda row: row.name[:12] if truncate and len(row.name) == 64 else row.name,
            "Name": lambda row: (row.usage.name if row.usage else "").lstrip("/") or NONE,
            "ID": lambda row: _id(row, truncate=truncate),
            "CPUPerc": field(lambda usage: f"{usage.cpu_percent:.2f}%"),
            "MemUsage": lambda row: _memory(row.usage),
            "MemPerc": field(lambda usage: f"{usage.memory_percent:.2f}%"),
            "NetIO": field(lambda usage: f"{human_size(usage.received, 3)} / {human_size(usage.sent, 3)}"),
            "BlockIO": field(lambda usage: f"{human_size(usage.read, 3)} / {human_size(usage.written, 3)}"),
            "PIDs": field(lambda usage: str(usage.pids)),
        },
        {
            "Container": "CONTAINER",
            "Name": "NAME",
            "ID": "CONTAINER ID",
            "CPUPerc": "CPU %",
            "MemUsage": "MEM USAGE / LIMIT",
            "MemPerc": "MEM %",
            "NetIO": "NET I/O",
            "BlockIO": "BLOCK I/O",
            "PIDs": "PIDS",
        },
        ("ID", "Name", "CPUPerc", "MemUsage", "MemPerc", "NetIO", "BlockIO", "PIDs"),
    )


def _id(row: Watched, *, truncate: bool) -> str:
    found = row.usage.id if row.usage else row.name
    return found[:12] if truncate else found


def _memory(usage: Usage | None) -> str:
    return f"{NONE} / {NONE}" if usage is None else f"{binary_size(usage.memory)} / {binary_size(usage.memory_limit)}"


class Watcher:
    """The containers that are shown, in the order that they came in."""

    def __init__(self, context: Context, *, stream: bool) -> None:
        self._context, self._stream = context, stream
        self._lock = threading.Lock()
        self._rows: dict[str, Watched] = {}

    def rows(self) -> list[Watched]:
        with self._lock:
            return [row for row in self._rows.values() if not row.gone]

    def add(self, name: str) -> None:
        with self._lock:
            if name in self._rows and not self._rows[name].gone:
                return
            row = self._rows[name] = Watched(name)
        threading.Thread(target=self._collect, args=(row,), daemon=True).start()

    def remove(self, name: str) -> None:
        with self._lock:
            self._rows.pop(name, None)

    def follow(self, *, all_: bool) -> None:
        """Adds containers as they start and takes out those that end; for `stats` without names."""
        wanted = {"type": ["container"]}
        try:
            for event in Context(self._context.globals).client.system.events(filters=wanted):
                action, identifier = event.get("Action"), event["Actor"]["ID"]
                if action == "start" or (action == "create" and all_):
                    self.add(identifier)
                elif action == "destroy" or (action == "die" and not all_):
                    self.remove(identifier)
        except ClientError:
            return  # The table goes on with what it has; its own requests will say what is wrong.

    def _collect(self, row: Watched) -> None:
        client = Context(self._context.globals).client  # a connection of the thread's own
        previous: dict[str, Any] | None = None
        try:
            for sample in client.container_io.stats(row.name, stream=self._stream):
                row.usage = measure(sample, previous)
                previous = sample
                row.first.set()
                if not self._stream:
                    return
        except (ClientError, OSError) as error:
            row.failure = str(describe(error))
            row.gone = True
        finally:
            row.first.set()


def _stats(context: Context, options: Options) -> None:
    watcher = Watcher(context, stream=not options["no-stream"])
    names = options.args or [row["Id"] for row in context.client.containers.list(all=options["all"])]
    for name in options.args:
        context.client.containers.inspect(name)  # a name that does not exist is an error at once
    for name in names:
        watcher.add(name)
    if not options.args and not options["no-stream"]:
        threading.Thread(target=watcher.follow, kwargs={"all_": options["all"]}, daemon=True).start()
    rows = watcher.rows()
    for row in rows:
        row.first.wait(10)
    layout = shape(truncate=not options["no-trunc"])
    format_ = options["format"] or context.config.get("statsFormat") or ""
    if options["no-stream"]:
        sys.stdout.write(render(layout, watcher.rows(), format_))
    else:
        _draw(watcher, layout, format_, named=bool(options.args))
    failures = [row.failure for row in rows if row.failure]
    for failure in failures:
        say_error(failure)
    if failures:
        raise Exit(1)


def _draw(watcher: Watcher, layout: Shape, format_: str, *, named: bool) -> None:
    """Until Ctrl-C, or until all named containers have gone."""
    terminal = is_terminal(1)
    if terminal:
        sys.stdout.write("\x1b[2J")
    while True:
        rows = watcher.rows()
        text = render(layout, rows, format_)
        if terminal:
            text = "\x1b[H" + text.replace("\n", "\x1b[K\n") + "\x1b[J"
        sys.stdout.write(text)
        sys.stdout.flush()
        if named and not rows:
            return
        time.sleep(INTERVAL_S)


STATS = Command(
    "container stats",
    "[OPTIONS] [CONTAINER...]",
    _stats,
    (
        Flag("all", "a", "bool", "Show all containers (default shows just running)"),
        Flag("format", "", "string", FORMAT_HELP),
        Flag("no-stream", "", "bool", "Show one result and end"),
        Flag("no-trunc", "", "bool", "Do not truncate output"),
    ),
)
