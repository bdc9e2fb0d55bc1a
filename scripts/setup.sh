# Sourced by the other scripts: sets up what they need on a bare Debian, once. POSIX sh.
# After `setup_runtime` or `setup_tests`, $PYTHON is the interpreter of the virtual environment.

# apt_install PACKAGE...: install those that are missing, in one go.
apt_install() {
    missing=""
    for package in "$@"; do
        dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing="$missing $package"
    done
    [ -z "$missing" ] && return 0
    say "installing$missing"
    # shellcheck disable=SC2086  # a list of package names
    if ! DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends $missing >"$SETUP_LOG" 2>&1; then
        # A fresh machine has no package lists, a neglected one has old ones.
        apt-get update -q >"$SETUP_LOG" 2>&1 &&
            DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends $missing >>"$SETUP_LOG" 2>&1 ||
            { cat "$SETUP_LOG" >&2; exit 1; }
    fi
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
    SETUP_LOG=$(mktemp)
    trap 'rm -f "$SETUP_LOG"' EXIT
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
    apt_install busybox-static ca-certificates iproute2 libseccomp2 util-linux nftables procps git
    # The docker client and a real registry are what the compatibility tests are against; Debian's docker-registry and,
    # where no docker command is there yet, docker.io (its daemon is not started).
    apt_install docker-registry skopeo runc
    command -v docker >/dev/null || apt_install docker.io
    make_venv .venv "$PYTHON3" requirements/test.txt
    PYTHON=$PWD/.venv/bin/python
}
