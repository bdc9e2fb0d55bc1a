"""What can be changed of a container that is there: its name, its limits, its restart policy."""

from __future__ import annotations

import msgspec

from corten.engine.containers import names, updates, validate
from corten.engine.containers.announce import Announcer
from corten.engine.containers.catalog import Catalog
from corten.engine.containers.links import Links
from corten.engine.hostfacts import HostFacts
from corten.engine.models import Container, Status
from corten.engine.spec import builder
from corten.errors import Conflict, InvalidArgument
from corten.runtime.types import RuntimeResources
from corten.specs.container import HealthConfig, Resources, RestartPolicy
from corten.specs.oci_runtime import VERSION, Linux, Spec


class Configuration:
    """Implements `api.docker.backends.ContainerConfiguration`."""

    def __init__(self, catalog: Catalog, resources: RuntimeResources, announce: Announcer, facts: HostFacts) -> None:
        self._catalog, self._resources, self._announce, self._facts = catalog, resources, announce, facts
        self._links = Links(catalog)

    async def rename(self, ref: str, name: str) -> None:
        """Raises Conflict for a name that is taken, InvalidArgument for one that is none."""
        entry = self._catalog.find(ref)
        if not name:
            raise InvalidArgument("Neither old nor new names may be empty")
        name = names.check(name)
        container = entry.container
        async with entry.lock:
            old = container.name
            if name == old:
                raise InvalidArgument("Renaming a container with the same name as its current name")
            self._catalog.claim(name, container.id)
            container.name = name
            try:
                await self._catalog.save(entry)
            except BaseException:
                container.name = old
                self._catalog.release(name)
                raise
            self._catalog.release(old)
            await self._links.renamed(container)
        self._announce.container(container, "rename", oldName=f"/{old}")

    async def update(
        self, ref: str, resources: Resources, restart_policy: RestartPolicy | None, on_failure: str = ""
    ) -> list[str]:
        """Change what is said, in the running container too; the warnings. All of it or, on an error, nothing.

        `on_failure` is what the failure of the health check leads to from now on.
        """
        entry = self._catalog.find(ref)
        container = entry.container
        async with entry.lock:
            if entry.removing:
                raise Conflict(f"container is marked for removal and cannot be updated: {container.id}")
            previous, health = updates.snapshot(container.host_config), container.config.healthcheck
            try:
                if on_failure:
                    _choose(container, on_failure)
                warnings = self._apply(container, resources, restart_policy)
                if container.state.status in (Status.RUNNING, Status.PAUSED):
                    spec = Spec(oci_version=VERSION, linux=Linux(resources=builder.limits(container)))
                    await self._resources.update(container.id, spec)
            except BaseException:
                updates.restore(container.host_config, previous)
                container.config.healthcheck = health
                raise
            await self._catalog.save(entry)
        self._announce.container(container, "update")
        return warnings

    def _apply(self, container: Container, resources: Resources, policy: RestartPolicy | None) -> list[str]:
        if policy is not None and policy.name:
            validate.check_restart_policy(policy, auto_remove=False)
            if container.host_config.auto_remove and policy.name != "no":
                reason = "Restart policy cannot be updated because AutoRemove is enabled for the container"
                raise Conflict(f"Cannot update container {container.id}: {reason}")
            container.host_config.restart_policy = policy
        updates.merge(container.host_config, resources)
        return validate.check_limits(container.host_config, self._facts)


def _choose(container: Container, on_failure: str) -> None:
    """Raises InvalidArgument for a choice that there is not, and for a container without a health check."""
    health = msgspec.structs.replace(container.config.healthcheck or HealthConfig(), on_failure=on_failure)
    config = msgspec.structs.replace(container.config, healthcheck=health)
    validate.check_on_failure(config, auto_remove=container.host_config.auto_remove)
    container.config.healthcheck = health
