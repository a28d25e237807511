#!/usr/bin/env bash
# Gateway, monitoring and, with a GPU, a NIM on this machine: compose.yaml, checked first and waited for.
. "$(dirname "${BASH_SOURCE[0]}")/lib/deploy.sh"
. "$LIB/local.sh"

no_cloud
about 'Starts the gateway, its monitoring and a NIM on this machine, and waits until streams are served.' \
    'Run again it changes what differs and keeps the rest; the monitoring starts again, for its files may be others.' \
    'The first start with a GPU takes up to 40 minutes.' \
    'The NGC key comes from stdin, from --from-file, or is asked for; it goes to a file that only you may read, for the' \
    "NIM's container, and to the registry; never to a command line."
local_flags
parse "$@"

# take_key: where it comes on stdin or is typed, it goes to a file in $SCRATCH, and --from-file is that
take_key() {
    local key=''
    if [ -n "${opt[from_file]}" ]; then
        return 0
    elif [ ! -t 0 ]; then
        read_key /dev/stdin "${DEPLOY_READ_LIMIT_S:-20}" # a pipe that nobody writes to must not hold us up
    elif [ ! -s "$NGC_ENV" ]; then
        printf '  The NGC key: ' >&2
        IFS= read -rs key
        printf '\n' >&2
    fi
    if [ -n "$key" ]; then
        printf '%s\n' "$key" >"$SCRATCH/key"
        opt[from_file]=$SCRATCH/key
    fi
}

preflight() {
    local flags=(--deployment "${opt[deployment]}" --profile "${opt[profile]}")
    if ! with_gpu; then flags+=(--no-gpu); fi
    if [ -n "${opt[from_file]}" ]; then flags+=(--from-file "${opt[from_file]}"); fi
    "$LIB/../riva-200-local-preflight.sh" "${flags[@]}" </dev/null
}

# keep_key: where the NIM's container finds it
keep_key() {
    [ -n "${opt[from_file]}" ] || return 0
    if dry; then
        say "would write $NGC_ENV"
        return 0
    fi
    local key
    read_key "${opt[from_file]}"
    (
        umask 077
        mkdir -p "$SECRETS"
        printf 'NGC_API_KEY=%s\n' "$key" >"$NGC_ENV.new"
    )
    if cmp --silent "$NGC_ENV.new" "$NGC_ENV"; then
        rm "$NGC_ENV.new"
    else
        mv "$NGC_ENV.new" "$NGC_ENV"
        made "the NGC key, for the NIM alone: $NGC_ENV"
    fi
}

# fetch_image: with a login that is forgotten again
fetch_image() {
    step "Image: $DEPLOY_NIM_IMAGE"
    if docker image inspect "$DEPLOY_NIM_IMAGE" >/dev/null 2>&1; then
        kept 'it is here already'
        return
    elif dry; then
        would docker pull "$DEPLOY_NIM_IMAGE"
        return
    fi
    local host
    host=${DOCKER_HOST:-$(docker context inspect --format '{{.Endpoints.docker.Host}}')}
    mkdir "$SCRATCH/login"
    sed -n 's/^NGC_API_KEY=//p' "$NGC_ENV" |
        DOCKER_HOST=$host DOCKER_CONFIG=$SCRATCH/login docker login nvcr.io --username "\$oauthtoken" --password-stdin >/dev/null 2>"$SCRATCH/login.err" ||
        fail "$EXIT_USAGE" "NVIDIA's registry does not take the key" "$(tail -n 1 "$SCRATCH/login.err")" \
            "Make a new one (https://org.ngc.nvidia.com/setup/api-keys), and: riva-210-local-up.sh --from-file FILE"
    say 'up to 20 GB; this may take a while'
    DOCKER_HOST=$host DOCKER_CONFIG=$SCRATCH/login docker pull --quiet "$DEPLOY_NIM_IMAGE" >/dev/null 2>"$SCRATCH/pull.err" ||
        fail "$EXIT_FAILED" "the image could not be fetched" "$(tail -n 1 "$SCRATCH/pull.err")" "What was fetched is kept: run this again."
    made 'fetched'
}

