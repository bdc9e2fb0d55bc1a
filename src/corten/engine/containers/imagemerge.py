"""A container's configuration completed with what its image presets, by Docker's rules."""

from __future__ import annotations

from typing import TYPE_CHECKING

from corten.errors import InvalidArgument
from corten.specs.container import ContainerConfig, HealthConfig

if TYPE_CHECKING:
    from corten.specs.oci_image import RunConfig


ON_FAILURE_LABEL = "corten.health-on-failure"
"""Says what `HealthConfig.on_failure` says, for clients that cannot send that (the docker command, Compose files)."""


def words(command: list[str] | str | None) -> list[str]:
    """A command as a list; the API takes a single string too."""
    if command is None:
        return []
    return [command] if isinstance(command, str) else list(command)


def merge(config: ContainerConfig, image: RunConfig) -> None:
    """Complete `config` in place: what the user said wins, variables, ports, volumes and labels are united.

    An entrypoint of the user's clears the image's command, as that belongs to the image's own entrypoint.
    """
    config.user = config.user or image.user
    config.working_dir = config.working_dir or image.working_dir
    config.stop_signal = config.stop_signal or image.stop_signal
    config.exposed_ports = {**(image.exposed_ports or {}), **(config.exposed_ports or {})} or None
    config.volumes = {**(image.volumes or {}), **(config.volumes or {})} or None
    config.healthcheck = _health(config, image)
    config.labels = {**(image.labels or {}), **(config.labels or {})}
    config.env = merge_env(image.env or [], config.env or [])
    config.shell = config.shell or image.shell
    config.on_build = config.on_build or image.on_build
    if config.entrypoint is None:
        config.cmd = words(config.cmd) or list(image.cmd or []) or None
        config.entrypoint = list(image.entrypoint or []) or None


def merge_env(base: list[str], own: list[str]) -> list[str]:
    """The user's variables, then those of the image that the user did not set (Docker's order)."""
    said = {entry.partition("=")[0] for entry in own}
    return list(own) + [entry for entry in base if entry.partition("=")[0] not in said]


def command(config: ContainerConfig) -> list[str]:
    """What is executed. An entrypoint of one empty string is none. Raises InvalidArgument when nothing is left."""
    entrypoint = words(config.entrypoint)
    argv = ([] if entrypoint == [""] else entrypoint) + words(config.cmd)
    if not argv or not argv[0]:
        raise InvalidArgument("no command specified")
    return argv


def _health(config: ContainerConfig, image: RunConfig) -> HealthConfig | None:
    """The check, and what its failure leads to: said by the user (as a field or as a label), else by the image."""
    if config.healthcheck is None and image.healthcheck is None:
        return None
    own, preset = config.healthcheck or HealthConfig(), image.healthcheck or HealthConfig()
    health = HealthConfig(
        test=own.test or preset.test,
        interval=own.interval or preset.interval,
        timeout=own.timeout or preset.timeout,
        retries=own.retries or preset.retries,
        start_period=own.start_period or preset.start_period,
        start_interval=own.start_interval or preset.start_interval,
    )
    labels = (config.labels or {}, image.labels or {}) if is_checked(health) else ({}, {})
    said = (own.on_failure, labels[0].get(ON_FAILURE_LABEL), preset.on_failure, labels[1].get(ON_FAILURE_LABEL))
    health.on_failure = next((choice for choice in said if choice), "")
    return health


def is_checked(health: HealthConfig | None) -> bool:
    """Whether there is a check at all: "NONE" is how a container does without its image's."""
    test = health.test if health is not None else None
    return bool(test) and test != ["NONE"]
