"""When a container is started again by itself. Pure."""

from __future__ import annotations

from corten.engine.models import Container
from corten.specs.container import RestartPolicy

FIRST_S = 0.1
LONGEST_S = 60.0
CALM_S = 10.0
"""After this long a run counts as good, and the pauses begin anew."""


def wanted(policy: RestartPolicy, exit_code: int, restart_count: int, *, stopped_by_user: bool = False) -> bool:
    """After an exit that nobody asked for. `stopped_by_user`: it was sent a signal that was not to end it."""
    if policy.name == "always":
        return True
    if policy.name == "unless-stopped":
        return not stopped_by_user
    if policy.name != "on-failure" or exit_code == 0:
        return False
    return policy.maximum_retry_count == 0 or restart_count < policy.maximum_retry_count


def follows(container: Container) -> bool:
    """Whether a container that has just ended is started again: by its policy, or as it was unhealthy."""
    policy, count = container.host_config.restart_policy, container.restart_count
    if container.unhealthy_end == "restart" and wanted_when_unhealthy(policy, count):
        return True
    return wanted(policy, container.state.exit_code, count, stopped_by_user=container.stopped_by_user)


def wanted_when_unhealthy(policy: RestartPolicy, restart_count: int) -> bool:
    """Where the health check's failure is to lead to a restart: under each policy, but not beyond `on-failure:N`."""
    return policy.maximum_retry_count == 0 or restart_count < policy.maximum_retry_count


def wanted_at_boot(policy: RestartPolicy, exit_code: int, restart_count: int, *, stopped_by_user: bool) -> bool:
    """When the daemon starts and finds the container not running: `always` then forgets that it was stopped."""
    if policy.name == "unless-stopped":
        return not stopped_by_user
    if policy.name == "on-failure" and stopped_by_user:
        return False
    return wanted(policy, exit_code, restart_count)


def pause(previous_s: float, uptime_s: float) -> float:
    """Seconds to wait before the next start: 100 ms, doubled up to a minute."""
    if uptime_s >= CALM_S or previous_s == 0:
        return FIRST_S
    return min(previous_s * 2, LONGEST_S)
