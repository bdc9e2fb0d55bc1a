"""From a mounted root to execve: identity, limits, privileges, the program."""

from __future__ import annotations

import errno
import os
import resource
import stat

from corten.linux import capability, keyring, mempolicy, process
from corten.linux.inroot import ensure
from corten.linux.openat2 import RESOLVE_IN_ROOT, RESOLVE_NO_MAGICLINKS, openat2
from corten.linux.seccomp import SECCOMP_FILTER_FLAG_NEW_LISTENER, prepare_filter, without_listener
from corten.runtime.child import network, users
from corten.runtime.child.channel import CREATED, EXEC, READY
from corten.runtime.child.errors import NOT_EXECUTABLE, NOT_FOUND, OTHER, ChildFailed, fail, reason

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

    from corten.runtime.child.context import Context, Handler
    from corten.runtime.child.hooks import Hooks

_REFUSED = (errno.EPERM, errno.EACCES)
_INFINITY = (1 << 64) - 1
_REAL_TIME = (1, 2)  # SCHED_FIFO and SCHED_RR: kernels with RT_GROUP_SCHED give a new group no time for them
_NULL_DEVICE = os.makedev(1, 3)


def set_hostname(ctx: Context, name: str) -> None:
    process.sethostname(name)


def set_domainname(ctx: Context, name: str) -> None:
    process.setdomainname(name)


def raise_loopback(ctx: Context) -> None:
    """A network namespace made here has one interface, lo, and it is down."""
    network.set_link_up("lo")


def set_sysctl(ctx: Context, key: str, value: str) -> None:
    """Through the host's /proc, before pivot_root; what is written belongs to the namespaces of the writer."""
    try:
        _write_proc(ctx, "sys/" + key, value.encode())
    except OSError as error:
        fail("set sysctl", error, f"writing sysctl {key.replace('/', '.')}")


def set_oom_score(ctx: Context, value: int) -> None:
    """Lowering it needs CAP_SYS_RESOURCE, which a nested host may lack: then it stays, with a warning."""
    try:
        _write_proc(ctx, "self/oom_score_adj", b"%d" % value)
    except OSError as error:
        if error.errno not in _REFUSED:
            fail("set oom_score_adj", error, f"setting oom_score_adj to {value}")
        ctx.warn(f"oom_score_adj {value} was not set: {reason(error)}")


def new_keyring(ctx: Context, name: str) -> None:
    """Keys of the host's session must not be reachable. A kernel or a filter without keyctl has none to protect."""
    try:
        key = keyring.join_session_keyring(name)
        keyring.set_permissions(
            key, keyring.KEY_POS_ALL | keyring.KEY_USR_VIEW | keyring.KEY_USR_READ | keyring.KEY_USR_SEARCH
        )
    except OSError as error:
        if error.errno not in (errno.ENOSYS, errno.EPERM, errno.EACCES):
            fail("join session keyring", error, "joining a new session keyring")


def set_scheduler(
    ctx: Context, policy: int, flags: int, nice: int, priority: int, runtime: int, deadline: int, period: int
) -> None:
    try:
        process.sched_setattr(policy, flags, nice, priority, runtime, deadline, period)
    except OSError as error:
        what = "setting the scheduling policy (process.scheduler)"
        if error.errno == errno.EPERM and policy in _REAL_TIME:
            what += ", for which linux.resources.cpu.realtimeRuntime may be missing"
        fail("set scheduler", error, what)


def set_io_priority(ctx: Context, ioclass: int, priority: int) -> None:
    try:
        process.ioprio_set(ioclass, priority)
    except OSError as error:
        fail("set I/O priority", error, "setting the I/O priority (process.ioPriority)")


def set_personality(ctx: Context, persona: int) -> None:
    process.personality(persona)


def set_memory_policy(ctx: Context, mode: int, nodes: tuple[int, ...]) -> None:
    try:
        mempolicy.set_mempolicy(mode, sum(1 << node for node in nodes))
    except OSError as error:
        fail("set memory policy", error, "setting linux.memoryPolicy")


def set_affinity(ctx: Context, cpus: tuple[int, ...]) -> None:
    try:
        os.sched_setaffinity(0, cpus)
    except OSError as error:
        fail("set CPU affinity", error, "setting the CPU affinity (process.execCPUAffinity.final)")


