# shellcheck shell=bash disable=SC2154 # opt, SCRATCH, far_instance: deploy.sh and the scripts
# How AWS is asked and told. State lives in AWS alone: things are found by the tag riva:deployment, never by a file.
# Sourced by deploy.sh.
#
# Errors are told apart by AWS's code in the text, never by the command's exit status, which differs between versions.

export AWS_PAGER='' AWS_RETRY_MODE=${AWS_RETRY_MODE:-standard} AWS_MAX_ATTEMPTS=${AWS_MAX_ATTEMPTS:-5}

# ask ARGUMENTS…: a question to AWS as text; "None" and "null" become nothing. As text, --query is asked of each page by
# itself, and AWS likes to answer with an empty page and another one after it: a line "None" before the line that counts.
ask() {
    local out
    out=$(aws "$@" --output text) || return
    if [[ $out == *None* || $out == *null* ]]; then out=$(sed -e '/^None$/d' -e '/^null$/d' <<<"$out"); fi
    printf '%s' "$out"
}

# told ARGUMENTS…: tells AWS to change something, and prints what it says. With --dry-run it only says what it would
# do; the answer is ${placeholder:-new}, which `is_new` knows again.
told() {
    if dry; then
        would aws "$@"
        printf '%s' "${placeholder:-<new>}"
        return 0
    fi
    aws "$@"
}

# told_or CODES ARGUMENTS…: like told, without output; AWS's error codes CODES (A|B) mean that it is so already
told_or() {
    local codes=$1 err status=0
    shift
    if dry; then
        would aws "$@"
        return 0
    fi
    err=$(aws "$@" 2>&1 >/dev/null) || status=$?
    if ((status == 0)) || [[ $err =~ \(($codes)\) ]]; then return 0; fi
    printf '%s\n' "$err" >&2
    return "$status"
}

# error_code TEXT: AWS's code in what the command printed: "An error occurred (Code) when calling…"
error_code() { if [[ $1 =~ \(([A-Za-z0-9.]+)\) ]]; then printf '%s' "${BASH_REMATCH[1]}"; fi; }

# would COMMAND…: what --dry-run leaves out, as one could type it
would() {
    local typed
    as_typed "$@"
    folded 9 $' \\' '  would:' "${typed[@]}" >&2
}

# is_new ID: it is a placeholder of --dry-run; there is nothing to ask about it yet
is_new() { [[ $1 == '<'* ]]; }

# tags: for services that take Key=…,Value=… words;  ec2_tags TYPE [NAME]: for --tag-specifications
tags() { printf '%s ' "Key=riva:deployment,Value=${opt[deployment]}" 'Key=riva:by,Value=riva-gateway'; }
ec2_tags() {
    printf 'ResourceType=%s,Tags=[{Key=Name,Value=%s},{Key=riva:deployment,Value=%s},{Key=riva:by,Value=riva-gateway}]' \
        "$1" "${2:-${opt[deployment]}}" "${opt[deployment]}"
}

# mine, MADE_HERE: the two filters that find this deployment's things in EC2. One alone would find what people have given
# the deployment's tag, too, to see what it all costs together.
mine() { printf 'Name=tag:riva:deployment,Values=%s' "${opt[deployment]}"; }
MADE_HERE=Name=tag:riva:by,Values=riva-gateway

# instance [STATES]: the id of this deployment's instance, or nothing
instance() {
    ask ec2 describe-instances --filters "$(mine)" "$MADE_HERE" \
        "Name=instance-state-name,Values=${1:-pending,running,stopping,stopped}" \
        --query 'sort_by(Reservations[].Instances[], &LaunchTime)[-1].InstanceId'
}

# instance_tag ID KEY: the value of a tag, or nothing;  tag_instance ID KEY VALUE: sets it
instance_tag() {
    ask ec2 describe-tags --filters "Name=resource-id,Values=$1" "Name=key,Values=$2" --query 'Tags[0].Value'
}
tag_instance() {
    if ! dry && [ "$(instance_tag "$1" "$2")" = "$3" ]; then return 0; fi
    # As JSON: a value may come from the machine, and a comma in it begins nothing new.
    told_or '' ec2 create-tags --resources "$1" --tags "$(jq -cn --arg key "$2" --arg value "$3" '[{Key: $key, Value: $value}]')"
}

# the_instance [STATES]: like instance, and the script ends where there is none
the_instance() {
    local id
    id=$(instance "${1:-}") || exit
    if [ -z "$id" ] && dry; then id='<instance>'; fi # an earlier step would have made it
    if [ -z "$id" ] && [ -n "${1:-}" ] && [ -n "$(instance)" ]; then
        fail "$EXIT_USAGE" "the deployment '${opt[deployment]}' has no instance that is $1" \
            "There is one: $(command_for riva-130-start.sh) starts it, $(command_for riva-100-status.sh) says how it is."
    fi
    [ -n "$id" ] || fail "$EXIT_USAGE" "the deployment '${opt[deployment]}' has no instance" \
        "Make one: $(command_for riva-000-up.sh)" "See what there is: $(command_for riva-100-status.sh)"
    printf '%s' "$id"
}

# account / the_region: who and where we are; asked once, and the script ends in words where nobody is logged in
account() {
    local out
    the_region >/dev/null
    out=$(aws sts get-caller-identity --query Account --output text 2>"$SCRATCH/account") || # apart: warnings go there, too
        fail "$EXIT_USAGE" "AWS does not know who you are" "$(tail -n 1 "$SCRATCH/account")" \
            "Log in (aws configure, aws sso login), or name a profile: AWS_PROFILE=… ${0##*/}"
    printf '%s' "$out"
}
the_region() {
    local found=${opt[region]:-$(aws configure get region 2>/dev/null || true)}
    [ -n "$found" ] || fail "$EXIT_USAGE" "no region is set" "Name one: --region us-east-1"
    printf '%s' "$found"
}
