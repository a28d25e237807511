# shellcheck shell=bash disable=SC2154 # the settings stand in front
# Puts a recognizer on this machine: looks at the GPU and the disk, fetches the image while the former one serves, then
# switches. Unchanged settings leave a container that runs alone.
#
# /etc/riva/nim.env        what is to run
# /etc/riva/nim.env.good   what was last seen working (mark.sh)
# /etc/riva/nim.env.before what was seen working before that
#
# Settings: MODE deploy (PROFILE KIND IMAGE SELECTOR MIN_GPU_MIB ANY_GPU), same (what is there, with the TAG), good or
# before; SECRET RESTART FETCH_ONLY and the texts UNIT RUN_HELPER KEY_HELPER
LEAST_DRIVER=535 LEAST_CAPABILITY=8.0 # NVIDIA's support matrix
LEAST_FREE_GIB=45                     # an image unpacked, its download beside it, and a model as it comes and as it is built

alone nim
settings=$NIM_ETC/nim.env drained=$NIM_STATE/gateway-drained

look_at_gpu() {
    local line driver name memory
    line=$(nvidia-smi --query-gpu=name,memory.total,compute_cap,driver_version --format=csv,noheader,nounits 2>/dev/null | head -n 1) || line=''
    IFS=, read -r name memory capability driver <<<"${line//, /,}"
    if ! [[ $memory =~ ^[0-9]+$ ]]; then
        die "$EXIT_USAGE" 'there is no GPU that NVIDIA'\''s driver sees on this machine' \
            'A recognizer needs one: take an instance type with an NVIDIA GPU (g6.xlarge), and the machine image that 040 picks.'
    fi
    if ((${driver%%.*} < LEAST_DRIVER)); then
        die "$EXIT_USAGE" "NVIDIA's driver is too old: $driver" "The recognizer needs $LEAST_DRIVER or newer. Launch from the current machine image (040)."
    fi
    if [ "${ANY_GPU:-no}" = no ] && ((memory < ${MIN_GPU_MIB:-0})); then
        die "$EXIT_USAGE" "the GPU is too small: $name has $memory MiB, '$PROFILE' needs $MIN_GPU_MIB" \
            'Take a g6.xlarge (L4) or g5.xlarge (A10G), or another --profile.'
    fi
    if [ "${ANY_GPU:-no}" = no ] && ((${capability/./} < ${LEAST_CAPABILITY/./})); then
        die "$EXIT_USAGE" "the GPU is too old: $name has compute capability $capability, recognizers need $LEAST_CAPABILITY" \
            'Take a g6.xlarge (L4) or g5.xlarge (A10G). --allow-unsupported-gpu tries it all the same.'
    fi
    say "GPU: $name, $memory MiB, compute capability $capability, driver $driver"
}

look_at_docker() {
    command -v docker >/dev/null ||
        die "$EXIT_USAGE" 'docker is not installed on this machine' 'Launch from the machine image that 040 picks, or one that has docker and the NVIDIA container toolkit.'
    systemctl start docker || die "$EXIT_UNAVAILABLE" 'docker does not start on this machine' 'Its log: riva-110-logs.sh --unit docker'
    if gives_gpus; then return 0; fi
    if command -v nvidia-ctk >/dev/null; then
        say 'docker does not know the NVIDIA runtime yet; setting it up (nvidia-ctk), which restarts docker'
        nvidia-ctk runtime configure --runtime=docker >&2 || true
        systemctl restart docker || true
    fi
    gives_gpus || die "$EXIT_USAGE" 'docker has no NVIDIA runtime on this machine: no container gets its GPU' \
        'Launch from the machine image that 040 picks, or one that has the NVIDIA container toolkit (nvidia-ctk).'
}

# gives_gpus: docker knows the runtime that nim-run asks for
gives_gpus() { docker info --format '{{json .Runtimes}}' 2>/dev/null | grep -q '"nvidia"'; }

