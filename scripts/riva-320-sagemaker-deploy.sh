#!/usr/bin/env bash
# The endpoint: model, configuration, endpoint; changed in place, and put back where the new one fails.
. "$(dirname "${BASH_SOURCE[0]}")/lib/deploy.sh"
. "$LIB/role.sh"
. "$LIB/sagemaker.sh"
. "$LIB/sagemaker-scaling.sh"

about 'Makes the endpoint or changes it, and sends it one recording. Prints its name.' \
    'Where the new version does not come up or does not recognize, the former one is put back (exit status 4).' \
    'While it changes, both versions run and cost. Take it down: riva-390-sagemaker-destroy.sh.' \
    "--ami: the driver of SageMaker's usual images is too old (470 on ml.g5); a NIM wants 535 or newer, and this has 580."
flag image IMAGE '' 'the image with its digest; unset: the newest in the repository of this deployment'
flag profile NAME rnnt 'which models the NIM loads: a name of lib/nim-profiles.tsv'
flag selector TEXT '' 'the same as a NIM writes it (NIM_TAGS_SELECTOR)'
flag type TYPE ml.g6.2xlarge 'the machine; a NIM needs one GPU'
flag instances N 1 'how many at first'
flag max-instances N '' 'as many as the load wants, up to this; the same as --instances: no more scaling'
flag target N '' "what an instance is to carry: calls a minute (30), with --async recordings that wait (5)"
flag ami NAME "$SM_AMI" 'the machine image with the GPU driver'
flag start-timeout SECONDS 2400 'until it must be ready, 120 to 3600: a NIM loads its models'
flag env PAIRS '' 'further settings of the gateway: KEY=value,KEY=value; secrets as KEY=aws-sm:ID alone'
switch async 'recordings come from S3, up to an hour each; for long or large ones'
flag max-concurrent N 4 'with --async: recordings at a time on an instance'
flag topic ARN '' 'with --async: an SNS topic that is told of results and failures'
switch auto-stop 'with --async: no instance while nothing waits (the first recording then waits minutes)'
switch rollback 'go back to the version before this one'
switch no-smoke 'send no recording'
parse "$@"
needs aws jq sha256sum

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
    if [ "${opt[auto_stop]}" = yes ] && [ "${opt[async]}" = no ]; then
        fail "$EXIT_USAGE" "--auto-stop is for --async alone: SageMaker keeps an instance of every other endpoint running" \
            "Take the endpoint down when it is not needed: riva-390-sagemaker-destroy.sh --keep-image"
    fi
    if [ -n "${opt[topic]}" ] && [ "${opt[async]}" = no ]; then fail "$EXIT_USAGE" "--topic is for --async alone"; fi
}

# image: --image, or what was pushed last
image() {
    local found
    if [ -n "${opt[image]}" ]; then
        printf '%s' "${opt[image]}"
        return
    fi
    found=$(look 'RepositoryNotFoundException' ecr describe-images --repository-name "$repository" |
        jq -r '[.imageDetails[]?] | sort_by(.imagePushedAt) | last | .imageDigest // empty')
    if [ -z "$found" ] && dry; then found='<digest>'; fi
    [ -n "$found" ] || fail "$EXIT_USAGE" "there is no image in $repository" "Make one: riva-300-sagemaker-image.sh --deployment ${opt[deployment]}"
    printf '%s/%s@%s' "$registry" "$repository" "$found"
}

