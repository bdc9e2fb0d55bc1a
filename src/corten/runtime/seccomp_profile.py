"""Which system calls a container may make: Docker's default profile, and profiles that users give in Docker's form.

The default lets through what programs use and keeps out what would reach past the container: kernel modules, mounts,
the clock, other processes' memory, new user namespaces. A capability given brings the calls that it is for.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import msgspec

from corten.errors import InvalidArgument, clip
from corten.linux.libc import MACHINE
from corten.runtime.seccomp_rules import NATIVE, takes_errno
from corten.specs.oci_runtime import OciStruct, Seccomp, Syscall, SyscallArg

ALLOW, ERRNO = "SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO"
_EPERM, _ENOSYS = 1, 38
BUILTIN = "builtin"

# A word is the name of a call; "name/a/b" stands for name, namea and nameb: the same call with wider types.
_FILES = """
    access chmod chown/32 close close_range copy_file_range creat dup dup2 dup3 faccessat faccessat2 fadvise64
    fadvise64_64 fallocate fanotify_mark fchdir chdir fchmod fchmodat fchmodat2 fchown/32 fchownat fcntl/64 fdatasync
    flock fstat/64 fstatat64 fstatfs/64 fsync ftruncate/64 futimesat getcwd getdents/64 inotify_add_watch inotify_init
    inotify_init1 inotify_rm_watch ioctl lchown/32 link linkat listmount _llseek lseek lstat/64 mkdir mkdirat mknod
    mknodat name_to_handle_at newfstatat open openat openat2 pread64 preadv preadv2 pwrite64 pwritev pwritev2 read
    readahead readlink readlinkat readv rename renameat renameat2 rmdir sendfile/64 splice stat/64 statfs/64 statmount
    statx symlink symlinkat sync sync_file_range syncfs tee truncate/64 umask unlink unlinkat utime utimensat
    utimensat_time64 utimes vmsplice write writev cachestat
"""
_ATTRIBUTES = """
    fgetxattr flistxattr fremovexattr fsetxattr getxattr getxattrat lgetxattr listxattr listxattrat llistxattr
    lremovexattr lsetxattr removexattr removexattrat setxattr setxattrat
"""
_MEMORY = """
    brk madvise map_shadow_stack membarrier memfd_create memfd_secret mincore mlock mlock2 mlockall mmap mmap2 mprotect
    mremap mseal msync munlock munlockall munmap pkey_alloc pkey_free pkey_mprotect process_mrelease remap_file_pages
"""
_PROCESSES = """
    alarm capget capset execve execveat exit exit_group fork getcpu getitimer getpgid getpgrp getpid getppid getpriority
    getrlimit get_robust_list getrusage getsid get_thread_area gettid kill pause pidfd_open pidfd_send_signal prctl
    prlimit64 restart_syscall riscv_hwprobe rseq rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn
    rt_sigsuspend rt_sigtimedwait/_time64 rt_tgsigqueueinfo seccomp setitimer setpgid setpriority setrlimit
    set_robust_list setsid set_thread_area set_tid_address sigaltstack signalfd signalfd4 sigprocmask sigreturn sysinfo
    tgkill times tkill ugetrlimit uname uretprobe vfork wait4 waitid waitpid landlock_add_rule landlock_create_ruleset
    landlock_restrict_self
"""
_IDENTITY = """
    getegid/32 geteuid/32 getgid/32 getgroups/32 getresgid/32 getresuid/32 getuid/32 setfsgid/32 setfsuid/32 setgid/32
    setgroups/32 setregid/32 setresgid/32 setresuid/32 setreuid/32 setuid/32
"""
_SCHEDULING = """
    ioprio_get ioprio_set sched_getaffinity sched_getattr sched_getparam sched_get_priority_max sched_get_priority_min
    sched_getscheduler sched_rr_get_interval/_time64 sched_setaffinity sched_setattr sched_setparam sched_setscheduler
    sched_yield
"""
_TIME = """
    adjtimex clock_adjtime/64 clock_getres/_time64 clock_gettime/64 clock_nanosleep/_time64 gettimeofday nanosleep time
    timer_create timer_delete timer_getoverrun timer_gettime/64 timer_settime/64 timerfd_create timerfd_gettime/64
    timerfd_settime/64
"""
_WAITING = """
    epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait epoll_wait_old eventfd
    eventfd2 futex/_time64 futex_requeue futex_wait futex_waitv futex_wake io_cancel io_destroy io_getevents
    io_pgetevents/_time64 io_setup io_submit _newselect poll ppoll/_time64 pselect6/_time64 select getrandom
"""
_MESSAGES = """
    accept accept4 bind connect getpeername getsockname getsockopt ipc listen mq_getsetattr mq_notify mq_open
    mq_timedreceive/_time64 mq_timedsend/_time64 mq_unlink msgctl msgget msgrcv msgsnd pipe pipe2 recv recvfrom
    recvmmsg/_time64 recvmsg semctl semget semop semtimedop/_time64 send sendmmsg sendmsg sendto setsockopt shmat shmctl
    shmdt shmget shutdown socketcall socketpair
