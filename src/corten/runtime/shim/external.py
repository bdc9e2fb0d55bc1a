"""How the shim drives an OCI runtime that somebody else wrote: runc, crun, runsc and their like.

The container's root file system is mounted in a mount namespace of the shim's own, so that nothing of it shows on the
host. The runtime's processes end after each call; what they started comes to the shim, their subreaper, and is waited
for, logged and reported as with the embedded runtime.

A call waits for the runtime's program (some tens of milliseconds); stdio of the container rests meanwhile.
"""

from __future__ import annotations

import _socket
import os
import stat
from _json import encode_basestring

from corten.linux import mount as api
from corten.linux.process import CLONE_NEWNS, pidfd_open, unshare
from corten.linux.scm import recv_fds
from corten.runtime import protocol
from corten.runtime.cgroups import Cgroup
from corten.runtime.cgroups_oom import OomWatch, oom_kills
from corten.runtime.child.context import Context
from corten.runtime.child.errors import ChildFailed
from corten.runtime.child.mounts import HANDLERS
from corten.runtime.child.users import resolve
from corten.runtime.shim import signals
from corten.runtime.shim.control import Refusal
from corten.runtime.shim.embedded import refusal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from corten.runtime.shim.loop import Loop
    from corten.runtime.shim.process import Process

ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"}

# Words of the runtimes' messages by which Docker too tells what kept a program from starting.
_NOT_FOUND = ("executable file not found", "no such file or directory", "executable file `")
_NOT_EXECUTABLE = ("permission denied", "not a directory", "is a directory", "exec format error")
_NULL_DEVICE = os.makedev(1, 3)


