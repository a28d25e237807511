# shellcheck shell=bash disable=SC2154 # opt, SCRATCH, waiting_for: deploy.sh and the scripts
# The stack on this machine, without AWS: compose.yaml under docker. Sourced by scripts/riva-2*-local-*.sh.
. "$LIB/machine.sh"

ROOT=$(cd "$LIB/../.." && pwd)

# env_file FILE: what it sets of the stack is set here, too, as docker compose does; the environment wins
env_file() {
    local line name value
    [ -r "$1" ] || return 0
    while IFS= read -r line || [ -n "$line" ]; do
        [[ $line =~ ^[[:space:]]*(export[[:space:]]+)?(DEPLOY_[A-Z_]+)=(.*)$ ]] || continue
        name=${BASH_REMATCH[2]} value=${BASH_REMATCH[3]}
        if [[ $value =~ ^\"([^\"]*)\" || $value =~ ^\'([^\']*)\' ]]; then
            value=${BASH_REMATCH[1]}
        else
            value=${value%%[[:space:]]#*}
            value=${value%"${value##*[![:space:]]}"}
        fi
        if [ -z "${!name+set}" ]; then export "$name=$value"; fi
    done <"$1"
}
env_file "${DEPLOY_ENV_FILE:-$ROOT/.env}"

SECRETS=${DEPLOY_SECRETS:-$ROOT/scripts/compose/secrets}
if [[ $SECRETS != /* ]]; then SECRETS=$ROOT/$SECRETS; fi # relative to compose.yaml, as docker compose reads it
NGC_ENV=$SECRETS/ngc.env                                 # NGC_API_KEY=…, for the container of the NIM
LEAST_DRIVER=535 LEAST_COMPOSE=2.24
export SECRETS NGC_ENV LEAST_DRIVER LEAST_COMPOSE

# local_flags: those of the scripts that must know what is to run
local_flags() {
    flag profile NAME rnnt 'the recognizer for the GPU: a name of scripts/lib/nim-profiles.tsv'
    switch no-gpu 'the embedded recognizer instead of a NIM: no GPU and no NGC key are needed'
    flag from-file FILE '' 'a file that holds the NGC key, which fetches the recognizer'
}

with_gpu() { [ "${opt[no_gpu]:-no}" = no ]; }

# compose ARGUMENTS…: docker compose for this deployment, the NIM included; it finds compose.yaml, and a
# compose.override.yaml beside it
compose() {
    DEPLOY_NAME=${opt[deployment]} COMPOSE_PROFILES=${profiles-nim} \
        docker compose --project-directory "$ROOT" "$@" </dev/null
}

# in_gateway PROGRAM…: runs it in the gateway's container; stdin is passed on
in_gateway() {
    DEPLOY_NAME=${opt[deployment]} COMPOSE_PROFILES=nim \
        docker compose --project-directory "$ROOT" exec -T gateway "$@"
}

# need_docker: docker and its compose are there and answer, or the script ends in words
need_docker() {
    needs docker jq curl
    docker info --format '{{.ServerVersion}}' >"$SCRATCH/docker" 2>"$SCRATCH/docker.err" || true
    [ -n "$(<"$SCRATCH/docker")" ] || # its status is 0 even where nobody answers
        fail "$EXIT_USAGE" "docker does not answer" "$(tail -n 1 "$SCRATCH/docker.err")" \
            "Start it (systemctl start docker), or let this user use it (usermod --append --groups docker \"\$USER\")."
    docker compose version --short >"$SCRATCH/compose" 2>/dev/null ||
        fail "$EXIT_USAGE" "docker has no 'compose'" "Install the plugin docker-compose-plugin (Docker's packages) or docker-compose-v2 (Ubuntu's)."
    needs_buildx
}

# container SERVICE: the id of its container, or nothing
container() { compose ps --all --quiet "$1" 2>/dev/null | head -n 1; }

# state SERVICE: "running healthy 0": its state, its health (- where it has no check), how often it was restarted
state() {
    local id
    id=$(container "$1")
    [ -n "$id" ] || return 0
    docker inspect --format '{{.State.Status}} {{if .State.Health}}{{.State.Health.Status}}{{else}}-{{end}} {{.RestartCount}}' "$id"
}

# address PORT [SERVICE]: where a port of a container, the gateway's, is reached from this machine
address() {
    local at
    at=$(compose port "${2:-gateway}" "$1" 2>/dev/null) || at=''
    [ -n "$at" ] || fail "$EXIT_UNAVAILABLE" "${2:-the gateway} does not run" 'Start it: riva-210-local-up.sh'
    printf 'localhost:%s' "${at##*:}"
}

# web PATH CURL_FLAGS…: asks the gateway, whose certificate is known
web() {
    local path=$1
    shift
    if [ ! -s "$SCRATCH/gateway.crt" ]; then
        in_gateway cat /var/lib/riva-gateway/tls/localhost.crt >"$SCRATCH/gateway.crt" </dev/null 2>/dev/null || return
    fi
    curl --silent --show-error --max-time 60 --cacert "$SCRATCH/gateway.crt" "$@" "https://$gateway$path"
}

# has_own_certificate: the gateway shows one that it was given (TLS_CERT), in .env or in compose.override.yaml
has_own_certificate() {
    compose config --format json 2>/dev/null | jq -e '.services.gateway.environment.TLS_CERT // "" | . != ""' >/dev/null
}

# at_least VERSION LEAST: both in numbers and points
at_least() { [ "$(printf '%s\n' "${1#v}" "$2" | sort --version-sort | head -n 1)" = "$2" ]; }

# read_key FILE [SECONDS]: sets $key to the line in it, or to nothing
read_key() {
    key=''
    IFS= read -r -t "${2:-5}" key <"$1" || true
    key=${key//[[:space:]]/}
}

# profile COLUMN: what the chosen profile says there
profile() { table "$NIM_PROFILES" "${opt[profile]}" "$1"; }
