"""The shim: one process that stands by one container until it has ended and everyone knows.

Code after fork. It runs in a fork of the spawner: no threads, no locks, no imports that the spawner has not made, and
it never returns; every path ends in os._exit. An exception that nobody expected goes to `shim.log` in the run
directory, through the interpreter's own hook, which needs no imports.

It survives the daemon's death and the spawner's. It ends when the container has ended, the exit file is on disk, the
attached clients have their output, and the daemon has said "forget", or there is no daemon.
"""

from __future__ import annotations

import _socket
import os
import sys

from corten.linux.process import PR_SET_CHILD_SUBREAPER, prctl, set_command_line, set_process_name
from corten.logs.writer import CannotOpen, keeps_files, open_log
from corten.runtime import protocol
from corten.runtime.shim import signals
from corten.runtime.shim.control import Control, Refusal
from corten.runtime.shim.embedded import Embedded
from corten.runtime.shim.loop import IN, Loop
from corten.runtime.shim.process import Process
from corten.runtime.shim.records import write_exit
from corten.runtime.shim.stdio import Stdio

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn, Protocol

    class Runtime(Protocol):
        """What the shim asks of a runtime. Each call raises Refusal or OSError; `Embedded` says what they do."""

        external: bool

        def launch(self, process: Process) -> list[str]: ...
        def exec(self, process: Process, init: Process, settings: dict[str, Any]) -> None: ...
        def take_console(self) -> int: ...
        def signal(self, process: Process, signo: int) -> None: ...
        def pause(self) -> None: ...
        def resume(self) -> None: ...
        def watch_oom(self, loop: Loop, tell: Callable[[], None]) -> None: ...
        def ended(self) -> bool: ...
        def clean_up(self) -> None: ...


DRAIN = 2.0  # seconds that output may go on after its process has ended, when another process holds the pipe


