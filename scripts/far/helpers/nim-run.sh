#!/bin/bash
# ExecStart of riva-nim.service: becomes the container that /etc/riva/nim.env names.
#
# Its ports are on 127.0.0.1: it asks nobody who they are, so only the gateway of this machine reaches it. Its output
# goes to the journal through systemd, and is not kept by docker a second time.
set -euo pipefail
# shellcheck disable=SC1091
. /etc/riva/nim.env

on_gpu=(docker run --rm --name riva-nim --runtime nvidia --gpus '"device=0"' --log-driver none
    --security-opt no-new-privileges)
key=(--env-file /run/riva/ngc.env)
# Named one by one besides: of those that only NVIDIA's hook puts in, systemd knows nothing, and its next daemon-reload
# would take them away from the container that runs.
for node in /dev/nvidia0 /dev/nvidiactl /dev/nvidia-modeset /dev/nvidia-uvm /dev/nvidia-uvm-tools; do
    if [ -e "$node" ]; then on_gpu+=(--device "$node"); fi
done

# What riva_init.sh of NVIDIA's quickstart does: fetch the model, build it for this GPU. Once.
build_classic() {
    if [ -e "$CACHE/built" ]; then return 0; fi
    rm -rf "${CACHE:?}/rmir" "$CACHE/models"
    "${on_gpu[@]}" --init "${key[@]}" --volume "$CACHE:/data" "$IMAGE" download_ngc_models "$SELECTOR"
    "${on_gpu[@]}" --init --env MODEL_DEPLOY_KEY=tlt_encode --volume "$CACHE:/data" "$IMAGE" \
        deploy_all_models /data/rmir /data/models
    touch "$CACHE/built"
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
exec "${on_gpu[@]}" "${key[@]}" --shm-size 8g --ulimit nofile=65536:65536 \
    --env "NIM_TAGS_SELECTOR=$SELECTOR" --env NIM_HTTP_API_PORT=9000 --env NIM_GRPC_API_PORT=50051 \
    --publish 127.0.0.1:9000:9000 --publish 127.0.0.1:50051:50051 --volume "$CACHE:/opt/nim/.cache" "$IMAGE"
