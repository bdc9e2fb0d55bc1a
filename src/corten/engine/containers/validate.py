"""What is refused when a container is created, in Docker's words. Pure: looks at the request and the host's facts."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence

from corten.engine.containers import missing_limits, modes, ports, signals
from corten.engine.containers.imagemerge import ON_FAILURE_LABEL, is_checked
from corten.engine.hostfacts import HostFacts
from corten.engine.spec import capabilities, devices, resources, security
from corten.errors import InvalidArgument, clip
from corten.specs.container import ContainerConfig, HealthConfig, HostConfig, Resources, RestartPolicy

MIN_MEMORY = 6 << 20
ON_FAILURE = ("none", "restart", "stop", "kill")
POLICIES = ("no", "always", "on-failure", "unless-stopped")
MIN_HEALTH_NS = 1_000_000
HOST_GATEWAY = "host-gateway"


def check(config: ContainerConfig, host_config: HostConfig, facts: HostFacts) -> list[str]:
    """Raises InvalidArgument; returns warnings."""
    check_config(config)
    check_host_config(host_config, facts)
    modes.check(config, host_config)
    return [
        *check_on_failure(config, auto_remove=host_config.auto_remove),
        *_check_ulimits(host_config, facts),
        *_check_ports(host_config),
        *check_limits(host_config, facts),
    ]


def check_config(config: ContainerConfig) -> None:
    if config.working_dir and not config.working_dir.startswith("/"):
        raise InvalidArgument(
            f"the working directory '{clip(config.working_dir, 200)}' is invalid, it needs to be an absolute path"
        )
    for entry in config.env or []:
        if not entry or entry.startswith("="):
            raise InvalidArgument(f"invalid environment variable: {clip(entry, 80)}")
        if "\0" in entry:
            raise InvalidArgument(f"invalid environment variable: {clip(entry, 80)}: contains nul byte (\\x00)")
    if config.stop_signal:
        signals.parse(config.stop_signal)
    if config.hostname and not re.fullmatch(r"[!-.0-~]{1,64}", config.hostname):  # Docker takes what the kernel takes
        raise InvalidArgument(f"invalid hostname format: {clip(config.hostname, 80)}")
    for port in config.exposed_ports or {}:
        ports.expand_exposed(port)
    _check_health(config.healthcheck)


def _check_health(health: HealthConfig | None) -> None:
    if health is None:
        return
    if health.retries < 0:
        raise InvalidArgument("Retries in Healthcheck cannot be negative")
    times = {
        "Interval": health.interval,
        "Timeout": health.timeout,
        "StartPeriod": health.start_period,
        "StartInterval": health.start_interval,
    }
    for name, value in times.items():
        if value and value < MIN_HEALTH_NS:
            raise InvalidArgument(f"{name} in Healthcheck cannot be less than 1ms")
    if health.test and health.test[0] not in ("NONE", "CMD", "CMD-SHELL"):
        raise InvalidArgument(f"Unknown type '{clip(health.test[0], 40)}' in HEALTHCHECK")


def check_on_failure(config: ContainerConfig, *, auto_remove: bool) -> list[str]:
    """What is to be done with the container when it is unhealthy. Raises InvalidArgument; returns warnings."""
    action = config.healthcheck.on_failure if config.healthcheck is not None else ""
    checked = is_checked(config.healthcheck)
    if action and action not in ON_FAILURE:
        known = ", ".join(f"'{name}'" for name in ON_FAILURE[:-1])
        raise InvalidArgument(
            f"invalid health-on-failure '{clip(action, 40)}': use one of {known}, or '{ON_FAILURE[-1]}'"
        )
    if not checked and action not in ("", "none"):
        raise InvalidArgument(f"health-on-failure '{action}' needs a health check, and the container has none")
    if auto_remove and action == "restart":
        raise InvalidArgument("can't create 'AutoRemove' container that is restarted when it is unhealthy")
    if not checked and ON_FAILURE_LABEL in (config.labels or {}):
        return [f"The label {ON_FAILURE_LABEL} has no effect, as the container has no health check."]
    return []


def check_host_config(host_config: HostConfig, facts: HostFacts) -> None:
    _check_platform(host_config)
    check_restart_policy(host_config.restart_policy, auto_remove=host_config.auto_remove)
    capabilities.normalise(host_config.cap_add, "CapAdd")
    capabilities.normalise(host_config.cap_drop, "CapDrop")
    security.parse(host_config.security_opt, facts)
    resources.rlimits(host_config.ulimits)
    for mapping in host_config.devices or []:
        devices.check_mapping(mapping)
    for rule in host_config.device_cgroup_rules or []:
        devices.parse_rule(rule)
    ports.mappings(host_config, [])
    _check_hosts(host_config.extra_hosts or [])
    for server in host_config.dns or []:
        _check_address(server, f"invalid IP address: {clip(server, 60)}")
    if host_config.shm_size < 0:
        raise InvalidArgument("SHM size can not be less than 0")
    for name in host_config.sysctls or {}:
        if not re.fullmatch(r"[a-zA-Z0-9_./-]+", name) or ".." in name.split("/"):
            raise InvalidArgument(f"invalid sysctl name: {clip(name, 80)}")


def _check_platform(host_config: HostConfig) -> None:
    """What is for hosts of another kind, in Docker's words. Raises InvalidArgument."""
    if host_config.isolation not in ("", "default"):
        raise InvalidArgument(
            f"invalid isolation: \"{clip(host_config.isolation, 40)}\" - linux only supports 'default'"
        )
    for asked, what in (
        (host_config.io_maximum_iops, "maximum IOPs"),
        (host_config.io_maximum_bandwidth, "maximum bandwidth"),
    ):
        if asked:
            raise InvalidArgument(f"invalid QoS settings: linux does not support configuration of {what}")
    for device in host_config.device_requests or []:
        wanted = " ".join(f"[{' '.join(names)}]" for names in device.capabilities or [])
        raise InvalidArgument(
            f'could not select device driver "{clip(device.driver, 40)}" with capabilities: [{clip(wanted, 200)}]'
        )


