# shellcheck shell=bash disable=SC2154,SC2034 # opt, SCRATCH: deploy.sh; names that scripts use
# A deployment on SageMaker: what its things are called, how the endpoint is, and one call of it. Sourced after role.sh.
#
# Models and configurations are named by what is in them: the same wish gives the same name, and nothing is made twice.

. "$LIB/tables.sh"

SM_AMI=al2023-ami-sagemaker-inference-gpu-4-1
CALL_LIMIT_S=70     # SageMaker answers within 60 s; `aws` would give up in that same second, and call again
ASYNC_LIMIT_S=3600  # SageMaker's most; unsaid, it gives up a recording after 15 minutes
ASYNC_WAIT_S=6000   # that hour, and 40 minutes until an endpoint without an instance has one that recognizes
REMOVE_LIMIT_S=6300 # the longest start (an hour) with its machine and its image, and then the end itself
CLIP=$LIB/../../tests/fixtures/greeting.wav

# sm_names: sets what the things of this deployment are called
sm_names() {
    local identity
    region=$(the_region)
    identity=$(ask sts get-caller-identity --query Arn 2>/dev/null) || account >/dev/null # which says what is wrong
    partition=$(cut -d : -f 2 <<<"$identity")
    account=$(cut -d : -f 5 <<<"$identity")
    endpoint=riva-${opt[deployment]}
    role=riva-${opt[deployment]}-sagemaker
    repository=riva-${opt[deployment]}
    bucket=riva-${opt[deployment]}-sm-$account-$region
    log_group=/aws/sagemaker/Endpoints/$endpoint
    scaled=endpoint/$endpoint/variant/primary
    secret=riva-${opt[deployment]}/ngc
    case $partition in aws-cn) registry=$account.dkr.ecr.$region.amazonaws.com.cn ;; *) registry=$account.dkr.ecr.$region.amazonaws.com ;; esac
    registry=${DEPLOY_REGISTRY:-$registry}
}

# check_endpoint / check_repository: one of that name that these scripts did not make is left alone
check_endpoint() {
    local there
    there=$(the_endpoint)
    if [ -n "$there" ] && [ "$(endpoint_tag riva:deployment)" != "${opt[deployment]}" ]; then
        fail "$EXIT_USAGE" "there is an endpoint $endpoint that these scripts did not make" "Name the deployment differently: --deployment"
    fi
}
check_repository() {
    local arn tags
    arn=$(look RepositoryNotFoundException ecr describe-repositories --repository-names "$repository" | jq -r '.repositories[0].repositoryArn // empty')
    if [ -z "$arn" ]; then return 0; fi
    tags=$(look RepositoryNotFoundException ecr list-tags-for-resource --resource-arn "$arn")
    is_ours "$(jq -c '.tags // []' <<<"$tags")" ||
        fail "$EXIT_USAGE" "there is a repository $repository that these scripts did not make" "Name the deployment differently: --deployment"
}

# content TEXT: twelve characters that stand for it
content() { sha256sum <<<"$1" | cut -c 1-12; }

# the_endpoint: how it is, as JSON, or nothing
the_endpoint() { look ValidationException sagemaker describe-endpoint --endpoint-name "$endpoint"; }

# endpoint_status: Creating, InService …; none: there is no endpoint. It fails where AWS does not say
endpoint_status() {
    local there
    there=$(the_endpoint) || return
    jq -r .EndpointStatus <<<"${there:-{\"EndpointStatus\": \"none\"\}}"
}

# endpoint_settled: no change of it is under way; for wait_until
endpoint_settled() {
    local status
    waiting_for='AWS does not say how it is'
    status=$(endpoint_status) || return
    waiting_for="it is $status"
    ! in_progress "$status"
}
in_progress() { case $1 in Creating | Updating | SystemUpdating | RollingBack | Deleting) ;; *) return 1 ;; esac }

# remove_endpoint: it is gone afterwards, and its name is free. One that is being made or changed, SageMaker does not
# delete: that is waited for.
remove_endpoint() {
    if dry; then
        would aws sagemaker delete-endpoint --endpoint-name "$endpoint"
        return 0
    fi
    wait_until "$REMOVE_LIMIT_S" "the end of $endpoint" endpoint_gone ||
        fail "$EXIT_UNAVAILABLE" "the endpoint $endpoint is not gone yet, and costs until it is: $waiting_for" "Run this again."
}