choose() {
    local cc
    profiles='' DEPLOY_TARGET=laptop
    if with_gpu; then
        profiles=nim DEPLOY_TARGET=gateway
        DEPLOY_NIM_IMAGE=$(profile image):$(profile tag)
        DEPLOY_NIM_TAGS_SELECTOR=$(profile selector)
        cc=$(nvidia-smi --id="${DEPLOY_GPU:-0}" --query-gpu=compute_cap --format=csv,noheader)
        DEPLOY_NIM_CACHE=${opt[deployment]}_nim-cache_${opt[profile]}_$(profile tag)_$cc
        export DEPLOY_NIM_IMAGE DEPLOY_NIM_TAGS_SELECTOR DEPLOY_NIM_CACHE
    fi
    export DEPLOY_TARGET
}

# is_healthy SERVICE: for wait_until. Ends the script where it ends again and again.
is_healthy() {
    local status health restarts
    read -r status health restarts <<<"$(state "$1")"
    waiting_for="it is ${status:-not there}${health:+, $health}"
    if ((${restarts:-0} >= 3)) || [ "$status" = exited ]; then
        compose logs --no-log-prefix --tail 20 "$1" >&2 || true
        fail "$EXIT_FAILED" "$1 does not stay up: see its last lines above" "All of them: docker compose logs $1"
    fi
    [ "$health" = healthy ]
}

# is_ready: the gateway takes streams
is_ready() {
    if has_own_certificate; then # which is for another name than that of this machine's own ports
        is_healthy gateway
        return
    fi
    waiting_for='it takes no streams yet'
    gateway=$(address 8443 2>/dev/null) || return
    web /readyz --fail --output /dev/null 2>/dev/null
}

# monitors: "SERVICE ID" of each container that reads files of this tree
monitors() {
    local service
    for service in prometheus alertmanager grafana; do echo "$service $(container "$service")"; done
}

# take_over BEFORE: the monitors that ran before and were not made anew start again: docker compose does not look into
# the files that it mounts, and a container goes on seeing those that were there when it started
take_over() {
    local -a same
    mapfile -t same < <(comm -12 <(sort <<<"$1") <(monitors | sort) | sed -n 's/ ..*//p')
    if ((${#same[@]} > 0)); then
        compose restart "${same[@]}" >"$SCRATCH/restart" 2>&1 || {
            tail -n 20 "$SCRATCH/restart" >&2
            fail "$EXIT_FAILED" 'docker compose could not start the monitoring again: see above' 'Run this again.'
        }
        made "started again, for their files may be others now: ${same[*]}"
    fi
}

start() {
    step 'Services'
    if dry; then
        would docker compose up --detach --build --remove-orphans
        return
    fi
    say 'images are built and fetched: minutes, the first time; a NIM has 20 GB'
    local before
    before=$(monitors)
    compose up --detach --build --remove-orphans --quiet-pull >"$SCRATCH/up" 2>&1 || {
        tail -n 20 "$SCRATCH/up" >&2
        fail "$EXIT_FAILED" 'docker compose could not start them: see above' "More: docker compose logs"
    }
    made 'started'
    take_over "$before"
}

await() {
    step 'Until streams are served'
    if with_gpu && ! wait_until "${DEPLOY_NIM_LIMIT_S:-2700}" 'the NIM' is_healthy nim; then
        fail "$EXIT_UNAVAILABLE" "the NIM is not ready within $(minutes "${DEPLOY_NIM_LIMIT_S:-2700}") ($waiting_for)" \
            "It goes on by itself: docker compose logs --follow nim. Run this again to go on waiting."
    fi
    wait_until "${DEPLOY_GATEWAY_LIMIT_S:-180}" 'the gateway' is_ready ||
        fail "$EXIT_UNAVAILABLE" "the gateway is not ready within $(minutes "${DEPLOY_GATEWAY_LIMIT_S:-180}")" \
            "Its log: docker compose logs gateway. Run this again to go on waiting."
}

tell() {
    gateway=$(address 8443)
    printf 'https://%s\n' "$gateway"
    say "page, HTTP, WebSocket   https://$gateway"
    say "Riva's gRPC             grpcs://$(address 50052)"
    say "first key               docker compose exec gateway cat /run/secrets/first-app-key"
    say "Grafana                 http://$(address 3000 grafana), user admin, password:"
    say "                        docker compose exec grafana cat /run/secrets/admin-password"
    say "next                    $(command_for riva-220-local-smoke-test.sh)"
    say "to end it               $(command_for riva-290-local-down.sh)"
}

needs docker jq curl
set +x # a trace would show the key
if with_gpu; then take_key; fi
preflight
choose
if with_gpu; then confirm "Start a NIM (${opt[profile]}) on this machine's GPU?"; fi
if with_gpu; then
    keep_key
    fetch_image
fi
start
await
if ! dry; then tell; fi
