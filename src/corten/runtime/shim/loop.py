"""The shim's event loop: descriptors, a few deadlines, and nothing else."""

from __future__ import annotations

import select
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

IN, OUT, HUP, ERR = select.EPOLLIN, select.EPOLLOUT, select.EPOLLHUP, select.EPOLLERR


class Loop:
    """Calls a handler with the events of its descriptor. Handlers may watch and unwatch whatever they like."""

    __slots__ = ("_epoll", "_handlers", "_timers", "stopped")

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._handlers: dict[int, tuple[int, Callable[[int], None]]] = {}
        self._timers: dict[str, tuple[float, Callable[[], None]]] = {}
        self.stopped = False

    def watch(self, fd: int, events: int, handler: Callable[[int], None]) -> None:
        """Have `handler` called for `events`, and for a hang-up or an error, which the kernel always tells."""
        known = self._handlers.get(fd)
        if known is None:
            self._epoll.register(fd, events)
        elif known[0] != events:
            self._epoll.modify(fd, events)
        self._handlers[fd] = (events, handler)

    def unwatch(self, fd: int) -> None:
        """Stop watching, before the descriptor is closed. One that is not watched is no error."""
        if self._handlers.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def after(self, seconds: float, name: str, action: Callable[[], None]) -> None:
        """Call `action` once, later. A second timer of the same name takes the place of the first."""
        self._timers[name] = (time.monotonic() + seconds, action)

    def cancel(self, name: str) -> None:
        self._timers.pop(name, None)

    def close(self) -> None:
        self._epoll.close()

    def run(self) -> None:
        while not self.stopped:
            self.turn()

    def turn(self) -> None:
        """Wait for what happens next and handle it."""
        timeout = -1.0
        if self._timers:
            timeout = max(0.0, min(when for when, _ in self._timers.values()) - time.monotonic())
        for fd, events in self._epoll.poll(timeout):
            if (entry := self._handlers.get(fd)) is not None:  # a handler before may have closed this one
                entry[1](events)
        if self._timers:
            now = time.monotonic()
            for name, (when, action) in list(self._timers.items()):
                if when <= now and self._timers.pop(name, None) is not None:
                    action()
