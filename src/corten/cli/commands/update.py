"""`corten update`."""

from __future__ import annotations

from corten.cli.commands.lifecycle import for_each
from corten.cli.context import Context, say_error
from corten.cli.errors import CliError
from corten.cli.flags import Command, Flag, Options
from corten.cli.spec.pieces import restart_policy

# Flag, and the key of the body.
_FIELDS = {
    "blkio-weight": "BlkioWeight",
    "cpu-period": "CpuPeriod",
    "cpu-quota": "CpuQuota",
    "cpu-rt-period": "CpuRealtimePeriod",
    "cpu-rt-runtime": "CpuRealtimeRuntime",
    "cpu-shares": "CpuShares",
    "cpus": "NanoCpus",
    "cpuset-cpus": "CpusetCpus",
    "cpuset-mems": "CpusetMems",
    "memory": "Memory",
    "memory-reservation": "MemoryReservation",
    "memory-swap": "MemorySwap",
    "pids-limit": "PidsLimit",
}


def _update(context: Context, options: Options) -> None:
    if not options.changed - {"help"}:
        raise CliError("you must provide one or more flags when using this command")
    body = {key: options[flag] for flag, key in _FIELDS.items() if flag in options.changed}
    if "health-on-failure" in options.changed:
        body["Healthcheck"] = {"OnFailure": options["health-on-failure"]}
    if options["restart"]:
        body["RestartPolicy"] = restart_policy(options["restart"])

    def one(name: str) -> None:
        for warning in context.client.container_io.update(name, body).get("Warnings") or []:
            say_error(warning)

    for_each(options.args, one)


UPDATE = Command(
    "container update",
    "[OPTIONS] CONTAINER [CONTAINER...]",
    _update,
    (
        Flag("blkio-weight", "", "uint16", "Relative weight of block IO, 10 to 1000, or 0 for none"),
        Flag("cpu-period", "", "int", "Period of the CPU quota, in microseconds"),
        Flag("cpu-quota", "", "int", "CPU time within a period, in microseconds"),
        Flag("cpu-rt-period", "", "int", "Period of real-time CPU, in microseconds"),
        Flag("cpu-rt-runtime", "", "int", "Real-time CPU within a period, in microseconds"),
        Flag("cpu-shares", "c", "int", "Relative weight of CPU time"),
        Flag("cpus", "", "decimal", "Number of CPUs", default=0),
        Flag("cpuset-cpus", "", "string", "CPUs to run on (0-3, 0,1)"),
        Flag("cpuset-mems", "", "string", "Memory nodes to use (0-3, 0,1)"),
        Flag("health-on-failure", "", "string", "What to do when unhealthy: none, restart, stop or kill"),
        Flag("memory", "m", "bytes", "Memory limit"),
        Flag("memory-reservation", "", "bytes", "Memory soft limit"),
        Flag("memory-swap", "", "swap", "Limit of memory plus swap; -1 for no limit", default=0),
        Flag("pids-limit", "", "int", "Limit of processes (-1 for none)"),
        Flag("restart", "", "string", "What to do when the container exits"),
    ),
    least=1,
)
