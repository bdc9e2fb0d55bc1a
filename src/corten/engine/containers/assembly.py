"""The services of containers, made once and given to each other."""

from __future__ import annotations

from dataclasses import dataclass

from corten.engine.containers.announce import Announcer
from corten.engine.containers.configuration import Configuration
from corten.engine.containers.creation import Creation
from corten.engine.containers.execs import ExecService
from corten.engine.containers.health import HealthMonitor
from corten.engine.containers.inspection import Inspection
from corten.engine.containers.launch import Launcher
from corten.engine.containers.lifecycle import LifeCycle
from corten.engine.containers.recovery import Recovery
from corten.engine.containers.release import Releaser
from corten.engine.containers.removal import Removal
from corten.engine.containers.streams import Streams
from corten.engine.containers.supervisor import Supervisor
from corten.engine.deps import EngineDeps, EngineSettings


@dataclass(frozen=True, slots=True)
class Containers:
    """What a daemon does with containers. At its start `recovery` has the first word; at its end, `close`."""

    creation: Creation
    life_cycle: LifeCycle
    removal: Removal
    inspection: Inspection
    streams: Streams
    configuration: Configuration
    execs: ExecService
    recovery: Recovery
    supervisor: Supervisor
    health: HealthMonitor

    async def close(self) -> None:
        """Let go of everything. Running containers go on; the next start finds them."""
        await self.health.close()
        await self.inspection.close()
        await self.recovery.close()
        await self.supervisor.close()
        await self.life_cycle.close()


def assemble(deps: EngineDeps, settings: EngineSettings) -> Containers:
    catalog, runtime, clock, facts = deps.catalog, deps.runtime, deps.clock, settings.facts
    announce = Announcer(deps.events)
    releaser = Releaser(deps, settings)
    supervisor = Supervisor(catalog, Launcher(deps, settings), releaser, runtime, clock, announce)
    execs = ExecService(deps, settings)
    life_cycle = LifeCycle(catalog, supervisor, runtime, clock, announce, settings)
    health = HealthMonitor(deps, execs, life_cycle.end_unhealthy)
    supervisor.watch(health.started, health.ended, health.paused)
    supervisor.watch(on_end=lambda entry: execs.container_ended(entry.container.id))
    inspection = Inspection(catalog, runtime.resources, deps.controller, deps.snapshotter, clock, facts, announce)
    return Containers(
        creation=Creation(deps, settings),
        life_cycle=life_cycle,
        removal=Removal(catalog, life_cycle, inspection, releaser, deps.events, clock),
        inspection=inspection,
        streams=Streams(catalog, runtime.stdio, deps.logs, announce),
        configuration=Configuration(catalog, runtime.resources, announce, facts),
        execs=execs,
        recovery=Recovery(deps, settings, supervisor, releaser),
        supervisor=supervisor,
        health=health,
    )
