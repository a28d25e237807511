#!/usr/bin/env bash
# Takes everything of a deployment on SageMaker away, and looks whether anything is left.
. "$(dirname "${BASH_SOURCE[0]}")/lib/deploy.sh"
. "$LIB/role.sh"
. "$LIB/sagemaker.sh"
. "$LIB/sagemaker-scaling.sh"

about 'Deletes the endpoint with all its versions, the role, the bucket, the image, the log and the secret.' \
    'The secret stays where a machine of the same name on EC2 needs it.'
switch keep-image 'keep image, role and secret: the next riva-320-sagemaker-deploy.sh needs no build; 2 dollars a month'
parse "$@"
needs aws jq

delete_endpoint() {
    no_scaling
    if [ -n "$(the_endpoint)" ]; then
        remove_endpoint
        made "endpoint $endpoint is gone"
    fi
}

delete_versions() {
    local name
    for name in $(ours endpoint-configs); do
        told_or ValidationException sagemaker delete-endpoint-config --endpoint-config-name "$name"
        made "configuration $name is gone"
    done
    for name in $(ours models); do
        told_or ValidationException sagemaker delete-model --model-name "$name"
        made "model $name is gone"
    done
}

bucket_is_there() {
    [ -n "$(look 'NoSuchBucket|404' s3api get-bucket-location --bucket "$bucket" --expected-bucket-owner "$account")" ] && bucket_is_ours "$bucket"
}
delete_bucket() {
    local page
    if ! bucket_is_there; then return 0; fi
    told_or NoSuchBucket s3 rm "s3://$bucket" --recursive
    page=$(look NoSuchBucket s3api list-multipart-uploads --bucket "$bucket" | jq -r '.Uploads[]? | [.Key, .UploadId] | @tsv')
    while IFS=$'\t' read -r key id; do
        if [ -n "$key" ]; then told_or NoSuchUpload s3api abort-multipart-upload --bucket "$bucket" --key "$key" --upload-id "$id"; fi
    done <<<"$page"
    told_or NoSuchBucket s3api delete-bucket --bucket "$bucket"
    made "bucket $bucket is gone"
}

delete_image() {
    if [ -z "$(look RepositoryNotFoundException ecr describe-repositories --repository-names "$repository")" ]; then return 0; fi
    told_or RepositoryNotFoundException ecr delete-repository --repository-name "$repository" --force
    made "repository $repository is gone, with its images"
}

delete_role() {
    local there
    there=$(look NoSuchEntity iam get-role --role-name "$role")
    if [ -z "$there" ] || ! is_ours "$(jq -c '.Role.Tags // []' <<<"$there")"; then return 0; fi # it may be another region's
    told_or NoSuchEntity iam delete-role-policy --role-name "$role" --policy-name endpoint
    told_or NoSuchEntity iam delete-role --role-name "$role"
    made "role $role is gone"
}

delete_secret() {
    local machine
    if [ -z "$(look ResourceNotFoundException secretsmanager describe-secret --secret-id "$secret")" ]; then return 0; fi
    machine=$(instance)
    if [ -z "$machine" ]; then machine=$(ask ec2 describe-security-groups --filters "$(mine)" --query 'SecurityGroups[0].GroupId'); fi
    if [ -n "$machine" ]; then
        kept "secret $secret: the deployment on EC2 ($machine) needs it (riva-190-destroy.sh)"
        return 0
    fi
    if ! is_ours "$(look ResourceNotFoundException secretsmanager describe-secret --secret-id "$secret" | jq -c '.Tags // []')"; then
        kept "secret $secret: these scripts did not make it"
        return 0
    fi
    told_or ResourceNotFoundException secretsmanager delete-secret --secret-id "$secret" --force-delete-without-recovery
    made "secret $secret is gone"
}

delete_log() {
    told_or ResourceNotFoundException logs delete-log-group --log-group-name "$log_group"
}

# left: what is still there, by tag and by name, a line each
left() {
    local kinds='sagemaker ecr:repository cloudwatch:alarm' name there
    if [ "${opt[keep_image]}" = yes ]; then kinds='sagemaker cloudwatch:alarm'; fi
    # shellcheck disable=SC2086 # words
    aws resourcegroupstaggingapi get-resources --tag-filters "Key=riva:deployment,Values=${opt[deployment]}" \
        --resource-type-filters $kinds --output json | jq -r '.ResourceTagMappingList[].ResourceARN'
    if [ -n "$(the_endpoint)" ]; then echo "endpoint $endpoint"; fi
    for name in $(ours endpoint-configs) $(ours models); do echo "$name"; done
    if bucket_is_there; then echo "bucket $bucket"; fi
    if [ "${opt[keep_image]}" = no ]; then
        there=$(look NoSuchEntity iam get-role --role-name "$role")
        if [ -n "$there" ] && is_ours "$(jq -c '.Role.Tags // []' <<<"$there")"; then echo "role $role"; fi
        if [ -n "$(look RepositoryNotFoundException ecr describe-repositories --repository-names "$repository")" ]; then echo "repository $repository"; fi
    fi
}

# nothing_left: for wait_until; tags are forgotten seconds, at times minutes, after the thing that had them
nothing_left() {
    rest=$(left)
    waiting_for="still there: $(tr '\n' ' ' <<<"$rest")"
    [ -z "$rest" ]
}

sm_names
check_endpoint
check_repository
rest=''
confirm "Delete everything of '${opt[deployment]}' on SageMaker in $region?"
step "SageMaker ($region)"
delete_endpoint
delete_versions
delete_log
delete_bucket
if [ "${opt[keep_image]}" = no ]; then
    delete_image
    delete_role
    delete_secret
fi
wait_until 600 'the last traces' nothing_left || fail "$EXIT_FAILED" 'something is left' "$rest" 'Run this again; then look in the console.'
made 'nothing is left'
