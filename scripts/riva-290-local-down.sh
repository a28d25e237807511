#!/usr/bin/env bash
# Ends the stack on this machine; what it has kept stays, or goes with --wipe.
. "$(dirname "${BASH_SOURCE[0]}")/lib/deploy.sh"
. "$LIB/local.sh"

no_cloud
about 'Ends the stack of riva-210-local-up.sh: running streams may finish, containers and networks go.' \
    "What it keeps (keys, jobs, figures, the NIM's models) stays, and is there at the next start; --wipe removes it."
switch wipe "remove what was kept, too: keys, jobs, figures, the NIM's models, the NGC key"
parse "$@"

need_docker
flags=(down --remove-orphans)
step "The stack '${opt[deployment]}'"
if [ "${opt[wipe]}" = yes ]; then
    flags+=(--volumes)
    confirm "Remove all keys, jobs, figures and models of '${opt[deployment]}' on this machine?"
fi
if dry; then
    would docker compose "${flags[@]}"
    exit 0
fi
# What is there, for the volume of the NIM's models is named by what was chosen then.
mapfile -t caches < <(docker volume ls --quiet --filter "label=com.docker.compose.project=${opt[deployment]}" --filter label=com.docker.compose.volume=nim-cache)
compose "${flags[@]}" >"$SCRATCH/down" 2>&1 || {
    tail -n 20 "$SCRATCH/down" >&2
    fail "$EXIT_FAILED" 'docker compose could not end them: see above' 'Run this again.'
}
made 'containers and networks are gone'
if [ "${opt[wipe]}" = yes ]; then
    for cache in "${caches[@]}"; do docker volume rm --force "$cache" >/dev/null; done
    rm -f "$NGC_ENV"
    made 'what they kept is gone, the NGC key too'
    say "images stay: docker image ls; docker system prune frees what nobody uses"
fi
