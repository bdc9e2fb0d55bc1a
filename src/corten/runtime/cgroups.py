"""A container's control group, on version 1, version 2 and the hybrid of both.

Imports nothing costly: the shim makes the cgroup and the child enters it. Limits come as `Write` tuples, which
`cgroups_limits` makes out of a specification; counters are read by `cgroups_stats`.

On a hybrid host the container also gets a group in the v2 hierarchy: it can kill and freeze all members with one
write, so that the v1 freezer is not used, and it takes the limits of those controllers that are there and not in
version 1.
"""

from __future__ import annotations

import errno
import os
import time

from corten.linux.bpf import attach_device_program
from corten.runtime.cgroups_tree import (
    PATIENCE,
    controllers_v2,
    make_v1,
    make_v2,
    remove_tree,
    tree,
    words,
    write,
    write_unless_gone,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence


Write = tuple[str, str, str | bytes | tuple[str, ...], str]
"""Controller, file, value, and the member of the specification that asks for it.

`file` may be alternatives, "a|b": the first that exists is written, with the value of its place when `value` is a
tuple. With a "?" at its end it may be absent; with a "<" nothing is written: what it holds must be less than the value.
The file "devices.bpf" stands for attaching a device program of version 2, whose value are its instructions."""

# Controllers that each container gets on version 1: what `stats` reads, and what lets containers share fairly. JVMs
# take themselves to be outside a container unless cpu, cpuacct, cpuset and memory are all mounted.
_ALWAYS_V1 = frozenset(("cpu", "cpuacct", "cpuset", "memory", "blkio", "pids"))
BPF_FILE = "devices.bpf"
_CORE = frozenset(("devices", "cgroup"))  # of version 2 itself: nothing that could be handed down
_SIGKILL = 9


class GroupInUse(OSError):
    """The group that was to be made is there already, with processes in it or frozen."""


class LimitRefused(OSError):
    """A limit could not be put into force. `detail` names the member of the specification and what the kernel says."""

    def __init__(self, code: int, detail: str) -> None:
        super().__init__(code, detail)
        self.detail = detail

    def __str__(self) -> str:
        return self.detail


class Hierarchy:
    """One mounted hierarchy of version 1: the controllers it carries and where it is mounted."""

    __slots__ = ("controllers", "mountpoint")

    def __init__(self, controllers: tuple[str, ...], mountpoint: str) -> None:
        self.controllers, self.mountpoint = controllers, mountpoint

    @property
    def named(self) -> bool:
        return self.controllers[0].startswith("name=")


class Layout:
    """What the host has mounted: `unified` is the mount point of version 2, "" for none; `v2` the controllers there.

    `local_events` says that version 2 is mounted so that a group's memory.events do not count those of groups below.
    """

    __slots__ = ("local_events", "unified", "v1", "v2")

    def __init__(
        self, unified: str, v1: tuple[Hierarchy, ...], v2: Iterable[str] = (), *, local_events: bool = False
    ) -> None:
        self.unified, self.v1, self.v2, self.local_events = unified, v1, frozenset(v2), local_events

    @property
    def pure_v2(self) -> bool:
        return bool(self.unified) and not self.v1

    def of(self, controller: str) -> Hierarchy | None:
        """The v1 hierarchy with `controller`."""
        for hierarchy in self.v1:
            if controller in hierarchy.controllers:
                return hierarchy
        return None

    def version(self, controller: str) -> int:
        """Which version has `controller`, 0 for none. Of version 2 alone it may turn out only later that the group
        above ours does not hand it down; "devices" and "cgroup" are no controllers there, and always to be had."""
        if self.of(controller) is not None:
            return 1
        return 2 if self.pure_v2 or controller in self.v2 or (self.unified and controller in _CORE) else 0


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
        if _layout.unified:
            _layout.v2 = frozenset(words(_layout.unified + "/cgroup.controllers"))
    return _layout


def use_layout(layout: Layout) -> None:
    """Take `layout` for the host's from now on."""
    global _layout
    _layout = layout


def parse_layout(mountinfo: str) -> Layout:
    """The cgroup mounts out of the text of /proc/PID/mountinfo; the first mount of each hierarchy counts."""
    unified, v1, seen, local = "", [], set(), False
    for line in mountinfo.splitlines():
        before, separator, after = line.partition(" - ")
        fields, kind = before.split(" "), after.split(" ")
        if not separator or len(fields) < 5 or kind[0] not in ("cgroup", "cgroup2"):
            continue
        if kind[0] == "cgroup2":
            if not unified:
                unified, local = fields[4], "memory_localevents" in kind[2].split(",")
            continue
        options = kind[2].split(",")
        controllers = tuple(o for o in options if o not in _NOT_CONTROLLERS and not o.startswith("release_agent"))
        if controllers and controllers not in seen:
            seen.add(controllers)
            v1.append(Hierarchy(controllers, fields[4]))
    return Layout(unified, tuple(v1), local_events=local)


class Cgroup:
    """The control groups at one path of all hierarchies. Making the object touches nothing."""

    __slots__ = ("layout", "path")

    def __init__(self, path: str, layout: Layout | None = None) -> None:
        self.path = "/" + path.strip("/")
        if self.path == "/":
            raise ValueError("the root of the hierarchy is nobody's control group")
        self.layout = layout or host_layout()

    @classmethod
    def create(
        cls, path: str, writes: Sequence[Write] = (), layout: Layout | None = None, *, adopt: bool = False
    ) -> Cgroup:
        """Make the groups and write the limits. What was made is removed again when that fails.

        Groups that are there already are what a crash has left: they are used when they are empty and not frozen, and
        raise GroupInUse otherwise, unless `adopt` says that somebody has made them for us. Raises LimitRefused.
        """
        group = cls(path, layout)
        made: list[str] = []
        try:
            if group._make({limit[0] for limit in writes}, made) and not adopt:
                refuse_used(group)
            group._apply(writes)
        except BaseException:
            for directory in made:
                remove_tree(directory)
            raise
        return group

    @property
    def unified(self) -> str:
        """The directory in the v2 hierarchy, "" when the host has none."""
        return self.layout.unified + self.path if self.layout.unified else ""

    def directory(self, controller: str) -> str:
        """Where the files of `controller` are, whether or not the directory exists; "" when the host lacks it."""
        hierarchy = self.layout.of(controller)
        if hierarchy is not None:
            return hierarchy.mountpoint + self.path
        return self.unified if self.layout.version(controller) else ""

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
                write(hierarchy.mountpoint + self.path + "/tasks", b"0")
            except FileNotFoundError:  # not every hierarchy has a group
                continue

    def add(self, pid: int) -> None:
        """Move a process with all its threads into the groups."""
        for _, directory in self.v1_directories():
            write(directory + "/cgroup.procs", b"%d" % pid)
        if self.unified and os.path.isdir(self.unified):
            write(self.unified + "/cgroup.procs", b"%d" % pid)

    def pids(self) -> list[int]:
        """All processes in the group and below it."""
        for top in self._tops():
            found: list[int] = []
            for directory in tree(top):
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

        Device rules stay as they were at the start: writing them anew would refuse all devices for a moment. Raises
        LimitRefused; what was written before the limit that it names stays.
        """
        writes = [limit for limit in writes if limit[0] != "devices"]
        before = {directory for _, directory in self.v1_directories()}
        self._make({limit[0] for limit in writes}, [])
        self._apply(writes)
        added = [directory for _, directory in self.v1_directories() if directory not in before]
        if added:
            for pid in self.pids():
                for directory in added:
                    write_unless_gone(directory + "/cgroup.procs", b"%d" % pid)

    def freeze(self) -> None:
        """Stop all processes; returns when they are."""
        self._set_frozen(True)

    def thaw(self) -> None:
        self._set_frozen(False)

    def kill_all(self) -> None:
        """SIGKILL every process in the group and below; does not wait for their end."""
        if self.unified:
            try:
                write(self.unified + "/cgroup.kill", b"1")
                return
            except FileNotFoundError:  # the group is gone, or the kernel is older than 5.14
                pass
        deadline = time.monotonic() + PATIENCE
        while pids := self.pids():
            stopped = self._freeze_for_kill()
            for pid in pids:
                try:
                    os.kill(pid, _SIGKILL)
                except ProcessLookupError:
                    continue
            if stopped:
                self.thaw()  # a frozen process of version 1 does not die
            if time.monotonic() > deadline:
                raise OSError(errno.EBUSY, "processes survive SIGKILL", self.path)
            time.sleep(0.002)

    def remove(self) -> None:
        """Remove the groups and those below them; absent ones are no error. OSError while there are processes."""
        for hierarchy in self.layout.v1:
            remove_tree(hierarchy.mountpoint + self.path)
        if self.unified:
            remove_tree(self.unified)

    def _tops(self) -> Iterator[str]:
        """Directories that all members are in, the cheapest first."""
        if self.unified and os.path.isdir(self.unified):
            yield self.unified
        for _, directory in self.v1_directories():
            yield directory

    def _make(self, wanted: set[str], made: list[str]) -> bool:
        """Make what is missing, noting it in `made`; whether something was there already."""
        layout, old = self.layout, False
        if layout.unified:
            below = sorted(name for name in wanted - _CORE if layout.version(name) == 2)
            if make_v2(layout.unified, self.path, controllers_v2(below, pure=layout.pure_v2)):
                made.append(self.unified)
            else:
                old = True
        for hierarchy in layout.v1:
            needed = not wanted.isdisjoint(hierarchy.controllers) or not _ALWAYS_V1.isdisjoint(hierarchy.controllers)
            if not layout.unified:
                # Without v2 the freezer is v1's, and systemd ends what it finds in the group of our service.
                needed = needed or "freezer" in hierarchy.controllers or hierarchy.controllers == ("name=systemd",)
            if not needed:
                continue
            if make_v1(hierarchy.mountpoint, self.path, "cpuset" in hierarchy.controllers):
                made.append(hierarchy.mountpoint + self.path)
            else:
                old = True
        return old

    def _apply(self, writes: Iterable[Write]) -> None:
        """Write all; what is refused is tried once more after the others, as some limits bound each other."""
        again: list[Write] = []
        for limit in writes:
            try:
                self._write_one(limit)
            except LimitRefused as error:
                if error.errno not in (errno.EINVAL, errno.EBUSY):
                    raise
                again.append(limit)
        for limit in again:
            self._write_one(limit)

    def _write_one(self, limit: Write) -> None:
        controller, names, value, member = limit
        directory = self.directory(controller)
        if not directory:
            raise LimitRefused(errno.ENOENT, f"{member}: the host has no cgroup controller {controller}")
        if isinstance(value, bytes):
            _attach(directory, value, member)
            return
        if names.endswith("<"):
            _check_below(f"{directory}/{names[:-1]}", str(value), member)
            return
        alternatives = names.rstrip("?").split("|")
        values = value if isinstance(value, tuple) else (value,) * len(alternatives)
        for name, text in zip(alternatives, values, strict=True):
            try:
                # Each line is a write of its own: devices.allow takes one rule at a time.
                write(f"{directory}/{name}", *text.encode().split(b"\n"))
                return
            except FileNotFoundError:
                continue
            except OSError as error:
                raise _refused(error, directory, name, text, limit) from None
        if not names.endswith("?"):
            raise LimitRefused(errno.ENOENT, f"{member}: {self._absence(controller, alternatives)}")

    def _absence(self, controller: str, names: list[str]) -> str:
        """Why none of the files is there: the controller is not handed down to us, or the kernel knows no such file."""
        if self.layout.version(controller) == 2 and controller not in _CORE:
            try:
                if controller not in words(self.unified + "/cgroup.controllers"):
                    return f"the controller {controller} is not available to the cgroup {self.path}"
            except OSError:
                pass
        return f"the kernel has no {' or '.join(names)}"

    def _set_frozen(self, frozen: bool) -> None:
        if self.unified and os.path.isdir(self.unified):
            write(self.unified + "/cgroup.freeze", b"1" if frozen else b"0")
            _await(lambda: read_flat(self.unified + "/cgroup.events").get("frozen") == int(frozen), self.path)
            return
        state = self.directory("freezer") + "/freezer.state"
        word = b"FROZEN" if frozen else b"THAWED"

        def reached() -> bool:
            write(state, word)  # FREEZING can get stuck while a task is forking; writing again moves it on
            with open(state, "rb") as file:
                return file.read().strip() == word

        _await(reached, self.path)

    def _freeze_for_kill(self) -> bool:
        try:
            self.freeze()
        except OSError:
            return False
        return True


def refuse_used(group: Cgroup) -> None:
    """Raises GroupInUse when there are processes in it, or it is frozen. One that is not there is in order."""
    if pids := group.pids():
        why = f"the container's cgroup is not empty: {len(pids)} process(es) found"
        raise GroupInUse(errno.EBUSY, why, group.path)
    if is_frozen(group):
        raise GroupInUse(errno.EBUSY, "the container's cgroup is unexpectedly frozen", group.path)


def is_frozen(group: Cgroup) -> bool:
    """Whether somebody has frozen the group, or is about to."""
    if group.unified and os.path.isdir(group.unified):
        return _first_word(group.unified + "/cgroup.freeze") == "1"
    return _first_word(group.directory("freezer") + "/freezer.state") not in ("", "THAWED")


def read_flat(path: str) -> dict[str, int]:
    """A file of "key value" lines; empty when it is not there."""
    try:
        with open(path, "rb") as file:
            lines = file.read().decode().splitlines()
    except OSError:
        return {}
    pairs = (line.split() for line in lines)
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].lstrip("-").isdigit()}


def _first_word(path: str) -> str:
    try:
        return (words(path) or [""])[0]
    except OSError:
        return ""


def _attach(directory: str, program: bytes, member: str) -> None:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        attach_device_program(fd, program)
    except OSError as error:
        text = f"{member}: attaching the device program: {_reason(error)}"
        raise LimitRefused(error.errno or 0, text) from None
    finally:
        os.close(fd)


def _check_below(path: str, bound: str, member: str) -> None:
    used = _first_word(path)
    if used.isdigit() and int(used) >= int(bound):
        raise LimitRefused(errno.ERANGE, f"{member}: {bound} is not above what is in use, {used}")


def _refused(error: OSError, directory: str, name: str, text: str, limit: Write) -> LimitRefused:
    hint = ""
    if limit[0] == "memory" and error.errno == errno.EBUSY:
        used = _first_word(directory + "/memory.usage_in_bytes") or _first_word(directory + "/memory.current")
        hint = f" (in use: {used})"
    if len(text) > 80:
        text = text[:80] + "..."
    return LimitRefused(error.errno or 0, f"{limit[3]}: writing {text!r} to {name}: {_reason(error)}{hint}")


def _reason(error: OSError) -> str:
    """In lower case as in all our messages."""
    return os.strerror(error.errno).lower() if error.errno else str(error)


def _await(condition: Callable[[], bool], path: str) -> None:
    deadline, pause = time.monotonic() + PATIENCE, 0.0005
    while not condition():
        if time.monotonic() > deadline:
            raise OSError(errno.EBUSY, "the control group does not change its state", path)
        time.sleep(pause)
        pause = min(pause * 2, 0.02)
