# shellcheck shell=bash disable=SC2154 # opt, bucket, registry, repository, role…: deploy.sh, sagemaker.sh, riva-320
# What an endpoint runs: as it is, and as it is asked for. Sourced after sagemaker-scaling.sh.
#
# A version is {variant, async, container}, in SageMaker's own words. What the command line does not say stays as the
# endpoint has it ($there, a version, or nothing), and both can be shown side by side before anything is changed.

# version_of CONFIG: the version that is called so
version_of() {
    local config container
    config=$(aws sagemaker describe-endpoint-config --endpoint-config-name "$1" --output json)
    container=$(look ValidationException sagemaker describe-model \
        --model-name "$(jq -r '.ProductionVariants[0].ModelName' <<<"$config")" | jq -c .PrimaryContainer)
    as_version "$(jq -c '.ProductionVariants' <<<"$config")" "$(jq -c '.AsyncInferenceConfig' <<<"$config")" "$container"
}

# as_version VARIANTS ASYNC CONTAINER: each as JSON, or nothing
as_version() {
    jq -cn --argjson variants "$1" --argjson async "${2:-null}" --argjson container "${3:-null}" \
        '{variant: $variants[0], async: $async, container: $container}'
}

# differences OLD NEW: "type  ml.g6.2xlarge → ml.g5.2xlarge", a line for each
differences() {
    jq -rn --argjson old "$1" --argjson new "$2" '
        def shown: {type: .variant.InstanceType, instances: .variant.InitialInstanceCount, image: .container.Image,
            ami: .variant.InferenceAmiVersion, "start-timeout": .variant.ContainerStartupHealthCheckTimeoutInSeconds,
            "max-concurrent": .async.ClientConfig.MaxConcurrentInvocationsPerInstance,
            topic: .async.OutputConfig.NotificationConfig.SuccessTopic} + (.container.Environment // {});
        ($old | shown) as $a | ($new | shown) as $b | $a + $b | keys_unsorted[] | select($a[.] != $b[.])
        | "\(.)  \($a[.] // "none") → \($b[.] // "none")"'
}

# unsaid NAME FILTER FIRST: a flag that was not given is what FILTER finds in $there, and FIRST for a new endpoint
unsaid() {
    local found=''
    if [ -n "${opt[$1]}" ]; then return 0; fi
    if [ -n "$there" ]; then found=$(jq -r "$2 // empty" <<<"$there"); fi
    opt[$1]=${found:-$3}
}

# stay: fills in what the command line does not say
stay() {
    if [ -n "$there" ]; then same_kind; fi
    unsaid type .variant.InstanceType ml.g6.2xlarge
    unsaid instances .variant.InitialInstanceCount 1
    unsaid ami .variant.InferenceAmiVersion "$SM_AMI"
    unsaid start_timeout .variant.ContainerStartupHealthCheckTimeoutInSeconds 2400
    unsaid max_concurrent .async.ClientConfig.MaxConcurrentInvocationsPerInstance 4
    unsaid topic .async.OutputConfig.NotificationConfig.SuccessTopic none
    if [ "${opt[topic]}" = none ]; then opt[topic]=''; fi
}

# same_kind: an endpoint answers itself or reads from S3; callers of the one cannot call the other
same_kind() {
    local is
    is=$(jq -r 'if .async then "yes" else "no" end' <<<"$there")
    if [ "${opt[async]}" = yes ] && [ "$is" = no ]; then
        fail "$EXIT_USAGE" "$endpoint answers its callers itself, and does not become one that reads from S3 (--async)" \
            "Those who call it would all fail. Make another one beside it: --deployment ${opt[deployment]}-files"
    fi
    if [ "$is" = yes ] && [ "${opt[async]}" = no ]; then
        say "it goes on to read recordings from S3; one that answers its callers itself is another deployment: --deployment NAME"
    fi
    opt[async]=$is
}

# image: --image; unsaid, what the endpoint has; for a new one, or where --profile wants another, what was pushed last
image() {
    local had='' of='' newest
    if [ -n "${opt[image]}" ] && [ "${opt[image]}" != newest ]; then
        printf '%s' "${opt[image]}"
        return
    fi
    if [ -n "$there" ] && [ -z "${opt[image]}" ]; then had=$(jq -r '.container.Image // empty' <<<"$there"); fi
    if [ -n "$had" ] && [ -n "${opt[profile]}" ]; then of=$(profile_in "$had"); fi
    newest=$(newest_image)
    if [ -n "$had" ] && { [ -z "$of" ] || [ "$of" = "${opt[profile]}" ]; }; then
        if [[ -n $newest && $had == "${newest%@*}"@* && $had != "$newest" ]]; then
            say "its image stays; $repository has a newer one: --image newest"
        fi
        printf '%s' "$had"
        return
    fi
    if [ -z "$newest" ] && dry; then newest=$registry/$repository@'<digest>'; fi
    [ -n "$newest" ] || fail "$EXIT_USAGE" "there is no image${opt[profile]:+ of ${opt[profile]}} in $repository" \
        "Make one: $(command_for riva-300-sagemaker-image.sh)${opt[profile]:+ --profile ${opt[profile]}}"
    printf '%s' "$newest"
}

# newest_image: what was pushed last; of --profile, or of none that is known, where that is said
newest_image() {
    look RepositoryNotFoundException ecr describe-images --repository-name "$repository" |
        jq -r --arg at "$registry/$repository" --arg profile "${opt[profile]}" '[.imageDetails[]?] | sort_by(.imagePushedAt)
            | map(select($profile == "" or ([.imageTags[]? | capture("^(?<of>[a-z]+)-[0-9a-f]{12}$").of | select(. != "copy")]
                | (length == 0 or any(. == $profile)))))
            | last | if . then "\($at)@\(.imageDigest)" else empty end'
}

# profile_in IMAGE: which models are in it, by the tag that riva-300 gave it; nothing where that is not known
profile_in() {
    local path=${1#"$registry/"}
    [[ $path =~ ^[a-z0-9/-]+@sha256:[0-9a-f]{64}$ ]] || return 0
    look 'ImageNotFoundException|RepositoryNotFoundException' ecr describe-images --repository-name "${path%@*}" \
        --image-ids "imageDigest=${path#*@}" |
        jq -r '[.imageDetails[]?.imageTags[]? | capture("^(?<of>[a-z]+)-[0-9a-f]{12}$").of | select(. != "copy")][0] // empty'
}

# selector: what the NIM loads: --selector, that of --profile, what the endpoint has, or that of the image's profile
selector() {
    local of had='' has=''
    if [ -n "${opt[selector]}" ]; then
        printf '%s' "${opt[selector]}"
        return
    fi
    if [ -n "$there" ]; then
        had=$(jq -r '.container.Environment.NIM_TAGS_SELECTOR // empty' <<<"$there")
        has=$(jq -r '.container.Image // empty' <<<"$there")
    fi
    if [ -n "$had" ] && [ "$has" = "$image" ] && [ -z "${opt[profile]}" ]; then
        printf '%s' "$had"
        return
    fi
    of=$(profile_in "$image")
    if [ -n "${opt[profile]}" ]; then
        if [ -n "$of" ] && [ "$of" != "${opt[profile]}" ]; then
            fail "$EXIT_USAGE" "the image has the models of '$of', and none of --profile '${opt[profile]}'" "$image" \
                "Make one that has: $(command_for riva-300-sagemaker-image.sh) --profile ${opt[profile]}"
        fi
        nim_cell selector
        return
    fi
    if [ -n "$had" ] && { [ -z "$of" ] || [ "$(profile_in "$has")" = "$of" ]; }; then
        printf '%s' "$had"
        return
    fi
    opt[profile]=${of:-rnnt}
    nim_cell selector
}

# environment SELECTOR START_TIMEOUT_SAID: what the container is told, as JSON. A model's environment can be read by
# whoever may describe it: a secret is named in it and never given.
environment() {
    local pair said='{}' had='{}'
    for pair in ${opt[env]//,/ }; do
        [[ $pair =~ ^[A-Z][A-Z0-9_]*= ]] || fail "$EXIT_USAGE" "--env has a part that is not KEY=value" "Write KEY=value,KEY=value."
        if [[ ${pair%%=*} =~ (KEY|SECRET|TOKEN|PASSWORD|METADATA|HEADERS|DATABASE_URL)$ && -n ${pair#*=} && ${pair#*=} != aws-sm:* ]]; then
            fail "$EXIT_USAGE" "--env ${pair%%=*}: a secret does not belong into a model's environment" \
                "Put it into Secrets Manager, let the role read it, and write ${pair%%=*}=aws-sm:ID."
        fi
        said=$(jq -c --arg key "${pair%%=*}" --arg value "${pair#*=}" '.[$key] = $value' <<<"$said")
    done
    if [ -n "$there" ]; then had=$(jq -c '.container.Environment // {} | del(.NIM_TAGS_SELECTOR)' <<<"$there"); fi
    if [ -n "$2" ]; then had=$(jq -c 'del(.NIM_START_TIMEOUT_MS)' <<<"$had"); fi
    jq -cSn --arg secret "aws-sm:$secret" --arg selector "$1" --arg region "$region" --argjson had "$had" --argjson said "$said" \
        --arg ms "$(((10#${opt[start_timeout]} - 60) * 1000))" --arg async "${opt[async]}" '
        {NGC_API_KEY: $secret, NIM_TAGS_SELECTOR: $selector, NIM_START_TIMEOUT_MS: $ms, AWS_DEFAULT_REGION: $region}
        + if $async == "yes" then {SAGEMAKER_MAX_BYTES: "1073741824", SAGEMAKER_TIMEOUT_MS: "3540000", MAX_AUDIO_MS: "43200000"}
          else {} end
        + ($had | with_entries(select($said[.key] != ""))) + ($said | with_entries(select(.value != "")))'
}

variants() {
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

# hourly TYPE: what it costs, as one says it
hourly() {
    local usd
    usd=$(price "$1")
    printf '%s' "${usd:+about \$$usd an hour}"
    [ -n "$usd" ] || printf 'a price that is not known here'
}

# check_image: SageMaker pulls from ECR alone, and what it pulls must be a gateway's
check_image() {
    if [[ $image == *.dkr.ecr.*/* || $image == "$registry"/* ]]; then return 0; fi
    fail "$EXIT_USAGE" "SageMaker cannot pull $image: it takes images from ECR alone" \
        "One of NVIDIA's: $(command_for riva-300-sagemaker-image.sh) --nim-image $image" \
        "One of a gateway that is built already: the same with --image, which copies it"
}

# check_rights: the role may do what this version needs, and its bucket is there. Unasked, it would be seen when the
# machine has run, and cost, for half an hour.
check_rights() {
    local policy needed path=${image#"$registry/"} more=''
    local -a grants=()
    if dry; then return 0; fi
    if [ "${opt[async]}" = yes ]; then more=" --async${opt[topic]:+ --topic ${opt[topic]}}"; fi
    path=${path%%[:@]*}
    if [[ $image == "$registry"/* && $path == riva-* && $path != "$repository" ]]; then more+=" --image-of ${path#riva-}"; fi
    more=$(command_for riva-310-sagemaker-role.sh)$more
    if [[ $image == "$registry"/* && $path != riva-* ]]; then
        fail "$EXIT_USAGE" "the image is in a repository that these scripts did not make, which the role may not use" \
            "Have it copied: $(command_for riva-300-sagemaker-image.sh) --image $image"
    fi
    [ -n "$(look NoSuchEntity iam get-role --role-name "$role")" ] || fail "$EXIT_USAGE" "there is no role $role" "Make it: $more"
    policy=$(look NoSuchEntity iam get-role-policy --role-name "$role" --policy-name endpoint | jq -c '[.PolicyDocument | .. | strings]')
    if [[ $image == "$registry"/* ]]; then grants+=(":repository/$path"); fi
    if [ "${opt[async]}" = yes ]; then grants+=("s3:::$bucket/sagemaker/in/*"); fi
    if [ -n "${opt[topic]}" ]; then grants+=("${opt[topic]}"); fi
    for needed in "${grants[@]}"; do
        jq -e --arg needed "$needed" 'any(endswith($needed))' >/dev/null <<<"${policy:-[]}" ||
            fail "$EXIT_USAGE" "the role $role may not use what this endpoint needs: ${needed#:}" "Let it: $more"
    done
    if [ "${opt[async]}" = no ]; then return 0; fi
    if [ -z "$(look 'NoSuchBucket|404' s3api get-bucket-location --bucket "$bucket" --expected-bucket-owner "$account")" ] ||
        ! bucket_is_ours "$bucket"; then
        fail "$EXIT_USAGE" "there is no bucket $bucket for recordings and results" "Make it: $more"
    fi
}
