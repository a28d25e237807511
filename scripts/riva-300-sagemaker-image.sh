#!/usr/bin/env bash
# The image for SageMaker: the gateway inside a NIM's image, in the account's own registry.
. "$(dirname "${BASH_SOURCE[0]}")/lib/deploy.sh"
. "$LIB/role.sh"
. "$LIB/sagemaker.sh"

about 'Builds the image of gateway and NIM, and pushes it to ECR. Prints its address with its digest.' \
    'Its tag stands for what is in it: where the registry has it, nothing is built.' \
    'Needs docker, about 60 GB of disk and half an hour the first time. With NGC_API_KEY in the environment it logs' \
    "in to NVIDIA's registry; else be logged in: docker login nvcr.io --username '\$oauthtoken'" \
    'ECR takes about two dollars a month for its 20 GB.'
flag profile NAME '' 'which NIM: a name of lib/nim-profiles.tsv (rnnt)'
flag nim-image IMAGE '' 'that NIM by its address, for another registry or version; say --profile as well where it is one of those'
flag nim-command COMMAND /opt/nim/start_server.sh 'what starts it inside its image'
flag image IMAGE '' 'push this one, a gateway that is built already, as it is; one in this ECR is only looked up'
flag builder-image IMAGE '' 'the base that the gateway is built on; unset: Debian'
flag uv-image IMAGE '' 'the image that has uv; unset: the public one'
parse "$@"
needs aws jq docker sha256sum
set +x # a trace would show the key
NGC_KEY=${NGC_API_KEY:-}
unset NGC_API_KEY # no program that this starts needs it

ROOT=$(cd "$LIB/../.." && pwd)

nim_image() {
    local image
    image=$(nim_cell image)
    printf '%s:%s' "$image" "$(nim_cell tag)"
}

# sources: all that the build sees, as names and hashes
sources() {
    (cd "$ROOT" && find src static load pyproject.toml README.md LICENSE requirements/runtime.txt requirements/image.txt \
        scripts/sagemaker/Dockerfile -type f ! -path '*/__pycache__/*' ! -name '*.pyc' -print0 |
        LC_ALL=C sort -z | xargs -0 sha256sum)
}

ensure_repository() {
    local there policy
    there=$(look RepositoryNotFoundException ecr describe-repositories --repository-names "$repository")
    if [ -n "$there" ]; then
        kept "repository $repository"
    else
        # shellcheck disable=SC2046 # words
        told_or '' ecr create-repository --repository-name "$repository" --image-tag-mutability IMMUTABLE \
            --image-scanning-configuration scanOnPush=true --encryption-configuration encryptionType=AES256 --tags $(tags)
        made "repository $repository (tags cannot be moved; what is pushed is scanned)"
    fi
    policy='{"rules":[{"rulePriority":1,"description":"the newest three","selection":{"tagStatus":"any","countType":"imageCountMoreThan","countNumber":3},"action":{"type":"expire"}}]}'
    there=$(look 'LifecyclePolicyNotFoundException|RepositoryNotFoundException' ecr get-lifecycle-policy --repository-name "$repository")
    if ! same "$(jq -r '.lifecyclePolicyText // empty' <<<"$there")" "$policy"; then
        told_or '' ecr put-lifecycle-policy --repository-name "$repository" --lifecycle-policy-text "$policy"
    fi
}

