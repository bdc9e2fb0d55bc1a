"""The main job with the real docker command line."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import time
from pathlib import Path

import pytest

from tests import docker_client
from tests.compat.harness import Daemon
from tests.waiting import until


def test_version_and_info(daemon: Daemon) -> None:
    version = json.loads(daemon.ok("version", "--format", "{{json .Server}}"))
    assert version["ApiVersion"] == "1.56"
    assert version["MinAPIVersion"] == "1.24"
    assert "Storage Driver: overlayfs" in daemon.ok("info")


def test_run_prints_and_is_gone(daemon: Daemon) -> None:
    assert daemon.ok("run", "--rm", "busybox", "echo", "hello") == "hello"
    assert daemon.ok("ps", "-aq") == ""


@pytest.mark.parametrize(
    ("command", "code"),
    [(["true"], 0), (["sh", "-c", "exit 7"], 7), (["no-such"], 127), (["/etc/notexec"], 126), (["/etc"], 126)],
)
def test_exit_codes_of_run(daemon: Daemon, command: list[str], code: int) -> None:
    if command == ["/etc"] and docker_client.major_version() < 25:
        code = 125  # the client decides
    assert daemon.docker("run", "--rm", "busybox", *command).code == code


def test_the_exit_code_of_a_killed_container(daemon: Daemon) -> None:
    daemon.ok("run", "-d", "--name", "kk", "busybox", "sleep", "100")
    daemon.ok("kill", "kk")
    assert daemon.ok("wait", "kk") == "137"
    assert daemon.inspect("kk")["State"]["Status"] == "exited"


def test_an_unknown_flag_value_is_125(daemon: Daemon) -> None:
    done = daemon.docker("run", "--rm", "-m", "1m", "busybox", "true")
    assert done.code == 125
    assert "Minimum memory limit allowed is 6MB" in done.err


def test_stdin_goes_in_and_comes_out(daemon: Daemon) -> None:
    assert daemon.ok("run", "--rm", "-i", "busybox", "cat", input="one\ntwo\n") == "one\ntwo"


def test_stdout_and_stderr_stay_apart(daemon: Daemon) -> None:
    done = daemon.docker("run", "--rm", "busybox", "sh", "-c", "echo out; echo err >&2")
    assert (done.out, done.err) == ("out\n", "err\n")


def test_a_large_stream_through_attach(daemon: Daemon) -> None:
    data = os.urandom(1 << 16).hex() * 100
    assert daemon.ok("run", "--rm", "-i", "busybox", "cat", input=data) == data


def test_a_terminal(daemon: Daemon) -> None:
    master, slave = pty.openpty()
    command = daemon.host.inside(
        "docker", "-H", daemon.url, "run", "--rm", "-it", "busybox", "sh", "-c", "tty; stty size"
    )
    with subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave) as process:
        os.close(slave)
        seen = b""
        while True:
            try:
                chunk = os.read(master, 1024)
            except OSError:  # EIO: the other side is closed
                break
            if not chunk:
                break
            seen += chunk
        assert process.wait(30) == 0
    os.close(master)
    assert b"/dev/pts/0" in seen or b"/dev/console" in seen


def test_published_port_answers_on_loopback(daemon: Daemon) -> None:
    daemon.ok(
        "run",
        "-d",
        "--name",
        "web",
        "-p",
        "8081:80",
        "busybox",
        "sh",
        "-c",
        "echo page >/tmp/index.html; httpd -f -h /tmp",
    )
    fetched = until(
        lambda: daemon.host.run("busybox", "wget", "-qO-", "http://127.0.0.1:8081/").out, what="the published port"
    )
    assert fetched == "page\n"
    assert "8081" in daemon.ok("port", "web", "80")
    assert "0.0.0.0:8081->80/tcp" in daemon.ok("ps", "--format", "{{.Ports}}")


def test_a_port_in_use_is_refused_and_the_next_try_works(daemon: Daemon) -> None:
    daemon.ok("run", "-d", "--name", "first", "-p", "8082:80", "busybox", "sleep", "100")
    refused = daemon.docker("run", "-d", "--name", "second", "-p", "8082:80", "busybox", "sleep", "100")
    assert refused.code == 125
    assert "port is already allocated" in refused.err
    daemon.ok("rm", "-f", "first")
    daemon.ok("start", "second")
    assert daemon.inspect("second")["State"]["Running"]


def test_logs(daemon: Daemon) -> None:
    daemon.ok("run", "--name", "ll", "busybox", "sh", "-c", "for i in 1 2 3; do echo line $i; done; echo no >&2")
    logged = daemon.docker("logs", "ll")
    assert logged.out == "line 1\nline 2\nline 3\n"
    assert logged.err == "no\n"
    assert daemon.docker("logs", "--tail", "1", "ll").err == "no\n"
    stamped = daemon.docker("logs", "-t", "ll").out.splitlines()[0]
    assert stamped.split(" ", 1)[0].endswith("Z")
    assert stamped.endswith("line 1")


def test_logs_follow_ends_with_the_container(daemon: Daemon) -> None:
    daemon.ok("run", "-d", "--name", "ff", "busybox", "sh", "-c", "for i in 1 2 3 4 5; do echo $i; sleep 0.1; done")
    assert daemon.ok("logs", "-f", "ff").split() == ["1", "2", "3", "4", "5"]


def test_exec_after_an_update(daemon: Daemon) -> None:
    daemon.ok("run", "-d", "--name", "uu", "busybox", "sleep", "100")
    daemon.ok("update", "--cpu-shares", "512", "uu")
    bounding = "grep CapBnd /proc/self/status"
    assert daemon.ok("exec", "uu", "sh", "-c", bounding) == daemon.ok("run", "--rm", "busybox", "sh", "-c", bounding)


def test_exec(daemon: Daemon) -> None:
    daemon.ok("run", "-d", "--name", "xx", "-e", "A=1", "busybox", "sleep", "100")
    assert daemon.ok("exec", "xx", "echo", "in") == "in"
    assert (
        daemon.ok("exec", "-e", "B=2", "-w", "/tmp", "-u", "app", "xx", "sh", "-c", "echo $A$B; pwd; id -un")
        == "12\n/tmp\napp"
    )
    assert daemon.ok("exec", "-i", "xx", "cat", input="through") == "through"
    assert daemon.docker("exec", "xx", "sh", "-c", "exit 9").code == 9
    missing = daemon.docker("exec", "xx", "no-such")
    assert missing.code == 127
    assert "executable file not found in $PATH" in missing.out
    assert daemon.docker("exec", "xx", "/etc/notexec").code == 126


def test_user_env_workdir_hostname(daemon: Daemon) -> None:
    seen = daemon.ok(
        "run", "--rm", "-u", "app", "--group-add", "extra", "-e", "X=y", "-w", "/home/app", "-h", "box", "busybox",
        "sh", "-c", "id -u; id -G; echo $X $HOME; pwd; hostname",
    )  # fmt: skip
    assert seen.split() == ["1000", "1000", "2000", "y", "/home/app", "/home/app", "box"]


def test_an_unknown_user_is_named(daemon: Daemon) -> None:
    done = daemon.docker("run", "--rm", "-u", "nobody-here", "busybox", "true")
    assert done.code in (125, 126)
    assert "unable to find user nobody-here" in done.err


def test_binds_volumes_and_tmpfs(daemon: Daemon) -> None:
    tmp_path = daemon.host.place / "bound"
    tmp_path.mkdir()
    (tmp_path / "f").write_text("from the host\n")
    assert daemon.ok("run", "--rm", "-v", f"{tmp_path}:/b:ro", "busybox", "cat", "/b/f") == "from the host"
    assert daemon.docker("run", "--rm", "-v", f"{tmp_path}:/b:ro", "busybox", "touch", "/b/g").code == 1
    daemon.ok("run", "--rm", "-v", "keep:/d", "busybox", "sh", "-c", "echo kept >/d/f")
    assert daemon.ok("run", "--rm", "-v", "keep:/d", "busybox", "cat", "/d/f") == "kept"
    assert "tmpfs" in daemon.ok("run", "--rm", "--tmpfs", "/t:size=1m", "busybox", "grep", " /t ", "/proc/mounts")
    daemon.ok("volume", "rm", "keep")


def test_a_missing_bind_source(daemon: Daemon) -> None:
    done = daemon.docker("run", "--rm", "--mount", "type=bind,src=/no/such/place,dst=/x", "busybox", "true")
    assert done.code == 125
    assert "bind source path does not exist: /no/such/place" in done.err


def test_limits_reach_the_cgroup(daemon: Daemon) -> None:
    daemon.ok(
        "run", "-d", "--name", "lim", "-m", "64m", "--cpus", "0.5", "--pids-limit", "50", "busybox", "sleep", "100"
    )
    host_config = daemon.inspect("lim")["HostConfig"]
    assert (host_config["Memory"], host_config["NanoCpus"], host_config["PidsLimit"]) == (64 << 20, 500_000_000, 50)
    pid = daemon.inspect("lim")["State"]["Pid"]
    groups = dict(line.split(":", 2)[1:] for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines())
    if "memory" in groups:
        base = Path("/sys/fs/cgroup/memory" + groups["memory"])
        assert (base / "memory.limit_in_bytes").read_text().strip() == str(64 << 20)
    else:
        assert (Path("/sys/fs/cgroup" + groups[""]) / "memory.max").read_text().strip() == str(64 << 20)


def test_an_out_of_memory_kill_is_told(daemon: Daemon) -> None:
    done = daemon.docker("run", "--name", "oom", "-m", "16m", "--memory-swap", "16m", "busybox", "tail", "/dev/zero")
    assert done.code == 137
    assert daemon.inspect("oom")["State"]["OOMKilled"] is True


def test_read_only_caps_privileged(daemon: Daemon) -> None:
    assert daemon.docker("run", "--rm", "--read-only", "busybox", "touch", "/f").code == 1
    assert daemon.docker("run", "--rm", "busybox", "mount", "-t", "tmpfs", "xx", "/tmp").code != 0
    daemon.ok("run", "--rm", "--privileged", "busybox", "mount", "-t", "tmpfs", "xx", "/tmp")
    assert daemon.docker("run", "--rm", "--cap-drop", "CHOWN", "busybox", "chown", "1", "/tmp").code == 1


def test_init_reaps(daemon: Daemon) -> None:
    seen = daemon.ok(
        "run",
        "--rm",
        "--init",
        "busybox",
        "sh",
        "-c",
        "echo $$; (sleep 0.01 &); sleep 0.1; ps -o stat | grep -c Z || true",
    )
    assert seen.split()[0] != "1"


def test_stop_pause_restart_rename(daemon: Daemon) -> None:
    daemon.ok("run", "-d", "--name", "life", "busybox", "sh", "-c", "trap 'exit 3' TERM; while :; do sleep 0.05; done")
    daemon.ok("pause", "life")
    assert daemon.inspect("life")["State"]["Status"] == "paused"
    daemon.ok("unpause", "life")
    daemon.ok("stop", "life")
    assert daemon.inspect("life")["State"]["ExitCode"] == 3
    daemon.ok("restart", "life")
    assert daemon.inspect("life")["State"]["Running"]
    daemon.ok("rename", "life", "other")
    assert daemon.ok("ps", "--format", "{{.Names}}") == "other"
    assert "No such container: life" in daemon.docker("start", "life").err


def test_top_and_stats(daemon: Daemon) -> None:
    daemon.ok("run", "-d", "--name", "tt", "busybox", "sleep", "100")
    assert "sleep 100" in daemon.ok("top", "tt")
    stats = json.loads(daemon.ok("stats", "--no-stream", "--format", "{{json .}}", "tt"))
    assert stats["Name"] == "tt"
    assert stats["PIDs"] == "1"


def test_restart_policy_restarts_until_the_count(daemon: Daemon) -> None:
    daemon.ok("run", "-d", "--name", "rr", "--restart", "on-failure:2", "busybox", "false")
    until(lambda: daemon.inspect("rr")["State"]["Status"] == "exited", what="the last try")
    assert daemon.inspect("rr")["RestartCount"] == 2


def test_events_tell_the_story(daemon: Daemon) -> None:
    daemon.ok("run", "--rm", "--name", "story", "busybox", "true")
    told = daemon.ok(
        "events",
        "--since",
        "1m",
        "--until",
        f"{time.time() + 0.2}",
        "--filter",
        "container=story",
        "--format",
        "{{.Action}}",
    ).split()
    assert [action for action in told if action in ("create", "start", "die", "destroy")] == [
        "create",
        "start",
        "die",
        "destroy",
    ]


def test_names_conflict_in_dockers_words(daemon: Daemon) -> None:
    daemon.ok("create", "--name", "same", "busybox")
    done = daemon.docker("create", "--name", "same", "busybox")
    assert done.code == 1
    assert 'The container name "/same" is already in use by container' in done.err


def test_network_modes(daemon: Daemon) -> None:
    assert "eth0" not in daemon.ok("run", "--rm", "--network", "none", "busybox", "ip", "link")
    assert "corten0" in daemon.ok("run", "--rm", "--network", "host", "busybox", "ip", "link")
    daemon.ok("run", "-d", "--name", "owner", "busybox", "sleep", "100")
    address = daemon.inspect("owner")["NetworkSettings"]["Networks"]["bridge"]["IPAddress"]
    assert address in daemon.ok("run", "--rm", "--network", "container:owner", "busybox", "ip", "addr")


def test_images_tag_save_load_remove(daemon: Daemon) -> None:
    daemon.ok("tag", "busybox", "copy:1")
    archive = daemon.host.place / "saved.tar"
    daemon.ok("save", "-o", str(archive), "copy:1")
    daemon.ok("rmi", "copy:1")
    assert "copy" not in daemon.ok("images", "--format", "{{.Repository}}").split()
    assert "Loaded image: copy:1" in daemon.ok("load", "-i", str(archive))
    assert daemon.ok("run", "--rm", "copy:1", "echo", "loaded") == "loaded"
    daemon.ok("rmi", "copy:1")


def test_an_unknown_image(daemon: Daemon) -> None:
    done = daemon.docker("run", "--rm", "--pull", "never", "no-such-image", "true")
    assert done.code == 125
    assert "No such image: no-such-image:latest" in done.err


def test_networks_are_listed(daemon: Daemon) -> None:
    assert sorted(daemon.ok("network", "ls", "--format", "{{.Name}}").split()) == ["bridge", "host", "none"]


def test_detached_containers_keep_running_beside_others(daemon: Daemon) -> None:
    ids = [daemon.ok("run", "-d", "busybox", "sleep", "100") for _ in range(5)]
    assert set(daemon.ok("ps", "-q", "--no-trunc").split()) == set(ids)


def test_bad_requests(daemon: Daemon) -> None:
    assert daemon.curl("/v1.10/info").code == 400
    assert daemon.curl("/containers/create", "POST", b"{").code == 400
    assert daemon.curl("/containers/create", "POST", {"Image": "busybox", "Cmd": 3}).code == 400
    assert daemon.curl("/nothing").code == 404
    answer = daemon.curl("/swarm/init", "POST", {})
    assert answer.code == 501
    assert "message" in json.loads(answer.out)
