#!/usr/bin/env bash
# Takes away all that a deployment made, and proves that nothing is left.
. "$(dirname "${BASH_SOURCE[0]}")/lib/deploy.sh"
. "$LIB/machine.sh"
. "$LIB/role.sh"
. "$LIB/inventory.sh"

about 'Takes away everything of a deployment: machine, disk, groups, roles, secrets, bucket, schedule.' \
    'It shows what will go, and wants the name of the deployment typed (or --yes). Afterwards it looks again:' \
    'what is still there is named, and the exit status is 1.'
switch unprotect 'also a machine that was launched with --protect'
parse "$@"
needs aws jq

account=$(account)
region=$(the_region)

agree() {
    local typed
    if [ "${opt[yes]}" = yes ] || dry; then return 0; fi
    [ -t 0 ] || fail "$EXIT_USAGE" "this wants the deployment's name typed, and there is no terminal" "Say --yes to agree beforehand."
    printf '  Type the name of the deployment to destroy it: ' >&2
    read -r typed
    [ "$typed" = "${opt[deployment]}" ] || fail "$EXIT_USAGE" 'that is not its name; nothing was changed'
}

check_others() {
    local others
    others=$(of_kind other "$list")
    if [ -n "$others" ]; then
        fail "$EXIT_USAGE" "other things carry this deployment's tag, and may need what would go; nothing was changed" "$others" \
            "SageMaker's: riva-390-sagemaker-destroy.sh --deployment ${opt[deployment]} first. Others: by hand."
    fi
}

check_protection() {
    local id
    for id in $(of_kind instance "$list"); do
        if [[ "$(ask ec2 describe-instance-attribute --instance-id "$id" --attribute disableApiTermination \
            --query DisableApiTermination.Value)" == [Tt]rue ]]; then
            [ "${opt[unprotect]}" = yes ] || fail "$EXIT_USAGE" "the machine $id is protected; nothing was changed" "If it shall go all the same: --unprotect"
            protected+=("$id")
        fi
    done
}

# gone CODES ARGUMENTS…: for wait_until: deletes, as soon as nothing else holds on to it; $refused where it will not
gone() {
    local codes=$1 err
    shift
    refused=''
    err=$(aws "$@" 2>&1 >/dev/null) && return 0
    waiting_for=$(error_code "$err")
    case $waiting_for in
    DependencyViolation | DeleteConflict | VolumeInUse | IncorrectState | InvalidNetworkInterface.InUse | ConflictException) return 1 ;;
    esac
    if [[ $err == *'currently in use'* ]]; then return 1; fi # an interface, with a code that says something else
    if [[ ! $err =~ \(($codes)\) ]]; then refused=$(tail -n 1 <<<"$err"); fi
}

# remove WHAT CODES ARGUMENTS…: deletes one thing, waiting for what holds on to it; what cannot go is named at the end
remove() {
    local what=$1 codes=$2
    shift 2
    if dry; then
        would aws "$@"
    elif ! wait_until "${DEPLOY_DELETE_LIMIT_S:-300}" "$what" gone "$codes" "$@"; then
        warn "$what stays: $waiting_for"
    elif [ -n "$refused" ]; then
        warn "$what stays: $refused"
    else
        made "$what is gone"
    fi
}

terminate() {
    local id
    for id in "${protected[@]}"; do told_or '' ec2 modify-instance-attribute --instance-id "$id" --no-disable-api-termination; done
    for id in $(of_kind instance "$list"); do
        told_or InvalidInstanceID.NotFound ec2 terminate-instances --instance-ids "$id"
    done
    for id in $(of_kind instance "$list"); do
        wait_until "${DEPLOY_TERMINATED_LIMIT_S:-900}" "the machine $id" ended "$id" ||
            fail "$EXIT_UNAVAILABLE" "the machine $id has not ended yet ($waiting_for)" "Run this again to go on."
        made "machine $id is gone"
    done
}
ended() {
    local state
    state=$(ask ec2 describe-instances --instance-ids "$1" --query 'Reservations[0].Instances[0].State.Name' 2>/dev/null) || return 0
    waiting_for="it is $state"
    [ "$state" = terminated ]
}

