"""What a container gets where its request says nothing: as inspect then shows it."""

from __future__ import annotations

from corten.engine.containers import logplan, modes
from corten.engine.deps import EMBEDDED, EngineSettings
from corten.engine.spec import resources, security
from corten.errors import InvalidArgument, clip
from corten.specs.container import ContainerConfig, HostConfig

DOCKERS_OWN = ("runc", "io.containerd.runc.v2")
"""Docker's names for the runtime that it comes with."""


def complete(config: ContainerConfig, host_config: HostConfig, id: str, settings: EngineSettings) -> list[str]:
    """Fill in; warnings. Raises InvalidArgument for a log option or a runtime that there is not."""
    if not config.hostname and not modes.joined(host_config.network_mode):
        host_named = host_config.uts_mode == "host" or host_config.network_mode == "host"
        config.hostname = settings.facts.hostname if host_named else id[:12]
    if modes.joined(host_config.network_mode):
        config.hostname = config.hostname or id[:12]
    host_config.restart_policy.name = host_config.restart_policy.name or "no"
    host_config.log_config = logplan.complete(host_config.log_config, settings)
    _complete_isolation(host_config, settings)
    host_config.memory_swap = resources.effective_swap(host_config)
    host_config.runtime = host_config.runtime or settings.default_runtime
    warnings = []
    if host_config.runtime in DOCKERS_OWN and host_config.runtime not in settings.runtimes:
        # Whoever names Docker's default mostly means the default.
        warnings.append(f"No runtime {host_config.runtime} is configured: the container has the embedded one.")
        host_config.runtime = EMBEDDED
    if host_config.runtime not in settings.runtimes:
        raise InvalidArgument(f"unknown or invalid runtime name: {clip(host_config.runtime, 80)}")
    if host_config.init is None and settings.init:
        host_config.init = True
    return warnings


def _complete_isolation(host_config: HostConfig, settings: EngineSettings) -> None:
    if host_config.shm_size and host_config.ipc_mode == "shareable":
        raise InvalidArgument("--shm-size cannot be combined with --ipc shareable: that shared memory has no limit")
    host_config.shm_size = host_config.shm_size or settings.shm_size
    host_config.ipc_mode = host_config.ipc_mode or "private"
    if not host_config.cgroupns_mode:
        v2 = settings.facts.cgroup_version == 2 and not host_config.privileged
        host_config.cgroupns_mode = "private" if v2 else "host"
    if host_config.privileged:
        host_config.masked_paths, host_config.readonly_paths = None, None
        return
    if host_config.masked_paths is None:
        host_config.masked_paths = list(security.MASKED_PATHS)
    if host_config.readonly_paths is None:
        host_config.readonly_paths = list(security.READONLY_PATHS)