def _check_ulimits(host_config: HostConfig, facts: HostFacts) -> list[str]:
    """A daemon that may not raise its own limits starts the container with as much as it has, and says so."""
    if "CAP_SYS_RESOURCE" in facts.capabilities:
        return []
    warnings = []
    for limit in resources.rlimits(host_config.ulimits):
        name = limit.type.removeprefix("RLIMIT_").lower()
        if limit.hard > (own := facts.hard_limits.get(limit.type, resources.INFINITY)):
            warnings.append(
                f"The daemon may not raise the hard limit of {name} above its own: containers get {own} of it."
            )
    return warnings


def _check_ports(host_config: HostConfig) -> list[str]:
    if host_config.network_mode == "host" and host_config.port_bindings:
        return ["Published ports are discarded when using host network mode"]
    return []


def check_restart_policy(policy: RestartPolicy, *, auto_remove: bool) -> None:
    if policy.name and policy.name not in POLICIES:
        known = ", ".join(f"'{name}'" for name in POLICIES[:-1])
        raise InvalidArgument(
            f"invalid restart policy: unknown policy '{clip(policy.name, 40)}'; use one of {known}, or '{POLICIES[-1]}'"
        )
    if policy.maximum_retry_count < 0:
        raise InvalidArgument("invalid restart policy: maximum retry count cannot be negative")
    if policy.maximum_retry_count and policy.name != "on-failure":
        raise InvalidArgument("invalid restart policy: maximum retry count can only be used with 'on-failure'")
    if auto_remove and policy.name not in ("", "no"):
        raise InvalidArgument("can't create 'AutoRemove' container with restart policy")


def _check_hosts(entries: Sequence[str]) -> None:
    for entry in entries:
        name, separator, address = entry.partition(":")
        if not separator or not name or not address:
            raise InvalidArgument(f'bad format for add-host: "{clip(entry, 120)}"')
        if address != HOST_GATEWAY:
            plain = address.removeprefix("[").removesuffix("]")
            _check_address(plain, f'invalid IP address in add-host: "{clip(address, 60)}"')


def _check_address(text: str, message: str) -> None:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        raise InvalidArgument(message) from None