# environment: what the container is told, as JSON. A model's environment can be read by whoever may describe it: a
# secret is named in it and never given.
environment() {
    local pair extra='{}'
    for pair in ${opt[env]//,/ }; do
        [[ $pair =~ ^[A-Z][A-Z0-9_]*=.+$ ]] || fail "$EXIT_USAGE" "--env has a part that is not KEY=value" "Write KEY=value,KEY=value."
        if [[ ${pair%%=*} =~ (KEY|SECRET|TOKEN|PASSWORD|METADATA|HEADERS|DATABASE_URL)$ && ${pair#*=} != aws-sm:* ]]; then
            fail "$EXIT_USAGE" "--env ${pair%%=*}: a secret does not belong into a model's environment" \
                "Put it into Secrets Manager, let the role read it, and write ${pair%%=*}=aws-sm:ID."
        fi
        extra=$(jq -c --arg key "${pair%%=*}" --arg value "${pair#*=}" '.[$key] = $value' <<<"$extra")
    done
    jq -cSn --arg secret "aws-sm:$secret" --arg selector "${opt[selector]:-$(nim_cell selector)}" --arg region "$region" \
        --arg ms "$(((10#${opt[start_timeout]} - 60) * 1000))" --arg async "${opt[async]}" --argjson more "$extra" '
        {NGC_API_KEY: $secret, NIM_TAGS_SELECTOR: $selector, NIM_START_TIMEOUT_MS: $ms, AWS_DEFAULT_REGION: $region}
        + if $async == "yes" then {SAGEMAKER_MAX_BYTES: "1073741824", SAGEMAKER_TIMEOUT_MS: "3540000", MAX_AUDIO_MS: "43200000"}
          else {} end + $more'
}

variant() {
    jq -cSn --arg model "$1" --arg type "${opt[type]}" --argjson count "$((10#${opt[instances]}))" --arg ami "${opt[ami]}" \
        --argjson limit "$((10#${opt[start_timeout]}))" '[{VariantName: "primary", ModelName: $model, InstanceType: $type,
            InitialInstanceCount: $count, InitialVariantWeight: 1, InferenceAmiVersion: $ami,
            ContainerStartupHealthCheckTimeoutInSeconds: $limit, ModelDataDownloadTimeoutInSeconds: 600}]'
}

async_settings() {
    if [ "${opt[async]}" = no ]; then return 0; fi
    jq -cSn --arg bucket "$bucket" --argjson most "$((10#${opt[max_concurrent]}))" --arg topic "${opt[topic]}" '
        {ClientConfig: {MaxConcurrentInvocationsPerInstance: $most}, OutputConfig: ({
            S3OutputPath: "s3://\($bucket)/sagemaker/out", S3FailurePath: "s3://\($bucket)/sagemaker/failed"}
            + if $topic == "" then {} else {NotificationConfig: {SuccessTopic: $topic, ErrorTopic: $topic}} end)}'
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

ensure_model() {
    local arn=arn:$partition:iam::$account:role/$role container
    container=$(jq -cSn --arg image "$image" --argjson env "$environment" '{Image: $image, Environment: $env}')
    model=$endpoint-$(content "$container $arn")
    if [ -n "$(look ValidationException sagemaker describe-model --model-name "$model")" ]; then
        kept "model $model"
        return
    fi
    # shellcheck disable=SC2046 # words
    soon sagemaker create-model --model-name "$model" --execution-role-arn "$arn" --primary-container "$container" --tags $(tags)
    made "model $model"
}

ensure_config() {
    local variants async
    local -a more=()
    variants=$(variant "$model")
    async=$(async_settings)
    if [ -n "$async" ]; then more=(--async-inference-config "$async"); fi
    config=$endpoint-$(content "$variants $async")
    if [ -n "$(look ValidationException sagemaker describe-endpoint-config --endpoint-config-name "$config")" ]; then
        kept "configuration $config"
        return
    fi
    # shellcheck disable=SC2046 # words
    soon sagemaker create-endpoint-config --endpoint-config-name "$config" --production-variants "$variants" "${more[@]}" --tags $(tags)
    made "configuration $config"
}

# settle: waits until no change is under way
settle() {
    if wait_until "$((10#${opt[start_timeout]} + 1800))" "the endpoint $endpoint" endpoint_settled; then return 0; fi
    resume_scaling || warn "it does not scale any more: say --max-instances again"
    fail "$EXIT_UNAVAILABLE" "the endpoint $endpoint has not settled" "Look: riva-340-sagemaker-status.sh. Then run this again."
}

# serves CONFIG: the endpoint serves with that configuration
serves() { dry || the_endpoint | jq -e --arg config "$1" '.EndpointStatus == "InService" and .EndpointConfigName == $config' >/dev/null; }

why_not() { the_endpoint | jq -r '.FailureReason // "SageMaker gives no reason; the log of the container may."'; }

create() {
    local why
    confirm "${opt[instances]} × ${opt[type]} run from now on, at about \$$(price "${opt[type]}") an hour each. Go on?"
    # shellcheck disable=SC2046 # words
    soon sagemaker create-endpoint --endpoint-name "$endpoint" --endpoint-config-name "$config" --tags $(tags) ||
        fail "$EXIT_FAILED" "the endpoint could not be made: see above" \
            "ResourceLimitExceeded: ask for more of '${opt[type]} for endpoint usage' in the console's Service Quotas."
    say 'a NIM takes 10 to 30 minutes to load'
    settle
    if ! serves "$config"; then
        why=$(why_not)
        remove_endpoint
        case $why in
        *[Cc]apacity*) fail "$EXIT_UNAVAILABLE" "AWS has no ${opt[type]} now" "$why" "Run this again later, or take another: --type ml.g5.2xlarge" ;;
        esac
        fail "$EXIT_FAILED" "the endpoint did not come up, and was taken away again" "$why" "$(log_hint)"
    fi
    made "endpoint $endpoint"
    if ! smoked; then fail "$EXIT_FAILED" "the endpoint runs and does not recognize" "$(log_hint)" "It costs: riva-390-sagemaker-destroy.sh takes it down."; fi
}

# go_over TO: the endpoint changes to that configuration, and has settled; load that is there keeps its instances
go_over() {
    local -a keep=()
    if is_scaled_out "$1"; then keep=(--retain-all-variant-properties); fi
    if told_or '' sagemaker update-endpoint --endpoint-name "$endpoint" --endpoint-config-name "$1" "${keep[@]}"; then settle; fi
}

# change TO: from the configuration $former; goes back where that fails
change() {
    confirm "Change $endpoint? While it changes both versions run, at about \$$(price "${opt[type]}") an hour and instance."
    rest_scaling "$former" "$1"
    go_over "$1"
    if serves "$1" && smoked; then
        resume_scaling
        told_or '' sagemaker add-tags --resource-arn "$(endpoint_arn)" --tags "Key=riva:config-before,Value=$former"
        made "endpoint $endpoint with $1; before: $former"
        return
    fi
    warn "$1 does not serve: $(why_not)"
    go_back
}

# go_back: $former serves again, and that is seen
go_back() {
    step "Going back to $former"
    if ! serves "$former"; then # SageMaker may have gone back by itself
        go_over "$former"
    fi
    resume_scaling
    serves "$former" || fail "$EXIT_FAILED" "the endpoint could not be put back" "$(why_not)" "$(log_hint)"
    prune
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
    change "$to"
    prune
}

sm_names
check_flags
check_endpoint
if [ "${opt[rollback]}" = yes ]; then
    roll_back
    printf '%s\n' "$endpoint"
    exit
fi
environment=$(environment)
image=$(image)
step 'Model and configuration'
if [ -z "$(look NoSuchEntity iam get-role --role-name "$role")" ] && ! dry; then
    fail "$EXIT_USAGE" "there is no role $role" "Make it: riva-310-sagemaker-role.sh --deployment ${opt[deployment]}$([ "${opt[async]}" = no ] || printf ' --async')"
fi
model='' config='' former=''
ensure_model
ensure_config
step "Endpoint ($endpoint)"
before=$(the_endpoint)
if [[ $(jq -r '.EndpointStatus // "none"' <<<"$before") =~ ing$ ]]; then
    settle
    before=$(the_endpoint)
fi
former=$(jq -r '.EndpointConfigName // empty' <<<"$before")
if [ "$(jq -r '.EndpointStatus // empty' <<<"$before")" = Failed ]; then
    remove_endpoint
    former=''
fi
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
