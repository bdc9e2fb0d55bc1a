"""The embedded runtime beside runc: time, memory, and many at once. Only ratios taken in one run count.

    .venv/bin/python -m benchmarks.runtime --rounds 50 --idle 500
    .venv/bin/python -m benchmarks.runtime --trace        # where the time of a start goes

Needs root, runc and a static busybox. Both run the same specification (all namespaces but the user's, no network, the
default seccomp profile, masked paths); their samples are taken in turn. Nothing is left behind.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import launch_trace
from benchmarks.bundle import Bundle, make_bundle
from corten.runtime.cgroups import Cgroup
from corten.runtime.client import RuntimeClient
from corten.runtime.spawner_process import SpawnerProcess
from corten.runtime.types import ExecRequest, ExitStatus, LaunchRequest, LogSpec, MountSpec, Stdio

PARENT = f"/corten-bench-{os.getpid()}"


@dataclass
class Ours:
    """The runtime's client as the daemon uses it, with what it has told of exits."""

    base: Path
    bundle: Bundle
    client: RuntimeClient
    ended: dict[str, asyncio.Future[ExitStatus]] = field(default_factory=dict)

    def expect(self, name: str) -> asyncio.Future[ExitStatus]:
        return self.ended.setdefault(name, asyncio.get_running_loop().create_future())

    async def exit_told(self, name: str, status: ExitStatus) -> None:
        self.expect(name).set_result(status)

    async def exec_exit_told(self, name: str, exec_id: str, status: ExitStatus) -> None:
        self.expect(exec_id).set_result(status)

    async def launch(self, name: str, *args: str) -> None:
        run_dir = self.base / "run" / name
        run_dir.mkdir(parents=True)
        rootfs = (MountSpec("bind", str(self.bundle.root), options=("rbind",)),)
        spec = self.bundle.spec(f"{PARENT}/{name}", args)
        exit_file = self.base / "state" / name / "exit.json"
        await self.client.launch(LaunchRequest(name, spec, run_dir, exit_file, rootfs, log=LogSpec("none")))

    async def lifecycle(self, name: str) -> None:
        await self.launch(name, "true")
        assert (await self.expect(name)).code == 0
        await self.client.forget(name)

    async def execute(self, name: str, exec_id: str) -> None:
        process = self.bundle.process(("true",))
        await self.client.execs.start(ExecRequest(name, exec_id, process, Stdio()))
        assert (await self.expect(exec_id)).code == 0

    async def end(self, name: str) -> None:
        await self.client.signal(name, 9)
        await self.expect(name)
        await self.client.forget(name)


@asynccontextmanager
async def ours(base: Path, bundle: Bundle) -> AsyncIterator[Ours]:
    made = Ours(base, bundle, RuntimeClient(base / "exec"))
    made.client.on_exit(made.exit_told)
    made.client.execs.on_exit(made.exec_exit_told)
    await made.client.start()
    try:
        yield made
    finally:
        await made.client.close()


@dataclass
class Runc:
    """The peer, by its command line as containerd calls it."""

    base: Path
    bundle: Bundle

    def run(self, *arguments: str) -> None:
        command = ["runc", "--root", str(self.base / "runc"), *arguments]
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)

    async def lifecycle(self, name: str) -> None:
        self.bundle.write(f"{PARENT}/{name}", ("true",))
        await asyncio.to_thread(self.run, "run", "--bundle", str(self.bundle.place), name)

    async def execute(self, name: str, exec_id: str) -> None:
        await asyncio.to_thread(self.run, "exec", name, "true")


async def timed(work: Awaitable[None]) -> float:
    """Milliseconds."""
    begin = time.perf_counter()
    await work
    return (time.perf_counter() - begin) * 1000


async def in_turn(
    rounds: int, first: Callable[[int], Awaitable[None]], second: Callable[[int], Awaitable[None]]
) -> tuple[float, float]:
    """The medians in ms, after two rounds that do not count."""
    samples: tuple[list[float], list[float]] = ([], [])
    for number in range(-2, rounds):
        for kept, work in zip(samples, (first, second), strict=True):
            took = await timed(work(number))
            if number >= 0:
                kept.append(took)
    return statistics.median(samples[0]), statistics.median(samples[1])


