"""The body itself. What was not said is left out: to the daemon, absent, null and Docker's zero are the same."""

from __future__ import annotations

from corten.cli.errors import CliError
from corten.cli.spec import mounts, pieces, ports
from corten.cli.spec.networks import networking

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from corten.cli.flags import Options

    Json = dict[str, Any]


def build(options: Options) -> Json:
    """The body of POST /containers/create for `options`, whose args are image, command… Raises CliError (125)."""
    image, *command = options.args
    _check(options)
    bindings = ports.publish(options["publish"])
    mode, endpoints = networking(options)
    config = _config(options, image, command, {*bindings, *ports.expose(options["expose"])})
    host = _host_config(options) | {"NetworkMode": mode}
    body = _drop(config)
    if "stop-timeout" in options.changed:
        body["StopTimeout"] = options["stop-timeout"]  # 0 is a value here
    body["HostConfig"] = {**host, "PortBindings": bindings} if bindings else host
    if endpoints:
        body["NetworkingConfig"] = {"EndpointsConfig": endpoints}
    return body


def _drop(fields: Json) -> Json:
    return {key: value for key, value in fields.items() if value not in (None, "", 0, [], {})}


def _check(options: Options) -> None:
    swappiness = options["memory-swappiness"]
    if swappiness != -1 and not 0 <= swappiness <= 100:
        raise CliError(f"invalid value: {swappiness}. Valid memory swappiness range is 0-100", 125)
    if options["rm"] and options["restart"] not in ("", "no") and "restart" in options.changed:
        raise CliError("conflicting options: cannot specify both --restart and --rm", 125)
    if options["pull"] not in ("always", "missing", "never"):
        raise CliError(
            f'invalid pull option: \'{options["pull"]}\': must be one of "always", "missing" or "never"', 125
        )
    for flag, name, allowed in _MODES:
        value = options[flag]
        if value and value not in allowed and not ("container:" in allowed and value.startswith("container:")):
            raise CliError(f"--{flag}: invalid {name} mode", 125)
    if options["log-driver"] == "none" and options["log-opt"]:
        raise CliError("invalid logging opts for driver none", 125)


_MODES = (
    ("pid", "PID", ("host", "container:")),
    ("uts", "UTS", ("host",)),
    ("userns", "USER", ("host",)),
    ("cgroupns", "CGROUP", ("host", "private")),
)


def attached(options: Options) -> tuple[bool, bool, bool]:
    """Which of stdin, stdout and stderr the container is created attached to."""
    chosen = options["attach"]
    if chosen:
        return "stdin" in chosen, "stdout" in chosen, "stderr" in chosen
    if options.get("detach"):
        return False, False, False
    return options["interactive"], True, True


def _config(options: Options, image: str, command: list[str], exposed: set[str]) -> Json:
    stdin, stdout, stderr = attached(options)
    entrypoint: list[str] | None = [options["entrypoint"]] if options["entrypoint"] else None
    if "entrypoint" in options.changed and not options["entrypoint"]:
        entrypoint = [""]  # Docker's way of clearing the image's.
    interactive = options["interactive"]
    return {
        "Hostname": options["hostname"],
        "Domainname": options["domainname"],
        "User": options["user"],
        "AttachStdin": stdin,
        "AttachStdout": stdout,
        "AttachStderr": stderr,
        "ExposedPorts": {port: {} for port in sorted(exposed)},
        "Tty": options["tty"],
        "OpenStdin": interactive,
        "StdinOnce": interactive and stdin,
        "Env": pieces.environment(options["env-file"], options["env"]),
        "Cmd": command,
        "Healthcheck": pieces.health(options),
        "Image": image,
        "Volumes": {target: {} for target in mounts.volumes(options["volume"])[1]},
        "WorkingDir": options["workdir"],
        "Entrypoint": entrypoint,
        "Labels": pieces.labels(options["label-file"], options["label"]),
        "StopSignal": options["stop-signal"],
    }


