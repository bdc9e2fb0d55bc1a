"""What the daemon says of itself: info, version, disk usage. Only what is true."""

from __future__ import annotations

import asyncio
import contextlib
import os
import platform
import uuid
from pathlib import Path
from typing import Any

import corten
from corten.engine.deps import EngineDeps, EngineSettings
from corten.engine.diskusage import DiskUsage
from corten.engine.hostfacts import text_of
from corten.engine.images.budget import in_units
from corten.engine.models import Status
from corten.engine.registries import INDEX_SERVER
from corten.engine.spec import security
from corten.logs.options import DRIVERS
from corten.registry.proxies import masked
from corten.specs.platform import host
from corten.specs.times import format_time

API_VERSION = "1.56"
MIN_API_VERSION = "1.24"


class SystemService:
    """Implements `api.docker.backends.SystemBackend`. The constructor reads, or makes, the engine's id."""

    def __init__(self, deps: EngineDeps, settings: EngineSettings) -> None:
        self._deps, self._settings = deps, settings
        self.id = _engine_id(settings.data_root / "engine-id")
        self._backing = _file_system(settings.data_root)
        self._usage = DiskUsage(deps)

    async def version(self) -> dict[str, Any]:
        facts = self._settings.facts
        arch = host().architecture
        details = {
            "ApiVersion": API_VERSION,
            "Arch": arch,
            "KernelVersion": facts.kernel,
            "MinAPIVersion": MIN_API_VERSION,
            "Os": "linux",
            "PythonVersion": platform.python_version(),
        }
        return {
            "Platform": {"Name": "Corten"},
            "Components": [{"Name": "Engine", "Version": corten.__version__, "Details": details}],
            "Version": corten.__version__,
            "ApiVersion": API_VERSION,
            "MinAPIVersion": MIN_API_VERSION,
            "Os": "linux",
            "Arch": arch,
            "KernelVersion": facts.kernel,
        }

    async def info(self) -> dict[str, Any]:
        settings, facts = self._settings, self._settings.facts
        return {
            "ID": self.id,
            **self._counts(),
            "Driver": self._deps.snapshotter.name,
            "DriverStatus": self._driver_status(),
            "DockerRootDir": str(settings.data_root),
            "Plugins": {"Volume": ["local"], "Network": ["bridge", "host", "null"], "Log": sorted(DRIVERS)},
            **self._limits(),
            "IPv4Forwarding": text_of("/proc/sys/net/ipv4/ip_forward") == "1",
            "Debug": settings.debug,
            "NFd": len(os.listdir("/proc/self/fd")),
            "NGoroutines": len(asyncio.all_tasks()),
            "NEventsListener": self._deps.events.listeners,
            "SystemTime": format_time(self._deps.clock.now_ns()),
            "LoggingDriver": settings.log_driver,
            "CgroupDriver": settings.cgroup_driver,
            "CgroupVersion": str(facts.cgroup_version),
            "KernelVersion": facts.kernel,
            "OperatingSystem": facts.os_name,
            "OSVersion": facts.os_version,
            "OSType": "linux",
            "Architecture": facts.machine,
            "NCPU": facts.cpu_count,
            "MemTotal": facts.memory,
            "IndexServerAddress": INDEX_SERVER,
            "RegistryConfig": _registry_config(settings),
            "HttpProxy": masked(settings.proxies.http),
            "HttpsProxy": masked(settings.proxies.https),
            "NoProxy": settings.proxies.no_proxy,
            "Name": facts.hostname,
            "Labels": list(settings.labels),
            "ExperimentalBuild": False,
            "ServerVersion": corten.__version__,
            "Runtimes": {name: {"path": choice.path or "corten-runtime"} for name, choice in settings.runtimes.items()},
            "DefaultRuntime": settings.default_runtime,
            "Swarm": {"NodeID": "", "NodeAddr": "", "LocalNodeState": "inactive", "ControlAvailable": False},
            "LiveRestoreEnabled": True,
            "Isolation": "",
            "InitBinary": "corten-init",
            "SecurityOptions": self._security(),
            "FirewallBackend": {"Driver": "nftables"},
            "Warnings": self._warnings(),
        }

    def _driver_status(self) -> list[list[str]]:
        rows = [["Backing Filesystem", "overlay" if self._deps.snapshotter.name == "overlayfs" else "any"]]
        limit = self._settings.storage_limit
        return [*rows, ["Storage Limit", in_units(limit)]] if limit else rows

    def _counts(self) -> dict[str, int]:
        states = [entry.container.state.status for entry in self._deps.catalog.entries()]
        running = sum(status in (Status.RUNNING, Status.RESTARTING) for status in states)
        paused = states.count(Status.PAUSED)
        return {
            "Containers": len(states),
            "ContainersRunning": running,
            "ContainersPaused": paused,
            "ContainersStopped": len(states) - running - paused,
            "Images": len(self._deps.images.list()),
        }

    def _limits(self) -> dict[str, bool]:
        facts = self._settings.facts
        v1 = facts.cgroup_version == 1
        has = facts.controllers.__contains__
        return {
            "MemoryLimit": has("memory"),
            "SwapLimit": has("memory") and facts.swap_limit,
            "CpuCfsPeriod": has("cpu"),
            "CpuCfsQuota": has("cpu"),
            "CPUShares": has("cpu"),
            "CPUSet": has("cpuset"),
            "PidsLimit": has("pids"),
            "OomKillDisable": v1 and has("memory"),
        }

    def _security(self) -> list[str]:
        facts = self._settings.facts
        options = ["name=apparmor"] if self._settings.apparmor_profile else []
        options.append(f"name=seccomp,profile={self._settings.seccomp_name}")
        if self._settings.remap is not None:
            options.append("name=userns")
        if facts.cgroup_version == 2:
            options.append("name=cgroupns")
        if self._settings.no_new_privileges:
            options.append("name=no-new-privileges")
        return options

    def _warnings(self) -> list[str]:
        names = {"MemoryLimit": "memory", "SwapLimit": "swap", "CPUSet": "cpuset", "PidsLimit": "pids"}
        limits = self._limits()
        lacking = [f"WARNING: No {word} limit support" for name, word in names.items() if not limits[name]]
        if self._settings.seccomp_name != security.DEFAULT_SECCOMP:
            lacking.append("WARNING: daemon is not using the default seccomp profile")
        return [*lacking, *(f"WARNING: {fault}" for fault in self._settings.warnings)]

    # -- disk usage --------------------------------------------------------------------------------------------------

    async def disk_usage(self) -> dict[str, Any]:
        """See `diskusage.DiskUsage.report`."""
        return await self._usage.report()

    async def keep_accounts(self) -> None:
        """Never returns: what `disk_usage` answers from is counted, and counted again before it is too old."""
        await self._usage.keep()

    async def close(self) -> None:
        """What is being counted is given up."""
        await self._usage.close()


