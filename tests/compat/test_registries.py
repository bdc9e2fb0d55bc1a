"""Logging in, pushing and pulling with the real docker command, and ours, at real registries of each kind.

They are Debian's docker-registry on an address that is no loopback one, so that TLS and who one is count.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from tests import docker_client
from tests.certificates import Authority
from tests.compat.harness import Daemon, Outcome, daemon_on_host
from tests.compat.registry import Registry
from tests.compat.tokens import ISSUER, SERVICE, TokenServer
from tests.waiting import until

ADDRESS = "10.77.0.1"
HOST = f"{ADDRESS}:5443"
SECRET = "hunter2-secret"
HTPASSWD = "ann:$2b$05$abcdefghijklmnopqrstuuco6HW5qgMYWmvqwt2HG533btIvodevS\n"  # SECRET, by bcrypt
PROXY_SECRET = "hunter2-of-the-proxy"

SPY = """#!/bin/sh
# A credential helper that keeps one secret, and writes down what everybody can see of every process meanwhile.
cat /proc/[0-9]*/cmdline | tr '\\0' ' ' >> {place}/seen
case $1 in
store) cat > {place}/kept ;;
get) read server; grep -q "$server" {place}/kept && cat {place}/kept && exit
     echo credentials not found in native keychain; exit 1 ;;
erase) rm -f {place}/kept ;;
esac
"""


class Setting:
    """A daemon that trusts the registries' authority, and what the registries are made from."""

    def __init__(self, daemon: Daemon, place: Path, authority: Authority) -> None:
        self.daemon, self.place, self.authority = daemon, place, authority
        self.image = f"{HOST}/team/box:1"

    @contextlib.contextmanager
    def registry(self, auth: str = "", *, tls: bool = True) -> Iterator[Path]:
        """Runs with TLS, or without, and with `auth` of its configuration; gives its log."""
        storage = self.place / f"storage{len(list(self.place.glob('storage*')))}"
        storage.mkdir()
        cert, key = self.authority.directory / "registry.cert", self.authority.directory / "registry.key"
        config = self.place / "registry.yml"
        files = f", tls: {{certificate: {cert}, key: {key}}}" if tls else ""
        config.write_text(
            f"version: 0.1\nstorage:\n  filesystem: {{rootdirectory: {storage}}}\n"
            f"http: {{addr: '{HOST}'{files}}}\n{auth}"
        )
        log = storage / "log"
        with log.open("wb") as output:
            command = self.daemon.host.inside("docker-registry", "serve", str(config))
            process = subprocess.Popen(command, stdout=output, stderr=output)
        try:
            until(lambda: b"listening on" in log.read_bytes(), what="the registry")
            yield log
        finally:
            process.terminate()
            process.wait(10)

    @contextlib.contextmanager
    def with_tokens(self) -> Iterator[TokenServer]:
        pair = self.authority.directory / "tokens.cert", self.authority.directory / "tokens.key"
        with TokenServer(self.daemon.host, (ADDRESS, 5444), {"ann": SECRET}, pair) as tokens:
            auth = f"realm: '{tokens.realm}', service: {SERVICE}, issuer: {ISSUER}"
            with self.registry(f"auth:\n  token: {{{auth}, rootcertbundle: {self.authority.ca}}}\n"):
                yield tokens

    @contextlib.contextmanager
    def with_htpasswd(self) -> Iterator[None]:
        (self.place / "htpasswd").write_text(HTPASSWD)
        with self.registry(f"auth:\n  htpasswd: {{realm: tests, path: {self.place / 'htpasswd'}}}\n"):
            yield

    def push(self) -> None:
        self.daemon.ok("tag", "busybox", self.image)
        self.daemon.ok("push", self.image)
        self.daemon.ok("rmi", self.image)


@pytest.fixture(scope="module")
def setting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Setting]:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    place = tmp_path_factory.mktemp("registries")
    authority = Authority(place)
    authority.issue("registry", subjects=f"IP:{ADDRESS}")
    authority.issue("tokens", subjects=f"IP:{ADDRESS}", rsa=True)
    certs = place / "certs.d" / HOST
    certs.mkdir(parents=True)
    (certs / "ca.crt").write_bytes(authority.ca.read_bytes())
    arguments = ("--debug", "--registry-config-dir", str(certs.parent), "--no-proxy", f"{ADDRESS}/8,x.example")
    with daemon_on_host(*arguments, "--https-proxy", f"http://me:{PROXY_SECRET}@127.0.0.1:9") as daemon:
        subprocess.run(["ip", "-n", daemon.host.netns, "addr", "add", f"{ADDRESS}/32", "dev", "lo"], check=True)
        yield Setting(daemon, place, authority)


