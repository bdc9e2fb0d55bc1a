"""The disk and the kernel of the test machine: a small Debian 12 with systemd, made once and kept.

What is made depends on the texts in this module, on the files in `guest`, and on the locked requirements. Their digest
names the directory in which it is kept, so that a change of any of them makes a new one.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tests.vm import cpio

TOP = Path(__file__).resolve().parents[2]
GUEST = Path(__file__).resolve().parent / "guest"
KEPT = TOP / ".tools/vm"
SUITE = "bookworm"
PYTHON = "3.11"  # of that suite
PACKAGES = (
    "systemd systemd-sysv udev dbus python3 busybox-static iproute2 kmod procps libseccomp2 nftables mount util-linux"
    " apparmor runc crun netbase"
).split()
# Fetched apart and only unpacked: installing the kernel would pull in what makes initial file systems, which we do
# ourselves, and docker.io a daemon, of which we want the client alone.
UNPACK = """
set -e
export APT_CONFIG="$MMDEBSTRAP_APT_CONFIG"
cd "$1/boot"
apt-get download -q "$(apt-cache depends linux-image-cloud-amd64 | sed -n 's/.*Depends: //p' | head -n 1)"
for package in *.deb; do dpkg-deb --fsys-tarfile "$package" | tar -x --keep-directory-symlink -C "$1"; done
rm *.deb
apt-get download -q docker.io
dpkg-deb --fsys-tarfile docker.io_*.deb | tar -x --keep-directory-symlink -C "$1" ./usr/bin/docker
rm *.deb
"""
# Installed in the machine from the lock file, save these: they check sources, which is done outside.
NOT_INSIDE = ("mypy", "ruff")
# Nothing may run beside the tests, nor a login prompt take their line.
MASKED = (
    "serial-getty@ttyS0.service getty@tty1.service apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer"
    " e2scrub_all.timer e2scrub_reap.service fstrim.timer systemd-tmpfiles-clean.timer systemd-hwdb-update.service"
    " ldconfig.service systemd-journal-catalog-update.service"
).split()
DISK_SIZE = "8G"  # sparse


@dataclass(frozen=True, slots=True)
class Image:
    """Paths of what QEMU needs. The disk is not written to: the machine's changes go to a temporary file."""

    kernel: Path
    initial: Path
    disk: Path


def digest() -> str:
    """Names the image that this tree needs."""
    state = hashlib.sha256()
    files = [Path(__file__), Path(cpio.__file__), TOP / "requirements/test.txt", *sorted(GUEST.iterdir())]
    for path in files:
        state.update(path.read_bytes())
    return state.hexdigest()[:16]


def image() -> Image:
    """The kept image, made now if it is not there. Older ones are removed then."""
    place = KEPT / digest()
    KEPT.mkdir(parents=True, exist_ok=True)
    with open(KEPT / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another one in this tree may be making it
        if not place.exists():
            for old in KEPT.glob("*/"):
                shutil.rmtree(old)
            made = Path(tempfile.mkdtemp(prefix="new-", dir=KEPT))
            try:
                _make(made)
                made.rename(place)
            finally:
                shutil.rmtree(made, ignore_errors=True)
    return Image(place / "vmlinuz", place / "initial", place / "disk")


def _make(place: Path) -> None:
    root = place / "root"
    say(f"fetching Debian ({SUITE})")
    run("mmdebstrap", "--quiet", "--variant=minbase", "--include=" + ",".join(PACKAGES),
        f"--customize-hook={UNPACK}", SUITE, str(root))  # fmt: skip
    say("fetching the Python packages")
    _python_packages(root)
    say("building the disk")
    _settle(root)
    kernel = next((root / "boot").glob("vmlinuz-*"))
    version = kernel.name.removeprefix("vmlinuz-")
    run("chroot", str(root), "depmod", version)
    kernel.rename(place / "vmlinuz")
    (place / "initial").write_bytes(cpio.initial_file_system(root, version))
    run("mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=1", "-d", str(root), str(place / "disk"), DISK_SIZE)
    shutil.rmtree(root)


def _python_packages(root: Path) -> None:
    """As locked, for the machine's Python, whichever runs here."""
    locked = re.split(r"\n(?=[a-z])", (TOP / "requirements/test.txt").read_text())
    wanted = root / "requirements.txt"
    wanted.write_text("\n".join(part for part in locked if part.partition("==")[0] not in NOT_INSIDE) + "\n")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile"]
    command += ["--no-deps", "--require-hashes", "--only-binary=:all:", "--requirement", str(wanted)]
    command += ["--target", str(root / "opt/site"), "--python-version", PYTHON, "--implementation", "cp"]
    for minor in range(5, 37):  # Debian 12 has glibc 2.36
        command += ["--platform", f"manylinux_2_{minor}_x86_64"]
    run(*command, "--platform", "manylinux2014_x86_64")
    wanted.unlink()
    run("chroot", str(root), "python3", "-m", "compileall", "-q", "/opt/site", f"/usr/lib/python{PYTHON}")


def _settle(root: Path) -> None:
    """The files that make a Debian system the test machine."""
    # Not PYTHONPATH: the daemon's helpers run isolated from the environment.
    (root / "usr/lib/python3/dist-packages/vm.pth").write_text("/opt/site\n/opt/corten/src\n")
    (root / "etc/hostname").write_text("vm\n")
    (root / "etc/hosts").write_text("127.0.0.1 localhost vm\n")
    (root / "etc/resolv.conf").unlink(missing_ok=True)
    (root / "etc/resolv.conf").write_text("nameserver 127.0.0.1\n")
    (root / "etc/machine-id").write_text("0123456789abcdef0123456789abcdef\n")  # a new one would mean a first boot
    units = root / "etc/systemd/system"
    for unit in MASKED:
        (units / unit).symlink_to("/dev/null")
    shutil.copy(GUEST / "corten-tests.service", units)
    program = root / "usr/local/sbin/corten-tests"
    shutil.copyfile(GUEST / "corten-tests", program)
    program.chmod(0o755)
    run("chroot", str(root), "systemctl", "enable", "--quiet", "corten-tests.service")
    run("chroot", str(root), "systemctl", "set-default", "--quiet", "multi-user.target")
    for cached in ("var/cache/apt", "var/lib/apt/lists", "usr/share/doc", "usr/share/man", "usr/share/locale"):
        shutil.rmtree(root / cached, ignore_errors=True)


def run(*command: str) -> None:
    environment = {**os.environ, "LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive"}
    try:
        subprocess.run(command, check=True, env=environment, stdin=subprocess.DEVNULL)
    except subprocess.CalledProcessError as error:
        sys.exit(f"{command[0]} failed with status {error.returncode}")


def say(text: str) -> None:
    print(f"==> {text}", flush=True)
