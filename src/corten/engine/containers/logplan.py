"""How a container's log is kept: what the shim's writer and the reader are told."""

from __future__ import annotations

from pathlib import Path

from corten.engine.deps import EngineSettings
from corten.engine.models import Container
from corten.errors import InvalidArgument, clip
from corten.logs.options import DRIVERS, merged, parse
from corten.logs.types import LogFacts
from corten.runtime.types import LogSpec
from corten.specs.container import LogConfig
from corten.specs.times import format_time

JSON_FILE = "json-file"


def complete(asked: LogConfig, settings: EngineSettings) -> LogConfig:
    """The daemon's defaults filled in. Raises InvalidArgument for what does not fit."""
    driver = asked.type or settings.log_driver
    if driver not in (*DRIVERS, "none"):  # a plugin's, then
        raise InvalidArgument(f'error looking up logging plugin {clip(driver)}: plugin "{clip(driver)}" not found')
    options = merged(driver, asked.config or {}, (settings.log_driver, settings.log_options))
    parse(driver, options)
    return LogConfig(type=driver, config=options)


def path(directory: Path, id: str, config: LogConfig) -> str:
    """The live file of what is kept; "" when nothing is."""
    if parse(config.type, config.config or {}).files is None:
        return ""
    names = {JSON_FILE: f"{id}-json.log", "local": "container.log"}
    return str(directory / names.get(config.type, "container-cached.log"))


def spec(container: Container, hostname: str) -> LogSpec:
    """What the runtime is told. `hostname` is the host's."""
    log, config = container.host_config.log_config, container.config
    facts = LogFacts(
        id=container.id,
        name=container.name,
        image_id=container.image_id,
        image_name=config.image or container.image_name,
        created=format_time(container.created_ns),
        argv=[container.path, *container.args],
        env=config.env or (),
        labels=config.labels or {},
        options=log.config or {},
        hostname=hostname,
    )
    return LogSpec(log.type, Path(container.log_path) if container.log_path else None, facts)
