"""New limits for a container that runs, told to systemd where it manages the group."""

from __future__ import annotations

from corten.runtime.cgroups import Cgroup, host_layout
from corten.runtime.cgroups_limits import compile_limits
from corten.runtime.cgroups_units import bus_address, resource_properties
from corten.specs.oci_runtime import Resources


def update_limits(path: str, unit: str, resources: Resources) -> None:
    """Put limits into force, devices apart. `unit` is "" where the group is ours alone. Blocks.

    systemd is told first: it writes what it knows into the same files, more coarsely. Raises InvalidArgument for a
    limit that cannot be had at all, and OSError for one that the kernel or systemd refuses.
    """
    writes = compile_limits(resources, host_layout())
    if unit and (properties := resource_properties(resources)):
        from corten.runtime import cgroups_systemd

        cgroups_systemd.set_properties(bus_address(), unit, properties)
    Cgroup(path).update(writes)