def pss_of(pid: int) -> float:
    """MiB."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1024
    raise AssertionError("no Pss in smaps_rollup")


def shims_of(spawner: int) -> list[int]:
    """Pids of the shims: children of the spawner."""
    return [int(pid) for pid in Path(f"/proc/{spawner}/task/{spawner}/children").read_text().split()]


def row(what: str, corten: str, runc: str = "", ratio: str = "", goal: str = "") -> None:
    print(f"| {what} | {runc} | {corten} | {ratio} | {goal} |", flush=True)


async def compare(base: Path, bundle: Bundle, rounds: int) -> None:
    runc = Runc(base, bundle)
    async with ours(base, bundle) as mine:
        a, b = await in_turn(rounds, lambda n: mine.lifecycle(f"a{n}"), lambda n: runc.lifecycle(f"b{n}"))
        row("create, start, wait, delete of `true`", f"{a:.1f} ms", f"{b:.1f} ms", f"{a / b:.2f}", "0.5")
        await mine.launch("box", "sleep", "1000")
        bundle.write(f"{PARENT}/peer", ("sleep", "1000"))
        await asyncio.to_thread(runc.run, "run", "--detach", "--bundle", str(bundle.place), "peer")
        try:
            a, b = await in_turn(rounds, lambda n: mine.execute("box", f"x{n}"), lambda n: runc.execute("peer", ""))
        finally:
            await asyncio.to_thread(runc.run, "delete", "--force", "peer")
            await mine.end("box")
        row("exec of `true`", f"{a:.1f} ms", f"{b:.1f} ms", f"{a / b:.2f}", "0.3")


async def spawner_start(base: Path, rounds: int) -> None:
    """From nothing to the end of a fork of the warm spawner, which was given nothing to do."""
    samples = []
    loop = asyncio.get_running_loop()
    for _ in range(rounds):
        spawner = SpawnerProcess(base / "spawner.log")
        begin = time.perf_counter()
        await spawner.start()
        with await spawner.fork() as shim:
            shim.shutdown(socket.SHUT_WR)
            assert await loop.sock_recv(shim, 1) == b""
        samples.append((time.perf_counter() - begin) * 1000)
        await spawner.close()
    row("start of the spawner, to the end of its first fork", f"{statistics.median(samples):.0f} ms", goal="≤ 60 ms")


async def many(base: Path, bundle: Bundle, count: int) -> None:
    async with ours(base / "many", bundle) as mine:
        begin = time.perf_counter()
        for first in range(0, count, 10):
            names = [f"m{number}" for number in range(first, min(first + 10, count))]
            await asyncio.gather(*(mine.launch(name, "sleep", "1000") for name in names))
        took = time.perf_counter() - begin
        row(f"{count} idle containers, 10 at a time", f"{took:.1f} s")
        shims = shims_of(mine.client.spawner_pid)
        assert len(shims) == count
        sizes = [pss_of(pid) for pid in shims[:: max(1, count // 50)]]
        row(f"memory of a shim among {count}, PSS", f"{statistics.mean(sizes):.2f} MiB", goal="≤ 1 MiB")
        begin = time.perf_counter()
        await asyncio.gather(*(mine.end(f"m{number}") for number in range(count)))
        row("ending them all", f"{time.perf_counter() - begin:.1f} s")


async def main(arguments: argparse.Namespace) -> None:
    for program in ("runc", "busybox"):
        if shutil.which(program) is None:
            sys.exit(f"{program} is not installed")
    with tempfile.TemporaryDirectory(prefix="corten-bench-") as place:
        base = Path(place)
        bundle = make_bundle(base / "bundle")
        try:
            if arguments.trace:
                launch_trace.report(bundle, f"{PARENT}/trace", arguments.rounds)
                return
            print(f"CPython {sys.version.split()[0]}, load {os.getloadavg()[0]:.1f}, medians of {arguments.rounds}\n")
            print("| what | runc | Corten | ratio | goal |\n| --- | --- | --- | --- | --- |")
            await compare(base, bundle, arguments.rounds)
            await spawner_start(base, min(arguments.rounds, 10))
            await many(base, bundle, arguments.idle)
        finally:
            Cgroup(PARENT).remove()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--idle", type=int, default=100, help="how many containers to run at once")
    parser.add_argument("--trace", action="store_true", help="print what each step of a start costs instead")
    asyncio.run(main(parser.parse_args()))