def _host_config(options: Options) -> Json:
    security, unconfined = pieces.security_options(options["security-opt"])
    fields = {
        "Binds": mounts.volumes(options["volume"])[0],
        "ContainerIDFile": options["cidfile"],
        "LogConfig": _drop({"Type": options["log-driver"], "Config": pieces.as_map(options["log-opt"])}),
        "RestartPolicy": pieces.restart_policy(options["restart"]),
        "AutoRemove": options["rm"],
        "VolumeDriver": options["volume-driver"],
        "VolumesFrom": options["volumes-from"],
        "Annotations": pieces.as_map(options["annotation"]),
        "CapAdd": pieces.capabilities(options["cap-add"]),
        "CapDrop": pieces.capabilities(options["cap-drop"]),
        "CgroupnsMode": options["cgroupns"],
        "Dns": options["dns"],
        "DnsOptions": options["dns-option"] + options["dns-opt"],
        "DnsSearch": options["dns-search"],
        "ExtraHosts": options["add-host"],
        "GroupAdd": options["group-add"],
        "IpcMode": options["ipc"],
        "Links": options["link"],
        "OomScoreAdj": options["oom-score-adj"],
        "PidMode": options["pid"],
        "Privileged": options["privileged"],
        "PublishAllPorts": options["publish-all"],
        "ReadonlyRootfs": options["read-only"],
        "SecurityOpt": security,
        "StorageOpt": pieces.as_map(options["storage-opt"]),
        "Tmpfs": {spec.partition(":")[0]: spec.partition(":")[2] for spec in options["tmpfs"]},
        "UTSMode": options["uts"],
        "UsernsMode": options["userns"],
        "ShmSize": options["shm-size"],
        "Sysctls": dict(options["sysctl"]),
        "Runtime": options["runtime"],
        "Isolation": options["isolation"],
        "Mounts": options["mount"],
    }
    result = _drop(fields | _resources(options))
    if unconfined:
        # An empty list says "none at all" where an absent one says "the usual ones".
        result |= {"MaskedPaths": [], "ReadonlyPaths": []}
    if "init" in options.changed:
        result["Init"] = options["init"]  # false overrides the daemon's default
    if options["memory-swappiness"] != -1:
        result["MemorySwappiness"] = options["memory-swappiness"]  # 0 is a value here
    return result


def _resources(options: Options) -> Json:
    nodes, requests = pieces.devices(options["device"])
    return {
        "CpuShares": options["cpu-shares"],
        "Memory": options["memory"],
        "NanoCpus": options["cpus"],
        "CgroupParent": options["cgroup-parent"],
        "BlkioWeight": options["blkio-weight"],
        "BlkioWeightDevice": pieces.weights(options["blkio-weight-device"]),
        "BlkioDeviceReadBps": pieces.rates(options["device-read-bps"], bytes_=True),
        "BlkioDeviceWriteBps": pieces.rates(options["device-write-bps"], bytes_=True),
        "BlkioDeviceReadIOps": pieces.rates(options["device-read-iops"], bytes_=False),
        "BlkioDeviceWriteIOps": pieces.rates(options["device-write-iops"], bytes_=False),
        "CpuPeriod": options["cpu-period"],
        "CpuQuota": options["cpu-quota"],
        "CpuRealtimePeriod": options["cpu-rt-period"],
        "CpuRealtimeRuntime": options["cpu-rt-runtime"],
        "CpusetCpus": options["cpuset-cpus"],
        "CpusetMems": options["cpuset-mems"],
        "Devices": nodes,
        "DeviceCgroupRules": options["device-cgroup-rule"],
        "DeviceRequests": pieces.gpus(options["gpus"]) + requests,
        "KernelMemory": options["kernel-memory"],
        "MemoryReservation": options["memory-reservation"],
        "MemorySwap": options["memory-swap"],
        "OomKillDisable": options["oom-kill-disable"],
        "PidsLimit": options["pids-limit"],
        "Ulimits": sorted(options["ulimit"], key=lambda limit: str(limit["Name"])),
        "CpuCount": options["cpu-count"],
        "CpuPercent": options["cpu-percent"],
        "IOMaximumIOps": options["io-maxiops"],
        "IOMaximumBandwidth": options["io-maxbandwidth"],
    }