# endpoint_gone: for wait_until; asks for its end as soon as SageMaker does that
endpoint_gone() {
    local status err
    status=$(endpoint_status) || fail "$EXIT_FAILED" "AWS does not say whether $endpoint is gone: see above" \
        "It costs until it is. Log in again if that is it, and run this again."
    if [ "$status" = none ]; then return 0; fi
    waiting_for="it is $status"
    if [ "$status" != Deleting ] && in_progress "$status"; then waiting_for+=', and can be deleted when that has ended'; fi
    if in_progress "$status"; then return 1; fi
    waiting_for='SageMaker takes it down'
    if err=$(aws sagemaker delete-endpoint --endpoint-name "$endpoint" 2>&1); then return 1; fi
    case $err in
    *'Could not find endpoint'*) ;;
    *'in-progress endpoint'*) waiting_for='a change of it has just begun' ;;
    *) fail "$EXIT_FAILED" "the endpoint $endpoint cannot be deleted, and costs on" "$(tail -n 1 <<<"$err")" ;;
    esac
    return 1
}

# told_gone ARGUMENTS…: like told_or, for what SageMaker is to delete. Its one error code means that there is none, and
# also that it will not: its words tell
told_gone() {
    local err status=0
    if dry; then
        would aws "$@"
        return 0
    fi
    err=$(aws "$@" 2>&1 >/dev/null) || status=$?
    if ((status == 0)) || [[ $err == *'Could not find'* ]]; then return 0; fi
    printf '%s\n' "$err" >&2
    return "$status"
}

# endpoint_tag KEY: the value of a tag of the endpoint's, or nothing
endpoint_tag() {
    look ValidationException sagemaker list-tags --resource-arn "$(endpoint_arn)" |
        jq -r --arg key "$1" '.Tags[]? | select(.Key == $key) | .Value'
}
endpoint_arn() { printf 'arn:%s:sagemaker:%s:%s:endpoint/%s' "$partition" "$region" "$account" "$endpoint"; }

# ours KIND: names of this deployment's models or endpoint-configs, by their content, a line each
ours() {
    local list=$1 field
    case $list in models) field=ModelName ;; *) field=EndpointConfigName ;; esac
    aws sagemaker "list-$list" --name-contains "$endpoint-" --output json |
        jq -r --arg field "$field" --arg like "^$endpoint-[0-9a-f]{12}\$" '.[] | .[]? | .[$field] | select(test($like))'
}

# price INSTANCE_TYPE: about how many dollars an hour; SageMaker takes a quarter more than EC2 does
price() {
    local usd
    usd=$(price_of "${1#ml.}")
    if [ -n "$usd" ]; then times "$usd" 1.25; fi
}

# nim_cell COLUMN: what the chosen profile says there; the script ends in words where there is no such profile
nim_cell() {
    local found=''
    if [ "${opt[profile]}" != classic ]; then found=$(table "$NIM_PROFILES" "${opt[profile]}" "$1"); fi
    [ -n "$found" ] || fail "$EXIT_USAGE" "--profile '${opt[profile]}' is not known" "It knows: $(profiles | tr -d ,)"
    printf '%s' "$found"
}

# fits INSTANCE_TYPE: the script ends in words where no NIM runs on it
fits() {
    local gpu verdict
    [[ $1 == ml.* ]] || fail "$EXIT_USAGE" "--type '$1' is not one of SageMaker's" "They begin with ml.: ml.g6.2xlarge"
    [[ $1 != ml.gr6.* ]] || fail "$EXIT_USAGE" "SageMaker has no $1: those are EC2's alone" "Take ml.g6.4xlarge or ml.g6.8xlarge."
    verdict=$(table "$INSTANCE_TYPES" "${1#ml.}" verdict)
    gpu=$(table "$INSTANCE_TYPES" "${1#ml.}" gpu)
    case $verdict in
    '') warn "nobody has tried $1; a NIM needs 16 GB of GPU memory and compute capability 8.0" ;;
    refused*) fail "$EXIT_USAGE" "$1 ($gpu) is no machine for a NIM" "${verdict#refused: }" "Take ml.g6.2xlarge or ml.g5.2xlarge." ;;
    esac
}

