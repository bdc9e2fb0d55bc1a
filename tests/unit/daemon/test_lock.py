from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from corten.daemon.lock import data_root_lock, pidfile
from corten.errors import Conflict


def test_a_second_daemon_is_told_who_holds_the_root(tmp_path: Path) -> None:
    with data_root_lock(tmp_path):
        with pytest.raises(Conflict, match=rf"pid {os.getpid()}\) runs on the data root {tmp_path}"):
            with data_root_lock(tmp_path):
                pass
    with data_root_lock(tmp_path):
        pass


def test_a_killed_holder_lets_go(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys; from pathlib import Path; from corten.daemon.lock import data_root_lock\n"
        "with data_root_lock(Path(sys.argv[1])): os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    with data_root_lock(tmp_path):
        pass


def test_pidfile_comes_and_goes(tmp_path: Path) -> None:
    path = tmp_path / "run" / "pid"
    with pidfile(path):
        assert path.read_text() == f"{os.getpid()}\n"
    assert not path.exists()


def test_a_stale_pidfile_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "pid"
    path.write_text("999999999\n")
    with pidfile(path):
        assert path.read_text() == f"{os.getpid()}\n"