"""
_ALWAYS = (
    _FILES
    + _ATTRIBUTES
    + _MEMORY
    + _PROCESSES
    + _IDENTITY
    + _SCHEDULING
    + _TIME
    + _WAITING
    + _MESSAGES
    # Kept from other processes' memory by the kernel's own checks since Linux 4.8.
    + " process_vm_readv process_vm_writev ptrace"
)

_BY_CAPABILITY = {
    "CAP_DAC_READ_SEARCH": "open_by_handle_at",
    "CAP_SYS_ADMIN": """
        bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie lsm_get_self_attr lsm_list_modules
        lsm_set_self_attr mount mount_setattr move_mount open_tree perf_event_open quotactl quotactl_fd setdomainname
        sethostname setns syslog umount umount2 unshare
    """,
    "CAP_SYS_BOOT": "reboot",
    "CAP_SYS_CHROOT": "chroot",
    "CAP_SYS_MODULE": "delete_module init_module finit_module",
    "CAP_SYS_PACCT": "acct",
    "CAP_SYS_PTRACE": "kcmp pidfd_getfd process_madvise process_vm_readv process_vm_writev ptrace",
    "CAP_SYS_RAWIO": "iopl ioperm",
    "CAP_SYS_TIME": "settimeofday stime clock_settime/64",
    "CAP_SYS_TTY_CONFIG": "vhangup",
    "CAP_SYS_NICE": "get_mempolicy mbind set_mempolicy set_mempolicy_home_node",
    "CAP_SYSLOG": "syslog",
    "CAP_BPF": "bpf",
    "CAP_PERFMON": "perf_event_open",
}

_ARM = "arm_fadvise64_64 arm_sync_file_range sync_file_range2 breakpoint cacheflush set_tls"
_BY_ARCH = {"x86_64": "arch_prctl modify_ldt", "aarch64": _ARM}

_SUB_ARCHES = {
    "x86_64": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
    "aarch64": ["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"],
}

# linux/sched.h: CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID and NEWNET together.
_CLONE_NAMESPACES = 0x7E020000
# linux/socket.h: AF_ALG, whose kernel code is large and seldom used, and AF_VSOCK, which passes by all networks.
_AF_ALG, _AF_VSOCK = 38, 40
# linux/personality.h: PER_LINUX, PER_LINUX32, both with UNAME26, and the question what it is.
_PERSONALITIES = (0x0, 0x8, 0x20000, 0x20008, 0xFFFFFFFF)


def default_profile(capabilities: Collection[str], arch: str = MACHINE) -> Seccomp:
    """Docker's default profile for a container that has `capabilities` (as `CAP_CHOWN`) on machine `arch`."""
    rules = [_allow(_ALWAYS)]
    rules += [_allow_if("socket", 0, op, value) for op, value in _allowed_families()]
    rules += [_allow_if("personality", 0, "SCMP_CMP_EQ", value) for value in _PERSONALITIES]
    if arch in _BY_ARCH:
        rules.append(_allow(_BY_ARCH[arch]))
    rules += [_allow(calls) for name, calls in _BY_CAPABILITY.items() if name in capabilities]
    if "CAP_SYS_ADMIN" not in capabilities:
        rules.append(_allow_if("clone", 0, "SCMP_CMP_MASKED_EQ", _CLONE_NAMESPACES))
        # Its flags lie in memory, where a filter cannot look: not there, so that the C library takes clone instead.
        rules.append(Syscall(names=["clone3"], action=ERRNO, errno_ret=_ENOSYS))
    return Seccomp(
        default_action=ERRNO, default_errno_ret=_EPERM, architectures=list(_SUB_ARCHES.get(arch, [])), syscalls=rules
    )


def _allowed_families() -> list[tuple[str, int]]:
    return [("SCMP_CMP_LT", _AF_ALG), ("SCMP_CMP_EQ", _AF_ALG + 1), ("SCMP_CMP_GT", _AF_VSOCK)]


def expand(words: str) -> list[str]:
    """The names that a table stands for, each once."""
    names: dict[str, None] = {}
    for word in words.split():
        name, *suffixes = word.split("/")
        for suffix in ("", *suffixes):
            names[name + suffix] = None
    return list(names)


@functools.cache
def known_names() -> frozenset[str]:
    """All that Docker's profile speaks of: many are newer than the libraries in the field."""
    words = (_ALWAYS, *_BY_CAPABILITY.values(), *_BY_ARCH.values(), "clone clone3 personality socket")
    return frozenset(name for line in words for name in expand(line))


def _allow(words: str) -> Syscall:
    return Syscall(names=expand(words), action=ALLOW)


def _allow_if(name: str, index: int, op: str, value: int) -> Syscall:
    return Syscall(names=[name], action=ALLOW, args=[SyscallArg(index=index, value=value, op=op)])