def check_limits(limits: Resources, facts: HostFacts) -> list[str]:
    """Also for `update`. Raises InvalidArgument; takes out what the host cannot do; returns warnings."""
    warnings = missing_limits.discard(limits, facts)
    _check_memory(limits)
    _check_cpu(limits, facts.cpu_count)
    _check_realtime(limits, facts)
    _check_sets(limits, facts)
    if limits.blkio_weight and not 10 <= limits.blkio_weight <= 1000:
        raise InvalidArgument("Range of blkio weight is from 10 to 1000")
    if isinstance(limits, HostConfig) and not -1000 <= limits.oom_score_adj <= 1000:
        raise InvalidArgument(f"Invalid value {limits.oom_score_adj}, range for oom score adj is [-1000, 1000]")
    if limits.oom_kill_disable and not limits.memory:
        warnings.append(
            "OOM killer is disabled for the container, but no memory limit is set, "
            "this can result in the system running out of resources."
        )
    return warnings


def _check_memory(limits: Resources) -> None:
    memory, swap, reservation = limits.memory, limits.memory_swap, limits.memory_reservation
    if memory and memory < MIN_MEMORY:
        raise InvalidArgument("Minimum memory limit allowed is 6MB")
    if memory > 0 and 0 < swap < memory:
        raise InvalidArgument("Minimum memoryswap limit should be larger than memory limit, see usage")
    if memory == 0 and swap > 0:
        raise InvalidArgument("You should always set the Memory limit when using Memoryswap limit, see usage")
    if (swappiness := limits.memory_swappiness) is not None and not -1 <= swappiness <= 100:
        raise InvalidArgument(f"Invalid value: {swappiness}, valid memory swappiness range is 0-100")
    if 0 < reservation < MIN_MEMORY:
        raise InvalidArgument("Minimum memory reservation allowed is 6MB")
    if 0 < memory < reservation:
        raise InvalidArgument("Minimum memory limit can not be less than memory reservation limit, see usage")


def _check_cpu(limits: Resources, count: int) -> None:
    if limits.nano_cpus and limits.cpu_period:
        raise InvalidArgument("Conflicting options: Nano CPUs and CPU Period cannot both be set")
    if limits.nano_cpus and limits.cpu_quota:
        raise InvalidArgument("Conflicting options: Nano CPUs and CPU Quota cannot both be set")
    if limits.nano_cpus < 0 or limits.nano_cpus > count * 1_000_000_000 or 0 < limits.nano_cpus < 10_000_000:
        raise InvalidArgument(f"Range of CPUs is from 0.01 to {count}.00, as there are only {count} CPUs available")
    if limits.cpu_period and not 1000 <= limits.cpu_period <= 1_000_000:
        raise InvalidArgument("CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)")
    if 0 < limits.cpu_quota < 1000:
        raise InvalidArgument("CPU cfs quota can not be less than 1ms (i.e. 1000)")
    if limits.cpu_shares < 0:
        raise InvalidArgument(f"invalid CPU shares ({limits.cpu_shares}): value must be a positive integer")


def _check_realtime(limits: Resources, facts: HostFacts) -> None:
    runtime, period = limits.cpu_realtime_runtime, limits.cpu_realtime_period
    if (runtime or period) and not facts.realtime:
        raise InvalidArgument("kernel does not support CPU real-time scheduler")
    if period and runtime > period:
        raise InvalidArgument("cpu real-time runtime cannot be higher than cpu real-time period")


def _check_sets(limits: Resources, facts: HostFacts) -> None:
    for what, asked, available, plural in (
        ("cpus", limits.cpuset_cpus, facts.cpus, "CPUs"),
        ("mems", limits.cpuset_mems, facts.mems, "memory nodes"),
    ):
        try:
            wanted = resources.parse_cpu_list(asked)
        except InvalidArgument as error:
            raise InvalidArgument(f"Invalid value {clip(asked, 80)} for cpuset {what}: {error.message}") from None
        if not wanted <= resources.parse_cpu_list(available):
            raise InvalidArgument(
                f"Requested {plural} are not available - requested {clip(asked, 80)}, available: {available}"
            )
