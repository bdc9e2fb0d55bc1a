"""Scheduling, memory policy, limits and identity, as the process itself has them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from corten.runtime.cgroups import host_layout
from corten.specs.oci_runtime import (
    CPU,
    Capabilities,
    ExecCPUAffinity,
    IOPriority,
    Linux,
    MemoryPolicy,
    Personality,
    Process,
    Scheduler,
    Spec,
)
from tests.kernel.launching import CAPABILITIES, Lab, leftovers, needs_root, remove_parents

pytestmark = [pytest.mark.root, needs_root]
LAST_CPU = str(max(os.sched_getaffinity(0)))
RESET_ON_FORK = 0x40000000


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    made = Lab(tmp_path)
    yield made
    assert not leftovers(made.cgroup)
    remove_parents(os.path.dirname(made.cgroup))


def having(change: Callable[[Process, Linux], Any]) -> Callable[[Spec], None]:
    def apply(spec: Spec) -> None:
        assert spec.process is not None
        assert spec.linux is not None
        change(spec.process, spec.linux)

    return apply


def scheduled(**settings: Any) -> Callable[[Spec], None]:
    return having(lambda process, linux: setattr(process, "scheduler", Scheduler(**settings)))


def grant_real_time(lab: Lab, spec: Spec) -> None:
    """Where groups have shares of real time (RT_GROUP_SCHED, version 1) a new one has none of it."""
    hierarchy = host_layout().of("cpu")
    if hierarchy is None or not os.path.exists(f"{hierarchy.mountpoint}/cpu.rt_runtime_us"):
        return
    parent = Path(hierarchy.mountpoint + os.path.dirname(lab.cgroup))
    parent.mkdir(exist_ok=True)
    (parent / "cpu.rt_runtime_us").write_text("10000")
    assert spec.linux is not None
    assert spec.linux.resources is not None
    spec.linux.resources.cpu = CPU(realtime_runtime=5000)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"policy": "SCHED_OTHER", "nice": 5}, (os.SCHED_OTHER, 0, 5)),
        ({"policy": "SCHED_BATCH", "nice": -3}, (os.SCHED_BATCH, 0, -3)),
        ({"policy": "SCHED_IDLE"}, (os.SCHED_IDLE, 0, 0)),
        ({"policy": "SCHED_FIFO", "priority": 3}, (os.SCHED_FIFO, 3, 0)),
        (
            {"policy": "SCHED_RR", "priority": 9, "flags": ["SCHED_FLAG_RESET_ON_FORK"]},
            (os.SCHED_RR | RESET_ON_FORK, 9, 0),
        ),
        (
            {
                "policy": "SCHED_DEADLINE",
                "runtime": 1_000_000,
                "deadline": 50_000_000,
                "period": 100_000_000,
                "flags": ["SCHED_FLAG_RECLAIM"],
            },
            (6, 0, 0),
        ),
    ],
)
def test_scheduler(lab: Lab, settings: dict[str, Any], expected: tuple[int, int, int]) -> None:
    probe = (
        "import os\nanswer['seen'] = (os.sched_getscheduler(main.pid), os.sched_getparam(main.pid).sched_priority, "
        "os.getpriority(os.PRIO_PROCESS, main.pid))"
    )

    def change(spec: Spec) -> None:
        scheduled(**settings)(spec)
        if settings["policy"] in ("SCHED_FIFO", "SCHED_RR"):
            grant_real_time(lab, spec)

    done = lab.run("cat", change=change, probe=probe)
    assert done.failure is None, done.failure
    assert done.answer["seen"] == expected


def test_real_time_that_a_group_has_not(lab: Lab) -> None:
    hierarchy = host_layout().of("cpu")
    shared = hierarchy is not None and os.path.exists(f"{hierarchy.mountpoint}/cpu.rt_runtime_us")
    done = lab.run("true", change=scheduled(policy="SCHED_FIFO", priority=1))
    assert (done.failure is not None) == shared
    assert done.failure is None or "(process.scheduler), for which linux.resources.cpu.realtime" in done.failure[2]


def test_a_scheduler_that_the_kernel_does_not_have(lab: Lab) -> None:
    done = lab.run("true", change=scheduled(policy="SCHED_ISO"))
    assert done.failure is not None
    assert done.failure[2] == "setting the scheduling policy (process.scheduler): invalid argument"


@pytest.mark.parametrize(
    ("kind", "priority", "expected"),
    [("BE", 2, "best-effort: prio 2"), ("IDLE", 0, "idle"), ("RT", 7, "realtime: prio 7")],
)
def test_io_priority(lab: Lab, kind: str, priority: int, expected: str) -> None:
    wanted = IOPriority(class_=f"IOPRIO_CLASS_{kind}", priority=priority)
    done = lab.run("sh", "-c", "ionice -p $$", change=having(lambda p, n: setattr(p, "io_priority", wanted)))
    assert done.out.strip() == expected, done


def set_personality(domain: str, process: Process, linux: Linux) -> None:
    linux.personality = Personality(domain=domain)


def test_personality(lab: Lab) -> None:
    for domain, expected in (("LINUX32", "i686"), ("LINUX", os.uname().machine)):
        done = lab.run("uname", "-m", change=having(partial(set_personality, domain)))
        assert os.uname().machine != "x86_64" or done.out.strip() == expected, done


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"mode": "MPOL_DEFAULT"}, "default"),
        ({"mode": "MPOL_BIND", "nodes": "0"}, "bind:0"),
        ({"mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES"]}, "bind=static:0"),
        ({"mode": "MPOL_INTERLEAVE", "nodes": "0", "flags": ["MPOL_F_RELATIVE_NODES"]}, "interleave=relative:0"),
        ({"mode": "MPOL_PREFERRED", "nodes": "0"}, "prefer:0"),
        ({"mode": "MPOL_LOCAL"}, "local"),
    ],
)
def test_memory_policy(lab: Lab, settings: dict[str, Any], expected: str) -> None:
    change = having(lambda process, linux: setattr(linux, "memory_policy", MemoryPolicy(**settings)))
    later = Process(cwd="/", args=["cat", "/proc/self/numa_maps"], env=["PATH=/bin"])
    done = lab.run("cat", "/proc/self/numa_maps", "-", change=change, execs=[(later, "")])
    assert done.failure is None, done.failure
    lines = done.out.splitlines()
    assert {line.split()[1] for line in lines} == {expected}
    assert len([line for line in lines if "stack" in line]) == 2, "the first process's and the later one's"


@pytest.mark.parametrize("settings", [{"mode": "MPOL_BIND", "nodes": "1000"}, {"mode": "MPOL_DEFAULT", "nodes": "0"}])
def test_a_memory_policy_that_the_machine_cannot_have(lab: Lab, settings: dict[str, Any]) -> None:
    done = lab.run("true", change=having(lambda p, n: setattr(n, "memory_policy", MemoryPolicy(**settings))))
    assert done.failure is not None
    assert done.failure[2] == "setting linux.memoryPolicy: invalid argument"


def test_affinity_of_later_processes(lab: Lab) -> None:
    show = ["grep", "Cpus_allowed_list", "/proc/self/status"]

    def later(**affinity: str) -> tuple[Process, str]:
        return Process(cwd="/", args=show, env=["PATH=/bin"], exec_cpu_affinity=ExecCPUAffinity(**affinity)), ""

    def change(process: Process, linux: Linux) -> None:
        process.exec_cpu_affinity = ExecCPUAffinity(initial="1000", final="1000")  # not for the first process

    probe = "import os; answer['mine'] = sorted(os.sched_getaffinity(0))"
    execs = [later(initial="0", final=LAST_CPU), later(initial="0"), later(initial="1000"), later(final="1000")]
    done = lab.run("cat", execs=execs, probe=probe, change=having(change))
    assert done.failure is None, done.failure
    assert done.out.splitlines()[0].split()[1] == LAST_CPU
    assert [entry.get("code") for entry in done.execs] == [0, 0, None, None]
    for entry, name in zip(done.execs[2:], ("initial", "final"), strict=True):
        assert f"process.execCPUAffinity.{name}" in entry["failure"][2]
    assert done.answer["mine"] == sorted(os.sched_getaffinity(0)), "the launcher is left where it was"


def test_oom_score(lab: Lab) -> None:
    def change(value: int) -> Callable[[Spec], None]:
        return having(lambda process, linux: setattr(process, "oom_score_adj", value))

    assert lab.run("cat", "/proc/self/oom_score_adj", change=change(500)).out == "500\n"
    lowered = lab.run("cat", "/proc/self/oom_score_adj", change=change(-500), wrap=without("sys_resource"))
    assert lowered.code == 0
    assert len([text for text in lowered.warnings if "oom_score_adj -500 was not set" in text]) == 1


def without(capability: str) -> tuple[str, ...]:
    """Runs the launcher without a capability; the host may not have it anyway."""
    return ("setpriv", f"--bounding-set=-{capability}")


def test_a_capability_that_cannot_be_granted_is_a_warning(lab: Lab) -> None:
    names = [*CAPABILITIES, "CAP_SYS_TIME"]
    sets = Capabilities(bounding=names, effective=names, permitted=names)
    done = lab.run(
        "grep", "CapEff", "/proc/self/status",
        change=having(lambda process, linux: setattr(process, "capabilities", sets)), wrap=without("sys_time"),
    )  # fmt: skip
    assert done.warnings == ["CAP_SYS_TIME cannot be granted: this host does not have them itself"]
    assert bin(int(done.out.split()[1], 16)).count("1") == len(CAPABILITIES)


def test_umask_and_additional_groups_of_both_kinds_of_process(lab: Lab) -> None:
    def change(process: Process, linux: Linux) -> None:
        process.user.uid, process.user.gid, process.user.umask = 1000, 1001, 0o37
        process.user.additional_gids = [1001, 42, 43]

    later = Process(cwd="/", args=["sh", "-c", "umask; id -u; id -G"], env=["PATH=/bin"])
    later.user.umask, later.user.additional_gids, later.user.gid = 0o77, [44], 7
    done = lab.run("sh", "-c", "umask; id -u; id -G; cat", change=having(change), execs=[(later, "")])
    assert sorted(done.out.splitlines()) == sorted(["0037", "1000", "1001 42 43", "0077", "0", "7 44"])