# -- profiles that users give ----------------------------------------------------------------------------------------


class _Filter(OciStruct):
    caps: list[str] = msgspec.field(default_factory=list)
    arches: list[str] = msgspec.field(default_factory=list)
    min_kernel: str = ""


class _Rule(OciStruct):
    action: str
    names: list[str] = msgspec.field(default_factory=list)
    name: str = ""
    errno_ret: int | None = None
    args: list[SyscallArg] | None = None
    includes: _Filter | None = None
    excludes: _Filter | None = None


class _Architecture(OciStruct):
    architecture: str
    sub_architectures: list[str] | None = None


class _Profile(OciStruct):
    default_action: str
    default_errno_ret: int | None = None
    architectures: list[str] | None = None
    arch_map: list[_Architecture] | None = None
    flags: list[str] | None = None
    listener_path: str = ""
    listener_metadata: str = ""
    syscalls: list[_Rule] | None = None


# Go's names of the architectures, which the conditions of profiles use.
_GO_ARCHES = {"x86_64": "amd64", "aarch64": "arm64"}


@dataclass(frozen=True, slots=True)
class _Host:
    capabilities: frozenset[str]
    arch: str
    kernel: tuple[int, int]

    def meets(self, wanted: _Filter | None) -> bool:
        """All conditions of an `includes`."""
        if wanted is None:
            return True
        arches = not wanted.arches or self.arch in wanted.arches
        kernel = not wanted.min_kernel or self.kernel >= _version(wanted.min_kernel)
        return arches and kernel and self.capabilities.issuperset(wanted.caps)

    def hits(self, unwanted: _Filter | None) -> bool:
        """Any condition of an `excludes`."""
        if unwanted is None:
            return False
        kernel = bool(unwanted.min_kernel) and self.kernel >= _version(unwanted.min_kernel)
        return self.arch in unwanted.arches or kernel or not self.capabilities.isdisjoint(unwanted.caps)


def parse_profile(text: str, capabilities: Collection[str], arch: str = MACHINE) -> Seccomp:
    """A profile in Docker's JSON form, its conditions decided for this container. Raises InvalidArgument."""
    try:
        profile = msgspec.json.decode(text.encode(), type=_Profile)
    except (msgspec.DecodeError, UnicodeError) as error:
        raise InvalidArgument(f"Decoding seccomp profile failed: {clip(str(error))}") from None
    if profile.architectures and profile.arch_map:
        raise InvalidArgument("both 'architectures' and 'archMap' are specified in the seccomp profile")
    host = _Host(frozenset(capabilities), _GO_ARCHES.get(arch, arch), _version(os.uname().release))
    rules = [
        _to_syscall(rule)
        for rule in profile.syscalls or ()
        if host.meets(rule.includes) and not host.hits(rule.excludes)
    ]
    return Seccomp(
        default_action=profile.default_action,
        default_errno_ret=profile.default_errno_ret if takes_errno(profile.default_action) else None,
        architectures=_architectures(profile, arch),
        flags=profile.flags or [],
        listener_path=profile.listener_path,
        listener_metadata=profile.listener_metadata,
        syscalls=rules,
    )


def _architectures(profile: _Profile, arch: str) -> list[str]:
    for entry in profile.arch_map or ():
        if entry.architecture == NATIVE.get(arch):
            return [entry.architecture, *(entry.sub_architectures or ())]
    return list(profile.architectures or ())


def _to_syscall(rule: _Rule) -> Syscall:
    if rule.name and rule.names:
        raise InvalidArgument("both 'name' and 'names' are specified in a rule of the seccomp profile")
    names = rule.names or [rule.name]
    # Docker passes over an errno that the action has no use for; the specification wants such a document refused.
    errno = rule.errno_ret if takes_errno(rule.action) else None
    return Syscall(names=names, action=rule.action, errno_ret=errno, args=rule.args or [])


def _version(text: str) -> tuple[int, int]:
    """ "4.8" and "6.1.0-13-amd64" as (4, 8) and (6, 1)."""
    major, _, rest = text.partition(".")
    minor = rest.split(".")[0].split("-")[0]
    if not major.isdigit() or not minor.isdigit():
        raise InvalidArgument(f"{clip(text, 40)} is not a kernel version")
    return int(major), int(minor)


class Profiles:
    """What the engine asks for profiles; the built-in ones are kept, as each start of a container asks."""

    def __init__(self) -> None:
        self._builtin: dict[tuple[str, ...], Seccomp] = {}

    def load(self, profile: str, capabilities: Sequence[str]) -> Seccomp:
        """`profile` is "builtin" or JSON in Docker's form. Raises InvalidArgument."""
        if profile != BUILTIN:
            return parse_profile(profile, capabilities)
        key = tuple(sorted(capabilities))
        if key not in self._builtin:
            self._builtin[key] = default_profile(key)
        return self._builtin[key]
