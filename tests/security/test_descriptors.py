"""Descriptors of ours as a way out: CVE-2024-21626 and its variants, and what reaches a program at all."""

from __future__ import annotations

import asyncio
import os
import shutil
from pathlib import Path

import pytest

from corten.specs.oci_runtime import Mount, Spec
from tests import foreign
from tests.kernel.boxes import boxes
from tests.kernel.launching import BUSYBOX, Lab, needs_root
from tests.security.attacker import give, process

pytestmark = [pytest.mark.root, needs_root]

NUMBERS = range(3, 20)  # of ours: all that launch and join open are among them
RAN = "host tool ran"


@pytest.fixture
def host_tool(tmp_path: Path) -> Path:
    """A program of the host outside all containers: it prints its arguments."""
    tool = tmp_path / "host/echo"
    tool.parent.mkdir()
    shutil.copy(BUSYBOX, tool)
    return tool


def test_exec_of_a_path_through_our_descriptors(lab: Lab, host_tool: Path) -> None:
    """CVE-2024-21626, third attack: `docker exec` of /proc/self/fd/N/../../usr/bin/x, with N the runtime's /proc of the
    host, runs a program of the host inside the container, whose /proc/self/exe may then be overwritten.

    The defence: `Context.let_go` in runtime/child/context.py closes them before the program is looked up. Without the
    call of it in `let_go` of runtime/child/process.py this test fails.
    """
    paths = [f"/proc/self/fd/{number}/..{host_tool}" for number in NUMBERS]
    done = lab.run("cat", execs=[(process(path, RAN), "") for path in paths])
    assert done.out == "", "a program of the host was executed"
    assert all("failure" in outcome for outcome in done.execs), done.execs
    assert len(done.execs) == len(NUMBERS)


def test_an_image_whose_commands_link_through_our_descriptors(lab: Lab, host_tool: Path) -> None:
    """The same, brought by the image: `docker exec c ls` is enough, or a health check. The defence is the same."""
    for number in NUMBERS:
        (lab.lower / f"bin/tool{number}").symlink_to(f"/proc/self/fd/{number}/..{host_tool}")
    done = lab.run("cat", execs=[(process(f"tool{number}", RAN), "") for number in NUMBERS])
    assert done.out == ""
    assert all("failure" in outcome for outcome in done.execs), done.execs


def test_a_script_whose_interpreter_is_behind_our_descriptors(lab: Lab, host_tool: Path) -> None:
    """The kernel resolves `#!` itself, after all of our checks; only closed descriptors help against it."""
    for number in NUMBERS:
        made = lab.lower / f"bin/script{number}"
        made.write_text(f"#!/proc/self/fd/{number}/..{host_tool} {RAN}\n")
        made.chmod(0o755)
    done = lab.run("cat", execs=[(process(f"script{number}"), "") for number in NUMBERS])
    assert done.out == ""
    assert all("failure" in outcome for outcome in done.execs), done.execs


def test_the_first_process_through_the_hosts_proc(lab: Lab) -> None:
    """A container's start has the host's /proc open, too: of another process of the same user it leads to its root.

    Here that is the test itself; with SYS_PTRACE the kernel has no objection, and only the descriptor is missing. The
    defence is `Context.let_go`.
    """

    def change(spec: Spec) -> None:
        give(spec, "CAP_SYS_PTRACE")

    seen = []
    for number in NUMBERS:
        done = lab.run(f"/proc/self/fd/{number}/{os.getpid()}/exe", "-c", "print('host interpreter')", change=change)
        seen.append(done.failure)
    assert all(failure is not None and failure[0] == "find command" for failure in seen), seen


def test_the_first_processs_working_directory_through_the_hosts_proc(lab: Lab, host_tool: Path) -> None:
    """WORKDIR of the image (second attack of CVE-2024-21626), which is entered with all of our capabilities.

    The defences, each enough alone: RESOLVE_IN_ROOT and RESOLVE_NO_MAGICLINKS in `_change_directory` of
    runtime/child/process.py, and the look at where it is afterwards.
    """

    def change(spec: Spec) -> None:
        assert spec.process is not None
        spec.process.cwd = f"/proc/self/fd/{number}/{os.getpid()}/root{host_tool.parent}"

    for number in NUMBERS:
        done = lab.run("./echo", RAN, change=change)
        assert done.out == "", number
        assert done.failure is not None


def test_path_entries_and_the_working_directory(lab: Lab, host_tool: Path) -> None:
    """ENV PATH and WORKDIR of an exec session (first and second attack of CVE-2024-21626).

    The defences: `Context.let_go`, and RESOLVE_NO_MAGICLINKS in `_change_directory` of runtime/child/process.py.
    """
    execs = []
    for number in NUMBERS:
        by_path = process("echo", RAN)
        by_path.env = [f"PATH=/proc/self/fd/{number}/..{host_tool.parent}"]
        by_cwd = process("./echo", RAN)
        by_cwd.cwd = f"/proc/self/fd/{number}/..{host_tool.parent}"
        execs += [(by_path, ""), (by_cwd, "")]
    done = lab.run("cat", execs=execs)
    assert done.out == ""
    assert all("failure" in outcome for outcome in done.execs), done.execs


