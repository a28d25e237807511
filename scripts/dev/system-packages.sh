#!/usr/bin/env bash
# Install the system packages that are missing, and say nothing when none is.
#
#   system-packages.sh base      python3 and make
#   system-packages.sh python    what `python3 -m venv` needs
#   system-packages.sh browser   a Chromium that tests can drive; prints where it is
#   system-packages.sh shell     shellcheck and shfmt
#   system-packages.sh sounds    sox, flite and espeak-ng, which made the clips under tests/fixtures
#   system-packages.sh clock     libfaketime, which steps a test's clock; prints where it is
#   system-packages.sh listen    PortAudio, for `riva-gateway listen`
#   system-packages.sh node      Node.js and npm, for the JavaScript clients of the tests; prints where node is
#   system-packages.sh postgres  PostgreSQL's server, which tests start; prints the folder of its programs
#   system-packages.sh curl      curl, whose lines the documents show
#   system-packages.sh prometheus  Prometheus and Alertmanager with their tools, which tests start on ports of their own;
#                                  what Debian may start by itself is not used
#   system-packages.sh containers  buildah, podman and runc, which tests build and run the image with, and debootstrap
#   system-packages.sh machines  systemd, iproute2 and jq, of which the test cloud's machines are made (tests/cloud)
#
# Debian and Ubuntu: apt-get, through sudo where needed. Elsewhere it says what to install.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

python=${PYTHON:-python3}

have() { command -v "$1" >/dev/null 2>&1; }

fail() {
    echo "make: $*" >&2
    exit 1
}

# install PACKAGE… : one apt-get run, or one line that says why not
install() {
    local as_root=()
    have apt-get || fail "please install: $* (there is no apt-get here to do it)"
    if [ "$(id -u)" -ne 0 ]; then
        have sudo || fail "please run as root: apt-get install $*"
        # Without a terminal nobody can type a password: refuse instead of waiting for one.
        if [ -t 0 ]; then as_root=(sudo); else as_root=(sudo -n); fi
    fi
    echo "installing system packages: $*" >&2
    local log
    log=$(mktemp)
    if ! {
        "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get update -qq &&
            "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@"
    } >"$log" 2>&1 </dev/null; then
        tail -n 5 "$log" >&2
        rm -f "$log"
        fail "could not install $*; please run as root: apt-get install $*"
    fi
    rm -f "$log"
}

# Ubuntu's chromium package is a snap, which neither containers nor our fake microphone can use.
chromium_is_a_snap() {
    # shellcheck disable=SC1091
    (. /etc/os-release 2>/dev/null && [ "${ID:-}" = ubuntu ])
}

# The browser that the tests shall drive, on stdout: the caller puts it into CHROMIUM.
browser() {
    local found=${CHROMIUM:-}
    # What drives the browser needs a library that a small system lacks.
    if have apt-get && ! PATH="$PATH:/usr/sbin:/sbin" ldconfig -p | grep -q 'libatomic\.so\.1'; then install libatomic1; fi
    [ -n "$found" ] || chromium_is_a_snap || found=$(command -v chromium || true)
    [ -n "$found" ] || found=$(playwrights_own)
    if [ -z "$found" ]; then
        if have apt-get && ! chromium_is_a_snap; then
            install chromium fonts-dejavu-core # a page without fonts has no width to test
            found=$(command -v chromium)
        else
            [ -x .venv/bin/playwright ] || fail "run scripts/dev/environment.sh dev first: it brings the browser's installer"
            echo "installing Chromium for the tests" >&2
            .venv/bin/playwright install --with-deps chromium >&2 ||
                fail "could not install Chromium; please name one: make test CHROMIUM=/path/to/chromium"
            found=$(playwrights_own)
        fi
    fi
    echo "$found"
}

playwrights_own() {
    local cache=${PLAYWRIGHT_BROWSERS_PATH:-$HOME/.cache/ms-playwright}
    [ ! -d "$cache" ] || find "$cache" -path '*/chromium-*' -name chrome -type f | sort -V | tail -n 1
}

# Node 20 or newer: Debian 12 has an older one, and what drives the browser brings its own.
javascript() {
    local found
    found=$(command -v node || true)
    if [ -z "$found" ] || [ "$("$found" -p 'process.versions.node.split(".")[0]')" -lt 20 ]; then
        found=$(find .venv/lib -path '*/playwright/driver/node' -type f | head -n 1)
        [ -n "$found" ] || fail "run scripts/dev/environment.sh dev first: it brings a Node.js"
    fi
    have npm || install npm
    echo "$found"
}

database() {
    local found
    found=$(servers)
    [ -n "$found" ] || { install postgresql && found=$(servers); }
    [ -n "$found" ] || fail "PostgreSQL was installed and is not under /usr/lib/postgresql"
    dirname "$found"
}

servers() {
    find /usr/lib/postgresql -path '*/bin/initdb' 2>/dev/null | sort -V | tail -n 1
}

clock() {
    local found
    found=$(steppers)
    [ -n "$found" ] || { install libfaketime && found=$(steppers); }
    [ -n "$found" ] || fail "libfaketime was installed and is not under /usr/lib"
    echo "$found"
}

steppers() {
    find /usr/lib /usr/lib64 -path '*/faketime/libfaketimeMT.so.1' 2>/dev/null | head -n 1
}

venv() {
    have "$python" || fail "there is no $python here; install Python 3.11 or newer, or name one: make PYTHON=python3.12"
    local found
    found=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) || found="not a Python that runs"
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null ||
        fail "Python 3.11 or newer is needed and $python is $found; name another: make PYTHON=python3.12"
    "$python" -c 'import ensurepip, venv' 2>/dev/null ||
        install "python$found-venv"
}

case "${1:-}" in
base)
    missing=()
    have "$python" || missing+=(python3)
    have make || missing+=(make)
    [ ${#missing[@]} -eq 0 ] || install "${missing[@]}"
    ;;
python) venv ;;
browser) browser ;;
shell) if ! have shellcheck || ! have shfmt; then install shellcheck shfmt; fi ;;
sounds) if ! have sox || ! have flite || ! have espeak-ng; then install sox flite espeak-ng; fi ;;
clock) clock ;;
node) javascript ;;
postgres) database ;;
curl) have curl || install curl ;;
prometheus)
    if ! have prometheus || ! have promtool || ! have prometheus-alertmanager || ! have amtool; then
        install prometheus prometheus-alertmanager
    fi
    ;;
containers)
    PATH="$PATH:/usr/sbin:/sbin"
    if ! have buildah || ! have podman || ! have runc || ! have debootstrap || ! have newuidmap; then
        install buildah podman runc debootstrap uidmap
    fi
    ;;
machines)
    PATH="$PATH:/usr/sbin:/sbin"
    if ! [ -x /lib/systemd/systemd ] || ! have ip || ! have jq; then install systemd iproute2 jq; fi
    ;;
listen) ldconfig -p 2>/dev/null | grep -q libportaudio || install libportaudio2 ;;
*) fail "usage: $0 base|python|browser|shell|sounds|clock|listen|node|postgres|curl|prometheus|containers|machines" ;;
esac