class Shim:
    """Everything that one shim holds. `settings` come from cortend with LAUNCH; `runtime` starts and ends for it."""

    def __init__(self, settings: dict[str, Any], runtime: Runtime) -> None:
        self.loop = Loop()
        self._pid = os.getpid()
        self.control = Control(self.loop, self._greeting, self._request, self._maybe_leave)
        self._run_dir: str = settings["run_dir"]
        self._exit_file: str = settings["exit_file"]
        self._runtime = runtime
        self._main = Process("", Stdio(self.loop, settings["terminal"], settings["open_stdin"], settings["stdin_once"]))
        self._execs: dict[str, Process] = {}
        self._paused = False
        self._oom_killed = False
        self._left = False
        self._settings = settings
        self._unheard: list[tuple[Any, ...]] = []

    def launch(self, fds: list[int]) -> None:
        """Start the container and say how it went. Raises Refusal or OSError; nothing is left then."""
        settings, stdio = self._settings, self._main.stdio
        stdio.on_idle = lambda: self._idle(self._main)
        stdio.on_detached = lambda: self._detached(self._main)
        for stream in settings["streams"]:
            stdio.attach(fds.pop(0), stream)
        self._keep = fds  # held until the container has ended
        try:
            stdio.log = open_log(settings["log"], self._log_trouble, self.loop)
            if keeps_files(settings["log"]):
                stdio.log_path = settings["log"][1]
            stdio.prepare()
            self.control.listen(self._run_dir + "/shim.sock")
            warnings = self._runtime.launch(self._main)
        except BaseException:
            stdio.finish()
            self.control.deaf()
            self._runtime.clean_up()
            raise
        stdio.started(self._runtime.take_console(), settings["size"])
        self.control.tell((protocol.LAUNCHED, self._main.pid, self._main.started_ns, warnings))
        self._runtime.watch_oom(self.loop, self._out_of_memory)  # only now: nobody waits for it
        del self._settings

    def run(self) -> None:
        """Until there is nothing left to do."""
        self._watch_children()
        self.loop.run()

    def close(self) -> None:
        """Close what a process that goes on would leak; a shim just ends."""
        self.control.close()
        self.loop.close()
        os.close(self._bell)

    def _watch_children(self) -> None:
        """SIGCHLD writes a byte into a pipe that the loop reads. Ended already is found by the first look."""
        self._bell = signals.child_bell()
        self.loop.watch(self._bell, IN, lambda events: self._reap())
        self._reap()

    def _reap(self) -> None:
        """Wait for whoever has ended: our processes, and orphans of the container that came to us as subreaper."""
        try:
            while os.read(self._bell, 4096):
                pass
        except BlockingIOError:
            pass
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            for process in (*self._execs.values(), self._main):
                if process.pid == pid and process.exit_code is None:
                    process.ended(status)
                    self._ended(process)

    def _ended(self, process: Process) -> None:
        if process is self._main:
            self._oom_killed = self._runtime.ended() or self._oom_killed
        if process.stdio.drain():
            self._finish(process)
        else:
            self.loop.after(DRAIN, f"drain {process.target}", lambda: self._finish(process))

    def _out_of_memory(self) -> None:
        self._oom_killed = True
        self.control.tell((protocol.OOM,))

    def _detached(self, process: Process) -> None:
        self.control.tell((protocol.DETACHED, process.target))  # nobody else cares: there is no telling it later

    def _idle(self, process: Process) -> None:
        """Its output is at its end, or its clients have gone."""
        if process.exit_code is None:
            return
        if not process.reported:
            self._finish(process)
        elif process.stdio.idle:
            if process is not self._main:
                self._execs.pop(process.target, None)
            self._maybe_leave()

    def _finish(self, process: Process) -> None:
        """All output is in the log: record the exit, then tell it."""
        if process.reported or not process.stdio.log_whole(lambda: self._finish(process)):
            return
        process.reported = True
        self.loop.cancel(f"drain {process.target}")
        code = process.exit_code
        if process is self._main:
            process.stdio.close_log()
            self._record_exit(process, code or 0)
            self._let_go()
            self.control.tell((protocol.EXITED, code, process.finished_ns, self._oom_killed))
            process.stdio.finish()
            self._clean_up()
        else:
            told = (protocol.EXEC_EXITED, process.target, code, process.finished_ns)
            if not self.control.tell(told):
                self._unheard.append(told)
            process.stdio.finish()
        self._idle(process)

    def _record_exit(self, process: Process, code: int) -> None:
        try:
            write_exit(self._exit_file, code, process.finished_ns, process.started_ns, self._oom_killed)
        except OSError as error:  # the daemon is told all the same, and it has a record of its own
            self._complain(f"the exit could not be recorded: {error}")

    def _let_go(self) -> None:
        """Close what was held for the container, before anyone is told of its end: a restart takes its ports again."""
        for fd in self._keep:
            os.close(fd)
        self._keep = []

    def _clean_up(self) -> None:
        try:
            self._runtime.clean_up()
        except OSError as error:
            self._complain(f"the control group stays: {error}")

    def _maybe_leave(self) -> None:
        """End when nobody needs us: all is reported, no client waits for output, the daemon forgot us or is gone."""
        for told in self._unheard if self.control.connected else ():
            self.control.tell(told)
        self._unheard = [] if self.control.connected else self._unheard
        if not self._main.reported or (self.control.connected and not self._left):
            return
        if self._main.stdio.idle and all(process.stdio.idle for process in self._execs.values()):
            self.control.deaf()
            self.loop.stopped = True

    def _greeting(self) -> tuple[Any, ...]:
        main = self._main
        ended = (main.exit_code, main.finished_ns, self._oom_killed) if main.reported else None
        running = [target for target, process in self._execs.items() if not process.reported]
        state = {
            "pid": main.pid,
            "started_ns": main.started_ns,
            "exit": ended,
            "paused": self._paused,
            "execs": running,
            "oom_killed": self._oom_killed,
            "external": self._runtime.external,
        }
        return (protocol.HELLO, protocol.VERSION, state)

    def _request(self, verb: str, arguments: tuple[Any, ...], fds: list[int]) -> Any:
        try:
            return getattr(self, "_do_" + verb)(*arguments, fds)
        finally:
            for fd in fds:
                os.close(fd)

    def _target(self, target: str) -> Process:
        process = self._execs.get(target) if target else self._main
        if process is None:
            raise Refusal(protocol.CONFLICT, f"exec session {target} has ended")
        return process

    def _do_attach(self, target: str, stream: tuple[Any, ...], fds: list[int]) -> None:
        self._target(target).stdio.attach(fds.pop(0), stream)

    def _do_signal(self, target: str, signo: int, fds: list[int]) -> None:
        process = self._execs.get(target) if target else self._main
        if process is not None and process.exit_code is None:
            self._runtime.signal(process, signo)

    def _do_resize(self, target: str, height: int, width: int, fds: list[int]) -> None:
        self._target(target).stdio.resize(height, width)

    def _do_pause(self, fds: list[int]) -> None:
        self._must_run()
        self._runtime.pause()
        self._paused = True

    def _do_resume(self, fds: list[int]) -> None:
        self._must_run()
        self._runtime.resume()
        self._paused = False

    def _do_forget(self, fds: list[int]) -> None:
        if not self._main.reported:
            raise Refusal(protocol.CONFLICT, "the container has not ended")
        self._left = True
        self.control.deaf()

    def _do_exec(self, target: str, settings: dict[str, Any], fds: list[int]) -> int:
        self._must_run()
        if self._paused:
            # The new process would be frozen on its way in, and we with it, as we wait for what it has to say.
            raise Refusal(protocol.CONFLICT, "the container is paused, unpause it before exec")
        stdio = Stdio(self.loop, settings["terminal"], settings["open_stdin"], settings["stdin_once"])
        process = Process(target, stdio)
        stdio.on_idle = lambda: self._idle(process)
        stdio.on_detached = lambda: self._detached(process)
        for stream in settings["streams"]:
            stdio.attach(fds.pop(0), stream)
        try:
            stdio.prepare()
            self._runtime.exec(process, self._main, settings)
        except BaseException:
            stdio.drop_clients()  # not ended: the daemon has something to tell them, on its own copy of the stream
            stdio.finish()
            raise
        self._execs[target] = process
        stdio.started(self._runtime.take_console(), settings["size"])
        return process.pid

    def _must_run(self) -> None:
        if self._main.exit_code is not None:
            raise Refusal(protocol.CONFLICT, "the container is not running")

    def _log_trouble(self, text: str) -> None:
        self._complain(text)
        if os.getpid() == self._pid:  # not from a process that writes the log for us
            self.control.tell((protocol.LOG_TROUBLE, text))

    def _complain(self, text: str) -> None:
        os.write(2, f"{text}\n".encode())