@pytest.mark.parametrize("init", [False, True])
def test_only_the_standard_streams_reach_a_program(lab: Lab, tmp_path: Path, init: bool) -> None:
    """An inheritable descriptor of the launcher's, as an embedding program may have one, reaches neither the first
    process, nor init, nor exec sessions, with and without a terminal.

    The defence: `Context.let_go` closes all from 3 on; `_be_init` of runtime/child/init.py closes every one.
    """
    secret = os.open(tmp_path, os.O_RDONLY)
    probe = "import os\nanswer['fds'] = sorted(os.listdir(f'/proc/{main.pid}/fd'))\n"
    listing = ("sh", "-c", "ls /proc/$$/fd; true")
    with_terminal = process(*listing)
    with_terminal.terminal = True
    try:
        sessions = [(process(*listing), ""), (with_terminal, "")]
        done = lab.run("cat", leak=[secret], probe=probe, init=init, execs=sessions)
    finally:
        os.close(secret)
    assert done.answer["fds"] == ([] if init else ["0", "1", "2"])
    assert done.out.split() == ["0", "1", "2"]
    assert done.execs[1]["console"].split() == ["0", "1", "2"]


def test_no_module_is_imported_out_of_the_image(lab: Lab) -> None:
    """CVE-2019-14271: a helper that has entered the container's root loads a library from there.

    The image has a module in each place where the interpreter would look for one; a step of the start, and of exec,
    that asks for it (as an unknown codec would) is refused. The defence: `seal_imports` in linux/imports.py,
    called by `pivot_root` of runtime/child/mounts.py, by join and by init. Without it the marker is on the host's pipe.
    """
    before = """
from corten.runtime.child import join as joining, launch as launching, process as steps
def resolve(ctx, *values):
    try:
        import evil
    except ImportError:
        ctx.warn("refused")
    steps.resolve_user(ctx, *values)
for table in (launching.HANDLERS, joining.HANDLERS):
    table["ResolveUser"] = resolve
sys.path.append("/opt")
assert not os.path.exists("/opt/evil.py")
"""
    (lab.lower / "opt").mkdir()
    (lab.lower / "opt/evil.py").write_text("import os\nos.write(1, b'code of the image ran as the runtime')\n")
    done = lab.run("cat", before=before, execs=[(process("true"), "")])
    assert done.out == ""
    assert done.warnings == ["refused"]
    assert done.execs[0]["warnings"] == ["refused"]


def test_a_volume_behind_our_descriptors(lab: Lab, tmp_path: Path) -> None:
    """Mount points that the image links through /proc/self/fd/N, as /dev/fd does, to a directory of the host.

    The defence: `open_in_root` of linux/openat2.py, which takes no such link. With os.open(path, dir_fd=root_fd) there
    the mount point is made on the host.
    """
    data, outside = tmp_path / "data", tmp_path / "outside"
    data.mkdir()
    outside.mkdir()
    for number in NUMBERS:
        (lab.lower / f"way{number}").symlink_to(f"proc/self/fd/{number}/..{outside}")

    def change(spec: Spec) -> None:
        spec.mounts.append(Mount(destination=f"/way{number}/made", type="bind", source=str(data), options=["rbind"]))

    for number in NUMBERS:
        done = lab.run("true", change=change)
        assert list(outside.iterdir()) == [], number
        assert done.failure is None or done.failure[0] == "mount"


@pytest.mark.parametrize("runtime", ["runc", "crun"])
def test_only_the_standard_streams_reach_a_program_of_another_runtime(tmp_path: Path, runtime: str) -> None:
    """The shim calls it with descriptors of its own open: log, sockets, the terminal's, pipes. They do not even reach
    the runtime, which would close them: a script in front of it writes down what it is given.

    The defence: close-on-exec from birth, in the shim.
    """
    inherited = tmp_path / "inherited"
    program = str(tmp_path / "runtime")
    script = f'#!/bin/sh\nls /proc/self/fd >>{inherited}\nexec {foreign.program(runtime, tmp_path)} "$@"\n'
    Path(program).write_text(script)
    os.chmod(program, 0o755)

    async def main() -> None:
        async with boxes(tmp_path) as b:
            (b.base / "root/bin/ls").symlink_to("busybox")
            await b.launch("c", "sh", "-c", "ls /proc/$$/fd; true", runtime=program)
            await b.exit_of("c")
            assert b.logged("c").split() == ["0", "1", "2"]

    asyncio.run(main())
    assert set(inherited.read_text().split()) == {"0", "1", "2", "3"}  # 3 is the directory that ls reads
