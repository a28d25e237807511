# shellcheck shell=bash
# What every script of scripts/far/ begins with. It runs as root on the far machine, through Systems Manager, with its
# settings as assignments in front of it: DEPLOYMENT and REGION always.
#
# stdout is the answer for the script that asked, one NAME=VALUE a line; stderr is for people. Both stay in Systems
# Manager's history, so nothing secret goes to either, nor on a command line. All of it may be cut off at any line and
# run again.
set -euo pipefail
umask 022

# Systems Manager starts commands with next to nothing in the environment.
export HOME=/root PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/snap/bin
export AWS_PAGER='' AWS_RETRY_MODE=standard AWS_MAX_ATTEMPTS=5
if [ -n "${REGION:-}" ]; then export AWS_REGION=$REGION AWS_DEFAULT_REGION=$REGION; fi

APP=/opt/riva-gateway                             # releases/<hash>, current
ETC=/etc/riva-gateway STATE=/var/lib/riva-gateway # as in docs/runbooks/first-deploy.md
NIM_ETC=/etc/riva NIM_STATE=/var/lib/riva         # of the recognizer
RUN=/run/riva                                     # in memory, for root alone: credentials
LIBEXEC=/usr/local/lib/riva                       # what units call
UNITS=/etc/systemd/system
export APP ETC STATE NIM_ETC NIM_STATE RUN LIBEXEC UNITS

# The same numbers as on the operator's side.
EXIT_FAILED=1 EXIT_USAGE=2 EXIT_UNAVAILABLE=3
export EXIT_FAILED EXIT_USAGE EXIT_UNAVAILABLE

# say TEXT: a line for people;  answer NAME VALUE: for the script that asked
say() { printf '  %s\n' "$*" >&2; }
answer() { printf '%s=%s\n' "$1" "$2"; }

# die STATUS WHAT [DETAIL…]: what happened; then, a line each, what it means and what to do. Ends the script.
die() {
    local status=$1 line
    shift
    printf '%s: %s\n' "$DEPLOYMENT" "$1" >&2
    shift
    for line in "$@"; do printf '  %s\n' "$line" >&2; done
    exit "$status"
}

# alone NAME: two of the same do not run at once here. A second one waits for a minute, then ends.
alone() {
    private_folder # /run/lock is everybody's
    exec {_lock}>"$RUN/.$1.lock"
    flock --wait 60 "$_lock" ||
        die "$EXIT_UNAVAILABLE" "another command ($1) is at work on this machine" "Run this again when it has ended."
}

# place TEXT FILE [MODE [OWNER]]: the file holds the text, whole or not at all. Returns 0 when that changed it.
place() {
    local text=$1 file=$2 mode=${3:-644} owner=${4:-root:root} new
    mkdir -p "${file%/*}"
    new=$(mktemp "${file%/*}/.new.XXXXXX")
    printf '%s\n' "$text" >"$new"
    chmod "$mode" "$new"
    chown "$owner" "$new"
    if cmp -s "$new" "$file" && [ "$(stat -c '%a %U:%G' "$file")" = "$(stat -c '%a %U:%G' "$new")" ]; then
        rm "$new"
        return 1
    fi
    sync "$new"
    mv "$new" "$file"
}

# point LINK TARGET: the link points there, at every moment to one or the other
point() {
    ln -sfn "$2" "$1.new"
    mv -T "$1.new" "$1"
}

# booted: the machine has started for good. The agent takes commands before that, while cloud-init, the driver and docker
# are still at work. Where there is no cloud-init, there is nothing to wait for.
booted() {
    local second
    for ((second = 0; second < 300; second++)); do
        if ! [ -d /run/cloud-init ] || [ -e /run/cloud-init/result.json ]; then return 0; fi
        sleep 1
    done
    say 'cloud-init has not ended after 5 minutes; going on'
}

# private_folder: $RUN is there, and nobody else reads it
private_folder() { install -d -m 700 "$RUN"; }

# imds PATH: what the instance metadata service says (IMDSv2), or nothing
imds() {
    local token
    token=$(curl -sf -m 5 -X PUT -H 'X-aws-ec2-metadata-token-ttl-seconds: 60' http://169.254.169.254/latest/api/token) || return 0
    # The header goes in through stdin: a token on the command line would be there for all to see.
    printf 'header = "X-aws-ec2-metadata-token: %s"' "$token" |
        curl -sf -m 5 -K - "http://169.254.169.254/latest/meta-data/$1" || true
}

# trust_gateway: sets $trust, by which curl knows this machine's gateway again: its self-made certificate, or the public
# key of the one from a secret, which names the machine as clients know it and not localhost.
# shellcheck disable=SC2034 # its callers use it
trust_gateway() {
    local key
    trust=(--cacert "$STATE/tls/localhost.crt")
    if grep -q '^TLS_CERT=' "$ETC/gateway.env" 2>/dev/null; then
        key=$(openssl x509 -in "$(sed -n 's/^TLS_CERT=//p' "$ETC/gateway.env" | tail -n 1 | tr -d "\"'")" -noout -pubkey 2>/dev/null |
            openssl pkey -pubin -outform der 2>/dev/null | openssl dgst -sha256 -binary | base64)
        trust=(--insecure --pinnedpubkey "sha256//$key")
    fi
}

# without_keys: what a program has printed, without keys of NVIDIA's and of the gateway's, should it have printed one
without_keys() { sed -E 's/nvapi-[A-Za-z0-9_-]{16,}|rgw_[0-9a-f]{12}_[0-9a-f]{48}/[secret]/g'; }

# last_lines UNIT [LINES]: the end of its log, indented
last_lines() { journalctl -u "$1" -n "${2:-12}" -o cat --no-pager 2>/dev/null | without_keys | cut -c 1-300 | sed 's/^/    /' >&2 || true; }