def resolve_user(ctx: Context, user: str, groups: tuple[str, ...], uid: int, gid: int, gids: tuple[int, ...]) -> None:
    """By name in the container's own files, or with an empty `user` the numbers given."""
    if user or groups:
        ruid, rgid, rgroups, home = users.resolve(ctx.root, user or f"{uid}:{gid}", groups)
        extra = [number for number in gids if number not in rgroups]
        ctx.uid_gid, ctx.groups, ctx.home = (ruid, rgid), rgroups + extra, home
    else:
        ctx.uid_gid, ctx.groups, ctx.home = (uid, gid), list(gids), users.home_of(ctx.root, uid)
    if ctx.uid_gid[1] not in ctx.groups:
        # The primary group is also a supplementary one: else a setgid program sheds it and passes by a file's
        # "group may not" entry (CVE-2022-36109).
        ctx.groups = [ctx.uid_gid[1], *ctx.groups]


def enter_directory(ctx: Context, path: str, make: bool) -> None:
    """Go to the working directory, which is made where it is missing if `make`: as root, whatever its mode says.

    It is opened without the links of /proc that lead out of the root, and looked at afterwards (CVE-2024-21626).
    """
    try:
        if make:
            os.close(ensure(ctx.root, path, directory=True)[0])
    except OSError as error:
        if error.errno != errno.EACCES:
            _directory_failed(path, error)
    try:
        _change_directory(ctx, path)
    except OSError as error:
        if error.errno != errno.EACCES:
            _directory_failed(path, error)
        ctx.cwd_pending = path  # a file system that trusts users more than root, such as NFS: try as the user


def _change_directory(ctx: Context, path: str) -> None:
    fd = openat2(ctx.root, path, os.O_RDONLY | os.O_DIRECTORY, RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS)
    try:
        os.fchdir(fd)
    finally:
        os.close(fd)
    # The system call says "(unreachable)/..." for a directory outside the root; the C library fails with ENOENT then.
    if not os.getcwd().startswith("/"):
        raise OSError(errno.ENOENT, "current working directory is outside of the container's root")


def _directory_failed(path: str, error: OSError) -> NoReturn:
    code = NOT_EXECUTABLE if error.errno in (errno.EACCES, errno.ENOTDIR, errno.ENOENT) else OTHER
    fail("enter working directory", error, f'chdir to cwd ("{path}") set in config.json failed', code)


def switch_user(ctx: Context, umask: int, bounding: int, effective: int, permitted: int, inheritable: int) -> None:
    """Become the user. All capabilities stay permitted until the last step, but only the user's are in effect."""
    uid, gid = ctx.uid_gid
    ctx.umask = umask
    _own_stdio(uid)
    try:
        capability.limit_bounding(bounding)
        _set_groups(ctx)
        os.setresgid(gid, gid, gid)
        process.prctl(process.PR_SET_KEEPCAPS, 1)
        os.setresuid(uid, uid, uid)
        process.prctl(process.PR_SET_KEEPCAPS, 0)
        # A change of user sets this to the sysctl fs.suid_dumpable, which need not be 0.
        process.prctl(process.PR_SET_DUMPABLE, 0)
        _, kept, _ = capability.capget()
        if missing := (bounding | permitted) & ~kept:
            names = [name for name, number in capability.NUMBERS.items() if missing >> number & 1]
            ctx.warn(f"{', '.join(names)} cannot be granted: this host does not have them itself")
        capability.capset(effective & kept, kept, inheritable & kept)
    except OSError as error:
        fail("switch user", error, f"becoming user {uid}:{gid}")
    if ctx.cwd_pending:
        try:
            _change_directory(ctx, ctx.cwd_pending)
        except OSError as error:
            _directory_failed(ctx.cwd_pending, error)


def _set_groups(ctx: Context) -> None:
    try:
        os.setgroups(ctx.groups)
    except PermissionError:
        # A user namespace made without the host's root denies it (user_namespaces(7)): nobody there has such groups.
        with open(os.open("self/setgroups", os.O_RDONLY | os.O_CLOEXEC, dir_fd=ctx.proc), "rb") as file:
            if file.read().strip() != b"deny":
                raise
        ctx.warn("supplementary groups were left out: the user namespace denies setgroups")


def _own_stdio(uid: int) -> None:
    """Let the user open /dev/stdout and the like again by name; the null device stays root's."""
    for fd in (0, 1, 2):
        status = os.fstat(fd)
        if status.st_uid == uid or (stat.S_ISCHR(status.st_mode) and status.st_rdev == _NULL_DEVICE):
            continue
        try:
            os.fchown(fd, uid, status.st_gid)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.EPERM, errno.EROFS):
                raise


