# shellcheck shell=bash disable=SC2154 # the settings stand in front
# Puts a release of the gateway into /opt/riva-gateway/releases, and switches nothing. One that is complete is left
# alone; one that was cut off is begun anew.
#
# Settings: RELEASE (the archive's SHA-256) BUCKET
alone release
booted
folder=$APP/releases/$RELEASE

fetch() {
    local archive=$folder/archive.tar.gz error
    error=$(aws s3 cp --only-show-errors "s3://$BUCKET/releases/$RELEASE.tar.gz" "$archive" 2>&1) ||
        die "$EXIT_UNAVAILABLE" "the release cannot be fetched from the bucket $BUCKET" "$(tail -n 1 <<<"$error")" \
            'The machine'\''s role must be allowed to read it: riva-020-network.sh. Then run this again.'
    sha256sum --check --status <<<"$RELEASE  $archive" ||
        die "$EXIT_FAILED" "what lies in the bucket $BUCKET as this release is something else" \
            "Take it away, and run this again: aws s3 rm s3://$BUCKET/releases/$RELEASE.tar.gz"
    tar -xzf "$archive" --no-same-owner -C "$folder"
    rm "$archive"
}

# pip's lines are for people who look for a reason; the last one names it.
pip() { "$folder/.venv/bin/python" -m pip --disable-pip-version-check --no-input --quiet "$@" >"$folder/pip.log" 2>&1; }

# The machine's own upgrades hold apt's locks for minutes after its first start.
install_venv() {
    local log=$folder/apt.log
    export DEBIAN_FRONTEND=noninteractive NEEDRESTART_SUSPEND=1
    until { apt-get update -qq && apt-get install -y -qq -o DPkg::Lock::Timeout=60 python3-venv; } >"$log" 2>&1; do
        if ((SECONDS > 600)) || ! grep -qi lock "$log"; then
            die "$EXIT_UNAVAILABLE" 'python3-venv cannot be installed now' "$(tail -n 1 "$log" | cut -c 1-300)" 'Run this again.'
        fi
        sleep 10
    done
}

install_python() {
    python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
        die "$EXIT_USAGE" "this machine has $(python3 --version), the gateway needs 3.11 or newer" 'Launch from the image that 040 picks.'
    python3 -c 'import ensurepip' 2>/dev/null || install_venv
    python3 -m venv "$folder/.venv"
    pip install --require-hashes -r "$folder/requirements/runtime.txt" ||
        die "$EXIT_UNAVAILABLE" 'the Python packages cannot be installed now' "$(tail -n 1 "$folder/pip.log" | cut -c 1-300)" \
            'Run this again; if it stays so, look whether this machine reaches the package index.'
    pip install --no-deps --no-build-isolation --no-index "$folder" ||
        die "$EXIT_FAILED" 'the gateway cannot be installed from its release' "$(tail -n 1 "$folder/pip.log" | cut -c 1-300)"
}

made=no
if ! [ -e "$folder/complete" ]; then
    rm -rf "$folder"
    mkdir -p "$folder"
    fetch
    install_python
    "$folder/.venv/bin/riva-gateway" --version >/dev/null ||
        die "$EXIT_FAILED" 'the installed gateway does not run' "$("$folder/.venv/bin/riva-gateway" --version 2>&1 | tail -n 1)"
    touch "$folder/complete"
    made=yes
fi
answer release "$RELEASE"
answer made "$made"
