#!/usr/bin/env bash
# The endpoint: model, configuration, endpoint; changed in place, and put back where the new one fails.
. "$(dirname "${BASH_SOURCE[0]}")/lib/deploy.sh"
. "$LIB/role.sh"
. "$LIB/sagemaker.sh"
. "$LIB/sagemaker-scaling.sh"
. "$LIB/sagemaker-version.sh"

about 'Makes the endpoint or changes it, and sends it one recording. Prints its name.' \
    'Where the new version does not come up or does not recognize, the former one is put back (exit status 4).' \
    'While it changes, both versions run and cost. Take it down: riva-390-sagemaker-destroy.sh.' \
    'What the flags do not say stays as the endpoint has it; in brackets: what a new one gets.' \
    "--ami: the driver of SageMaker's usual images is too old (470 on ml.g5); a NIM wants 535 or newer, and this has 580."
flag image IMAGE '' 'the image with its digest, or: newest (the newest in the repository of this deployment)'
flag profile NAME '' "which models the NIM loads: a name of lib/nim-profiles.tsv (the image's)"
flag selector TEXT '' 'the same as a NIM writes it (NIM_TAGS_SELECTOR)'
flag type TYPE '' 'the machine; a NIM needs one GPU (ml.g6.2xlarge)'
flag instances N '' 'how many at first, and at least where they scale (1)'
flag max-instances N '' 'as many as the load wants, up to this; the same as --instances: no more scaling'
flag target N '' "what an instance is to carry: calls a minute (30), with --async recordings that wait (5)"
flag ami NAME '' "the machine image with the GPU driver ($SM_AMI)"
flag start-timeout SECONDS '' 'until it must be ready, 120 to 3600: a NIM loads its models (2400)'
flag env PAIRS '' 'further settings of the gateway: KEY=value,KEY=value (KEY=: no longer); secrets as KEY=aws-sm:ID alone'
switch async 'recordings come from S3, up to an hour each; for long or large ones'
flag max-concurrent N '' 'with --async: recordings at a time on an instance (4)'
flag topic ARN '' 'with --async: an SNS topic that is told of results and failures, or: none (none)'
switch auto-stop 'with --async: no instance while nothing waits (the first recording then waits minutes)'
switch rollback 'go back to the version before this one'
switch no-smoke 'send no recording'
parse "$@"
needs aws jq sha256sum
SETTLE_LIMIT_S=5400 # the longest start (an hour), with its machine and its image

