"""A container's control group, on version 1, version 2 and the hybrid of both.

Imports nothing costly: the shim makes the cgroup and the child enters it. Limits come as `Write` tuples, which
`cgroups_limits` makes out of a specification; counters are read by `cgroups_stats`.

On a hybrid host the container also gets a group in the v2 hierarchy, which has no controllers there but can kill and
freeze all members with one write; the v1 freezer is then not used.
"""

from __future__ import annotations

import errno
import os
import time

from corten.linux.bpf import attach_device_program

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence


Write = tuple[str, str, str | bytes]
"""Controller, file and value. `file` may be alternatives, "a|b": the first that exists is written; with a "?" at
its end it may be absent. On version 2 the file "devices.bpf" stands for attaching a device program, whose value are
its instructions."""

# Controllers that each container gets on version 1: what `stats` reads, and what lets containers share fairly. JVMs
# take themselves to be outside a container unless cpu, cpuacct, cpuset and memory are all mounted.
_ALWAYS_V1 = frozenset(("cpu", "cpuacct", "cpuset", "memory", "blkio", "pids"))
_ALWAYS_V2 = ("cpu", "cpuset", "io", "memory", "pids")
BPF_FILE = "devices.bpf"
_SIGKILL = 9
_PATIENCE = 10.0  # seconds until a group that does not empty or freeze is an error


class Hierarchy:
    """One mounted hierarchy of version 1: the controllers it carries and where it is mounted."""

    __slots__ = ("controllers", "mountpoint")

    def __init__(self, controllers: tuple[str, ...], mountpoint: str) -> None:
        self.controllers, self.mountpoint = controllers, mountpoint

    @property
    def named(self) -> bool:
        return self.controllers[0].startswith("name=")


class Layout:
    """What the host has mounted: `unified` is the mount point of version 2, "" for none."""

    __slots__ = ("unified", "v1")

    def __init__(self, unified: str, v1: tuple[Hierarchy, ...]) -> None:
        self.unified, self.v1 = unified, v1

    @property
    def pure_v2(self) -> bool:
        return bool(self.unified) and not self.v1

    def of(self, controller: str) -> Hierarchy | None:
        """The v1 hierarchy with `controller`."""
        for hierarchy in self.v1:
            if controller in hierarchy.controllers:
                return hierarchy
        return None


_NOT_CONTROLLERS = frozenset(
    ("rw", "ro", "xattr", "clone_children", "noprefix", "favordynmods", "cpuset_v2_mode", "all")
)
_layout: Layout | None = None


def host_layout() -> Layout:
    """The host's layout, read once per process."""
    global _layout
    if _layout is None:
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
            _layout = parse_layout(file.read())
    return _layout


def use_layout(layout: Layout) -> None:
    """Take `layout` for the host's from now on."""
    global _layout
    _layout = layout


def parse_layout(mountinfo: str) -> Layout:
    """The cgroup mounts out of the text of /proc/PID/mountinfo; the first mount of each hierarchy counts."""
    unified, v1, seen = "", [], set()
    for line in mountinfo.splitlines():
        before, separator, after = line.partition(" - ")
        fields, kind = before.split(" "), after.split(" ")
        if not separator or len(fields) < 5 or kind[0] not in ("cgroup", "cgroup2"):
            continue
        if kind[0] == "cgroup2":
            unified = unified or fields[4]
            continue
        options = kind[2].split(",")
        controllers = tuple(o for o in options if o not in _NOT_CONTROLLERS and not o.startswith("release_agent"))
        if controllers and controllers not in seen:
            seen.add(controllers)
            v1.append(Hierarchy(controllers, fields[4]))
    return Layout(unified, tuple(v1))


