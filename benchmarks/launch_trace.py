"""Where the milliseconds of a start go: stamps of the monotonic clock from the control groups to execve and the end."""

from __future__ import annotations

import marshal
import statistics
import subprocess
import sys
from collections import defaultdict
from itertools import pairwise
from pathlib import Path

import corten
from benchmarks.bundle import Bundle
from corten.runtime.plan import compile_launch
from corten.runtime.types import LaunchRequest, MountSpec

DRIVER = Path(__file__).with_name("launch_driver.py")
SOURCE = Path(corten.__file__).parent.parent


def report(bundle: Bundle, cgroup: str, rounds: int) -> None:
    """Print the median of each part in microseconds, in the order of time."""
    rootfs = (MountSpec("bind", str(bundle.root), options=("rbind",)),)
    spec = bundle.spec(cgroup, ("true",))
    run_dir = bundle.place / "run"
    (run_dir / "rootfs").mkdir(parents=True)
    wire = compile_launch(LaunchRequest("trace", spec, run_dir, run_dir / "exit", rootfs)).to_wire()
    command = [sys.executable, "-I", "-S", str(DRIVER), str(SOURCE), str(rounds + 10)]
    names, traces = marshal.loads(subprocess.run(command, input=wire, check=True, stdout=subprocess.PIPE).stdout)
    spent: dict[str, list[int]] = defaultdict(list)
    for trace in traces[10:]:  # the first ones warm up
        here: dict[str, int] = defaultdict(int)
        ordered = sorted(trace, key=lambda entry: entry[1])
        for (what, since), (_, until) in pairwise(ordered):
            here[names[what]] += until - since
        for name, took in here.items():
            spent[name].append(took)
    print(f"| part | µs (median of {rounds}) |\n| --- | --- |")
    for name, samples in spent.items():
        print(f"| {name} | {statistics.median(samples) / 1000:.0f} |")
    print(f"| in all | {statistics.median(trace[-1][1] for trace in traces[10:]) / 1000:.0f} |")
