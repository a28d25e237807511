# shellcheck shell=bash disable=SC2154 # opt, answer, SCRATCH, far_instance: deploy.sh and the scripts
# The gateway as an archive that its content names: made from this folder (a checkout or an unpacked archive), kept in
# the deployment's bucket, installed on the machine. Sourced by the scripts that need it.

RELEASE_PARTS=(LICENSE README.md load pyproject.toml requirements/runtime.txt src static tests/fixtures/greeting.wav)
INSTALL_LIMIT_S=${DEPLOY_INSTALL_LIMIT_S:-1200}

# build_release: sets $archive and $release, its SHA-256. The same content gives the same archive everywhere.
build_release() {
    local root part
    root=$(cd "$LIB/../.." && pwd)
    for part in "${RELEASE_PARTS[@]}"; do
        [ -e "$root/$part" ] || fail "$EXIT_USAGE" "$part is missing in $root" "Run this from a whole checkout or archive of riva-gateway."
    done
    needs_gnu_tar
    archive=$SCRATCH/release.tar.gz
    tar -C "$root" --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner --mode=u=rwX,go=rX --format=gnu \
        --exclude=__pycache__ --exclude='*.egg-info' --exclude='*.pyc' --exclude='.*' -cf - "${RELEASE_PARTS[@]}" | gzip -n >"$archive"
    release=$(sha256sum <"$archive" | cut -d ' ' -f 1)
}

# upload_release: into the bucket, where it is not there yet. Sets $bucket
upload_release() {
    local error
    bucket=riva-${opt[deployment]}-$(account)-$(the_region)
    if aws s3api head-object --bucket "$bucket" --key "releases/$release.tar.gz" >/dev/null 2>&1; then
        kept "release ${release:0:12} in the bucket"
    elif dry; then
        would aws s3 cp "$archive" "s3://$bucket/releases/$release.tar.gz"
    else
        error=$(aws s3 cp --only-show-errors "$archive" "s3://$bucket/releases/$release.tar.gz" 2>&1) ||
            fail "$EXIT_FAILED" "the release cannot be put into the bucket $bucket" "$(tail -n 1 <<<"$error")" "Is the bucket there? riva-020-network.sh makes it."
        made "release ${release:0:12} in the bucket"
    fi
}

# install_release: on the machine, beside those that are there; what runs is not touched
install_release() {
    build_release
    upload_release
    far_answers release.sh "$INSTALL_LIMIT_S" "DEPLOYMENT=${opt[deployment]}" "REGION=$(the_region)" "RELEASE=$release" "BUCKET=$bucket" || exit
    if dry; then return 0; fi
    if [ "${answer[made]}" = yes ]; then made 'installed on the machine'; else kept 'installed on the machine'; fi
}

# mark WHAT: what runs now was seen working; the one that was that before is the one to go back to by hand
mark() {
    far_answers mark.sh 120 "DEPLOYMENT=${opt[deployment]}" "REGION=$(the_region)" "WHAT=$1" || exit
    if dry; then return 0; fi
    case $1 in
    nim)
        tag_instance "$far_instance" riva:profile "${answer[profile]}"
        tag_instance "$far_instance" riva:nim-image "${answer[image]}"
        if [ -n "${answer[before]:-}" ]; then tag_instance "$far_instance" riva:nim-image-before "${answer[before]}"; fi
        ;;
    gateway)
        tag_instance "$far_instance" riva:gateway-release "${answer[release]}"
        if [ -n "${answer[before]:-}" ]; then tag_instance "$far_instance" riva:gateway-release-before "${answer[before]}"; fi
        ;;
    esac
}

# gateway_address ID: where clients reach the machine: its public address, or the private one where it has no other
gateway_address() {
    ask ec2 describe-instances --instance-ids "$1" --query 'Reservations[0].Instances[0].[PublicIpAddress,PrivateIpAddress]' |
        tr '\t' '\n' | grep -v '^None$' | head -n 1
}