@pytest.fixture(autouse=True)
def _nobody_is_logged_in(setting: Setting) -> Iterator[None]:
    yield
    setting.daemon.docker("rmi", "-f", setting.image)
    shutil.rmtree(setting.daemon.host.place / "dc", ignore_errors=True)


def login(setting: Setting, program: str, password: str = SECRET, user: str = "ann") -> Outcome:
    call = setting.daemon.docker if program == "docker" else setting.daemon.corten
    return call("login", "-u", user, "--password-stdin", HOST, input=password + "\n")


def test_tls_by_its_authority_alone(setting: Setting) -> None:
    daemon = setting.daemon
    with setting.registry():
        setting.push()
        assert "Downloaded newer image" in daemon.ok("pull", setting.image)
        authority = setting.place / "certs.d" / HOST / "ca.crt"
        authority.rename(authority.with_suffix(".off"))
        try:
            refused = daemon.docker("pull", setting.image)
            assert refused.code == 1
            assert "tls: failed to verify certificate: x509" in refused.err
        finally:
            authority.with_suffix(".off").rename(authority)
        assert daemon.docker("pull", setting.image).code == 0


@pytest.mark.parametrize("program", ["docker", "corten"])
@pytest.mark.parametrize("kind", ["htpasswd", "tokens"])
def test_login_push_pull_logout(setting: Setting, kind: str, program: str) -> None:
    daemon = setting.daemon
    with setting.with_htpasswd() if kind == "htpasswd" else setting.with_tokens():
        daemon.ok("tag", "busybox", setting.image)
        assert daemon.docker("push", setting.image).code == 1
        for wrong in (login(setting, program, "wrong"), login(setting, program, user="bob")):
            assert wrong.code == 1
            assert "401 Unauthorized" in wrong.err or "unauthorized: incorrect username or password" in wrong.err
        done = login(setting, program)
        assert (done.code, done.out) == (0, "Login Succeeded\n"), done.err
        # A token server gives what is no password; only a password is warned of.
        assert ("stored unencrypted" in done.err) is (kind == "htpasswd")
        setting.push()
        assert "Downloaded newer image" in daemon.ok("pull", setting.image)
        assert daemon.corten("run", "--rm", setting.image, "echo", "hi").out == "hi\n"
        assert daemon.corten("push", setting.image).code == 0
        again = daemon.docker("login", HOST) if program == "docker" and kind == "htpasswd" else login(setting, program)
        assert again.out == "Login Succeeded\n"
        call = daemon.docker if program == "docker" else daemon.corten
        assert call("logout", HOST).out == f"Removing login credentials for {HOST}\n"
        daemon.ok("rmi", setting.image)
        refused = daemon.docker("pull", setting.image)
        assert refused.code == 1
        assert "no basic auth credentials" in refused.err or "denied" in refused.err


def test_a_layer_is_mounted_from_another_repository_by_a_token_for_both(setting: Setting) -> None:
    daemon = setting.daemon
    with setting.with_tokens() as tokens:
        assert login(setting, "docker").code == 0
        setting.push()
        daemon.ok("pull", setting.image)
        other = f"{HOST}/team/other:1"
        daemon.ok("tag", setting.image, other)
        assert "Mounted from team/box" in daemon.ok("push", other)
        daemon.ok("rmi", other)
        wanted = {"repository:team/box:pull", "repository:team/other:pull,push"}
        assert any(wanted <= set(scopes.split()) for _, scopes in tokens.asked)


def test_tokens_that_went_off_and_a_token_server_that_is_busy(setting: Setting) -> None:
    daemon = setting.daemon
    with setting.with_tokens() as tokens:
        assert login(setting, "corten").code == 0
        setting.push()
        (daemon.host.place / "dc" / "config.json").unlink()
        anonymous = daemon.docker("pull", setting.image)
        assert anonymous.code == 1
        assert "denied" in anonymous.err
        tokens.stale, tokens.busy = 1, 1
        assert login(setting, "docker").code == 0
        tokens.stale = 1
        setting.push()
        assert "Downloaded newer image" in daemon.ok("pull", setting.image)
        assert (tokens.stale, tokens.busy) == (0, 0), tokens.asked