class External:
    """Implements what the shim asks of a runtime, by calling a program. `settings` are those of the LAUNCH message."""

    external = True

    def __init__(self, settings: dict[str, Any]) -> None:
        self._id: str = settings["id"]
        self._program: str = settings["runtime"]
        self._arguments: tuple[str, ...] = settings["runtime_args"]
        self._run_dir: str = settings["run_dir"]
        self._root_steps: list[tuple[Any, ...]] = settings.pop("root_steps")
        self._users: tuple[Any, ...] | None = settings.pop("root_users")
        self._volumes: list[tuple[Any, ...]] = settings.pop("root_volumes")
        self._config: tuple[bytes, dict[str, Any]] = settings.pop("config")
        self._cgroup = Cgroup(settings["cgroup"]) if settings["cgroup"] else None
        self._root = -1
        self._console = -1
        self._oom: OomWatch | None = None

    def launch(self, process: Process) -> list[str]:
        """Mount, write config.json, create, start. Raises Refusal."""
        self._mount()
        head, plan = self._config
        document = head + b',"process":' + self._process_document(plan) + b"}"
        _write(self._run_dir + "/config.json", document)
        terminal = process.stdio.terminal
        self._start(process, ["create", "--bundle", self._run_dir], [self._id], terminal)
        try:
            self._call("start", self._id)
        except Refusal:
            process.signal(signals.SIGKILL)
            os.waitpid(process.pid, 0)
            raise
        return []

    def exec(self, process: Process, init: Process, settings: dict[str, Any]) -> None:
        """A further process. Raises Refusal."""
        path = f"{self._run_dir}/process.{process.target}.json"
        _write(path, self._process_document(settings["process"]))
        try:
            self._start(process, ["exec", "--detach", "--process", path], [self._id], process.stdio.terminal)
        finally:
            os.unlink(path)

    def take_console(self) -> int:
        console, self._console = self._console, -1
        return console

    def signal(self, process: Process, signo: int) -> None:
        """The first process may be a sandbox that only its runtime knows how to signal; exec sessions are ours."""
        if process.target:
            process.signal(signo)
            return
        try:
            self._call("kill", self._id, str(signo))
        except Refusal:
            if process.alive():
                raise  # else it ended meanwhile, which is no error

    def pause(self) -> None:
        self._call("pause", self._id)

    def resume(self) -> None:
        self._call("resume", self._id)

    def watch_oom(self, loop: Loop, tell: Callable[[], None]) -> None:
        if self._cgroup is not None:
            self._oom = OomWatch(self._cgroup, loop, tell)

    def ended(self) -> bool:
        """Whether the kernel killed for want of memory, as far as the cgroup tells."""
        if self._oom is not None:
            self._oom.close()
        return self._cgroup is not None and oom_kills(self._cgroup) > 0

    def clean_up(self) -> None:
        """Have the runtime forget the container; its mounts go with this process and its namespace."""
        try:
            self._call("delete", "--force", self._id)
        except Refusal as error:
            os.write(2, f"delete: {error}\n".encode())
        if self._cgroup is not None:
            self._cgroup.remove()

    def _mount(self) -> None:
        unshare(CLONE_NEWNS)
        api.mount("", "/", "", api.MS_REC | api.MS_SLAVE)
        root = self._run_dir + "/rootfs"
        os.makedirs(root, exist_ok=True)
        try:
            if self._users is not None or self._volumes:
                mount_mapped(root, self._root_steps, self._volumes, self._users)
            else:
                context = Context(None, None, root)  # type: ignore[arg-type]  # the mounts of a root use neither
                for name, *values in self._root_steps:
                    HANDLERS[name](context, *values)
        except ChildFailed as failure:
            raise refusal(failure) from None
        self._root = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)

    def _process_document(self, plan: dict[str, Any]) -> bytes:
        """process.json: the user resolved in the container's own root, HOME set where the environment has none."""
        uid, gid, groups = plan["identity"]
        env = list(plan["env"])
        if plan["user"] or plan["groups"]:
            try:
                uid, gid, groups, home = resolve(self._root, plan["user"], plan["groups"])
            except ChildFailed as failure:
                raise refusal(failure) from None
            if not any(word.startswith("HOME=") for word in env):
                env.append(f"HOME={home}")
        if gid not in groups:
            groups = [gid, *groups]  # as the embedded runtime does (CVE-2022-36109)
        words = ",".join(encode_basestring(word) for word in env).encode("utf-8", "replace")
        user = f'{{"uid":{uid},"gid":{gid},"additionalGids":{list(groups)}}}'.encode()
        return bytes(plan["document"] + b',"env":[' + words + b'],"user":' + user + b"}")

    def _start(self, process: Process, command: list[str], names: list[str], terminal: bool) -> None:
        """A command that leaves a process behind: its pid comes in a file, its console over a socket."""
        pid_file = f"{self._run_dir}/pid.{process.target}"
        listener = None
        if terminal:
            _unlink(self._run_dir + "/console.sock")
            short, directory = protocol.near(self._run_dir + "/console.sock")
            listener = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
            listener.bind(short)
            listener.listen(1)
            os.close(directory)
            # Relative, as the program runs in the run directory: socket addresses are short.
            command = [*command, "--console-socket", "console.sock"]
        try:
            self._call(*command, "--pid-file", pid_file, *names, stdio=process.stdio.child_fds)
            if listener is not None:
                self._console = _receive_console(listener)
        finally:
            if listener is not None:
                listener.close()
                _unlink(self._run_dir + "/console.sock")
        with open(pid_file, encoding="ascii") as file:
            pid = int(file.read())
        os.unlink(pid_file)
        process.started(pid, pidfd_open(pid))

    def _call(self, *arguments: str, stdio: tuple[int, int, int] | None = None) -> None:
        """Run the runtime's program and wait for it. Raises Refusal with what it logged."""
        log = self._run_dir + "/runtime.log"
        _unlink(log)
        state = self._run_dir + "/runtime"
        argv = [self._program, *self._arguments, "--root", state, "--log", log, "--log-format", "json", *arguments]
        null = _null_device()
        streams = [null if _is_null(fd) else fd for fd in stdio or (null, null, null)]
        os.chdir(self._run_dir)
        try:
            pid = os.posix_spawn(
                self._program,
                argv,
                ENVIRONMENT,
                file_actions=[(os.POSIX_SPAWN_DUP2, fd, number) for number, fd in enumerate(streams)],
                setsigdef=(*signals.IGNORED, signals.SIGPIPE),
            )
        except OSError as error:
            raise Refusal(protocol.FAULT, f"{self._program}: {error.strerror}", "runtime", error.errno or 0) from None
        finally:
            os.chdir("/")
            os.close(null)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        if status:
            raise self._failure(arguments[0], log, status)

    def _failure(self, command: str, log: str, status: int) -> Refusal:
        text = _last_message(log) or f"{self._program} {command} has ended with {status}"
        lowered = text.lower()
        code = 128
        for meaning, words in ((126, _NOT_EXECUTABLE), (127, _NOT_FOUND)):
            for word in words:
                if (at := lowered.find(word)) >= 0:
                    code = meaning
                    # As Go spells it: Docker's clients match on these words, and crun has the C library's.
                    text = text[:at] + word + text[at + len(word) :]
        kind = protocol.START_FAILED if command in ("create", "start", "exec") else protocol.FAULT
        return Refusal(kind, text, f"{command} by {os.path.basename(self._program)}", 0, code)


