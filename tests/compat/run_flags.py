"""The flags of `docker run`, each with what proves its effect: read by test_every_flag.

A proof runs a container with the flag and looks at what a command inside it prints; a container without any flag has to
print something else, or the proof would prove nothing. Some flags are proven by a test elsewhere, which has to exist
and to name the flag, and some are refused in Docker's words. {disk}, {place}, {host} and {pid} stand for a disk, a
folder with a file `env`, the host's name and the host's process namespace.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Shown:
    """`command` (sh -c) prints all of `prints`, a pattern, to its two outputs together, and ends with `code`."""

    args: str
    command: str
    prints: str
    code: int = 0


@dataclass(frozen=True)
class Recorded:
    """What is of the record alone, or read back by another program from there: `template` of inspect prints this."""

    args: str
    template: str
    prints: str


@dataclass(frozen=True)
class Refused:
    """What does not suit the host. `words` are a part of what is told; the container is not made."""

    args: str
    words: str


@dataclass(frozen=True)
class Elsewhere:
    """module::test of this folder or of tests/."""

    test: str


Proof = Shown | Recorded | Refused | Elsewhere


def cgroup(controller: str, v1: str, v2: str) -> str:
    """Prints a limit of the container's own group, on either version of cgroups."""
    return f"cat /sys/fs/cgroup/{controller}/{v1} 2>/dev/null || cat /sys/fs/cgroup/{v2}"


def throttle(direction: str, unit: str, prints: str) -> Shown:
    word = direction[0] + unit
    command = (
        f"cat /sys/fs/cgroup/blkio/blkio.throttle.{direction}_{unit}_device 2>/dev/null || cat /sys/fs/cgroup/io.max"
    )
    return Shown(f"--device-{direction}-{unit} {{disk}}:7340032", command, rf"\d+:\d+ ({prints}|.*\b{word}={prints}.*)")