@pytest.mark.parametrize("program", ["docker", "corten"])
@pytest.mark.parametrize("kind", ["htpasswd", "tokens"])
def test_a_manifest_list_with_tls_for_who_is_logged_in(
    setting: Setting, kind: str, program: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The commands ask the registry themselves; their authorities are the system's, which these are for them."""
    if docker_client.major_version() < 28 and program == "docker":
        pytest.skip("docker of old knows no OCI manifests")
    daemon, target = setting.daemon, f"{HOST}/team/list:1"
    call = daemon.docker if program == "docker" else daemon.corten
    with setting.with_htpasswd() if kind == "htpasswd" else setting.with_tokens():
        assert login(setting, program).code == 0
        setting.push()
        if program == "docker":
            monkeypatch.setenv("SSL_CERT_FILE", str(setting.authority.ca))
        else:
            refused = daemon.corten("manifest", "inspect", setting.image)
            assert refused.code == 1
            assert "tls: failed to verify certificate: x509" in refused.err
            assert daemon.corten("manifest", "inspect", "--insecure", setting.image).code == 0
            place = daemon.host.place / "dc" / "certs.d" / HOST
            place.mkdir(parents=True, exist_ok=True)
            (place / "ca.crt").write_bytes(setting.authority.ca.read_bytes())
        made = call("manifest", "create", target, setting.image)
        assert (made.code, made.out) == (0, f"Created manifest list {target}\n"), made.err
        pushed = call("manifest", "push", "--purge", target)
        assert pushed.code == 0, pushed.err
        daemon.ok("pull", target)
        assert daemon.inspect(target)["RepoDigests"] == [f"{HOST}/team/list@{pushed.lines[-1]}"]
        daemon.ok("rmi", target)
        (daemon.host.place / "dc" / "config.json").unlink()
        refused = call("manifest", "inspect", setting.image)
        assert (refused.code, refused.out) == (1, "")


def test_a_manifest_of_a_registry_without_tls(setting: Setting) -> None:
    with setting.registry(tls=False):
        refused = setting.daemon.corten("manifest", "inspect", setting.image)
        assert refused.err == f'Get "https://{HOST}/v2/": http: server gave HTTP response to HTTPS client\n'
        missing = setting.daemon.corten("manifest", "inspect", "--insecure", setting.image)
        assert missing.err == f"no such manifest: {setting.image}\n"


def test_a_mirror_for_a_registry_that_is_no_hub(setting: Setting) -> None:
    daemon = setting.daemon
    with Registry(daemon) as mirror:
        place = setting.place / "certs.d" / "mirrored.example"
        place.mkdir()
        (place / "hosts.toml").write_text(
            f'[host."http://127.0.0.1:9"]\n[host."http://{mirror.host}"]\ncapabilities = ["pull", "resolve"]\n'
        )
        assert "Downloaded newer image" in daemon.ok("pull", "mirrored.example/test/box:1")
        assert daemon.ok("run", "--rm", "mirrored.example/test/box:1", "echo", "hi") == "hi"
        assert b"ns=mirrored.example" in mirror.log.read_bytes()
        # What the mirrors have not is asked of the registry itself, through the proxy, which nobody is.
        refused = daemon.docker("pull", "mirrored.example/test/none:1")
        assert refused.code == 1
        assert "proxyconnect tcp: dial tcp 127.0.0.1:9: connect: connection refused" in refused.err
        daemon.ok("rmi", "mirrored.example/test/box:1")
        (place / "hosts.toml").write_text("[host.5\n")
        refused = daemon.docker("pull", "mirrored.example/test/box:1")
        assert f"{place}/hosts.toml is not TOML" in refused.err


def test_what_info_says_of_it(setting: Setting) -> None:
    info = json.loads(setting.daemon.ok("info", "--format", "{{json .}}"))
    assert info["HttpsProxy"] == "http://xxxxx:xxxxx@127.0.0.1:9"
    assert info["NoProxy"] == f"{ADDRESS}/8,x.example"
    assert info["RegistryConfig"]["InsecureRegistryCIDRs"] == ["127.0.0.0/8", "::1/128"]
    assert "HTTPS Proxy: http://xxxxx:xxxxx@127.0.0.1:9" in setting.daemon.ok("info")
    assert "HTTPS Proxy: http://xxxxx:xxxxx@127.0.0.1:9" in setting.daemon.corten("info").out


@contextlib.contextmanager
def watched_arguments() -> Iterator[set[str]]:
    """What could be seen of any process by anybody within the block: its arguments."""
    seen: set[str] = set()
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.01):
            for file in Path("/proc").glob("[0-9]*/cmdline"):
                with contextlib.suppress(OSError):
                    seen.add(file.read_bytes().replace(b"\0", b" ").decode(errors="replace"))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield seen
    finally:
        done.set()
        thread.join()


