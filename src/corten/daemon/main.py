"""`cortend`: read flags and configuration, hold the data root, serve until a signal says stop."""

from __future__ import annotations

import asyncio
import dataclasses
import gc
import logging
import os
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import click

import corten
from corten.daemon import logsetup
from corten.daemon.config import (
    LOG_LEVELS,
    DaemonConfig,
    RuntimeEntry,
    exec_options,
    load_file,
    log_options,
    merge,
    size,
)
from corten.daemon.listen import Listener, open_listeners
from corten.daemon.lock import data_root_lock, pidfile
from corten.errors import CortenError, InvalidArgument

DEFAULT_CONFIG_FILE = Path("/etc/corten/daemon.json")
log = logging.getLogger(__name__)


_TLS_FLAGS = {"tls": "enabled", "tlsverify": "verify", "tlscacert": "ca", "tlscert": "cert", "tlskey": "key"}


def _runtime(text: str) -> tuple[str, RuntimeEntry]:
    name, separator, path = text.partition("=")
    if not separator or not name or not path.startswith("/"):
        raise InvalidArgument(f"--add-runtime wants NAME=/PATH, not {text}")
    return name, RuntimeEntry(path)


def _flags(given: dict[str, Any]) -> dict[str, Any]:
    """What was said on the command line, by attribute of DaemonConfig; what was not said is absent."""
    settings: dict[str, Any] = {}
    tls: dict[str, Any] = {}
    for name, value in given.items():
        if value in (None, (), False):
            continue
        if name in _TLS_FLAGS:
            tls[_TLS_FLAGS[name]] = value
        elif name == "runtimes":
            settings[name] = dict(map(_runtime, value))
        elif name == "cgroup_driver":
            settings[name] = exec_options("--exec-opt", list(value))
        elif name == "log_options":
            settings[name] = log_options("--log-opt", value)
        elif name == "storage_limit":
            settings[name] = size("--storage-limit", value)
        elif name == "debug":
            settings["log_level"] = "debug"
        elif name in ("data_root", "exec_root", "pidfile"):
            settings[name] = Path(value).absolute()
        elif name == "registry_config_dirs":
            settings[name] = tuple(Path(directory).absolute() for directory in value)
        else:
            settings[name] = value
    if tls:
        settings["tls"] = tls
    return settings


