# shellcheck shell=bash disable=SC2154 # opt: deploy.sh and the scripts
# The bucket that carries releases: private, encrypted, over TLS only. Sourced after access.sh.

# ensure_bucket NAME ACCOUNT PARTITION
ensure_bucket() {
    local name=$1 owner=$2 there wanted
    # A bucket's name is anybody's to take: one of ours that another account owns must not get our releases.
    if there=$(look 'NoSuchBucket|NoSuchBucketException' s3api get-bucket-location --bucket "$name" --expected-bucket-owner "$owner"); then
        if [ -z "$there" ]; then
            create_bucket "$name"
        elif bucket_is_ours "$name"; then
            kept "bucket $name"
        else
            fail "$EXIT_USAGE" "the bucket $name is another deployment's" "Name this one differently: --deployment"
        fi
    else
        fail "$EXIT_USAGE" "the bucket $name cannot be used: see above" \
            "It belongs to another account, or these credentials may not see it. Name the deployment differently: --deployment"
    fi
    wanted='{"BlockPublicAcls":true,"IgnorePublicAcls":true,"BlockPublicPolicy":true,"RestrictPublicBuckets":true}'
    bucket_setting "$name" public-access-block NoSuchPublicAccessBlockConfiguration .PublicAccessBlockConfiguration \
        "$wanted" public-access-block-configuration
    wanted='{"Rules":[{"ApplyServerSideEncryptionByDefault":{"SSEAlgorithm":"AES256"}}]}'
    bucket_setting "$name" bucket-encryption ServerSideEncryptionConfigurationNotFoundError \
        '.ServerSideEncryptionConfiguration | {Rules: [.Rules[] | {ApplyServerSideEncryptionByDefault}]}' \
        "$wanted" server-side-encryption-configuration
    wanted=$(jq -cn --arg d "${opt[deployment]}" \
        '{TagSet: [{Key: "riva:by", Value: "riva-gateway"}, {Key: "riva:deployment", Value: $d}]}')
    bucket_setting "$name" bucket-tagging NoSuchTagSet '{TagSet: (.TagSet | sort_by(.Key))}' "$wanted" tagging
    wanted=$(jq -cn --arg arn "arn:$3:s3:::$name" '{Version: "2012-10-17", Statement: [{Sid: "TlsOnly", Effect: "Deny",
        Principal: "*", Action: "s3:*", Resource: [$arn, $arn + "/*"], Condition: {Bool: {"aws:SecureTransport": "false"}}}]}')
    bucket_setting "$name" bucket-policy NoSuchBucketPolicy '.Policy | fromjson' "$wanted" policy
}

create_bucket() {
    local -a where=()
    # us-east-1 is S3's home, and the only region that must not be named.
    if [ "$region" != us-east-1 ]; then where=(--create-bucket-configuration "LocationConstraint=$region"); fi
    told_bucket BucketAlreadyOwnedByYou s3api create-bucket --bucket "$1" "${where[@]}"
    if ! dry; then aws s3api wait bucket-exists --bucket "$1"; fi
    made "bucket $1"
}

# told_bucket CODES ARGUMENTS…: like told_or, and waits while S3 is still at work on a bucket of that name. After a
# removal that takes seconds as a rule, and an hour at worst.
BUCKET_LIMIT_S=${DEPLOY_BUCKET_LIMIT_S:-180}
told_bucket() {
    local err status told=no began=$SECONDS
    while :; do
        status=0
        err=$(told_or "$@" 2>&1) || status=$?
        if ((status == 0)) || [ "$(error_code "$err")" != OperationAborted ]; then break; fi
        if ((SECONDS - began >= BUCKET_LIMIT_S)); then
            fail "$EXIT_UNAVAILABLE" 'S3 is still at work on a bucket of that name' \
                'It was removed a moment ago, as a rule; its name may stay in use for an hour.' \
                'Run this again then, or name the deployment differently: --deployment'
        fi
        if [ "$told" = no ]; then say "S3 is still at work on that bucket; waiting up to $(minutes "$BUCKET_LIMIT_S")" && told=yes; fi
        sleep "${DEPLOY_POLL_S:-10}"
    done
    if [ -n "$err" ]; then printf '%s\n' "$err" >&2; fi
    return "$status"
}

# bucket_setting BUCKET NAME NONE_YET FILTER WANTED FLAG: get-NAME says WANTED, after FILTER; else put-NAME --FLAG WANTED
bucket_setting() {
    local there
    there=$(look "$3|NoSuchBucket" s3api "get-$2" --bucket "$1")
    if [ -n "$there" ] && same "$(jq -c "$4" <<<"$there")" "$5"; then return 0; fi
    told_bucket '' s3api "put-$2" --bucket "$1" "--$6" "$5"
    made "its $2"
}
