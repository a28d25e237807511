#!/usr/bin/env bash
# Takes everything of a deployment on SageMaker away, and looks whether anything is left.
. "$(dirname "${BASH_SOURCE[0]}")/lib/deploy.sh"
. "$LIB/role.sh"
. "$LIB/inventory.sh"
. "$LIB/sagemaker.sh"
. "$LIB/sagemaker-scaling.sh"

about 'Deletes the endpoint with all its versions, the role, the bucket, the image, the log and the secret.' \
    'It shows what will go, and asks. The bucket goes with all recordings and results in it. The secret stays where a machine of' \
    'the same name on EC2 needs it. An endpoint that is being made or changed cannot be deleted: it waits until that has ended.' \
    '--keep-image: the next riva-320-sagemaker-deploy.sh needs no build and no riva-310-sagemaker-role.sh.'
switch keep-image 'keep image, role, secret and bucket, with the recordings and results in it; about 2.40 dollars a month'
parse "$@"
needs aws jq

KEPT='bucket|repository|role|secret' # by --keep-image

# row KIND NAME [DETAIL]: a line of what there is, tabs between
row() { printf '%s\t%s%s\n' "$1" "$2" "${3:+$'\t'$3}"; }

# everything: all that there is of this deployment, a row each. A question that AWS does not answer fails: it is no "there is none"
everything() {
    local rows arn arns
    rows=$(of_the_endpoint && of_names) || return
    arns=$(ask resourcegroupstaggingapi get-resources --resource-type-filters sagemaker ecr:repository cloudwatch:alarm --tag-filters \
        "Key=riva:deployment,Values=${opt[deployment]}" Key=riva:by,Values=riva-gateway --query 'ResourceTagMappingList[].ResourceARN') || return
    if [ -n "$rows" ]; then printf '%s\n' "$rows"; fi
    for arn in $arns; do # that name did not find; at times something that is gone for minutes
        if ! cut -f 2 <<<"$rows" | grep -qxF -- "${arn##*[:/]}"; then row tagged "$arn"; fi
    done
}

of_the_endpoint() {
    local there name
    there=$(the_endpoint) || return
    if [ -n "$there" ]; then row endpoint "$endpoint" "$(jq -r .EndpointStatus <<<"$there")"; fi
    there=$(scalable) || return
    if [ -n "$there" ]; then row scaling "$scaled"; fi
    there=$(ask cloudwatch describe-alarms --alarm-names "$endpoint-wake" --query 'MetricAlarms[].AlarmName') || return
    if [ -n "$there" ]; then row alarm "$there"; fi
    there=$(ours endpoint-configs) || return
    for name in $there; do row config "$name"; done
    there=$(ours models) || return
    for name in $there; do row model "$name"; done
    there=$(ask logs describe-log-groups --log-group-name-prefix "$log_group" --query "logGroups[?logGroupName=='$log_group'].logGroupName") || return
    if [ -n "$there" ]; then row log "$log_group"; fi
}

of_names() {
    local there status=0
    there=$(look 'NoSuchBucket|404' s3api get-bucket-location --bucket "$bucket" --expected-bucket-owner "$account") || return
    if [ -n "$there" ]; then
        bucket_is_ours "$bucket" || status=$?
        if ((status == 0)); then row bucket "$bucket" 'with all recordings and results in it'; fi
        if ((status > 127)); then return "$status"; fi # of `aws`, which was refused
    fi
    there=$(look RepositoryNotFoundException ecr describe-repositories --repository-names "$repository") || return
    if [ -n "$there" ]; then row repository "$repository" 'with its images'; fi
    there=$(look NoSuchEntity iam get-role --role-name "$role") || return # it may be another region's
    if [ -n "$there" ] && is_ours "$(jq -c '.Role.Tags // []' <<<"$there")"; then row role "$role"; fi
    there=$(look ResourceNotFoundException secretsmanager describe-secret --secret-id "$secret") || return
    if [ -n "$there" ] && [ -z "$needed_by" ] && goes_with_us "$there"; then row secret "$secret"; fi
}

# goes_with_us JSON: a secret that these scripts made, and that is not on its way out already
goes_with_us() { jq -e '.DeletedDate == null' >/dev/null <<<"$1" && is_ours "$(jq -c '.Tags // []' <<<"$1")"; }