def run(control_fd: int) -> NoReturn:
    """The life of a shim, in the fork that the spawner has just made."""
    status = 1
    try:
        _live(_socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET, 0, control_fd))
        status = 0
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        os._exit(status)


def _runtime(settings: dict[str, Any]) -> Runtime:
    if not settings["runtime"]:
        return Embedded(settings)
    from corten.runtime.shim.external import External  # a millisecond for those who use it, none for all others

    return External(settings)


def _live(control: _socket.socket) -> None:
    os.setsid()
    set_process_name("corten-shim")
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    signals.restore(signals.SIGCHLD)
    received = protocol.receive(control)
    if received is None:  # the daemon died in between: nothing was asked, nothing is left
        return
    (_, settings), fds = received
    set_command_line(f"corten-shim {settings['id']}")
    log = os.open(settings["run_dir"] + "/shim.log", os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    os.dup2(log, 2)
    os.close(log)
    shim = Shim(settings, _runtime(settings))
    shim.control.adopt(control)
    try:
        shim.launch(fds)
    except Refusal as refusal:
        shim.control.tell((protocol.FAILED, refusal.fields))
        return
    except CannotOpen as error:
        reason = f"failed to create task for container: failed to initialize logging driver: {error}"
        shim.control.tell((protocol.FAILED, (protocol.FAULT, reason, "", 0, 128)))
        return
    except OSError as error:
        shim.control.tell((protocol.FAILED, (protocol.FAULT, str(error), "prepare", error.errno or 0, 128)))
        return
    shim.run()
