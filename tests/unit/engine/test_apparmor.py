from __future__ import annotations

import re

import pytest

from corten.engine.spec import apparmor


def denied(path: str, access: str) -> bool:
    """Whether a rule of the profile denies it, its patterns read as apparmor.d(5) says."""
    for pattern, letters in re.findall(r"^  deny (/\S+) (\w+),$", apparmor.profile("unconfined"), re.MULTILINE):
        expression = "".join(
            part if part.startswith("[") else ".*" if part == "**" else re.escape(part)
            for part in re.findall(r"\[[^]]*\]|\*\*|[^[*]+", pattern)
        )
        if access in letters and re.fullmatch(expression, path):
            return True
    return False


@pytest.mark.parametrize(
    "path",
    """/proc/sysrq-trigger /proc/sys/kernel/core_pattern /proc/sys/kernel/sem /proc/sys/vm/drop_caches
    /proc/sys/net/core/x /proc/sys/kernel/shadow /proc/kcore /proc/irq/0/smp_affinity /proc/bus/pci/00 /proc/fs/ext4/x
    /proc/scsi/scsi /sys/firmware/efi/vars /sys/kernel/security/apparmor/.load /sys/kernel/uevent_helper
    /sys/fs/fuse/connections/1/abort /sys/fs/cpu /sys/fsx /sys/module/x /sys/devices/virtual/powercap/x""".split(),
)
def test_what_must_not_be_written(path: str) -> None:
    assert denied(path, "w")


@pytest.mark.parametrize(
    "path",
    """/proc/1/attr/exec /proc/23/oom_score_adj /proc/99/task/99/comm /proc/sys/kernel/shmmax
    /proc/sys/kernel/shm_rmid_forced /sys/fs/cgroup/x/cgroup.procs /etc/passwd /tmp/x /dev/null
    /process /system/x""".split(),
)
def test_what_may_be_written(path: str) -> None:
    assert not denied(path, "w")


def test_what_must_not_even_be_read() -> None:
    for path in ("/proc/kcore", "/sys/firmware/acpi/tables/DSDT", "/sys/kernel/security/apparmor/profiles"):
        assert denied(path, "r")
    for path in ("/proc/meminfo", "/proc/sys/kernel/core_pattern", "/sys/class/net/eth0/address"):
        assert not denied(path, "r")


def test_signals_come_from_the_daemon() -> None:
    assert apparmor.profile("unconfined") == apparmor.profile("")
    assert "peer=unconfined" in apparmor.profile("")
    assert '  signal (receive) peer="/usr/bin/cortend",\n' in apparmor.profile("/usr/bin/cortend (enforce)")


@pytest.mark.parametrize(
    ("wanted", "default", "privileged", "chosen"),
    [
        ("", "", False, ""),
        ("", "", True, ""),
        ("", "corten-default", False, "corten-default"),
        ("", "corten-default", True, "unconfined"),
        ("mine", "corten-default", False, "mine"),
        ("mine", "corten-default", True, "mine"),
        ("unconfined", "corten-default", False, "unconfined"),
        ("unconfined", "", False, "unconfined"),
    ],
)
def test_the_choice(wanted: str, default: str, privileged: bool, chosen: str) -> None:
    assert apparmor.choose(wanted, default, privileged=privileged) == chosen
