#!/usr/bin/env bash
# Whether this machine can run the stack without AWS: docker, GPU, driver, container toolkit, disk, ports, NGC key.
. "$(dirname "${BASH_SOURCE[0]}")/lib/deploy.sh"
. "$LIB/local.sh"

no_cloud
about 'Checks what this machine needs for riva-210-local-up.sh. Changes nothing.' \
    'Everything that is wrong is listed at once; the exit status is 2 then.'
local_flags
parse "$@"

problems=()
problem() {
    warn "$1"
    problems+=("$@")
}

check_programs() {
    step 'Programs'
    need_docker
    local version
    version=$(<"$SCRATCH/compose")
    if at_least "$version" "$LEAST_COMPOSE"; then
        kept "docker $(<"$SCRATCH/docker"), compose $version"
    else
        problem "docker compose is $version, and $LEAST_COMPOSE or newer is needed" "Update docker-compose-plugin."
    fi
}

check_disk() {
    local root free_gb least=10
    if with_gpu; then least=60; fi # the image has up to 20 GB, its models 5, and both lie there twice for a while
    least=${DEPLOY_LEAST_GB:-$least}
    root=$(docker info --format '{{.DockerRootDir}}')
    free_gb=$(df --output=avail --block-size=1G "$(nearest "$root")" | tail -n 1 | xargs)
    if ((free_gb < least)); then
        problem "$free_gb GB are free where docker keeps its images ($root), and $least GB are needed" "docker system prune frees what nobody uses."
    else
        kept "disk: $free_gb GB free in $root"
    fi
}

# nearest PATH: the part of it that is there; docker's machine may be a virtual one
nearest() {
    local path=$1
    while [ ! -d "$path" ]; do path=$(dirname "$path"); done
    printf '%s' "$path"
}

check_settings() {
    local grace wanted
    compose config --format json >"$SCRATCH/config" 2>"$SCRATCH/config.err" ||
        fail "$EXIT_USAGE" 'docker compose does not understand compose.yaml with these settings' "$(tail -n 1 "$SCRATCH/config.err")"
    # docker writes a time as 2m10s
    read -r grace wanted < <(jq -r '.services.gateway
        | ([.stop_grace_period // "10s" | capture("(?<n>[0-9.]+)(?<u>[hms])"; "g") | (.n | tonumber) * {h: 3600, m: 60, s: 1}[.u]] | add | floor),
          ([.environment | .DRAIN_DELAY_MS // 0, .DRAIN_TIMEOUT_MS // 25000 | tonumber? // 0] | add / 1000 + 10 | ceil)' "$SCRATCH/config" | xargs)
    if ((grace < wanted)); then
        problem "docker ends the gateway after $grace seconds, and its streams may take $wanted to finish (DRAIN_DELAY_MS, DRAIN_TIMEOUT_MS)" \
            "Write into .env: DEPLOY_STOP_GRACE=${wanted}s"
    fi
}

check_ports() {
    local port
    if [ -n "$(container gateway)" ]; then
        kept 'ports: the stack runs already'
        return
    fi
    for port in $(jq -r '.services[].ports[]?.published' "$SCRATCH/config"); do
        if (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
            problem "port $port is taken by another program" 'Stop that one, or take another: DEPLOY_…PORT in .env (docs/docker.md)'
        fi
    done
}

check_gpu() {
    step 'GPU'
    local line name driver mib cc least
    if ! command -v nvidia-smi >/dev/null || ! line=$(nvidia-smi --id="${DEPLOY_GPU:-0}" \
        --query-gpu=name,driver_version,memory.total,compute_cap --format=csv,noheader,nounits 2>"$SCRATCH/smi"); then
        problem "this machine shows no NVIDIA GPU ${DEPLOY_GPU:-0} (nvidia-smi)" \
            "Install NVIDIA's driver $LEAST_DRIVER or newer and start the machine anew; without a GPU: --no-gpu"
        return
    fi
    IFS=, read -r name driver mib cc <<<"${line//, /,}"
    kept "$name, $mib MiB, compute capability $cc, driver $driver"
    if ! at_least "$driver" "$LEAST_DRIVER"; then
        problem "the driver is $driver, and $LEAST_DRIVER or newer is needed" "Update it and start the machine anew."
    fi
    if less "$cc" "$LEAST_CAPABILITY"; then
        problem "the GPU ($name) has compute capability $cc; the recognizers want $LEAST_CAPABILITY or more" "Without it: --no-gpu"
    fi
    least=$(profile min_gpu_mib)
    if ((mib < ${least:-$LEAST_GPU_MIB})); then
        problem "the GPU ($name) has $mib MiB of memory; '${opt[profile]}' wants ${least:-$LEAST_GPU_MIB} or more" "Without it: --no-gpu"
    fi
}

check_toolkit() {
    if docker info --format '{{json .Runtimes}}' | jq -e 'has("nvidia")' >/dev/null; then
        kept 'docker knows the NVIDIA runtime'
    else
        problem 'docker cannot give a GPU to a container: it has no runtime "nvidia"' \
            "Install nvidia-container-toolkit, then: nvidia-ctk runtime configure --runtime=docker && systemctl restart docker"
    fi
}

check_profile() {
    if [ "${opt[profile]}" = classic ]; then
        problem "the classic Riva is for the scripts on AWS alone" "Take a NIM: --profile rnnt"
    elif [ -z "$(profile image)" ]; then
        problem "there is no profile '${opt[profile]}'" "There are: $(awk -F '\t' '!/^#/ && h++ { printf "%s ", $1 }' "$NIM_PROFILES")"
    elif [ "$(profile streams)" = no ]; then
        warn "'${opt[profile]}' takes files only: no live streams"
    fi
}

check_key() {
    local key file=${opt[from_file]}
    if [ -n "$file" ] && [ ! -r "$file" ]; then
        problem "the file '$file' (--from-file) cannot be read"
    elif [ -n "$file" ]; then
        read_key "$file"
        if plausible_key; then
            kept 'the NGC key looks like one'
        else
            problem "that does not look like an NGC key (${#key} characters; they begin with nvapi-)" \
                "Make one: https://org.ngc.nvidia.com/setup/api-keys"
        fi
    elif [ -s "$NGC_ENV" ]; then
        kept "the NGC key of before is in $NGC_ENV"
    elif [ -t 0 ]; then
        say 'the NGC key will be asked for (https://org.ngc.nvidia.com/setup/api-keys)'
    else
        problem 'there is no NGC key, and no terminal to ask on' 'Give it on stdin of riva-210-local-up.sh, or: --from-file FILE'
    fi
}

set +x # a trace would show the key
check_programs
check_disk
check_settings
check_ports
if with_gpu; then
    check_gpu
    check_toolkit
    check_profile
    check_key
fi
if ((${#problems[@]} > 0)); then fail "$EXIT_USAGE" 'this cannot work yet' "${problems[@]}"; fi
step 'All is well: nothing stands in the way.'
