# Sourced by the other scripts: sets up what they need on a bare Debian, once. POSIX sh.
# After `setup_runtime` or `setup_tests`, $PYTHON is the interpreter of the virtual environment.

# quietly COMMAND...: its output is shown only if it fails.
quietly() {
    output=$("$@" 2>&1) || { printf '%s\n' "$output" >&2; return 1; }
}

# with_lists COMMAND...: again after an update if it fails: a fresh machine has no package lists, a neglected one old ones.
with_lists() {
    "$@" >/dev/null 2>&1 && return 0
    quietly apt-get update -q && quietly "$@"
}

# apt_install PACKAGE...: install those that are missing, in one go.
apt_install() {
    missing=""
    for package in "$@"; do
        dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing="$missing $package"
    done
    [ -z "$missing" ] && return 0
    say "installing$missing"
    # shellcheck disable=SC2086  # a list of package names
    DEBIAN_FRONTEND=noninteractive with_lists apt-get install -y -q --no-install-recommends $missing || exit 1
}

# fetch_program PROGRAM PACKAGE [FURTHER PROGRAMS]: put them into .tools/bin unless there is the first. The package is not
# installed, for that would start the daemon in it.
fetch_program() {
    command -v "$1" >/dev/null && return 0
    say "fetching $1 from the package $2"
    package=$2
    programs="usr/bin/$1"
    shift 2
    for further in "$@"; do programs="$programs usr/bin/$further"; done
    rm -rf .tools/unpacked
    mkdir -p .tools/unpacked .tools/bin
    (
        cd .tools/unpacked
        # shellcheck disable=SC2086  # a list of names
        with_lists apt-get download -q -o APT::Sandbox::User=root "$package" && dpkg-deb -x "$package"_*.deb . && mv $programs ../bin/
    ) || exit 1
    rm -rf .tools/unpacked
}

say() { printf '%s\n' "$*" >&2; }

# find_python: the newest suitable interpreter on the PATH, or Debian's.
find_python() {
    for candidate in ${CORTEN_PYTHON:-} python3.11 python3.13 python3.12 python3; do
        if "$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
}

# make_venv DIRECTORY PYTHON REQUIREMENTS...: a virtual environment with these and the package, made again when they change.
make_venv() {
    venv=$1 interpreter=$2
    shift 2
    stamp=$(cat "$@" requirements/build.txt pyproject.toml | cksum)
    if [ "$(cat "$venv/.stamp" 2>/dev/null)" != "$stamp" ] || ! "$venv/bin/python" -c 'import corten' 2>/dev/null; then
        say "making the virtual environment $venv with $("$interpreter" -V)"
        rm -rf "$venv"
        "$interpreter" -m venv "$venv"
        "$venv/bin/python" -m pip install -q --disable-pip-version-check --require-hashes -r requirements/build.txt
        for file in "$@"; do
            "$venv/bin/python" -m pip install -q --disable-pip-version-check --require-hashes -r "$file"
        done
        "$venv/bin/python" -m pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e .
        echo "$stamp" >"$venv/.stamp"
    fi
}

setup_python() {
    [ "$(id -u)" = 0 ] || { say "run this as root: containers need it"; exit 1; }
    PYTHON3=$(find_python)
    if [ -z "$PYTHON3" ]; then
        apt_install python3 python3-venv ca-certificates
        PYTHON3=$(find_python)
    fi
    [ -n "$PYTHON3" ] || { say "Corten needs Python 3.11 or newer (Debian 12 or 13 has it)"; exit 1; }
}

setup_runtime() {
    setup_python
    apt_install busybox-static ca-certificates iproute2 libseccomp2 util-linux
    make_venv .venv-run "$PYTHON3" requirements/base.txt
    PYTHON=$PWD/.venv-run/bin/python
}

setup_tests() {
    setup_python
    apt_install busybox-static ca-certificates iproute2 libseccomp2 util-linux nftables openssl procps git
    # What the compatibility tests compare with: a registry, the docker client, other runtimes.
    apt_install skopeo runc crun
    apt_install zsh fish groff-base # completion and manual pages are tried in the real thing
    apt_install e2fsprogs # the disk that loses power
    PATH=$PWD/.tools/bin:$PATH
    fetch_program docker-registry docker-registry
    fetch_program containerd containerd ctr containerd-shim-runc-v2
    if apt-cache show docker-cli >/dev/null 2>&1; then fetch_program docker docker-cli; else fetch_program docker docker.io; fi
    make_venv .venv "$PYTHON3" requirements/test.txt
    PYTHON=$PWD/.venv/bin/python
}

setup_vm() {
    setup_python
    [ "$(uname -m)" = x86_64 ] || { say "the test machine is an x86-64 one"; exit 1; }
    apt_install busybox-static ca-certificates e2fsprogs mmdebstrap qemu-system-x86
    make_venv .venv "$PYTHON3" requirements/test.txt
    PYTHON=$PWD/.venv/bin/python
}
