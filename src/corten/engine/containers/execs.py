"""Exec sessions: further processes in running containers, for clients and for health checks."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import socket
import struct
from collections import deque
from collections.abc import Sequence

from corten.engine.containers import detach, imagemerge, signals
from corten.engine.containers.announce import Announcer
from corten.engine.containers.links import Links
from corten.engine.containers.refusals import RESOLVE_USER, refusal
from corten.engine.deps import EngineDeps, EngineSettings
from corten.engine.models import Container, Exec, Status, Upgrade
from corten.engine.spec import apparmor, builder, resources
from corten.errors import Conflict, CortenError, InvalidArgument, NotFound, StartFailed, clip
from corten.runtime.types import ExecRequest as RuntimeExec
from corten.runtime.types import ExitStatus, Stdio, Stream
from corten.specs.container import ExecRequest
from corten.specs.oci_runtime import Capabilities, ConsoleSize, Process

KEPT_S = 300.0
"""How long a session that ended can still be inspected."""

KILLED = 137


class ExecService:
    """Implements `api.docker.backends.ExecBackend`. Sessions live in memory; a restart of the daemon forgets them."""

    def __init__(self, deps: EngineDeps, settings: EngineSettings) -> None:
        self._deps, self._settings = deps, settings
        self._announce = Announcer(deps.events)
        self._links = Links(deps.catalog)
        self._sessions: dict[str, Exec] = {}
        self._waiting: dict[str, asyncio.Future[int]] = {}
        self._ended: deque[tuple[float, str]] = deque()
        deps.runtime.execs.on_exit(self._exited)

    async def exec_create(self, ref: str, request: ExecRequest) -> str:
        """Raises Conflict when the container does not run, InvalidArgument for a request without a command."""
        container = self._deps.catalog.find(ref).container
        _check_state(container)
        argv = imagemerge.words(request.cmd)
        if not argv:
            raise InvalidArgument("No exec command specified")
        detach.parse(request.detach_keys)
        for entry in request.env or []:
            if not entry or entry.startswith("="):
                raise InvalidArgument(f"invalid environment variable: {clip(entry, 80)}")
        return self.open(container, argv, request).id

    def open(self, container: Container, argv: Sequence[str], request: ExecRequest) -> Exec:
        """A session that has not begun. Raises Conflict where a container that this one links to does not run."""
        session = Exec(
            id=secrets.token_hex(32),
            container_id=container.id,
            argv=list(argv),
            tty=request.tty,
            open_stdin=request.attach_stdin,
            open_stdout=request.attach_stdout,
            open_stderr=request.attach_stderr,
            user=request.user or container.config.user,
            env=list(request.env or []),
            linked=self._links.environment(container),
            working_dir=request.working_dir,
            privileged=request.privileged,
            detach_keys=request.detach_keys,
            console_size=request.console_size,
        )
        self._drop_expired()
        self._sessions[session.id] = session
        container.exec_ids.append(session.id)
        self._announce.container(container, f"exec_create: {' '.join(argv)}", execID=session.id)
        return session

    def exec_get(self, exec_id: str) -> Exec:
        if (session := self._sessions.get(exec_id)) is None:
            raise NotFound("exec instance", clip(exec_id, 80))
        return session

    async def exec_start(
        self, exec_id: str, *, detach: bool, tty: bool, console_size: tuple[int, int] | None, upgrade: Upgrade
    ) -> None:
        """Raises Conflict for a session that began before. A program that cannot be run is told on the stream."""
        session = self.exec_get(exec_id)
        container = self._startable(session)
        session.console_size = console_size or session.console_size
        if detach:
            await self.begin(session, container, [])
            return
        session.running = True  # nobody else may start it while the client is answered
        try:
            client = await upgrade()
        except BaseException:
            session.running = False
            raise
        await self._begin_attached(
            session,
            container,
            Stream(
                client.fd,
                session.open_stdin,
                session.open_stdout,
                session.open_stderr,
                False,
                _keys(session),
                client.prefix,
            ),
        )

    def _startable(self, session: Exec) -> Container:
        if session.exit_code is not None:
            raise Conflict(f"exec command {session.id} has already run")
        if session.running:
            raise Conflict(f"exec command {session.id} is already running")
        container = self._deps.catalog.find(session.container_id).container
        _check_state(container)
        return container

    async def _begin_attached(self, session: Exec, container: Container, stream: Stream) -> None:
        spare = os.dup(stream.fd)  # the runtime closes its own when it fails
        try:
            await self.begin(session, container, [stream])
        except CortenError as error:
            _tell(spare, f"{error.message}\r\n".encode(errors="replace"), framed=not session.tty)
        finally:
            os.close(spare)

    async def begin(self, session: Exec, container: Container, streams: Sequence[Stream]) -> None:
        """Start the process. Raises StartFailed in Docker's words; the session then has its exit code (126, 127)."""
        request = RuntimeExec(
            container_id=container.id,
            exec_id=session.id,
            process=self._process(session, container),
            stdio=Stdio(session.tty, session.open_stdin, True, session.console_size if session.tty else None),
            user=session.user or "0",
            groups=tuple(container.host_config.group_add or ()),
        )
        session.running = True
        try:
            pid = await self._deps.runtime.execs.start(request, streams)
        except CortenError as error:
            failed = self._failure(session, error)
            self._close(session, failed.exit_code)
            raise failed from error
        if session.running:
            session.pid = pid
        self._announce.container(container, f"exec_start: {' '.join(session.argv)}", execID=session.id)

    def _failure(self, session: Exec, error: CortenError) -> StartFailed:
        if isinstance(error, StartFailed) and error.step == RESOLVE_USER:
            return StartFailed(error.message, step=error.step, errno=error.errno, exit_code=126)
        if not isinstance(error, StartFailed):
            return StartFailed(f"OCI runtime exec failed: {error.message}", exit_code=128)
        said = refusal(error, session.argv[0])
        return StartFailed(
            f"OCI runtime exec failed: exec failed: unable to start container process: {said}",
            step=error.step,
            errno=error.errno,
            exit_code=error.exit_code,
        )

    def _process(self, session: Exec, container: Container) -> Process:
        """As the container's first process: its limits, and its capabilities unless the session is privileged."""
        options = self._settings.security(container.host_config)
        available = self._settings.facts.capabilities
        names = list(available)
        capabilities = Capabilities(bounding=names, effective=names, permitted=names, inheritable=[], ambient=[])
        if not session.privileged:
            capabilities = builder.capability_sets(container, available)
        height, width = session.console_size or (0, 0)
        return Process(
            cwd=session.working_dir or container.config.working_dir or "/",
            args=session.argv,
            env=builder.environment(container, tty=session.tty, linked=session.linked, further=session.env),
            terminal=session.tty,
            console_size=ConsoleSize(height=height, width=width) if session.tty and height and width else None,
            capabilities=capabilities,
            rlimits=resources.rlimits(builder.ulimits(container, self._settings.default_ulimits)),
            no_new_privileges=bool(options.no_new_privileges),
            apparmor_profile=apparmor.UNCONFINED if session.privileged else container.app_armor_profile,
            oom_score_adj=container.host_config.oom_score_adj or None,
        )

    async def exec_resize(self, exec_id: str, height: int, width: int) -> None:
        session = self.exec_get(exec_id)
        if not session.running:
            raise Conflict(f"exec command {session.id} is not running")
        await self._deps.runtime.execs.resize(session.container_id, session.id, height, width)

    async def exec_kill(self, exec_id: str, signal: str) -> None:
        """Send `signal` to the session's first process. Raises Conflict when it does not run."""
        session = self.exec_get(exec_id)
        signo = signals.parse(signal)
        if not session.running:
            raise Conflict(f"exec command {session.id} is not running")
        container = self._deps.catalog.find(session.container_id).container
        if container.state.status is Status.PAUSED:
            raise Conflict(f"Container {container.id} is paused, unpause the container before kill")
        await self.kill(session, signo)
        self._announce.container(container, "exec_kill", execID=session.id, signal=str(signo))

    def exec_list(self, ref: str) -> list[Exec]:
        """Sessions of a container that run, or have not begun yet, in the order in which they were made."""
        container = self._deps.catalog.find(ref).container
        return [session for id in container.exec_ids if (session := self._sessions.get(id)) is not None]

    async def kill(self, session: Exec, signo: int) -> None:
        with contextlib.suppress(NotFound):
            await self._deps.runtime.execs.signal(session.container_id, session.id, signo)

    def ended(self, session: Exec) -> asyncio.Future[int]:
        """Completed with the exit code. For one waiter a session."""
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        if session.exit_code is not None:
            future.set_result(session.exit_code)
        else:
            self._waiting[session.id] = future
        return future

    async def _exited(self, container_id: str, exec_id: str, status: ExitStatus) -> None:
        """The runtime's callback."""
        if (session := self._sessions.get(exec_id)) is not None and session.exit_code is None:
            self._close(session, status.code)

    def container_ended(self, container_id: str) -> None:
        """No process outlives the first one of its container."""
        for session in list(self._sessions.values()):
            if session.container_id == container_id and session.running:
                self._close(session, KILLED)

    def _close(self, session: Exec, code: int) -> None:
        session.running, session.pid, session.exit_code = False, 0, code
        self._ended.append((self._deps.clock.monotonic() + KEPT_S, session.id))
        waiting = self._waiting.pop(session.id, None)
        if waiting is not None and not waiting.done():
            waiting.set_result(code)
        entry = self._deps.catalog.by_id(session.container_id)
        if entry is None:
            return
        if session.id in entry.container.exec_ids:
            entry.container.exec_ids.remove(session.id)
        self._announce.container(entry.container, "exec_die", execID=session.id, exitCode=str(code))

    def _drop_expired(self) -> None:
        now = self._deps.clock.monotonic()
        while self._ended and self._ended[0][0] <= now:
            self._sessions.pop(self._ended.popleft()[1], None)


def _check_state(container: Container) -> None:
    if container.state.status is Status.PAUSED:
        raise Conflict(f"Container {container.id} is paused, unpause the container before exec")
    if container.state.status is Status.RESTARTING:
        raise Conflict(f"Container {container.id} is restarting, wait until the container is running")
    if container.state.status is not Status.RUNNING:
        raise Conflict(f"container {container.id} is not running")


def _keys(session: Exec) -> bytes:
    return detach.parse(session.detach_keys)


def _tell(fd: int, text: bytes, *, framed: bool) -> None:
    """On a connection that nobody else writes to any more; a client that is gone or does not read misses it."""
    data = struct.pack(">BxxxL", 1, len(text)) + text if framed else text
    with contextlib.suppress(OSError), socket.socket(fileno=os.dup(fd)) as connection:
        connection.send(data, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