def written(*places: Path) -> bytes:
    """All files below the places, and what they are called."""
    parts = []
    for place in places:
        for path in place.rglob("*"):
            parts.append(os.fsencode(path))
            if path.is_file() and not path.is_symlink():
                parts.append(path.read_bytes())
    return b"\n".join(parts)


def forms(secret: str) -> set[str]:
    """A secret as it is, and in base64 wherever it may begin in what was encoded: three ways, without the ends."""
    found = {secret, quote(secret, safe="")}
    for before in range(3):
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            found.add(encode(b"x" * before + secret.encode()).decode().rstrip("=")[4 if before else 0 : -2])
    return found


def test_secrets_are_nowhere_to_be_seen(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not in logs, messages, events, files of the daemon's, nor in anybody's arguments: neither the password, nor what
    was given for it, in whatever form, after all went well and after each thing failed.
    """
    daemon = setting.daemon
    spy = setting.place / "spy"
    spy.mkdir()
    (spy / "docker-credential-spy").write_text(SPY.format(place=spy))
    (spy / "docker-credential-spy").chmod(0o755)
    monkeypatch.setenv("PATH", f"{spy}:{os.environ['PATH']}")
    config = daemon.host.place / "dc" / "config.json"
    config.parent.mkdir(exist_ok=True)
    said: list[Outcome] = []
    given: list[str] = []
    with watched_arguments() as arguments:
        for program in ("docker", "corten"):
            config.write_text('{"credsStore": "spy"}')
            said += everything_that_needs_a_secret(setting, program, given)
    codes = [outcome.code for outcome in said]
    expected = [0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 1, 0, 1, 0, 0, 0, 1, 1, 1, 0, 0]
    assert codes == expected * 2, [o.err for o in said if o.code]
    said.append(daemon.docker("events", "--since", "1", "--until", "0s"))
    text = "".join(outcome.out + outcome.err for outcome in said) + config.read_text() + (spy / "seen").read_text()
    assert "cortend" in (spy / "seen").read_text() or "corten.daemon.main" in (spy / "seen").read_text()
    assert "login" in (spy / "seen").read_text()
    assert any(" login " in seen for seen in arguments), "it was looked at in time"
    text += "\n".join(arguments)
    assert daemon.ok("info", "--format", "{{.Debug}}") == "true"
    text += (daemon.host.place / "log").read_text()
    text += written(daemon.host.place / "data", daemon.host.place / "run").decode(errors="replace")
    # The proxy's is in the daemon's arguments, where this test put it.
    text = text.replace(f"--https-proxy http://me:{PROXY_SECRET}@", "")
    assert "hunter2" not in text
    assert len(given) > 4
    for secret in (SECRET, PROXY_SECRET, f"ann:{SECRET}", *given):
        assert not [form for form in forms(secret) if form in text]


def everything_that_needs_a_secret(setting: Setting, program: str, given: list[str]) -> list[Outcome]:
    """Login, push, pull and the rest, well and ill; `given` takes the tokens."""
    daemon = setting.daemon
    call = daemon.docker if program == "docker" else daemon.corten
    said = []
    with setting.with_htpasswd():
        said += [login(setting, program), login(setting, program, "wrong-" + SECRET)]
        daemon.ok("tag", "busybox", setting.image)
        said += [call("push", setting.image), call("rmi", setting.image), call("pull", setting.image)]
        said += [call("pull", f"{HOST}/team/none:1"), call("info"), call("system", "df")]
        said.append(call("inspect", setting.image))
    said += [login(setting, program), call("pull", setting.image), call("logout", HOST)]
    said.append(call("pull", "proxied.example/x"))
    with setting.with_tokens() as tokens:
        said += [login(setting, program), call("push", setting.image), call("pull", setting.image)]
        # Then with what the server takes no more, for a repository that needs another token.
        tokens.users = {}
        daemon.ok("tag", "busybox", f"{HOST}/team/other:1")
        said += [login(setting, program, "wrong-" + SECRET), call("pull", f"{HOST}/team/none:1")]
        said += [call("push", f"{HOST}/team/other:1"), call("rmi", f"{HOST}/team/other:1"), call("logout", HOST)]
        given += tokens.given
    return said
