"""The storage driver `copy`: whole trees in the place of overlayfs."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.compat.harness import Daemon, daemon_on_host


@pytest.fixture(scope="module")
def copying() -> Iterator[Daemon]:
    with daemon_on_host("--storage-driver", "copy") as daemon:
        yield daemon


def test_commit(copying: Daemon) -> None:
    """Twice, the second on top of the first: what was written, changed and deleted, and nothing else."""
    copying.ok(
        "run", "--name", "one", "busybox", "sh", "-ec", "mkdir /d; echo a > /d/a; echo b > /d/b; rm /etc/notexec"
    )
    copying.ok("commit", "-m", "first", "-c", "ENV K=v", "one", "made:1")
    assert (
        copying.ok("run", "--rm", "made:1", "sh", "-c", "cat /d/*; echo $K; ls /etc/notexec || echo gone")
        == "a\nb\nv\ngone"
    )

    copying.ok("run", "--name", "two", "made:1", "sh", "-ec", "rm /d/a; echo c >> /d/b; chmod 600 /d/b; ln -s b /d/l")
    copying.ok("commit", "two", "made:2")
    assert copying.ok("run", "--rm", "made:2", "sh", "-c", "ls /d; cat /d/l; stat -c %a /d/b") == "b\nl\nb\nc\n600"
    assert copying.ok("run", "--rm", "made:1", "cat", "/d/a", "/d/b") == "a\nb"
    layers = copying.inspect("made:2")["RootFS"]["Layers"]
    assert layers[:2] == copying.inspect("made:1")["RootFS"]["Layers"]
    assert len(layers) == 3

    # What only ran changed nothing: no layer.
    copying.ok("run", "--name", "three", "made:2", "true")
    copying.ok("commit", "three", "made:3")
    assert copying.inspect("made:3")["RootFS"]["Layers"] == layers

    # Of one that runs, held still meanwhile; and the image goes to another daemon's driver as any other.
    copying.ok("run", "-d", "--name", "four", "made:2", "sh", "-c", "echo run > /d/run; touch /ready; sleep 1000")
    copying.ok("exec", "four", "sh", "-c", "until [ -e /ready ]; do sleep 0.1; done")
    copying.ok("commit", "four", "made:4")
    assert copying.inspect("four")["State"]["Status"] == "running"
    assert copying.ok("run", "--rm", "made:4", "cat", "/d/run") == "run"
    copying.ok("rm", "-f", "one", "two", "three", "four")


def test_diff(copying: Daemon) -> None:
    """The same as with overlayfs, and nothing for what only ran."""
    script = (
        "rm /etc/notexec; echo x > /newfile; mkdir -p /opt/a; rm -r /home; mkdir /home; touch /home/b; chmod 700 /root"
    )
    copying.ok("run", "--name", "box", "-v", "/vol", "busybox", "sh", "-c", script)
    told = ["C /etc", "D /etc/notexec", "C /home", "D /home/app", "A /home/b", "A /newfile", "A /opt", "A /opt/a"]
    assert copying.ok("diff", "box").splitlines() == [*told, "C /root", "A /vol"]
    assert copying.corten("diff", "box").lines == [*told, "C /root", "A /vol"]
    copying.ok("run", "--name", "idle", "busybox", "true")
    assert copying.ok("diff", "idle") == ""
    copying.ok("rm", "-v", "box", "idle")


@pytest.mark.parametrize("name", ["copying", "daemon"])
def test_far_down(name: str, request: pytest.FixtureRequest) -> None:
    """Compared and committed: directories in directories in directories."""
    daemon: Daemon = request.getfixturevalue(name)
    depth = 600
    down = f"mkdir /t; cd /t; for i in $(seq {depth}); do mkdir d; cd d; done; echo deep > f"
    daemon.ok("run", "--name", "deep", "busybox", "sh", "-c", down)
    told = daemon.ok("diff", "deep").splitlines()
    assert told == ["A /t" + "/d" * level for level in range(depth + 1)] + ["A /t" + "/d" * depth + "/f"]
    daemon.ok("commit", "deep", "deep")
    up = "cd /t; i=0; while cd d 2> /dev/null; do i=$((i + 1)); done; echo $i; cat f"
    assert daemon.ok("run", "--rm", "deep", "sh", "-c", up).split() == [str(depth), "deep"]
    daemon.ok("rm", "deep")
    daemon.ok("rmi", "deep")
