"""When a container is started again by itself. Pure."""

from __future__ import annotations

from corten.specs.container import RestartPolicy

FIRST_S = 0.1
LONGEST_S = 60.0
CALM_S = 10.0
"""After this long a run counts as good, and the pauses begin anew."""


def wanted(policy: RestartPolicy, exit_code: int, restart_count: int) -> bool:
    """After an exit that nobody asked for."""
    if policy.name in ("always", "unless-stopped"):
        return True
    if policy.name != "on-failure" or exit_code == 0:
        return False
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
