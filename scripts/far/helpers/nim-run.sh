#!/bin/bash
# ExecStart of riva-nim.service: becomes the container that /etc/riva/nim.env names.
#
# Its ports are on 127.0.0.1: it asks nobody who they are, so only the gateway of this machine reaches it. Its output
# goes to the journal through systemd, and is not kept by docker a second time.
set -euo pipefail
# shellcheck disable=SC1091
. /etc/riva/nim.env

with_gpu=(docker run --rm --runtime nvidia --gpus '"device=0"' --log-driver none --security-opt no-new-privileges)
key=(--env-file /run/riva/ngc.env)
# Named one by one besides: of those that only NVIDIA's hook puts in, systemd knows nothing, and its next daemon-reload
# would take them away from the container that runs.
for node in /dev/nvidia0 /dev/nvidiactl /dev/nvidia-modeset /dev/nvidia-uvm /dev/nvidia-uvm-tools; do
    if [ -e "$node" ]; then with_gpu+=(--device "$node"); fi
done
on_gpu=("${with_gpu[@]}" --name riva-nim)

# What riva_init.sh of NVIDIA's quickstart does: fetch the model, build it for this GPU. Once.
build_classic() {
    if [ "$(cat "$CACHE/built" 2>/dev/null)" = "$SELECTOR" ]; then return 0; fi
    rm -rf "${CACHE:?}/built" "$CACHE/rmir" "$CACHE/models"
    "${on_gpu[@]}" --init "${key[@]}" --volume "$CACHE:/data" "$IMAGE" download_ngc_models "$SELECTOR"
    "${on_gpu[@]}" --init --env MODEL_DEPLOY_KEY=tlt_encode --volume "$CACHE:/data" "$IMAGE" \
        deploy_all_models /data/rmir /data/models
    printf '%s\n' "$SELECTOR" >"$CACHE/built"
}

# model_type: whether NVIDIA has a model for this GPU and selector that is built already (prebuilt), or one that is to be
# built here (rmir), as the image lists its profiles; nothing where it does not tell. Releases write
# "ID - mode:str|model_type:rmir" or "ID - {'mode': 'str', 'model_type': 'rmir'}".
model_type() {
    local profiles tag tags
    profiles=$(timeout 300 "${with_gpu[@]}" "${key[@]}" --entrypoint nim_list_model_profiles "$IMAGE" 2>/dev/null |
        sed -n '/- Compatible/,/- Incompatible/s/^.* - //p' | tr -d "{}' " | sed 's/|/,/g; s/.*/,&,/') || return 0
    IFS=, read -ra tags <<<"$SELECTOR"
    for tag in "${tags[@]}"; do profiles=$(grep -F ",${tag/=/:}," <<<"$profiles") || return 0; done
    if [[ $profiles == *,model_type:prebuilt,* ]]; then echo prebuilt; elif [[ $profiles == *,model_type:rmir,* ]]; then echo rmir; fi
}

# A model that is to be built takes up to half an hour, and NVIDIA's cache does not keep what was built: it is exported,
# once for each selector and GPU, and served from there ever after. Sets $from, what the container is told of that.
build_nim() {
    local which exported cached
    which=$({ printf '%s\n' "$SELECTOR" && nvidia-smi --query-gpu=name --format=csv,noheader; } | sha256sum | cut -c 1-12)
    exported=$CACHE/export-$which cached=$CACHE/cached-$which
    from=()
    if [ -e "$cached" ]; then return 0; fi # the cache alone does
    if ! [ -d "$exported" ]; then
        case $(model_type) in
        prebuilt) touch "$cached" ;;
        rmir) export_model "$exported" "$cached" ;;
        esac
    fi
    if [ -d "$exported" ]; then
        touch "$exported"
        from=(--volume "$exported:/opt/nim/export" --env NIM_EXPORT_PATH=/opt/nim/export --env NIM_DISABLE_MODEL_DOWNLOAD=true)
    fi
}

# export_model FOLDER OTHERWISE: the container ends when it has written the model; well, too, when it has failed to, and
# when it was stopped. Where there is nothing to export, OTHERWISE notes that this need not be tried again.
export_model() {
    echo 'NVIDIA has no prebuilt model for this GPU: building it, once; half an hour'
    rm -rf "$1.new"
    install -d -m 777 "$1.new"
    "${nim[@]}" --volume "$1.new:/opt/nim/export" --env NIM_EXPORT_PATH=/opt/nim/export "$IMAGE"
    systemctl is-active --quiet riva-nim || exit 0
    if is_model "$1.new"; then
        mv "$1.new" "$1"
        # The three that were used last: of what runs, of what to go back to, and of what was before that.
        find "$CACHE" -maxdepth 1 -name 'export-*' -printf '%T@ %p\n' | sort -rn | tail -n +4 | cut -d ' ' -f 2- | xargs -r rm -rf
    else
        echo 'the image exports no model: it will be built anew at every start' >&2
        rm -rf "$1.new"
        touch "$2"
    fi
}

# is_model FOLDER: whole archives, with models that are configured and built
is_model() {
    local archive names
    for archive in "$1"/*.tar.gz; do
        names=$(tar --list --file "$archive" 2>/dev/null) && grep -q 'config\.pbtxt$' <<<"$names" && grep -qE '\.(plan|engine)$' <<<"$names" || return 1
    done
}

# 060 and 140 compare this with the settings, to know whether what runs is what is wanted.
sha256sum </etc/riva/nim.env >/run/riva/nim.running

if [ "$KIND" = classic ]; then
    build_classic
    # What riva_start.sh does, for speech recognition alone.
    exec "${on_gpu[@]}" --init --shm-size 1g --ulimit memlock=-1 --ulimit stack=67108864 \
        --publish 127.0.0.1:50051:50051 --volume "$CACHE:/data" "$IMAGE" \
        start-riva --riva-uri=0.0.0.0:50051 --asr_service=true --nlp_service=false --tts_service=false
fi
nim=("${on_gpu[@]}" "${key[@]}" --shm-size 8g --ulimit nofile=65536:65536
    --env "NIM_TAGS_SELECTOR=$SELECTOR" --env NIM_HTTP_API_PORT=9000 --env NIM_GRPC_API_PORT=50051
    --volume "$CACHE:/opt/nim/.cache")
build_nim
exec "${nim[@]}" "${from[@]}" --publish 127.0.0.1:9000:9000 --publish 127.0.0.1:50051:50051 "$IMAGE"
