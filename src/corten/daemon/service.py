"""The daemon as a whole: built from the bottom up, recovered in order, taken down in reverse.

Order of recovery: metadata → what containers there are → networks with the endpoints of live ones → the runtime →
which containers still run → restart policies → the API answers. Nothing is served before it is true.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import resource
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress

from aiohttp import web

from corten.api.docker.app import create_server
from corten.api.docker.tls import make_site
from corten.daemon import logsetup
from corten.daemon.config import RELOADABLE, DaemonConfig
from corten.daemon.listen import Listener
from corten.daemon.supervised import notify
from corten.daemon.wiring import Parts, build
from corten.engine.deps import DEFAULT_CGROUP_PARENT
from corten.errors import CortenError
from corten.runtime.cgroups import host_layout
from corten.tasks import TaskOwner

log = logging.getLogger(__name__)
SHUTDOWN_SECONDS = 5.0


async def serve(config: DaemonConfig, listeners: list[Listener], read_config: Callable[[], DaemonConfig]) -> None:
    """Serve until SIGTERM or SIGINT. SIGHUP reads the configuration again and applies what can be."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    tasks = TaskOwner("daemon")
    for signo in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signo, stop.set)
    async with running(config) as parts:
        loop.add_signal_handler(signal.SIGHUP, _reload, parts, read_config)
        runner = web.ServerRunner(
            create_server(parts.backends), handle_signals=False, shutdown_timeout=SHUTDOWN_SECONDS
        )
        await runner.setup()
        try:
            for listener in listeners:
                await make_site(runner, listener.sock, listener.tls).start()
            log.info("the API listens on %s", ", ".join(config.hosts))
            notify("READY=1")
            set_aside()
            tasks.start("warm up", asyncio.to_thread(parts.warm_up))
            tasks.start("accounts", parts.system.keep_accounts())
            await stop.wait()
            notify("STOPPING=1")
            log.info("stopping; containers go on running")
        finally:
            parts.events.close()
            await runner.cleanup()
            await tasks.close("the daemon stops")


def set_aside() -> None:
    """What there is now, modules and recovered containers, the collector of cycles leaves alone from here on."""
    gc.freeze()
    gc.enable()


def take_descriptors() -> None:
    """As many open files as there may be: each running container takes three of ours, and the usual limit is 1,024."""
    _, ceiling = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(OSError, ValueError):  # the kernel's own bound, fs.nr_open, may have been lowered since
        resource.setrlimit(resource.RLIMIT_NOFILE, (ceiling, ceiling))


@asynccontextmanager
async def running(config: DaemonConfig) -> AsyncIterator[Parts]:
    """All services, recovered and running; let go of at the end."""
    async with AsyncExitStack() as stack:
        parts = await build(config, stack)
        take_descriptors()
        live = parts.containers.recovery.load()
        await parts.controller.start(await parts.networks.load(), live.endpoints, live.sandboxes)
        stack.push_async_callback(parts.controller.close, keep=True)
        await parts.runtime.start()
        stack.push_async_callback(parts.runtime.close)
        await stack.enter_async_context(parts.images)
        await parts.containers.recovery.recover()
        stack.push_async_callback(parts.containers.close)
        yield parts


def _reload(parts: Parts, read_config: Callable[[], DaemonConfig]) -> None:
    """Runs on SIGHUP. A bad configuration is reported and changes nothing."""
    try:
        config = read_config()
        parts.reload(config)
    except CortenError as error:
        log.error("the configuration was not reloaded: %s", error)
        return
    logsetup.set_level(config.log_level)
    log.info("reloaded: %s", ", ".join(name.replace("_", "-") for name in RELOADABLE))


async def clean_up(config: DaemonConfig) -> None:
    """End every container that still runs and remove links, rules and namespaces. Images, volumes and records stay."""
    async with running(config) as parts:
        for container in list(parts.containers.inspection.list()):
            if container.state.running:
                await parts.containers.life_cycle.stop(container.id, timeout=0)
    # The services are down; what the network left for running containers goes too.
    async with AsyncExitStack() as stack:
        parts = await build(config, stack)
        await parts.controller.start(await parts.networks.load(), [])
        await parts.controller.close(keep=False)
    _remove_empty_cgroups(DEFAULT_CGROUP_PARENT)


def _remove_empty_cgroups(parent: str) -> None:
    """The group above all containers, where nothing is in it any more: it may be shared with another daemon."""
    layout = host_layout()
    for mountpoint in (*(hierarchy.mountpoint for hierarchy in layout.v1), layout.unified):
        if mountpoint:
            with suppress(OSError):
                os.rmdir(mountpoint + parent)