def mount_mapped(
    root: str, steps: list[tuple[Any, ...]], volumes: list[tuple[Any, ...]], users: tuple[Any, ...] | None
) -> None:
    """The same with idmapped layers and volumes; `users` is the container's user namespace. Raises ChildFailed."""
    from corten.runtime.child import held, usernamespace  # rarely needed

    user = None
    if users is not None:
        path, uids, gids = users
        user = usernamespace.join(path, uids, gids) if path else usernamespace.create(uids, gids)
    stage = held.Stage(None, None, root, user)  # type: ignore[arg-type]  # as above
    handlers = HANDLERS | held.HANDLERS
    for name, *values in steps:
        handlers[name](stage, *values)
    for name, target, *values in volumes:
        handlers[name](stage, target, *values)
        tree = stage.take(target)
        os.makedirs(os.path.dirname(target), exist_ok=True)
        if stat.S_ISDIR(os.fstat(tree).st_mode):
            os.mkdir(target)
        else:
            os.close(os.open(target, os.O_CREAT | os.O_CLOEXEC, 0o600))
        api.move_mount(tree, api.AT_FDCWD, target)
        os.close(tree)
    if user is not None:
        os.close(user.fd)


def _is_null(fd: int) -> bool:
    status = os.fstat(fd)
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == _NULL_DEVICE


def _null_device() -> int:
    """A null device for the runtime's program, which is not the host's: crun gives its streams to the container's user,
    and with them the host's /dev/null. Where no device may be made it is the host's all the same."""
    try:
        fs = api.fsopen("tmpfs")
        try:
            api.fsconfig_create(fs)
            directory = api.fsmount(fs)
        finally:
            os.close(fs)
        try:
            os.mknod("null", stat.S_IFCHR | 0o666, _NULL_DEVICE, dir_fd=directory)
            return os.open("null", os.O_RDWR | os.O_CLOEXEC, dir_fd=directory)
        finally:
            os.close(directory)
    except OSError:
        return os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)


def _receive_console(listener: _socket.socket) -> int:
    fd, _ = listener._accept()  # type: ignore[attr-defined]  # of _socket.socket, which lacks accept
    connection = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM, 0, fd)
    try:
        _, fds = recv_fds(connection, 4096, 1)
    finally:
        connection.close()
    return fds[0] if fds else -1


def _last_message(log: str) -> str:
    """The `msg` of the last line of a log in JSON; "" without one."""
    try:
        with open(log, "rb") as file:
            lines = file.read(1 << 16).splitlines()
    except FileNotFoundError:
        return ""
    import json  # costly, and needed only when a foreign runtime has failed

    for line in reversed(lines):
        try:
            return str(json.loads(line)["msg"])[:2000]
        except (ValueError, KeyError, TypeError):
            continue
    return ""


def _write(path: str, data: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(fd, view) :]
    finally:
        os.close(fd)


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        return
