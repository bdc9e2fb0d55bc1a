"""Who a process in a container is, and what other processes there can do to it before it is itself."""

from __future__ import annotations

import os
import shutil

import pytest

from corten.errors import InvalidArgument
from corten.linux.libc import number
from corten.specs.oci_runtime import Capabilities, Spec
from tests.kernel.launching import CAPABILITIES, Lab, needs_root
from tests.security.attacker import PYTHON, process, script, with_python

pytestmark = [pytest.mark.root, needs_root]


def test_capabilities_cannot_be_inherited_by_files(lab: Lab) -> None:
    """CVE-2022-29162: with inheritable capabilities, a file whose inheritable set has them gives them to a user who
    should have none.

    The defence: the engine gives an empty inheritable set (`capability_sets` in engine/spec/builder.py), and
    `set_capabilities` in runtime/child/process.py sets what it is given, whatever the caller of the runtime had.
    """
    before = "from corten.linux.capability import *\neff, perm, inh = capget()\ncapset(eff, perm, perm)\n"
    session = process("grep", "CapInh", "/proc/self/status")
    done = lab.run("sh", "-c", "grep CapInh /proc/self/status; cat", before=before, execs=[(session, "web")])
    assert done.out.split() == ["CapInh:", "0000000000000000"] * 2


def test_a_setgid_program_does_not_shed_the_primary_group(lab: Lab) -> None:
    """CVE-2022-36109: a file that the user's group may not read. A setgid program changes the effective group; unless
    the primary group is a supplementary one too, the file is everyone else's to read.

    The defence: the last lines of `resolve_user` in runtime/child/process.py.
    """
    denied = lab.lower / "denied"
    denied.write_text("secret\n")
    os.chown(denied, 0, 1001)
    denied.chmod(0o604)
    shutil.copy(PYTHON, lab.lower / "setgid")
    os.chown(lab.lower / "setgid", 0, 3000)
    (lab.lower / "setgid").chmod(0o2755)
    attack = script("print(os.getegid(), attempt(lambda: open('/denied').read()), flush=True)\n", "/setgid")
    sessions = [(process(*attack), user) for user in ("web", "1000:1001")]
    done = lab.run("cat", user="web", execs=sessions, change=with_python)
    assert done.out.split() == ["3000", "EACCES"] * 2, done


@pytest.mark.parametrize("field", ["uid", "gid", "additional_gids"])
def test_the_number_that_is_no_user_does_not_stay_root(lab: Lab, field: str) -> None:
    """To setresuid(2) 4294967295 says "leave it", which here is root (compare CVE-2024-40635).

    The defence: the range checks of the plan (runtime/plan_process.py), and `_check_range` of runtime/child/users.py
    for what is read in the container; without them `id -u` says 0.
    """

    def change(spec: Spec) -> None:
        assert spec.process is not None
        number = 2**32 - 1
        setattr(spec.process.user, field, [number] if field == "additional_gids" else number)

    with pytest.raises(InvalidArgument, match="range"):
        lab.run("id", "-u", change=change)


# In `execute` of the new process: it has given up its privileges and is about to execute, the moment at which nothing
# but its dumpable flag is between it and its peers. It waits until the attacker is done.
_PAUSE = """
from corten.runtime.child import process as steps
import select
def wait(path):
    for _ in range(2000):
        if os.path.exists(path):
            return
        select.select([], [], [], 0.01)
real = steps.set_capabilities
def paused(*values):
    real(*values)
    if os.getpid() > 1:  # not the container's first process, which is the attacker
        wait("/tmp/ready")
        open("/tmp/victim", "w").close()
        wait("/tmp/done")
steps.set_capabilities = paused
"""

_ATTACK = """
import select, signal
open("/tmp/ready", "w").close()
def wait(path):
    for _ in range(1000):
        if os.path.exists(path):
            return
        select.select([], [], [], 0.01)
wait("/tmp/victim")
[victim] = [int(name) for name in os.listdir("/proc") if name.isdigit() and int(name) != os.getpid()]
traced = libc.ptrace(0x4206, victim, None, None)  # PTRACE_SEIZE
print("attach", errno.errorcode[ctypes.get_errno()] if traced else traced)
print("exe", attempt(lambda: os.readlink(f"/proc/{victim}/exe")))
print("memory", attempt(lambda: open(f"/proc/{victim}/mem", "rb").read(1)))
print("descriptors", attempt(lambda: os.readlink(f"/proc/{victim}/fd/0")))
print("root", attempt(lambda: os.listdir(f"/proc/{victim}/root")))
sys.stdout.flush()
open("/tmp/done", "w").close()
sys.stdin.read()
"""