def let_go(ctx: Context, label_file: str) -> None:
    """Nothing of the host is within reach of the names that the image gives from here on."""
    if label_file:
        try:
            ctx.label_file = os.open("self/attr/" + label_file, os.O_WRONLY | os.O_CLOEXEC, dir_fd=ctx.proc)
        except OSError as error:
            fail("set security label", error, f"opening /proc/self/attr/{label_file}")
    ctx.let_go()


def find_command(ctx: Context, args: tuple[str, ...], path: str) -> None:
    """Look args[0] up as execvp does, in the container's PATH and with the user's rights."""
    ctx.args = list(args)
    name = args[0]
    if "/" in name:
        _check_executable(name)
        ctx.command = name
        return
    for directory in path.split(":") if path else ():
        if not directory.startswith("/"):
            continue  # a relative entry would run what lies in the working directory
        candidate = f"{directory}/{name}"
        try:
            _check_executable(candidate)
        except ChildFailed:
            continue
        ctx.command = candidate
        return
    raise ChildFailed(
        "find command", errno.ENOENT, f'exec: "{name}": executable file not found in $PATH: unknown', NOT_FOUND
    )


def _check_executable(path: str) -> None:
    try:
        status = os.stat(path)
    except OSError as error:
        code = NOT_FOUND if error.errno in (errno.ENOENT, errno.ELOOP) else NOT_EXECUTABLE
        fail("find command", error, f'exec: "{path}": stat {path}', code)
    if stat.S_ISDIR(status.st_mode):
        raise ChildFailed("find command", errno.EISDIR, f'exec: "{path}": is a directory: unknown', NOT_EXECUTABLE)
    if not os.access(path, os.X_OK, effective_ids=True) or not status.st_mode & 0o111:
        detail = f'exec: "{path}": permission denied: unknown'
        raise ChildFailed("find command", errno.EACCES, detail, NOT_EXECUTABLE)


def set_rlimits(ctx: Context, limits: tuple[tuple[int, int, int], ...]) -> None:
    """(resource, soft, hard). Raising a hard limit that the host does not let us raise leaves it, with a warning.

    From here on everything permitted is in effect again: raising needs CAP_SYS_RESOURCE.
    """
    _, permitted, inheritable = capability.capget()
    capability.capset(permitted, permitted, inheritable)
    for number, soft, hard in limits:
        wanted = (rlim(soft), rlim(hard))
        try:
            resource.setrlimit(number, wanted)
        except (OSError, ValueError) as error:
            _set_lower_limit(ctx, number, soft, error)


def _set_lower_limit(ctx: Context, number: int, soft: int, error: Exception) -> None:
    _, ceiling = resource.getrlimit(number)
    if isinstance(error, OSError) and error.errno != errno.EPERM:
        fail("set rlimit", error, f"process.rlimits: setting resource limit {number}")
    allowed = soft if ceiling == -1 else min(soft, ceiling)
    try:
        resource.setrlimit(number, (rlim(allowed), ceiling))
    except (OSError, ValueError) as second:
        raise ChildFailed(
            "set rlimit", errno.EINVAL, f"process.rlimits: setting resource limit {number}: {second}"
        ) from None
    ctx.warn(f"the hard limit of resource {number} stays at {ceiling}: operation not permitted")


def rlim(value: int) -> int:
    """As setrlimit takes it."""
    return -1 if value >= _INFINITY or value < 0 else value


