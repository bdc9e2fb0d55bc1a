"""Which sources can propagate mounts."""

from __future__ import annotations

from corten.engine.containers import propagation
from corten.engine.models import MountPoint

TABLE = r"""22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
30 22 0:30 / /mnt/a\040b rw shared:7 master:2 - tmpfs x rw
31 30 0:31 / /mnt/a\040b rw - tmpfs y rw
32 22 0:32 / /slave rw master:1 - tmpfs z rw
"""


def test_mounts_and_what_they_share() -> None:
    assert propagation.parse(TABLE) == {
        "/": frozenset({"shared:1"}),
        "/mnt/a b": frozenset(),
        "/slave": frozenset({"master:1"}),
    }


def test_only_some_binds_depend_on_their_source() -> None:
    points = [MountPoint(type="bind", destination=f"/{word}", propagation=word) for word in ("", "rprivate", "rslave")]
    assert propagation.asks(points) == points[2:]