# machine_with_the_key: what of a deployment of this name on EC2 needs the secret, too, or nothing
machine_with_the_key() {
    local found
    found=$(instance) || return
    if [ -z "$found" ]; then found=$(ask ec2 describe-security-groups --filters "$(mine)" "$MADE_HERE" --query 'SecurityGroups[0].GroupId') || return; fi
    printf '%s' "$found"
}

# to_delete ROWS: those that go
to_delete() {
    if [ "${opt[keep_image]}" = yes ]; then sed -E "/^($KEPT)\t/d" <<<"$1"; else printf '%s' "$1"; fi
}

# each KIND COMMAND…: the command with the name of each thing of that kind as its last word
each() {
    local kind=$1 name
    shift
    for name in $(of_kind "$kind" "$list"); do "$@" "$name"; done
}
delete_config() {
    told_gone sagemaker delete-endpoint-config --endpoint-config-name "$1"
    made "configuration $1 is gone"
}
delete_model() {
    told_gone sagemaker delete-model --model-name "$1"
    made "model $1 is gone"
}
delete_endpoint() {
    remove_endpoint
    made "endpoint $1 is gone"
}

delete_bucket() {
    local page key id
    told_or NoSuchBucket s3 rm "s3://$1" --recursive
    page=$(look NoSuchBucket s3api list-multipart-uploads --bucket "$1" | jq -r '.Uploads[]? | [.Key, .UploadId] | @tsv')
    while IFS=$'\t' read -r key id; do
        if [ -n "$key" ]; then told_or NoSuchUpload s3api abort-multipart-upload --bucket "$1" --key "$key" --upload-id "$id"; fi
    done <<<"$page"
    told_or NoSuchBucket s3api delete-bucket --bucket "$1"
    made "bucket $1 is gone"
}
delete_repository() {
    told_or RepositoryNotFoundException ecr delete-repository --repository-name "$1" --force
    made "repository $1 is gone, with its images"
}
delete_role() {
    told_or NoSuchEntity iam delete-role-policy --role-name "$1" --policy-name endpoint
    told_or NoSuchEntity iam delete-role --role-name "$1"
    made "role $1 is gone"
}
delete_secret() {
    told_or ResourceNotFoundException secretsmanager delete-secret --secret-id "$1" --force-delete-without-recovery
    made "secret $1 is gone"
}
delete_log() {
    told_or ResourceNotFoundException logs delete-log-group --log-group-name "$1"
    made "log $1 is gone"
}

# nothing_left: for wait_until; tags are forgotten seconds, at times minutes, after the thing that had them
nothing_left() {
    waiting_for='AWS does not say what is left'
    rows=$(everything) || return
    list=$(to_delete "$rows")
    each log delete_log # a last line of the container has made it anew
    waiting_for="still there: $(cut -f 1,2 <<<"$list" | tr '\t\n' '  ')"
    [ -z "$list" ]
}

sm_names
check_endpoint
check_repository
needed_by=$(machine_with_the_key)
step "SageMaker, deployment ${opt[deployment]} ($region)"
rows=$(everything)
list=$(to_delete "$rows")
if [ -z "$list" ]; then
    nothing_here "$role" "on SageMaker in $region" "${rows:+ but what --keep-image keeps}" --resource-type-filters sagemaker ecr:repository
    exit
fi
in_words "$list" >&2
if [ "${opt[keep_image]}" = yes ]; then
    while IFS=$'\t' read -r kind name _; do
        if [[ $kind =~ ^($KEPT)$ ]]; then kept "$kind $name stays"; fi
    done <<<"$rows"
fi
if [ -n "$needed_by" ]; then kept "secret $secret stays: the deployment on EC2 ($needed_by) needs it (riva-190-destroy.sh)"; fi
confirm 'Delete all of this for good?'
step 'Taking it away'
no_scaling
each endpoint delete_endpoint
each config delete_config
each model delete_model
each bucket delete_bucket
each repository delete_repository
each role delete_role
each secret delete_secret
each log delete_log # last: what may write it, writes it anew
wait_until 600 'the last traces' nothing_left || fail "$EXIT_FAILED" 'something is left' "$(in_words "$list")" 'Run this again; then look in the console.'
made "nothing of '${opt[deployment]}' is left on SageMaker in $region${rows:+ but what --keep-image keeps}"
