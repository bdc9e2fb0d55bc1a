"""What the daemon is told: command-line flags over `daemon.json`, with Docker's names for both.

A key that Docker does not know is an error that names it. So is one of Docker's that Corten does not serve: a setting
that is accepted and has no effect would be a lie about how the daemon runs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from corten.errors import InvalidArgument, clip
from corten.logs.options import parse as parse_log_options
from corten.registry.hosts import DIRECTORIES
from corten.storage.types import LayerLimits

DEFAULT_HOST = "unix:///run/corten/corten.sock"
PLAIN = (
    "without TLS it gives root on this machine to whoever can reach it: use --tlsverify with --tlscacert, --tlscert and"
    " --tlskey, or insist with --allow-plain-tcp"
)
CGROUP_DRIVERS = ("cgroupfs", "systemd")
LOG_LEVELS = ("debug", "info", "warn", "error", "fatal")


@dataclass(frozen=True, slots=True)
class RuntimeEntry:
    """An OCI runtime that `--runtime NAME` may choose: the program's path and the arguments that go before its own."""

    path: str
    args: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class TlsConfig:
    """Server-side TLS. `verify` demands a client certificate signed by `ca`."""

    enabled: bool = False
    verify: bool = False
    ca: str = ""
    cert: str = ""
    key: str = ""


@dataclass(frozen=True, slots=True)
class DaemonConfig:
    """All settings, checked. Sizes are in bytes, times in seconds."""

    hosts: tuple[str, ...] = (DEFAULT_HOST,)
    data_root: Path = Path("/var/lib/corten")
    exec_root: Path = Path("/run/corten")
    pidfile: Path | None = None
    log_level: str = "info"
    group: str = ""
    tls: TlsConfig = TlsConfig()
    allow_plain_tcp: bool = False
    insecure_registries: tuple[str, ...] = ()
    registry_mirrors: tuple[str, ...] = ()
    registry_config_dirs: tuple[Path, ...] = DIRECTORIES
    http_proxy: str = field(default="", repr=False)
    https_proxy: str = field(default="", repr=False)
    no_proxy: str = ""
    default_runtime: str = ""
    runtimes: Mapping[str, RuntimeEntry] = field(default_factory=dict)
    max_concurrent_downloads: int = 3
    max_concurrent_uploads: int = 5
    max_download_attempts: int = 5
    storage_limit: int = 0
    max_layer_size: int = LayerLimits().size
    max_layer_entries: int = LayerLimits().entries
    max_layer_ratio: int = LayerLimits().ratio
    log_driver: str = "json-file"
    log_options: Mapping[str, str] = field(default_factory=dict)
    labels: tuple[str, ...] = ()
    dns: tuple[str, ...] = ()
    dns_options: tuple[str, ...] = ()
    dns_search: tuple[str, ...] = ()
    default_address_pools: tuple[tuple[str, int], ...] = ()
    storage_driver: str = "overlayfs"
    cgroup_driver: str = "cgroupfs"
    userns_remap: str = ""
    no_new_privileges: bool = False
    seccomp_profile: str = "builtin"
    """"builtin", "unconfined", or the path of a profile in Docker's form."""


def _strings(key: str, value: Any) -> tuple[str, ...]:
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return tuple(value)
    raise InvalidArgument(f"{key} must be a list of strings")


def _string(key: str, value: Any) -> str:
    if isinstance(value, str):
        return value
    raise InvalidArgument(f"{key} must be a string")


def _path(key: str, value: Any) -> Path:
    return Path(_string(key, value))


def _paths(key: str, value: Any) -> tuple[Path, ...]:
    return tuple(map(Path, _strings(key, value)))


def _boolean(key: str, value: Any) -> bool:
    if isinstance(value, bool):
        return value
    raise InvalidArgument(f"{key} must be true or false")


def _count(key: str, value: Any) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and value > 0:
        return value
    raise InvalidArgument(f"{key} must be a whole number above 0")