PROOFS: dict[str, Proof] = {
    "add-host": Shown("--add-host db:10.9.8.7", "grep db /etc/hosts", r"10\.9\.8\.7\tdb"),
    "annotation": Elsewhere("test_every_flag::test_annotations_reach_the_runtime"),
    "attach": Shown("-a stderr", "echo out; echo err >&2", "err"),
    "blkio-weight": Shown(
        "--blkio-weight 300",
        "cat /sys/fs/cgroup/blkio/blkio.*weight /sys/fs/cgroup/io.*weight 2>/dev/null; true",
        r"(?s)(default )?300(\n.*)?|.*Weight discarded\..*",
    ),
    "blkio-weight-device": Elsewhere("test_unsuited_flags::test_kernel_memory_and_weights_of_disks_are_discarded"),
    "cap-add": Shown("--cap-add SYS_ADMIN", "mount -t tmpfs x /tmp; echo $?", "0"),
    "cap-drop": Shown("--cap-drop CHOWN", "chown 1 /tmp", ".*Operation not permitted", 1),
    "cgroup-parent": Elsewhere("test_every_flag::test_cgroup_parent"),
    "cgroupns": Elsewhere("test_every_flag::test_cgroupns"),
    "cidfile": Elsewhere("test_every_flag::test_cidfile"),
    "cpu-count": Refused("--cpu-count 1", "windows"),
    "cpu-percent": Refused("--cpu-percent 10", "windows"),
    "cpu-period": Shown("--cpu-period 50000", cgroup("cpu", "cpu.cfs_period_us", "cpu.max"), r"(max )?50000"),
    "cpu-quota": Shown("--cpu-quota 40000", cgroup("cpu", "cpu.cfs_quota_us", "cpu.max"), r"40000( 100000)?"),
    "cpu-rt-period": Elsewhere("test_unsuited_flags::test_refused"),
    "cpu-rt-runtime": Elsewhere("test_unsuited_flags::test_refused"),
    "cpu-shares": Shown("-c 512", cgroup("cpu", "cpu.shares", "cpu.weight"), "512|20|59"),
    "cpus": Shown("--cpus 0.5", cgroup("cpu", "cpu.cfs_quota_us", "cpu.max"), r"50000( 100000)?"),
    "cpuset-cpus": Shown("--cpuset-cpus 0", "grep Cpus_allowed_list /proc/self/status", r"Cpus_allowed_list:\t0"),
    "cpuset-mems": Recorded("--cpuset-mems 0", "{{.HostConfig.CpusetMems}}", "0"),
    "detach": Elsewhere("test_docker_cli::test_detached_containers_keep_running_beside_others"),
    "detach-keys": Elsewhere("test_run_flags::test_detach_keys_and_attach_again"),
    "device": Shown("--device /dev/null:/dev/hole:r", "ls /dev/hole", "/dev/hole"),
    "device-cgroup-rule": Shown(
        "--device-cgroup-rule 'c 10:229 rwm'",
        "mknod /fuse c 10 229; (: < /fuse) 2>&1 | grep -c 'not permitted'",
        "0",
        1,
    ),
    "device-read-bps": throttle("read", "bps", "7340032"),
    "device-read-iops": throttle("read", "iops", "7340032"),
    "device-write-bps": throttle("write", "bps", "7340032"),
    "device-write-iops": throttle("write", "iops", "7340032"),
    "disable-content-trust": Elsewhere("test_every_flag::test_disable_content_trust_is_the_clients"),
    "dns": Shown("--dns 10.9.8.7", "grep -v '^#' /etc/resolv.conf", r"nameserver 10\.9\.8\.7"),
    "dns-option": Shown("--dns-option ndots:7", "grep ndots /etc/resolv.conf", "options .*ndots:7.*"),
    "dns-search": Shown("--dns-search example.org", "grep search /etc/resolv.conf", r"search example\.org"),
    "domainname": Shown("--domainname example.org", "cat /proc/sys/kernel/domainname", r"example\.org"),
    "entrypoint": Shown("--entrypoint /bin/echo", "said", "-c said"),
    "env": Shown("-e A=one", "echo $A", "one"),
    "env-file": Shown("--env-file {place}/env", "echo $B", "two"),
    "expose": Recorded("--expose 90/udp", "{{json .Config.ExposedPorts}}", '{"90/udp":{}}'),
    "gpus": Refused("--gpus all", 'could not select device driver "" with capabilities: [[gpu]]'),
    "group-add": Shown("--group-add extra --group-add 77", "id -G", r"(\d+ )*77 2000"),
    "health-cmd": Elsewhere("test_every_flag::test_health_flags"),
    "health-interval": Elsewhere("test_every_flag::test_health_flags"),
    "health-retries": Elsewhere("test_every_flag::test_health_flags"),
    "health-start-interval": Elsewhere("test_every_flag::test_health_flags"),
    "health-start-period": Elsewhere("test_every_flag::test_health_flags"),
    "health-timeout": Elsewhere("test_every_flag::test_health_flags"),
    "help": Elsewhere("test_every_flag::test_every_flag_of_docker_is_proven"),
    "hostname": Shown("-h named", "hostname; grep -o named /etc/hosts", "named\nnamed"),
    "init": Shown("--init", "cat /proc/1/comm", "corten-init"),
    "interactive": Elsewhere("test_docker_cli::test_stdin_goes_in_and_comes_out"),
    "io-maxbandwidth": Refused("--io-maxbandwidth 1m", "windows"),
    "io-maxiops": Refused("--io-maxiops 5", "windows"),
    "ip": Refused("--ip 172.17.0.9", "user specified IP address is supported on user defined networks only"),
    "ip6": Refused("--ip6 fd00::9", "user specified IP address is supported on user defined networks only"),
    "ipc": Elsewhere("test_mount_flags::test_ipc_modes"),
    "isolation": Refused("--isolation hyperv", "invalid isolation: \"hyperv\" - linux only supports 'default'"),
    "kernel-memory": Elsewhere("test_unsuited_flags::test_kernel_memory_and_weights_of_disks_are_discarded"),
    "label": Recorded("-l a=1 -l b", "{{json .Config.Labels}}", '{"a":"1","b":""}'),
    "label-file": Recorded("--label-file {place}/env", "{{json .Config.Labels}}", '{"B":"two"}'),
    "link": Elsewhere("test_links::test_what_the_linking_container_sees"),
    "link-local-ip": Refused("--link-local-ip 169.254.3.4", "link-local addresses of endpoints are not supported yet"),
    "log-driver": Elsewhere("test_every_flag::test_log_driver"),
    "log-opt": Elsewhere("test_run_flags::test_log_rotation_by_option"),
    "mac-address": Shown("--mac-address 02:42:ac:11:00:99", "cat /sys/class/net/eth0/address", "02:42:ac:11:00:99"),
    "memory": Shown("-m 64m", cgroup("memory", "memory.limit_in_bytes", "memory.max"), str(64 << 20)),
    "memory-reservation": Shown(
        "--memory-reservation 32m", cgroup("memory", "memory.soft_limit_in_bytes", "memory.low"), str(32 << 20)
    ),
    "memory-swap": Shown(
        "-m 64m --memory-swap 80m",
        cgroup("memory", "memory.memsw.limit_in_bytes", "memory.swap.max"),
        f"{80 << 20}|{16 << 20}",
    ),
    "memory-swappiness": Shown(
        "--memory-swappiness 33",
        cgroup("memory", "memory.swappiness", "memory.max"),
        r"(?s)33|.*memory swappiness.*discarded.*",
    ),
    "mount": Elsewhere("test_mount_flags::test_bind_recursive"),
    "name": Recorded("--name chosen", "{{.Name}}", "/chosen"),
    "network": Shown("--network none", "ls /sys/class/net", "lo"),
    "network-alias": Refused("--network-alias x", "network-scoped alias"),
    "no-healthcheck": Recorded("--no-healthcheck", "{{json .Config.Healthcheck.Test}}", '["NONE"]'),
    "oom-kill-disable": Shown(
        "-m 64m --oom-kill-disable",
        cgroup("memory", "memory.oom_control", "memory.max"),
        r"(?s)oom_kill_disable 1.*|.*OomKillDisable discarded.*",
    ),
    "oom-score-adj": Shown("--oom-score-adj 77", "cat /proc/self/oom_score_adj", "77"),
    "pid": Shown("--pid host", "readlink /proc/self/ns/pid", "{pid}"),
    "pids-limit": Shown("--pids-limit 55", cgroup("pids", "pids.max", "pids.max"), "55"),
    "platform": Refused("--platform linux/s390x --pull never", "does not provide the specified platform (linux/s390x)"),
    "privileged": Shown("--privileged", "mount -t tmpfs x /tmp; echo $?; : > /proc/sys/kernel/domainname", "0"),
    "publish": Elsewhere("test_docker_cli::test_published_port_answers_on_loopback"),
    "publish-all": Elsewhere("test_run_flags::test_publish_all_exposed_ports"),
    "pull": Elsewhere("test_every_flag::test_pull_and_quiet"),
    "quiet": Elsewhere("test_every_flag::test_pull_and_quiet"),
    "read-only": Shown("--read-only", "touch /file", ".*Read-only file system", 1),
    "restart": Elsewhere("test_docker_cli::test_restart_policy_restarts_until_the_count"),
    "rm": Elsewhere("test_docker_cli::test_run_prints_and_is_gone"),
    "runtime": Elsewhere("test_unsuited_flags::test_dockers_runtime_is_the_embedded_one"),
    "security-opt": Shown("--security-opt no-new-privileges", "grep NoNewPrivs /proc/self/status", r"NoNewPrivs:\t1"),
    "shm-size": Shown("--shm-size 7m", "df -k /dev/shm | awk 'END {{print $2}}'", "7168"),
    "sig-proxy": Elsewhere("test_every_flag::test_signals_are_not_passed"),
    "stop-signal": Elsewhere("test_every_flag::test_stop_signal_and_timeout"),
    "stop-timeout": Elsewhere("test_every_flag::test_stop_signal_and_timeout"),
    "storage-opt": Elsewhere("test_unsuited_flags::test_refused"),
    "sysctl": Shown("--sysctl net.core.somaxconn=77", "cat /proc/sys/net/core/somaxconn", "77"),
    "tmpfs": Shown("--tmpfs /scratch:size=1m", "df -k /scratch | awk 'END {{print $2}}'", "1024"),
    "tty": Shown("-t", "[ -t 1 ] && echo terminal", "terminal"),
    "ulimit": Shown("--ulimit nofile=77:88", "ulimit -n; ulimit -H -n", "77\n88"),
    "use-api-socket": Elsewhere("test_api_socket::test_what_is_in_the_container"),
    "user": Shown("-u app:extra", "id -u; id -g", "1000\n2000"),
    "userns": Elsewhere("test_userns_remap::test_the_hosts_users_for_one_container"),
    "uts": Shown("--uts host", "hostname", "{host}"),
    "volume": Shown("-v {place}:/seen:ro", "cat /seen/env; touch /seen/x", "(?s)B=two\n.*Read-only file system", 1),
    "volume-driver": Refused(
        "--volume-driver bogus -v some:/x", 'error looking up volume plugin bogus: plugin "bogus" not found'
    ),
    "volumes-from": Elsewhere("test_every_flag::test_volumes_from"),
    "workdir": Shown("-w /tmp", "pwd", "/tmp"),
}