class Cgroup:
    """The control groups at one path of all hierarchies. Making the object touches nothing."""

    __slots__ = ("layout", "path")

    def __init__(self, path: str, layout: Layout | None = None) -> None:
        self.path = "/" + path.strip("/")
        if self.path == "/":
            raise ValueError("the root of the hierarchy is nobody's control group")
        self.layout = layout or host_layout()

    @classmethod
    def create(cls, path: str, writes: Sequence[Write] = (), layout: Layout | None = None) -> Cgroup:
        """Make the groups and write the limits. Nothing is left when it fails."""
        group = cls(path, layout)
        try:
            group._make({write[0] for write in writes})
            group._apply(writes)
        except BaseException:
            group.remove()
            raise
        return group

    @property
    def unified(self) -> str:
        """The directory in the v2 hierarchy, "" when the host has none."""
        return self.layout.unified + self.path if self.layout.unified else ""

    def directory(self, controller: str) -> str:
        """Where the files of `controller` are, whether or not the directory exists; "" when the host lacks it."""
        if self.layout.pure_v2:
            return self.unified
        hierarchy = self.layout.of(controller)
        return hierarchy.mountpoint + self.path if hierarchy else ""

    def v1_directories(self) -> list[tuple[Hierarchy, str]]:
        """The existing directories in the v1 hierarchies."""
        pairs = [(hierarchy, hierarchy.mountpoint + self.path) for hierarchy in self.layout.v1]
        return [(hierarchy, path) for hierarchy, path in pairs if os.path.isdir(path)]

    def open_unified(self) -> int:
        """A descriptor of the v2 directory for CLONE_INTO_CGROUP, or -1 without one. The caller owns it."""
        if not self.unified:
            return -1
        try:
            return os.open(self.unified, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            return -1

    def enter_v1(self) -> None:
        """Move the calling thread into the v1 groups; it must be the only one of its process.

        Writing 0 to `tasks` moves just the writer. Writing a pid to `cgroup.procs` takes the lock that keeps thread
        groups together, and the first one to take it waits for an RCU grace period: tens of milliseconds.
        """
        for hierarchy in self.layout.v1:
            try:
                _write(hierarchy.mountpoint + self.path + "/tasks", b"0")
            except FileNotFoundError:  # not every hierarchy has a group
                continue

    def add(self, pid: int) -> None:
        """Move a process with all its threads into the groups."""
        for _, directory in self.v1_directories():
            _write(directory + "/cgroup.procs", b"%d" % pid)
        if self.unified and os.path.isdir(self.unified):
            _write(self.unified + "/cgroup.procs", b"%d" % pid)

    def pids(self) -> list[int]:
        """All processes in the group and below it."""
        for top in self._tops():
            found: list[int] = []
            for directory in _tree(top):
                try:
                    with open(directory + "/cgroup.procs", "rb") as file:
                        found.extend(int(line) for line in file.read().split())
                except OSError as error:  # ENODEV, ENOENT: removed meanwhile; EOPNOTSUPP: a threaded group
                    if error.errno not in (errno.ENODEV, errno.ENOENT, errno.EOPNOTSUPP):
                        raise
            return found
        return []

    def update(self, writes: Sequence[Write]) -> None:
        """Write new limits. A controller that had no group yet gets one, and the processes are moved there.

        Device rules stay as they were at the start: writing them anew would refuse all devices for a moment.
        """
        writes = [write for write in writes if write[0] != "devices"]
        before = {directory for _, directory in self.v1_directories()}
        self._make({write[0] for write in writes})
        self._apply(writes)
        added = [directory for _, directory in self.v1_directories() if directory not in before]
        if added:
            for pid in self.pids():
                for directory in added:
                    _write_unless_gone(directory + "/cgroup.procs", b"%d" % pid)

    def freeze(self) -> None:
        """Stop all processes; returns when they are."""
        self._set_frozen(True)

    def thaw(self) -> None:
        self._set_frozen(False)

    def kill_all(self) -> None:
        """SIGKILL every process in the group and below; does not wait for their end."""
        if self.unified:
            try:
                _write(self.unified + "/cgroup.kill", b"1")
                return
            except FileNotFoundError:  # the group is gone, or the kernel is older than 5.14
                pass
        deadline = time.monotonic() + _PATIENCE
        while pids := self.pids():
            frozen = self._freeze_for_kill()
            for pid in pids:
                try:
                    os.kill(pid, _SIGKILL)
                except ProcessLookupError:
                    continue
            if frozen:
                self.thaw()  # a frozen process of version 1 does not die
            if time.monotonic() > deadline:
                raise OSError(errno.EBUSY, "processes survive SIGKILL", self.path)
            time.sleep(0.002)

    def oom_killed(self) -> bool:
        """Whether the kernel has killed a process of the group for want of memory."""
        directory = self.directory("memory")
        name = "memory.events" if self.layout.pure_v2 else "memory.oom_control"
        return read_flat(f"{directory}/{name}").get("oom_kill", 0) > 0 if directory else False

    def remove(self) -> None:
        """Remove the groups and those below them; absent ones are no error.

        The kernel says EBUSY for a moment after the last process ended; OSError when it still does after seconds.
        """
        for hierarchy in self.layout.v1:
            _remove_tree(hierarchy.mountpoint + self.path)
        if self.unified:
            _remove_tree(self.unified)

    def _tops(self) -> Iterator[str]:
        """Directories that all members are in, the cheapest first."""
        if self.unified and os.path.isdir(self.unified):
            yield self.unified
        for _, directory in self.v1_directories():
            yield directory

    def _make(self, wanted: set[str]) -> None:
        if self.layout.unified:
            _make_v2(self.layout.unified, self.path, self.layout.pure_v2)
        for hierarchy in self.layout.v1:
            needed = not wanted.isdisjoint(hierarchy.controllers) or not _ALWAYS_V1.isdisjoint(hierarchy.controllers)
            if not self.layout.unified:
                # Without v2 the freezer is v1's, and systemd ends what it finds in the group of our service.
                needed = needed or "freezer" in hierarchy.controllers or hierarchy.controllers == ("name=systemd",)
            if needed:
                _make_v1(hierarchy, self.path)

    def _apply(self, writes: Iterable[Write]) -> None:
        """Write all; what is refused is tried once more after the others, as some limits bound each other."""
        again: list[Write] = []
        for write in writes:
            try:
                self._write_one(write)
            except OSError as error:
                if error.errno not in (errno.EINVAL, errno.EBUSY):
                    raise
                again.append(write)
        for write in again:
            self._write_one(write)

    def _write_one(self, write: Write) -> None:
        controller, names, value = write
        directory = self.directory(controller)
        if not directory:
            raise OSError(errno.ENOENT, f"the host has no cgroup controller {controller}", names)
        if names == BPF_FILE:
            assert isinstance(value, bytes)
            fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                attach_device_program(fd, value)
            finally:
                os.close(fd)
            return
        encoded = value if isinstance(value, bytes) else value.encode()
        optional = names.endswith("?")
        alternatives = names.rstrip("?").split("|")
        for name in alternatives:
            try:
                # Each line is a write of its own: devices.allow takes one rule at a time.
                _write(f"{directory}/{name}", *encoded.split(b"\n"))
                return
            except FileNotFoundError:
                if name == alternatives[-1] and not optional:
                    raise

    def _set_frozen(self, frozen: bool) -> None:
        if self.unified and os.path.isdir(self.unified):
            _write(self.unified + "/cgroup.freeze", b"1" if frozen else b"0")
            _await(lambda: read_flat(self.unified + "/cgroup.events").get("frozen") == int(frozen), self.path)
            return
        state = self.directory("freezer") + "/freezer.state"
        word = b"FROZEN" if frozen else b"THAWED"

        def reached() -> bool:
            _write(state, word)  # FREEZING can get stuck while a task is forking; writing again moves it on
            with open(state, "rb") as file:
                return file.read().strip() == word

        _await(reached, self.path)

    def _freeze_for_kill(self) -> bool:
        try:
            self.freeze()
        except OSError:
            return False
        return True


def read_flat(path: str) -> dict[str, int]:
    """A file of "key value" lines; empty when it is not there."""
    try:
        with open(path, "rb") as file:
            lines = file.read().decode().splitlines()
    except OSError:
        return {}
    pairs = (line.split() for line in lines)
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].lstrip("-").isdigit()}