def test_a_process_that_enters_cannot_be_traced_before_it_executes(lab: Lab) -> None:
    """CVE-2016-9962: a process of the container with the same user and capabilities traces what `docker exec` brings
    in, while that still is the runtime with its memory and descriptors.

    The defence: PR_SET_DUMPABLE 0 in `_clone` of runtime/child/join.py, again after the change of user in `switch_user`
    of runtime/child/process.py. With 1 in both places PTRACE_SEIZE succeeds.
    """
    done = lab.run(*script(_ATTACK), change=with_python, before=_PAUSE, execs=[(process("true"), "")])
    assert done.execs[0]["code"] == 0, done
    answers = dict(line.split() for line in done.out.splitlines())
    assert set(answers) == {"attach", "exe", "memory", "descriptors", "root"}, done
    assert set(answers.values()) <= {"EPERM", "EACCES"}, answers


@pytest.mark.parametrize("nnp", [False, True])
def test_setuid_programs_under_no_new_privileges(lab: Lab, nnp: bool) -> None:
    """`--security-opt no-new-privileges`. The defence: PR_SET_NO_NEW_PRIVS in `execute` of runtime/child/process.py."""
    shutil.copy(PYTHON, lab.lower / "setuid")  # busybox gives such privileges up by itself
    (lab.lower / "setuid").chmod(0o4755)
    attack = script("print(os.geteuid(), flush=True)\n", "/setuid")

    def change(spec: Spec) -> None:
        assert spec.process is not None
        spec.process.no_new_privileges = nnp
        with_python(spec)

    session = process(*attack)
    session.no_new_privileges = nnp
    done = lab.run("cat", user="web", change=with_python, execs=[(session, "web")])
    assert done.out == ("1000\n" if nnp else "0\n"), done
    assert lab.run(*attack, user="web", change=change).out == done.out


def test_keys_of_the_hosts_session_are_out_of_reach(lab: Lab) -> None:
    """The daemon's session keyring holds what its login put there.

    The defence: `new_keyring` in runtime/child/process.py, for the first process and for exec. Without the step the
    serial number of the key is printed. (Docker's seccomp profile forbids keyctl besides: the lab has no filter.)
    """
    key = number("add_key"), number("keyctl")
    before = f"""
import ctypes
libc = ctypes.CDLL(None)
libc.syscall({key[1]}, 1, None)  # KEYCTL_JOIN_SESSION_KEYRING
assert libc.syscall({key[0]}, b"user", b"corten-secret", b"secret", 6, -3) > 0  # KEY_SPEC_SESSION_KEYRING
"""
    search = script(f"print(call({key[1]}, 10, -3, b'user', b'corten-secret', 0), flush=True)\n")
    reading = script(f"print(call({key[1]}, 10, -3, b'user', b'corten-secret', 0), flush=True)\nsys.stdin.read()")
    done = lab.run(*reading, change=with_python, before=before, execs=[(process(*search), "")])
    assert sorted(done.out.split()) == ["ENOKEY", "ENOKEY"], done


def test_capabilities_of_the_caller_are_no_ones_else(lab: Lab) -> None:
    """Ambient capabilities of whoever calls the runtime reach nobody: `set_capabilities` clears the set."""
    before = (
        "from corten.linux.capability import *\neff, perm, inh = capget()\ncapset(eff, perm, perm)\nset_ambient(perm)\n"
    )

    def change(spec: Spec) -> None:
        assert spec.process is not None
        spec.process.capabilities = Capabilities(bounding=CAPABILITIES, effective=[], permitted=[])

    done = lab.run("grep", "-E", "Cap(Prm|Eff|Amb|Inh)", "/proc/self/status", user="web", before=before, change=change)
    assert {line.split()[1] for line in done.out.splitlines()} == {"0" * 16}


def test_unknown_names_are_refused(lab: Lab) -> None:
    """A user that the image does not know is an error, not root."""
    for user in ("nobody", "-1", "0x0", " root", "root ", "0\n"):
        done = lab.run("id", "-u", user=user)
        assert done.failure is not None, (user, done.out)
    with pytest.raises(InvalidArgument):
        lab.run("id", change=lambda spec: setattr(spec.process, "cwd", "relative"))
