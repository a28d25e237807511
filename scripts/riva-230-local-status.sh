#!/usr/bin/env bash
# How the stack on this machine is: containers, the gateway's own word, the GPU, addresses.
. "$(dirname "${BASH_SOURCE[0]}")/lib/deploy.sh"
. "$LIB/local.sh"

no_cloud
about 'Says how the stack of riva-210-local-up.sh is. Changes nothing. Exit status 3: it takes no streams.'
parse "$@"

need_docker
step 'Containers'
if [ -z "$(compose ps --all --quiet)" ]; then
    fail "$EXIT_UNAVAILABLE" "nothing of '${opt[deployment]}' is here" 'Start it: riva-210-local-up.sh'
fi
compose ps --all --format 'table {{.Service}}\t{{.Status}}\t{{.Image}}'

if [ -n "$(container nim)" ] && command -v nvidia-smi >/dev/null; then
    step 'GPU'
    nvidia-smi --id="${DEPLOY_GPU:-0}" --query-gpu=name,memory.used,memory.total,utilization.gpu --format=csv,noheader || true
fi

step 'Gateway'
if ! in_gateway riva-gateway status </dev/null; then
    fail "$EXIT_UNAVAILABLE" 'the gateway takes no streams' 'Its log: docker compose logs gateway'
fi
gateway=$(address 8443)
say "https://$gateway"
