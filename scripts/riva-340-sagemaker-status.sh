#!/usr/bin/env bash
# How the endpoint is, what it costs, and what there is besides.
. "$(dirname "${BASH_SOURCE[0]}")/lib/deploy.sh"
. "$LIB/role.sh"
. "$LIB/sagemaker.sh"
. "$LIB/sagemaker-scaling.sh"

about 'Shows the endpoint: its state, its version and the one before, instances, cost, scaling, and the end of its log.' \
    'Exit status 0: it serves; 3: it does not, or there is none.'
flag log N 5 'lines of its log; 0: none'
parse "$@"
needs aws jq

line() { printf '%-14s %s\n' "$1" "$2"; }

show_versions() {
    local config=$1 said model
    said=$(look ValidationException sagemaker describe-endpoint-config --endpoint-config-name "$config")
    model=$(jq -r '.ProductionVariants[0].ModelName // empty' <<<"$said")
    type=$(jq -r '.ProductionVariants[0].InstanceType // "?"' <<<"$said")
    line version "$config"
    line before "$(endpoint_tag riva:config-before | grep . || echo none)"
    line image "$(ask sagemaker describe-model --model-name "$model" --query PrimaryContainer.Image)"
    line kind "$(jq -r 'if .AsyncInferenceConfig then "asynchronous: recordings from S3" else "real-time" end' <<<"$said")"
}

show_cost() {
    local running=$1 each
    each=$(price "$type")
    line instances "$running × $type"
    if [ -n "$each" ]; then
        line cost "about \$$(awk -v n="$running" -v each="$each" 'BEGIN { printf "%.2f an hour, $%.0f a month", n * each, n * each * 730 }') (us-east-1)"
    fi
}

show_scaling() {
    local there
    there=$(scalable)
    if [ -n "$there" ]; then
        line scaling "$(jq -r '"\(.MinCapacity) to \(.MaxCapacity) instances"' <<<"$there")"
    else
        line scaling 'none'
    fi
}

show_log() {
    if ((10#${opt[log]} == 0)); then return 0; fi
    line log "$log_group"
    look ResourceNotFoundException logs filter-log-events --log-group-name "$log_group" --start-time "$((($(date +%s) - 3600) * 1000))" |
        jq -r '.events[]?.message' | tail -n "$((10#${opt[log]}))" | cut -c 1-300 | sed 's/^/  /'
}

[[ ${opt[log]} =~ ^[0-9]{1,4}$ ]] || fail "$EXIT_USAGE" "--log '${opt[log]}' is not a number of lines"
sm_names
there=$(the_endpoint)
[ -n "$there" ] || fail "$EXIT_UNAVAILABLE" "there is no endpoint $endpoint in $region" "Make one: $(command_for riva-320-sagemaker-deploy.sh)"
status=$(jq -r .EndpointStatus <<<"$there")
type='?'
line endpoint "$endpoint"
line status "$status"
if [ "$(jq -r '.FailureReason // empty' <<<"$there")" ]; then line reason "$(jq -r .FailureReason <<<"$there")"; fi
show_versions "$(jq -r .EndpointConfigName <<<"$there")"
show_cost "$(jq -r '.ProductionVariants[0].CurrentInstanceCount // 0' <<<"$there")"
show_scaling
show_log
[ "$status" = InService ] || exit "$EXIT_UNAVAILABLE"