# print_call WORDS…: the aws command, as one can type it
print_call() {
    local word line=aws
    for word in "$@"; do
        if [[ ! $word =~ ^[A-Za-z0-9_./:=,@%+-]+$ ]]; then word=${word@Q}; fi
        line+=" $word"
    done
    printf '%s\n' "$line" >&2
}

# as_json FILE [LANGUAGE]: a recording as JSON with base64 in it, on stdout
as_json() { base64 <"$1" | tr -d '\n' | jq -Rc --arg language "${2:-en-US}" '{audio: ., language_code: $language}'; }

# answered FILE: an answer with predictions in it
answered() { jq -e '.predictions[0].results | length > 0' "$1" >/dev/null 2>&1; }

# smoke: one recording is sent; returns 1 where no transcript comes back
smoke() {
    local out=$SCRATCH/answer
    if dry; then
        say "would send $(basename "$CLIP") and look at the answer"
        return 0
    fi
    as_json "$CLIP" >"$SCRATCH/clip.json"
    if is_async; then
        call_async "$SCRATCH/clip.json" application/json "$out" || return 1
    else
        aws sagemaker-runtime invoke-endpoint --endpoint-name "$endpoint" --content-type application/json \
            --cli-read-timeout "$CALL_LIMIT_S" --body "fileb://$SCRATCH/clip.json" "$out" >/dev/null || return 1
    fi
    if ! answered "$out"; then
        warn "the answer is no transcript: $(head -c 300 "$out" | tr -d '\n')"
        return 1
    fi
    say "heard: $(jq -r '[.predictions[0].results[].alternatives[0].transcript] | join(" ")' "$out")"
}

# is_async: the endpoint takes its recordings from S3
is_async() {
    look ValidationException sagemaker describe-endpoint-config --endpoint-config-name "$(the_endpoint | jq -r '.EndpointConfigName // "none"')" |
        jq -e '.AsyncInferenceConfig != null' >/dev/null
}

# call_async FILE CONTENT_TYPE OUT [MORE…]: puts a recording into the bucket, and waits for what becomes of it
call_async() {
    local file=$1 type=$2 out=$3 key places
    key=sagemaker/in/$(date -u +%Y%m%dT%H%M%S)-$RANDOM
    shift 3
    aws s3api put-object --bucket "$bucket" --expected-bucket-owner "$account" --key "$key" --content-type "$type" --body "$file" >/dev/null || return
    places=$(aws sagemaker-runtime invoke-endpoint-async --endpoint-name "$endpoint" --content-type "$type" \
        --invocation-timeout-seconds "$ASYNC_LIMIT_S" --input-location "s3://$bucket/$key" "$@" --output json) || return
    say "the result will be at $(jq -r .OutputLocation <<<"$places")"
    say 'an endpoint without an instance wakes first: 20 to 40 minutes'
    say "if it fails, why: $(jq -r '.FailureLocation // "the log alone says it"' <<<"$places")"
    if ! wait_until "${opt[wait]:-$ASYNC_WAIT_S}" 'the result in S3' async_done "$places" "$out"; then
        warn "there is no result yet; it may still come: aws s3 cp $(jq -r .OutputLocation <<<"$places") -"
        return 1
    fi
    if [ -e "$out.failed" ]; then
        warn "SageMaker could not do it: $(head -c 500 "$out.failed")"
        rm -f "$out.failed"
        return 1
    fi
}

async_done() {
    local place
    place=$(jq -r .OutputLocation <<<"$1")
    if fetch "$place" "$2"; then return 0; fi
    place=$(jq -r '.FailureLocation // empty' <<<"$1")
    waiting_for='none yet'
    [ -n "$place" ] && fetch "$place" "$2.failed"
}

# fetch S3_ADDRESS FILE: returns 1 where it is not there yet
fetch() {
    local path=${1#s3://}
    aws s3api get-object --bucket "${path%%/*}" --key "${path#*/}" "$2" >/dev/null 2>&1
}
