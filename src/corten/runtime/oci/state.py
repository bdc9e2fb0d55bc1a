"""What `corten-runtime` keeps of its containers: one directory each, with `state.json`, the specification that the
container was created from (what becomes of the bundle's does not matter any more), and the keeper's socket."""

from __future__ import annotations

import os
import re
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from msgspec import Struct, json

from corten.errors import Conflict, InvalidArgument, NotFound, clip
from corten.linux.process import pidfd_open, pidfd_send_signal
from corten.runtime.cgroups import Cgroup, read_flat
from corten.runtime.oci.log import Log
from corten.runtime.oci.transitions import STARTING, WAITING
from corten.specs.oci_runtime import VERSION, Spec, decode_spec, encode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from corten.runtime.oci.transitions import Status

DEFAULT_ROOT = Path("/run/corten/runtime")
_NAME = re.compile(r"[\w+.-]{1,255}", re.ASCII)


class Record(Struct, kw_only=True, rename="camel"):
    """`state.json`. `pid_start` (clock ticks since boot) tells the process from a later one with its number.

    `pid` 0 is a container that is being created, by the process `keeper`.
    """

    id: str
    bundle: str
    rootfs: str = ""
    pid: int = 0
    pid_start: int = 0
    keeper: int = 0
    keeper_start: int = 0
    cgroup: str
    unit: str = ""  # the scope of systemd that the cgroup is
    created_ns: int
    annotations: dict[str, str] = {}


class Store:
    """The containers below one `--root`. `systemd_cgroup` says who makes the groups of new ones."""

    def __init__(self, root: Path, log: Log | None = None, *, systemd_cgroup: bool = False) -> None:
        self.root, self.log, self.systemd_cgroup = root, log or Log(), systemd_cgroup

    def directory(self, name: str) -> Path:
        if not _NAME.fullmatch(name) or name in (".", ".."):
            raise InvalidArgument(f"invalid container id: {clip(name, 80)}")
        return self.root / name

    def claim(self, name: str) -> Path:
        """Make the directory of a new container. Raises Conflict when the id is taken."""
        directory = self.directory(name)
        self.root.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            directory.mkdir(mode=0o700)
        except FileExistsError:
            raise Conflict(f"container with id exists: {name}") from None
        return directory

    def save(self, record: Record) -> None:
        path = self.directory(record.id) / "state.json"
        temporary = path.with_suffix(".tmp")
        temporary.write_bytes(json.encode(record))
        temporary.rename(path)

    def save_spec(self, name: str, spec: Spec) -> None:
        (self.directory(name) / "config.json").write_bytes(encode(spec))

    def spec(self, name: str) -> Spec:
        """What a container was created from. Raises NotFound."""
        return load_spec(self.directory(name))

    def load(self, name: str) -> Record:
        """Raises NotFound."""
        try:
            return json.decode((self.directory(name) / "state.json").read_bytes(), type=Record)
        except FileNotFoundError:
            raise NotFound("container", name, f"container {name} does not exist") from None

    def all(self) -> list[Record]:
        found = []
        for path in sorted(self.root.glob("*/state.json")) if self.root.is_dir() else ():
            with suppress(NotFound):
                found.append(self.load(path.parent.name))
        return found

    def remove(self, name: str) -> bool:
        """Whether it was there: of several who remove one container at a time one is told so."""
        gone = self.root / f".{name[:200]}.{os.getpid()}"
        try:
            self.directory(name).rename(gone)
        except FileNotFoundError:
            return False
        import shutil  # with all that it can unpack: not for those who only look

        shutil.rmtree(gone, ignore_errors=True)
        return True

    def status(self, record: Record) -> Status:
        if not record.pid:
            return "creating" if start_of(record.keeper) == record.keeper_start else "stopped"
        if start_of(record.pid) != record.pid_start:
            return "stopped"
        directory = self.directory(record.id)
        if (directory / WAITING).exists() or (directory / STARTING).exists():
            return "created"
        return "paused" if _frozen(record.cgroup) else "running"

    def document(self, record: Record) -> dict[str, Any]:
        """The state as the specification wants it, and what runc adds, which its callers read."""
        status = self.status(record)
        return {
            "ociVersion": VERSION,
            "id": record.id,
            "status": status,
            "pid": 0 if status == "stopped" else record.pid,
            "bundle": record.bundle,
            "rootfs": record.rootfs,
            "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(record.created_ns // 10**9)),
            "annotations": record.annotations,
            "owner": "",  # runc has the member, and never says who
        }


def load_spec(bundle: Path) -> Spec:
    """The bundle's config.json. Raises InvalidArgument, NotFound."""
    try:
        body = (bundle / "config.json").read_bytes()
    except OSError as error:
        raise NotFound("file", "config.json", f"{bundle / 'config.json'}: {error.strerror}") from None
    return decode_spec(body)


def start_of(pid: int) -> int:
    """When a process was started, in clock ticks since boot; 0 for one that is gone or a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    return 0 if fields[0] in "ZX" else int(fields[19])


def send_signal(record: Record, signo: int) -> bool:
    """Signal the first process; False when it is gone."""
    try:
        pidfd = pidfd_open(record.pid)
    except ProcessLookupError:
        return False
    try:
        if start_of(record.pid) != record.pid_start:  # looked at after the pidfd was taken, so that both are one
            return False
        pidfd_send_signal(pidfd, signo)
    except ProcessLookupError:
        return False
    finally:
        os.close(pidfd)
    return True


def wait_gone(record: Record, seconds: float) -> bool:
    """Wait until the first process has ended, or of a container that is being created the one that creates it."""
    pid, start = (record.pid, record.pid_start) if record.pid else (record.keeper, record.keeper_start)
    deadline = time.monotonic() + seconds
    while start and start_of(pid) == start:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True


def _frozen(path: str) -> bool:
    group = Cgroup(path)
    if group.unified and os.path.isdir(group.unified):
        return read_flat(group.unified + "/cgroup.events").get("frozen") == 1
    try:
        return Path(group.directory("freezer"), "freezer.state").read_text().strip() == "FROZEN"
    except OSError:
        return False