# image_of FILE: the image that such settings name, or nothing
image_of() { if [ -e "$1" ]; then sed -n 's/^IMAGE=//p' "$1"; fi; }
cache_of() { if [ -e "$1" ]; then sed -n 's/^CACHE=//p' "$1"; fi; }

# prune: images and caches that nothing names any more
prune() {
    local image folder file kept_images kept_caches
    # shellcheck disable=SC2153 # it is one of the settings
    kept_images=" $IMAGE " kept_caches=" $CACHE "
    for file in "$settings" "$settings.good" "$settings.before"; do
        kept_images+="$(image_of "$file") " kept_caches+="$(cache_of "$file") "
    done
    while read -r image; do
        if [[ $image == nvcr.io/* && $kept_images != *" $image "* ]]; then
            docker image rm "$image" >/dev/null 2>&1 && say "removed the old image $image"
        fi
    done < <(docker image ls --format '{{.Repository}}:{{.Tag}}')
    for folder in "$NIM_STATE"/nim-cache/*/*; do
        if [ -d "$folder" ] && [[ $kept_caches != *" $folder "* ]]; then rm -rf "$folder"; fi
    done
}

# folder_for DIR: it, or the first folder above that is there
folder_for() {
    local folder=$1
    while ! [ -d "$folder" ]; do folder=${folder%/*}; done
    printf '%s' "${folder:-/}"
}

look_at_disk() {
    local root free_gib
    root=$(docker info --format '{{.DockerRootDir}}' 2>/dev/null) || root=''
    free_gib=$(($(df -Pk "$(folder_for "${root:-/var/lib/docker}")" | awk 'NR == 2 { print $4 }') / 1048576))
    if ((free_gib < ${NEED_GIB:-$LEAST_FREE_GIB})); then
        die "$EXIT_USAGE" "the disk is too full: $free_gib GiB are free, an image and its model need ${NEED_GIB:-$LEAST_FREE_GIB}" \
            'Nothing was stopped. Old images are gone already; make the volume larger (aws ec2 modify-volume, then growpart and resize2fs),' \
            'or launch with a larger disk: riva-040-launch.sh --disk-gb 300'
    fi
}

# The login lies in memory and is gone afterwards: docker would keep it in /root, readable, for good.
login() {
    local error
    export DOCKER_CONFIG=$RUN/docker
    private_folder
    install -d -m 700 "$DOCKER_CONFIG"
    trap 'rm -rf "$RUN/docker" "$RUN/pull.env"' EXIT
    error=$("$LIBEXEC/ngc-key" "$RUN/pull.env" 2>&1) || die "$EXIT_USAGE" "NVIDIA's key is not to be had: $error" \
        'Put it there: riva-030-secret.sh. The machine'\''s role must be allowed to read it: riva-020-network.sh'
    # shellcheck disable=SC2016 # the user is really called that
    error=$(sed -n 's/^NGC_API_KEY=//p' "$RUN/pull.env" | docker login nvcr.io --username '$oauthtoken' --password-stdin 2>&1) ||
        refused "$error"
}

# refused ERROR: why the registry gave no image
refused() {
    local last
    last=$(grep . <<<"$1" | tail -n 1 | cut -c 1-200) || last=''
    case $1 in
    *'manifest unknown'* | *'not found'* | *NotFound*)
        die "$EXIT_USAGE" "the registry does not know the image $IMAGE" "$last" \
            'Its tags are listed at https://catalog.ngc.nvidia.com; give one with --tag.'
        ;;
    *denied* | *unauthorized* | *nauthorized* | *orbidden* | *' 401'* | *' 403'*)
        die "$EXIT_USAGE" "the registry refuses the key for $IMAGE" "$last" \
            'The key is wrong or has expired, or its account has no access to this image (NVIDIA AI Enterprise).' \
            'Make one at https://org.ngc.nvidia.com/setup/api-keys with the service "NGC Catalog", then riva-030-secret.sh'
        ;;
    *'no space left'*) die "$EXIT_USAGE" "the disk is full while $IMAGE is fetched" "$last" 'Make the volume larger.' ;;
    *) die "$EXIT_UNAVAILABLE" "the image $IMAGE cannot be fetched now" "$last" 'Run this again; what was fetched is kept.' ;;
    esac
}

fetch_image() {
    local error
    if docker image inspect "$IMAGE" >/dev/null 2>&1; then return 0; fi
    prune
    look_at_disk
    login
    say "fetching $IMAGE"
    error=$(docker pull --quiet "$IMAGE" 2>&1 >/dev/null) || refused "$error"
}

# Which settings are meant. Nothing of what runs is touched.
choose_settings() {
    local name from=$settings.$MODE
    if [ "$MODE" = deploy ]; then from=''; fi
    if [ "$MODE" = same ]; then from=$settings; fi
    if [ -n "$from" ]; then
        [ -e "$from" ] || die "$EXIT_USAGE" 'there is no former recognizer to go back to on this machine' \
            'One is kept from the second one on that was seen working. Name one: riva-050-deploy-nim.sh --profile … --tag …'
        # shellcheck disable=SC1090
        . "$from"
    fi
    if [ "$MODE" = same ] && [ -n "${TAG:-}" ]; then IMAGE=${IMAGE%:*}:$TAG; fi
    name=${IMAGE##*/}
    CACHE=$NIM_STATE/nim-cache/$capability/${name//:/-}
    wanted=$(for name in KIND PROFILE IMAGE SELECTOR CACHE SECRET REGION; do printf '%s=%q\n' "$name" "${!name}"; done)
}

# What riva-nim.service starts, and the key's way. A unit that runs keeps what it began with.
place_files() {
    local changed=no
    place "$RUN_HELPER" "$LIBEXEC/nim-run" 755 || true
    place "$KEY_HELPER" "$LIBEXEC/ngc-key" 755 || true
    place "$UNIT" "$UNITS/riva-nim.service" && changed=yes
    install -d -m 700 "$NIM_STATE/nim-cache" # nobody else gets past it …
    install -d -m 777 "$CACHE"               # … to where the container's program writes, whose user differs between images
    if [ "$changed" = yes ]; then systemctl daemon-reload; fi
    systemctl enable --quiet riva-nim
}

# Streams that run finish first: stopping the gateway waits for them. It is back at once, and says what is missing.
drain() {
    if systemctl is-active --quiet riva-gateway; then
        touch "$drained"
        systemctl stop riva-gateway
        say 'drained the gateway'
    fi
}
undrain() {
    if [ -e "$drained" ]; then
        systemctl start --no-block riva-gateway
        rm "$drained"
    fi
}

runs_as_wanted() {
    systemctl is-active --quiet riva-nim && [ "$(cat "$RUN/nim.running" 2>/dev/null)" = "$(sha256sum <"$settings")" ]
}

booted
look_at_gpu
look_at_docker
choose_settings
# The helper needs to know the secret; until the switch nothing else reads these.
if ! [ -e "$settings" ]; then place "$wanted" "$settings" || true; fi
install -d -m 755 "$LIBEXEC"
place "$KEY_HELPER" "$LIBEXEC/ngc-key" 755 || true
fetch_image
if [ "${FETCH_ONLY:-no}" = yes ]; then
    answer changed fetched
    answer image "$IMAGE"
    exit
fi
place_files
place "$wanted" "$settings" || true
changed=no
if [ "${RESTART:-no}" = yes ] || ! runs_as_wanted; then
    drain
    systemctl reset-failed riva-nim 2>/dev/null || true
    systemctl restart riva-nim || die "$EXIT_UNAVAILABLE" 'the recognizer'\''s unit does not start' "$(journalctl -u riva-nim -n 5 -o cat --no-pager | without_keys)"
    changed=yes
fi
undrain
answer changed "$changed"
answer profile "$PROFILE"
answer image "$IMAGE"
answer before "$(image_of "$settings.before")"