# digest :TAG or @DIGEST: the digest of that image in our repository, or nothing
digest() {
    local which=imageTag=${1#:}
    if [[ $1 == @* ]]; then which=imageDigest=${1#@}; fi
    look 'ImageNotFoundException|RepositoryNotFoundException' ecr describe-images --repository-name "$repository" \
        --image-ids "$which" | jq -r '.imageDetails[0].imageDigest // empty'
}

# private_logins: docker would keep the keys that it is given in the person's folder, readable, for good. Here they go
# with the script; the person's own settings and logins are read, and stay as they are.
private_logins() {
    local theirs=${DOCKER_CONFIG:-${HOME:-/nonexistent}/.docker} name config='{}'
    mkdir -m 700 "$SCRATCH/docker"
    for name in buildx cli-plugins contexts; do
        if [ -e "$theirs/$name" ]; then ln -s "$(realpath "$theirs/$name")" "$SCRATCH/docker/$name"; fi
    done
    if [ -r "$theirs/config.json" ]; then config=$(<"$theirs/config.json"); fi
    # A store (a keychain) is asked for what it has, and given nothing new.
    (umask 077 && jq --arg registry "$registry" --arg given "${NGC_KEY:+yes}" '.credsStore as $store | del(.credsStore, .credHelpers[$registry]) |
        if $given != "" then del(.credHelpers["nvcr.io"]) elif $store then .credHelpers["nvcr.io"] //= $store else . end' \
        <<<"$config" >"$SCRATCH/docker/config.json")
    export DOCKER_CONFIG=$SCRATCH/docker
}

log_in() {
    if dry; then return 0; fi
    aws ecr get-login-password | docker login --username AWS --password-stdin "$registry" >/dev/null ||
        fail "$EXIT_FAILED" "docker could not log in to $registry"
}

build() {
    local -a more=()
    needs_buildx
    if [ -n "${opt[builder_image]}" ]; then more+=(--build-arg "BUILDER_IMAGE=${opt[builder_image]}"); fi
    if [ -n "${opt[uv_image]}" ]; then more+=(--build-arg "UV_IMAGE=${opt[uv_image]}"); fi
    if [ -n "$NGC_KEY" ] && [[ $base == nvcr.io/* ]] && ! dry; then
        # shellcheck disable=SC2016 # the user's name
        printf '%s' "$NGC_KEY" | docker login --username '$oauthtoken' --password-stdin nvcr.io >/dev/null ||
            fail "$EXIT_USAGE" "nvcr.io refuses the key in NGC_API_KEY"
    fi
    work docker build --platform linux/amd64 --provenance=false --file "$ROOT/scripts/sagemaker/Dockerfile" \
        --build-arg "NIM_IMAGE=$base" --build-arg "NIM_COMMAND=${opt[nim_command]}" "${more[@]}" --tag "$address" "$ROOT" ||
        fail "$EXIT_FAILED" "the image could not be built" \
            "If $base may not be pulled: docker login nvcr.io --username '\$oauthtoken', with your NGC key as password."
}

fetch_image() {
    if [[ ${opt[image]} == "$registry"/* ]]; then log_in; fi
    work docker pull --platform linux/amd64 "${opt[image]}" || fail "$EXIT_FAILED" "${opt[image]} cannot be pulled"
    work docker tag "${opt[image]}" "$address"
}

# work COMMAND…: its output is for people
work() {
    if dry; then
        would "$@"
        return 0
    fi
    "$@" >&2
}

sm_names
check_repository
if ! dry; then private_logins; fi
if [[ ${opt[image]} == "$registry/$repository"[:@]* ]]; then
    step 'Image'
    found=$(digest "${opt[image]#"$registry/$repository"}")
    [ -n "$found" ] || fail "$EXIT_USAGE" "there is no image ${opt[image]}"
    kept "image ${opt[image]}"
    printf '%s\n' "$registry/$repository@$found"
    exit
fi
case ${opt[image]} in
nvcr.io/* | public.ecr.aws/nvidia/*)
    fail "$EXIT_USAGE" "${opt[image]} is NVIDIA's, and has no gateway in it: nothing would answer the endpoint's calls" \
        "Have it put into one: --nim-image ${opt[image]}"
    ;;
esac
if [ -n "${opt[image]}" ]; then
    tag=copy-$(content "${opt[image]}")
else
    if [ -z "${opt[nim_image]}" ]; then opt[profile]=${opt[profile]:-rnnt}; fi
    if [ -n "${opt[profile]}" ]; then base=$(nim_image); fi # ends where there is no such profile
    base=${opt[nim_image]:-$base}
    # The profile in front is what riva-320 takes the selector from.
    tag=${opt[profile]:+${opt[profile]}-}$(content "$base ${opt[nim_command]} ${opt[builder_image]} ${opt[uv_image]} $(sources)")
fi
address=$registry/$repository:$tag

step 'Repository'
ensure_repository
step "Image ($tag)"
found=$(digest ":$tag")
if [ -n "$found" ]; then
    kept "image $address"
else
    if [ -z "${opt[image]}" ]; then
        confirm "Build it from $base? That takes about half an hour and 60 GB of disk."
        build
    else
        fetch_image
    fi
    log_in
    work docker push "$address" || fail "$EXIT_FAILED" "the image could not be pushed" "Run this again: what is there already is not sent twice."
    found=$(digest ":$tag")
    if dry; then found='<digest>'; fi
    [ -n "$found" ] || fail "$EXIT_FAILED" "ECR does not have the image after the push"
    made "image $address"
fi
printf '%s\n' "$registry/$repository@$found"
