#!/usr/bin/env bash
# The image of a commit for a pipeline: built and pushed to ECR once. A job that is run again gets the same digest.
. "$(dirname "${BASH_SOURCE[0]}")/../lib/deploy.sh"

about 'Pushes the image of this folder to ECR, where its tag is not there yet, and prints its digest.' \
    'A tag is pushed once: two builds of a commit differ in their digest, and what was looked at is what is to run.' \
    'Registries whose tags are immutable refuse a second one anyway.'
flag registry HOST "${ECR_REGISTRY:-}" 'the registry: 123456789012.dkr.ecr.us-east-1.amazonaws.com; also ECR_REGISTRY'
flag repository NAME "${ECR_REPOSITORY:-}" 'the repository there; also ECR_REPOSITORY'
flag tag TAG '' "the commit's hash"
flag target NAME gateway 'laptop: with the embedded recognizer'
parse "$@"

for name in registry repository tag; do
    [ -n "${opt[$name]}" ] || fail "$EXIT_USAGE" "no $name is named" "Name it: --$name"
done
needs aws docker
image=${opt[registry]}/${opt[repository]}:${opt[tag]}

# digest: that of the image with this tag, or nothing where there is none
digest() {
    local found
    if ! found=$(ask ecr describe-images --registry-id "${opt[registry]%%.*}" --repository-name "${opt[repository]}" \
        --image-ids "imageTag=${opt[tag]}" --query 'imageDetails[0].imageDigest' 2>"$SCRATCH/err"); then
        [ "$(error_code "$(<"$SCRATCH/err")")" = ImageNotFoundException ] ||
            fail "$EXIT_FAILED" "ECR does not say whether $image is there" "$(tail -n 1 "$SCRATCH/err")"
    fi
    printf '%s' "$found"
}

build_and_push() {
    docker build --target "${opt[target]}" --build-arg REVISION="${opt[tag]}" --tag "$image" "$LIB/../.." >&2 ||
        fail "$EXIT_FAILED" 'the image could not be built: see above'
    aws ecr get-login-password | docker login --username AWS --password-stdin "${opt[registry]}" >/dev/null ||
        fail "$EXIT_FAILED" "docker could not log in to ${opt[registry]}: see above"
    docker push "$image" >&2 || fail "$EXIT_FAILED" 'the image could not be pushed: see above' 'Run this again.'
}

step "Image: $image"
found=$(digest)
if [ -n "$found" ]; then
    kept 'it is there already'
elif dry; then
    would docker push "$image"
    exit 0
else
    build_and_push
    found=$(digest)
    [ -n "$found" ] || fail "$EXIT_UNAVAILABLE" "$image was pushed, and ECR does not list it yet" 'Run this again.'
    made 'pushed'
fi
printf '%s\n' "$found"