remove_role() {
    local name=$1 policy
    for policy in $(ask iam list-role-policies --role-name "$name" --query 'PolicyNames[]'); do
        told_or NoSuchEntity iam delete-role-policy --role-name "$name" --policy-name "$policy"
    done
    for policy in $(ask iam list-attached-role-policies --role-name "$name" --query 'AttachedPolicies[].PolicyArn'); do
        told_or NoSuchEntity iam detach-role-policy --role-name "$name" --policy-arn "$policy"
    done
    remove "role $name" NoSuchEntity iam delete-role --role-name "$name"
}

remove_bucket() {
    local count errors
    while ! dry; do
        aws s3api list-object-versions --bucket "$1" --max-items 500 --output json |
            jq -c '{Quiet: true, Objects: [(.Versions // [])[], (.DeleteMarkers // [])[] | {Key, VersionId}]}' >"$SCRATCH/objects.json"
        count=$(jq '.Objects | length' "$SCRATCH/objects.json")
        if ((count == 0)); then break; fi
        errors=$(ask s3api delete-objects --bucket "$1" --delete "file://$SCRATCH/objects.json" --query 'Errors[0].Message')
        if [ -n "$errors" ]; then warn "$1: $errors" && return 0; fi
    done
    remove "bucket $1" NoSuchBucket s3api delete-bucket --bucket "$1"
}

# each KIND COMMAND…: the command with the id of each thing of that kind as its last word
each() {
    local kind=$1 id
    shift
    for id in $(of_kind "$kind" "$list"); do "$@" "$id"; done
}
schedule() { remove "schedule $1" ResourceNotFoundException scheduler delete-schedule-group --name "$1"; }
elastic() { remove "address $1" InvalidAllocationID.NotFound ec2 release-address --allocation-id "$1"; }
# A disk and an interface go with their machine, and are not found then.
volume() { remove "volume $1" InvalidVolume.NotFound ec2 delete-volume --volume-id "$1"; }
interface() { remove "interface $1" InvalidNetworkInterfaceID.NotFound ec2 delete-network-interface --network-interface-id "$1"; }
group() { remove "security group $1" InvalidGroup.NotFound ec2 delete-security-group --group-id "$1"; }
profile() {
    told_or NoSuchEntity iam remove-role-from-instance-profile --instance-profile-name "$1" --role-name "$1"
    remove "instance profile $1" NoSuchEntity iam delete-instance-profile --instance-profile-name "$1"
}
secret() { remove "secret $1" ResourceNotFoundException secretsmanager delete-secret --secret-id "$1" --force-delete-without-recovery; }
parameter() { remove "parameter $1" ParameterNotFound ssm delete-parameter --name "$1"; }

nothing_left() {
    left=$(inventory) || return
    waiting_for=$(head -n 1 <<<"$left" | tr '\t' ' ')
    [ -z "$left" ]
}

step "Deployment ${opt[deployment]} ($region)"
protected=()
list=$(inventory)
if [ -z "$list" ]; then
    nothing_here "riva-${opt[deployment]}" "in $region"
    exit 0
fi
in_words "$list" >&2
check_others
check_protection
agree

step 'Taking it away'
each schedule schedule
terminate
each elastic-ip elastic
each volume volume
each interface interface
each group group
each profile profile
each role remove_role
each secret secret
each parameter parameter
each bucket remove_bucket
if dry; then exit 0; fi

step 'Looking again'
wait_until "${DEPLOY_PROOF_LIMIT_S:-60}" 'the end' nothing_left ||
    fail "$EXIT_FAILED" "not everything is gone" "$(in_words "$left")" "Run this again; what stays then, AWS names a reason for above."
made "nothing of '${opt[deployment]}' is left"
