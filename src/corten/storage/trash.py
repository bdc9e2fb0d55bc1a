"""Deleting trees in the background: renamed away at once, deleted by a thread, and after a crash at the next start."""

from __future__ import annotations

import logging
import os
import queue
import threading
import time
from pathlib import Path

from corten.storage.walking import delete_tree

log = logging.getLogger(__name__)
_IDLE_SECONDS = 5.0
_PAUSE = 0.02  # seconds before deleting begins, in which whoever has thrown something away answers its client


class Trash:
    """A directory of trees that nobody needs. Its thread exists only while there is something to delete."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._queue: queue.Queue[Path] = queue.Queue()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._closed = False
        root.mkdir(parents=True, exist_ok=True)
        for left in root.iterdir():
            self.delete(left)

    def throw(self, path: Path) -> None:
        """Rename `path` into the trash, and delete it there some time later. One that is gone is no error."""
        place = self._root / f"{path.name}.{os.urandom(4).hex()}"
        try:
            path.rename(place)
        except FileNotFoundError:
            return
        self.delete(place)

    def delete(self, path: Path) -> None:
        """Delete `path` where it is, some time later: for what could not be thrown away, and whose name is not used
        again.
        """
        with self._lock:
            self._queue.put(path)
            if self._thread is None:
                self._thread = threading.Thread(target=self._serve, name="trash", daemon=True)
                self._thread.start()

    def _serve(self) -> None:
        deleting = False
        while True:
            try:
                place = self._queue.get(timeout=_IDLE_SECONDS)
            except queue.Empty:
                with self._lock:
                    if self._queue.empty():
                        self._thread = None
                        return
                continue
            if not deleting:
                time.sleep(_PAUSE)
            try:
                if self._closed:
                    continue
                if place.is_dir() and not place.is_symlink():
                    delete_tree(place)
                else:
                    place.unlink(missing_ok=True)
            except FileNotFoundError:
                # Whoever was here before us, and was told to stop, is still at work on the same tree.
                if os.path.lexists(place):
                    self._queue.put(place)
            except OSError as error:
                log.warning("cannot delete %s now, it is tried again at the next start: %s", place, error)
            finally:
                self._queue.task_done()
                deleting = not self._queue.empty()

    def close(self) -> None:
        """Begin with no further tree; what is left is deleted after the next start."""
        self._closed = True

    def wait(self) -> None:
        """Until everything thrown so far is deleted (or left, after `close`)."""
        self._queue.join()