def _write(path: str, *values: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        for value in values:
            os.write(fd, value)
    except OSError as error:
        error.filename = path
        raise
    finally:
        os.close(fd)


def _write_unless_gone(path: str, value: bytes) -> None:
    try:
        _write(path, value)
    except ProcessLookupError:
        return


def _make_v1(hierarchy: Hierarchy, path: str) -> None:
    cpuset = "cpuset" in hierarchy.controllers
    directory = hierarchy.mountpoint + path
    try:
        _mkdir(directory)
    except FileNotFoundError:
        _make_parents_v1(hierarchy, path, cpuset)
        _mkdir(directory)
    if cpuset and not (_cpuset(directory, "cpus") and _cpuset(directory, "mems")):
        _fill_cpuset(hierarchy.mountpoint, path)


def _make_parents_v1(hierarchy: Hierarchy, path: str, cpuset: bool) -> None:
    directory = hierarchy.mountpoint
    for name in path.strip("/").split("/")[:-1]:
        directory = f"{directory}/{name}"
        if _mkdir(directory) and cpuset:
            # Groups below are then born with their parent's cpus and nodes; empty ones would take no process.
            _write(directory + "/cgroup.clone_children", b"1")


def _fill_cpuset(mountpoint: str, path: str) -> None:
    """Give every group on the way its parent's cpus and nodes where it has none.

    All of them, from the top: a parent that somebody else is making at this moment may still be without.
    """
    above = mountpoint
    for part in path.strip("/").split("/"):
        directory = f"{above}/{part}"
        for name in ("cpus", "mems"):
            if not _cpuset(directory, name):
                _write(f"{directory}/cpuset.{name}", _cpuset(above, name))
        above = directory


def _cpuset(directory: str, name: str) -> bytes:
    with open(f"{directory}/cpuset.{name}", "rb", buffering=0) as file:
        return file.read().strip()


def _make_v2(root: str, path: str, controllers: bool) -> None:
    if not controllers and _mkdir_last(root + path):
        return
    directory = root
    for name in path.strip("/").split("/"):
        if controllers:
            _enable_controllers(directory)
        directory = f"{directory}/{name}"
        _mkdir(directory)


def _enable_controllers(directory: str) -> None:
    with open(directory + "/cgroup.subtree_control", "rb") as file:
        enabled = file.read().decode().split()
    with open(directory + "/cgroup.controllers", "rb") as file:
        available = file.read().decode().split()
    missing = [b"+" + name.encode() for name in _ALWAYS_V2 if name in available and name not in enabled]
    control = directory + "/cgroup.subtree_control"
    if not missing:
        return
    try:
        # All at once: the cpu controller alone may be enabled above processes, which makes groups below unusable.
        _write(control, b" ".join(missing))
    except OSError as error:
        if error.errno == errno.EBUSY:
            if os.path.ismount(directory) and _move_down(directory):
                _write(control, b" ".join(missing))
            return  # the group has processes of its own; a limit that needs the controllers will say so
        for word in missing:
            try:
                _write(control, word)
            except OSError as refused:
                if refused.errno not in (errno.EBUSY, errno.ENOENT, errno.EOPNOTSUPP):
                    raise


def _move_down(directory: str) -> bool:
    """Move a group's processes into a group below it; whether all could be.

    The real root may have processes and controllers for groups below; the root of a cgroup namespace, which is what we
    find when we run in a container, may not. To put its processes one level down is the custom there.
    """
    _mkdir(directory + "/init")
    with open(directory + "/cgroup.procs", "rb") as file:
        members = file.read().split()
    for pid in members:
        if pid != b"0":  # a process that our pid namespace does not show; 0 would be the writer
            _write_unless_gone(directory + "/init/cgroup.procs", pid)
    return b"0" not in members


def _mkdir_last(path: str) -> bool:
    """Whether the directory is there now; not when its parents are missing, as they are before the first container."""
    try:
        _mkdir(path)
    except FileNotFoundError:
        return False
    return True


def _mkdir(path: str) -> bool:
    """Whether the directory is new."""
    try:
        os.mkdir(path, 0o755)
    except FileExistsError:
        return False
    return True


def _tree(top: str) -> Iterator[str]:
    """`top` and the directories below it, parents first."""
    pending = [top]
    while pending:
        directory = pending.pop()
        yield directory
        try:
            with os.scandir(directory) as entries:
                pending.extend(entry.path for entry in entries if entry.is_dir(follow_symlinks=False))
        except FileNotFoundError:
            continue


def _remove_tree(top: str) -> None:
    try:
        os.rmdir(top)  # nearly always there is nothing below
        return
    except FileNotFoundError:
        return
    except OSError as error:
        if error.errno not in (errno.EBUSY, errno.ENOTEMPTY):
            raise
    deadline, pause = time.monotonic() + _PATIENCE, 0.001
    while True:
        try:
            for directory in reversed(list(_tree(top))):
                os.rmdir(directory)
            return
        except FileNotFoundError:
            return
        except OSError as error:
            if error.errno not in (errno.EBUSY, errno.ENOTEMPTY) or time.monotonic() > deadline:
                raise
        time.sleep(pause)
        pause = min(pause * 2, 0.05)


def _await(condition: Callable[[], bool], path: str) -> None:
    deadline, pause = time.monotonic() + _PATIENCE, 0.0005
    while not condition():
        if time.monotonic() > deadline:
            raise OSError(errno.EBUSY, "the control group does not change its state", path)
        time.sleep(pause)
        pause = min(pause * 2, 0.02)
