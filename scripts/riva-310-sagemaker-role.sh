#!/usr/bin/env bash
# What an endpoint may do: a role of its own, the NGC key in Secrets Manager, and for --async a bucket.
. "$(dirname "${BASH_SOURCE[0]}")/lib/deploy.sh"
. "$LIB/role.sh"
. "$LIB/bucket.sh"
. "$LIB/sagemaker.sh"

about 'Makes the role that SageMaker runs the container with, or puts right what differs.' \
    'It may fetch its image, read its one secret, and write its own log. Nothing else, but for --async its folders in S3.' \
    'The NGC key comes as in riva-030-secret.sh: from stdin, --from-file, or it is asked for.'
flag from-file FILE '' 'a file that holds the NGC key'
switch async 'also a bucket for recordings and results, for riva-320-sagemaker-deploy.sh --async'
flag topic ARN '' 'with --async: an SNS topic that is told when a result is there or has failed; unset: the one it had'
flag image-of NAME '' 'another deployment whose image the endpoint runs too; unset: its own alone'
parse "$@"
needs aws jq

sagemaker_trust() {
    # Only for endpoints of this account: nobody else's can make SageMaker take this role.
    jq -cn --arg account "$account" '{Version: "2012-10-17", Statement: [{Effect: "Allow",
        Principal: {Service: "sagemaker.amazonaws.com"}, Action: "sts:AssumeRole",
        Condition: {StringEquals: {"aws:SourceAccount": $account}}}]}'
}

sagemaker_policy() {
    jq -cn --arg at "arn:$partition" --arg place "$region:$account" --arg secret "$secret" --arg repository "$repository" \
        --arg logs "$log_group" --arg bucket "$bucket" --arg async "$1" --arg other "$2" --arg topic "$3" '
        def may(what; whereon): {Effect: "Allow", Action: what, Resource: whereon};
        {Version: "2012-10-17", Statement: ([
            may("secretsmanager:GetSecretValue"; "\($at):secretsmanager:\($place):secret:\($secret)-??????"),
            may("ecr:GetAuthorizationToken"; "*"),
            may(["ecr:BatchCheckLayerAvailability", "ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"];
                [$repository, $other | select(. != "") | "\($at):ecr:\($place):repository/\(.)"]),
            (may("cloudwatch:PutMetricData"; "*") # how busy its processor, its memory and its GPU are
                + {Condition: {StringLike: {"cloudwatch:namespace": ["AWS/SageMaker", "/aws/sagemaker/*"]}}}),
            may(["logs:CreateLogGroup", "logs:CreateLogStream", "logs:DescribeLogStreams", "logs:PutLogEvents"];
                ["\($at):logs:\($place):log-group:\($logs)", "\($at):logs:\($place):log-group:\($logs):*"])]
            + if $async == "yes" then [
                may("s3:GetObject"; "\($at):s3:::\($bucket)/sagemaker/in/*"),
                may(["s3:AbortMultipartUpload", "s3:PutObject"];
                    ["\($at):s3:::\($bucket)/sagemaker/out/*", "\($at):s3:::\($bucket)/sagemaker/failed/*"]),
                may("s3:ListBucket"; "\($at):s3:::\($bucket)")]
              else [] end
            + if $topic == "" then [] else [may("sns:Publish"; $topic)] end)}'
}

ensure_sagemaker_role() {
    local there policy wanted async=${opt[async]} other=${opt[image_of]:+riva-${opt[image_of]}} topic=${opt[topic]}
    # A role that may use the bucket, a topic or another deployment's image goes on to: an endpoint may be using it.
    policy=$(look NoSuchEntity iam get-role-policy --role-name "$role" --policy-name endpoint)
    if jq -e 'tostring | contains("/sagemaker/in/")' >/dev/null <<<"${policy:-{\}}"; then async=yes; fi
    if [ -z "$other" ]; then
        other=$(jq -r --arg own "/$repository" '[.. | strings | select(contains(":repository/") and (endswith($own) | not))][0] // empty
            | split("/")[1]' <<<"${policy:-{\}}")
    fi
    if [ -z "$topic" ]; then
        topic=$(jq -r '[.PolicyDocument.Statement[]? | select(.Action == "sns:Publish").Resource][0] // empty' <<<"${policy:-{\}}")
    fi
    wanted=$(sagemaker_policy "$async" "$other" "$topic")
    there=$(look NoSuchEntity iam get-role --role-name "$role")
    if [ -z "$there" ]; then
        # shellcheck disable=SC2046 # words
        told_or '' iam create-role --role-name "$role" --assume-role-policy-document "$(sagemaker_trust)" \
            --description "riva-gateway: what the endpoint of '${opt[deployment]}' may do" --tags $(tags) "Key=riva:region,Value=$region"
        made "role $role"
    else
        check_role "$role" "$there"
        kept "role $role"
    fi
    if ! same "$(jq -c '.PolicyDocument // empty' <<<"$policy")" "$wanted"; then
        told_or '' iam put-role-policy --role-name "$role" --policy-name endpoint --policy-document "$wanted"
        made 'it may fetch its image, read its secret and write its log'
    fi
}

sm_names
if [ -n "${opt[topic]}" ] && [ "${opt[async]}" = no ]; then fail "$EXIT_USAGE" "--topic is for --async alone"; fi
declare -a more=(--deployment "${opt[deployment]}" --region "$region")
if [ -n "${opt[from_file]}" ]; then more+=(--from-file "${opt[from_file]}"); fi
if [ "${opt[yes]}" = yes ]; then more+=(--yes); fi
if dry; then more+=(--dry-run); fi
"$LIB/../riva-030-secret.sh" "${more[@]}"
step 'Role'
ensure_sagemaker_role
if [ "${opt[async]}" = yes ]; then
    step 'Bucket for recordings and results'
    ensure_bucket "$bucket" "$account" "$partition"
    wanted='{"Rules":[{"ID":"thirty days","Status":"Enabled","Filter":{"Prefix":"sagemaker/"},"Expiration":{"Days":30}}]}'
    bucket_setting "$bucket" bucket-lifecycle-configuration NoSuchLifecycleConfiguration \
        '{Rules: [.Rules[] | {ID, Status, Filter, Expiration}]}' "$wanted" lifecycle-configuration
fi
printf 'arn:%s:iam::%s:role/%s\n' "$partition" "$account" "$role"
