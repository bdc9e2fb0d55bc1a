from __future__ import annotations

import json
from pathlib import Path

import pytest

from corten.daemon.config import DOCKER_ONLY, KEYS, TLS_KEYS, RuntimeEntry, load_file, log_options, merge
from corten.errors import InvalidArgument


def written(tmp_path: Path, content: object) -> Path:
    path = tmp_path / "daemon.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_defaults() -> None:
    config = merge({}, {})
    assert config.hosts == ("unix:///run/corten/corten.sock",)
    assert [str(path) for path in config.registry_config_dirs] == ["/etc/corten/certs.d", "/etc/docker/certs.d"]
    assert (str(config.data_root), str(config.exec_root)) == ("/var/lib/corten", "/run/corten")


def test_file_settings_take_effect(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        {
            "data-root": "/d",
            "debug": True,
            "insecure-registries": ["10.0.0.0/8"],
            "runtimes": {"runc": {"path": "/usr/bin/runc", "runtimeArgs": ["--debug"]}},
            "default-runtime": "runc",
            "default-address-pools": [{"base": "10.10.0.0/16", "size": 24}],
            "storage-driver": "overlay2",
            "live-restore": True,
            "max-concurrent-downloads": 7,
            "max-concurrent-uploads": 4,
            "max-download-attempts": 2,
            "max-layer-size": 1 << 30,
            "max-layer-entries": 1000,
            "max-layer-ratio": 50,
            "exec-opts": ["native.cgroupdriver=systemd"],
            "registry-config-dirs": ["/a", "/b"],
            "proxies": {"http-proxy": "http://p:1", "https-proxy": "http://u:hunter2@p:2", "no-proxy": "x.example"},
            "no-new-privileges": True,
            "seccomp-profile": "/etc/corten/profile.json",
            "log-driver": "local",
            "log-opts": {"max-size": "1m"},
        },
    )
    config = merge({}, load_file(path))
    assert (config.log_driver, config.log_options) == ("local", {"max-size": "1m"})
    assert config.data_root == Path("/d")
    assert config.log_level == "debug"
    assert config.runtimes == {"runc": RuntimeEntry("/usr/bin/runc", ("--debug",))}
    assert config.default_address_pools == (("10.10.0.0/16", 24),)
    assert config.storage_driver == "overlayfs"
    assert (config.max_concurrent_downloads, config.max_download_attempts) == (7, 2)
    assert config.max_concurrent_uploads == 4
    assert (config.max_layer_size, config.max_layer_entries, config.max_layer_ratio) == (1 << 30, 1000, 50)
    assert config.cgroup_driver == "systemd"
    assert config.registry_config_dirs == (Path("/a"), Path("/b"))
    assert (config.http_proxy, config.https_proxy) == ("http://p:1", "http://u:hunter2@p:2")
    assert config.no_proxy == "x.example"
    assert "hunter2" not in repr(config)
    assert (config.no_new_privileges, config.seccomp_profile) == (True, "/etc/corten/profile.json")


@pytest.mark.parametrize(
    ("content", "word"),
    [
        ({"no-such-key": 1}, 'unknown key "no-such-key"'),
        ({"icc": False}, '"icc" is a setting of Docker'),
        ({"userns-remap": 1000}, "userns-remap must be a string"),
        ({"no-new-privileges": "yes"}, "no-new-privileges must be true or false"),
        ({"labels": "x"}, "labels must be a list of strings"),
        ({"max-concurrent-downloads": 0}, "max-concurrent-downloads"),
        ({"exec-opts": ["native.cgroupdriver=none"]}, "native.cgroupdriver must be cgroupfs or systemd, not none"),
        ({"exec-opts": ["isolation=x"]}, "invalid option isolation=x for exec-opts"),
        ({"proxies": []}, "proxies must be an object"),
        ({"proxies": {"ftp-proxy": "x"}}, 'unknown key "proxies.ftp-proxy"'),
        ({"proxies": {"no-proxy": ["x"]}}, "proxies.no-proxy must be a string"),
        ({"registry-config-dirs": "/a"}, "registry-config-dirs must be a list of strings"),
        ({"live-restore": False}, "live-restore cannot be false"),
        ("{", "is not JSON"),
        ("[]", "must hold a JSON object"),
    ],
)
def test_bad_files_name_what_is_wrong(tmp_path: Path, content: object, word: str) -> None:
    path = written(tmp_path, content)
    with pytest.raises(InvalidArgument, match=str(path)) as caught:
        load_file(path)
    assert word in str(caught.value)