def read_config(given: dict[str, Any]) -> DaemonConfig:
    """Flags and configuration file together. The default file may be absent, a named one may not."""
    named = given.pop("config_file")
    path = Path(named) if named else DEFAULT_CONFIG_FILE
    file = load_file(path) if named or path.exists() else {}
    return merge(_flags(given), file)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "-H",
    "--host",
    "hosts",
    multiple=True,
    help="Where to serve the API: unix:///PATH, tcp://HOST:PORT, or fd://[NAME] of systemd.",
)
@click.option("--data-root", help="What must survive: images, containers, volumes. [/var/lib/corten]")
@click.option("--exec-root", help="What lives with the containers: sockets, namespaces. [/run/corten]")
@click.option("-p", "--pidfile", help="Write the daemon's pid here.")
@click.option("--config-file", help="Settings in Docker's daemon.json format. [/etc/corten/daemon.json]")
@click.option("-l", "--log-level", type=click.Choice(LOG_LEVELS), help="[info]")
@click.option("-D", "--debug", is_flag=True, help="The same as --log-level debug.")
@click.option("-G", "--group", help="Group that may use the unix socket. [docker, where it exists]")
@click.option("--tls", is_flag=True, help="Serve TCP with TLS; --tlsverify implies it.")
@click.option("--tlsverify", is_flag=True, help="Demand client certificates signed by --tlscacert.")
@click.option("--tlscacert", help="CA of the clients' certificates.")
@click.option("--tlscert", help="The daemon's certificate.")
@click.option("--tlskey", help="The daemon's key.")
@click.option("--allow-plain-tcp", is_flag=True, help="Serve TCP without TLS. Whoever reaches it is root here.")
@click.option("--insecure-registry", "insecure_registries", multiple=True, help="HOST[:PORT] or CIDR without TLS.")
@click.option("--registry-mirror", "registry_mirrors", multiple=True, help="URL to ask before Docker Hub.")
@click.option("--max-concurrent-downloads", type=click.IntRange(1), help="Layers that a pull fetches at a time. [3]")
@click.option("--max-concurrent-uploads", type=click.IntRange(1), help="Layers that a push sends at a time. [5]")
@click.option("--storage-limit", help="What all that is stored may take, such as 20GB: pulls stop there. [none]")
@click.option("--max-layer-size", type=click.IntRange(1), help="Bytes that a layer may have unpacked. [256 GiB]")
@click.option("--max-layer-entries", type=click.IntRange(1), help="Files that a layer may have. [10 million]")
@click.option("--max-layer-ratio", type=click.IntRange(1), help="Times its packed size, from 4 GiB unpacked on. [200]")
@click.option("--max-download-attempts", type=click.IntRange(1), help="Attempts to fetch a layer. [5]")
@click.option(
    "--registry-config-dir",
    "registry_config_dirs",
    multiple=True,
    help="Where hosts.toml and certificates of registries are. [/etc/corten/certs.d, /etc/docker/certs.d]",
)
@click.option("--http-proxy", help="Proxy to registries without TLS; comes before HTTP_PROXY.")
@click.option("--https-proxy", help="Proxy to registries with TLS; comes before HTTPS_PROXY.")
@click.option("--no-proxy", help="Hosts, domains and networks that are reached directly; comes before NO_PROXY.")
@click.option("--default-runtime", help="OCI runtime for containers that name none. [the embedded one]")
@click.option("--add-runtime", "runtimes", multiple=True, help="NAME=/PATH of a further OCI runtime.")
@click.option("--log-driver", help="Log driver of containers that name none. [json-file]")
@click.option("--log-opt", "log_options", multiple=True, help="NAME=VALUE: an option of the log driver's containers.")
@click.option("-s", "--storage-driver", help="overlayfs or copy. [overlayfs]")
@click.option(
    "--userns-remap", help="Run containers as another user's subordinate ids: default, USER[:GROUP], UID[:GID]."
)
@click.option("--no-new-privileges", is_flag=True, help="Set no_new_privs for containers that do not say otherwise.")
@click.option("--seccomp-profile", help="builtin, unconfined, or a profile's file. [builtin]")
@click.option("--exec-opt", "cgroup_driver", multiple=True, help="native.cgroupdriver=cgroupfs or systemd. [cgroupfs]")
@click.option("--cleanup", is_flag=True, help="Do not serve: end all containers, remove links, rules and namespaces.")
@click.version_option(corten.__version__, "-v", "--version", message="Corten version %(version)s")
def main(cleanup: bool, **given: Any) -> None:
    """The Corten daemon."""
    try:
        if os.geteuid() != 0:
            raise InvalidArgument("cortend needs to be run as root")
        config = read_config(dict(given))
        logsetup.set_up(config.log_level)
        with ExitStack() as held:
            # Below exec_root is the socket that a group may use, and files that remapped containers open themselves.
            for directory, mode in ((config.data_root, 0o710), (config.exec_root, 0o711)):
                directory.mkdir(parents=True, exist_ok=True)
                directory.chmod(mode)
            held.enter_context(data_root_lock(config.data_root))
            held.enter_context(pidfile(config.pidfile))
            if cleanup:
                _run_cleanup(config)
                return
            listeners = open_listeners(config)
            for listener in listeners:
                held.callback(listener.close)
            _serve(config, listeners, dict(given))
    except (CortenError, OSError) as error:
        click.echo(f"cortend: {error}", err=True)
        sys.exit(1)


def _serve(config: DaemonConfig, listeners: list[Listener], given: dict[str, Any]) -> None:
    # Nothing of what a start makes is garbage. Looking through it costs time now, and the more containers there are,
    # the longer everybody would wait later; `serve` ends this.
    gc.disable()
    import uvloop

    from corten.daemon.service import serve

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(config, listeners, lambda: read_config(dict(given))))


def _run_cleanup(config: DaemonConfig) -> None:
    from corten.daemon.service import clean_up

    with asyncio.Runner() as runner:
        runner.run(clean_up(dataclasses.replace(config, userns_remap="")))


if __name__ == "__main__":
    main()