_UNITS = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12}
_UNITS |= {"kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30, "tib": 1 << 40}


def size(key: str, value: Any) -> int:
    """Bytes, as a number or with a unit: 20GB are 20 billion, 20GiB are 20 << 30. Raises InvalidArgument."""
    text = str(value).strip().lower() if isinstance(value, int | str) and not isinstance(value, bool) else ""
    number = text.rstrip("bkmgti")
    try:
        bytes_ = int(float(number) * _UNITS[text[len(number) :].strip()])
    except (ValueError, KeyError, OverflowError):
        raise InvalidArgument(f"{key} must be a size such as 20GB, not {value}") from None
    if bytes_ < 0:
        raise InvalidArgument(f"{key} must be a size such as 20GB, not {value}")
    return bytes_


def _level(key: str, value: Any) -> str:
    if _string(key, value) in LOG_LEVELS:
        return str(value)
    raise InvalidArgument(f"invalid logging level: {value} (one of {', '.join(LOG_LEVELS)})")


def _texts(key: str, value: Any) -> dict[str, str]:
    if isinstance(value, dict) and all(isinstance(item, str) for item in value.values()):
        return value
    raise InvalidArgument(f"{key} must be an object of strings")


def log_options(key: str, value: Sequence[str]) -> dict[str, str]:
    """NAME=VALUE pairs. Raises InvalidArgument."""
    pairs = [option.partition("=") for option in value]
    for name, separator, _ in pairs:
        if not name or not separator:
            raise InvalidArgument(f"{key} wants NAME=VALUE, not {clip(name)}")
    return {name: text for name, _, text in pairs}


def _storage_driver(key: str, value: Any) -> str:
    names = {"overlay2": "overlayfs", "overlayfs": "overlayfs", "vfs": "copy", "copy": "copy"}
    if (name := names.get(_string(key, value))) is None:
        raise InvalidArgument(f"{key} must be overlayfs (overlay2) or copy (vfs), not {value}")
    return name


def exec_options(key: str, value: Any) -> str:
    """Docker's `["native.cgroupdriver=systemd"]`: the driver. Raises InvalidArgument for what else it might say."""
    driver = CGROUP_DRIVERS[0]
    for option in _strings(key, value):
        name, separator, word = option.partition("=")
        if not separator or name.strip().lower() != "native.cgroupdriver":
            raise InvalidArgument(f"invalid option {option} for {key}: only native.cgroupdriver is known")
        if word not in CGROUP_DRIVERS:
            raise InvalidArgument(f"{key}: native.cgroupdriver must be {' or '.join(CGROUP_DRIVERS)}, not {word}")
        driver = word
    return driver


def _runtimes(key: str, value: Any) -> dict[str, RuntimeEntry]:
    """`{"runc": {"path": "/usr/bin/runc", "runtimeArgs": []}}`, as in Docker's file."""
    if not isinstance(value, dict):
        raise InvalidArgument(f"{key} must be an object")
    found = {}
    for name, entry in value.items():
        if not isinstance(entry, dict) or set(entry) - {"path", "runtimeArgs"} or "path" not in entry:
            raise InvalidArgument(f"{key}.{name} must be an object with path and, if need be, runtimeArgs")
        args = _strings(f"{key}.{name}.runtimeArgs", entry.get("runtimeArgs", []))
        found[name] = RuntimeEntry(_string(f"{key}.{name}.path", entry["path"]), args)
    return found


def _pools(key: str, value: Any) -> tuple[tuple[str, int], ...]:
    if not isinstance(value, list):
        raise InvalidArgument(f"{key} must be a list of objects with base and size")
    pools = []
    for item in value:
        if not isinstance(item, dict) or set(item) != {"base", "size"}:
            raise InvalidArgument(f"{key} must be a list of objects with base and size")
        pools.append((_string(f"{key}.base", item["base"]), _count(f"{key}.size", item["size"])))
    return tuple(pools)


# Key of daemon.json → (attribute, check). The flag of the same meaning is named in `FLAGS`.
KEYS: dict[str, tuple[str, Callable[[str, Any], Any]]] = {
    "hosts": ("hosts", _strings),
    "data-root": ("data_root", _path),
    "exec-root": ("exec_root", _path),
    "pidfile": ("pidfile", _path),
    "log-level": ("log_level", _level),
    "group": ("group", _string),
    "insecure-registries": ("insecure_registries", _strings),
    "registry-mirrors": ("registry_mirrors", _strings),
    "registry-config-dirs": ("registry_config_dirs", _paths),
    "default-runtime": ("default_runtime", _string),
    "runtimes": ("runtimes", _runtimes),
    "max-concurrent-downloads": ("max_concurrent_downloads", _count),
    "max-concurrent-uploads": ("max_concurrent_uploads", _count),
    "max-download-attempts": ("max_download_attempts", _count),
    "storage-limit": ("storage_limit", size),
    "max-layer-size": ("max_layer_size", _count),
    "max-layer-entries": ("max_layer_entries", _count),
    "max-layer-ratio": ("max_layer_ratio", _count),
    "log-driver": ("log_driver", _string),
    "log-opts": ("log_options", _texts),
    "labels": ("labels", _strings),
    "dns": ("dns", _strings),
    "dns-opts": ("dns_options", _strings),
    "dns-search": ("dns_search", _strings),
    "default-address-pools": ("default_address_pools", _pools),
    "storage-driver": ("storage_driver", _storage_driver),
    "exec-opts": ("cgroup_driver", exec_options),
    "userns-remap": ("userns_remap", _string),
    "no-new-privileges": ("no_new_privileges", _boolean),
    "seccomp-profile": ("seccomp_profile", _string),
}
TLS_KEYS: dict[str, tuple[str, Callable[[str, Any], Any]]] = {
    "tls": ("enabled", _boolean),
    "tlsverify": ("verify", _boolean),
    "tlscacert": ("ca", _string),
    "tlscert": ("cert", _string),
    "tlskey": ("key", _string),
}
PROXY_KEYS = {"http-proxy": "http_proxy", "https-proxy": "https_proxy", "no-proxy": "no_proxy"}
# Docker's remaining keys: known, and not served yet.
DOCKER_ONLY = frozenset(
    "allow-direct-routing allow-nondistributable-artifacts api-cors-header authorization-plugins bip bip6 bridge"
    " bridge-accept-fwmark builder cdi-spec-dirs cgroup-parent cluster-advertise cluster-store cluster-store-opts"
    " containerd containerd-namespace containerd-plugin-namespace cpu-rt-period cpu-rt-runtime default-cgroupns-mode"
    " default-gateway default-gateway-v6 default-ipc-mode default-network-opts default-shm-size default-ulimits"
    " dns-opt experimental features firewall-backend fixed-cidr fixed-cidr-v6 graph host-gateway-ip"
    " host-gateway-ips http-proxy https-proxy icc init init-path ip ip-forward ip-forward-no-drop ip-masq ip6tables"
    " iptables ipv6 log-format"
    " metrics-addr min-api-version mtu network-control-plane-mtu network-diagnostic-port"
    " no-proxy node-generic-resources oom-score-adjust raw-logs rootless selinux-enabled"
    " shutdown-timeout storage-opts swarm-default-advertise-addr userland-proxy userland-proxy-path"
    " validate".split()
)
RELOADABLE = (
    *("log_level", "labels", "default_runtime", "runtimes"),
    *("insecure_registries", "registry_mirrors"),
    *("max_concurrent_downloads", "max_concurrent_uploads", "max_download_attempts"),
    *("storage_limit", "max_layer_size", "max_layer_entries", "max_layer_ratio"),
)


def load_file(path: Path) -> dict[str, Any]:
    """The configuration file's settings by attribute name (TLS ones under "tls").

    Raises InvalidArgument naming the file and the key.
    """
    try:
        content = msgspec.json.decode(path.read_bytes() or b"{}")
    except OSError as error:
        raise InvalidArgument(f"cannot read the configuration file {path}: {error.strerror}") from None
    except msgspec.DecodeError as error:
        raise InvalidArgument(f"{path} is not JSON: {error}") from None
    if not isinstance(content, dict):
        raise InvalidArgument(f"{path} must hold a JSON object")
    try:
        return _settings(content)
    except InvalidArgument as error:
        raise InvalidArgument(f"{path}: {error}") from None


def _settings(content: dict[str, Any]) -> dict[str, Any]:
    settings: dict[str, Any] = {}
    tls: dict[str, Any] = {}
    for key, value in _without_proxies(content, settings):
        if key == "debug":
            if _boolean(key, value):
                settings["log_level"] = "debug"
        elif key in KEYS:
            attribute, check = KEYS[key]
            settings[attribute] = check(key, value)
        elif key in TLS_KEYS:
            attribute, check = TLS_KEYS[key]
            tls[attribute] = check(key, value)
        elif key == "live-restore":
            if not _boolean(key, value):
                raise InvalidArgument(f"{key} cannot be false: containers always outlive the daemon")
        elif key in DOCKER_ONLY:
            raise InvalidArgument(f'"{key}" is a setting of Docker\'s that Corten does not implement')
        else:
            raise InvalidArgument(f'unknown key "{key}"')
    if tls:
        settings["tls"] = tls
    return settings


def _without_proxies(content: dict[str, Any], settings: dict[str, Any]) -> list[tuple[str, Any]]:
    """What `content` has beside `proxies`, whose members go into `settings`."""
    proxies = content.get("proxies", {})
    if not isinstance(proxies, dict):
        raise InvalidArgument("proxies must be an object with http-proxy, https-proxy and no-proxy")
    for key, value in proxies.items():
        if key not in PROXY_KEYS:
            raise InvalidArgument(f'unknown key "proxies.{key}"')
        settings[PROXY_KEYS[key]] = _string(f"proxies.{key}", value)
    return [(key, value) for key, value in content.items() if key != "proxies"]


def merge(flags: dict[str, Any], file: dict[str, Any]) -> DaemonConfig:
    """Flags and file together. A setting in both is refused, as Docker does, since it would be unclear which holds."""
    both = sorted(set(flags) & set(file) - {"tls"} | set(flags.get("tls", {})) & set(file.get("tls", {})))
    if both:
        names = ", ".join(name.replace("_", "-") for name in both)
        raise InvalidArgument(f"specified both as a flag and in the configuration file: {names}")
    tls = TlsConfig(**{**file.get("tls", {}), **flags.get("tls", {})})
    config = DaemonConfig(**{**file, **flags, "tls": dataclasses.replace(tls, enabled=tls.enabled or tls.verify)})
    _check(config)
    return config


def _check(config: DaemonConfig) -> None:
    if config.tls.enabled and not (config.tls.cert and config.tls.key):
        raise InvalidArgument("TLS needs --tlscert and --tlskey")
    if config.tls.verify and not config.tls.ca:
        raise InvalidArgument("--tlsverify needs --tlscacert")
    if config.default_runtime and config.default_runtime not in (*config.runtimes, "corten"):
        raise InvalidArgument(f"the default runtime {config.default_runtime} is not among the runtimes")
    for host in config.hosts:
        scheme = host.partition("://")[0]
        if scheme not in ("unix", "tcp", "fd"):
            raise InvalidArgument(f"invalid address {host}: it must begin with unix://, tcp:// or fd://")
        if scheme == "tcp" and not config.tls.enabled and not config.allow_plain_tcp:
            raise InvalidArgument(f"{host}: {PLAIN}")
    try:
        parse_log_options(config.log_driver, config.log_options)
    except InvalidArgument as error:
        raise InvalidArgument(f"failed to set log opts: {error}") from None
    for label in config.labels:
        if "=" not in label or label.startswith("="):
            raise InvalidArgument(f"bad attribute format: {label}")