def test_a_proxy_in_both_places_is_refused() -> None:
    with pytest.raises(InvalidArgument, match=r"both.*https-proxy"):
        merge({"https_proxy": "http://a"}, {"https_proxy": "http://b"})


def test_a_setting_in_both_places_is_refused() -> None:
    with pytest.raises(InvalidArgument, match=r"both.*log-level"):
        merge({"log_level": "debug"}, {"log_level": "info"})


@pytest.mark.parametrize(
    ("flags", "word"),
    [
        ({"hosts": ("tcp://127.0.0.1:2375",)}, "without TLS"),
        ({"hosts": ("http://x",)}, "unix://, tcp:// or fd://"),
        ({"tls": {"verify": True, "cert": "c", "key": "k"}}, "--tlscacert"),
        ({"tls": {"enabled": True}}, "--tlscert"),
        ({"default_runtime": "runc"}, "not among the runtimes"),
        ({"labels": ("novalue",)}, "bad attribute format"),
    ],
)
def test_combinations_that_cannot_be(flags: dict[str, object], word: str) -> None:
    with pytest.raises(InvalidArgument, match=word):
        merge(flags, {})


def test_plain_tcp_only_on_insistence() -> None:
    assert merge({"hosts": ("tcp://127.0.0.1:2375",), "allow_plain_tcp": True}, {}).hosts


def test_every_key_of_docker_is_either_served_or_refused_by_name() -> None:
    assert not DOCKER_ONLY & (set(KEYS) | set(TLS_KEYS))


@pytest.mark.parametrize(
    ("text", "expected"),
    [("20GB", 20 * 10**9), ("1.5 GiB", 3 << 29), ("512mb", 512 * 10**6), (4096, 4096), ("4096", 4096), ("0", 0)],
)
def test_a_storage_limit_has_units(tmp_path: Path, text: str | int, expected: int) -> None:
    file = tmp_path / "daemon.json"
    file.write_text(json.dumps({"storage-limit": text}))
    assert merge({}, load_file(file)).storage_limit == expected


@pytest.mark.parametrize("text", ["much", "-1", "", True, "GB", "1PB", None, "inf"])
def test_a_storage_limit_that_is_none_is_refused(tmp_path: Path, text: object) -> None:
    file = tmp_path / "daemon.json"
    file.write_text(json.dumps({"storage-limit": text}))
    with pytest.raises(InvalidArgument, match="storage-limit must be a size such as 20GB"):
        load_file(file)


@pytest.mark.parametrize(
    ("driver", "options", "words"),
    [
        ("bogus", {}, 'failed to set log opts: error looking up logging plugin bogus: plugin "bogus" not found'),
        ("local", {"tag": "x"}, "failed to set log opts: unknown log opt 'tag' for log driver local"),
    ],
)
def test_the_log_of_all_containers_is_checked(driver: str, options: dict[str, str], words: str) -> None:
    with pytest.raises(InvalidArgument, match=words):
        merge({"log_driver": driver, "log_options": options}, {})


def test_log_options_are_pairs() -> None:
    assert log_options("--log-opt", ["a=b=c", "d="]) == {"a": "b=c", "d": ""}
    with pytest.raises(InvalidArgument, match="--log-opt wants NAME=VALUE, not a"):
        log_options("--log-opt", ["a"])
    with pytest.raises(InvalidArgument, match="log-opts must be an object of strings"):
        KEYS["log-opts"][1]("log-opts", {"max-file": 3})
