"""Namespaces that a container has with another one or with the host, and shared memory."""

from __future__ import annotations

import os
from pathlib import Path

from corten.engine.containers import modes
from corten.engine.containers.catalog import Catalog
from corten.engine.deps import EngineSettings
from corten.engine.faults import host_fault
from corten.engine.models import Container, Status
from corten.engine.remap import Remap
from corten.engine.spec import builder
from corten.errors import Conflict, NotFound


class Sharing:
    """Finds what a container that is being started shares."""

    def __init__(self, catalog: Catalog, settings: EngineSettings) -> None:
        self._catalog, self._settings = catalog, settings

    def user(self, container: Container, remap: Remap | None) -> str:
        """Whoever shares a namespace shares the user namespace that owns it: its path, "" for one of his own.

        Raises Conflict where the other container's ids are other ones.
        """
        if remap is None:
            return ""
        host_config, pids = container.host_config, set()
        for what, mode in (
            ("network", host_config.network_mode),
            ("IPC", host_config.ipc_mode),
            ("PID", host_config.pid_mode),
        ):
            if target_id := modes.joined(mode):
                target = self._running(target_id, f"cannot join {what} of a non running container")
                if target.remapped != remap.key:
                    raise Conflict(
                        f"cannot join {what} of container {target_id}: it runs in another user namespace"
                        " (hint: use --userns=host for both, or for neither)"
                    )
                pids.add(target.state.pid)
        if len(pids) > 1:
            raise Conflict("cannot join namespaces of several containers when user namespaces are enabled")
        return f"/proc/{pids.pop()}/ns/user" if pids else ""

    def network(self, container: Container, target_id: str) -> str:
        """The path of another container's network namespace, whose names and resolver are this one's too."""
        target = self._running(target_id, "cannot join network of a non running container")
        container.hosts_path, container.hostname_path = target.hosts_path, target.hostname_path
        container.resolv_conf_path = target.resolv_conf_path
        return target.sandbox_key or builder.HOST

    def plan(
        self, container: Container, network_path: str, user_path: str, remap: Remap | None
    ) -> builder.NamespacePlan:
        """All its namespaces, made or joined. Raises Conflict, NotFound for one that cannot be joined."""
        host_config = container.host_config
        owner = remap.root if remap is not None else (0, 0)
        ipc: str = host_config.ipc_mode
        shm: str | None = None if ipc == "none" else ""
        if target_id := modes.joined(ipc):
            target = self._running(target_id, "cannot join IPC of a non running container")
            if target.host_config.ipc_mode == builder.HOST:
                ipc = builder.HOST
            elif target.host_config.ipc_mode == "shareable":
                ipc, shm = f"/proc/{target.state.pid}/ns/ipc", str(self._shared_memory(target.id))
            else:
                raise Conflict(
                    f"cannot join IPC of container {target_id}: non-shareable IPC (hint: use IpcMode:shareable)"
                )
        elif ipc == "shareable":
            ipc, shm = "", self._make_shared_memory(container.id, owner)
        return builder.NamespacePlan(
            network=network_path,
            pid=self._joined_or(host_config.pid_mode, "pid"),
            ipc=ipc if ipc == builder.HOST or ipc.startswith("/") else "",
            uts=builder.HOST if host_config.uts_mode == builder.HOST else "",
            cgroup=builder.HOST if host_config.cgroupns_mode == builder.HOST else "",
            user=builder.HOST if remap is None else user_path,
            shm=shm,
            mqueue=ipc != builder.HOST or os.path.isdir("/dev/mqueue"),
        )

    def _joined_or(self, mode: str, kind: str) -> str:
        if target_id := modes.joined(mode):
            target = self._running(target_id, f"cannot join {kind.upper()} of a non running container")
            return f"/proc/{target.state.pid}/ns/{kind}"
        return mode

    def _shared_memory(self, container_id: str) -> Path:
        """A folder on the host: a file system of its own would have to be mounted where every container sees it."""
        return self._settings.state_dir(container_id) / "shm"

    def _make_shared_memory(self, container_id: str, owner: tuple[int, int]) -> str:
        folder = self._shared_memory(container_id)
        with host_fault("create shared memory"):
            folder.mkdir(exist_ok=True)
            folder.chmod(0o1777)
            os.chown(folder, *owner)
        return str(folder)

    def _running(self, id: str, refusal: str) -> Container:
        target = self._catalog.by_id(id)
        if target is None:
            raise NotFound("container", id)
        if target.container.state.status not in (Status.RUNNING, Status.PAUSED):
            raise Conflict(f"{refusal}: {id}")
        return target.container