def execute(
    ctx: Context,
    env: tuple[str, ...],
    capabilities: tuple[int, int, int, int],
    no_new_privileges: bool,
    label: tuple[str, str],
    program: bytes,
    filter_flags: int,
) -> None:
    """The last step. `capabilities` are effective, permitted, inheritable and ambient; `label` a file of
    /proc/self/attr and what to write there.

    The filter is the very last thing before execve, so that it needs to allow nothing else of us. Without
    no_new_privs loading needs CAP_SYS_ADMIN: it is kept in effect until execve, which computes all sets anew from the
    bounding, inheritable and ambient ones.
    """
    words = list(env)
    if not any(word.startswith("HOME=") for word in words):
        words.append("HOME=" + ctx.home)
    run = process.prepare_execve(ctx.command, ctx.args, words)
    load = prepare_filter(program, filter_flags) if program else None
    if ctx.hold:
        ctx.channel.send(READY)
        ctx.channel.await_go()
    if no_new_privileges:
        process.prctl(process.PR_SET_NO_NEW_PRIVS, 1)
    if label[0]:
        _write_label(ctx, label[1])  # a fork takes it along

    def confine() -> None:
        set_capabilities(capabilities, capability.CAP_SYS_ADMIN if load and not no_new_privileges else 0)
        os.umask(ctx.umask)

    if ctx.start_hooks is not None:
        _run_start_hooks(ctx.start_hooks, confine, (program, filter_flags))
    confine()
    hand_over = None
    if filter_flags & SECCOMP_FILTER_FLAG_NEW_LISTENER:
        from corten.runtime.child.listener import offer  # was imported before the clone

        hand_over = offer(ctx.channel)
    ctx.channel.send(EXEC)
    if load:
        try:
            listener = load()
        except OSError as error:
            fail("load seccomp filter", error, "loading the seccomp filter")
        if hand_over is not None:
            hand_over(listener)
    try:
        run()
    except OSError as error:
        code = {errno.ENOENT: NOT_FOUND, errno.ELOOP: NOT_FOUND}.get(error.errno or 0, NOT_EXECUTABLE)
        fail("exec", error, f"exec {ctx.command}", code)


def await_runtime_hooks(ctx: Context) -> None:
    """The parent runs hooks now: all is mounted, and the root is not switched yet."""
    ctx.channel.send(CREATED)
    ctx.channel.await_go()


def run_create_container_hooks(ctx: Context, found: Hooks) -> None:
    """The host's programs in the container's namespaces, in the root's directory."""
    from corten.runtime.child import hooks  # was imported before the clone, as its file is out of reach now

    os.fchdir(ctx.root)
    hooks.run(found, os.getpid())
    hooks.reap_orphans()


def keep_start_container_hooks(ctx: Context, found: Hooks) -> None:
    """For `execute`, which runs them when nothing else is left to do."""
    ctx.start_hooks = found


def _run_start_hooks(found: Hooks, confine: Callable[[], None], seccomp: tuple[bytes, int]) -> None:
    """The container's programs, which may do no more than the program that follows may."""
    from corten.runtime.child import hooks

    program, flags = seccomp
    load = prepare_filter(program, without_listener(flags)) if program else None

    def prepare() -> None:
        confine()
        if load is not None:
            load()

    hooks.run(found, os.getpid(), prepare=prepare)
    hooks.reap_orphans()


def set_capabilities(capabilities: tuple[int, int, int, int], extra: int) -> None:
    """The final sets, limited to what this process has; `extra` is kept permitted and in effect besides."""
    effective, permitted, inheritable, ambient = capabilities
    _, kept, _ = capability.capget()
    permitted &= kept
    inheritable &= kept
    extra &= kept
    capability.capset((effective & permitted) | extra, permitted | extra, inheritable)
    capability.set_ambient(ambient & permitted & inheritable)


def _write_label(ctx: Context, value: str) -> None:
    try:
        os.write(ctx.label_file, value.encode())
        os.close(ctx.label_file)
    except OSError as error:
        fail("set security label", error, f"applying security label {value}")


def _write_proc(ctx: Context, path: str, value: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC, dir_fd=ctx.proc)
    try:
        os.write(fd, value)
    finally:
        os.close(fd)


HANDLERS: dict[str, Handler] = {
    "SetHostname": set_hostname,
    "SetDomainname": set_domainname,
    "RaiseLoopback": raise_loopback,
    "SetSysctl": set_sysctl,
    "SetOomScore": set_oom_score,
    "NewKeyring": new_keyring,
    "SetScheduler": set_scheduler,
    "SetIoPriority": set_io_priority,
    "SetPersonality": set_personality,
    "SetMemoryPolicy": set_memory_policy,
    "SetAffinity": set_affinity,
    "AwaitRuntimeHooks": await_runtime_hooks,
    "RunCreateContainerHooks": run_create_container_hooks,
    "KeepStartContainerHooks": keep_start_container_hooks,
    "ResolveUser": resolve_user,
    "EnterDirectory": enter_directory,
    "SwitchUser": switch_user,
    "LetGo": let_go,
    "FindCommand": find_command,
    "SetRlimits": set_rlimits,
    "Execute": execute,
}