in_range() {
    if [[ ${opt[$1]} =~ ^[0-9]{1,6}$ ]] && ((10#${opt[$1]} >= $2 && 10#${opt[$1]} <= $3)); then return 0; fi
    fail "$EXIT_USAGE" "--${1//_/-} '${opt[$1]}' must be a number from $2 to $3"
}

check_flags() {
    in_range instances 1 100
    in_range start_timeout 120 3600
    in_range max_concurrent 1 1000
    if [ -n "${opt[max_instances]}" ]; then in_range max_instances "${opt[instances]}" 100; fi
    if [ -n "${opt[target]}" ]; then in_range target 1 100000; fi
    fits "${opt[type]}"
    if [ -n "${opt[profile]}" ]; then nim_cell selector >/dev/null; fi
    if [ "${opt[auto_stop]}" = yes ] && [ "${opt[async]}" = no ]; then
        fail "$EXIT_USAGE" "--auto-stop is for --async alone: SageMaker keeps an instance of every other endpoint running" \
            "Take the endpoint down when it is not needed: riva-390-sagemaker-destroy.sh --keep-image"
    fi
    if [ -n "${opt[topic]}" ] && [ "${opt[async]}" = no ]; then fail "$EXIT_USAGE" "--topic is for --async alone"; fi
}

# soon ARGUMENTS…: like told_or; a role that was just made is not known everywhere at once
soon() {
    local began=$SECONDS
    until told_or '' "$@" 2>"$SCRATCH/soon"; do
        if ((SECONDS - began > 60)) || ! grep -qiE 'assume role|access denied' "$SCRATCH/soon"; then
            cat "$SCRATCH/soon" >&2
            return 1
        fi
        sleep "${DEPLOY_POLL_S:-5}"
    done
    cat "$SCRATCH/soon" >&2 # what --dry-run says
}

# name_it ROLE_ARN: $model and $config, by what is in them, and $wanted, the version that they are
name_it() {
    local container variants async
    container=$(jq -cSn --arg image "$image" --argjson env "$environment" '{Image: $image, Environment: $env}')
    model=$endpoint-$(content "$container $1")
    variants=$(variants "$model")
    async=$(async_settings)
    config=$endpoint-$(content "$variants $async")
    wanted=$(as_version "$variants" "$async" "$container")
}

ensure_model() {
    if [ -n "$(look ValidationException sagemaker describe-model --model-name "$model")" ]; then
        kept "model $model"
        return
    fi
    # shellcheck disable=SC2046 # words
    soon sagemaker create-model --model-name "$model" --execution-role-arn "$1" --tags $(tags) \
        --primary-container "$(jq -c .container <<<"$wanted")"
    made "model $model"
}

ensure_config() {
    local -a more=()
    if [ "${opt[async]}" = yes ]; then more=(--async-inference-config "$(jq -c .async <<<"$wanted")"); fi
    if [ -n "$(look ValidationException sagemaker describe-endpoint-config --endpoint-config-name "$config")" ]; then
        kept "configuration $config"
        return
    fi
    # shellcheck disable=SC2046 # words
    soon sagemaker create-endpoint-config --endpoint-config-name "$config" --tags $(tags) \
        --production-variants "$(jq -c '[.variant]' <<<"$wanted")" "${more[@]}"
    made "configuration $config"
}

# settle: waits until no change is under way
settle() {
    if wait_until "$SETTLE_LIMIT_S" "the endpoint $endpoint" endpoint_settled; then return 0; fi
    resume_scaling || warn "it does not scale any more: say --max-instances again"
    fail "$EXIT_UNAVAILABLE" "the endpoint $endpoint has not settled" "Look: riva-340-sagemaker-status.sh. Then run this again."
}

# serves CONFIG: the endpoint serves with that configuration
serves() { dry || the_endpoint | jq -e --arg config "$1" '.EndpointStatus == "InService" and .EndpointConfigName == $config' >/dev/null; }

why_not() { the_endpoint | jq -r '.FailureReason // "SageMaker gives no reason; the log of the container may."'; }

# no_more TYPE: what to do where AWS refuses another machine
no_more() { printf "ResourceLimitExceeded: ask for more of '%s for endpoint usage' in the console's Service Quotas." "$1"; }

# no_capacity TYPE STATE REASON: the script ends where it is that AWS has none; returns 0 where it is not
no_capacity() {
    case $3 in *[Cc]apacity*) fail "$EXIT_UNAVAILABLE" "AWS has no $1 now; $2" "$3" "Run this again later, or take another: --type ml.g5.2xlarge" ;; esac
}

create() {
    local why
    # shellcheck disable=SC2046 # words
    soon sagemaker create-endpoint --endpoint-name "$endpoint" --endpoint-config-name "$config" --tags $(tags) ||
        fail "$EXIT_FAILED" "the endpoint could not be made: see above" "$(no_more "${opt[type]}")"
    say 'a NIM takes 10 to 30 minutes to load'
    settle
    if ! serves "$config"; then
        why=$(why_not)
        remove_endpoint
        no_capacity "${opt[type]}" 'nothing runs' "$why"
        fail "$EXIT_FAILED" "the endpoint did not come up, and was taken away again" "$why" "$(log_hint)"
    fi
    made "endpoint $endpoint"
    if ! smoked; then fail "$EXIT_FAILED" "the endpoint runs and does not recognize" "$(log_hint)" "It costs: riva-390-sagemaker-destroy.sh takes it down."; fi
}

# go_over TO: the endpoint changes to that configuration, and has settled; load that is there keeps its instances.
# Returns 1 where SageMaker refuses to begin.
go_over() {
    local -a keep=()
    if more_than_first "$1" "$load"; then keep=(--retain-all-variant-properties); fi
    told_or '' sagemaker update-endpoint --endpoint-name "$endpoint" --endpoint-config-name "$1" "${keep[@]}" || return
    settle
}

# agree OLD NEW: shows what would change, and asks
agree() {
    local type shown
    type=$(jq -r .variant.InstanceType <<<"$2")
    shown=$(differences "$1" "$2")
    while IFS= read -r line; do say "$line"; done <<<"${shown:-what another release of these scripts sets}"
    confirm "Change $endpoint? While it changes both versions run, $type at $(hourly "$type") and instance."
}

# change TO: from the configuration $former; goes back where that fails
change() {
    local why type
    type=$(if dry; then printf '%s' "${opt[type]}"; else machine_of "$1"; fi)
    load=$(load_now)
    rest_scaling "$former" "$1"
    if ! go_over "$1"; then
        resume_scaling
        prune
        fail "$EXIT_FAILED" "SageMaker refuses the change: see above; $former serves as before" "$(no_more "$type")" \
            'While it changes both versions run, and the quota must be enough for both.'
    fi
    if ! serves "$1"; then
        why=$(why_not)
    elif smoked; then
        resume_scaling
        told_or '' sagemaker add-tags --resource-arn "$(endpoint_arn)" --tags "Key=riva:config-before,Value=$former"
        made "endpoint $endpoint with $1; before: $former"
        return
    else
        why='it runs and does not recognize'
    fi
    warn "$1 does not serve: $why"
    go_back "$type" "$why"
}

# go_back TYPE WHY: $former serves again, and that is seen
go_back() {
    step "Going back to $former"
    if ! serves "$former"; then # SageMaker may have gone back by itself
        go_over "$former" || warn 'SageMaker refuses to go back: see above'
    fi
    resume_scaling
    serves "$former" || fail "$EXIT_FAILED" "the endpoint could not be put back" "$(why_not)" "$(log_hint)"
    prune
    no_capacity "$1" "$former serves as before" "$2"
    fail "$EXIT_ROLLED_BACK" "the new version failed; $former serves again" "$(log_hint)"
}

smoked() {
    if [ "${opt[no_smoke]}" = yes ]; then return 0; fi
    step 'One recording'
    smoke
}

log_hint() { printf 'Its log: aws logs tail %s --since 1h --region %s' "$log_group" "$region"; }

# prune: models and configurations that neither the endpoint's own nor the former one needs
prune() {
    local name keep kept_models=''
    if dry; then return 0; fi
    keep="$(the_endpoint | jq -r .EndpointConfigName) $(endpoint_tag riva:config-before)"
    for name in $(ours endpoint-configs); do
        if [[ " $keep " == *" $name "* ]]; then
            kept_models+=" $(ask sagemaker describe-endpoint-config --endpoint-config-name "$name" --query 'ProductionVariants[0].ModelName')"
        else
            told_or ValidationException sagemaker delete-endpoint-config --endpoint-config-name "$name"
            made "no longer there: configuration $name"
        fi
    done
    for name in $(ours models); do
        if [[ " $kept_models " == *" $name "* ]]; then continue; fi
        told_or ValidationException sagemaker delete-model --model-name "$name"
        made "no longer there: model $name"
    done
}

roll_back() {
    local to
    former=$(the_endpoint | jq -r '.EndpointConfigName // empty')
    to=$(endpoint_tag riva:config-before)
    [ -n "$to" ] || fail "$EXIT_USAGE" "there is no former version of $endpoint to go back to"
    step "Endpoint: back to $to"
    agree "$(version_of "$former")" "$(version_of "$to")"
    change "$to"
    prune
}

sm_names
check_endpoint
load=0 model='' config='' former='' there='' least='' most='' wanted=''
if [ "${opt[rollback]}" = yes ]; then
    roll_back
    printf '%s\n' "$endpoint"
    exit
fi
step "Endpoint ($endpoint)"
before=$(the_endpoint)
if in_progress "$(jq -r '.EndpointStatus // "none"' <<<"$before")"; then
    settle
    before=$(the_endpoint)
fi
failed=$(jq -r 'select(.EndpointStatus == "Failed") | .EndpointConfigName' <<<"$before")
former=$(jq -r 'select(.EndpointStatus != "Failed") | .EndpointConfigName' <<<"$before")
if [ -n "$former" ]; then
    there=$(version_of "$former")
elif [ -n "$failed" ]; then
    there=$(version_of "$failed" 2>/dev/null || true) # it may be gone
fi
instances_said=${opt[instances]} start_said=${opt[start_timeout]}
stay
check_flags
bounds "$instances_said"
image=$(image)
check_image
selector=$(selector)
environment=$(environment "$selector" "$start_said")
check_rights
arn=arn:$partition:iam::$account:role/$role
name_it "$arn"
if [ -z "$former" ]; then
    confirm "${opt[instances]} × ${opt[type]} run from now on, each at $(hourly "${opt[type]}"). Go on?"
elif [ "$former" != "$config" ]; then
    agree "$there" "$wanted"
fi
ensure_model "$arn"
ensure_config
if [ -n "$failed" ]; then remove_endpoint; fi
if [ -z "$former" ]; then
    create
elif [ "$former" = "$config" ]; then
    kept "endpoint $endpoint with $config"
else
    change "$config"
fi
scale
prune
printf '%s\n' "$endpoint"