def _registry_config(settings: EngineSettings) -> dict[str, Any]:
    """Docker Hub with its mirrors, and what is asked without TLS: hosts, and networks in CIDR notation."""
    networks = {"127.0.0.0/8", "::1/128"} | {entry for entry in settings.insecure_registries if "/" in entry}
    mirrors = [mirror.rstrip("/") + "/" for mirror in settings.registry_mirrors]
    indexes = {"docker.io": {"Name": "docker.io", "Mirrors": mirrors, "Secure": True}}
    for name in settings.insecure_registries:
        if "/" not in name:
            indexes[name] = {"Name": name, "Mirrors": [], "Secure": False}
    for index in indexes.values():
        index["Official"] = index["Name"] == "docker.io"
    return {
        "IndexConfigs": indexes,
        "InsecureRegistryCIDRs": sorted(networks),
        "Mirrors": mirrors,
    }


def _engine_id(path: Path) -> str:
    with contextlib.suppress(OSError, ValueError):
        return str(uuid.UUID(path.read_text().strip()))
    id = str(uuid.uuid4())
    path.write_text(id + "\n")
    return id


def _file_system(path: Path) -> str:
    """The type of the file system that `path` lies on: of nested mounts the innermost, in one place the last."""
    best, kind = "", "unknown"
    place = os.path.realpath(path)
    for line in text_of("/proc/self/mounts").splitlines():
        _, target, name, *_ = line.split()
        inside = place == target or place.startswith(target.rstrip("/") + "/")
        if inside and len(target) >= len(best):
            best, kind = target, name
    return kind
